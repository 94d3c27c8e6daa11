//! Addresses and methods.

use std::time::Duration;

use bytes::Bytes;
use http::Method;
use http_body_util::Empty;
use hyper_util::client::legacy::Client as Pool;
use hyper_util::rt::TokioExecutor;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::support::app::{TestApp, World};

/// Sends bytes; what comes back until the connection is closed.
async fn raw(app: &TestApp, bytes: &[u8]) -> String {
    let mut stream = TcpStream::connect(app.app().address()).await.unwrap();
    let _ = stream.write_all(bytes).await;
    let mut answer = vec![];
    let _ = stream.read_to_end(&mut answer).await;
    String::from_utf8_lossy(&answer).into_owned()
}

#[tokio::test]
async fn letter_case_and_a_trailing_slash_do_not_matter_to_the_gateways_endpoint() {
    let world = World::new().await;
    let app = world.start().await;
    app.get("/user/avatar?phone=999001").await.expect(200, "fwd=miss");
    for path in ["/user/avatar/", "/User/Avatar", "/USER/AVATAR/"] {
        app.get(&format!("{path}?phone=999001")).await.expect(200, "hit");
    }
    app.stop().await;
}

#[tokio::test]
async fn what_is_not_there_is_not_found_in_the_envelope() {
    let world = World::new().await;
    let app = world.start().await;
    for target in
        ["/", "/user", "/user/avatar//", "/user/avatars", "/user%2Favatar", "/avatars", "/avatars/", "/avatars/1/x/y"]
    {
        for method in [Method::GET, Method::POST] {
            let answer = app.send(method, target, &[]).await.unwrap();
            assert_eq!((answer.status.as_u16(), answer.code().as_str()), (404, "NOT_FOUND"), "{target}");
            assert!(answer.json()["results"].is_null());
        }
    }
    assert_eq!(world.gateway.lookups(), 0);
    app.stop().await;
}

#[tokio::test]
async fn other_methods_are_told_which_ones_there_are() {
    let world = World::new().await;
    let app = world.start().await;
    for (target, allowed) in [
        ("/user/avatar?phone=999001", "GET, HEAD"),
        ("/avatars/999001", "GET, HEAD, DELETE"),
        ("/metrics", "GET, HEAD"),
        ("/health", "GET, HEAD"),
        ("/ready", "GET, HEAD"),
    ] {
        for method in [Method::POST, Method::PUT, Method::OPTIONS, Method::TRACE, Method::PATCH] {
            let answer = app.send(method, target, &[]).await.unwrap();
            assert_eq!((answer.status.as_u16(), answer.header("allow")), (405, allowed), "{target}");
            assert_eq!((answer.code().as_str(), answer.json()["results"].is_null()), ("METHOD_NOT_ALLOWED", true));
        }
    }
    assert_eq!(world.gateway.lookups(), 0);
    app.stop().await;
}

#[tokio::test]
async fn whatever_bytes_arrive_the_next_client_is_served() {
    let world = World::new().await;
    let app = world.start().await;
    let rubbish: Vec<u8> = (0..8192_u32).map(|index| u8::try_from(index * 31 % 251).unwrap()).collect();
    for bytes in [
        &rubbish[..],
        b"GET\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01",
        b"GET /user/avatar HTTP/9.9\r\n\r\n",
        b"GET /user/avatar?phone=\xff HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"GET /user/avatar?phone=999001 HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nX-Device-Id: \xff\r\n\r\n",
        b"GET /user/avatar?phone=999001 HTTP/1.1\r\nHost: localhost\r\nX-Device-Id: a\0b\r\n\r\n",
    ] {
        let answer = raw(&app, bytes).await;
        assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 400 "), "{answer}");
    }
    app.avatar("999001").await.expect(200, "fwd=miss");
    assert_eq!(world.gateway.lookups(), 1);
    app.stop().await;
}

#[tokio::test]
async fn old_and_new_and_roundabout_requests_are_understood() {
    let world = World::new().await;
    let app = world.start().await;
    for request in [
        "GET /user/avatar?phone=999001 HTTP/1.0\r\n\r\n",
        "GET http://localhost/user/avatar?phone=999001 HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n",
        "GET /user/avatar?phone=999001 HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nX-Device-Id: caf\u{e9}\r\n\r\n",
    ] {
        let answer = raw(&app, request.as_bytes()).await;
        assert!(answer.starts_with("HTTP/1.") && answer.contains(" 200 OK\r\n"), "{request}: {answer}");
    }
    let devices: Vec<String> = world.gateway.log().iter().map(|lookup| lookup.device.as_str().to_owned()).collect();
    assert_eq!(devices, ["", "caf\u{e9}"]);

    let http2 = Pool::builder(TokioExecutor::new()).http2_only(true).build_http::<Empty<Bytes>>();
    let url = format!("http://{}/user/avatar?phone=999001", app.app().address());
    let answer = http2.get(url.parse().unwrap()).await.unwrap();
    assert_eq!((answer.version(), answer.status().as_u16()), (http::Version::HTTP_2, 200));
    drop(http2);
    app.stop().await;
}

#[tokio::test]
async fn a_client_that_hangs_up_half_way_costs_nobody_anything() {
    let world = World::new().await;
    let ada = world.gateway.person("999001").picture("17");
    let app = world.start().await;
    let hold = ada.hold();
    let mut stream = TcpStream::connect(app.app().address()).await.unwrap();
    stream.write_all(b"GET /user/avatar?phone=999001 HTTP/1.1\r\nHost: localhost\r\n\r\n").await.unwrap();
    ada.arrived(1).await;
    drop(stream);
    drop(hold);
    assert_eq!(app.avatar("999001").await.picture_id(), "17");
    assert_eq!(ada.lookups(), 1, "the look it began is used");
    app.stop().await;
}

#[tokio::test]
async fn a_connection_on_which_nothing_is_asked_is_closed_in_the_end() {
    let world = World::new().await.head_timeout(Duration::from_millis(300));
    let app = world.start().await;
    let address = app.app().address();
    let mut waiting = vec![];
    for bytes in ["", "PRI * HTTP/2.0\r\n", "GET /health HTTP/1.1\r\nHost: loc"] {
        waiting.push(tokio::spawn(async move {
            let mut stream = TcpStream::connect(address).await.unwrap();
            stream.write_all(bytes.as_bytes()).await.unwrap();
            let closed = tokio::time::timeout(Duration::from_secs(60), stream.read_to_end(&mut vec![])).await;
            assert!(closed.is_ok(), "{bytes:?} keeps a connection");
        }));
    }
    for waiting in waiting {
        waiting.await.unwrap();
    }
    app.stop().await;
}
