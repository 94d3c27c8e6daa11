//! What an answer of the gateway means: the one place where its texts are matched.
//!
//! Pure: a status and a body in, an [`Outcome`] or a [`Failure`] out. The rules, in the order in which they are tried:
//!
//! 1. 429 and 403 and every redirect speak for themselves, whatever the body.
//! 2. A success is a 2xx whose envelope says `SUCCESS`. It is read leniently, because gateways differ: unknown fields, any
//!    order, `results` or the URL missing or null, an id that is a number. What cannot be a picture is nonsense.
//! 3. Other envelopes are read by `code`, then by what `message` contains, without regard to case and to what stands around
//!    it. A lasting answer about a person is only taken from the very texts that mean one.
//! 4. Whatever is left is in passing if it is an envelope under 5xx or 408, and nonsense if not.

use std::borrow::Cow;

use compact_str::CompactString;
use http::{StatusCode, Uri};
use serde::Deserialize;
use serde_json::value::RawValue;

use super::failure::{self, Nonsense};
use crate::clock::Timestamp;
use crate::entry::MARGIN;
use crate::jid::Variant;
use crate::outcome::{Class, Envelope, Failure, Negative, Outcome, Picture, Reason};

#[cfg(test)]
mod tests;

/// Longest URL that is taken for one (bytes).
const URL_MAX: usize = 4096;
/// Longest picture id (bytes).
const ID_MAX: usize = 256;
/// Longest `type` (bytes).
const KIND_MAX: usize = 64;
/// Longest `code` (bytes).
const CODE_MAX: usize = 64;
/// A longer `message` is cut (bytes).
const MESSAGE_MAX: usize = 1024;
/// Longer `results` of an error are left out (bytes).
const RESULTS_MAX: usize = 1024;

/// What the gateway's answer to a lookup of variant `asked` means at `now`.
///
/// # Errors
/// When it says nothing about the person.
pub fn classify(status: StatusCode, body: &[u8], asked: Variant, now: Timestamp) -> Result<Outcome, Failure> {
    if let Some(failure) = by_status(status) {
        return Err(failure);
    }
    let number = status.as_u16();
    let Some(said) = Said::read(body) else {
        return Err(without_envelope(status, Nonsense::NoEnvelope));
    };
    if status.is_success() && said.code == "SUCCESS" {
        return picture(said.results, asked, now)
            .map(Outcome::Present)
            .map_err(|kind| failure::nonsense(kind, Some(number)));
    }
    let message = said.message.to_ascii_lowercase();
    // Before everything else: to ask again after this is the one mistake that costs the account.
    if message.contains("rate-overlimit") || message.contains("returned status 429") {
        return Err(failure::rate_limited(number));
    }
    // What is replayed must be an error to the client too.
    if !(400..600).contains(&number) {
        return Err(failure::nonsense(Nonsense::Unexpected, Some(number)));
    }
    if let Some(reason) = reason(number, &said.code, &message) {
        let Envelope { status, code, message, .. } = said.envelope(number);
        return Ok(Outcome::Negative(Negative { reason, status, code, message }));
    }
    let replay = |class, retry| Err(failure::replayed(class, retry, said.envelope(number)));
    match (&*said.code, number) {
        ("AUTHENTICATION_ERROR" | "DEVICE_ID_REQUIRED" | "DEVICE_NOT_FOUND" | "INVALID_WA_CLI", _) => {
            replay(Class::Device, false)
        }
        (_, 401) => Err(failure::credentials(number)),
        ("VALIDATION_ERROR" | "INVALID_JID", _) => replay(Class::Request, false),
        (_, 400 | 500) if message.contains("invalid jid") => replay(Class::Request, false),
        (_, 408 | 504) => replay(Class::Passing, false),
        (_, 500..) => replay(Class::Passing, true),
        _ => Err(failure::nonsense(Nonsense::Unexpected, Some(number))),
    }
}

/// What the status alone decides: for these nobody needs to wait for a body.
pub(super) fn by_status(status: StatusCode) -> Option<Failure> {
    match status.as_u16() {
        429 => Some(failure::rate_limited(429)),
        403 => Some(failure::credentials(403)),
        number @ 300..=399 => Some(failure::nonsense(Nonsense::Redirect, Some(number))),
        _ => None,
    }
}

/// What remains to be said when the body was, for the reason `why`, not to be had or no envelope.
pub(super) fn without_envelope(status: StatusCode, why: Nonsense) -> Failure {
    let number = status.as_u16();
    match (number, why) {
        // A 401 that was cut off might have been the device's, which is no reason to stop everything.
        (401, Nonsense::NoEnvelope | Nonsense::TooLong) => failure::credentials(number),
        _ => failure::nonsense(why, Some(number)),
    }
}

/// The lasting answers that are not a picture.
fn reason(status: u16, code: &str, message: &str) -> Option<Reason> {
    let says = |text| message.contains(text);
    if code == "INVALID_JID" {
        return says("not on whatsapp").then_some(Reason::Unregistered);
    }
    if status != 500 {
        return None;
    }
    if says("that user or group does not have a profile picture") || says("no avatar found") {
        Some(Reason::NotSet)
    } else if says("the user has hidden their profile picture from you") {
        Some(Reason::Hidden)
    } else {
        None
    }
}

/// An envelope as it came.
#[derive(Deserialize)]
pub(super) struct Said<'a> {
    #[serde(borrow)]
    code: Cow<'a, str>,
    #[serde(borrow)]
    message: Cow<'a, str>,
    #[serde(borrow, default)]
    results: Option<&'a RawValue>,
}

impl<'a> Said<'a> {
    /// `None` for everything that is not a JSON object with a plausible `code` and a `message`.
    pub(super) fn read(body: &'a [u8]) -> Option<Self> {
        // serde would read a struct from an array too.
        let object = body.trim_ascii_start().first() == Some(&b'{');
        let said: Self = object.then(|| serde_json::from_slice(body).ok())??;
        let sane = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'.');
        (!said.code.is_empty() && said.code.len() <= CODE_MAX && said.code.bytes().all(sane)).then_some(said)
    }

    pub(super) fn code(&self) -> &str {
        &self.code
    }

    /// As they came.
    pub(super) fn results(&self) -> Option<&str> {
        self.results.map(RawValue::get)
    }

    fn envelope(&self, status: u16) -> Envelope {
        let message = &self.message[..self.message.floor_char_boundary(MESSAGE_MAX)];
        let results = self.results.map(RawValue::get).filter(|text| text.len() <= RESULTS_MAX);
        Envelope {
            status,
            code: CompactString::new(&self.code),
            message: CompactString::new(message),
            results: results.map(CompactString::new),
        }
    }
}

/// A success's `results`, each value as it came.
#[derive(Deserialize, Default)]
struct Results<'a> {
    #[serde(borrow, default)]
    url: Option<&'a RawValue>,
    #[serde(borrow, default)]
    id: Option<&'a RawValue>,
    #[serde(borrow, default, rename = "type")]
    kind: Option<&'a RawValue>,
}

/// The picture in a success.
fn picture(results: Option<&RawValue>, asked: Variant, now: Timestamp) -> Result<Picture, Nonsense> {
    let results = match results.map(RawValue::get) {
        None => Results::default(),
        Some(object) if object.starts_with('{') => serde_json::from_str(object).map_err(|_| Nonsense::Picture)?,
        Some(_) => return Err(Nonsense::Picture),
    };
    let url = text(results.url, URL_MAX)?;
    if !url.is_empty() && !is_url(&url) {
        return Err(Nonsense::Picture);
    }
    let id = match results.id.map(RawValue::get) {
        Some(number) if number.starts_with(|first: char| first == '-' || first.is_ascii_digit()) => {
            short(number.into(), ID_MAX)?
        }
        _ => text(results.id, ID_MAX)?,
    };
    let mut kind = text(results.kind, KIND_MAX)?;
    if kind.is_empty() {
        kind = if asked.preview { "preview" } else { "image" }.into();
    }
    let picture = Picture::new(&url, &id, &kind);
    if picture.expires_at().is_some_and(|expiry| expiry - MARGIN <= now) {
        return Err(Nonsense::Expired);
    }
    Ok(picture)
}

/// A JSON string; empty if it is missing or null.
fn text(value: Option<&RawValue>, max: usize) -> Result<Cow<'_, str>, Nonsense> {
    let Some(value) = value else { return Ok(Cow::Borrowed("")) };
    let text: String = serde_json::from_str(value.get()).map_err(|_| Nonsense::Picture)?;
    short(text.into(), max)
}

fn short(text: Cow<'_, str>, max: usize) -> Result<Cow<'_, str>, Nonsense> {
    if text.len() <= max && !text.contains(char::is_control) { Ok(text) } else { Err(Nonsense::Picture) }
}

/// Whether a client could follow it, and nothing else: it is handed to browsers.
fn is_url(url: &str) -> bool {
    let plain = url.bytes().all(|byte| byte.is_ascii_graphic() && !matches!(byte, b'"' | b'<' | b'>' | b'\\' | b'`'));
    plain
        && url.parse::<Uri>().is_ok_and(|uri| {
            matches!(uri.scheme_str(), Some("http" | "https")) && uri.host().is_some_and(|host| !host.is_empty())
        })
}
