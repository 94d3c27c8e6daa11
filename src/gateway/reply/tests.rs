//! Goldens: every row of the gateway's answers, and what has been or could be seen beside them.

use proptest::prelude::*;
use serde_json::json;

use super::*;

const URL: &str = "https://pps.whatsapp.net/v/t61.24694-24/181358562_385581386633509_6230178822944778044_n.jpg?ccb=11-4&oh=df36c5b990497b8a5758a0f1ad8118a8&oe=620AA726";

/// Byte for byte as the gateway writes it.
const SUCCESS: &str = r#"{"code":"SUCCESS","message":"Success get avatar","results":{"url":"https://pps.whatsapp.net/v/t61.24694-24/181358562_385581386633509_6230178822944778044_n.jpg?ccb=11-4\u0026oh=df36c5b990497b8a5758a0f1ad8118a8\u0026oe=620AA726","id":"1635239861","type":"image"}}"#;

const EXPIRY: Timestamp = Timestamp::from_seconds(0x620A_A726);

fn day_before() -> Timestamp {
    Timestamp::from_seconds(0x620A_A726 - 86_400)
}

fn read(status: u16, body: &str) -> Result<Outcome, Failure> {
    classify(StatusCode::from_u16(status).unwrap(), body.as_bytes(), Variant::default(), day_before())
}

/// `url|id|kind`, or how it failed.
fn present(body: &str) -> String {
    match read(200, body) {
        Ok(Outcome::Present(picture)) => format!("{}|{}|{}", picture.url(), picture.id(), picture.kind()),
        other => format!("{other:?}"),
    }
}

fn success(results: &serde_json::Value) -> String {
    json!({"code": "SUCCESS", "message": "Success get avatar", "results": results}).to_string()
}

/// An error in both forms: without `results`, as the gateway sends it, and with null, as its documentation says.
fn both_forms(code: &str, message: &str) -> [String; 2] {
    let without = json!({"code": code, "message": message});
    let with_null = json!({"code": code, "message": message, "results": null});
    [without.to_string(), with_null.to_string()]
}

/// A failure in one line: class, whether to retry, and the reply.
fn failed(status: u16, body: &str) -> String {
    match read(status, body) {
        Err(Failure { class, retry, reply, .. }) => {
            let again = if retry { "retry" } else { "no retry" };
            let results = reply.results.as_deref().unwrap_or("null");
            format!("{class:?}, {again}: {} {} {} {results}", reply.status, reply.code, reply.message)
        }
        Ok(outcome) => format!("{outcome:?}"),
    }
}

#[test]
fn a_success_is_a_picture() {
    assert_eq!(present(SUCCESS), format!("{URL}|1635239861|image"));
}

#[test]
fn every_shape_of_url_in_the_wild_is_a_picture() {
    let host = "https://pps.whatsapp.net/v/t61.24694-24/1_2_3_n.jpg";
    let mut urls: Vec<String> = [
        "?ccb=11-4&oh=df36&oe=620AA726",
        "?stp=dst-jpg_s96x96_tt6&ccb=11-4&oh=df36&oe=620AA726",
        "?ccb=11-4&oh=01_Q5Aa&oe=620AA726&_nc_sid=5e03e0&_nc_cat=100",
        "?stp=dst-jpg_s96x96_tt6&ccb=11-4&oh=01_Q5Aa&oe=620AA726&_nc_sid=5e03e0&_nc_cat=100",
        "?oh=df36&oe=620AA726",
        "?oe=620aa726&oh=df36",
        "?oe=nonsense",
        "",
    ]
    .iter()
    .map(|query| format!("{host}{query}"))
    .collect();
    urls.extend([
        "https://pps.whatsapp.net/v/t61.24694-24/s96x96/1_2_3_n.jpg?oh=1&oe=620AA726".to_owned(),
        "https://media-cgk1-1.cdn.whatsapp.net/m1/v/t24/An_-x0Yz?ccb=9-4&oh=1&oe=620AA726".to_owned(),
        "https://mmg.whatsapp.net/v/t61.24694-24/1_n.jpg?oh=1&oe=620AA726".to_owned(),
        "http://127.0.0.1:9000/p.jpg?oe=620AA726#top".to_owned(),
    ]);
    for url in urls {
        let body = success(&json!({"url": url, "id": "1", "type": "preview"}));
        assert_eq!(present(&body), format!("{url}|1|preview"));
    }
}

#[test]
fn odd_but_valid_successes_are_read() {
    for (body, picture) in [
        (r#" {"results":{"type":"image","id":"7","url":""},"message":"","code":"SUCCESS"} "#, "|7|image"),
        (r#"{"code":"SUCCESS","message":"m","status":200,"results":{"id":"7","new":{"a":[1]}},"x":[]}"#, "|7|image"),
        (r#"{"code":"SUCCESS","message":"m","results":{"url":null,"id":1635239861,"type":null}}"#, "|1635239861|image"),
        (
            r#"{"code":"SUCCESS","message":"m","results":{"id":17640000000000000000000001}}"#,
            "|17640000000000000000000001|image",
        ),
        (r#"{"code":"SUCCESS","message":"m","results":{}}"#, "||image"),
        (r#"{"code":"SUCCESS","message":"m","results":null}"#, "||image"),
        (r#"{"code":"SUCCESS","message":"m"}"#, "||image"),
        (r#"{"\u0063ode":"\u0053UCCESS","message":"\ud83d\ude00"}"#, "||image"),
    ] {
        assert_eq!(present(body), picture, "{body}");
    }
}

#[test]
fn a_missing_type_is_what_was_asked_for() {
    let asked = Variant { preview: true, community: false };
    let body = success(&json!({"id": "1"}));
    let Ok(Outcome::Present(picture)) = classify(StatusCode::OK, body.as_bytes(), asked, day_before()) else {
        panic!("no picture");
    };
    assert_eq!(picture.kind(), "preview");
}

#[test]
fn a_url_that_is_dead_on_arrival_is_nonsense_and_not_asked_for_again() {
    let at = |now| classify(StatusCode::OK, SUCCESS.as_bytes(), Variant::default(), now);
    assert!(at(EXPIRY - MARGIN - std::time::Duration::from_millis(1)).is_ok());
    for now in [EXPIRY - MARGIN, EXPIRY, EXPIRY + MARGIN] {
        let failure = at(now).unwrap_err();
        assert_eq!((failure.class, failure.retry), (Class::Nonsense, false));
        assert_eq!(failure.reply.message, "the gateway handed out an expired URL");
        assert_eq!((failure.reply.status, &*failure.reply.code), (502, "BAD_GATEWAY"));
    }
}

#[test]
fn what_cannot_be_a_picture_is_nonsense() {
    for results in [
        json!([URL, "1", "image"]),
        json!("https://h/p"),
        json!(false),
        json!({"url": 7}),
        json!({"url": {}}),
        json!({"id": true}),
        json!({"id": ["1"]}),
        json!({"type": 7}),
        json!({"url": "javascript:alert(1)"}),
        json!({"url": "data:image/png;base64,AA"}),
        json!({"url": "/v/p.jpg"}),
        json!({"url": "https://"}),
        json!({"url": "https:///p"}),
        json!({"url": "ftp://h/p"}),
        json!({"url": "https://h/a b"}),
        json!({"url": "https://h/a\"onerror=x"}),
        json!({"url": "https://h/<script>"}),
        json!({"url": "https://h/\r\nset-cookie: a=b"}),
        json!({"url": "https://h/\u{e9}"}),
        json!({"url": format!("https://h/{}", "p".repeat(4096))}),
        json!({"id": "1".repeat(257)}),
        json!({"id": "1\n2"}),
        json!({"type": "t".repeat(65)}),
    ] {
        let body = success(&results);
        let unusable = "Nonsense, retry: 502 BAD_GATEWAY the gateway's answer names no usable picture null";
        assert_eq!(failed(200, &body), unusable, "{body}");
    }
}

#[test]
fn a_lasting_answer_keeps_the_gateways_words() {
    const NOT_SET: &str = "that user or group does not have a profile picture";
    const HIDDEN: &str = "the user has hidden their profile picture from you";
    const ABSENT: &str = "Phone 6281234567890@s.whatsapp.net is not on whatsapp";
    for (status, code, message, reason) in [
        (500, "INTERNAL_SERVER_ERROR", NOT_SET, Reason::NotSet),
        (500, "INTERNAL_SERVER_ERROR", "no avatar found", Reason::NotSet),
        (500, "INTERNAL_SERVER_ERROR", "No Avatar Found", Reason::NotSet),
        (500, "INTERNAL_SERVER_ERROR", "failed to get avatar: no avatar found", Reason::NotSet),
        (500, "INTERNAL_SERVER_ERROR", HIDDEN, Reason::Hidden),
        (400, "INVALID_JID", ABSENT, Reason::Unregistered),
    ] {
        for body in both_forms(code, message) {
            let expected = Negative { reason, status, code: code.into(), message: message.into() };
            assert_eq!(read(status, &body), Ok(Outcome::Negative(expected)), "{body}");
        }
    }
    for (status, code, message) in [
        (502, "BAD_GATEWAY", "no avatar found"),
        (404, "NOT_FOUND", "no avatar found"),
        (500, "INTERNAL_SERVER_ERROR", "Phone 1 is not on whatsapp"),
        (200, "INTERNAL_SERVER_ERROR", NOT_SET),
    ] {
        assert!(read(status, &both_forms(code, message)[0]).is_err(), "{status} {message}");
    }
}

#[test]
fn failures_in_an_envelope_are_told_apart_and_replayed() {
    const INTERNAL: &str = "INTERNAL_SERVER_ERROR";
    for (status, code, message, ending) in [
        (400, "VALIDATION_ERROR", "phone: cannot be blank.", "Request, no retry"),
        (500, INTERNAL, "invalid JID 1@x: unknown server", "Request, no retry"),
        (500, INTERNAL, "lookup failed: Invalid jid 1@x", "Request, no retry"),
        (400, "INVALID_JID", "your JID is invalid", "Request, no retry"),
        (401, "AUTHENTICATION_ERROR", "you are not logged in", "Device, no retry"),
        (401, "AUTHENTICATION_ERROR", "you are not connect to services server, please reconnect", "Device, no retry"),
        (400, "DEVICE_ID_REQUIRED", "device_id is required via X-Device-Id header", "Device, no retry"),
        (404, "DEVICE_NOT_FOUND", "device not found; create a device first", "Device, no retry"),
        (500, "INVALID_WA_CLI", "your WhatsApp CLI is invalid or empty", "Device, no retry"),
        (503, "DEVICE_MANAGER_UNAVAILABLE", "Device manager is not initialized", "Passing, retry"),
        (500, INTERNAL, "websocket not connected", "Passing, retry"),
        (502, "BAD_GATEWAY", "upstream", "Passing, retry"),
        (408, "CONTEXT_ERROR", "Error timeout get avatar!", "Passing, no retry"),
        (504, "GATEWAY_TIMEOUT", "Request timed out waiting for WhatsApp server response", "Passing, no retry"),
    ] {
        for body in both_forms(code, message) {
            assert_eq!(failed(status, &body), format!("{ending}: {status} {code} {message} null"));
        }
    }
    for number in [400, 401, 403, 404, 405, 406, 410, 419, 423, 500, 503, 530] {
        let message = format!("info query returned status {number}: some-text");
        let [body, _] = both_forms(INTERNAL, &message);
        assert_eq!(failed(500, &body), format!("Passing, retry: 500 {INTERNAL} {message} null"));
    }
}

#[test]
fn the_unknown_device_is_named_by_its_results() {
    let body = |results| format!(r#"{{"code":"DEVICE_NOT_FOUND","message":"m","results":{results}}}"#);
    let named = r#"{"device_id":"ada"}"#;
    assert_eq!(failed(404, &body(named)), format!("Device, no retry: 404 DEVICE_NOT_FOUND m {named}"));
    let long = format!(r#"["{}"]"#, "x".repeat(RESULTS_MAX));
    assert_eq!(failed(404, &body(&long)), "Device, no retry: 404 DEVICE_NOT_FOUND m null");
}

#[test]
fn every_way_to_say_slow_down_is_a_rate_limit() {
    let slow = "RateLimited, no retry: 429 RATE_LIMITED WhatsApp asks this device to slow down null";
    for message in ["info query returned status 429: rate-overlimit", "x: Rate-Overlimit", "returned status 429"] {
        for body in both_forms("INTERNAL_SERVER_ERROR", message) {
            assert_eq!(failed(500, &body), slow, "{message}");
            assert_eq!(failed(200, &body), slow, "{message}");
        }
    }
    for body in ["", "<html>", r#"{"code":"X","message":"y"}"#, SUCCESS] {
        assert_eq!(failed(429, body), slow, "{body}");
    }
}

#[test]
fn a_gateway_that_refuses_the_proxy_is_not_a_device_that_is_logged_out() {
    let refused = "Credentials, no retry: 502 BAD_GATEWAY the gateway refused the proxy's credentials null";
    for body in ["Unauthorized", "", "<html>", r#"{"code":"UNAUTHORIZED","message":"who are you"}"#] {
        assert_eq!(failed(401, body), refused, "{body}");
        assert_eq!(failed(403, body), refused, "{body}");
    }
    let status = StatusCode::UNAUTHORIZED;
    assert_eq!(without_envelope(status, Nonsense::TooLong).class, Class::Credentials);
    assert_eq!(without_envelope(status, Nonsense::BrokenOff).class, Class::Nonsense);
}

#[test]
fn everything_else_is_nonsense() {
    let no_envelope = "Nonsense, retry: 502 BAD_GATEWAY the gateway's answer is not in the form of a gateway's null";
    let long_code = format!(r#"{{"code":"{}","message":"m"}}"#, "C".repeat(65));
    for body in [
        "",
        "null",
        "OK",
        "<html><body>502 Bad Gateway</body></html>",
        r#"["SUCCESS","m",{"id":"1"}]"#,
        r#"{"code":200,"message":"m"}"#,
        r#"{"code":"SUCCESS"}"#,
        r#"{"message":"m"}"#,
        r#"{"code":"SUCCESS","message":null}"#,
        r#"{"code":"","message":"m"}"#,
        r#"{"code":"A B","message":"m"}"#,
        r#"{"code":"SUCCESS","message":"m"} {}"#,
        r#"{"code":"SUCCESS","message":"m""#,
        &long_code,
    ] {
        for status in [200, 204, 404, 408, 500, 502, 503, 504] {
            assert_eq!(failed(status, body), no_envelope, "{status} {body}");
        }
    }
    let unexpected = "Nonsense, retry: 502 BAD_GATEWAY the gateway's answer is not one of an avatar lookup null";
    for status in [101, 200, 202, 400, 404, 405, 418, 600, 999] {
        assert_eq!(failed(status, r#"{"code":"NOT_FOUND","message":"m"}"#), unexpected, "{status}");
    }
    for status in [200, 600] {
        assert_eq!(failed(status, r#"{"code":"VALIDATION_ERROR","message":"m"}"#), unexpected, "{status}");
    }
    for status in [300, 301, 302, 304, 307, 308] {
        assert!(failed(status, SUCCESS).contains("redirect"), "{status}");
    }
}

#[test]
fn a_long_message_is_cut_between_characters() {
    let [body, _] = both_forms("INTERNAL_SERVER_ERROR", &format!("x{}", "\u{1f600}".repeat(2000)));
    let reply = read(500, &body).unwrap_err().reply;
    assert_eq!(reply.message.len(), 1 + 4 * 255);
}

#[test]
fn details_tell_the_kind_and_the_status_and_nothing_of_the_body() {
    for (status, body, detail) in [
        (500, r#"{"code":"E628123","message":"628123 failed"}"#, "its own words, status 500"),
        (200, r#"{"code":"SUCCESS","message":"","results":{"url":"x628123"}}"#, "unusable picture, status 200"),
        (502, "<html>628123", "no envelope, status 502"),
        (429, "628123", "rate limit, status 429"),
        (302, "628123", "redirect, status 302"),
    ] {
        assert_eq!(read(status, body).unwrap_err().detail, detail);
    }
}

proptest! {
    #[test]
    fn no_body_panics(status in 100u16..1000, body in prop::collection::vec(any::<u8>(), 0..300), preview: bool) {
        let status = StatusCode::from_u16(status).unwrap();
        let _ = classify(status, &body, Variant { preview, community: false }, day_before());
    }

    #[test]
    fn no_envelope_panics_and_every_reply_is_an_error_within_bounds(
        status in 100u16..1000,
        code in "[A-Z_]{0,70}|SUCCESS|INVALID_JID",
        message in ".{0,600}",
        results in "null|7|\\[1\\]|\\{\"url\":\"[ -!#-\\[\\]-~]{0,80}\",\"id\":[0-9]{1,9}\\}",
    ) {
        let body = format!(r#"{{"code":"{code}","message":{},"results":{results}}}"#, json!(message));
        if let Err(Failure { reply, detail, .. }) = read(status, &body) {
            prop_assert!((400..600).contains(&reply.status));
            prop_assert!(reply.message.len() <= MESSAGE_MAX && reply.code.len() <= CODE_MAX && detail.len() < 64);
        }
    }

    #[test]
    fn a_truncated_answer_is_never_a_picture(length in 0..SUCCESS.len()) {
        prop_assert!(read(200, &SUCCESS[..length]).is_err());
    }

    #[test]
    fn a_damaged_answer_never_panics(at in 0..SUCCESS.len(), byte: u8) {
        let mut body = SUCCESS.as_bytes().to_vec();
        body[at] = byte;
        let _ = classify(StatusCode::OK, &body, Variant::default(), day_before());
    }
}
