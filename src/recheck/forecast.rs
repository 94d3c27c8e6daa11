//! Whether the budget will suffice, before it is known not to.
//!
//! Two things are needed of it. *Deadlines*: keys that must be looked at before an instant. If the k-th of them is due after a
//! time `t`, then `k / t` looks a second are needed, whatever comes later; the greatest of these figures is what the deadlines
//! need. *Rechecks*: everybody once per recheck interval. A recheck renews a URL as well, so that the greater of the two is needed,
//! not their sum.

use std::time::Duration;

/// Where deadlines are looked at: the k-th of them, soonest first. Each k is at most an eighth more than the one before, so that
/// what lies between two is not underestimated by more than that.
pub const SAMPLES: [usize; 61] = samples();

const fn samples() -> [usize; 61] {
    let mut samples = [16; 61];
    let mut at = 1;
    while at < samples.len() {
        samples[at] = samples[at - 1] + samples[at - 1] / 8;
        at += 1;
    }
    samples
}

/// What is due now or in a moment is taken to have this long: a few at once are no backlog.
const MOMENT: Duration = Duration::from_secs(60);

/// Deadlines that need more than this share of the budget are begun with before their time.
const EARLY: f64 = 0.9;

/// With too little budget, this often within the recheck interval somebody may be looked at, if that is where change is likeliest.
const OFTEN: u32 = 8;

/// What is needed of a device's budget, and what is there (lookups per second).
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Forecast {
    /// For deadlines.
    pub deadlines: f64,
    /// For looking at everybody once per recheck interval.
    pub rechecks: f64,
    /// What the budget allows.
    pub allowed: f64,
    /// How far ahead deadlines stand so close that they must be begun with now.
    pub pressing: Duration,
}

impl Forecast {
    /// From the times until deadlines, each with how many have come by then; from how many subjects are rechecked, and how often.
    #[must_use]
    #[allow(clippy::cast_precision_loss)] // counts
    pub fn new(
        deadlines: impl IntoIterator<Item = (usize, Duration)>,
        subjects: u64,
        interval: Duration,
        allowed: f64,
    ) -> Self {
        let mut forecast = Self {
            deadlines: 0.0,
            rechecks: subjects as f64 / interval.as_secs_f64().max(1.0),
            allowed,
            pressing: Duration::ZERO,
        };
        for (count, within) in deadlines {
            let needed = count as f64 / within.max(MOMENT).as_secs_f64();
            forecast.deadlines = forecast.deadlines.max(needed);
            if needed > allowed * EARLY {
                forecast.pressing = forecast.pressing.max(within);
            }
        }
        forecast
    }

    /// Whether deadlines will be missed.
    #[must_use]
    pub fn falls_short(&self) -> bool {
        self.deadlines > self.allowed
    }

    /// Whether everybody cannot be looked at once per recheck interval.
    #[must_use]
    pub fn is_scarce(&self) -> bool {
        self.rechecks > self.allowed
    }

    /// How soon after a look somebody may be rechecked. With budget enough, at the interval and no sooner; with too little the
    /// queue decides, and this only keeps it from looking at the same few over and over.
    #[must_use]
    pub fn soonest(&self, interval: Duration) -> Duration {
        if self.is_scarce() { interval / OFTEN } else { interval }
    }
}
