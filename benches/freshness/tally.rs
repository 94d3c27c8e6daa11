//! What is counted, by rules of its own: nothing here trusts the code that is measured.

use crate::population::DAY;

/// Days to learn, and days to measure afterwards; the first days are measured too, as those of a fresh installation.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Days {
    pub(crate) learning: i64,
    pub(crate) measured: i64,
}

impl Days {
    pub(crate) fn end(self) -> i64 {
        (self.learning + self.measured) * DAY
    }

    fn are_measured(self, at: i64) -> bool {
        (self.learning * DAY..self.end()).contains(&at)
    }
}

/// How long changes waited for their event (ms).
#[derive(Default)]
pub(crate) struct Delays(Vec<i64>);

impl Delays {
    #[allow(clippy::cast_precision_loss)] // far less than 2^52
    pub(crate) fn mean(&self) -> f64 {
        self.0.iter().sum::<i64>() as f64 / self.0.len().max(1) as f64
    }

    /// The delay that this share of the changes does not exceed.
    #[allow(clippy::cast_precision_loss, clippy::cast_possible_truncation, clippy::cast_sign_loss)] // counts
    pub(crate) fn quantile(&self, share: f64) -> i64 {
        let mut sorted = self.0.clone();
        sorted.sort_unstable();
        let at = (sorted.len() as f64 * share).ceil() as usize;
        sorted.get(at.clamp(1, sorted.len().max(1)) - 1).copied().unwrap_or_default()
    }
}

/// Everything that is counted of a run.
pub(crate) struct Tally {
    days: Days,
    /// Of changes in the first days after an installation, and in those that are measured after learning.
    pub(crate) fresh: Delays,
    pub(crate) learnt: Delays,
    /// Changes in the measured days that nobody was told of.
    untold: i64,
    /// In the measured days.
    pub(crate) lookups: u64,
    pub(crate) requests: u64,
    /// In the whole run.
    pub(crate) dead_served: u64,
    pub(crate) overruns: u64,
    pub(crate) while_cooling: u64,
    /// URLs that were asked for when they were dead, once everybody had been looked at.
    pub(crate) missed: u64,
    /// Removals that were told though nobody removes a picture here: after one odd answer, and after several in a row.
    pub(crate) false_removals: u64,
    pub(crate) odd_in_a_row: u64,
    bucket: f64,
    filled_at: i64,
    rate: f64,
    cooling_until: i64,
}

const BURST: f64 = 20.0;

/// The first cool-down; later ones are longer.
const COOL_DOWN: i64 = 60_000;

impl Tally {
    #[allow(clippy::cast_precision_loss)] // a day
    pub(crate) fn new(lookups_a_day: f64, days: Days) -> Self {
        Self {
            days,
            fresh: Delays::default(),
            learnt: Delays::default(),
            untold: 0,
            lookups: 0,
            requests: 0,
            dead_served: 0,
            overruns: 0,
            while_cooling: 0,
            missed: 0,
            false_removals: 0,
            odd_in_a_row: 0,
            bucket: BURST,
            filled_at: 0,
            rate: lookups_a_day / DAY as f64,
            cooling_until: 0,
        }
    }

    /// A client asks.
    pub(crate) fn asked(&mut self, now: i64) {
        self.requests += u64::from(self.days.are_measured(now));
    }

    /// A lookup starts.
    #[allow(clippy::cast_precision_loss)] // far less than 2^52
    pub(crate) fn starts(&mut self, now: i64) {
        // No window has more than rate x t + burst if, and only if, a bucket that began full never runs dry.
        self.bucket = (self.bucket + (now - self.filled_at) as f64 * self.rate).min(BURST) - 1.0;
        self.filled_at = now;
        self.overruns += u64::from(self.bucket < -1e-6);
        self.while_cooling += u64::from(now < self.cooling_until);
        self.lookups += u64::from(self.days.are_measured(now));
    }

    /// WhatsApp said slow down.
    pub(crate) fn slows_down(&mut self, now: i64) {
        self.cooling_until = now + COOL_DOWN;
    }

    /// A picture of somebody who is known changed.
    pub(crate) fn happened(&mut self, now: i64) {
        self.untold += i64::from(self.days.are_measured(now));
    }

    /// A change that happened then is told now.
    pub(crate) fn told(&mut self, happened: i64, now: i64) {
        if happened < self.days.measured * DAY {
            self.fresh.0.push(now - happened);
        }
        if self.days.are_measured(happened) {
            self.untold -= 1;
            self.learnt.0.push(now - happened);
        }
    }

    /// A removal is told, after so many odd answers in a row.
    pub(crate) fn removed(&mut self, odd: u32) {
        *(if odd < 2 { &mut self.false_removals } else { &mut self.odd_in_a_row }) += 1;
    }

    /// Whether measured changes are still untold.
    pub(crate) fn is_waiting(&self) -> bool {
        self.untold > 0
    }
}
