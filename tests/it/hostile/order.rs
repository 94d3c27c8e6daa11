//! Several requests on one connection, and when it ends.

use super::Besieged;

#[tokio::test]
async fn pipelined_requests_are_answered_in_their_order() {
    let proxy = Besieged::new().await;
    let slow = proxy.world.gateway.person("999002").picture("18");
    let hold = slow.hold();
    let mut wire = proxy.wire().await;
    wire.send(
        "GET /user/avatar?phone=999002 HTTP/1.1\r\nhost: localhost\r\n\r\n\
         GET /nowhere HTTP/1.1\r\nhost: localhost\r\n\r\n\
         GET /user/avatar?phone=999001 HTTP/1.1\r\nhost: localhost\r\n\r\n\
         GET /health HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n",
    )
    .await;
    slow.arrived(1).await;
    hold.release();
    let mut answers = vec![];
    while let Some(answer) = wire.answer().await {
        answers.push(answer);
    }
    let said: Vec<u16> = answers.iter().map(|answer| answer.status).collect();
    assert_eq!(said, [200, 404, 200, 200]);
    assert!(answers[0].body.contains(r#""id":"18""#) && answers[2].body.contains(r#""id":"17""#), "{answers:?}");
    assert_eq!(answers[3].body, "OK");
    proxy.survives().await;
}

#[tokio::test]
async fn many_pipelined_hits_are_all_answered() {
    let proxy = Besieged::new().await;
    let mut requests = "GET /user/avatar?phone=999001 HTTP/1.1\r\nhost: localhost\r\n\r\n".repeat(500);
    requests.push_str("GET /health HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n");
    assert_eq!(proxy.statuses(&requests).await, [200; 501]);
    proxy.survives().await;
}

#[tokio::test]
async fn a_connection_ends_when_the_client_says_so_and_what_follows_is_not_answered() {
    let proxy = Besieged::new().await;
    for close in ["close", "Close", "keep-alive, close", "close\r\nconnection: keep-alive"] {
        let request = format!("GET /health HTTP/1.1\r\nhost: localhost\r\nconnection: {close}\r\n\r\n");
        let answers = proxy.says(format!("{request}GET /health HTTP/1.1\r\nhost: localhost\r\n\r\n")).await;
        assert_eq!(answers.len(), 1, "{close}: {answers:?}");
        assert!(answers[0].head.contains("connection: close"), "{close}: {answers:?}");
    }
    proxy.survives().await;
}

#[tokio::test]
async fn http_1_0_ends_after_one_answer_unless_it_asks_for_more() {
    let proxy = Besieged::new().await;
    assert_eq!(proxy.statuses("GET /health HTTP/1.0\r\n\r\nGET /health HTTP/1.0\r\n\r\n").await, [200]);
    let kept = proxy.says("GET /health HTTP/1.0\r\nconnection: keep-alive\r\n\r\nGET /health HTTP/1.0\r\n\r\n").await;
    assert_eq!(kept.len(), 2);
    assert!(kept[0].head.contains("connection: keep-alive"), "{kept:?}");
    proxy.survives().await;
}

#[tokio::test]
async fn the_target_may_be_absolute() {
    let proxy = Besieged::new().await;
    let close = "host: localhost\r\nconnection: close\r\n\r\n";
    let answers = proxy.says(format!("GET http://localhost/user/avatar?phone=999001 HTTP/1.1\r\n{close}")).await;
    assert!(answers[0].body.contains(r#""id":"17""#), "{answers:?}");
    // The target's name counts, not that of `Host` (RFC 9112 section 3.2.2).
    assert_eq!(proxy.statuses(format!("GET http://evil.example/health HTTP/1.1\r\n{close}")).await, [403]);
    assert_eq!(proxy.statuses(format!("GET http://localhost HTTP/1.1\r\n{close}")).await, [404]);
    proxy.survives().await;
}

#[tokio::test]
async fn targets_that_are_no_address_of_ours_are_refused() {
    let proxy = Besieged::new().await;
    for (line, status) in [
        ("OPTIONS *", 404),
        ("GET *", 404),
        ("CONNECT localhost:443", 404),
        ("CONNECT evil.example:443", 403),
        ("GET //", 404),
        ("GET health", 403),
        ("GET localhost", 404),
        ("GET ", 400),
        ("GET /a b", 400),
        ("GET /health#part", 200),
        ("BREW /health", 405),
        ("G\u{1}T /health", 400),
        (" /health", 400),
    ] {
        let answers = proxy.statuses(format!("{line} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n")).await;
        assert_eq!(answers, [status], "{line:?}");
    }
    proxy.survives().await;
}

#[tokio::test]
async fn what_is_not_http_is_refused() {
    let proxy = Besieged::new().await;
    for bytes in [
        &b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"[..],
        b"SSH-2.0-OpenSSH_9.6\r\n\r\n",
        b"GET /health HTTP/3.0\r\nhost: localhost\r\n\r\n",
        b"GET /health HTTP/1.2\r\nhost: localhost\r\n\r\n",
        b"GET /health\r\n\r\n",
        b"\0\0\0\0\0\0\0\0",
    ] {
        let answers = proxy.statuses(bytes).await;
        assert!(answers.iter().all(|&status| status == 400), "{:?}: {answers:?}", String::from_utf8_lossy(bytes));
    }
    proxy.survives().await;
}
