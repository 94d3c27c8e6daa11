//! A connection to an address that has been checked, and to no other.
//!
//! The rules:
//! * A name is resolved once for a connection, each address that comes of it is checked, and those very addresses are
//!   connected to. Nobody resolves a second time, so that a second answer can do no harm.
//! * An address in the URL itself goes the same way.
//! * All of it, TLS included, has one bound: hyper may go on with a connection that nobody waits for any more, and nobody else
//!   would end that.

use std::net::IpAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use http::Uri;
use http::uri::Scheme;
use hyper_rustls::{HttpsConnector, MaybeHttpsStream};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::time::timeout;
use tower_service::Service;

use super::address::{self, Class};
use super::network::Network;
use super::{Reach, url};

/// Most addresses of one name that are tried.
const TRIES_MAX: usize = 6;

type Error = Box<dyn std::error::Error + Send + Sync>;
type Connecting<S> = Pin<Box<dyn Future<Output = Result<S, Error>> + Send>>;

/// Why there is no connection.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub(super) enum Unconnected {
    #[error("the address is refused: {0}")]
    Refused(Class),
    #[error("the name has no address")]
    Unresolved,
    #[error("nobody accepts a connection")]
    Unreachable,
}

/// Bounds the time of connections that another connector makes.
#[derive(Clone, Debug)]
pub(super) struct Bounded {
    pub(super) inner: HttpsConnector<Checked>,
    pub(super) timeout: Duration,
}

impl Service<Uri> for Bounded {
    type Response = MaybeHttpsStream<TokioIo<TcpStream>>;
    type Error = Error;
    type Future = Connecting<Self::Response>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, url: Uri) -> Self::Future {
        let connecting = timeout(self.timeout, self.inner.call(url));
        Box::pin(async move { connecting.await.unwrap_or_else(|_| Err(Unconnected::Unreachable.into())) })
    }
}

/// Makes connections, without TLS.
#[derive(Clone)]
pub(super) struct Checked {
    pub(super) network: Arc<dyn Network>,
    pub(super) own: Arc<[IpAddr]>,
    pub(super) reach: Reach,
    pub(super) timeout: Duration,
}

impl std::fmt::Debug for Checked {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Checked").field("reach", &self.reach).finish_non_exhaustive()
    }
}

impl Service<Uri> for Checked {
    type Response = TokioIo<TcpStream>;
    type Error = Unconnected;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Unconnected>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Unconnected>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, url: Uri) -> Self::Future {
        let this = self.clone();
        Box::pin(async move { this.connect(&url).await.map(TokioIo::new) })
    }
}

impl Checked {
    async fn connect(&self, url: &Uri) -> Result<TcpStream, Unconnected> {
        let host = url.host().unwrap_or_default();
        let port = url.port_u16().unwrap_or(if url.scheme() == Some(&Scheme::HTTPS) { 443 } else { 80 });
        let mut addresses = match url::literal(host) {
            Some(address) => vec![address],
            None => self.network.resolve(host).await.map_err(|_| Unconnected::Unresolved)?,
        };
        let mut refusal = None;
        addresses.retain(|address| {
            let class = self.refused(*address);
            refusal = refusal.or(class);
            class.is_none()
        });
        addresses.truncate(TRIES_MAX);
        let tries = match u32::try_from(addresses.len()) {
            Ok(0) | Err(_) => return Err(refusal.map_or(Unconnected::Unresolved, Unconnected::Refused)),
            Ok(tries) => tries,
        };
        // An address that swallows everything leaves time for the next one.
        for address in addresses {
            if let Ok(Ok(stream)) = timeout(self.timeout / tries, self.network.connect((address, port).into())).await {
                // What is sent is sent whole; there is nothing to wait for.
                let _ = stream.set_nodelay(true);
                return Ok(stream);
            }
        }
        Err(Unconnected::Unreachable)
    }

    fn refused(&self, address: IpAddr) -> Option<Class> {
        match self.reach {
            Reach::Anywhere => None,
            Reach::Public => address::refused(address).or_else(|| self.is_own(address).then_some(Class::Own)),
        }
    }

    /// Whatever the port: what a machine offers to itself alone often trusts whoever speaks to it from there.
    fn is_own(&self, address: IpAddr) -> bool {
        let own = |address: IpAddr| self.own.contains(&address) || self.network.is_own(address);
        own(address) || address::carried(address).is_some_and(|carried| own(carried.into()))
    }
}
