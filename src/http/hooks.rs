//! `POST /hooks/gateway`: the gateway's own webhooks, by which it tells who is active.
//!
//! It needs no credentials, because the gateway can send none: its signature stands for them, and nothing is read out of a body
//! before that is found to be right. Whoever can sign, or has overheard a delivery, can have people looked at a little sooner,
//! once per interval and within the budget; nothing else.

use hmac::{Hmac, KeyInit as _, Mac as _};
use http::header::{CONTENT_LENGTH, HeaderName};
use http::{StatusCode, request};
use sha2::Sha256;
use tokio::sync::Semaphore;

use super::Edge;
use super::body::Upload;
use super::query::Invalid;
use super::reply::{self, Problem, Reply};
use crate::activity::{self, Activity};
use crate::avatars::Noticed;
use crate::jid::Subject;

const SIGNATURE: HeaderName = HeaderName::from_static("x-hub-signature-256");

/// The longest body (bytes).
const LENGTH_MAX: usize = 1 << 20;

/// What bodies that are being read may hold together (KiB): anybody can send them.
const ROOM: usize = 32 << 10;

/// How the gateway's webhooks are taken.
#[derive(Clone)]
pub struct Hooks {
    /// What the gateway signs them with (its `--webhook-secret`).
    pub secret: String,
    /// Whether whoever appears in them is watched from then on.
    pub discover: bool,
}

impl std::fmt::Debug for Hooks {
    /// Without the secret.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Hooks").field("discover", &self.discover).finish_non_exhaustive()
    }
}

/// Takes the gateway's webhooks.
pub(super) struct Desk {
    key: Hmac<Sha256>,
    discover: bool,
    room: Semaphore,
}

impl Desk {
    pub(super) fn new(hooks: &Hooks) -> Self {
        let key = Hmac::new_from_slice(hooks.secret.as_bytes()).expect("a key of any length will do");
        Self { key, discover: hooks.discover, room: Semaphore::new(ROOM) }
    }

    /// Whether `signature`, the header's value, is that of a body.
    fn has_signed(&self, signature: &[u8; 32], body: &[u8]) -> bool {
        self.key.clone().chain_update(body).verify_slice(signature).is_ok()
    }
}

/// The signature that a request carries.
fn signature(parts: &request::Parts) -> Option<[u8; 32]> {
    let digits = parts.headers.get(SIGNATURE)?.to_str().ok()?.strip_prefix("sha256=")?;
    let mut signature = [0; 32];
    hex::decode_to_slice(digits, &mut signature).ok()?;
    Some(signature)
}

impl Edge {
    /// `POST /hooks/gateway`.
    pub(super) async fn hook(&self, parts: &request::Parts, body: Upload) -> Result<Reply, Problem> {
        let desk = self.hooks.as_ref().ok_or(Problem::Absent)?;
        let count = |result: &str| self.metrics.hooks.with_label_values(&[result]).inc();
        let forged = || {
            count("forged");
            Problem::Forged
        };
        let signature = signature(parts).ok_or_else(forged)?;
        let length = parts.headers.get(CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse().ok());
        let length = length.unwrap_or(LENGTH_MAX);
        if length > LENGTH_MAX {
            return Err(Problem::BodyTooLong(LENGTH_MAX));
        }
        let room = u32::try_from(length / 1024 + 1).unwrap_or(u32::MAX);
        let _room = desk.room.try_acquire_many(room).map_err(|_| Problem::Busy)?;
        let body = body.bytes(LENGTH_MAX).await?;
        if !desk.has_signed(&signature, &body) {
            return Err(forged());
        }
        let Activity { device, who } = activity::read(&body).map_err(|error| {
            count("malformed");
            Invalid(format!("the body: {error}.").into())
        })?;
        if who.is_empty() {
            count("ignored");
        }
        let device = if device.as_str().is_empty() { self.default_device.clone() } else { device };
        for jid in who {
            let noticed = self.notice(desk, Subject { device: device.clone(), jid }).await?;
            count(noticed.as_str());
        }
        Ok(reply::text(StatusCode::OK, "OK"))
    }

    /// Somebody was active. Where clients name no device, people are held under the default one, whatever name the gateway has for
    /// it.
    async fn notice(&self, desk: &Desk, subject: Subject) -> Result<Noticed, Problem> {
        let noticed = self.avatars.notice(&subject).await?;
        if noticed != Noticed::Unknown {
            return Ok(noticed);
        }
        if subject.device != self.default_device {
            let default = Subject { device: self.default_device.clone(), jid: subject.jid };
            let noticed = self.avatars.notice(&default).await?;
            if noticed != Noticed::Unknown {
                return Ok(noticed);
            }
        }
        if desk.discover { Ok(self.avatars.discover(subject, self.watch_limit).await?) } else { Ok(noticed) }
    }
}
