//! What clients are told: the only place that knows statuses, header values and the shape of bodies.
//!
//! Bodies of the gateway's own endpoint are written as the gateway writes them: compact, keys in its order, `&`, `<` and `>` in
//! strings escaped as Go does. Every answer says how it came about: `Cache-Status` (RFC 9211), `Age`, `Cache-Control`, and an
//! `ETag` over the URL, so that a 304 never keeps a dead link alive.

use std::borrow::Cow;
use std::time::Duration;

use bytes::Bytes;
use http::header::{ALLOW, CACHE_CONTROL, CONNECTION, CONTENT_TYPE, HeaderName, RETRY_AFTER, WWW_AUTHENTICATE};
use http::{HeaderMap, HeaderValue, Method, Response, StatusCode};
use serde::Serialize;

use super::body::Body;
use super::facts::Facts;
use super::query::Invalid;
use crate::avatars::{Answer, Found, Unmet, Why, tag_of};
use crate::budget::{Allowance, Refusal};
use crate::clock::Timestamp;
use crate::entry::Entry;
use crate::go_json;
use crate::jid::Key;
use crate::outcome::{Class, Failure, Outcome, Picture};
use crate::store::StoreError;

mod headers;

pub(super) use headers::Template;
use headers::{about, is_known};

/// A reply.
pub(super) type Reply = Response<Body>;

const RATE_LIMIT: HeaderName = HeaderName::from_static("ratelimit");
const RATE_LIMIT_POLICY: HeaderName = HeaderName::from_static("ratelimit-policy");
const CACHE_STATUS: HeaderName = HeaderName::from_static("cache-status");

const JSON: HeaderValue = HeaderValue::from_static("application/json");
const TEXT: HeaderValue = HeaderValue::from_static("text/plain; charset=utf-8");
const NO_STORE: HeaderValue = HeaderValue::from_static("no-store");

/// The gateway's own success message, around what varies.
const SUCCESS_HEAD: &[u8] = br#"{"code":"SUCCESS","message":"Success get avatar","results":{"url":""#;
const BEFORE_ID: &[u8] = br#"","id":""#;
const BEFORE_KIND: &[u8] = br#"","type":""#;
const SUCCESS_END: &[u8] = br#""}}"#;
/// What does not vary of it (bytes).
const SUCCESS_FIXED: usize = SUCCESS_HEAD.len() + BEFORE_ID.len() + BEFORE_KIND.len() + SUCCESS_END.len();

fn reply(status: StatusCode, content_type: HeaderValue, body: impl Into<Body>) -> Reply {
    let mut reply = Response::new(body.into());
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
    let mut reply = Response::new(Body::from(""));
    *reply.status_mut() = StatusCode::NO_CONTENT;
    reply
}

/// An error in the gateway's envelope.
pub(super) fn error(status: StatusCode, code: &str, message: &str) -> Reply {
    let mut reply = reply(status, JSON, envelope(code, message, None));
    reply.headers_mut().insert(CACHE_CONTROL, NO_STORE);
    reply
}

/// JSON of the native API.
pub(super) fn json(value: &impl Serialize) -> Reply {
    let mut reply = reply(StatusCode::OK, JSON, serde_json::to_vec(value).unwrap_or_default());
    reply.headers_mut().insert(CACHE_CONTROL, NO_STORE);
    reply
}

/// A stream of events.
pub(super) fn event_stream(body: Body) -> Reply {
    reply(StatusCode::OK, HeaderValue::from_static("text/event-stream"), body)
}

/// Why a request of the native API is not answered with what it wants.
#[derive(Debug)]
pub(super) enum Problem {
    /// It is wrong.
    Invalid(Invalid),
    /// There is nothing at this address.
    Absent,
    /// A page of another site made it.
    CrossSite,
    /// Its body is not said to be JSON.
    NotJson,
    /// Its body is longer than this (bytes).
    BodyTooLong(usize),
    /// Its body did not come in time.
    BodyLate,
    /// More of them are being read than there is room for.
    Busy,
    /// It is not signed by the gateway.
    Forged,
    /// As many are watched as may be.
    TooManyWatches(u64),
    /// There are as many webhooks as there may be.
    TooManyWebhooks(u64),
    /// A webhook that a flag gives can be changed by that alone; this is the sentence that says so.
    GivenByFlag(String),
    /// The store fails.
    StoreAway,
}

impl From<Invalid> for Problem {
    fn from(invalid: Invalid) -> Self {
        Self::Invalid(invalid)
    }
}

impl From<StoreError> for Problem {
    fn from(_: StoreError) -> Self {
        // Whoever measures the store says it once.
        Self::StoreAway
    }
}

/// The answer to a request that met a problem.
pub(super) fn problem(problem: &Problem) -> Reply {
    let (status, code, message) = match problem {
        Problem::Invalid(wrong) => return invalid(&wrong.0),
        Problem::TooManyWatches(limit) => {
            let message = format!("{limit} are watched, and no more may be (--watch-limit).");
            return error(StatusCode::CONFLICT, "TOO_MANY_WATCHES", &message);
        }
        Problem::TooManyWebhooks(limit) => {
            let message = format!("there are {limit} webhooks, and no more may be (--webhook-limit).");
            return error(StatusCode::CONFLICT, "TOO_MANY_WEBHOOKS", &message);
        }
        Problem::BodyTooLong(limit) => {
            let message = format!("the body is longer than {} KiB.", limit / 1024);
            return error(StatusCode::PAYLOAD_TOO_LARGE, "PAYLOAD_TOO_LARGE", &message);
        }
        Problem::Busy => return unavailable("BUSY", "too much comes at once; try again."),
        Problem::GivenByFlag(message) => return error(StatusCode::CONFLICT, "GIVEN_BY_FLAG", message),
        Problem::StoreAway => return unavailable("STORE_UNAVAILABLE", "the store does not answer now."),
        Problem::Forged => (
            StatusCode::UNAUTHORIZED,
            "UNAUTHORIZED",
            "X-Hub-Signature-256 is not this body's, by the secret configured here.",
        ),
        Problem::Absent => (StatusCode::NOT_FOUND, "NOT_FOUND", "there is nothing at this address."),
        Problem::CrossSite => (StatusCode::FORBIDDEN, "FORBIDDEN", "pages of other sites may change nothing here."),
        Problem::NotJson => {
            (StatusCode::UNSUPPORTED_MEDIA_TYPE, "UNSUPPORTED_MEDIA_TYPE", "the body must be application/json.")
        }
        Problem::BodyLate => (StatusCode::REQUEST_TIMEOUT, "REQUEST_TIMEOUT", "the body did not come in time."),
    };
    error(status, code, message)
}

/// 503, for a moment.
fn unavailable(code: &str, message: &str) -> Reply {
    let mut reply = error(StatusCode::SERVICE_UNAVAILABLE, code, message);
    reply.headers_mut().insert(RETRY_AFTER, HeaderValue::from_static("1"));
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

/// 429, and no further request on this connection: a guess costs at least the next one.
pub(super) fn guessing(retry_after: Duration) -> Reply {
    let message = "too many wrong credentials came from this address.";
    let mut reply = error(StatusCode::TOO_MANY_REQUESTS, "RATE_LIMITED", message);
    reply.headers_mut().insert(RETRY_AFTER, HeaderValue::from(whole(retry_after)));
    reply.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    reply
}

/// 405: not with this method.
pub(super) fn not_allowed(allowed: &[Method]) -> Reply {
    let mut reply = error(StatusCode::METHOD_NOT_ALLOWED, "METHOD_NOT_ALLOWED", "this address takes another method.");
    let allowed = allowed.iter().map(Method::as_str).collect::<Vec<_>>().join(", ");
    if let Ok(allowed) = HeaderValue::try_from(allowed) {
        reply.headers_mut().insert(ALLOW, allowed);
    }
    reply
}

/// The answer to `GET /user/avatar`.
pub(super) fn avatar(found: &Found, facts: &Facts<'_>, template: &Template) -> Reply {
    match found.slot.answer() {
        Answer::Picture { url, id, kind } => {
            if is_known(facts, found.slot.tag) {
                return about(not_modified(), found, Some(found.slot.tag));
            }
            template.reply([url, id, kind], found)
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
    let tag = tag_of(&body);
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

/// Says how much of the device's budget is left. Answers from memory, which touch no budget, do not.
pub(super) fn budgeted(reply: &mut Reply, allowance: Allowance) {
    let Allowance { left, resets_after, burst, window } = allowance;
    let (reset, window) = (whole(resets_after), whole(window));
    for (name, value) in [
        (RATE_LIMIT, format!("\"device\";r={left};t={reset}")),
        (RATE_LIMIT_POLICY, format!("\"device\";q={burst};w={window}")),
    ] {
        if let Ok(value) = HeaderValue::try_from(value) {
            reply.headers_mut().insert(name, value);
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

fn not_modified() -> Reply {
    let mut reply = Response::new(Body::from(""));
    *reply.status_mut() = StatusCode::NOT_MODIFIED;
    reply
}

fn push(text: &mut Vec<u8>, more: &str) {
    text.extend_from_slice(more.as_bytes());
}

/// The gateway's success body, of URL, id and type as the insides of JSON strings.
fn success(text: &mut Vec<u8>, [url, id, kind]: [&[u8]; 3]) {
    for piece in [SUCCESS_HEAD, url, BEFORE_ID, id, BEFORE_KIND, kind, SUCCESS_END] {
        text.extend_from_slice(piece);
    }
}

/// The gateway's envelope; `results` is JSON text.
pub(super) fn envelope(code: &str, message: &str, results: Option<&str>) -> String {
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
        let mut body = Vec::new();
        success(&mut body, picture.parts().map(str::as_bytes));
        assert_eq!(
            String::from_utf8(body).unwrap(),
            "{\"code\":\"SUCCESS\",\"message\":\"Success get avatar\",\"results\":{\"url\":\"https://h/p?a=1\\u0026oe=620AA726\",\
             \"id\":\"1635239861\",\"type\":\"image\"}}"
        );
        assert_eq!(
            envelope("C", "a <b> & \"c\"\u{1}", None),
            "{\"code\":\"C\",\"message\":\"a \\u003cb\\u003e \\u0026 \\\"c\\\"\\u0001\",\"results\":null}"
        );
    }

    #[test]
    fn rounds_waits_up() {
        assert_eq!(whole(Duration::from_millis(1001)), 2);
        assert_eq!(whole(Duration::from_secs(2)), 2);
    }
}
