//! What one look at the gateway can tell.
//!
//! An [`Outcome`] is knowledge about a person: a picture, or one of three lasting reasons why there is none. A [`Failure`] is
//! not an outcome: it says nothing about the person and everything about the attempt. The two never mix, which is why no error
//! of any kind can make a cached picture disappear.
//!
//! Texts of the gateway are matched once, in `gateway.rs`; from here on there are only types.

use std::borrow::Cow;
use std::fmt;
use std::time::Duration;

use compact_str::CompactString;
use serde::{Deserialize, Serialize};

use crate::clock::Timestamp;
use crate::go_json;
use crate::jid::Variant;

/// A number from the store's one counter, handed out when a look starts and when its result is applied.
///
/// Comparing two of them orders two looks whichever replicas made them; clocks do not matter.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Token(pub u64);

/// A lasting answer about a person.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Outcome {
    /// There is a picture (or, for some channels, an id without an address).
    Present(Picture),
    /// There is none to be seen.
    Negative(Negative),
}

impl Outcome {
    /// The picture's id, when there is a picture and it has one.
    #[must_use]
    pub fn id(&self) -> Option<&str> {
        match self {
            Self::Present(picture) if !picture.id().is_empty() => Some(picture.id()),
            _ => None,
        }
    }
}

/// A picture as the gateway describes it.
///
/// Its texts share one allocation, in the form in which they are answered: behind the id as it is, the inside of the gateway's
/// `results`, from the URL to the type.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "PictureRecord", into = "PictureRecord")]
pub struct Picture {
    text: Box<str>,
    id_len: u32,
    /// of the URL as JSON
    url_len: u32,
    expires_at: Option<Timestamp>,
}

/// What stands between the texts of [`Picture::results`].
const BEFORE_ID: &str = "\",\"id\":\"";
const BEFORE_KIND: &str = "\",\"type\":\"";

impl Picture {
    /// A picture with its signed URL, WhatsApp's id of it, and the gateway's `type`.
    ///
    /// Any of them may be empty: newsletters may have no URL. The expiry is read from the URL here.
    #[must_use]
    pub fn new(url: &str, id: &str, kind: &str) -> Self {
        let length = |length: usize| u32::try_from(length).unwrap_or(u32::MAX);
        let mut text = String::with_capacity(2 * id.len() + url.len() + 80);
        text.push_str(id);
        go_json::escape(&mut text, url);
        let url_len = text.len() - id.len();
        text.push_str(BEFORE_ID);
        go_json::escape(&mut text, id);
        text.push_str(BEFORE_KIND);
        go_json::escape(&mut text, kind);
        Self {
            text: text.into_boxed_str(),
            id_len: length(id.len()),
            url_len: length(url_len),
            expires_at: signed_until(url),
        }
    }

    /// The signed URL. A secret of sorts: whoever has it can fetch the picture until it expires.
    #[must_use]
    pub fn url(&self) -> Cow<'_, str> {
        go_json::unescape(&self.results()[..self.url_len as usize])
    }

    /// WhatsApp's picture id: the same for preview and full picture, another one whenever the picture changes.
    #[must_use]
    pub fn id(&self) -> &str {
        &self.text[..self.id_len as usize]
    }

    /// The gateway's `type`: `image` or `preview`.
    #[must_use]
    pub fn kind(&self) -> Cow<'_, str> {
        let [_, _, kind] = self.parts();
        go_json::unescape(kind)
    }

    /// The inside of the gateway's `results`, between `{"url":"` and `"}`, escaped as the gateway does.
    #[must_use]
    pub fn results(&self) -> &str {
        &self.text[self.id_len as usize..]
    }

    /// When the image host stops honouring the URL: its `oe`. `None` when it names none that can be read.
    #[must_use]
    pub fn expires_at(&self) -> Option<Timestamp> {
        self.expires_at
    }

    /// URL, id and type, each as the inside of a JSON string, as they stand in [`Picture::results`].
    #[must_use]
    pub fn parts(&self) -> [&str; 3] {
        let (url, rest) = self.results().split_at(self.url_len as usize);
        let rest = rest.strip_prefix(BEFORE_ID).unwrap_or_default();
        let (id, kind) = rest.rsplit_once(BEFORE_KIND).unwrap_or_default();
        [url, id, kind]
    }
}

impl fmt::Debug for Picture {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Picture").field("id", &self.id()).field("expires_at", &self.expires_at).finish_non_exhaustive()
    }
}

#[derive(Serialize, Deserialize)]
struct PictureRecord(String, String, String);

impl From<PictureRecord> for Picture {
    fn from(PictureRecord(url, id, kind): PictureRecord) -> Self {
        Self::new(&url, &id, &kind)
    }
}

impl From<Picture> for PictureRecord {
    fn from(picture: Picture) -> Self {
        Self(picture.url().into_owned(), picture.id().to_owned(), picture.kind().into_owned())
    }
}

/// Reads `oe`, the expiry inside a signed URL: Unix seconds in hexadecimal, upper or lower case, anywhere in the query.
///
/// `None` when it is missing or is not a number that fits; the first `oe` counts.
#[must_use]
pub fn signed_until(url: &str) -> Option<Timestamp> {
    let (_, query) = url.split_once('?')?;
    let query = query.split_once('#').map_or(query, |(query, _)| query);
    let oe = query.split('&').find_map(|pair| pair.strip_prefix("oe="))?;
    if oe.is_empty() || oe.len() > 12 || !oe.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return None;
    }
    i64::from_str_radix(oe, 16).ok().map(Timestamp::from_seconds)
}

/// Why there is no picture.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub enum Reason {
    /// The person or group has none.
    NotSet,
    /// Privacy settings hide it from this device. WhatsApp also says so at random about public pictures.
    Hidden,
    /// The number is not on WhatsApp. The gateway also says so when its own check timed out.
    Unregistered,
}

impl Reason {
    /// Every reason.
    pub const ALL: [Self; 3] = [Self::NotSet, Self::Hidden, Self::Unregistered];

    /// The word used in answers, events and metrics.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::NotSet => "not_set",
            Self::Hidden => "hidden",
            Self::Unregistered => "unregistered",
        }
    }
}

/// A negative outcome, with the gateway's own words so that a client can be given exactly those.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Negative {
    /// What it means.
    pub reason: Reason,
    /// The gateway's HTTP status.
    pub status: u16,
    /// The gateway's `code`.
    pub code: CompactString,
    /// The gateway's `message`; may contain the jid.
    pub message: CompactString,
}

/// The result of one look, as far as it concerns the person.
#[derive(Clone, Debug)]
pub struct Observation {
    /// Which of the subject's answers was asked for.
    pub variant: Variant,
    /// What the gateway said.
    pub outcome: Outcome,
    /// Handed out by the store when the look's flight was claimed.
    pub start: Token,
    /// Wall clock at the start of the look.
    pub started_at: Timestamp,
    /// Wall clock at its end.
    pub ended_at: Timestamp,
}

/// Whose fault a failed look is, which decides what stops and for how long.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub enum Class {
    /// The request itself is wrong: this key rests.
    Request,
    /// WhatsApp says slow down: this device rests.
    RateLimited,
    /// The device is logged out, unknown or not named: this device rests and is probed.
    Device,
    /// The gateway refused the proxy's own credentials: everything rests and is probed.
    Credentials,
    /// The gateway or WhatsApp failed in passing: this key rests a little.
    Passing,
    /// What came back is no answer of a gateway, or nothing came back: as passing.
    Nonsense,
    /// Nothing came back in time: as passing.
    Late,
}

impl Class {
    /// Every class, for metrics.
    pub const ALL: [Self; 7] =
        [Self::Request, Self::RateLimited, Self::Device, Self::Credentials, Self::Passing, Self::Nonsense, Self::Late];

    /// The word used in `Cache-Status`, logs and metrics.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Request => "request",
            Self::RateLimited => "rate-limit",
            Self::Device => "device",
            Self::Credentials => "credentials",
            Self::Passing => "passing",
            Self::Nonsense => "nonsense",
            Self::Late => "late",
        }
    }
}

/// A look that told nothing about the person.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Failure {
    /// Whose fault it is.
    pub class: Class,
    /// Whether asking once more, at once, may help.
    pub retry: bool,
    /// What to tell the client: the gateway's own words where it used any.
    pub reply: Envelope,
    /// What happened, for the log: no URL, no jid, no secret.
    pub detail: CompactString,
}

/// The gateway's envelope for everything that is not a success: `{"code","message","results"}` under a status.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Envelope {
    /// HTTP status.
    pub status: u16,
    /// Machine-readable word.
    pub code: CompactString,
    /// Sentence for a person; may contain a jid.
    pub message: CompactString,
    /// JSON text of `results`, at most 1 KiB; `None` is `null`.
    pub results: Option<CompactString>,
}

impl fmt::Debug for Envelope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.status, self.code)
    }
}

/// How long each kind of knowledge lasts, and when it is looked at again. The part of the configuration that is about outcomes.
#[derive(Clone, Debug)]
pub struct Rules {
    /// Look again when this share of a URL's lifetime is left (0 to 1).
    pub refresh_ahead: f64,
    /// Whether URLs are looked up again as late as is safe, because the budget is scarce and a recheck may come before it and save
    /// the look.
    pub renew_late: bool,
    /// How old a warm entry's last look may get.
    pub recheck_interval: Duration,
    /// Life of a URL without `oe`, and of an answer without a URL.
    pub fallback_ttl: Duration,
    /// Life of "has no picture".
    pub not_set_ttl: Duration,
    /// Life of "hidden".
    pub hidden_ttl: Duration,
    /// Life of "not on WhatsApp".
    pub unregistered_ttl: Duration,
    /// A negative outcome is believed when a second look, this much later, is negative too.
    pub confirm_after: Duration,
}

impl Rules {
    /// Life of a negative outcome.
    #[must_use]
    pub fn negative_ttl(&self, reason: Reason) -> Duration {
        match reason {
            Reason::NotSet => self.not_set_ttl,
            Reason::Hidden => self.hidden_ttl,
            Reason::Unregistered => self.unregistered_ttl,
        }
    }
}

impl Default for Rules {
    /// The documented defaults of the flags.
    fn default() -> Self {
        const HOUR: Duration = Duration::from_secs(3600);
        Self {
            refresh_ahead: 0.2,
            renew_late: false,
            recheck_interval: 6 * HOUR,
            fallback_ttl: HOUR,
            not_set_ttl: 6 * HOUR,
            hidden_ttl: HOUR,
            unregistered_ttl: HOUR / 4,
            confirm_after: HOUR / 60,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const EXPIRY: Timestamp = Timestamp::from_seconds(0x620A_A726);

    #[test]
    fn reads_the_expiry_in_every_shape_seen_in_the_wild() {
        let base = "https://pps.whatsapp.net/v/t61.24694-24/1_2_3_n.jpg";
        for query in [
            "?ccb=11-4&oh=df36&oe=620AA726",
            "?stp=dst-jpg_s96x96_tt6&ccb=11-4&oh=df36&oe=620AA726",
            "?ccb=11-4&oh=df36&oe=620AA726&_nc_sid=5e03e0&_nc_cat=100",
            "?oh=df36&oe=620AA726",
            "?oe=620aa726&oh=df36",
            "?oe=620AA726#part",
        ] {
            assert_eq!(signed_until(&format!("{base}{query}")), Some(EXPIRY), "{query}");
        }
        for query in ["", "?", "?oh=df36", "?oe=", "?oe=xyz", "?oe=-1", "?oe=620AA726620AA726", "?noe=620AA726", "#?oe"]
        {
            assert_eq!(signed_until(&format!("{base}{query}")), None, "{query}");
        }
    }

    #[test]
    fn a_picture_keeps_its_texts_apart() {
        let picture = Picture::new("https://h/p?oe=620AA726", "1635239861", "image");
        assert_eq!(
            (&*picture.url(), picture.id(), &*picture.kind()),
            ("https://h/p?oe=620AA726", "1635239861", "image")
        );
        assert_eq!(picture.expires_at(), Some(EXPIRY));
        assert!(!format!("{picture:?}").contains("https"));
        assert_eq!(Outcome::Present(Picture::new("u", "", "image")).id(), None);
    }

    proptest! {
        #[test]
        fn the_texts_of_a_picture_are_given_back(url in ".*", id in ".*", kind in ".*") {
            let picture = Picture::new(&url, &id, &kind);
            prop_assert_eq!((picture.url().into_owned(), picture.id(), picture.kind().into_owned()), (url, &*id, kind));
        }

        #[test]
        fn no_url_panics(url in ".*") {
            let _ = signed_until(&url);
        }

        #[test]
        fn every_expiry_is_read_back(seconds in 0i64..0xFFFF_FFFF, upper: bool) {
            let oe = if upper { format!("{seconds:X}") } else { format!("{seconds:x}") };
            prop_assert_eq!(signed_until(&format!("https://h/p?oh=1&oe={oe}")), Some(Timestamp::from_seconds(seconds)));
        }
    }
}
