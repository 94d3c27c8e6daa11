//! How a lookup fails, and what the client is told.
//!
//! Every failure that can come out of the gateway is made here: its class, whether asking again helps, and the reply. Where
//! the gateway used words of its own they are replayed; where it did not, the words below are. None of them, and no `detail`,
//! ever holds an address, a name, a secret or a piece of a body: details go to the log, replies to anybody.

use compact_str::{CompactString, format_compact};

use crate::outcome::{Class, Envelope, Failure};

/// Why what came back is no answer of a gateway, or why nothing came back.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Nonsense {
    /// The host has no address.
    NameNotFound,
    /// Nobody listens there.
    Refused,
    /// No connection in the time allowed for one.
    ConnectTimeout,
    /// Somebody listens, and no secure connection could be made.
    Tls,
    /// The certificate is of an authority that nobody here knows.
    Untrusted,
    /// The certificate is somebody else's.
    OtherName,
    /// The certificate has expired, or is not valid yet.
    NotInForce,
    /// No connection for another reason.
    Unreachable,
    /// The connection ended in the middle.
    BrokenOff,
    /// What came is not HTTP, or its header is absurdly long.
    NotHttp,
    /// More than [`BODY_LIMIT`](super::BODY_LIMIT).
    TooLong,
    /// Redirects are not followed: they would carry the credentials elsewhere.
    Redirect,
    /// Not JSON, or not the gateway's.
    NoEnvelope,
    /// An envelope whose status and code do not belong together, or are none of the avatar endpoint's.
    Unexpected,
    /// A success whose picture cannot be one.
    Picture,
    /// A picture whose URL is dead on arrival.
    Expired,
}

impl Nonsense {
    /// Asking again brings the same expired URL, as `oe` is quantised; everything else may have been an accident.
    const fn retry(self) -> bool {
        !matches!(self, Self::Expired)
    }

    /// For the client.
    const fn message(self) -> &'static str {
        match self {
            Self::NameNotFound
            | Self::Refused
            | Self::ConnectTimeout
            | Self::Tls
            | Self::Untrusted
            | Self::OtherName
            | Self::NotInForce
            | Self::Unreachable => "the gateway cannot be reached",
            Self::BrokenOff => "the gateway broke off its answer",
            Self::NotHttp => "the gateway's answer is not HTTP",
            Self::TooLong => "the gateway's answer is too long",
            Self::Redirect => "the gateway answered with a redirect",
            Self::NoEnvelope => "the gateway's answer is not in the form of a gateway's",
            Self::Unexpected => "the gateway's answer is not one of an avatar lookup",
            Self::Picture => "the gateway's answer names no usable picture",
            Self::Expired => "the gateway handed out an expired URL",
        }
    }

    /// For the log.
    const fn detail(self) -> &'static str {
        match self {
            Self::NameNotFound => "host not found",
            Self::Refused => "connection refused",
            Self::ConnectTimeout => "connecting timed out",
            Self::Tls => "TLS failed",
            Self::Untrusted => "certificate of an unknown authority",
            Self::OtherName => "certificate for another name",
            Self::NotInForce => "certificate expired or not valid yet",
            Self::Unreachable => "unreachable",
            Self::BrokenOff => "broken off",
            Self::NotHttp => "not HTTP",
            Self::TooLong => "too long",
            Self::Redirect => "redirect",
            Self::NoEnvelope => "no envelope",
            Self::Unexpected => "unexpected",
            Self::Picture => "unusable picture",
            Self::Expired => "expired URL",
        }
    }
}

/// Nothing came back in time.
#[must_use]
pub fn late() -> Failure {
    let reply = ours(504, "GATEWAY_TIMEOUT", "the gateway did not answer in time");
    Failure { class: Class::Late, retry: false, reply, detail: CompactString::const_new("timed out") }
}

/// WhatsApp, or a gateway under a `status` of 429, says: slow down.
#[must_use]
pub fn rate_limited(status: u16) -> Failure {
    let reply = ours(429, "RATE_LIMITED", "WhatsApp asks this device to slow down");
    Failure { class: Class::RateLimited, retry: false, reply, detail: with_status("rate limit", status) }
}

/// The gateway does not know the proxy, or does not let it in.
#[must_use]
pub fn credentials(status: u16) -> Failure {
    let reply = ours(502, "BAD_GATEWAY", "the gateway refused the proxy's credentials");
    Failure { class: Class::Credentials, retry: false, reply, detail: with_status("credentials refused", status) }
}

/// What came back, under a `status` if there was one, is no answer of a gateway.
#[must_use]
pub fn nonsense(kind: Nonsense, status: Option<u16>) -> Failure {
    let detail = status.map_or_else(|| kind.detail().into(), |status| with_status(kind.detail(), status));
    Failure { class: Class::Nonsense, retry: kind.retry(), reply: ours(502, "BAD_GATEWAY", kind.message()), detail }
}

/// The gateway said itself what is wrong: the client is told in its words.
#[must_use]
pub fn replayed(class: Class, retry: bool, reply: Envelope) -> Failure {
    let detail = with_status("its own words", reply.status);
    Failure { class, retry, reply, detail }
}

fn ours(status: u16, code: &'static str, message: &'static str) -> Envelope {
    Envelope { status, code: CompactString::const_new(code), message: CompactString::const_new(message), results: None }
}

fn with_status(what: &str, status: u16) -> CompactString {
    format_compact!("{what}, status {status}")
}
