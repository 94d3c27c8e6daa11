//! What hyper says to a request that it cannot read, in the gateway's envelope like every other error.
//!
//! A head with forbidden bytes, over the limit of bytes or of fields never becomes a request: hyper answers it with a status
//! alone, closes, and has no hook for it. While no answer is owed there is nothing else that HTTP/1 could say, so these answers
//! are known where they are written, and get their body there. It costs a request nothing.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::AsyncWrite;

use super::reply;

/// How hyper says that nothing follows.
const NO_BODY: &str = "content-length: 0\r\n";

/// An answer of hyper's, with a body.
pub(super) struct Refusal {
    bytes: Vec<u8>,
    written: usize,
}

impl Refusal {
    /// The same with a body, if this is a refusal that hyper writes.
    pub(super) fn of(bytes: &[u8]) -> Option<Self> {
        let head = std::str::from_utf8(bytes).ok()?;
        let status = head.strip_prefix("HTTP/1.1 ").or_else(|| head.strip_prefix("HTTP/1.0 "))?.get(..3)?;
        let (code, message) = match status {
            "400" => ("BAD_REQUEST", "this is no request that can be read."),
            "414" => ("URI_TOO_LONG", "the address is longer than 8 KiB."),
            "431" => {
                ("REQUEST_HEADER_FIELDS_TOO_LARGE", "the request's head is longer than 64 KiB or has over 100 fields.")
            }
            _ => return None,
        };
        let (before, after) = head.split_once(NO_BODY)?;
        let body = reply::envelope(code, message, None);
        let about = "content-type: application/json\r\ncache-control: no-store\r\n";
        let bytes = format!("{before}{about}content-length: {}\r\n{after}{body}", body.len()).into_bytes();
        Some(Self { bytes, written: 0 })
    }

    /// Writes it in the place of the `length` bytes that hyper wrote.
    pub(super) fn poll_write(
        &mut self,
        mut stream: Pin<&mut impl AsyncWrite>,
        context: &mut Context<'_>,
        length: usize,
    ) -> Poll<io::Result<usize>> {
        while self.written < self.bytes.len() {
            match ready!(stream.as_mut().poll_write(context, &self.bytes[self.written..]))? {
                0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                count => self.written += count,
            }
        }
        Poll::Ready(Ok(length))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_gets_a_body_and_nothing_else_does() {
        let said = b"HTTP/1.1 431 Request Header Fields Too Large\r\nconnection: close\r\ncontent-length: 0\r\n\r\n";
        let refusal = String::from_utf8(Refusal::of(said).unwrap().bytes).unwrap();
        let (head, body) = refusal.split_once("\r\n\r\n").unwrap();
        assert!(head.starts_with("HTTP/1.1 431 ") && head.contains("connection: close\r\n"), "{head}");
        assert!(head.ends_with(&format!("content-length: {}", body.len())), "{head}");
        assert!(
            body.starts_with(r#"{"code":"REQUEST_HEADER_FIELDS_TOO_LARGE","#) && body.ends_with(r#""results":null}"#)
        );
        for other in ["HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n", "HTTP/1.1 431 \r\n\r\n", "\0\0\x06\x04", ""] {
            assert!(Refusal::of(other.as_bytes()).is_none(), "{other:?}");
        }
    }
}
