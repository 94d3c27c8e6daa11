//! A token bucket and the queue before it. Pure: time comes in as a number of the steady clock.
//!
//! In any time t at most `rate * t + burst` lookups start: the bucket begins empty, is never fuller than `burst`, and pays for
//! every start, retries included. Who waits is served in the order of a deadline, the arrival plus the patience of its
//! priority: misses pass what can wait, and what has waited long enough passes new misses, so that nobody starves.

use std::collections::BTreeMap;
use std::time::Duration;

use super::Priority;
use super::reserve::Reserve;

/// Rounding must not make a full token look like less than one.
pub(super) const ALMOST_ONE: f64 = 1.0 - 1e-9;

/// No wait is estimated longer than this (s): rates may be tiny.
pub(super) const LONGEST_SECONDS: f64 = 30.0 * 86_400.0;

/// Identifies who waits, and orders those whose deadlines are equal.
pub(super) type Seat = u64;

/// A place in the queue: the deadline, and who has it.
pub(super) type Turn = (Duration, Seat);

/// What may pass the bucket.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    /// tokens per second, above zero
    pub(super) rate: f64,
    pub(super) burst: f64,
    pub(super) concurrency: usize,
}

/// Whether the next in the queue may start.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(super) enum Gate {
    /// It may, now.
    Open,
    /// It may when a token has come, after this time.
    Later(Duration),
    /// It may when one under way has ended.
    Full,
}

/// The lane of one device, or the one that all unproven devices share.
#[derive(Debug)]
pub(super) struct Lane<W> {
    tokens: f64,
    filled_at: Duration,
    running: usize,
    /// those of them that have not asked the gateway yet
    reserved: usize,
    queue: BTreeMap<Turn, W>,
    /// For times without the store that others share.
    reserve: Reserve,
}

impl<W> Lane<W> {
    pub(super) fn new(now: Duration) -> Self {
        let reserve = Reserve::new(now);
        Self { tokens: 0.0, filled_at: now, running: 0, reserved: 0, queue: BTreeMap::new(), reserve }
    }

    /// A lane whose bucket the store has: what is here is the most that may be in there, as far as is known.
    pub(super) fn of_a_shared_bucket(now: Duration, limits: Limits) -> Self {
        Self { tokens: limits.burst, ..Self::new(now) }
    }

    /// The store says that the next token comes after this time.
    pub(super) fn expect(&mut self, wait: Duration, limits: Limits) {
        self.tokens = 1.0 - wait.as_secs_f64() * limits.rate;
    }

    pub(super) fn reserve_mut(&mut self) -> &mut Reserve {
        &mut self.reserve
    }

    /// Brings the bucket up to `now`.
    pub(super) fn fill(&mut self, now: Duration, limits: Limits) {
        let passed = now.saturating_sub(self.filled_at).as_secs_f64();
        // A token that may come back has its room kept: otherwise it would come on top of a full bucket.
        #[allow(clippy::cast_precision_loss)] // at most the concurrency
        let room = (limits.burst - self.reserved as f64).max(0.0);
        self.tokens = (self.tokens + passed * limits.rate).min(room.max(self.tokens));
        self.filled_at = self.filled_at.max(now);
    }

    /// Empties the bucket: after a cool-down nothing has been saved up.
    pub(super) fn drain(&mut self, now: Duration) {
        self.tokens = 0.0;
        self.filled_at = self.filled_at.max(now);
    }

    /// Lookups that may start at once, as of the last fill.
    pub(super) fn tokens(&self) -> f64 {
        self.tokens
    }

    pub(super) fn is_idle(&self) -> bool {
        self.running == 0 && self.queue.is_empty()
    }

    pub(super) fn waiting(&self) -> usize {
        self.queue.len()
    }

    pub(super) fn waiters(&self) -> impl Iterator<Item = &W> {
        self.queue.values()
    }

    /// Whether the next in the queue may start; the lane must be filled.
    pub(super) fn gate(&self, limits: Limits) -> Gate {
        if self.running >= limits.concurrency {
            Gate::Full
        } else if self.tokens < ALMOST_ONE {
            // Never nothing, however small the fraction that is missing: that would be a loop.
            Gate::Later(seconds((1.0 - self.tokens) / limits.rate).max(Duration::from_nanos(1)))
        } else {
            Gate::Open
        }
    }

    /// Pays for one that is let through.
    pub(super) fn reserve(&mut self) {
        self.tokens = (self.tokens - 1.0).max(0.0);
        self.running += 1;
        self.reserved += 1;
    }

    /// One that was let through asks the gateway now: its token is spent.
    pub(super) fn start(&mut self) {
        self.reserved = self.reserved.saturating_sub(1);
    }

    /// One that was let through has ended; `unused`: it never asked the gateway, and its token comes back.
    pub(super) fn end(&mut self, unused: bool) {
        self.running = self.running.saturating_sub(1);
        if unused {
            self.reserved = self.reserved.saturating_sub(1);
            self.tokens += 1.0;
        }
    }

    pub(super) fn enqueue(&mut self, now: Duration, priority: Priority, seat: Seat, waiter: W) {
        self.queue.insert((now + priority.patience(), seat), waiter);
    }

    /// Puts back who was let through in vain.
    pub(super) fn put_back(&mut self, turn: Turn, waiter: W) {
        self.queue.insert(turn, waiter);
    }

    pub(super) fn pop(&mut self) -> Option<(Turn, W)> {
        self.queue.pop_first()
    }

    pub(super) fn leave(&mut self, seat: Seat) -> Option<W> {
        let place = self.place(seat)?;
        self.queue.remove(&place)
    }

    /// Moves who waits in `seat` to where somebody of `priority` would stand who came now, if that is further ahead.
    pub(super) fn promote(&mut self, now: Duration, priority: Priority, seat: Seat) {
        let Some(place) = self.place(seat) else { return };
        let better = (now + priority.patience(), seat);
        if better < place
            && let Some(waiter) = self.queue.remove(&place)
        {
            self.queue.insert(better, waiter);
        }
    }

    /// Takes out everybody for whom `picked` is true.
    pub(super) fn take(&mut self, picked: impl Fn(&W) -> bool) -> Vec<W> {
        self.queue.extract_if(.., |_, waiter| picked(waiter)).map(|(_, waiter)| waiter).collect()
    }

    /// Splits off a lane for those in the queue for whom `picked` is true and for `running` of the lookups under way, of which
    /// `reserved` have not asked yet. What was saved up goes with them, and this lane begins anew, empty: so no lookup becomes possible that was not before.
    pub(super) fn split_off(&mut self, running: usize, reserved: usize, picked: impl Fn(&W) -> bool) -> Self {
        let queue = self.queue.extract_if(.., |_, waiter| picked(waiter)).collect();
        self.running = self.running.saturating_sub(running);
        self.reserved = self.reserved.saturating_sub(reserved);
        let reserve = Reserve::new(self.filled_at);
        Self { tokens: std::mem::take(&mut self.tokens), filled_at: self.filled_at, running, reserved, queue, reserve }
    }

    /// How long somebody of `priority` who came now would wait at least: until a token has come for everybody before it and
    /// for itself.
    pub(super) fn estimate(&self, now: Duration, priority: Priority, limits: Limits) -> Duration {
        #[allow(clippy::cast_precision_loss)] // queues are far shorter than 2^52
        let ahead = self.queue.range(..(now + priority.patience(), Seat::MAX)).count() as f64;
        seconds((ahead + 1.0 - self.tokens) / limits.rate)
    }

    fn place(&self, seat: Seat) -> Option<Turn> {
        self.queue.keys().find(|(_, other)| *other == seat).copied()
    }
}

fn seconds(seconds: f64) -> Duration {
    Duration::from_secs_f64(seconds.clamp(0.0, LONGEST_SECONDS))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const LIMITS: Limits = Limits { rate: 2.0, burst: 4.0, concurrency: 3 };

    fn ms(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    #[test]
    fn begins_empty_and_saves_up_to_the_burst() {
        let mut lane = Lane::<()>::new(ms(1000));
        assert_eq!(lane.gate(LIMITS), Gate::Later(ms(500)));
        lane.fill(ms(1500), LIMITS);
        assert_eq!(lane.gate(LIMITS), Gate::Open);
        lane.fill(ms(3_600_000), LIMITS);
        assert!((lane.tokens() - 4.0).abs() < 1e-9);
        for _ in 0..3 {
            assert_eq!(lane.gate(LIMITS), Gate::Open);
            lane.reserve();
            lane.start();
        }
        assert_eq!(lane.gate(LIMITS), Gate::Full);
        lane.end(false);
        assert_eq!(lane.gate(LIMITS), Gate::Open);
    }

    #[test]
    fn misses_pass_what_can_wait_until_it_has_waited_long_enough() {
        let mut lane = Lane::new(ms(0));
        lane.enqueue(ms(0), Priority::Recheck, 1, "recheck");
        lane.enqueue(ms(0), Priority::Expiring, 2, "expiring");
        lane.enqueue(ms(0), Priority::Miss, 3, "miss");
        let later = Priority::Expiring.patience() + ms(1);
        lane.enqueue(later, Priority::Miss, 4, "late miss");
        let order: Vec<_> = std::iter::from_fn(|| lane.pop().map(|(_, waiter)| waiter)).collect();
        assert_eq!(order, ["miss", "expiring", "late miss", "recheck"]);
    }

    #[test]
    fn a_promoted_waiter_moves_ahead_and_never_back() {
        let mut lane = Lane::new(ms(0));
        lane.enqueue(ms(0), Priority::Recheck, 1, "a");
        lane.enqueue(ms(5), Priority::Miss, 2, "b");
        lane.promote(ms(4), Priority::Miss, 1);
        lane.promote(ms(9), Priority::Recheck, 1);
        let mut next = || lane.pop().map(|(_, waiter)| waiter);
        assert_eq!((next(), next()), (Some("a"), Some("b")));
        lane.promote(ms(9), Priority::Miss, 1);
    }

    #[test]
    fn a_token_that_comes_back_does_not_come_on_top_of_a_full_bucket() {
        let mut lane = Lane::<()>::new(ms(0));
        lane.fill(ms(60_000), LIMITS);
        lane.reserve();
        lane.fill(ms(120_000), LIMITS);
        assert!((lane.tokens() - 3.0).abs() < 1e-9);
        lane.end(true);
        lane.fill(ms(180_000), LIMITS);
        assert!((lane.tokens() - 4.0).abs() < 1e-9);
    }

    #[test]
    fn whoever_waits_as_long_as_told_gets_a_token_however_odd_the_rate() {
        for rate in [0.3, 3.0, 7.0, 1e3 / 3.0, 99_999.0, 1e9] {
            let limits = Limits { rate, ..LIMITS };
            let (mut lane, mut now) = (Lane::<()>::new(ms(0)), ms(0));
            let mut waits = 0;
            while let Gate::Later(wait) = lane.gate(limits) {
                now += wait;
                waits += 1;
                assert!(waits <= 2, "at {rate}/s");
                lane.fill(now, limits);
            }
        }
    }

    #[test]
    fn estimates_count_who_stands_ahead() {
        let mut lane = Lane::new(ms(0));
        assert_eq!(lane.estimate(ms(0), Priority::Miss, LIMITS).as_millis(), 500);
        lane.enqueue(ms(0), Priority::Miss, 1, ());
        lane.enqueue(ms(0), Priority::Recheck, 2, ());
        assert_eq!(lane.estimate(ms(0), Priority::Miss, LIMITS).as_millis(), 1000);
        assert_eq!(lane.estimate(ms(0), Priority::Recheck, LIMITS).as_millis(), 1500);
    }

    proptest! {
        /// Promise 5 at its root: in every window, no more starts than rate x t + burst.
        #[test]
        fn no_window_has_more_starts_than_allowed(steps in prop::collection::vec((0u64..3000, 0usize..6, any::<bool>()), 1..80)) {
            let mut lane = Lane::<()>::new(ms(0));
            let mut now = ms(0);
            let mut starts: Vec<Duration> = vec![];
            for (pause, tries, drain) in steps {
                now += ms(pause);
                lane.fill(now, LIMITS);
                if drain { lane.drain(now); }
                for _ in 0..tries {
                    if lane.gate(LIMITS) == Gate::Open {
                        lane.reserve();
                        lane.start();
                        starts.push(now);
                        lane.end(false);
                    }
                }
            }
            for (index, from) in starts.iter().enumerate() {
                for (count, to) in starts[index..].iter().enumerate() {
                    let allowed = to.saturating_sub(*from).as_secs_f64() * LIMITS.rate + LIMITS.burst;
                    #[allow(clippy::cast_precision_loss)]
                    let made = (count + 1) as f64;
                    prop_assert!(made <= allowed + 1e-6, "{made} starts where {allowed} are allowed");
                }
            }
        }
    }
}
