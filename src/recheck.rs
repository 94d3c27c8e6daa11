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
pub mod rate;
pub mod turn;

#[cfg(test)]
mod tests;

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

/// One subject, as far as rechecks go.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Subject {
    /// How often its picture changed.
    pub evidence: Evidence,
    /// When it was looked at last.
    pub looked_at: Timestamp,
    /// Its place in its device's queue.
    pub turn: Turn,
    /// What was heard of it since.
    pub activity: Activity,
}

impl Lessons {
    /// A subject that was looked at for the first time. `spread`, from 0 to 1, is random: who was made together must not come
    /// up together.
    #[must_use]
    pub fn met(&self, virtual_now: f64, now: Timestamp, spread: f64) -> Subject {
        let evidence = Evidence::default();
        let weight = turn::weight(self.prior.rate(&evidence), self.prior.mean_weight());
        let turn = Turn::first(virtual_now, weight, spread);
        Subject { evidence, looked_at: now, turn, activity: Activity::default() }
    }

    /// A subject that was looked at again, for whatever reason, and whether its picture had changed. `jitter` is from 0 to 1.
    pub fn looked(
        &mut self,
        before: &Subject,
        changed: bool,
        virtual_now: f64,
        now: Timestamp,
        jitter: f64,
    ) -> Subject {
        let waited = days(now, before.looked_at);
        self.boost.learn(self.prior.rate(&before.evidence), waited, &before.activity, changed);
        let mut evidence = before.evidence;
        evidence.looked(waited, changed);
        let rate = self.prior.learn(&evidence, waited, now);
        // A first wait is as long as chance made it.
        if before.evidence != Evidence::default() {
            self.prior.served(before.turn.waited(virtual_now));
        }
        let weight = turn::weight(rate, self.prior.mean_weight());
        let turn = Turn::next(virtual_now, weight, jitter);
        Subject { evidence, looked_at: now, turn, activity: Activity::default() }
    }

    /// A subject of whom was heard: it comes up sooner by as much as a change has become likelier.
    #[must_use]
    pub fn active(&self, before: &Subject, virtual_now: f64, now: Timestamp) -> Subject {
        let mut subject = *before;
        let days_ahead = self.boost.worth() * subject.activity.heard(before.looked_at, now);
        subject.turn.advance(days_ahead / days(now, before.looked_at).max(SHORTEST), virtual_now);
        subject
    }
}

/// No time is taken for shorter than this (days) where something is divided by it.
const SHORTEST: f64 = 1e-6;

#[allow(clippy::cast_precision_loss)] // no times are that long
fn days(now: Timestamp, then: Timestamp) -> f64 {
    now.since(then).as_millis() as f64 / 86_400_000.0
}

/// The stored form.
#[derive(Serialize, Deserialize)]
struct Record {
    format: u8,
    prior: rate::PriorRecord,
    boost: Boost,
}

const FORMAT: u8 = 1;

impl Lessons {
    /// The stored form.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        record::write(&Record { format: FORMAT, prior: self.prior.record(), boost: self.boost })
    }

    /// Reads a stored form.
    ///
    /// # Errors
    /// When it is not one, or a newer program wrote it.
    pub fn decode(bytes: &[u8]) -> Result<Self, Unreadable> {
        let Record { prior, boost, .. } = record::read(bytes, FORMAT)?;
        Ok(Self { prior: Prior::from(prior), boost })
    }
}
