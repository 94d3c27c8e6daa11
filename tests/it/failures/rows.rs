//! The table: every failure that the gateway, a reverse proxy or a network can come up with, and what becomes of it.

use avatar_proxy::demo::Reply;
use bytes::Bytes;

/// A failure that rests a key or a device for some time.
#[derive(Clone, Debug)]
pub(super) struct Row {
    pub(super) said: Reply,
    /// What the client is told.
    pub(super) status: u16,
    pub(super) code: &'static str,
    pub(super) message: String,
    pub(super) class: &'static str,
    /// How often the gateway is asked.
    pub(super) lookups: u64,
    /// For how long it then rests (s).
    pub(super) rests: u64,
}

impl Row {
    fn new(class: &'static str, said: Reply, (status, code, message): (u16, &'static str, &str)) -> Self {
        let (lookups, rests) = match class {
            "request" => (1, 60),
            "device" => (1, 5),
            "passing" if matches!(status, 408 | 504) => (1, 2),
            _ => (2, 2),
        };
        Self { said, status, code, message: message.to_owned(), class, lookups, rests }
    }
}

/// All of them but rate limits and refused credentials, about `phone`.
pub(super) fn rows(phone: &str) -> Vec<Row> {
    let invalid = format!("invalid JID {phone}@s.whatsapp.net: failed to parse");
    let odd = Reply::Envelope { status: 400, code: "INVALID_JID".into(), message: "odd".into() };
    let mut rows = vec![
        Row::new("request", Reply::Blank, (400, "VALIDATION_ERROR", "phone: cannot be blank.")),
        Row::new("request", Reply::InvalidJid, (500, "INTERNAL_SERVER_ERROR", &invalid)),
        Row::new("request", odd, (400, "INVALID_JID", "odd")),
        Row::new("passing", Reply::ContextTimeout, (408, "CONTEXT_ERROR", "Error timeout get avatar!")),
        Row::new(
            "passing",
            Reply::GatewayTimeout,
            (504, "GATEWAY_TIMEOUT", "Request timed out waiting for WhatsApp server response"),
        ),
        Row::new("passing", Reply::Starting, (503, "DEVICE_MANAGER_UNAVAILABLE", "Device manager is not initialized")),
    ];
    let websocket = "failed to get avatar: websocket not connected";
    rows.push(Row::new("passing", Reply::internal(websocket), (500, "INTERNAL_SERVER_ERROR", websocket)));
    for (number, text) in [
        (400, "bad-request"),
        (401, "not-authorized"),
        (403, "forbidden"),
        (404, "item-not-found"),
        (405, "not-allowed"),
        (406, "not-acceptable"),
        (410, "gone"),
        (419, "resource-limit"),
        (423, "locked"),
        (500, "internal-server-error"),
        (503, "service-unavailable"),
        (530, "partial-server-error"),
    ] {
        let message = format!("info query returned status {number}: {text}");
        rows.push(Row::new("passing", Reply::WhatsAppFailed(number), (500, "INTERNAL_SERVER_ERROR", &message)));
    }
    rows.extend(of_devices());
    rows.extend(nonsense());
    rows
}

fn of_devices() -> Vec<Row> {
    let offline = "you are not connect to services server, please reconnect";
    let unnamed = "device_id is required via X-Device-Id header or device_id query";
    let unknown = "device not found; create a device first from /api/devices or provide a valid X-Device-Id";
    vec![
        Row::new("device", Reply::LoggedOut, (401, "AUTHENTICATION_ERROR", "you are not logged in")),
        Row::new("device", Reply::NotConnected, (401, "AUTHENTICATION_ERROR", offline)),
        Row::new("device", Reply::DeviceIdRequired, (400, "DEVICE_ID_REQUIRED", unnamed)),
        Row::new("device", Reply::DeviceNotFound, (404, "DEVICE_NOT_FOUND", unknown)),
        Row::new("device", Reply::NoSession, (500, "INVALID_WA_CLI", "your WhatsApp CLI is invalid or empty")),
    ]
}

fn nonsense() -> Vec<Row> {
    let envelope = |status, code: &str| Reply::Envelope { status, code: code.into(), message: "odd".into() };
    let success = |url: &str| {
        Reply::json(200, format!(r#"{{"code":"SUCCESS","message":"","results":{{"url":"{url}","id":"1"}}}}"#))
    };
    [
        ("the gateway's answer is too long", vec![Reply::Padded((64 << 10) + 1), Reply::Endless]),
        ("the gateway broke off its answer", vec![Reply::Truncated, Reply::Reset, Reply::Close]),
        ("the gateway's answer is not HTTP", vec![Reply::Garbage(Bytes::from_static(b"SSH-2.0-OpenSSH_9.9\r\n"))]),
        ("the gateway answered with a redirect", vec![Reply::Redirect("http://127.0.0.1:1/login".into())]),
        (
            "the gateway's answer is not in the form of a gateway's",
            vec![
                Reply::Page(200),
                Reply::Page(404),
                Reply::Page(500),
                Reply::Page(502),
                Reply::Page(503),
                Reply::Page(504),
                Reply::json(200, ""),
                Reply::json(200, "null"),
                Reply::json(200, r#"["SUCCESS","Success get avatar",null]"#),
                Reply::json(200, r#"{"code":"SUCCESS","message":"Success get avatar","results":{"url""#),
                Reply::json(500, r#"{"code":17,"message":"odd"}"#),
            ],
        ),
        (
            "the gateway's answer is not one of an avatar lookup",
            vec![envelope(404, "NOT_FOUND"), envelope(200, "ERROR"), envelope(201, "INTERNAL_SERVER_ERROR")],
        ),
        (
            "the gateway's answer names no usable picture",
            vec![
                Reply::json(200, r#"{"code":"SUCCESS","message":"","results":"https://pps.whatsapp.net/1"}"#),
                success("javascript:alert(1)"),
                success("/v/t61/1.jpg"),
                success(&format!("https://pps.whatsapp.net/{}", "a".repeat(5000))),
            ],
        ),
    ]
    .into_iter()
    .flat_map(|(message, replies)| {
        replies.into_iter().map(move |said| Row::new("nonsense", said, (502, "BAD_GATEWAY", message)))
    })
    .collect()
}

#[test]
fn no_failure_of_the_gateway_is_missing() {
    let rows = rows("1");
    let elsewhere = [
        Reply::NotSet,
        Reply::NoAvatarFound,
        Reply::Hidden,
        Reply::Unregistered,
        Reply::RateLimited,
        Reply::Unauthorized,
    ];
    for failure in Reply::failures() {
        assert!(elsewhere.contains(&failure) || rows.iter().any(|row| row.said == failure), "{failure:?}");
    }
}
