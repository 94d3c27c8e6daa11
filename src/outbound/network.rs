//! The network: names, connections, and which addresses are this machine's. A test puts another in its place.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};

use async_trait::async_trait;
use tokio::net::{TcpStream, lookup_host};

/// What [`Outbound`](super::Outbound) asks of a network. It decides nothing: what is passed to `connect` has been checked.
#[async_trait]
pub trait Network: Send + Sync + 'static {
    /// The addresses of a name, the best first.
    ///
    /// # Errors
    /// When there are none, or nobody could be asked.
    async fn resolve(&self, name: &str) -> io::Result<Vec<IpAddr>>;

    /// A connection to exactly this address.
    ///
    /// # Errors
    /// What the operating system says.
    async fn connect(&self, address: SocketAddr) -> io::Result<TcpStream>;

    /// Whether this machine is behind the address.
    fn is_own(&self, address: IpAddr) -> bool;
}

/// The operating system's.
#[derive(Clone, Copy, Debug)]
pub struct System;

#[async_trait]
impl Network for System {
    async fn resolve(&self, name: &str) -> io::Result<Vec<IpAddr>> {
        // Some resolvers want to know a port.
        Ok(lookup_host((name, 0)).await?.map(|address| address.ip()).collect())
    }

    async fn connect(&self, address: SocketAddr) -> io::Result<TcpStream> {
        TcpStream::connect(address).await
    }

    fn is_own(&self, address: IpAddr) -> bool {
        // The system chooses a sender for the way there, which is the address itself if the way is none. Nothing is sent.
        let unspecified: IpAddr = match address {
            IpAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
            IpAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
        };
        let sender = || {
            let socket = UdpSocket::bind((unspecified, 0))?;
            socket.connect((address, 9))?;
            socket.local_addr()
        };
        sender().is_ok_and(|sender| sender.ip() == address)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_machine_knows_its_own_addresses() {
        assert!(System.is_own(Ipv4Addr::LOCALHOST.into()));
        assert!(!System.is_own(Ipv4Addr::new(1, 1, 1, 1).into()));
    }

    #[tokio::test]
    async fn a_name_is_resolved_without_a_port() {
        assert!(System.resolve("localhost").await.unwrap().iter().all(IpAddr::is_loopback));
        assert!(System.resolve("127.0.0.1").await.unwrap().contains(&Ipv4Addr::LOCALHOST.into()));
    }
}
