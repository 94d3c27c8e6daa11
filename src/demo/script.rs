//! What can be scripted: replies, the forms of a success, the addresses of pictures.
//!
//! A [`Reply`] is data, so that a script reads like a list of what will happen. Every row of the gateway's failures is one
//! variant, and so is every way in which a network or a reverse proxy spoils an answer.

use std::time::Duration;

use bytes::Bytes;

use crate::clock::Timestamp;

/// One answer to one lookup.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reply {
    /// The person's picture: 200.
    Present,
    /// The person's picture, written in an unusual way.
    PresentAs(Form),
    /// 500 `that user or group does not have a profile picture`.
    NotSet,
    /// 500 `no avatar found`: the same in other words.
    NoAvatarFound,
    /// 500 `the user has hidden their profile picture from you`.
    Hidden,
    /// 400 `INVALID_JID`.
    Unregistered,

    /// 400 `VALIDATION_ERROR`.
    Blank,
    /// 500 `invalid JID ...`.
    InvalidJid,

    /// 500 `info query returned status 429: rate-overlimit`.
    RateLimited,
    /// 500 `info query returned status {n}: {text}`; the text is WhatsApp's own for the number.
    WhatsAppFailed(u16),
    /// 500 `INTERNAL_SERVER_ERROR` with any other message.
    Internal(String),
    /// 408 `CONTEXT_ERROR`.
    ContextTimeout,
    /// 504 `GATEWAY_TIMEOUT`, as the gateway itself sends it.
    GatewayTimeout,
    /// 401 `AUTHENTICATION_ERROR`: the device is logged out.
    LoggedOut,
    /// 401 `AUTHENTICATION_ERROR`: the device is offline.
    NotConnected,
    /// 401, plain text: the caller's password is wrong.
    Unauthorized,
    /// 400 `DEVICE_ID_REQUIRED`.
    DeviceIdRequired,
    /// 404 `DEVICE_NOT_FOUND`; `results.device_id` names the device asked for.
    DeviceNotFound,
    /// 500 `INVALID_WA_CLI`.
    NoSession,
    /// 503 `DEVICE_MANAGER_UNAVAILABLE`.
    Starting,
    /// Any other envelope.
    Envelope {
        /// HTTP status.
        status: u16,
        /// `code`.
        code: String,
        /// `message`.
        message: String,
    },

    /// The HTML page of a reverse proxy: 502, 503, 504...
    Page(u16),
    /// 302 to this address.
    Redirect(String),
    /// Anything at all, as long as it is HTTP.
    Raw {
        /// HTTP status.
        status: u16,
        /// `Content-Type`.
        content_type: String,
        /// The whole body.
        body: Bytes,
    },
    /// The person's picture, followed by blanks until the body is this long (bytes). Still JSON.
    Padded(usize),
    /// The person's picture, followed by blanks in chunks that never end.
    Endless,
    /// The head promises the person's picture; the connection closes half-way through the body.
    Truncated,
    /// The head and half the body arrive, then nothing more; the connection stays open.
    Stalled,
    /// The whole answer, head included, one byte each time this has passed.
    Drip(Duration),
    /// These bytes instead of HTTP, then the connection closes.
    Garbage(Bytes),
    /// The request is read and never answered.
    Hang,
    /// The connection is reset (RST).
    Reset,
    /// The connection is closed without an answer (FIN).
    Close,

    /// Another reply, this much later: in place of the gateway's usual latency.
    After(Duration, Box<Reply>),
    /// One time in so many, by the gateway's seeded dice, the first reply; otherwise the second.
    OneIn(u32, Box<Reply>, Box<Reply>),
}

impl Reply {
    /// This reply, `delay` after the lookup arrived, in place of the gateway's usual latency.
    #[must_use]
    pub fn after(self, delay: Duration) -> Self {
        Self::After(delay, Box::new(self))
    }

    /// This reply one time in `n`, otherwise the other.
    #[must_use]
    pub fn one_in(self, n: u32, otherwise: Self) -> Self {
        Self::OneIn(n, Box::new(self), Box::new(otherwise))
    }

    /// A body of one's own, as JSON.
    #[must_use]
    pub fn json(status: u16, body: impl Into<Bytes>) -> Self {
        Self::Raw { status, content_type: "application/json".to_owned(), body: body.into() }
    }

    /// A passing failure in the gateway's own envelope: `failed to get avatar: websocket not connected` and its like.
    #[must_use]
    pub fn internal(message: &str) -> Self {
        Self::Internal(message.to_owned())
    }

    /// Every failure that the gateway itself is known to send, one of each, for tests that go through all of them.
    #[must_use]
    pub fn failures() -> Vec<Self> {
        let whatsapp = WHATSAPP_STATUS.iter().map(|(status, _)| Self::WhatsAppFailed(*status));
        [Self::NotSet, Self::NoAvatarFound, Self::Hidden, Self::Unregistered, Self::Blank, Self::InvalidJid]
            .into_iter()
            .chain([Self::RateLimited])
            .chain(whatsapp)
            .chain([
                Self::internal("failed to get avatar: websocket not connected"),
                Self::ContextTimeout,
                Self::GatewayTimeout,
                Self::LoggedOut,
                Self::NotConnected,
                Self::Unauthorized,
                Self::DeviceIdRequired,
                Self::DeviceNotFound,
                Self::NoSession,
                Self::Starting,
            ])
            .collect()
    }
}

/// WhatsApp's own words for its error numbers, apart from 429.
const WHATSAPP_STATUS: [(u16, &str); 12] = [
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
];

pub(super) fn whatsapp_text(status: u16) -> &'static str {
    WHATSAPP_STATUS.iter().find(|(known, _)| *known == status).map_or("unknown", |(_, text)| text)
}

/// Unusual ways to write a success.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// Keys in another order, inside and outside of `results`.
    Reordered,
    /// More keys than documented.
    Extended,
    /// `id` as a number. An id that is not all digits stays a string.
    NumericId,
    /// `&`, `<` and `>` as they are, and blanks between tokens: not written by Go.
    Pretty,
    /// `results` without `url`.
    WithoutUrl,
    /// `results.url` is `null`.
    NullUrl,
    /// `results.id` is empty.
    EmptyId,
    /// `results` is `null`.
    NullResults,
    /// No `results`.
    WithoutResults,
}

/// Which address a person's picture is given.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub enum Address {
    /// Signed, for the gateway's usual lifetime.
    #[default]
    Usual,
    /// Signed, for this long from the lookup, rounded up to the gateway's `oe` step.
    Lasting(Duration),
    /// Signed until exactly then, in whole seconds. Asked again, the same; in the past, dead on arrival.
    Until(Timestamp),
    /// Signed, without `oe`.
    WithoutExpiry,
    /// Signed, with an `oe` that is no number.
    UnreadableExpiry,
    /// Exactly this text.
    Text(String),
    /// The empty text, as for a newsletter.
    Missing,
}

/// Which parameters a signed address has, and in which order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Shape {
    /// `stp, ccb, oh, oe, _nc_sid, _nc_cat`.
    #[default]
    Long,
    /// `ccb, oh, oe`.
    Short,
    /// `oh, oe`.
    OhOe,
    /// `oe, oh`.
    OeOh,
    /// `ccb, oh, oe`, with `oe` in lower case.
    Lowercase,
}
