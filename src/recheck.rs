//! Who is looked at next, of those whose picture may have changed: rechecks under a budget that does not suffice for all.
//!
//! Every recheck is of a subject, not of a key: one look at any of its keys tells the id of all. The rules:
//! * Looks go where change is likeliest. With looks `T` apart a change of rate `r` waits `T/2` for its event; among all ways of
//!   spending a budget the sum of these waits is least where `T` is proportional to `1/sqrt(r)` (Cho and Garcia-Molina,
//!   "Effective page refresh policies for Web crawlers", TODS 2003).
//! * That share is given by a fair queue ([`turn`]), which needs to know neither the budget nor how many there are.
//! * How often somebody changes is estimated ([`rate`]), and that somebody is active makes a change likelier by as much as it
//!   was found to ([`activity`]).
//! * Nobody waits more than [`turn::LONGEST`] times as long as everybody would if all were looked at equally often.
//! * With budget enough nobody is looked at sooner than the recheck interval; see [`forecast`].
//!
//! Everything here is pure: no clock, no store, no randomness.

pub mod activity;
pub mod forecast;
pub mod pace;
pub mod rate;
pub mod turn;

#[cfg(test)]
mod tests;

use std::time::Duration;

use crate::clock::Timestamp;
use crate::record::{self, Unreadable};
use activity::{Activity, Boost};
use rate::{Evidence, Prior};
use turn::Turn;

use serde::{Deserialize, Serialize};

/// What an installation has learnt of the people that it looks at, all together.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Lessons {
    /// How common each rate of change is.
    pub prior: Prior,
    /// How much likelier a change is behind somebody's activity.
    pub boost: Boost,
}

/// What is known of one subject, as far as rechecks go.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Outlook {
    /// How often its picture changed.
    pub evidence: Evidence,
    /// When it was looked at last.
    pub looked_at: Timestamp,
    /// Its place in its device's queue.
    pub turn: Turn,
    /// What was heard of it since.
    pub activity: Activity,
}

/// A look at a subject that was known, as far as its next one depends on it.
#[derive(Clone, Copy, Debug)]
pub struct Look {
    /// Whether the picture had changed.
    pub changed: bool,
    /// When.
    pub at: Timestamp,
    /// The virtual time of its device then.
    pub virtual_now: f64,
}

impl Lessons {
    /// A subject that was looked at for the first time. `spread`, from 0 to 1, is random: who was made together must not come
    /// up together. `share` is how many times as often as others it is to be looked at.
    #[must_use]
    pub fn met(&self, virtual_now: f64, now: Timestamp, share: f64, spread: f64) -> Outlook {
        let evidence = Evidence::default();
        let weight = share * turn::weight(self.prior.rate(&evidence), self.prior.mean_weight());
        let turn = Turn::first(virtual_now, weight, spread);
        Outlook { evidence, looked_at: now, turn, activity: Activity::default() }
    }

    /// A subject that was looked at again, for whatever reason. `share` as in [`Self::met`]; `jitter` is from 0 to 1.
    #[must_use]
    pub fn looked(&self, before: &Outlook, look: Look, share: f64, jitter: f64) -> Outlook {
        let mut evidence = before.evidence;
        evidence.looked(days(look.at, before.looked_at), look.changed);
        let weight = share * turn::weight(self.prior.rate(&evidence), self.prior.mean_weight());
        let turn = Turn::next(look.virtual_now, weight, jitter);
        Outlook { evidence, looked_at: look.at, turn, activity: before.activity.looked() }
    }

    /// Learns from a look, for all.
    pub fn learn(&mut self, before: &Outlook, look: Look) {
        let waited = days(look.at, before.looked_at);
        self.boost.learn(self.prior.rate(&before.evidence), waited, &before.activity, look.changed);
        let mut evidence = before.evidence;
        evidence.looked(waited, look.changed);
        self.prior.learn(&evidence, waited, look.at);
        // A first wait is as long as chance made it.
        if before.evidence != Evidence::default() {
            self.prior.served(before.turn.waited(look.virtual_now));
        }
    }

    /// A subject of whom was heard: it comes up sooner by as much as a change has become likelier. Nothing, if that was so within
    /// the recheck interval: it counts once for each.
    #[must_use]
    pub fn active(&self, before: &Outlook, virtual_now: f64, now: Timestamp, interval: Duration) -> Option<Outlook> {
        if before.activity.heard_at.is_some_and(|heard| now.since(heard) < interval) {
            return None;
        }
        let mut outlook = *before;
        let days_ahead = self.boost.worth() * outlook.activity.heard(before.looked_at, now);
        outlook.turn.advance(days_ahead / days(now, before.looked_at).max(SHORTEST), virtual_now);
        Some(outlook)
    }
}

/// No time is taken for shorter than this (days) where something is divided by it.
const SHORTEST: f64 = 1e-6;

#[allow(clippy::cast_precision_loss)] // no times are that long
fn days(now: Timestamp, then: Timestamp) -> f64 {
    now.since(then).as_millis() as f64 / 86_400_000.0
}

/// The stored forms: format version, then the fields in order.
#[derive(Serialize, Deserialize)]
struct LessonsRecord {
    format: u8,
    prior: rate::PriorRecord,
    boost: Boost,
}

#[derive(Serialize, Deserialize)]
struct OutlookRecord {
    format: u8,
    evidence: Evidence,
    looked_at: Timestamp,
    turn: Turn,
    activity: Activity,
}

const LESSONS_FORMAT: u8 = 1;
const OUTLOOK_FORMAT: u8 = 1;

impl Lessons {
    /// The stored form.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        record::write(&LessonsRecord { format: LESSONS_FORMAT, prior: self.prior.record(), boost: self.boost })
    }

    /// Reads a stored form.
    ///
    /// # Errors
    /// When it is not one, or a newer program wrote it.
    pub fn decode(bytes: &[u8]) -> Result<Self, Unreadable> {
        let LessonsRecord { prior, boost, .. } = record::read(bytes, LESSONS_FORMAT)?;
        Ok(Self { prior: Prior::from(prior), boost })
    }
}

impl Outlook {
    /// The stored form.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let Self { evidence, looked_at, turn, activity } = *self;
        record::write(&OutlookRecord { format: OUTLOOK_FORMAT, evidence, looked_at, turn, activity })
    }

    /// Reads a stored form.
    ///
    /// # Errors
    /// When it is not one, or a newer program wrote it.
    pub fn decode(bytes: &[u8]) -> Result<Self, Unreadable> {
        let OutlookRecord { evidence, looked_at, turn, activity, .. } = record::read(bytes, OUTLOOK_FORMAT)?;
        Ok(Self { evidence, looked_at, turn, activity })
    }
}
