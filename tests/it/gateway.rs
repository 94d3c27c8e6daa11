//! The gateway's client against peers that answer anything, late, or not at all.
//!
//! A peer is a few bytes written to a socket by hand, because no HTTP server would send most of this.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use avatar_proxy::clock::{Clock, Timestamp};
use avatar_proxy::gateway::{BODY_LIMIT, Config, Credential, Gateway, HEADER_LIMIT};
use avatar_proxy::jid::{Device, Jid, Key};
use avatar_proxy::outcome::{Class, Failure, Outcome};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

const BODY: &str = r#"{"code":"SUCCESS","message":"Success get avatar","results":{"url":"https://pps.whatsapp.net/p.jpg?oh=1\u0026oe=620AA726","id":"1635239861","type":"image"}}"#;

/// What nothing here may take.
const PATIENCE: Duration = Duration::from_secs(20);

/// How long a lookup may take where it is meant to run out of time.
const SHORT: Duration = Duration::from_millis(300);

/// Listens, hands every connection to `serve`, counts them, and is gone when dropped.
struct Peer {
    url: String,
    connections: Arc<AtomicUsize>,
    listening: JoinHandle<()>,
}

impl Peer {
    async fn new<F: Future<Output = ()> + Send + 'static>(serve: impl Fn(TcpStream) -> F + Send + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let connections = Arc::new(AtomicUsize::new(0));
        let counter = connections.clone();
        let listening = tokio::spawn(async move {
            let mut serving = tokio::task::JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                counter.fetch_add(1, Ordering::SeqCst);
                serving.spawn(serve(stream));
            }
        });
        Self { url, connections, listening }
    }

    /// Answers the first request of every connection with these bytes, and closes.
    async fn saying(bytes: impl Into<Vec<u8>>) -> Self {
        let bytes = Arc::new(bytes.into());
        Self::new(move |mut stream| {
            let bytes = bytes.clone();
            async move {
                head(&mut stream).await;
                let _ = stream.write_all(&bytes).await;
                let _ = stream.shutdown().await;
                drain(&mut stream).await;
            }
        })
        .await
    }

    fn connections(&self) -> usize {
        self.connections.load(Ordering::SeqCst)
    }

    fn client(&self) -> Gateway {
        client(&self.url, PATIENCE)
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        self.listening.abort();
    }
}

/// Reads up to the empty line that ends a request; empty when the client closed instead.
async fn head(stream: &mut TcpStream) -> String {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        match stream.read_u8().await {
            Ok(byte) => head.push(byte),
            Err(_) => return String::new(),
        }
    }
    String::from_utf8(head).unwrap()
}

/// Waits until the client closes.
async fn drain(stream: &mut TcpStream) {
    let _ = tokio::io::copy(stream, &mut tokio::io::sink()).await;
}

fn ok(body: &str) -> String {
    format!("HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}", body.len())
}

fn client(url: &str, timeout: Duration) -> Gateway {
    let config = Config { url: url.parse().unwrap(), auth: None, ca: None, timeout };
    Gateway::new(config, the_day_before()).unwrap()
}

/// The day before [`BODY`]'s URL dies.
fn the_day_before() -> Clock {
    Clock::manual(Timestamp::from_seconds(0x620A_A726 - 86_400))
}

fn ada() -> Key {
    Key::new(Device::default(), Jid::parse("6281234567890").unwrap(), false, false)
}

fn is_the_picture(looked: &Result<Outcome, Failure>) -> bool {
    matches!(looked, Ok(outcome) if outcome.id() == Some("1635239861"))
}

/// The lookup's failure in one line, which it must reach well before the deadline.
async fn nonsense(gateway: &Gateway) -> String {
    let started = Instant::now();
    let failure = gateway.lookup(&ada()).await.unwrap_err();
    assert!(started.elapsed() < PATIENCE / 2, "it waited: {failure:?}");
    assert_eq!((failure.class, failure.retry), (Class::Nonsense, true), "{failure:?}");
    assert_eq!((failure.reply.status, &*failure.reply.code), (502, "BAD_GATEWAY"));
    failure.detail.to_string()
}

fn assert_late(looked: Result<Outcome, Failure>) {
    let failure = looked.unwrap_err();
    assert_eq!((failure.class, failure.retry), (Class::Late, false));
    assert_eq!((failure.reply.status, &*failure.reply.code), (504, "GATEWAY_TIMEOUT"));
}

#[tokio::test]
async fn the_request_is_what_the_gateway_expects() {
    let (heads, mut seen) = mpsc::unbounded_channel();
    let peer = Peer::new(move |mut stream| {
        let heads = heads.clone();
        async move {
            heads.send(head(&mut stream).await).unwrap();
            let _ = stream.write_all(ok(BODY).as_bytes()).await;
        }
    })
    .await;
    let host = peer.url.replace("http://", "host: ");
    let agent = concat!("user-agent: avatar-proxy/", env!("CARGO_PKG_VERSION"));
    let wa = "/wa/v8/user/avatar";
    for (base, auth, device, jid, target, own_headers) in [
        ("", None, "", "6281234567890", "/user/avatar?phone=6281234567890@s.whatsapp.net", vec![]),
        (
            "/",
            Some("ada:s3:cret"),
            "dev-1",
            "1@lid",
            "/user/avatar?phone=1@lid",
            vec!["authorization: Basic YWRhOnMzOmNyZXQ=", "x-device-id: dev-1"],
        ),
        ("/wa/v8", None, "a b%+é", "1@g.us", &format!("{wa}?phone=1@g.us"), vec!["x-device-id: a%20b%25%2B%C3%A9"]),
        ("/wa/v8/", None, "1@s.x", "1-2@g.us", &format!("{wa}?phone=1-2@g.us"), vec!["x-device-id: 1@s.x"]),
    ] {
        let url = format!("{}{base}", peer.url).parse().unwrap();
        let auth = auth.map(|text| Credential::parse(text).unwrap());
        let gateway = Gateway::new(Config { url, auth, ca: None, timeout: PATIENCE }, the_day_before()).unwrap();
        let key = Key::new(Device::new(device).unwrap(), Jid::parse(jid).unwrap(), true, true);
        assert!(is_the_picture(&gateway.lookup(&key).await));

        let head = seen.recv().await.unwrap();
        let mut lines: Vec<&str> = head.trim_end().split("\r\n").collect();
        let community = jid.ends_with("@g.us");
        assert_eq!(lines.remove(0), format!("GET {target}&is_preview=true&is_community={community} HTTP/1.1"));
        let mut expected = own_headers;
        expected.extend(["accept-encoding: identity", "accept: application/json", &host, agent]);
        lines.sort_unstable();
        expected.sort_unstable();
        assert_eq!(lines, expected);
    }
}

#[tokio::test]
async fn lookups_share_a_connection() {
    let peer = Peer::new(|mut stream| async move {
        while !head(&mut stream).await.is_empty() {
            stream.write_all(ok(BODY).as_bytes()).await.unwrap();
        }
    })
    .await;
    let gateway = peer.client();
    for _ in 0..20 {
        assert!(is_the_picture(&gateway.lookup(&ada()).await));
        // A task of its own hands the connection back, which it must have had its turn to do.
        tokio::task::yield_now().await;
    }
    assert_eq!(peer.connections(), 1);
}

#[tokio::test]
async fn a_connection_that_the_gateway_closed_in_between_is_replaced() {
    let (closed, mut closings) = mpsc::unbounded_channel();
    let peer = Peer::new(move |mut stream| {
        let closed = closed.clone();
        async move {
            head(&mut stream).await;
            stream.write_all(ok(BODY).as_bytes()).await.unwrap();
            stream.shutdown().await.unwrap();
            drain(&mut stream).await;
            closed.send(()).unwrap();
        }
    })
    .await;
    let gateway = peer.client();
    for _ in 0..50 {
        assert!(is_the_picture(&gateway.lookup(&ada()).await));
        closings.recv().await.unwrap();
    }
    assert_eq!(peer.connections(), 50);
}

#[tokio::test]
async fn a_gateway_that_never_answers_is_given_up_in_time() {
    let peer = Peer::new(|mut stream| async move { drain(&mut stream).await }).await;
    let started = Instant::now();
    assert_late(client(&peer.url, SHORT).lookup(&ada()).await);
    assert!(started.elapsed() >= SHORT && started.elapsed() < PATIENCE);
}

#[tokio::test]
async fn a_slow_drip_does_not_buy_time() {
    let peer = Peer::new(|mut stream| async move {
        head(&mut stream).await;
        for byte in ok(BODY).bytes() {
            if stream.write_all(&[byte]).await.is_err() {
                return;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await;
    assert_late(client(&peer.url, SHORT).lookup(&ada()).await);
}

#[tokio::test]
async fn nobody_there_is_nonsense() {
    let port = {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        listener.local_addr().unwrap().port()
    };
    assert_eq!(nonsense(&client(&format!("http://127.0.0.1:{port}"), PATIENCE)).await, "connection refused");
    // A label of 64 letters cannot be asked for: no resolver is troubled.
    let nowhere = format!("http://{}.invalid", "a".repeat(64));
    assert_eq!(nonsense(&client(&nowhere, PATIENCE)).await, "host not found");
}

#[tokio::test]
async fn a_peer_without_tls_is_nonsense_to_https() {
    let peer = Peer::new(|mut stream| async move {
        let _ = stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").await;
        drain(&mut stream).await;
    })
    .await;
    let url = peer.url.replace("http://", "https://");
    assert_eq!(nonsense(&client(&url, PATIENCE)).await, "TLS failed");
}

#[tokio::test]
async fn a_connection_reset_or_closed_is_nonsense() {
    let reset = Peer::new(|mut stream| async move {
        head(&mut stream).await;
        stream.set_zero_linger().unwrap();
    })
    .await;
    assert_eq!(nonsense(&reset.client()).await, "broken off");
    assert_eq!(nonsense(&Peer::saying("").await.client()).await, "broken off");
}

#[tokio::test]
async fn an_answer_cut_off_anywhere_is_nonsense() {
    let whole = ok(BODY);
    for length in [1, 20, whole.len() - BODY.len(), whole.len() - BODY.len() / 2, whole.len() - 1] {
        let peer = Peer::saying(&whole.as_bytes()[..length]).await;
        assert!(nonsense(&peer.client()).await.starts_with("broken off"), "{length}");
    }
    let chunk = format!("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n{:x}\r\n{BODY}\r\n", BODY.len());
    assert_eq!(nonsense(&Peer::saying(chunk.as_str()).await.client()).await, "broken off, status 200");
    assert!(is_the_picture(&Peer::saying(format!("{chunk}0\r\n\r\n")).await.client().lookup(&ada()).await));
}

#[tokio::test]
async fn what_is_not_http_is_nonsense() {
    for bytes in
        ["\0\u{1}\u{2}garbage\r\n\r\n", "SSH-2.0-OpenSSH_9.9\r\n", "HTTP/1.1 abc\r\n\r\n", "HTTP/9.9 200 OK\r\n\r\n"]
    {
        assert_eq!(nonsense(&Peer::saying(bytes).await.client()).await, "not HTTP", "{bytes:?}");
    }
}

#[tokio::test]
async fn huge_headers_are_not_read() {
    let one = format!("HTTP/1.1 200 OK\r\nX-A: {}\r\n\r\n", "a".repeat(2 * HEADER_LIMIT));
    let many = format!("HTTP/1.1 200 OK\r\n{}\r\n", "X-A: a\r\n".repeat(1000));
    for bytes in [one, many] {
        assert_eq!(nonsense(&Peer::saying(bytes).await.client()).await, "not HTTP");
    }
}

#[tokio::test]
async fn an_endless_body_is_given_up_at_the_limit() {
    let (sent, mut sums) = mpsc::unbounded_channel();
    let peer = Peer::new(move |mut stream| {
        let sent = sent.clone();
        async move {
            head(&mut stream).await;
            let mut bytes = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n".to_vec();
            let mut sum = 0;
            while stream.write_all(&bytes).await.is_ok() {
                sum += bytes.len();
                bytes = b"1000\r\n".iter().copied().chain([b' '; 0x1000]).chain(*b"\r\n").collect();
            }
            sent.send(sum).unwrap();
        }
    })
    .await;
    assert_eq!(nonsense(&peer.client()).await, "too long, status 200");
    // The client hung up, and what the peer got rid of until then lay in the kernel's buffers.
    assert!(sums.recv().await.unwrap() < 32 << 20);
}

#[tokio::test]
async fn a_body_is_read_up_to_the_limit_and_not_beyond() {
    let padded = |length: usize| format!("{BODY}{}", " ".repeat(length - BODY.len()));
    let chunked = |body: &str| {
        format!("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n{:x}\r\n{body}\r\n0\r\n\r\n", body.len())
    };
    for answer in [ok(&padded(BODY_LIMIT)), chunked(&padded(BODY_LIMIT))] {
        assert!(is_the_picture(&Peer::saying(answer).await.client().lookup(&ada()).await));
    }
    let announced = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", BODY_LIMIT + 1);
    for answer in [ok(&padded(BODY_LIMIT + 1)), chunked(&padded(BODY_LIMIT + 1)), announced] {
        assert_eq!(nonsense(&Peer::saying(answer).await.client()).await, "too long, status 200");
    }
}

#[tokio::test]
async fn a_redirect_is_not_followed() {
    let elsewhere = Peer::saying(ok(BODY)).await;
    let location = format!("HTTP/1.1 302 Found\r\nLocation: {}/\r\nContent-Length: 0\r\n\r\n", elsewhere.url);
    let peer = Peer::saying(location).await;
    assert_eq!(nonsense(&peer.client()).await, "redirect, status 302");
    assert_eq!((peer.connections(), elsewhere.connections()), (1, 0));
}

#[tokio::test]
async fn a_refusal_is_understood_without_its_body() {
    for (status, class) in [(403, Class::Credentials), (429, Class::RateLimited)] {
        let peer = Peer::new(move |mut stream| async move {
            head(&mut stream).await;
            let head = format!("HTTP/1.1 {status} No\r\nContent-Length: 10\r\n\r\n");
            let _ = stream.write_all(head.as_bytes()).await;
            drain(&mut stream).await;
        })
        .await;
        assert_eq!(peer.client().lookup(&ada()).await.unwrap_err().class, class);
    }
    let page = format!("HTTP/1.1 401 Unauthorized\r\nContent-Length: {}\r\n\r\n", 2 * BODY_LIMIT);
    assert_eq!(Peer::saying(page).await.client().lookup(&ada()).await.unwrap_err().class, Class::Credentials);
}
