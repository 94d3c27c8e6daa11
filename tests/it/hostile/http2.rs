//! HTTP/2 in clear text, from clients that overdo it.

use std::time::Duration;

use avatar_proxy::http::Timeouts;
use bytes::Bytes;
use http::Request;
use http_body_util::Empty;
use hyper::client::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::TcpStream;

use super::Besieged;
use crate::support::app::World;
use crate::support::client::Client;

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// One frame.
fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

/// The headers of `GET /health`, which ends its stream: literals without indexing for path and authority.
fn get(stream: u32) -> Vec<u8> {
    let block = [b"\x82\x86\x04\x07/health\x01\x09localhost".as_slice()].concat();
    frame(1, 0x5, stream, &block)
}

#[tokio::test]
async fn many_streams_at_once_are_all_answered() {
    let proxy = Besieged::new().await;
    let client = Client::over_http2(proxy.app().address());
    let asked: Vec<_> = (0..1000)
        .map(|index| {
            let client = client.clone();
            tokio::spawn(async move { client.avatar(if index % 2 == 0 { "999001" } else { "999002" }).await.status })
        })
        .collect();
    for answer in asked {
        assert_eq!(answer.await.unwrap(), 200);
    }
    drop(client);
    proxy.survives().await;
}

#[tokio::test]
async fn rapid_resets_end_the_connection_or_are_borne() {
    let proxy = Besieged::new().await;
    let mut wire = proxy.wire().await;
    wire.send([PREFACE, &frame(4, 0, 0, &[])].concat()).await;
    for batch in 0..50 {
        let streams = (0..200).map(|index| 1 + 2 * (batch * 200 + index));
        let bytes: Vec<u8> = streams.flat_map(|id| [get(id), frame(3, 0, id, &8_u32.to_be_bytes())].concat()).collect();
        wire.send(bytes).await;
    }
    proxy.avatar("999001").await.expect(200, "hit; ttl=");
    wire.finish_sending().await;
    wire.rest().await;
    proxy.survives().await;
}

#[tokio::test]
async fn requests_that_wait_and_are_reset_leave_nothing() {
    let proxy = Besieged::new().await;
    let slow = proxy.world.gateway.person("999002").picture("18");
    let hold = slow.hold();
    let stream = TcpStream::connect(proxy.app().address()).await.unwrap();
    let (mut sender, connection) =
        http2::handshake::<_, _, Empty<Bytes>>(TokioExecutor::new(), TokioIo::new(stream)).await.unwrap();
    let connection = tokio::spawn(connection);
    for _ in 0..300 {
        let uri = format!("http://{}/user/avatar?phone=999002", proxy.app().address());
        let asked = sender.send_request(Request::get(uri).body(Empty::new()).unwrap());
        let _ = tokio::time::timeout(Duration::from_millis(1), asked).await;
        if sender.ready().await.is_err() {
            break;
        }
    }
    slow.arrived(1).await;
    drop(sender);
    connection.abort();
    proxy.is_unharmed().await;
    hold.release();
    proxy.survives().await;
}

#[tokio::test]
async fn frames_that_break_the_rules_end_the_connection() {
    let proxy = Besieged::new().await;
    let settings = frame(4, 0, 0, &[]);
    for (what, frames) in [
        ("a frame too large", frame(0, 0, 1, &vec![0; 20_000])),
        ("data on no stream", frame(0, 0, 0, b"abc")),
        ("data on an idle stream", frame(0, 0, 1, b"abc")),
        ("an even stream", get(2)),
        ("a stream that goes back", [get(5), get(3)].concat()),
        ("headers that cannot be unpacked", frame(1, 0x5, 1, &[0xff; 20])),
        ("settings that are torn", frame(4, 0, 0, b"abc")),
        ("a push", frame(5, 0x4, 1, &[0, 0, 0, 2, 0x82])),
        ("a window of nothing", frame(8, 0, 0, &[0; 4])),
        ("another frame between headers", [frame(1, 0x1, 1, b"\x82"), frame(6, 0, 0, &[0; 8])].concat()),
    ] {
        let mut wire = proxy.wire().await;
        wire.send([PREFACE, &settings, &frames].concat()).await;
        // It ends by itself: the client goes on listening.
        let said = wire.rest().await;
        assert!(!said.is_empty(), "{what}: not even a word");
    }
    proxy.survives().await;
}

#[tokio::test]
async fn floods_of_small_frames_are_borne_or_ended() {
    let proxy = Besieged::new().await;
    for flood in [
        frame(4, 0, 0, &[]).repeat(20_000),
        frame(6, 0, 0, &[0; 8]).repeat(20_000),
        [frame(1, 0x1, 1, b"\x82"), frame(9, 0, 1, b"").repeat(20_000)].concat(),
        [frame(1, 0x1, 1, b"\x82"), frame(9, 0, 1, &[0x40; 10_000]).repeat(50)].concat(),
    ] {
        let mut wire = proxy.wire().await;
        wire.send([PREFACE, &frame(4, 0, 0, &[]), &flood].concat()).await;
        wire.finish_sending().await;
        wire.rest().await;
        proxy.avatar("999001").await.expect(200, "hit; ttl=");
    }
    proxy.survives().await;
}

#[tokio::test]
async fn a_preface_and_nothing_more_ends_with_the_head_timeout() {
    let proxy = Besieged::of(World::new().await.head_timeout(Duration::from_millis(300))).await;
    for begun in [PREFACE.to_vec(), [PREFACE, &frame(4, 0, 0, &[])].concat()] {
        let mut wire = proxy.wire().await;
        wire.send(begun).await;
        wire.rest().await;
    }
    proxy.survives().await;
}

#[tokio::test]
async fn an_idle_connection_is_told_to_go_even_if_it_answers_every_ping() {
    let timeouts = Timeouts { keep_alive: Duration::from_millis(300), ..Timeouts::default() };
    let proxy = Besieged::of(World::new().await.timeouts(timeouts)).await;
    let stream = TcpStream::connect(proxy.app().address()).await.unwrap();
    let (mut sender, connection) =
        http2::handshake::<_, _, Empty<Bytes>>(TokioExecutor::new(), TokioIo::new(stream)).await.unwrap();
    let connection = tokio::spawn(connection);
    let uri = format!("http://{}/health", proxy.app().address());
    let answer = sender.send_request(Request::get(uri).body(Empty::new()).unwrap()).await.unwrap();
    assert_eq!(answer.status(), 200);
    let ended = tokio::time::timeout(Duration::from_secs(20), connection).await.expect("it is told to go").unwrap();
    assert!(ended.is_ok(), "in good order: {ended:?}");
    proxy.survives().await;
}

#[tokio::test]
async fn answers_that_are_never_taken_end_the_connection() {
    let short = Duration::from_millis(300);
    let proxy =
        Besieged::of(World::new().await.timeouts(Timeouts { keep_alive: short, write: short, ..Timeouts::default() }))
            .await;
    let mut wire = proxy.wire().await;
    // No stream may send a byte of an answer.
    let settings = frame(4, 0, 0, &[0, 4, 0, 0, 0, 0]);
    wire.send([PREFACE, &settings, &get(1), &get(3)].concat()).await;
    wire.rest().await;
    proxy.survives().await;
}

#[tokio::test]
async fn headers_over_the_limit_are_refused() {
    let proxy = Besieged::new().await;
    let client = Client::over_http2(proxy.app().address());
    let long = "a".repeat(60 << 10);
    let answer = client.send(http::Method::GET, "/health", &[("x", &long)]).await;
    assert!(answer.is_err() || answer.is_ok_and(|answer| answer.status == 431));
    assert_eq!(client.get("/health").await.status, 200);
    drop(client);
    proxy.survives().await;
}
