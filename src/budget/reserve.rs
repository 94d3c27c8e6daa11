//! What a replica may start without the store that it shares with others: a small bucket beside each lane's. Pure.
//!
//! The rates of all replicas' reserves add up to no more than [`KEPT_OUT`] of the rate, and each saves up one token, for which the
//! shared bucket leaves room. A replica has its share for a bounded time; then, and without a share, its reserves are empty.

use std::time::Duration;

use super::lane::ALMOST_ONE;

/// The part of the rate that stays outside of shared buckets.
pub(super) const KEPT_OUT: f64 = 0.1;

/// Beside one lane.
#[derive(Debug)]
pub(super) struct Reserve {
    tokens: f64,
    filled_at: Duration,
}

impl Reserve {
    pub(super) fn new(now: Duration) -> Self {
        Self { tokens: 0.0, filled_at: now }
    }

    /// Brings it up to `now`; `rate` is what it gained since the last time, nothing if it may not be used.
    pub(super) fn fill(&mut self, now: Duration, rate: f64) {
        let passed = now.saturating_sub(self.filled_at).as_secs_f64();
        self.tokens = if rate > 0.0 { (self.tokens + passed * rate).min(1.0) } else { 0.0 };
        self.filled_at = self.filled_at.max(now);
    }

    /// Empties it.
    pub(super) fn drain(&mut self, now: Duration) {
        self.tokens = 0.0;
        self.filled_at = self.filled_at.max(now);
    }

    /// Takes a token, if there is one.
    pub(super) fn take(&mut self) -> bool {
        let is_there = self.tokens >= ALMOST_ONE;
        if is_there {
            self.tokens = 0.0;
        }
        is_there
    }

    /// What is missing of a token.
    pub(super) fn missing(&self) -> f64 {
        1.0 - self.tokens
    }
}

/// A replica's share of what all reserves may gain.
#[derive(Debug, Default)]
pub(super) struct Share {
    share: f64,
    until: Duration,
}

impl Share {
    pub(super) fn new(share: f64, until: Duration) -> Self {
        Self { share, until }
    }

    /// What is left of it: nothing, once its time is over.
    pub(super) fn at(&self, now: Duration) -> f64 {
        if now < self.until { self.share } else { 0.0 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn secs(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn saves_up_one_token_and_none_without_a_share() {
        let mut reserve = Reserve::new(secs(0));
        reserve.fill(secs(9), 0.1);
        assert!(!reserve.take());
        reserve.fill(secs(1000), 0.1);
        assert!(reserve.take() && !reserve.take());
        reserve.fill(secs(1005), 0.1);
        assert!((reserve.missing() - 0.5).abs() < 1e-9);
        reserve.fill(secs(1006), 0.0);
        reserve.fill(secs(1015), 0.1);
        assert!(!reserve.take(), "what was there is gone with the share");
    }

    #[test]
    fn a_share_ends_with_its_time() {
        let share = Share::new(0.5, secs(10));
        assert_eq!([9, 10].map(|now| share.at(secs(now)) > 0.0), [true, false]);
    }
}
