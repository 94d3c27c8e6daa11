//! A cache entry, and when it is still good.
//!
//! Freshness is data and an instant: [`Entry::freshness`] compares, and nothing else in the program decides. Two instants are
//! fixed when an entry is made: `dead_at`, from which on it is never served, and `due_at`, from which on it is looked up again
//! in the background: a URL before it dies, a doubt to be settled. Whether the picture changed meanwhile is another question, asked
//! of a person and not of an entry ([`crate::recheck`]). The expiry mechanisms of caches and stores only collect garbage.
//!
//! This module is pure: no clock, no randomness, no I/O. Jitter comes in as a number.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::change::Standing;
use crate::clock::Timestamp;
use crate::outcome::{Negative, Observation, Outcome, Picture, Rules, Token};
use crate::record::{self, Unreadable};

#[cfg(test)]
mod tests;

/// A URL is not served in its last moments: by the time the client follows it, it would be dead.
pub const MARGIN: Duration = Duration::from_secs(2);

/// No `oe` is trusted for longer than this.
const LONGEST: Duration = Duration::from_secs(30 * 86_400);

/// When an entry is due that need not be looked up again for its own sake.
const NEVER: Timestamp = Timestamp::from_millis(i64::MAX);

/// A short-lived URL is looked up again at least this long before it dies, if its life is at least twice as long: a lookup takes
/// up to seconds, whatever the share.
const SHORTEST_WINDOW: Duration = Duration::from_secs(3);

/// Where URLs are renewed late, this much of the usual time ahead of their death is kept, and no less than a look may take that
/// waits for the budget.
const LATE: f64 = 0.25;
const SAFE: Duration = Duration::from_secs(120);

/// The least time between two looks that may bring the same expiry back.
const SHORTEST_STEP: Duration = Duration::from_secs(1);

/// How long after two looks that disagreed the next one is due.
const SETTLE: Duration = Duration::from_secs(2);

/// A clock that stands this far before an entry's last look has been set back.
const SET_BACK: Duration = Duration::from_secs(300);

/// What may be done with an entry at some instant.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Freshness {
    /// Serve it.
    Fresh,
    /// Serve it, and look it up again in the background.
    Due,
    /// Do not serve it.
    Dead,
}

/// An answer for one key, with its instants. Where the outcome lies elsewhere, something else stands for it.
#[derive(Clone, PartialEq, Debug)]
pub struct Entry<O = Outcome> {
    /// What is answered.
    pub outcome: O,
    /// When the last look ended.
    pub checked_at: Timestamp,
    /// From here on it is never served.
    pub dead_at: Timestamp,
    /// From here on it is looked up again; at the end of time if nothing of it can be saved or settled by a look.
    pub due_at: Timestamp,
    /// Negative looks that are not believed yet; 0 when nothing is in doubt.
    pub doubts: u32,
    /// When the present expiry was first seen: a URL's life is counted from here.
    since: Timestamp,
    /// The start of the look it came from. An entry takes only an observation that started later.
    start: Token,
}

/// Spreads what is made together, or shares one expiry: from 0, looked up again late, to 1, early.
#[derive(Clone, Copy, Debug)]
pub struct Jitter(pub f64);

impl Jitter {
    /// By `chance`, from 0 to 1, and the earlier the more often somebody asks, as far as the time since the last request tells:
    /// among URLs that die together those most asked for come first. Who asked longer than `warm_for` ago asks no more.
    #[must_use]
    pub fn by_demand(chance: f64, asked_ago: Option<Duration>, warm_for: Duration) -> Self {
        let Some(ago) = asked_ago else { return Self(chance) };
        // As requests are spread over people, what counts is how many times as long ago.
        let minutes = |time: Duration| (1.0 + time.as_secs_f64() / 60.0).ln();
        let most = minutes(warm_for).max(f64::MIN_POSITIVE);
        Self(f64::midpoint(chance, 1.0 - (minutes(ago) / most).min(1.0)))
    }
}

impl<O> Entry<O> {
    /// What may be done with it at `now`.
    #[must_use]
    pub fn freshness(&self, now: Timestamp) -> Freshness {
        if now >= self.dead_at {
            Freshness::Dead
        } else if now >= self.due_at || self.is_from_later(now) {
            Freshness::Due
        } else {
            Freshness::Fresh
        }
    }

    /// Whether its last look ended in what is now the future: the clock has been set back since, and nothing that is counted
    /// from that look can be relied on.
    #[must_use]
    pub fn is_from_later(&self, now: Timestamp) -> bool {
        self.checked_at > latest(now)
    }

    /// How long it may still be served.
    #[must_use]
    pub fn ttl(&self, now: Timestamp) -> Duration {
        self.dead_at.since(now)
    }

    /// How long ago the last look ended.
    #[must_use]
    pub fn age(&self, now: Timestamp) -> Duration {
        now.since(self.checked_at)
    }

    /// By when it is to be looked up again, if it ever must be: a believed negative outcome is content with rechecks.
    #[must_use]
    pub fn deadline(&self) -> Option<Timestamp> {
        (self.due_at < NEVER).then_some(self.due_at)
    }

    /// The start of the look it came from.
    #[must_use]
    pub fn start(&self) -> Token {
        self.start
    }

    /// The same instants with something else for an outcome.
    #[must_use]
    pub fn with<P>(&self, outcome: P) -> Entry<P> {
        let Self { checked_at, dead_at, due_at, doubts, since, start, .. } = *self;
        Entry { outcome, checked_at, dead_at, due_at, doubts, since, start }
    }
}

impl Entry {
    /// The same, as something known before a look with this start token: for what was seen while the store was away, whose own
    /// token is no number of the store's.
    #[must_use]
    pub fn known_before(&self, start: Token) -> Self {
        Self { start: Token(self.start.0.min(start.0.saturating_sub(1))), ..self.clone() }
    }

    /// What a look leaves behind: `previous` is the key's entry so far, `standing` what the look did to the subject's state.
    ///
    /// An observation that is not later than the one held changes nothing.
    #[must_use]
    pub fn after(
        previous: Option<&Self>,
        seen: &Observation,
        standing: Standing,
        rules: &Rules,
        jitter: Jitter,
    ) -> Self {
        let now = seen.ended_at;
        if let Some(held) = previous.filter(|held| held.start >= seen.start) {
            return held.clone();
        }
        let mut entry = match (&seen.outcome, previous) {
            (Outcome::Present(picture), _) => Self::present(picture, previous, seen, rules, jitter),
            // One odd answer is not a removal: the last good answer lives on, and only its next look is new.
            (Outcome::Negative(_), Some(held))
                if !matches!(standing, Standing::Believed { .. }) && held.is_good(now) =>
            {
                Self { checked_at: now, start: seen.start, ..held.clone() }
            }
            (Outcome::Negative(negative), _) => Self::negative(negative, seen, rules),
        };
        (entry.due_at, entry.doubts) = match standing {
            Standing::Believed { .. } => (entry.due_at, 0),
            Standing::Doubted { look_at, looks } => (look_at, looks),
            Standing::Overlapped => (entry.due_at.min(now + SETTLE), entry.doubts),
        };
        entry
    }

    /// Whether it is a picture that may be served at `now`.
    #[must_use]
    pub fn is_good(&self, now: Timestamp) -> bool {
        matches!(self.outcome, Outcome::Present(_)) && self.freshness(now) != Freshness::Dead
    }

    fn present(picture: &Picture, previous: Option<&Self>, seen: &Observation, rules: &Rules, jitter: Jitter) -> Self {
        let now = seen.ended_at;
        let dead_at = dead_at(picture, now, rules);
        let since = match previous.map(|held| (&held.outcome, held.since)) {
            Some((Outcome::Present(held), since))
                if held.expires_at().is_some() && held.expires_at() == picture.expires_at() =>
            {
                since
            }
            _ => now,
        };
        let mut entry = Self {
            outcome: Outcome::Present(picture.clone()),
            checked_at: now,
            dead_at,
            due_at: dead_at,
            doubts: 0,
            since,
            start: seen.start,
        };
        let ahead = dead_at - entry.window(rules).mul_f64(1.0 + 0.25 * jitter.0);
        entry.due_at = if ahead > now {
            ahead
        } else {
            // The same expiry came back inside its own window: spread what is left, and stop dividing before it is a loop.
            let left = dead_at.since(now).mul_f64(0.3 + 0.4 * jitter.0);
            (now + left.max(entry.life() / 50).max(SHORTEST_STEP)).min(dead_at.max(now + SHORTEST_STEP))
        };
        entry
    }

    fn negative(negative: &Negative, seen: &Observation, rules: &Rules) -> Self {
        let now = seen.ended_at;
        Self {
            outcome: Outcome::Negative(negative.clone()),
            checked_at: now,
            dead_at: now + rules.negative_ttl(negative.reason),
            due_at: NEVER,
            doubts: 0,
            since: now,
            start: seen.start,
        }
    }

    /// The whole time in which the present expiry could be served.
    fn life(&self) -> Duration {
        self.dead_at.since(self.since)
    }

    /// How long before its death a URL is looked up again.
    fn window(&self, rules: &Rules) -> Duration {
        let life = self.life();
        let usual = life.mul_f64(rules.refresh_ahead.clamp(0.0, 1.0));
        let window = if rules.renew_late { usual.mul_f64(LATE).max(SAFE).min(usual) } else { usual };
        window.max(SHORTEST_WINDOW.min(life / 2))
    }
}

/// When the last look at anything can have ended, as it is `now`: if it ended later, the clock has been set back since.
#[must_use]
#[inline]
pub fn latest(now: Timestamp) -> Timestamp {
    now + SET_BACK
}

/// From when on a picture seen at `now` must not be served.
#[must_use]
pub fn dead_at(picture: &Picture, now: Timestamp, rules: &Rules) -> Timestamp {
    match picture.expires_at() {
        Some(expiry) => (expiry - MARGIN).min(now + LONGEST),
        None => now + rules.fallback_ttl,
    }
}

/// The stored form: format version, then the fields in order. A later version appends fields and reads the older ones.
#[derive(Serialize, Deserialize)]
struct Record {
    format: u8,
    outcome: OutcomeRecord,
    checked_at: Timestamp,
    dead_at: Timestamp,
    due_at: Timestamp,
    since: Timestamp,
    start: Token,
    doubts: u32,
}

#[derive(Serialize, Deserialize)]
enum OutcomeRecord {
    #[serde(rename = "p")]
    Present(Picture),
    #[serde(rename = "n")]
    Negative(Negative),
}

const FORMAT: u8 = 1;

impl Entry {
    /// The stored form.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let record = Record {
            format: FORMAT,
            outcome: match &self.outcome {
                Outcome::Present(picture) => OutcomeRecord::Present(picture.clone()),
                Outcome::Negative(negative) => OutcomeRecord::Negative(negative.clone()),
            },
            checked_at: self.checked_at,
            dead_at: self.dead_at,
            due_at: self.due_at,
            since: self.since,
            start: self.start,
            doubts: self.doubts,
        };
        record::write(&record)
    }

    /// Reads a stored form.
    ///
    /// # Errors
    /// When it is not one, or a newer program wrote it.
    pub fn decode(bytes: &[u8]) -> Result<Self, Unreadable> {
        let record: Record = record::read(bytes, FORMAT)?;
        Ok(Self {
            outcome: match record.outcome {
                OutcomeRecord::Present(picture) => Outcome::Present(picture),
                OutcomeRecord::Negative(negative) => Outcome::Negative(negative),
            },
            checked_at: record.checked_at,
            dead_at: record.dead_at,
            due_at: record.due_at,
            since: record.since,
            start: record.start,
            doubts: record.doubts,
        })
    }
}
