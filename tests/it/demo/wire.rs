//! Answers that no HTTP library would send, as they arrive at a socket.

use std::io::ErrorKind;
use std::time::Duration;

use avatar_proxy::clock::Clock;
use avatar_proxy::demo::{Mode, Options, Population, Reply, SimulatedGateway};
use bytes::Bytes;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;

use super::World;

/// A connection on which somebody's avatar has been asked for.
async fn asking(world: &World) -> TcpStream {
    let mut stream = TcpStream::connect(world.gateway.address()).await.unwrap();
    stream.write_all(b"GET /user/avatar?phone=1 HTTP/1.1\r\nhost: gateway\r\n\r\n").await.unwrap();
    stream
}

/// All that arrives until the connection is closed.
async fn received(world: &World, reply: Reply) -> Result<String, ErrorKind> {
    world.gateway.person("1").picture("17").replies(reply);
    let mut bytes = Vec::new();
    match asking(world).await.read_to_end(&mut bytes).await {
        Ok(_) => Ok(String::from_utf8(bytes).unwrap()),
        Err(error) => Err(error.kind()),
    }
}

fn split(answer: &str) -> (&str, &str) {
    answer.split_once("\r\n\r\n").unwrap()
}

#[tokio::test]
async fn connections_are_closed_reset_and_filled_with_garbage() {
    let world = World::new(Options::default()).await;
    assert_eq!(received(&world, Reply::Close).await, Ok(String::new()));
    assert_eq!(received(&world, Reply::Reset).await, Err(ErrorKind::ConnectionReset));
    let garbage = Bytes::from_static(b"220 mail.example.org ESMTP\r\n");
    assert_eq!(received(&world, Reply::Garbage(garbage)).await.unwrap(), "220 mail.example.org ESMTP\r\n");
    world.gateway.idle().await;
    assert_eq!((world.gateway.connections(), world.gateway.lookups()), (3, 3));
}

#[tokio::test]
async fn a_truncated_body_is_shorter_than_announced_and_a_dripping_one_is_whole() {
    let world = World::new(Options::default()).await;
    let whole = received(&world, Reply::Drip(Duration::ZERO)).await.unwrap();
    let (head, body) = split(&whole);
    assert!(head.contains(&format!("content-length: {}", body.len())), "{head}");
    let parsed: serde_json::Value = serde_json::from_str(body).unwrap();
    assert_eq!(parsed["results"]["id"], "17");

    let cut = received(&world, Reply::Truncated).await.unwrap();
    assert_eq!(split(&cut).0, head);
    assert_eq!(split(&cut).1, &body[..body.len() / 2]);
}

#[tokio::test]
async fn who_is_never_answered_may_leave() {
    let world = World::new(Options::default()).await;
    let ada = world.gateway.person("1").replies(Reply::Hang);
    let hung = asking(&world).await;
    ada.arrived(1).await;
    ada.replies(Reply::Stalled);
    let mut stalled = asking(&world).await;
    let mut begun = [0; 64];
    stalled.read_exact(&mut begun).await.unwrap();
    assert!(begun.starts_with(b"HTTP/1.1 200"));
    assert_eq!(world.gateway.in_flight(), 2);
    drop((hung, stalled));
    world.gateway.idle().await;
}

#[tokio::test]
async fn an_endless_body_ends_when_the_reader_leaves() {
    let world = World::new(Options::default()).await;
    world.gateway.person("1").replies(Reply::Endless);
    let mut stream = asking(&world).await;
    let mut bytes = vec![0; 300_000];
    stream.read_exact(&mut bytes).await.unwrap();
    assert!(bytes.windows(26).any(|window| window == b"transfer-encoding: chunked"));
    assert_eq!(world.gateway.in_flight(), 1);
    drop(stream);
    world.gateway.idle().await;
}

#[tokio::test]
async fn whatever_a_reverse_proxy_says_can_be_said() {
    let world = World::new(Options::default()).await;
    let ada = world.gateway.person("1").replies(Reply::Page(502));
    let page = world.avatar("phone=1").await;
    assert_eq!((page.status.as_u16(), page.header("content-type")), (502, "text/html"));
    assert!(page.text().contains("<h1>502 Bad Gateway</h1>"));
    ada.replies(Reply::Redirect("http://127.0.0.1:1/elsewhere".to_owned()));
    let redirect = world.avatar("phone=1").await;
    assert_eq!((redirect.status.as_u16(), redirect.header("location")), (302, "http://127.0.0.1:1/elsewhere"));
    ada.replies(Reply::Padded(70_000));
    let padded = world.avatar("phone=1").await;
    assert_eq!((padded.body.len(), padded.code().as_str()), (70_000, "SUCCESS"));
    ada.replies(Reply::json(418, "[1]").after(Duration::from_millis(1)));
    let raw = world.avatar("phone=1").await;
    assert_eq!((raw.status.as_u16(), raw.text()), (418, "[1]"));
}

#[tokio::test]
async fn it_stops_at_once_and_its_address_can_be_taken_again() {
    let world = World::new(Options::default()).await;
    world.gateway.person("1").replies(Reply::Hang);
    let mut hung = asking(&world).await;
    world.gateway.arrived(1).await;
    world.gateway.stop().await;
    assert!(!matches!(hung.read(&mut [0; 1]).await, Ok(1..)));
    assert!(TcpStream::connect(world.gateway.address()).await.is_err());
    assert_eq!((world.gateway.in_flight(), world.gateway.open_connections()), (0, 0));
    let listener = TcpListener::bind(world.gateway.address()).await.unwrap();
    let again = SimulatedGateway::start(listener, Options::default(), Clock::system()).unwrap();
    assert_eq!(again.address(), world.gateway.address());
    assert_eq!(world.avatar("phone=1").await.status, 200);
    again.set_mode(Mode::Unreachable);
    assert!(world.fetch(&world.avatar_url("phone=1"), &[]).await.is_err());
}

#[tokio::test]
async fn draining_lets_answers_under_way_be_finished() {
    let world = World::new(Options::default()).await;
    let held = world.gateway.hold();
    let answer = world.ask("phone=1");
    world.gateway.arrived(1).await;
    let draining = tokio::spawn({
        let gateway = world.gateway.clone();
        async move { gateway.drain(Duration::from_secs(30)).await }
    });
    while TcpStream::connect(world.gateway.address()).await.is_ok() {
        tokio::task::yield_now().await;
    }
    assert!(!draining.is_finished());
    held.release();
    assert_eq!(answer.await.unwrap().status, 200);
    draining.await.unwrap();
}

#[tokio::test]
async fn it_runs_alone_until_told_to_end() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (end, ended) = oneshot::channel::<()>();
    let population = Population::generate(1, 20);
    let alone = tokio::spawn(async move {
        let shutdown = async { ended.await.unwrap_or_default() };
        avatar_proxy::demo::run(listener, Options::demo(1), &population, Clock::system(), shutdown).await
    });
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(b"GET /health HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 200 OK") && answer.ends_with("\r\n\r\nOK"), "{answer}");
    end.send(()).unwrap();
    alone.await.unwrap().unwrap();
}
