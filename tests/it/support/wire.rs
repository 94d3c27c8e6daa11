//! A bare connection: bytes go out as a test writes them, and answers are taken apart one by one.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::timeout;

/// No answer takes this long, however busy the machine is.
const PATIENCE: Duration = Duration::from_secs(20);

/// One connection.
pub(crate) struct Wire {
    stream: TcpStream,
    held: Vec<u8>,
}

/// One answer.
#[derive(Debug)]
pub(crate) struct Said {
    pub(crate) status: u16,
    /// In lower case.
    pub(crate) head: String,
    pub(crate) body: String,
}

impl Wire {
    pub(crate) async fn open(address: SocketAddr) -> Self {
        Self { stream: TcpStream::connect(address).await.expect("the proxy listens"), held: vec![] }
    }

    /// One that takes in little before it is read.
    pub(crate) async fn narrow(address: SocketAddr) -> Self {
        let socket = TcpSocket::new_v4().expect("a socket");
        socket.set_recv_buffer_size(4096).expect("a size");
        Self { stream: socket.connect(address).await.expect("the proxy listens"), held: vec![] }
    }

    /// Sends bytes. That the proxy has had enough of them is no mistake of the test's.
    pub(crate) async fn send(&mut self, bytes: impl AsRef<[u8]>) {
        let _ = timeout(PATIENCE, self.stream.write_all(bytes.as_ref())).await.expect("somebody reads");
    }

    /// Says that nothing more will be sent, and goes on listening.
    pub(crate) async fn finish_sending(&mut self) {
        let _ = self.stream.shutdown().await;
    }

    /// The next answer to a request other than HEAD; `None` when the connection ends without one.
    pub(crate) async fn answer(&mut self) -> Option<Said> {
        let end = loop {
            if let Some(at) = self.held.windows(4).position(|bytes| bytes == b"\r\n\r\n") {
                break at + 4;
            }
            if !self.read().await {
                assert!(self.held.is_empty(), "half an answer: {:?}", String::from_utf8_lossy(&self.held));
                return None;
            }
        };
        let head = String::from_utf8(self.held.drain(..end).collect()).expect("a head is text").to_ascii_lowercase();
        let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).expect("a status");
        let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")?.parse().ok()).unwrap_or(0);
        while self.held.len() < length {
            assert!(self.read().await, "a body is cut off: {head}");
        }
        let body = String::from_utf8(self.held.drain(..length).collect()).expect("a body is text");
        Some(Said { status, head, body })
    }

    /// Everything that comes until the connection ends, which it must.
    pub(crate) async fn rest(&mut self) -> Vec<u8> {
        while self.read().await {}
        std::mem::take(&mut self.held)
    }

    /// Reads on; `false` at the end, be it in good order or not.
    async fn read(&mut self) -> bool {
        let read = timeout(PATIENCE, self.stream.read_buf(&mut self.held)).await;
        read.expect("neither an answer nor an end comes").is_ok_and(|count| count > 0)
    }
}
