//! A client that can hang up: one request over a bare socket.

use std::net::SocketAddr;

use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;

/// Has asked, and waits.
pub(crate) struct Caller {
    socket: TcpStream,
}

impl Caller {
    /// Asks for one person's avatar. The request is on its way when this returns.
    pub(crate) async fn asks(address: SocketAddr, phone: &str) -> Self {
        let mut socket = TcpStream::connect(address).await.expect("the proxy listens");
        let request = format!("GET /user/avatar?phone={phone} HTTP/1.1\r\nhost: {address}\r\n\r\n");
        socket.write_all(request.as_bytes()).await.expect("the proxy reads");
        Self { socket }
    }

    /// In good order: as far as TCP tells, it may be listening still.
    pub(crate) fn hangs_up(self) {
        drop(self.socket);
    }

    /// With a reset: nobody is there any more.
    pub(crate) fn breaks_off(self) {
        self.socket.set_zero_linger().expect("it is open");
        drop(self.socket);
    }
}
