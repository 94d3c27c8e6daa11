//! What clients are told: the only place that knows statuses, header values and the shape of bodies.
//!
//! Bodies of the gateway's own endpoint are written as the gateway writes them: compact, keys in its order, `&`, `<` and `>` in
//! strings escaped as Go does. Every answer says how it came about: `Cache-Status` (RFC 9211), `Age`, `Cache-Control`, and an
//! `ETag` over the URL, so that a 304 never keeps a dead link alive.

use std::borrow::Cow;
use std::ops::Range;
use std::time::Duration;

use bytes::Bytes;
use http::header::{
    AGE, ALLOW, CACHE_CONTROL, CONNECTION, CONTENT_TYPE, ETAG, HeaderName, RETRY_AFTER, VARY, WWW_AUTHENTICATE,
};
use http::{HeaderMap, HeaderValue, Response, StatusCode};
use http_body_util::Full;
use serde::Serialize;
use sha2::{Digest as _, Sha256};

use super::facts::Facts;
use crate::avatars::{Answer, Found, Met, Unmet, Why};
use crate::budget::Refusal;
use crate::clock::Timestamp;
use crate::entry::Entry;
use crate::go_json;
use crate::jid::Key;
use crate::outcome::{Class, Failure, Outcome, Picture};

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
const MAX_AGE: HeaderValue = HeaderValue::from_static("private, max-age=60");

/// The gateway's own success message.
const SUCCESS_HEAD: &[u8] = br#"{"code":"SUCCESS","message":"Success get avatar","results":{"url":""#;

fn reply(status: StatusCode, content_type: HeaderValue, body: impl Into<Bytes>) -> Reply {
    let mut reply = Response::new(Full::new(body.into()));
    *reply.status_mut() = status;
    // Room for all that `about` adds, at once.
    *reply.headers_mut() = HeaderMap::with_capacity(8);
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

/// 400, and no further request on this connection: whoever sent it may see its end elsewhere.
pub(super) fn malformed(message: &str) -> Reply {
    let mut reply = error(StatusCode::BAD_REQUEST, "BAD_REQUEST", message);
    reply.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    reply
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
pub(super) fn avatar(found: &Found, facts: &Facts<'_>) -> Reply {
    match found.slot.answer() {
        Answer::Picture { url, id, kind } => {
            let tag = Some(found.slot.tag);
            if is_known(facts, found.slot.tag) {
                return about(not_modified(), found, tag);
            }
            about(reply(StatusCode::OK, JSON, success(url, id, kind)), found, tag)
        }
        Answer::Negative { status: number, code, message, .. } => {
            about(reply(status(number), JSON, envelope(code, message, None)), found, None)
        }
    }
}

/// The answer to `GET /avatars/{jid}`.
pub(super) fn native(found: &Found, key: &Key, facts: &Facts<'_>) -> Reply {
    let Entry { outcome, checked_at, .. } = found.slot.to_entry();
    let history = found.slot.history();
    let picture = match &outcome {
        Outcome::Present(picture) => Some(picture),
        Outcome::Negative(_) => None,
    };
    let some = |text: Cow<'_, str>| (!text.is_empty()).then(|| text.into_owned());
    let avatar = Avatar {
        jid: key.subject.jid.to_string(),
        device_id: key.subject.device.as_str(),
        preview: key.variant.preview,
        outcome: match &outcome {
            Outcome::Present(_) => "present",
            Outcome::Negative(negative) => negative.reason.as_str(),
        },
        id: picture.and_then(|picture| some(picture.id().into())),
        url: picture.and_then(|picture| some(picture.url())),
        kind: picture.and_then(|picture| some(picture.kind())),
        expires_at: picture.and_then(Picture::expires_at).map(Timestamp::rfc3339),
        checked_at: checked_at.rfc3339(),
        changed_at: history.changed_at.map(Timestamp::rfc3339),
        version: history.version,
        image: None,
    };
    let body = serde_json::to_vec(&avatar).unwrap_or_default();
    // Unlike the gateway's own body, this one tells more than the URL: when it was last looked at, how often it changed.
    let digest = Sha256::digest(&body);
    let tag = u64::from_be_bytes(digest[..8].try_into().unwrap_or_default());
    if is_known(facts, tag) {
        return about(not_modified(), found, Some(tag));
    }
    about(reply(StatusCode::OK, JSON, body), found, Some(tag))
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

/// Adds the headers that say how an answer came about and how long it lasts.
///
/// On a cache hit this is the larger part of our own work, so all values that vary are written into one buffer.
fn about(mut reply: Reply, found: &Found, tag: Option<u64>) -> Reply {
    let entry = &found.slot.entry;
    let ttl = entry.ttl(found.at).as_secs();
    let mut written = Written::default();
    let how = written.next(|text| {
        let ttl = |text: &mut Vec<u8>, before: &str| {
            push(text, before);
            push(text, itoa::Buffer::new().format(ttl));
        };
        match &found.met {
            Met::Memory | Met::Store => ttl(text, "avatar-proxy; hit; ttl="),
            Met::Recent => {
                ttl(text, "avatar-proxy; hit; ttl=");
                push(text, "; detail=recent");
            }
            Met::Spared(refusal) => {
                ttl(text, "avatar-proxy; hit; ttl=");
                push(text, "; detail=");
                push(text, refused(refusal));
            }
            Met::Kept(failure) => {
                ttl(text, "avatar-proxy; fwd=stale; ttl=");
                push(text, "; detail=");
                push(text, failure.class.as_str());
            }
            Met::Asked { why, collapsed } => {
                push(text, "avatar-proxy; fwd=");
                push(text, why.as_str());
                push(text, if *collapsed { "; stored; collapsed" } else { "; stored" });
                ttl(text, "; ttl=");
            }
        }
    });
    let age = written.next(|text| push(text, itoa::Buffer::new().format(entry.age(found.at).as_secs())));
    let max_age = (ttl < MAX_AGE_SECONDS).then(|| {
        written.next(|text| {
            push(text, "private, max-age=");
            push(text, itoa::Buffer::new().format(ttl));
        })
    });
    let tag = tag.map(|tag| written.next(|text| text.extend_from_slice(&quoted(tag))));

    let values = Bytes::from(written.0);
    let value = |range: Range<usize>| {
        HeaderValue::from_maybe_shared(values.slice(range)).unwrap_or(HeaderValue::from_static(""))
    };
    let headers = reply.headers_mut();
    headers.insert(CACHE_STATUS, value(how));
    headers.insert(AGE, value(age));
    headers.insert(CACHE_CONTROL, max_age.map_or(MAX_AGE, value));
    headers.insert(VARY, VARY_DEVICE);
    if let Some(tag) = tag {
        headers.insert(ETAG, value(tag));
    }
    reply
}

/// Header values, one behind the other.
struct Written(Vec<u8>);

impl Default for Written {
    fn default() -> Self {
        Self(Vec::with_capacity(128))
    }
}

impl Written {
    fn next(&mut self, write: impl FnOnce(&mut Vec<u8>)) -> Range<usize> {
        let start = self.0.len();
        write(&mut self.0);
        start..self.0.len()
    }
}

fn push(text: &mut Vec<u8>, more: &str) {
    text.extend_from_slice(more.as_bytes());
}

fn not_modified() -> Reply {
    let mut reply = Response::new(Full::default());
    *reply.status_mut() = StatusCode::NOT_MODIFIED;
    reply
}

/// A strong entity tag (RFC 9110 section 8.8.3).
fn quoted(tag: u64) -> [u8; 18] {
    let mut quoted = [b'"'; 18];
    for (place, shift) in quoted[1..17].iter_mut().zip((0..16).rev()) {
        *place = b"0123456789abcdef"[(tag >> (shift * 4) & 15) as usize];
    }
    quoted
}

/// Whether the client holds the answer with this tag already (RFC 9110 section 13.1.2, weak comparison).
fn is_known(facts: &Facts<'_>, tag: u64) -> bool {
    let Some(lines) = &facts.known_tags else { return false };
    let tag = quoted(tag);
    lines.iter().any(|line| {
        line.as_bytes().split(|&byte| byte == b',').any(|held| {
            let held = held.trim_ascii();
            let held = held.strip_prefix(b"W/").unwrap_or(held);
            held == b"*" || held == tag
        })
    })
}

/// The gateway's success body; the texts are inside JSON already.
fn success(url: &[u8], id: &[u8], kind: &[u8]) -> Vec<u8> {
    [SUCCESS_HEAD, url, b"\",\"id\":\"", id, b"\",\"type\":\"", kind, b"\"}}"].concat()
}

/// The gateway's envelope; `results` is JSON text.
fn envelope(code: &str, message: &str, results: Option<&str>) -> String {
    let mut body = String::with_capacity(64 + code.len() + message.len());
    body.push_str("{\"code\":\"");
    go_json::escape(&mut body, code);
    body.push_str("\",\"message\":\"");
    go_json::escape(&mut body, message);
    body.push_str("\",\"results\":");
    body.push_str(results.unwrap_or("null"));
    body.push('}');
    body
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
    use super::*;

    #[test]
    fn writes_the_gateways_bytes() {
        let picture = Picture::new("https://h/p?a=1&oe=620AA726", "1635239861", "image");
        let [url, id, kind] = picture.parts().map(str::as_bytes);
        assert_eq!(
            String::from_utf8(success(url, id, kind)).unwrap(),
            "{\"code\":\"SUCCESS\",\"message\":\"Success get avatar\",\"results\":{\"url\":\"https://h/p?a=1\\u0026oe=620AA726\",\
             \"id\":\"1635239861\",\"type\":\"image\"}}"
        );
        assert_eq!(
            envelope("C", "a <b> & \"c\"\u{1}", None),
            "{\"code\":\"C\",\"message\":\"a \\u003cb\\u003e \\u0026 \\\"c\\\"\\u0001\",\"results\":null}"
        );
    }

    #[test]
    fn compares_tags_weakly() {
        let known = |value: &'static str| {
            let value = HeaderValue::from_static(value);
            is_known(&Facts { known_tags: Some(vec![&value]), ..Facts::default() }, 1)
        };
        assert!(known("\"0000000000000001\"") && known("\"x\", W/\"0000000000000001\"") && known("*"));
        assert!(!known("\"0000000000000002\"") && !known("0000000000000001") && !known(""));
    }

    #[test]
    fn rounds_waits_up() {
        assert_eq!(whole(Duration::from_millis(1001)), 2);
        assert_eq!(whole(Duration::from_secs(2)), 2);
    }
}
