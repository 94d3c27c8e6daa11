//! The fair queue that rechecks of one device stand in: self-clocked fair queueing (S. J. Golestani, "A self-clocked fair queueing
//! scheme for broadband applications", INFOCOM 1994), with subjects for flows and looks for packets.
//!
//! Virtual time is the rank of the recheck that was let go last. Who was just looked at gets the rank `virtual now + 1/weight`,
//! and the smallest rank is next. So everybody's looks are as frequent as the weight says, in proportion to all others', whatever
//! the budget does: rate limits and clients' misses make virtual time slower for all.

use serde::{Deserialize, Serialize};

/// Nobody waits longer than this many times what everybody would wait if all were looked at equally often.
pub const LONGEST: f64 = 4.0;

/// By how much ranks are spread, up or down.
const JITTER: f64 = 0.05;

/// A subject's place in the queue of its device.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Turn {
    /// The virtual time of its last look.
    pub began: f64,
    /// It comes up when virtual time has got here.
    pub rank: f64,
}

impl Turn {
    /// The place of who was looked at for the first time: anywhere in the first round.
    #[must_use]
    pub fn first(virtual_now: f64, weight: f64, spread: f64) -> Self {
        Self { began: virtual_now, rank: virtual_now + spread / weight }
    }

    /// The place of who was looked at again.
    #[must_use]
    pub fn next(virtual_now: f64, weight: f64, jitter: f64) -> Self {
        Self { began: virtual_now, rank: virtual_now + (1.0 + JITTER * (2.0 * jitter - 1.0)) / weight }
    }

    /// Moves it ahead, as if it had waited so much longer, in multiples of what it has waited.
    pub fn advance(&mut self, waits: f64, virtual_now: f64) {
        self.rank -= waits * (virtual_now - self.began).max(0.0);
    }

    /// How much virtual time its wait takes, if it is looked at now: what its weight says, or less if it was moved ahead. A look
    /// that came before its turn, because a client asked, says nothing of the queue.
    #[must_use]
    pub fn waited(&self, virtual_now: f64) -> f64 {
        (self.rank.max(virtual_now) - self.began).max(0.0)
    }
}

/// The weight of who changes so often (a day), where weights are `mean` on average.
#[must_use]
pub fn weight(rate: f64, mean: f64) -> f64 {
    rate.sqrt().max(mean / LONGEST)
}
