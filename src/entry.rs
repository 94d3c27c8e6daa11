//! A cache entry, and when it is still good.
//!
//! Freshness is data and an instant: [`Entry::freshness`] compares, and nothing else in the program decides. Two instants are
//! fixed when an entry is made: `dead_at`, from which on it is never served, and `due_at`, from which on it is looked up again
//! in the background. The expiry mechanisms of caches and stores only collect garbage.
//!
//! This module is pure: no clock, no randomness, no I/O. Jitter comes in as a number.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::change::Standing;
use crate::clock::Timestamp;
use crate::outcome::{Negative, Observation, Outcome, Picture, Rules, Token};
use crate::record::{self, Unreadable};

/// A URL is not served in its last moments: by the time the client follows it, it would be dead.
pub const MARGIN: Duration = Duration::from_secs(2);

/// No `oe` is trusted for longer than this.
const LONGEST: Duration = Duration::from_secs(30 * 86_400);

/// Where the doubling of background looks at a negative outcome ends.
const NEGATIVE_INTERVAL_MAX: Duration = Duration::from_secs(7 * 86_400);

/// A short-lived URL is looked up again at least this long before it dies, if its life is at least twice as long: a lookup takes
/// up to seconds, whatever the share.
const SHORTEST_WINDOW: Duration = Duration::from_secs(3);

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
    /// From here on it is looked up again.
    pub due_at: Timestamp,
    /// Negative looks that are not believed yet; 0 when nothing is in doubt.
    pub doubts: u32,
    /// When the present expiry was first seen: a URL's life is counted from here.
    since: Timestamp,
    /// The start of the look it came from. An entry takes only an observation that started later.
    start: Token,
}

/// Jitter, so that entries made together do not come due together: two numbers from 0 to 1.
#[derive(Clone, Copy, Debug)]
pub struct Jitter(pub f64, pub f64);

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
    /// Whether its next look is to save a URL from dying (and not to see whether the picture changed).
    #[must_use]
    pub fn is_expiring(&self, rules: &Rules) -> bool {
        matches!(self.outcome, Outcome::Present(_)) && self.due_at + self.window(rules).mul_f64(1.5) >= self.dead_at
    }

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
            (Outcome::Negative(negative), _) => Self::negative(negative, seen, standing, rules, jitter),
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
        let expiring = if ahead > now {
            ahead
        } else {
            // The same expiry came back inside its own window: spread what is left, and stop dividing before it is a loop.
            let left = dead_at.since(now).mul_f64(0.3 + 0.4 * jitter.0);
            (now + left.max(entry.life() / 50).max(SHORTEST_STEP)).min(dead_at.max(now + SHORTEST_STEP))
        };
        entry.due_at = expiring.min(now + rules.recheck_interval.mul_f64(1.0 - 0.1 * jitter.1));
        entry
    }

    fn negative(negative: &Negative, seen: &Observation, standing: Standing, rules: &Rules, jitter: Jitter) -> Self {
        let now = seen.ended_at;
        let ttl = rules.negative_ttl(negative.reason);
        let repeats = match standing {
            Standing::Believed { repeats } => repeats.clamp(1, 16),
            Standing::Doubted { .. } | Standing::Overlapped => 1,
        };
        let interval = ttl.max(rules.recheck_interval);
        let doubled = interval.saturating_mul(1 << (repeats - 1)).min(NEGATIVE_INTERVAL_MAX.max(interval));
        Self {
            outcome: Outcome::Negative(negative.clone()),
            checked_at: now,
            dead_at: now + ttl,
            due_at: now + doubled.mul_f64(1.0 + 0.1 * jitter.1),
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
        life.mul_f64(rules.refresh_ahead.clamp(0.0, 1.0)).max(SHORTEST_WINDOW.min(life / 2))
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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::jid::Variant;
    use crate::outcome::Reason;

    const T0: i64 = 1_700_000_000;

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_seconds(T0 + seconds)
    }

    fn look(outcome: Outcome, start: u64, now: Timestamp) -> Observation {
        Observation { variant: Variant::default(), outcome, start: Token(start), started_at: now, ended_at: now }
    }

    fn url(expires: i64) -> Outcome {
        Outcome::Present(Picture::new(&format!("https://h/p?oh=1&oe={:X}", T0 + expires), "1", "image"))
    }

    fn hidden() -> Outcome {
        let negative =
            Negative { reason: Reason::Hidden, status: 500, code: "INTERNAL_SERVER_ERROR".into(), message: "m".into() };
        Outcome::Negative(negative)
    }

    const SURE: Standing = Standing::Believed { repeats: 1 };
    const NONE: Jitter = Jitter(0.0, 0.0);

    fn first(outcome: Outcome, now: Timestamp) -> Entry {
        Entry::after(None, &look(outcome, 1, now), SURE, &Rules::default(), NONE)
    }

    #[test]
    fn a_url_dies_two_seconds_early_and_is_due_with_a_fifth_of_its_life_left() {
        let entry = first(url(1002), at(0));
        assert_eq!(entry.freshness(at(799)), Freshness::Fresh);
        assert_eq!(entry.freshness(at(800)), Freshness::Due);
        assert_eq!(entry.freshness(at(999)), Freshness::Due);
        assert_eq!(entry.freshness(at(1000)), Freshness::Dead);
    }

    #[test]
    fn a_long_life_is_rechecked_and_thirty_days_are_the_most() {
        let entry = first(url(90 * 86_400), at(0));
        assert_eq!(entry.due_at, at(6 * 3600));
        assert_eq!(entry.dead_at, at(30 * 86_400));
    }

    #[test]
    fn without_an_expiry_the_fallback_counts() {
        let entry = first(Outcome::Present(Picture::new("", "1", "image")), at(0));
        assert_eq!(entry.dead_at, at(3600));
    }

    #[test]
    fn a_clock_set_back_makes_it_due_not_immortal() {
        let entry = first(url(1002), at(0));
        assert_eq!(entry.freshness(at(-301)), Freshness::Due);
        assert_eq!(entry.freshness(at(-299)), Freshness::Fresh);
    }

    #[test]
    fn one_odd_answer_does_not_replace_a_live_picture() {
        let rules = Rules::default();
        let good = first(url(1002), at(0));
        let doubted = Standing::Doubted { look_at: at(160), looks: 1 };
        let kept = Entry::after(Some(&good), &look(hidden(), 2, at(100)), doubted, &rules, NONE);
        assert_eq!((kept.outcome.id(), kept.due_at, kept.dead_at), (Some("1"), at(160), good.dead_at));
        let after_death = Entry::after(Some(&good), &look(hidden(), 2, at(1100)), doubted, &rules, NONE);
        assert_eq!(after_death.outcome, hidden());
        let believed = Entry::after(Some(&kept), &look(hidden(), 3, at(160)), SURE, &rules, NONE);
        assert_eq!(believed.outcome, hidden());
    }

    #[test]
    fn background_looks_at_a_negative_outcome_double_up_to_a_week() {
        let due = |repeats| {
            let standing = Standing::Believed { repeats };
            Entry::after(None, &look(hidden(), 1, at(0)), standing, &Rules::default(), NONE).due_at.since(at(0))
        };
        assert_eq!(due(1), Duration::from_secs(6 * 3600));
        assert_eq!(due(2), Duration::from_secs(12 * 3600));
        assert_eq!(due(40), Duration::from_secs(7 * 86_400));
    }

    #[test]
    fn the_same_expiry_over_and_over_is_not_a_loop() {
        for (life, at_most) in [(12, 5), (60, 8), (3600, 8), (10 * 86_400, 70)] {
            let rules = Rules::default();
            let mut now = at(0);
            let mut entry = Entry::after(None, &look(url(life), 1, now), SURE, &rules, Jitter(0.5, 0.5));
            let mut looks = 1;
            while entry.due_at < entry.dead_at {
                now = entry.due_at;
                looks += 1;
                entry = Entry::after(Some(&entry), &look(url(life), looks, now), SURE, &rules, Jitter(0.5, 0.5));
                assert!(entry.due_at.since(now) >= SHORTEST_STEP);
            }
            assert!(looks <= at_most, "{looks} looks in a life of {life} s");
        }
    }

    #[test]
    fn an_older_look_changes_nothing() {
        let entry = Entry::after(None, &look(url(1000), 5, at(0)), SURE, &Rules::default(), NONE);
        let late = Entry::after(Some(&entry), &look(url(9000), 5, at(9)), SURE, &Rules::default(), NONE);
        assert_eq!(late, entry);
    }

    #[test]
    fn the_first_format_stays_readable() {
        // Written by format 1; these bytes never change.
        let bytes = hex::decode("980181a17093bc68747470733a2f2f682f703f6f683d31266f653d3635353346344541a131a5696d616765cf0000018bcfe56800cf0000018bcff4aa40cf0000018bcff19d00cf0000018bcfe568000100").unwrap();
        let entry = first(url(1002), at(0));
        assert_eq!(hex::encode(entry.encode()), hex::encode(&bytes));
        assert_eq!(Entry::decode(&bytes).unwrap(), entry);
        let mut newer = bytes.clone();
        newer[1] = FORMAT + 1;
        assert!(matches!(Entry::decode(&newer), Err(Unreadable::Newer(_))));
        assert!(Entry::decode(&bytes[..bytes.len() - 1]).is_err());
        assert!(Entry::decode(b"").is_err());
    }

    fn any_outcome() -> impl Strategy<Value = Outcome> {
        prop_oneof![
            (-100i64..4_000_000).prop_map(url),
            Just(hidden()),
            Just(Outcome::Present(Picture::new("u", "1", "image")))
        ]
    }

    proptest! {
        /// Promise 2, at its root: whatever was seen before, in whatever order, with whatever clock, nothing whose `oe` is less
        /// than two seconds away is servable.
        #[test]
        fn no_dead_url_is_ever_servable(
            looks in prop::collection::vec((any_outcome(), -5_000i64..5_000_000, 0u8..3, 0.0f64..1.0, 0.0f64..1.0), 1..8),
            asked in -10_000i64..6_000_000,
        ) {
            let rules = Rules::default();
            let mut entry: Option<Entry> = None;
            for (index, (outcome, when, standing, a, b)) in looks.into_iter().enumerate() {
                let standing = match standing {
                    0 => SURE,
                    1 => Standing::Doubted { look_at: at(when + 60), looks: 1 },
                    _ => Standing::Overlapped,
                };
                entry = Some(Entry::after(entry.as_ref(), &look(outcome, index as u64 + 1, at(when)), standing, &rules, Jitter(a, b)));
            }
            let entry = entry.unwrap();
            if entry.freshness(at(asked)) != Freshness::Dead
                && let Outcome::Present(picture) = &entry.outcome
                && let Some(expiry) = picture.expires_at()
            {
                prop_assert!(at(asked) + MARGIN < expiry);
            }
        }

        #[test]
        fn what_is_stored_is_read_back(outcome in any_outcome(), when in 0i64..5_000_000, a in 0.0f64..1.0) {
            let entry = Entry::after(None, &look(outcome, 7, at(when)), SURE, &Rules::default(), Jitter(a, a));
            prop_assert_eq!(Entry::decode(&entry.encode()).unwrap(), entry);
        }

        #[test]
        fn no_stored_bytes_panic(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            let _ = Entry::decode(&bytes);
        }
    }
}
