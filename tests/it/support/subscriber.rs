//! A reader of Server-Sent Events that keeps every byte, so that it can be cut off at any of them.

use std::net::SocketAddr;

use bytes::Bytes;
use http::{HeaderMap, Request, StatusCode};
use http_body_util::{BodyExt as _, Empty};
use hyper::body::Incoming;
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::TcpStream;

/// One event, as the standard reads it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Event {
    pub(crate) id: String,
    pub(crate) name: String,
    pub(crate) data: String,
}

impl Event {
    pub(crate) fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.data).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    /// What the picture's id is now.
    pub(crate) fn new_id(&self) -> String {
        self.json()["payload"]["new_id"].as_str().unwrap_or_default().to_owned()
    }
}

/// An open stream.
pub(crate) struct Subscriber {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    body: Incoming,
    text: String,
    /// How many bytes have come.
    pub(crate) received: usize,
}

impl Subscriber {
    /// Subscribes, over a connection of its own.
    pub(crate) async fn new(address: SocketAddr, target: &str, headers: &[(&str, &str)]) -> Self {
        let stream = TcpStream::connect(address).await.expect("the proxy listens");
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.expect("it speaks HTTP");
        tokio::spawn(connection);
        let mut request = Request::get(target).header("host", address.to_string());
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.body(Empty::<Bytes>::new()).expect("a test's request is valid");
        let (parts, body) = sender.send_request(request).await.expect("the proxy answers").into_parts();
        Self { status: parts.status, headers: parts.headers, body, text: String::new(), received: 0 }
    }

    /// Subscribes over HTTP/2.
    pub(crate) async fn over_http2(address: SocketAddr, target: &str) -> Self {
        let stream = TcpStream::connect(address).await.expect("the proxy listens");
        let handshake = http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await;
        let (mut sender, connection) = handshake.expect("it speaks HTTP/2");
        tokio::spawn(connection);
        let request = Request::get(format!("http://{address}{target}")).body(Empty::<Bytes>::new());
        let answer = sender.send_request(request.expect("a test's request is valid")).await;
        let (parts, body) = answer.expect("the proxy answers").into_parts();
        // The connection ends with its sender.
        tokio::spawn(async move {
            let _sender = sender;
            std::future::pending::<()>().await;
        });
        Self { status: parts.status, headers: parts.headers, body, text: String::new(), received: 0 }
    }

    /// The same without headers; `None` where nobody listens any more.
    pub(crate) async fn try_new(address: SocketAddr, target: &str) -> Option<Self> {
        let stream = TcpStream::connect(address).await.ok()?;
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.ok()?;
        tokio::spawn(connection);
        let request = Request::get(target).header("host", address.to_string()).body(Empty::<Bytes>::new());
        let (parts, body) = sender.send_request(request.expect("a test's request is valid")).await.ok()?.into_parts();
        Some(Self { status: parts.status, headers: parts.headers, body, text: String::new(), received: 0 })
    }

    /// The next event, from a stream that may be broken off.
    pub(crate) async fn try_next(&mut self) -> Result<Option<Event>, hyper::Error> {
        loop {
            if let Some(event) = self.parsed() {
                return Ok(Some(event));
            }
            let Some(frame) = self.body.frame().await else { return Ok(None) };
            let bytes = frame?.into_data().expect("there are no trailers");
            self.text.push_str(std::str::from_utf8(&bytes).expect("the stream is text"));
        }
    }

    /// The next event; `None` when the stream has ended as it should.
    pub(crate) async fn next(&mut self) -> Option<Event> {
        loop {
            if let Some(event) = self.parsed() {
                return Some(event);
            }
            let bytes = self.chunk().await?;
            self.text.push_str(std::str::from_utf8(&bytes).expect("the stream is text"));
        }
    }

    /// The next bytes, as they come.
    pub(crate) async fn chunk(&mut self) -> Option<Bytes> {
        let frame = self.body.frame().await?.expect("the stream is not broken off");
        let bytes = frame.into_data().expect("there are no trailers");
        self.received += bytes.len();
        Some(bytes)
    }

    /// Takes the first event out of what has come, by the rules of HTML, section 9.2.6.
    fn parsed(&mut self) -> Option<Event> {
        let (event, rest) = parse(&self.text)?;
        self.text = rest;
        Some(event)
    }
}

/// The first whole event in a text, and what follows it.
pub(crate) fn parse(text: &str) -> Option<(Event, String)> {
    let mut event = Event { id: String::new(), name: String::new(), data: String::new() };
    let mut rest = text;
    while let Some((line, behind)) = rest.split_once('\n') {
        rest = behind;
        match line.split_once(": ").unwrap_or((line, "")) {
            ("", _) if event.data.is_empty() => event.name.clear(),
            ("", _) => return Some((event, rest.to_owned())),
            ("id", id) => id.clone_into(&mut event.id),
            ("event", name) => name.clone_into(&mut event.name),
            ("data", data) => event.data.push_str(data),
            _ => {}
        }
    }
    None
}
