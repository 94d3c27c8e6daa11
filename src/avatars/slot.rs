//! An entry as it lies in memory: one allocation, small, and ready to be answered with.
//!
//! There may be a million of these, so every byte here is a megabyte. An answer's texts stand behind one another in the form in
//! which they are answered with, behind a head of fixed size; what is constant in every answer is not kept at all. A hit reads
//! the head and copies the texts; whatever needs the entry as the rest of the program knows it makes it anew ([`Slot::to_entry`]).

use std::ops::Deref;
use std::str;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use sha2::{Digest as _, Sha256};
use triomphe::ThinArc;

use crate::change::State;
use crate::clock::Timestamp;
use crate::entry::{Entry, Freshness};
use crate::go_json;
use crate::outcome::{Negative, Outcome, Picture, Reason};

/// An entry in memory, with what answers need beside it. Cheap to clone: all clones are one.
#[derive(Clone, Debug)]
pub struct Slot(ThinArc<Head, u8>);

/// The part of a slot that has the same size in all.
#[derive(Debug)]
pub struct Head {
    /// The entry's instants; its outcome is in the texts.
    pub entry: Entry<Shape>,
    /// Changes whenever the answer's body does.
    pub tag: u64,
    /// When a request was last remembered in the store.
    touched: Moment,
    /// When a request last asked for a refresh by itself.
    nudged: Moment,
}

/// How a slot's texts are to be read.
#[derive(Clone, Copy, Debug)]
pub enum Shape {
    /// URL and id, inside JSON; behind them the type, if it is none of the usual ones; then the history, if there is one.
    Picture {
        /// Bytes of the URL.
        url: u32,
        /// Bytes of the id.
        id: u32,
        /// The type.
        kind: Kind,
        /// Whether there is a history.
        changed: bool,
    },
    /// Code and message; then the history, if there is one.
    Negative {
        /// What it means.
        reason: Reason,
        /// The gateway's HTTP status.
        status: u16,
        /// Bytes of the code.
        code: u32,
        /// Whether there is a history.
        changed: bool,
    },
}

/// A picture's `type`.
#[derive(Clone, Copy, Debug)]
pub enum Kind {
    /// `image`.
    Image,
    /// `preview`.
    Preview,
    /// Spelled out.
    Other,
}

/// What a slot answers, as it is written into answers.
#[derive(Clone, Copy, Debug)]
pub enum Answer<'a> {
    /// A picture, its texts as the insides of JSON strings.
    Picture {
        /// The signed URL.
        url: &'a [u8],
        /// WhatsApp's id.
        id: &'a [u8],
        /// The gateway's `type`.
        kind: &'a [u8],
    },
    /// There is none to be seen.
    Negative {
        /// What it means.
        reason: Reason,
        /// The gateway's HTTP status.
        status: u16,
        /// The gateway's `code`.
        code: &'a str,
        /// The gateway's `message`.
        message: &'a str,
    },
}

/// A subject's changes in brief.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct History {
    /// How often the picture changed since the baseline.
    pub version: u64,
    /// When the last change was noticed.
    pub changed_at: Option<Timestamp>,
}

/// Bytes of a history behind the texts: the version and the instant, or the least number for none. Most people have none yet.
const HISTORY: usize = 16;

/// The shortest time between two refreshes that requests for one entry ask for.
const NUDGE: Duration = Duration::from_secs(1);

/// What an allocation holds beside a slot's head and texts: the count of references, and the length of the texts.
const COUNTS: usize = 16;

impl From<&State> for History {
    fn from(state: &State) -> Self {
        state
            .recorded
            .as_ref()
            .map_or_else(Self::default, |recorded| Self { version: recorded.version, changed_at: recorded.changed_at })
    }
}

impl History {
    fn to_bytes(self) -> [u8; HISTORY] {
        let changed_at = self.changed_at.map_or(i64::MIN, Timestamp::as_millis);
        let mut bytes = [0; HISTORY];
        bytes[..8].copy_from_slice(&self.version.to_le_bytes());
        bytes[8..].copy_from_slice(&changed_at.to_le_bytes());
        bytes
    }

    fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let (version, rest) = bytes.split_first_chunk()?;
        let changed_at = i64::from_le_bytes(*rest.first_chunk()?);
        Some(Self {
            version: u64::from_le_bytes(*version),
            changed_at: (changed_at != i64::MIN).then(|| Timestamp::from_millis(changed_at)),
        })
    }
}

impl Deref for Slot {
    type Target = Head;

    fn deref(&self) -> &Head {
        &self.0.header.header
    }
}

impl Slot {
    /// An entry made ready, last asked for at `requested_at` as far as the store knows.
    #[must_use]
    pub fn new(entry: &Entry, history: History, requested_at: Option<Timestamp>) -> Self {
        let changed = history != History::default();
        let mut text = Vec::with_capacity(384);
        let shape = match &entry.outcome {
            Outcome::Present(picture) => {
                let [url, id, kind] = picture.parts();
                text.extend_from_slice(url.as_bytes());
                text.extend_from_slice(id.as_bytes());
                let kind = match kind {
                    "image" => Kind::Image,
                    "preview" => Kind::Preview,
                    other => {
                        text.extend_from_slice(other.as_bytes());
                        Kind::Other
                    }
                };
                Shape::Picture { url: length(url), id: length(id), kind, changed }
            }
            Outcome::Negative(Negative { reason, status, code, message }) => {
                text.extend_from_slice(code.as_bytes());
                text.extend_from_slice(message.as_bytes());
                Shape::Negative { reason: *reason, status: *status, code: length(code), changed }
            }
        };
        if changed {
            text.extend_from_slice(&history.to_bytes());
        }
        let head = Head {
            tag: tag_of(match &entry.outcome {
                Outcome::Present(picture) => picture.results().as_bytes(),
                Outcome::Negative(_) => b"",
            }),
            touched: requested_at.map_or_else(|| Moment::far_from(entry.checked_at), Moment::new),
            nudged: Moment::far_from(entry.checked_at),
            entry: entry.with(shape),
        };
        Self(ThinArc::from_header_and_slice(head, &text))
    }

    /// What is answered.
    #[must_use]
    pub fn answer(&self) -> Answer<'_> {
        let (text, _) = self.split();
        match self.entry.outcome {
            Shape::Picture { url, id, kind, .. } => {
                let (url, rest) = text.split_at(url as usize);
                let (id, rest) = rest.split_at(id as usize);
                let kind: &[u8] = match kind {
                    Kind::Image => b"image",
                    Kind::Preview => b"preview",
                    Kind::Other => rest,
                };
                Answer::Picture { url, id, kind }
            }
            Shape::Negative { reason, status, code, .. } => {
                let (code, message) = text.split_at(code as usize);
                Answer::Negative { reason, status, code: written(code), message: written(message) }
            }
        }
    }

    /// What its subject's state says of changes.
    #[must_use]
    pub fn history(&self) -> History {
        History::from_bytes(self.split().1).unwrap_or_default()
    }

    /// The entry as it came in.
    #[must_use]
    pub fn to_entry(&self) -> Entry {
        self.entry.with(match self.answer() {
            Answer::Picture { url, id, kind } => {
                let [url, id, kind] = [url, id, kind].map(|json| go_json::unescape(written(json)));
                Outcome::Present(Picture::new(&url, &id, &kind))
            }
            Answer::Negative { reason, status, code, message } => {
                Outcome::Negative(Negative { reason, status, code: code.into(), message: message.into() })
            }
        })
    }

    /// Whether it is a picture that may be served at `now`.
    #[must_use]
    pub fn is_good(&self, now: Timestamp) -> bool {
        matches!(self.entry.outcome, Shape::Picture { .. }) && self.entry.freshness(now) != Freshness::Dead
    }

    /// Whether a request at `now` is worth remembering, because the last one remembered is `grain` or longer ago. Says so to
    /// one caller only.
    pub(super) fn touch(&self, now: Timestamp, grain: Duration) -> bool {
        self.touched.claim(now, grain)
    }

    /// Whether a request at `now` may ask for a refresh by itself. Says so to one caller only, and not at every request.
    pub(super) fn nudge(&self, now: Timestamp) -> bool {
        self.nudged.claim(now, NUDGE)
    }

    /// Bytes of its allocation, as they were asked for.
    pub(super) fn size(&self) -> usize {
        COUNTS + size_of::<Head>() + self.0.slice.len()
    }

    /// The texts, and the history behind them.
    fn split(&self) -> (&[u8], &[u8]) {
        let (Shape::Picture { changed, .. } | Shape::Negative { changed, .. }) = self.entry.outcome;
        let text = &self.0.slice;
        text.split_at(if changed { text.len() - HISTORY } else { text.len() })
    }
}

/// No text of the gateway is near that long.
fn length(text: &str) -> u32 {
    u32::try_from(text.len()).expect("a gateway's reply is at most 64 KiB")
}

/// Texts are put in as texts.
fn written(text: &[u8]) -> &str {
    str::from_utf8(text).unwrap_or_default()
}

/// What an entity tag is made of: some bits of a digest. The same answer has the same tag after a restart and on every replica.
#[must_use]
pub fn tag_of(answer: &[u8]) -> u64 {
    let digest = Sha256::digest(answer);
    u64::from_be_bytes(digest[..8].try_into().expect("a SHA-256 has more than eight bytes"))
}

/// An instant of which only the last 50 days are told apart (ms): a slot needs no more than how long ago something was, and
/// is not kept longer than its URL lives.
#[derive(Debug)]
struct Moment(AtomicU32);

impl Moment {
    fn new(at: Timestamp) -> Self {
        Self(AtomicU32::new(wrapped(at)))
    }

    /// Long ago, for as long as anything that begins at `at` lasts.
    fn far_from(at: Timestamp) -> Self {
        Self(AtomicU32::new(wrapped(at).wrapping_add(1 << 31)))
    }

    /// Moves on to `now` if that is at least `grain` later; true for the one caller who did. A clock set back counts as long
    /// ago.
    fn claim(&self, now: Timestamp, grain: Duration) -> bool {
        let (seen, now) = (self.0.load(Ordering::Relaxed), wrapped(now));
        u128::from(now.wrapping_sub(seen)) >= grain.as_millis()
            && self.0.compare_exchange(seen, now, Ordering::Relaxed, Ordering::Relaxed).is_ok()
    }
}

/// The low half of an instant.
fn wrapped(at: Timestamp) -> u32 {
    let [a, b, c, d, ..] = at.as_millis().to_le_bytes();
    u32::from_le_bytes([a, b, c, d])
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::change::Standing;
    use crate::entry::Jitter;
    use crate::jid::Variant;
    use crate::outcome::{Observation, Rules, Token};

    const NOW: Timestamp = Timestamp::from_seconds(1_700_000_000);

    fn entry(outcome: Outcome) -> Entry {
        let variant = Variant::default();
        let seen = Observation { variant, outcome, start: Token(7), started_at: NOW, ended_at: NOW };
        Entry::after(None, &seen, Standing::Believed { repeats: 1 }, &Rules::default(), Jitter(0.5))
    }

    fn picture(url: &str) -> Entry {
        entry(Outcome::Present(Picture::new(url, "1635239861", "image")))
    }

    fn any_outcome() -> impl Strategy<Value = Outcome> {
        let texts = (".*", ".*", prop_oneof![Just("image".to_owned()), Just("preview".to_owned()), ".*".boxed()]);
        let reason = prop_oneof![Just(Reason::NotSet), Just(Reason::Hidden), Just(Reason::Unregistered)];
        prop_oneof![
            texts.prop_map(|(url, id, kind)| Outcome::Present(Picture::new(&url, &id, &kind))),
            (reason, any::<u16>(), ".*", ".*").prop_map(|(reason, status, code, message)| {
                Outcome::Negative(Negative { reason, status, code: code.into(), message: message.into() })
            })
        ]
    }

    proptest! {
        #[test]
        fn what_was_put_in_comes_out(outcome in any_outcome(), version: u64, changed_at in proptest::option::of(0i64..1 << 41)) {
            let (entry, changed_at) = (entry(outcome), changed_at.map(Timestamp::from_millis));
            let history = History { version, changed_at };
            let slot = Slot::new(&entry, history, None);
            prop_assert_eq!(slot.to_entry(), entry.clone());
            prop_assert_eq!(slot.history(), history);
            prop_assert_eq!(slot.is_good(NOW), entry.is_good(NOW));
            prop_assert_eq!(Slot::new(&entry, History::default(), None).to_entry(), entry);
        }
    }

    #[test]
    fn a_url_of_250_characters_takes_no_more_than_384_bytes() {
        assert!(COUNTS + size_of::<Head>() <= 88, "a head has {} bytes", size_of::<Head>());
        let url = format!("https://h/p?a=1&b=2&c=3&oh={:0>201}&oe=6553F4E2&_nc_cat=1", 0);
        assert_eq!(url.len(), 250);
        let slot = Slot::new(&picture(&url), History::default(), None);
        assert!(slot.size() <= 384, "{} bytes", slot.size());
    }

    #[test]
    fn a_request_is_claimed_once_in_a_grain_whatever_the_clock_does() {
        let (slot, grain) = (Slot::new(&picture("u"), History::default(), None), Duration::from_secs(60));
        let at = |seconds: i64| Timestamp::from_seconds(1_700_000_000 + seconds);
        for (second, claimed) in [(0, true), (0, false), (59, false), (60, true), (60, false), (30, true), (31, false)]
        {
            assert_eq!(slot.touch(at(second), grain), claimed, "{second}");
        }
        assert!(slot.nudge(NOW) && !slot.nudge(NOW));
        let known = Slot::new(&picture("u"), History::default(), Some(NOW));
        assert!(!known.touch(at(59), grain) && known.touch(at(60), grain));
    }
}
