//! A network in which a test says what names mean and where addresses lead. Every connection that is tried is remembered.

use std::collections::{HashMap, VecDeque};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use avatar_proxy::outbound::network::Network;
use tokio::net::TcpStream;

/// What the next question about a name is answered with; the last answer stays.
type Answers = VecDeque<Vec<IpAddr>>;

#[derive(Default)]
pub(crate) struct Map {
    names: Mutex<HashMap<String, Answers>>,
    places: Mutex<HashMap<IpAddr, SocketAddr>>,
    swallowed: Mutex<Vec<IpAddr>>,
    own: Mutex<Vec<IpAddr>>,
    tried: Mutex<Vec<IpAddr>>,
}

impl Map {
    pub(crate) fn new() -> Arc<Self> {
        Arc::default()
    }

    /// The name has these addresses when it is asked for the first, the second, ... and every further time.
    pub(crate) fn name(&self, name: &str, answers: &[&[&str]]) {
        let answers = answers.iter().map(|addresses| addresses.iter().map(|address| ip(address)).collect());
        self.names.lock().unwrap().insert(name.to_owned(), answers.collect());
    }

    /// The address leads to this socket. What leads nowhere refuses connections.
    pub(crate) fn place(&self, address: &str, to: SocketAddr) {
        self.places.lock().unwrap().insert(ip(address), to);
    }

    /// Whoever connects to the address hears nothing.
    pub(crate) fn swallow(&self, address: &str) {
        self.swallowed.lock().unwrap().push(ip(address));
    }

    /// The address is this machine's.
    pub(crate) fn own(&self, address: &str) {
        self.own.lock().unwrap().push(ip(address));
    }

    /// What was connected to, or tried.
    pub(crate) fn tried(&self) -> Vec<String> {
        self.tried.lock().unwrap().iter().map(IpAddr::to_string).collect()
    }
}

#[track_caller]
fn ip(text: &str) -> IpAddr {
    text.parse().expect("an address")
}

#[async_trait]
impl Network for Map {
    async fn resolve(&self, name: &str) -> io::Result<Vec<IpAddr>> {
        let mut names = self.names.lock().unwrap();
        let answers = names.get_mut(name).ok_or(io::ErrorKind::NotFound)?;
        Ok(if answers.len() > 1 { answers.pop_front() } else { answers.front().cloned() }.unwrap_or_default())
    }

    async fn connect(&self, address: SocketAddr) -> io::Result<TcpStream> {
        self.tried.lock().unwrap().push(address.ip());
        if self.swallowed.lock().unwrap().contains(&address.ip()) {
            std::future::pending::<()>().await;
        }
        let place = self.places.lock().unwrap().get(&address.ip()).copied();
        TcpStream::connect(place.ok_or(io::ErrorKind::ConnectionRefused)?).await
    }

    fn is_own(&self, address: IpAddr) -> bool {
        self.own.lock().unwrap().contains(&address)
    }
}
