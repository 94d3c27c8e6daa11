//! Answers on the wire: well-formed ones, and those that no HTTP library would send.
//!
//! A well-formed answer goes through hyper. For the others the connection is taken from hyper after it has read the request,
//! and the bytes are written by hand; after that the connection is over, one way or another.

use std::io;
use std::time::Duration;

use bytes::Bytes;
use http::header::{self, HeaderName, HeaderValue};
use http::{HeaderMap, Response, StatusCode};
use http_body_util::Full;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

/// What is sent in return for a request.
#[derive(Debug)]
pub(super) enum Answer {
    /// An HTTP answer.
    Http(Parts),
    /// The connection's end.
    Ending(Ending),
    /// Nothing, ever.
    Never,
}

/// A whole HTTP answer.
#[derive(Debug)]
pub(super) struct Parts {
    pub(super) status: u16,
    pub(super) headers: HeaderMap,
    pub(super) body: Bytes,
}

impl Parts {
    pub(super) fn new(status: u16, content_type: &str, body: impl Into<Bytes>) -> Self {
        Self { status, headers: HeaderMap::new(), body: body.into() }.with(header::CONTENT_TYPE, content_type)
    }

    pub(super) fn json(status: u16, body: impl Into<Bytes>) -> Self {
        Self::new(status, "application/json", body)
    }

    pub(super) fn text(status: u16, body: impl Into<Bytes>) -> Self {
        Self::new(status, "text/plain; charset=utf-8", body)
    }

    /// A header more. A value that HTTP cannot carry is left out.
    pub(super) fn with(mut self, name: HeaderName, value: &str) -> Self {
        if let Ok(value) = HeaderValue::from_str(value) {
            self.headers.insert(name, value);
        }
        self
    }

    pub(super) fn into_response(self) -> Response<Full<Bytes>> {
        let mut response = Response::new(Full::new(self.body));
        *response.status_mut() = StatusCode::from_u16(self.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        *response.headers_mut() = self.headers;
        response
    }

    /// Head and body as bytes; `length` is the body length that the head claims.
    fn head(&self, length: Length) -> Vec<u8> {
        let mut head = format!("HTTP/1.1 {} Reply\r\n", self.status).into_bytes();
        for (name, value) in &self.headers {
            head.extend_from_slice(name.as_str().as_bytes());
            head.extend_from_slice(b": ");
            head.extend_from_slice(value.as_bytes());
            head.extend_from_slice(b"\r\n");
        }
        match length {
            Length::Honest => head.extend_from_slice(format!("content-length: {}\r\n", self.body.len()).as_bytes()),
            Length::Chunked => head.extend_from_slice(b"transfer-encoding: chunked\r\n"),
        }
        head.extend_from_slice(b"\r\n");
        head
    }

    fn halved(&self) -> Bytes {
        let mut bytes = self.head(Length::Honest);
        bytes.extend_from_slice(&self.body[..self.body.len() / 2]);
        bytes.into()
    }

    /// Half the body, then the end.
    pub(super) fn truncated(&self) -> Ending {
        Ending { start: self.halved(), then: Then::Close }
    }

    /// Half the body, then nothing.
    pub(super) fn stalled(&self) -> Ending {
        Ending { start: self.halved(), then: Then::Stay }
    }

    /// Byte by byte.
    pub(super) fn dripping(&self, every: Duration) -> Ending {
        let mut bytes = self.head(Length::Honest);
        bytes.extend_from_slice(&self.body);
        Ending { start: Bytes::new(), then: Then::Drip(bytes.into(), every) }
    }

    /// The body, then blanks without end, in chunks.
    pub(super) fn endless(&self) -> Ending {
        let mut bytes = self.head(Length::Chunked);
        bytes.extend_from_slice(&chunk(&self.body));
        Ending { start: bytes.into(), then: Then::Repeat(chunk(&[b' '; 8192]).into()) }
    }
}

#[derive(Clone, Copy)]
enum Length {
    Honest,
    Chunked,
}

fn chunk(bytes: &[u8]) -> Vec<u8> {
    [format!("{:x}\r\n", bytes.len()).as_bytes(), bytes, b"\r\n"].concat()
}

/// Bytes written by hand, and how the connection ends after them.
#[derive(Debug)]
pub(super) struct Ending {
    pub(super) start: Bytes,
    pub(super) then: Then,
}

#[derive(Debug)]
pub(super) enum Then {
    /// FIN.
    Close,
    /// RST.
    Reset,
    /// Nothing until the other side goes away.
    Stay,
    /// One byte at a time, then FIN.
    Drip(Bytes, Duration),
    /// The same again until the other side goes away.
    Repeat(Bytes),
}

impl Ending {
    pub(super) fn reset() -> Self {
        Self { start: Bytes::new(), then: Then::Reset }
    }

    pub(super) fn close() -> Self {
        Self { start: Bytes::new(), then: Then::Close }
    }

    /// Writes it. An error means that the other side went away first, which is as good an end as any.
    pub(super) async fn play(self, mut stream: TcpStream) -> io::Result<()> {
        stream.set_nodelay(true)?;
        stream.write_all(&self.start).await?;
        match self.then {
            Then::Close => stream.shutdown().await,
            Then::Reset => stream.set_zero_linger(),
            Then::Stay => gone(&mut stream).await,
            Then::Drip(bytes, every) => {
                for byte in bytes {
                    tokio::time::sleep(every).await;
                    stream.write_u8(byte).await?;
                }
                stream.shutdown().await
            }
            Then::Repeat(bytes) => loop {
                stream.write_all(&bytes).await?;
            },
        }
    }
}

/// Waits until the other side has closed the connection.
async fn gone(stream: &mut TcpStream) -> io::Result<()> {
    tokio::io::copy(stream, &mut tokio::io::sink()).await.map(drop)
}
