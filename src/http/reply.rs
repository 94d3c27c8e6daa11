//! What clients are told: the only place that knows statuses, header values and the shape of bodies.
//!
//! Bodies of the gateway's own endpoint are written as the gateway writes them: compact, keys in its order, `&`, `<` and `>` in
//! strings escaped as Go does. Every answer says how it came about: `Cache-Status` (RFC 9211), `Age`, `Cache-Control`, and an
//! `ETag` over the URL, so that a 304 never keeps a dead link alive.

use std::borrow::Cow;
use std::fmt::Write as _;
use std::time::Duration;

use bytes::Bytes;
use http::header::{
    AGE, ALLOW, CACHE_CONTROL, CONTENT_TYPE, ETAG, HeaderName, IF_NONE_MATCH, RETRY_AFTER, VARY, WWW_AUTHENTICATE,
};
use http::{HeaderMap, HeaderValue, Response, StatusCode};
use http_body_util::Full;
use serde::Serialize;

use crate::avatars::{Found, Met, Slot, Unmet, Why};
use crate::budget::Refusal;
use crate::clock::Timestamp;
use crate::jid::Key;
use crate::outcome::{Class, Failure, Negative, Outcome, Picture};

/// The body of every reply.
pub(super) type Body = Full<Bytes>;

/// A reply.
pub(super) type Reply = Response<Body>;

const CACHE_STATUS: HeaderName = HeaderName::from_static("cache-status");

const JSON: HeaderValue = HeaderValue::from_static("application/json");
const TEXT: HeaderValue = HeaderValue::from_static("text/plain; charset=utf-8");
const NO_STORE: HeaderValue = HeaderValue::from_static("no-store");

/// The answer depends on the device, which a header may name.
const VARY_DEVICE: HeaderValue = HeaderValue::from_static("X-Device-Id");

/// How long a client may keep an answer without asking again (s), if the URL lives that long: short, because a client that is
/// told of a change asks again and must not be answered by itself. Asking again costs a 304.
const MAX_AGE_SECONDS: u64 = 60;

/// The gateway's own success message.
const SUCCESS_HEAD: &[u8] = br#"{"code":"SUCCESS","message":"Success get avatar","results":"#;

fn reply(status: StatusCode, content_type: HeaderValue, body: impl Into<Bytes>) -> Reply {
    let mut reply = Response::new(Full::new(body.into()));
    *reply.status_mut() = status;
    reply.headers_mut().insert(CONTENT_TYPE, content_type);
    reply
}

fn status(code: u16) -> StatusCode {
    StatusCode::from_u16(code).unwrap_or(StatusCode::BAD_GATEWAY)
}

/// Plain text.
pub(super) fn text(status: StatusCode, body: &'static str) -> Reply {
    reply(status, TEXT, body)
}

/// A body of some other media type.
pub(super) fn document(content_type: &'static str, body: Vec<u8>) -> Reply {
    reply(StatusCode::OK, HeaderValue::from_static(content_type), body)
}

/// Only a status, and what may be done here.
pub(super) fn no_content() -> Reply {
    let mut reply = Response::new(Full::default());
    *reply.status_mut() = StatusCode::NO_CONTENT;
    reply
}

/// An error in the gateway's envelope.
pub(super) fn error(status: StatusCode, code: &str, message: &str) -> Reply {
    let mut reply = reply(status, JSON, envelope(code, message, None));
    reply.headers_mut().insert(CACHE_CONTROL, NO_STORE);
    reply
}

/// 400: the request is wrong.
pub(super) fn invalid(message: &str) -> Reply {
    error(StatusCode::BAD_REQUEST, "VALIDATION_ERROR", message)
}

/// 401, as the gateway says it.
pub(super) fn unauthorized() -> Reply {
    let mut reply = text(StatusCode::UNAUTHORIZED, "Unauthorized");
    reply.headers_mut().insert(WWW_AUTHENTICATE, HeaderValue::from_static("Basic realm=\"Restricted\""));
    reply
}

/// 405: not with this method.
pub(super) fn not_allowed(allowed: &'static str) -> Reply {
    let mut reply = error(StatusCode::METHOD_NOT_ALLOWED, "METHOD_NOT_ALLOWED", "this address takes another method.");
    reply.headers_mut().insert(ALLOW, HeaderValue::from_static(allowed));
    reply
}

/// The answer to `GET /user/avatar`.
pub(super) fn avatar(found: &Found, now: Timestamp, request: &HeaderMap) -> Reply {
    let entry = &found.slot.entry;
    match &entry.outcome {
        Outcome::Present(picture) => {
            let tag = etag(&found.slot);
            if is_known(request, &tag) {
                return not_modified(found, tag, now);
            }
            let mut reply = reply(StatusCode::OK, JSON, success(picture));
            reply.headers_mut().insert(ETAG, tag);
            about(&mut reply, found, now);
            reply
        }
        Outcome::Negative(Negative { status: code, code: word, message, .. }) => {
            let mut reply = reply(status(*code), JSON, envelope(word, message, None));
            about(&mut reply, found, now);
            reply
        }
    }
}

/// The answer to `GET /avatars/{jid}`.
pub(super) fn native(found: &Found, key: &Key, now: Timestamp, request: &HeaderMap) -> Reply {
    let Slot { entry, history, .. } = &*found.slot;
    let picture = match &entry.outcome {
        Outcome::Present(picture) => Some(picture),
        Outcome::Negative(_) => None,
    };
    let some = |text: &'_ str| (!text.is_empty()).then(|| text.to_owned());
    let avatar = Avatar {
        jid: key.subject.jid.to_string(),
        device_id: key.subject.device.as_str(),
        preview: key.variant.preview,
        outcome: match &entry.outcome {
            Outcome::Present(_) => "present",
            Outcome::Negative(negative) => negative.reason.as_str(),
        },
        id: picture.and_then(|picture| some(picture.id())),
        url: picture.and_then(|picture| some(picture.url())),
        kind: picture.and_then(|picture| some(picture.kind())),
        expires_at: picture.and_then(Picture::expires_at).map(Timestamp::rfc3339),
        checked_at: entry.checked_at.rfc3339(),
        changed_at: history.changed_at.map(Timestamp::rfc3339),
        version: history.version,
        image: None,
    };
    let body = serde_json::to_vec(&avatar).unwrap_or_default();
    // Unlike the gateway's own body, this one tells more than the URL: when it was last looked at, how often it changed.
    let tag = opaque_tag(&body);
    if is_known(request, &tag) {
        return not_modified(found, tag, now);
    }
    let mut reply = reply(StatusCode::OK, JSON, body);
    reply.headers_mut().insert(ETAG, tag);
    about(&mut reply, found, now);
    reply
}

/// The native form of an avatar.
#[derive(Serialize)]
struct Avatar<'a> {
    jid: String,
    device_id: &'a str,
    preview: bool,
    outcome: &'static str,
    id: Option<String>,
    url: Option<String>,
    #[serde(rename = "type")]
    kind: Option<String>,
    expires_at: Option<String>,
    checked_at: String,
    changed_at: Option<String>,
    version: u64,
    image: Option<String>,
}

/// The answer to a lookup without an outcome.
pub(super) fn unmet(unmet: &Unmet) -> Reply {
    match unmet {
        Unmet::Failed { failure, retry_after, why, collapsed } => {
            let collapsed = if *collapsed { "; collapsed" } else { "" };
            let how = format!("avatar-proxy; fwd={}{collapsed}; detail={}", why.as_str(), failure.class.as_str());
            failed(failure, *retry_after, how)
        }
        Unmet::Resting { failure, retry_after } => {
            let how = format!("avatar-proxy; hit; ttl={}; detail={}", whole(*retry_after), failure.class.as_str());
            failed(failure, *retry_after, how)
        }
        Unmet::Refused(refusal) => {
            let message = match refusal {
                Refusal::CoolingDown { .. } => {
                    "WhatsApp asked this device to slow down; nothing is looked up until it may be again."
                }
                Refusal::Spent { .. } => "the budget for lookups is spent for now.",
                Refusal::Held { .. } => "the gateway cannot be asked for now.",
            };
            let reply = error(StatusCode::TOO_MANY_REQUESTS, "RATE_LIMITED", message);
            explained(reply, format!("avatar-proxy; detail={}", refused(refusal)), Some(refusal.retry_after()))
        }
        Unmet::Absent => {
            let reply = error(
                StatusCode::GATEWAY_TIMEOUT,
                "GATEWAY_TIMEOUT",
                "nothing is cached, and only-if-cached was asked for.",
            );
            explained(reply, "avatar-proxy; detail=only-if-cached".to_owned(), None)
        }
        Unmet::OwnerGone => {
            let reply = error(StatusCode::BAD_GATEWAY, "BAD_GATEWAY", "the lookup was broken off; try again.");
            explained(reply, "avatar-proxy; fwd=miss; detail=owner-gone".to_owned(), Some(Duration::from_secs(1)))
        }
        Unmet::TooLong => {
            let reply = error(StatusCode::GATEWAY_TIMEOUT, "GATEWAY_TIMEOUT", "the lookup took too long.");
            explained(reply, "avatar-proxy; fwd=miss; detail=too-long".to_owned(), Some(Duration::from_secs(1)))
        }
    }
}

fn failed(failure: &Failure, retry_after: Duration, how: String) -> Reply {
    let envelope = envelope(&failure.reply.code, &failure.reply.message, failure.reply.results.as_deref());
    let mut reply = reply(status(failure.reply.status), JSON, envelope);
    reply.headers_mut().insert(CACHE_CONTROL, NO_STORE);
    explained(reply, how, Some(retry_after))
}

fn explained(mut reply: Reply, how: String, retry_after: Option<Duration>) -> Reply {
    if let Ok(how) = HeaderValue::from_maybe_shared(Bytes::from(how)) {
        reply.headers_mut().insert(CACHE_STATUS, how);
    }
    if let Some(retry_after) = retry_after.filter(|wait| !wait.is_zero()) {
        reply.headers_mut().insert(RETRY_AFTER, HeaderValue::from(whole(retry_after)));
    }
    reply
}

/// Whole seconds, rounded up: coming back a moment too early is coming back twice.
fn whole(duration: Duration) -> u64 {
    duration.as_secs() + u64::from(duration.subsec_nanos() > 0)
}

fn refused(refusal: &Refusal) -> &'static str {
    match refusal {
        Refusal::Spent { .. } => "budget",
        Refusal::CoolingDown { .. } => Class::RateLimited.as_str(),
        Refusal::Held { failure, .. } => failure.class.as_str(),
    }
}

/// The headers that say how an answer came about and how long it lasts.
fn about(reply: &mut Reply, found: &Found, now: Timestamp) {
    let headers = reply.headers_mut();
    let entry = &found.slot.entry;
    let ttl = entry.ttl(now).as_secs();
    let mut text = String::with_capacity(64);
    // Writing to a string cannot fail.
    let _ = match &found.met {
        Met::Memory | Met::Store => write!(text, "avatar-proxy; hit; ttl={ttl}"),
        Met::Recent => write!(text, "avatar-proxy; hit; ttl={ttl}; detail=recent"),
        Met::Spared(refusal) => write!(text, "avatar-proxy; hit; ttl={ttl}; detail={}", refused(refusal)),
        Met::Kept(failure) => write!(text, "avatar-proxy; fwd=stale; ttl={ttl}; detail={}", failure.class.as_str()),
        Met::Asked { why, collapsed } => {
            let collapsed = if *collapsed { "; collapsed" } else { "" };
            write!(text, "avatar-proxy; fwd={}; stored{collapsed}; ttl={ttl}", why.as_str())
        }
    };
    if let Ok(how) = HeaderValue::from_maybe_shared(Bytes::from(text)) {
        headers.insert(CACHE_STATUS, how);
    }
    let max_age = format!("private, max-age={}", ttl.min(MAX_AGE_SECONDS));
    if let Ok(max_age) = HeaderValue::from_maybe_shared(Bytes::from(max_age)) {
        headers.insert(CACHE_CONTROL, max_age);
    }
    headers.insert(AGE, HeaderValue::from(entry.age(now).as_secs()));
    headers.insert(VARY, VARY_DEVICE);
}

fn not_modified(found: &Found, tag: HeaderValue, now: Timestamp) -> Reply {
    let mut reply = Response::new(Full::default());
    *reply.status_mut() = StatusCode::NOT_MODIFIED;
    reply.headers_mut().insert(ETAG, tag);
    about(&mut reply, found, now);
    reply
}

fn etag(slot: &Slot) -> HeaderValue {
    quoted(slot.tag)
}

fn opaque_tag(body: &[u8]) -> HeaderValue {
    use sha2::{Digest as _, Sha256};
    let digest = Sha256::digest(body);
    quoted(u64::from_be_bytes(digest[..8].try_into().unwrap_or_default()))
}

fn quoted(tag: u64) -> HeaderValue {
    HeaderValue::from_maybe_shared(Bytes::from(format!("\"{tag:016x}\""))).unwrap_or(HeaderValue::from_static("\"\""))
}

/// Whether the client holds the answer with this tag already (RFC 9110 section 13.1.2, weak comparison).
fn is_known(request: &HeaderMap, tag: &HeaderValue) -> bool {
    request.get_all(IF_NONE_MATCH).iter().any(|value| {
        value.as_bytes().split(|&byte| byte == b',').any(|held| {
            let held = held.trim_ascii();
            let held = held.strip_prefix(b"W/").unwrap_or(held);
            held == b"*" || held == tag.as_bytes()
        })
    })
}

/// The gateway's success body.
fn success(picture: &Picture) -> Vec<u8> {
    let mut body = Vec::with_capacity(SUCCESS_HEAD.len() + picture.heap_bytes() + 80);
    body.extend_from_slice(SUCCESS_HEAD);
    for (name, value) in [("{\"url\":", picture.url()), (",\"id\":", picture.id()), (",\"type\":", picture.kind())] {
        body.extend_from_slice(name.as_bytes());
        go_string(&mut body, value);
    }
    body.extend_from_slice(b"}}");
    body
}

/// The gateway's envelope; `results` is JSON text.
fn envelope(code: &str, message: &str, results: Option<&str>) -> Vec<u8> {
    let mut body = Vec::with_capacity(64 + code.len() + message.len());
    body.extend_from_slice(b"{\"code\":");
    go_string(&mut body, code);
    body.extend_from_slice(b",\"message\":");
    go_string(&mut body, message);
    body.extend_from_slice(b",\"results\":");
    body.extend_from_slice(results.unwrap_or("null").as_bytes());
    body.push(b'}');
    body
}

/// A JSON string as Go's encoder writes it: `<`, `>` and `&` are escaped, and so are the two line separators of Unicode.
fn go_string(body: &mut Vec<u8>, text: &str) {
    body.push(b'"');
    let mut rest = text;
    while let Some(at) = rest.find(needs_escape) {
        let (plain, escaped) = rest.split_at(at);
        body.extend_from_slice(plain.as_bytes());
        let mut characters = escaped.chars();
        let replacement: Cow<'static, str> = match characters.next() {
            Some('&') => "\\u0026".into(),
            Some('<') => "\\u003c".into(),
            Some('>') => "\\u003e".into(),
            Some('"') => "\\\"".into(),
            Some('\\') => "\\\\".into(),
            Some('\n') => "\\n".into(),
            Some('\r') => "\\r".into(),
            Some('\t') => "\\t".into(),
            Some(other) => format!("\\u{:04x}", u32::from(other)).into(),
            None => "".into(),
        };
        body.extend_from_slice(replacement.as_bytes());
        rest = characters.as_str();
    }
    body.extend_from_slice(rest.as_bytes());
    body.push(b'"');
}

fn needs_escape(character: char) -> bool {
    matches!(character, '&' | '<' | '>' | '"' | '\\' | '\0'..='\x1f' | '\u{2028}' | '\u{2029}')
}

impl Why {
    /// The word of RFC 9211.
    fn as_str(self) -> &'static str {
        match self {
            Self::Miss => "miss",
            Self::Stale => "stale",
            Self::Request => "request",
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn writes_the_gateways_bytes() {
        let picture = Picture::new("https://h/p?a=1&oe=620AA726", "1635239861", "image");
        assert_eq!(
            String::from_utf8(success(&picture)).unwrap(),
            "{\"code\":\"SUCCESS\",\"message\":\"Success get avatar\",\"results\":{\"url\":\"https://h/p?a=1\\u0026oe=620AA726\",\
             \"id\":\"1635239861\",\"type\":\"image\"}}"
        );
        assert_eq!(
            String::from_utf8(envelope("C", "a <b> & \"c\"\u{1}", None)).unwrap(),
            "{\"code\":\"C\",\"message\":\"a \\u003cb\\u003e \\u0026 \\\"c\\\"\\u0001\",\"results\":null}"
        );
    }

    #[test]
    fn compares_tags_weakly() {
        let tag = quoted(1);
        let known = |value: &'static str| {
            is_known(&HeaderMap::from_iter([(IF_NONE_MATCH, HeaderValue::from_static(value))]), &tag)
        };
        assert!(known("\"0000000000000001\"") && known("\"x\", W/\"0000000000000001\"") && known("*"));
        assert!(!known("\"0000000000000002\"") && !known("0000000000000001") && !known(""));
    }

    #[test]
    fn rounds_waits_up() {
        assert_eq!(whole(Duration::from_millis(1001)), 2);
        assert_eq!(whole(Duration::from_secs(2)), 2);
    }

    proptest! {
        #[test]
        fn every_string_is_read_back(text in ".*") {
            let mut body = vec![];
            go_string(&mut body, &text);
            prop_assert_eq!(serde_json::from_slice::<String>(&body).unwrap(), text);
        }
    }
}
