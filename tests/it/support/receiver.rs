//! Somebody who is called: a server that answers as a test tells it to, in every way that one can go wrong, and remembers what
//! it was sent.

use std::collections::VecDeque;
use std::fmt;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use http::header::{CONTENT_LENGTH, HeaderMap, HeaderName, HeaderValue};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::task::{JoinHandle, JoinSet};
use tokio_rustls::TlsAcceptor;

use super::authority::Authority;
use super::eventually::eventually;

/// One request, as it came.
#[derive(Clone, Debug)]
pub(crate) struct Request {
    pub(crate) method: String,
    /// With its query.
    pub(crate) path: String,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Vec<u8>,
    /// Which connection it came on; the first is 1.
    pub(crate) connection: usize,
}

impl Request {
    /// A header's value, or nothing.
    #[track_caller]
    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().expect("a header is text"))
    }
}

/// What is sent in return for a request.
#[derive(Clone)]
pub(crate) struct Reply {
    bytes: Vec<u8>,
    then: Then,
    /// How long it is thought about.
    after: Duration,
}

#[derive(Clone)]
enum Then {
    /// The next request.
    Stay,
    Close,
    Reset,
    /// Nothing more, until the caller goes.
    Hang,
    /// These bytes, one at a time.
    Drip(Vec<u8>, Duration),
    /// These bytes, again and again.
    Repeat(Vec<u8>),
}

impl Reply {
    fn of(bytes: impl Into<Vec<u8>>, then: Then) -> Self {
        Self { bytes: bytes.into(), then, after: Duration::ZERO }
    }

    /// A whole answer.
    pub(crate) fn new(status: u16, headers: &[(&str, &str)], body: &str) -> Self {
        Self::of(Self::written(status, headers, body.len(), body), Then::Stay)
    }

    /// A whole answer with nothing in it.
    pub(crate) fn status(status: u16) -> Self {
        Self::new(status, &[], "")
    }

    fn written(status: u16, headers: &[(&str, &str)], length: usize, body: &str) -> Vec<u8> {
        let mut lines = vec![format!("HTTP/1.1 {status} Reply")];
        lines.extend(headers.iter().map(|(name, value)| format!("{name}: {value}")));
        lines.push(format!("content-length: {length}"));
        (lines.join("\r\n") + "\r\n\r\n" + body).into_bytes()
    }

    /// An answer that says it is longer than it is, and the end.
    pub(crate) fn cut_off(status: u16) -> Self {
        Self::of(Self::written(status, &[], 100, "{}"), Then::Close)
    }

    /// An answer that says it is shorter than it is.
    pub(crate) fn overlong(status: u16) -> Self {
        Self::of(Self::written(status, &[], 1, "{\"more\":\"than one\"}"), Then::Stay)
    }

    /// A body without end, as fast as it is taken.
    pub(crate) fn endless(status: u16) -> Self {
        let head = format!("HTTP/1.1 {status} Reply\r\ntransfer-encoding: chunked\r\n\r\n");
        let chunk = [b"2000\r\n", &[b'x'; 0x2000][..], b"\r\n"].concat();
        Self::of(head, Then::Repeat(chunk))
    }

    /// A whole answer that does not say beforehand how long it is.
    pub(crate) fn chunked(status: u16, body: &str) -> Self {
        let head = format!("HTTP/1.1 {status} Reply\r\ntransfer-encoding: chunked\r\n\r\n");
        Self::of(format!("{head}{:x}\r\n{body}\r\n0\r\n\r\n", body.len()), Then::Stay)
    }

    /// The same bytes without end.
    pub(crate) fn forever(bytes: impl Into<Vec<u8>>) -> Self {
        Self::of("", Then::Repeat(bytes.into()))
    }

    /// A head, and a body that comes byte by byte.
    pub(crate) fn slow_body(status: u16, every: Duration) -> Self {
        let body = "x".repeat(10_000);
        Self::of(Self::written(status, &[], body.len(), ""), Then::Drip(body.into(), every))
    }

    /// A head that comes byte by byte.
    pub(crate) fn slow_head(status: u16, every: Duration) -> Self {
        let head = Self::written(status, &[("x-padding", &"x".repeat(10_000))], 0, "");
        Self::of("", Then::Drip(head, every))
    }

    /// Half a head, and the end.
    pub(crate) fn half_a_head() -> Self {
        Self::of("HTTP/1.1 200 OK\r\ncontent-ty", Then::Close)
    }

    /// Any bytes, and the end.
    pub(crate) fn raw(bytes: impl Into<Vec<u8>>) -> Self {
        Self::of(bytes, Then::Close)
    }

    /// The end.
    pub(crate) fn close() -> Self {
        Self::raw("")
    }

    /// The end, at once and without manners.
    pub(crate) fn reset() -> Self {
        Self::of("", Then::Reset)
    }

    /// Nothing, ever.
    pub(crate) fn hang() -> Self {
        Self::of("", Then::Hang)
    }

    /// The same, and these bytes behind it, though nothing in it says so.
    pub(crate) fn and(mut self, bytes: &[u8]) -> Self {
        self.bytes.extend_from_slice(bytes);
        self
    }

    /// The same, and the end behind it, though nothing in it says so.
    pub(crate) fn and_close(mut self) -> Self {
        self.then = Then::Close;
        self
    }

    /// The same, so much later.
    pub(crate) fn after(mut self, pause: Duration) -> Self {
        self.after = pause;
        self
    }
}

/// Its beginning.
impl fmt::Debug for Reply {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let then = match self.then {
            Then::Stay => "the next",
            Then::Close => "the end",
            Then::Reset => "a reset",
            Then::Hang => "nothing",
            Then::Drip(..) => "drops",
            Then::Repeat(_) => "more and more",
        };
        let begins: String = String::from_utf8_lossy(&self.bytes).chars().take(60).collect();
        write!(f, "{begins:?} and {then}")
    }
}

type Script = Box<dyn FnMut(&Request) -> Reply + Send>;

#[derive(Default)]
struct State {
    /// What is answered next, before the script is asked.
    next: VecDeque<Reply>,
    script: Option<Script>,
    requests: Vec<Request>,
    connections: usize,
    open: usize,
    most_open: usize,
    /// What whoever connects is sent, and nothing else.
    greeting: Option<Vec<u8>>,
}

#[derive(Clone, Default)]
struct Shared(Arc<Mutex<State>>);

impl Shared {
    fn with<T>(&self, look: impl FnOnce(&mut State) -> T) -> T {
        look(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// Listens on a free port of this machine until it is dropped. Answers 200 until it is told otherwise.
pub(crate) struct Receiver {
    address: SocketAddr,
    tls: Option<TlsAcceptor>,
    shared: Shared,
    /// While it is there.
    running: Option<JoinHandle<()>>,
    /// While it is away: keeps the port, and refuses connections.
    absent: Option<TcpSocket>,
}

impl Receiver {
    pub(crate) async fn new() -> Self {
        Self::listening(None).await
    }

    /// One with `https`, by a certificate for these names.
    pub(crate) async fn with_tls(authority: &Authority, names: &[&str]) -> Self {
        Self::listening(Some(authority.signs(names).acceptor())).await
    }

    async fn listening(tls: Option<TlsAcceptor>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let mut receiver = Self { address, tls, shared: Shared::default(), running: None, absent: None };
        receiver.accept_on(listener);
        receiver
    }

    fn accept_on(&mut self, listener: TcpListener) {
        let (tls, shared) = (self.tls.clone(), self.shared.clone());
        self.running = Some(tokio::spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                let number = shared.with(|state| {
                    state.open += 1;
                    state.most_open = state.most_open.max(state.open);
                    state.connections += 1;
                    state.connections
                });
                let open = Open(shared.clone());
                let tls = tls.clone();
                connections.spawn(async move {
                    let greeting = open.0.with(|state| state.greeting.clone());
                    match tls {
                        _ if greeting.is_some() => greet(stream, &greeting.unwrap_or_default()).await,
                        None => serve(stream, number, &open.0, |stream| stream).await,
                        Some(tls) => {
                            let Ok(stream) = tls.accept(stream).await else { return };
                            serve(stream, number, &open.0, |stream| stream.get_ref().0).await;
                        }
                    }
                });
            }
        }));
    }

    /// Goes away: connections end, and new ones are refused.
    pub(crate) async fn leave(&mut self) {
        if let Some(running) = self.running.take() {
            running.abort();
            let _ = running.await;
        }
        let socket = TcpSocket::new_v4().unwrap();
        socket.set_reuseaddr(true).unwrap();
        socket.bind(self.address).expect("nobody took the port");
        self.absent = Some(socket);
    }

    /// Is there again, at the same address.
    pub(crate) fn come_back(&mut self) {
        let socket = self.absent.take().expect("it is away");
        self.accept_on(socket.listen(128).unwrap());
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// A URL that leads here by the address.
    pub(crate) fn url(&self, path: &str) -> String {
        self.url_by("127.0.0.1", path)
    }

    /// A URL that leads here by a name, if that name does.
    pub(crate) fn url_by(&self, host: &str, path: &str) -> String {
        let scheme = if self.tls.is_some() { "https" } else { "http" };
        format!("{scheme}://{host}:{}{path}", self.address.port())
    }

    /// The same reply from now on. Says how many requests came before.
    pub(crate) fn always(&self, reply: Reply) -> usize {
        self.answers(move |_| reply.clone())
    }

    /// From now on, whatever this says. Says how many requests came before.
    pub(crate) fn answers(&self, script: impl FnMut(&Request) -> Reply + Send + 'static) -> usize {
        self.shared.with(|state| {
            state.script = Some(Box::new(script));
            state.requests.len()
        })
    }

    /// Whoever connects is sent these bytes at once and then the end; with `None`, is served again.
    pub(crate) fn greets(&self, greeting: Option<&[u8]>) {
        self.shared.with(|state| state.greeting = greeting.map(<[u8]>::to_vec));
    }

    /// These replies to the next requests, one each, before those that it always gives.
    pub(crate) fn next(&self, replies: impl IntoIterator<Item = Reply>) {
        self.shared.with(|state| state.next.extend(replies));
    }

    /// What it was sent, in the order in which it came.
    pub(crate) fn requests(&self) -> Vec<Request> {
        self.shared.with(|state| state.requests.clone())
    }

    /// How many connections came, with or without a request.
    pub(crate) fn connections(&self) -> usize {
        self.shared.with(|state| state.connections)
    }

    /// How many connections are open.
    pub(crate) fn open(&self) -> usize {
        self.shared.with(|state| state.open)
    }

    /// How many connections were open at once, at the most, since this was last asked.
    pub(crate) fn most_open(&self) -> usize {
        self.shared.with(|state| std::mem::replace(&mut state.most_open, state.open))
    }

    /// Waits until all connections are over.
    #[track_caller]
    pub(crate) fn is_left_alone(&self) -> impl Future<Output = ()> {
        let shared = self.shared.clone();
        eventually("the caller closes its connections", async move || shared.with(|state| state.open == 0))
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        if let Some(running) = &self.running {
            running.abort();
        }
    }
}

/// A connection that counts as open until it is dropped.
struct Open(Shared);

impl Drop for Open {
    fn drop(&mut self) {
        self.0.with(|state| state.open -= 1);
    }
}

/// Says something at once, and hears nothing.
async fn greet(mut stream: TcpStream, greeting: &[u8]) {
    let _ = stream.write_all(greeting).await;
    let _ = stream.shutdown().await;
    // What is left unread would end the connection by a reset, which may overtake the greeting.
    let _ = tokio::io::copy(&mut stream, &mut tokio::io::sink()).await;
}

/// Answers requests on one connection, as long as it goes on.
async fn serve<S: AsyncRead + AsyncWrite + Unpin>(
    mut stream: S,
    connection: usize,
    shared: &Shared,
    socket: fn(&S) -> &TcpStream,
) {
    let mut held = Vec::new();
    while let Some(request) = read(&mut stream, &mut held, connection).await {
        let reply = shared.with(|state| {
            state.requests.push(request.clone());
            let next = state.next.pop_front();
            next.or_else(|| state.script.as_mut().map(|script| script(&request))).unwrap_or_else(|| Reply::status(200))
        });
        tokio::time::sleep(reply.after).await;
        if stream.write_all(&reply.bytes).await.is_err() {
            return;
        }
        let _ = stream.flush().await;
        match reply.then {
            Then::Stay => {}
            Then::Close => {
                let _ = stream.shutdown().await;
                return;
            }
            Then::Reset => {
                socket(&stream).set_zero_linger().expect("a socket that is open");
                return;
            }
            Then::Hang => {
                let _ = stream.read(&mut [0]).await;
                return;
            }
            Then::Drip(bytes, every) => {
                for byte in bytes {
                    tokio::time::sleep(every).await;
                    if stream.write_all(&[byte]).await.is_err() || stream.flush().await.is_err() {
                        return;
                    }
                }
            }
            Then::Repeat(bytes) => while stream.write_all(&bytes).await.is_ok() {},
        }
    }
}

/// The next request; `None` when the caller is gone.
async fn read<S: AsyncRead + Unpin>(stream: &mut S, kept: &mut Vec<u8>, connection: usize) -> Option<Request> {
    let end = loop {
        if let Some(at) = kept.windows(4).position(|bytes| bytes == b"\r\n\r\n") {
            break at + 4;
        }
        stream.read_buf(kept).await.ok().filter(|count| *count > 0)?;
    };
    let head = String::from_utf8(kept.drain(..end).collect()).expect("a head is text");
    let mut lines = head.lines();
    let mut first = lines.next().expect("a request line").split(' ').map(str::to_owned);
    let (method, path) = (first.next().expect("a method"), first.next().expect("a target"));
    let mut headers = HeaderMap::new();
    for (name, value) in lines.filter_map(|line| line.split_once(": ")) {
        headers.append(name.parse::<HeaderName>().unwrap(), HeaderValue::from_str(value).unwrap());
    }
    let length = headers.get(CONTENT_LENGTH).map_or(0, |value| value.to_str().unwrap().parse().unwrap());
    while kept.len() < length {
        stream.read_buf(kept).await.ok().filter(|count| *count > 0)?;
    }
    let body = kept.drain(..length).collect();
    Some(Request { method, path, headers, body, connection })
}
