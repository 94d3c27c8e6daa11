//! What it says of somebody's picture that they are active: people who just changed it write more, perhaps. How much more is
//! learnt, so that where it says nothing nothing is done about it.
//!
//! Looked at after `t` days, a picture of rate `r` has changed `r t` times on average. What somebody does at some instant makes a
//! change in the day before it likelier: the `c` days that lie in such a day since the last look count `1 + w` times, and the look
//! is due as if it had waited `w c` days longer. From looks behind activity and from looks behind none, [`Boost`] learns `w`: by
//! how many changes they found, and how many were to be expected.

use serde::{Deserialize, Serialize};

use crate::clock::Timestamp;

/// How long somebody who changed the picture is more active (days).
const WINDOW: f64 = 1.0;

/// A look at which more changes were to be expected than this teaches nothing: it finds one in any case.
const SURE: f64 = 0.25;

/// How many changes what is learnt must outweigh, of looks behind activity and of all others.
const DOUBT: f64 = 10.0;

/// The most that activity can be worth.
const WORTH_MAX: f64 = 100.0;

/// From so many expected changes on, older ones count for less.
const ENOUGH: f64 = 50_000.0;

/// What was heard of somebody since the last look.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Activity {
    /// Days since the last look that lie within a day before they did something.
    pub covered: f64,
    /// When something was heard last that counted, be it before the last look.
    pub heard_at: Option<Timestamp>,
}

impl Activity {
    /// After a look.
    #[must_use]
    pub fn looked(self) -> Self {
        Self { covered: 0.0, ..self }
    }

    /// Something was heard, of somebody who was looked at then; returns the days that this newly covers.
    pub fn heard(&mut self, looked_at: Timestamp, now: Timestamp) -> f64 {
        let from = self.heard_at.map_or(looked_at, |heard| heard.max(looked_at));
        let covered = super::days(now, from).min(WINDOW);
        self.covered += covered;
        self.heard_at = Some(now);
        covered
    }
}

/// Changes that looks found, and what was to be expected.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Boost {
    quiet_found: f64,
    quiet_expected: f64,
    found: f64,
    expected: f64,
    /// of them, in covered days
    covered: f64,
}

impl Boost {
    /// Learns from a look so many days after the one before, at somebody of this rate of whom this was heard in between.
    pub fn learn(&mut self, rate: f64, waited: f64, activity: &Activity, changed: bool) {
        let expected = rate * waited;
        if expected > SURE {
            return;
        }
        let found = f64::from(u8::from(changed));
        if activity.covered > 0.0 {
            self.found += found;
            self.expected += expected;
            self.covered += rate * activity.covered.min(waited);
        } else {
            self.quiet_found += found;
            self.quiet_expected += expected;
        }
        if self.expected + self.quiet_expected > ENOUGH {
            for sum in [
                &mut self.quiet_found,
                &mut self.quiet_expected,
                &mut self.found,
                &mut self.expected,
                &mut self.covered,
            ] {
                *sum /= 2.0;
            }
        }
    }

    /// How many more days of waiting a covered day is worth.
    #[must_use]
    pub fn worth(&self) -> f64 {
        // Silence makes changes less likely, and rates may be misjudged: looks behind no activity say how much is to be expected.
        let usual = (self.quiet_found + DOUBT) / (self.quiet_expected + DOUBT);
        ((self.found / usual - self.expected) / (self.covered + DOUBT)).clamp(0.0, WORTH_MAX)
    }
}
