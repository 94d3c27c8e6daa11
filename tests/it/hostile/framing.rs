//! Where one request ends and the next begins: a proxy in front of us must never see it elsewhere.

use super::Besieged;

/// A request that must not be taken for one: it stands inside a body.
const SMUGGLED: &str = "GET /nowhere HTTP/1.1\r\nhost: localhost\r\n\r\n";

/// The last request on a connection.
const LAST: &str = "GET /health HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n";

#[tokio::test]
async fn a_request_needs_exactly_one_host() {
    let proxy = Besieged::new().await;
    for hosts in [
        "",
        "host: localhost\r\nhost: localhost\r\n",
        "host: localhost\r\nHost: evil.example\r\n",
        "host: local host\r\n",
        "host: ada@localhost\r\n",
        "host: localhost/health\r\n",
        "host: localh\u{f6}st\r\n",
    ] {
        for target in ["/health", "http://localhost/health", "/user/avatar?phone=999001"] {
            let answers = proxy.says(format!("GET {target} HTTP/1.1\r\n{hosts}\r\n{LAST}")).await;
            assert_eq!(answers.len(), 1, "{hosts:?}: {answers:?}");
            assert_eq!(answers[0].status, 400, "{hosts:?}");
            assert!(answers[0].head.contains("connection: close"), "{answers:?}");
        }
    }
    assert_eq!(proxy.statuses("GET /health HTTP/1.0\r\nhost: a\r\nhost: b\r\n\r\n").await, [400]);
    assert_eq!(proxy.statuses("GET /health HTTP/1.0\r\n\r\n").await, [200], "HTTP/1.0 has no hosts");
    proxy.survives().await;
}

#[tokio::test]
async fn a_preflight_needs_its_host_as_well() {
    let proxy = Besieged::new().await;
    let preflight = "OPTIONS /health HTTP/1.1\r\norigin: https://a.example\r\naccess-control-request-method: GET\r\n";
    assert_eq!(proxy.statuses(format!("{preflight}\r\n")).await, [400]);
    proxy.survives().await;
}

#[tokio::test]
async fn a_body_that_nobody_wants_is_not_taken_for_a_request() {
    let proxy = Besieged::new().await;
    let length = SMUGGLED.len();
    let bodies = [
        format!("content-length: {length}\r\n\r\n{SMUGGLED}"),
        format!("content-length: {length}\r\ncontent-length: {length}\r\n\r\n{SMUGGLED}"),
        format!("transfer-encoding: chunked\r\n\r\n{length:x}\r\n{SMUGGLED}\r\n0\r\n\r\n"),
        format!("transfer-encoding: chunked\r\n\r\n{length:x};a=b\r\n{SMUGGLED}\r\n0\r\nx: y\r\n\r\n"),
    ];
    for target in ["/user/avatar?phone=999001", "/health", "/nowhere"] {
        for method in ["GET", "POST", "DELETE"] {
            for body in &bodies {
                let answers =
                    proxy.says(format!("{method} {target} HTTP/1.1\r\nhost: localhost\r\n{body}{LAST}")).await;
                // The connection may end behind the body; if it does not, the next answer is that of the next request.
                let (first, others) = answers.split_first().expect("the first one is answered");
                let expected = if target == "/nowhere" {
                    404
                } else if method == "GET" {
                    200
                } else {
                    405
                };
                assert_eq!(first.status, expected, "{method} {target} {body:?}");
                assert!(others.len() <= 1, "{method} {target} {body:?}: {others:?}");
                assert!(others.iter().all(|other| other.body == "OK"), "{method} {target} {body:?}: {others:?}");
            }
        }
    }
    proxy.survives().await;
}

#[tokio::test]
async fn a_body_that_comes_late_is_not_taken_for_a_request() {
    let proxy = Besieged::new().await;
    let mut wire = proxy.wire().await;
    let head = format!("GET /health HTTP/1.1\r\nhost: localhost\r\ncontent-length: {}\r\n\r\n", SMUGGLED.len());
    wire.send(head).await;
    assert_eq!(wire.answer().await.expect("it is not waited for").status, 200);
    wire.send(SMUGGLED).await;
    wire.send(LAST).await;
    while let Some(answer) = wire.answer().await {
        assert_eq!(answer.body, "OK");
    }
    proxy.survives().await;
}

#[tokio::test]
async fn a_body_with_two_lengths_ends_the_connection() {
    let proxy = Besieged::new().await;
    let length = SMUGGLED.len();
    for headers in [
        format!("content-length: {length}\r\ntransfer-encoding: chunked\r\n"),
        format!("transfer-encoding: chunked\r\ncontent-length: {length}\r\n"),
        "content-length: 5\r\ntransfer-encoding: chunked\r\ncontent-length: 6\r\n".to_owned(),
    ] {
        let request = format!("GET /health HTTP/1.1\r\nhost: localhost\r\n{headers}\r\n0\r\n\r\n{SMUGGLED}");
        let answers = proxy.says(request).await;
        assert_eq!(answers.len(), 1, "{headers:?}: {answers:?}");
        assert!(answers[0].head.contains("connection: close"), "{headers:?}: {answers:?}");
    }
    proxy.survives().await;
}

#[tokio::test]
async fn lengths_that_say_nothing_certain_are_refused() {
    let proxy = Besieged::new().await;
    for headers in [
        "content-length: 5\r\ncontent-length: 6",
        "content-length: 5, 6",
        "content-length: -1",
        "content-length: +5",
        "content-length: 0x5",
        "content-length: 5 5",
        "content-length:",
        "content-length: 99999999999999999999999999",
        "transfer-encoding: gzip",
        "transfer-encoding: chunked, gzip",
        "transfer-encoding: xchunked",
        "transfer-encoding: identity",
        "transfer-encoding : chunked",
        "content-length : 5",
    ] {
        let answers =
            proxy.says(format!("GET /health HTTP/1.1\r\nhost: localhost\r\n{headers}\r\n\r\n{SMUGGLED}")).await;
        assert_eq!(answers.len(), 1, "{headers:?}: {answers:?}");
        assert_eq!(answers[0].status, 400, "{headers:?}");
    }
    let endless = "POST /health HTTP/1.1\r\nhost: localhost\r\ncontent-length: 18446744073709551615\r\n\r\n";
    assert_eq!(proxy.statuses(endless).await, [431]);
    let old = format!("GET /health HTTP/1.0\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n{SMUGGLED}");
    assert_eq!(proxy.statuses(old).await, [400]);
    proxy.survives().await;
}

#[tokio::test]
async fn chunks_that_make_no_sense_end_the_connection() {
    let proxy = Besieged::new().await;
    for chunks in ["x\r\n", "-1\r\n", "fffffffffffffffff\r\n", "5\r\nabcdefgh\r\n0\r\n\r\n", "\r\n", "5 5\r\nabcde\r\n"]
    {
        let head = "GET /health HTTP/1.1\r\nhost: localhost\r\ntransfer-encoding: chunked\r\n\r\n";
        let answers = proxy.says(format!("{head}{chunks}{SMUGGLED}")).await;
        assert!(answers.len() <= 1, "{chunks:?}: {answers:?}");
    }
    proxy.survives().await;
}

#[tokio::test]
async fn a_large_body_is_not_waited_for() {
    let proxy = Besieged::new().await;
    let mut wire = proxy.wire().await;
    wire.send("POST /user/avatar HTTP/1.1\r\nhost: localhost\r\ncontent-length: 100000000000\r\n\r\n").await;
    assert_eq!(wire.answer().await.expect("an answer").status, 405);
    wire.send(vec![b'a'; 4 << 20]).await;
    assert!(wire.answer().await.is_none());

    let expecting =
        "POST /user/avatar HTTP/1.1\r\nhost: localhost\r\nexpect: 100-continue\r\ncontent-length: 9\r\n\r\n";
    assert_eq!(proxy.statuses(expecting).await, [405], "nobody is told to send what nobody reads");
    proxy.survives().await;
}
