//! Requests and answers as bytes.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use crate::Outcome;

pub(crate) const USER: &str = "ada";
pub(crate) const PASSWORD: &str = "correct-horse-battery";
pub(crate) const DEVICE: &str = "main";

/// Digits of a key in a request.
const DIGITS: usize = 9;

/// What stands before them.
const COUNTRY: &str = "6281";

/// The value of `Authorization`.
pub(crate) fn authorization() -> String {
    format!("Basic {}", STANDARD.encode(format!("{USER}:{PASSWORD}")))
}

/// A request for an avatar, whose key can be changed in place.
pub(crate) struct Request {
    bytes: Vec<u8>,
    digits: usize,
}

impl Request {
    /// The number that is asked for by this key.
    pub(crate) fn phone(key: u64) -> String {
        format!("{COUNTRY}{key:0DIGITS$}")
    }

    pub(crate) fn new(address: SocketAddr) -> Self {
        let start = format!("GET /user/avatar?phone={COUNTRY}");
        let authorization = authorization();
        let bytes = format!(
            "{start}{:0DIGITS$}&is_preview=true HTTP/1.1\r\nHost: {address}\r\nAuthorization: {authorization}\r\nX-Device-Id: \
             {DEVICE}\r\n\r\n",
            0
        );
        Self { bytes: bytes.into_bytes(), digits: start.len() }
    }

    /// The request for this key.
    pub(crate) fn of(&mut self, key: u64) -> &[u8] {
        let mut rest = key;
        for digit in self.bytes[self.digits..self.digits + DIGITS].iter_mut().rev() {
            *digit = b'0' + u8::try_from(rest % 10).expect("a digit");
            rest /= 10;
        }
        &self.bytes
    }
}

/// What the head of an answer says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Head {
    /// Bytes of the head, with the empty line.
    pub(crate) bytes: usize,
    pub(crate) status: u16,
    /// Bytes of the body.
    pub(crate) length: usize,
}

impl Head {
    /// Reads the head at the beginning of `bytes`; `None` while it is not whole.
    pub(crate) fn read(bytes: &[u8]) -> Outcome<Option<Self>> {
        const LENGTH: &[u8] = b"content-length:";
        let mut start = 0;
        let (mut status, mut length) = (None, None);
        for end in memchr::memchr_iter(b'\n', bytes) {
            let line = bytes[start..end].trim_ascii_end();
            start = end + 1;
            if status.is_none() {
                let code = line.strip_prefix(b"HTTP/1.1 ").and_then(|rest| rest.get(..3)).and_then(number);
                status = Some(code.ok_or_else(|| format!("not an HTTP/1.1 answer: {}", line.escape_ascii()))?);
            } else if line.is_empty() {
                let status = u16::try_from(status.unwrap_or_default())?;
                let length = length.ok_or_else(|| format!("no content-length: {}", bytes.escape_ascii()))?;
                return Ok(Some(Self { bytes: start, status, length }));
            } else if let Some((name, value)) = line.split_at_checked(LENGTH.len())
                && name.eq_ignore_ascii_case(LENGTH)
            {
                length = number(value.trim_ascii());
            }
        }
        Ok(None)
    }
}

fn number(digits: &[u8]) -> Option<usize> {
    std::str::from_utf8(digits).ok()?.parse().ok()
}

/// One whole answer, head and body, on a connection of its own.
pub(crate) fn exchange(address: SocketAddr, request: &[u8]) -> Outcome<(Head, Vec<u8>)> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(Duration::from_secs(60)))?;
    stream.write_all(request)?;
    let (mut answer, mut buffer) = (Vec::new(), [0; 16 * 1024]);
    loop {
        let read = stream.read(&mut buffer)?;
        if read == 0 {
            return Err(format!("an answer was cut off: {}", answer.escape_ascii()).into());
        }
        answer.extend_from_slice(&buffer[..read]);
        if let Some(head) = Head::read(&answer)?
            && answer.len() >= head.bytes + head.length
        {
            return Ok((head, answer));
        }
    }
}

/// The value of one of avatar-proxy's metrics.
pub(crate) fn metric(address: SocketAddr, name: &str) -> Outcome<u64> {
    let authorization = authorization();
    let request = format!("GET /metrics HTTP/1.1\r\nHost: {address}\r\nAuthorization: {authorization}\r\n\r\n");
    let (head, answer) = exchange(address, request.as_bytes())?;
    let text = std::str::from_utf8(&answer[head.bytes..])?;
    let value = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.parse().ok());
    value.ok_or_else(|| format!("there is no metric {name}").into())
}
