//! Request heads that are odd, forbidden or endless.

use super::Besieged;

/// So many headers, of different names.
fn numbered(count: usize) -> String {
    (0..count).map(|index| format!("x-{index}: a\r\n")).collect::<Vec<_>>().concat()
}

#[tokio::test]
async fn bytes_that_headers_must_not_hold_are_refused() {
    let proxy = Besieged::new().await;
    for line in [
        &b"x-device-id: a\r\n b"[..],
        b"x-device-id: a\r\n\tb",
        b"x-device-id: a\0b",
        b"x-device-id: a\x01b",
        b"x-device-id: a\x7fb",
        b"x-device-id: a\rb",
        b"x-dev\0ice: a",
        b"x device: a",
        b"x-device-id",
        b": a",
        b" x: a",
        b"x\x80y: a",
    ] {
        let request = [b"GET /health HTTP/1.1\r\nhost: localhost\r\n", line, b"\r\nconnection: close\r\n\r\n"].concat();
        assert_eq!(proxy.statuses(request).await, [400], "{:?}", String::from_utf8_lossy(line));
    }
    // A folded first line.
    assert_eq!(proxy.statuses("GET /health HTTP/1.1\r\n host: localhost\r\n\r\n").await, [400]);
    proxy.survives().await;
}

#[tokio::test]
async fn lines_may_end_in_a_bare_line_feed_and_mean_the_same() {
    // RFC 9112 section 2.2 lets a recipient take it for the end of a line; the framing stays the same.
    let proxy = Besieged::new().await;
    let answers = proxy.says("GET /health HTTP/1.1\nhost: localhost\ncontent-length: 2\n\nGEGET /health HTTP/1.1\nhost: localhost\nconnection: close\n\n").await;
    assert_eq!(answers[0].status, 200);
    assert!(answers.len() <= 2 && answers.iter().all(|answer| answer.status == 200), "{answers:?}");
    proxy.survives().await;
}

#[tokio::test]
async fn heads_without_end_are_refused() {
    let proxy = Besieged::new().await;
    for header in [
        format!("x: {}\r\n", "a".repeat(100 << 10)),
        format!("{}: x\r\n", "a".repeat(100 << 10)),
        numbered(200),
        "x: a\r\n".repeat(200),
        "x: a\r\n".repeat(20_000),
    ] {
        let request = format!("GET /health HTTP/1.1\r\nhost: localhost\r\n{header}\r\n");
        let answers = proxy.statuses(request).await;
        // The refusal may be lost where we hang up on bytes that still come (RFC 9112 section 9.6).
        assert!(answers.is_empty() || answers == [431], "{} bytes: {answers:?}", header.len());
    }
    let long = format!("GET /{} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n", "a".repeat(40 << 10));
    assert_eq!(proxy.statuses(long).await, [414]);
    let longer = format!("GET /{} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n", "a".repeat(100 << 10));
    let answers = proxy.statuses(longer).await;
    assert!(answers.is_empty() || answers == [431] || answers == [414], "{answers:?}");
    proxy.survives().await;
}

#[tokio::test]
async fn what_cannot_be_read_is_refused_in_the_envelope() {
    let proxy = Besieged::new().await;
    let health = "GET /health HTTP/1.1\r\nhost: localhost\r\n";
    for (before, rest, status, code) in [
        ("", format!("{health}{}\r\n", numbered(101)), 431, "REQUEST_HEADER_FIELDS_TOO_LARGE"),
        // Exactly what is read of a head, so that no byte is left to be hung up on.
        (
            "",
            format!("{health}x: {}", "a".repeat((64 << 10) - health.len() - 3)),
            431,
            "REQUEST_HEADER_FIELDS_TOO_LARGE",
        ),
        ("", format!("{health}x\0y: a\r\n\r\n"), 400, "BAD_REQUEST"),
        ("GET /health HTTP/1.1\r\nhost: localhost\r\n\r\n", "G\0T / HTTP/1.1\r\n\r\n".to_owned(), 400, "BAD_REQUEST"),
    ] {
        let mut answers = proxy.says(format!("{before}{rest}")).await;
        let refusal = answers.pop().expect("a refusal");
        assert!(refusal.status == status && refusal.head.contains("connection: close"), "{refusal:?}");
        assert!(refusal.head.contains("content-type: application/json"), "{refusal:?}");
        let envelope: serde_json::Value = serde_json::from_str(&refusal.body).expect("the envelope");
        assert_eq!((&envelope["code"], &envelope["results"]), (&code.into(), &serde_json::Value::Null));
        assert_eq!(answers.len(), usize::from(!before.is_empty()));
    }
    proxy.survives().await;
}

#[tokio::test]
async fn a_hundred_headers_are_none_too_many() {
    let proxy = Besieged::new().await;
    let headers = numbered(90);
    let request = format!("GET /health HTTP/1.1\r\nhost: localhost\r\n{headers}connection: close\r\n\r\n");
    assert_eq!(proxy.statuses(request).await, [200]);
    proxy.survives().await;
}

#[tokio::test]
async fn an_upgrade_is_passed_over() {
    let proxy = Besieged::new().await;
    for upgrade in ["websocket", "h2c\r\nhttp2-settings: AAMAAABkAAQAAP__", "TLS/1.0"] {
        let head = format!(
            "GET /health HTTP/1.1\r\nhost: localhost\r\nconnection: upgrade, close\r\nupgrade: {upgrade}\r\n\r\n"
        );
        assert_eq!(proxy.statuses(head).await, [200], "{upgrade}");
    }
    proxy.survives().await;
}
