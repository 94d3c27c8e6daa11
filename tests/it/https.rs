//! `https` for clients: `--tls-cert`, `--tls-key`, and SIGHUP.

use std::io;
use std::net::SocketAddr;
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::Request;
use http_body_util::{BodyExt as _, Empty};
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::support::app::{TestApp, World};
use crate::support::authority::{Authority, Signed};
use crate::support::client::Client;
use crate::support::eventually::eventually;
use crate::support::process::Process;
use crate::support::wire::Wire;

const HEALTH: &[u8] = b"GET /health HTTP/1.1\r\nhost: localhost\r\n\r\n";

/// A world whose proxy speaks `https`, and those who believe it.
struct Secure {
    world: World,
    authority: Authority,
}

impl Secure {
    async fn new() -> (Self, Signed) {
        let (world, authority) = (World::new().await, Authority::new("ours"));
        let folder = world.store_path().parent().unwrap().to_owned();
        let world = world
            .flag(&format!("--tls-cert={}", folder.join("cert.pem").display()))
            .flag(&format!("--tls-key={}", folder.join("key.pem").display()));
        world.gateway.person("999001").picture("17");
        let secure = Self { world, authority };
        let signed = secure.renew();
        (secure, signed)
    }

    /// Another certificate takes the place of the one in the files.
    fn renew(&self) -> Signed {
        let signed = self.authority.signs(&["localhost"]);
        self.write("cert.pem", &(signed.certificate_pem.clone() + &self.authority.pem()));
        self.write("key.pem", &signed.key_pem);
        signed
    }

    fn write(&self, name: &str, text: &str) {
        std::fs::write(self.world.store_path().with_file_name(name), text).unwrap();
    }

    async fn connect(&self, address: SocketAddr, protocols: &[&[u8]]) -> io::Result<TlsStream<TcpStream>> {
        let mut roots = RootCertStore::empty();
        roots.add(self.authority.certificate()).unwrap();
        let mut config = ClientConfig::builder_with_provider(rustls::crypto::ring::default_provider().into())
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        config.alpn_protocols = protocols.iter().map(|&protocol| protocol.to_vec()).collect();
        let stream = TcpStream::connect(address).await?;
        TlsConnector::from(Arc::new(config)).connect(ServerName::try_from("localhost").unwrap(), stream).await
    }

    /// The certificate that a new connection is shown.
    async fn shown(&self, address: SocketAddr) -> CertificateDer<'static> {
        let stream = self.connect(address, &[]).await.expect("TLS");
        stream.get_ref().1.peer_certificates().unwrap()[0].clone().into_owned()
    }
}

/// Asks for `/health`.
async fn is_served(stream: &mut TlsStream<TcpStream>) {
    stream.write_all(HEALTH).await.unwrap();
    let mut said = vec![];
    while !said.ends_with(b"\r\n\r\nOK") {
        assert!(stream.read_buf(&mut said).await.unwrap() > 0, "{:?}", String::from_utf8_lossy(&said));
    }
    assert!(said.starts_with(b"HTTP/1.1 200 OK\r\n"), "{:?}", String::from_utf8_lossy(&said));
}

async fn no_connections(app: &TestApp) {
    eventually("every connection is given back", async || app.app().metrics().http_connections.get() == 0).await;
}

#[tokio::test]
async fn both_versions_of_http_are_spoken_behind_it() {
    let (secure, _) = Secure::new().await;
    let app = secure.world.start().await;
    let address = app.app().address();
    let request = || Request::get("https://localhost/user/avatar?phone=999001").body(Empty::<Bytes>::new()).unwrap();

    let stream = secure.connect(address, &[b"h2", b"http/1.1"]).await.unwrap();
    assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"h2"[..]));
    let (mut sender, connection) = http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.unwrap();
    let running = tokio::spawn(connection);
    let answer = sender.send_request(request()).await.unwrap();
    assert_eq!((answer.version(), answer.status().as_u16()), (http::Version::HTTP_2, 200));
    let body = answer.into_body().collect().await.unwrap().to_bytes();
    drop(sender);
    running.await.unwrap().unwrap();

    let stream = secure.connect(address, &[b"http/1.1"]).await.unwrap();
    assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"http/1.1"[..]));
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.unwrap();
    let running = tokio::spawn(connection);
    let mut request = request();
    request.headers_mut().insert("host", "localhost".parse().unwrap());
    let answer = sender.send_request(request).await.unwrap();
    assert_eq!((answer.version(), answer.status().as_u16()), (http::Version::HTTP_11, 200));
    assert!(answer.headers()["cache-status"].to_str().unwrap().contains("hit; ttl="));
    assert_eq!(answer.into_body().collect().await.unwrap().to_bytes(), body);
    drop(sender);
    running.await.unwrap().unwrap();

    is_served(&mut secure.connect(address, &[]).await.unwrap()).await;
    assert!(secure.connect(address, &[b"spdy/1"]).await.is_err(), "no common protocol");
    no_connections(&app).await;
    app.stop().await;
}

#[tokio::test]
async fn a_hangup_reads_the_files_again_and_open_connections_go_on() {
    let (secure, first) = Secure::new().await;
    let mut process = Process::start(&secure.world);
    let address = process.address();
    let mut old = secure.connect(address, &[]).await.unwrap();
    is_served(&mut old).await;
    assert_eq!(secure.shown(address).await, first.certificate);

    let second = secure.renew();
    assert_eq!(secure.shown(address).await, first.certificate, "nobody said that the files have changed");
    hang_up(&process);
    process.logs("the certificate was read again");
    assert_eq!(secure.shown(address).await, second.certificate);
    is_served(&mut old).await;

    let key = &first.key_pem;
    for (certificate, flag) in [(key, "--tls-cert"), (&first.certificate_pem, "--tls-key")] {
        secure.write("cert.pem", certificate);
        hang_up(&process);
        let line = process.logs("the certificate stays as it was");
        assert!(line.contains(flag) && line.contains(".pem: "), "{line}");
        assert!(!line.contains("BEGIN"), "{line}");
        assert_eq!(secure.shown(address).await, second.certificate);
    }
    is_served(&mut old).await;

    let third = secure.renew();
    hang_up(&process);
    process.logs("the certificate was read again");
    assert_eq!(secure.shown(address).await, third.certificate);
    let (status, _) = process.terminate();
    assert!(status.success(), "{status}");
}

fn hang_up(process: &Process) {
    let told = Command::new("kill").args(["-HUP", &process.id().to_string()]).status().expect("kill runs");
    assert!(told.success());
}

#[tokio::test]
async fn plain_http_is_turned_away() {
    let (secure, _) = Secure::new().await;
    let app = secure.world.start().await;
    for bytes in [HEALTH, b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", b"\0\0\0\0\0\0\0\0"] {
        let mut wire = Wire::open(app.app().address()).await;
        wire.send(bytes).await;
        let said = wire.rest().await;
        assert!(!said.starts_with(b"HTTP"), "{:?}", String::from_utf8_lossy(&said));
    }
    is_served(&mut secure.connect(app.app().address(), &[]).await.unwrap()).await;
    no_connections(&app).await;
    app.stop().await;
}

#[tokio::test]
async fn tls_and_the_first_head_together_have_the_time_of_a_head() {
    let timeout = Duration::from_millis(300);
    let (mut secure, _) = Secure::new().await;
    secure.world = secure.world.head_timeout(timeout);
    let app = secure.world.start().await;
    let address = app.app().address();
    for begun in [&b""[..], b"\x16\x03\x01", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"] {
        let started = Instant::now();
        let mut wire = Wire::open(address).await;
        wire.send(begun).await;
        wire.rest().await;
        assert!(started.elapsed() >= timeout);
    }
    for head in [&b""[..], b"GET /health HTTP/1.1\r\n"] {
        let mut stream = secure.connect(address, &[]).await.unwrap();
        stream.write_all(head).await.unwrap();
        let ended = tokio::time::timeout(Duration::from_secs(20), stream.read_to_end(&mut vec![])).await;
        assert!(ended.is_ok(), "{head:?} keeps a connection");
    }
    no_connections(&app).await;
    app.stop().await;
}

#[tokio::test]
async fn a_client_that_says_goodbye_behind_its_request_is_answered() {
    let (secure, _) = Secure::new().await;
    let app = secure.world.start().await;
    let slow = secure.world.gateway.person("999002").picture("18");
    let hold = slow.hold();
    let mut stream = secure.connect(app.app().address(), &[]).await.unwrap();
    stream.write_all(b"GET /user/avatar?phone=999002 HTTP/1.1\r\nhost: localhost\r\n\r\n").await.unwrap();
    stream.shutdown().await.unwrap();
    slow.arrived(1).await;
    hold.release();
    let mut said = vec![];
    stream.read_to_end(&mut said).await.unwrap();
    assert!(String::from_utf8_lossy(&said).contains(r#""id":"18""#));
    app.stop().await;
}

#[tokio::test]
async fn figures_stay_in_plain_text_on_their_own_address() {
    let (mut secure, _) = Secure::new().await;
    secure.world = secure.world.flag("--metrics-listen=127.0.0.1:0");
    let app = secure.world.start().await;
    let figures = Client::new(app.app().metrics_address().expect("it listens twice"));
    assert_eq!(figures.get("/health").await.status, 200);
    is_served(&mut secure.connect(app.app().address(), &[]).await.unwrap()).await;
    app.stop().await;
}
