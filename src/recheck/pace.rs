//! How soon after a look somebody may be rechecked, and how often beside others.

use std::time::Duration;

use super::forecast::Forecast;
use crate::change::Standing;
use crate::outcome::{Outcome, Rules};

/// Where the doubling of rechecks of a negative outcome ends.
const NEGATIVE_MAX: Duration = Duration::from_secs(7 * 86_400);

/// What is wanted of somebody's picture.
#[derive(Clone, Copy, Debug)]
pub struct Wanted {
    /// Somebody asked for it lately.
    pub warm: bool,
    /// It is watched, at this interval.
    pub watch: Option<Duration>,
}

impl Wanted {
    /// How old the last look may get, with budget enough: a watch has its own interval, and whom somebody asks for gets no less
    /// than others do.
    #[must_use]
    pub fn interval(self, rules: &Rules) -> Duration {
        match self.watch {
            Some(watch) if self.warm => watch.min(rules.recheck_interval),
            Some(watch) => watch,
            None => rules.recheck_interval,
        }
    }

    /// How many times as often as others it is looked at when the budget does not suffice for all.
    #[must_use]
    pub fn share(self, rules: &Rules) -> f64 {
        let interval = self.interval(rules).max(Duration::from_secs(1));
        (rules.recheck_interval.as_secs_f64() / interval.as_secs_f64()).max(1.0)
    }

    /// How soon after a look that brought this it may be rechecked. `jitter` is from 0 to 1.
    #[must_use]
    pub fn soonest(
        self,
        outcome: &Outcome,
        standing: Standing,
        rules: &Rules,
        forecast: &Forecast,
        jitter: f64,
    ) -> Duration {
        let interval = self.interval(rules);
        if let (Outcome::Negative(negative), Standing::Believed { repeats }) = (outcome, standing) {
            // Nothing says that there will ever be a picture: ever less often.
            let interval = interval.max(rules.negative_ttl(negative.reason));
            let doubled = interval.saturating_mul(1 << (repeats.clamp(1, 16) - 1)).min(NEGATIVE_MAX.max(interval));
            return doubled.mul_f64(1.0 + 0.1 * jitter);
        }
        // A watch is kept as it was wished; what nobody wished for may come oftener, where it is worth more.
        let soonest = if self.warm { interval.min(forecast.soonest(rules.recheck_interval)) } else { interval };
        soonest.mul_f64(1.0 - 0.1 * jitter)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::outcome::{Negative, Picture, Reason};

    const HOUR: Duration = Duration::from_secs(3600);
    const SURE: Standing = Standing::Believed { repeats: 0 };
    const WARM: Wanted = Wanted { warm: true, watch: None };

    fn picture() -> Outcome {
        Outcome::Present(Picture::new("https://h/p", "1", "image"))
    }

    fn soonest(wanted: Wanted, forecast: &Forecast) -> Duration {
        wanted.soonest(&picture(), SURE, &Rules::default(), forecast, 0.0)
    }

    fn scarce() -> Forecast {
        Forecast { rechecks: 2.0, allowed: 1.0, ..Forecast::default() }
    }

    #[test]
    fn with_budget_enough_everybody_is_rechecked_at_the_interval() {
        let enough = Forecast { rechecks: 0.5, allowed: 1.0, ..Forecast::default() };
        assert_eq!(soonest(WARM, &enough), 6 * HOUR);
        assert_eq!(soonest(WARM, &scarce()), 6 * HOUR / 8, "and with too little the queue decides");
    }

    #[test]
    fn a_watch_has_its_own_interval_and_a_share_to_match() {
        let (often, seldom) = (Some(HOUR), Some(48 * HOUR));
        let rules = Rules::default();
        for (warm, watch, interval, share) in [
            (false, often, HOUR, 6.0),
            (false, seldom, 48 * HOUR, 1.0),
            (true, seldom, 6 * HOUR, 1.0),
            (true, often, HOUR, 6.0),
        ] {
            let wanted = Wanted { warm, watch };
            assert_eq!(soonest(wanted, &Forecast::default()), interval);
            assert!((wanted.share(&rules) - share).abs() < 1e-9);
        }
        assert_eq!(soonest(Wanted { warm: false, watch: often }, &scarce()), HOUR, "no more often than was wished");
    }

    #[test]
    fn rechecks_of_a_negative_outcome_double_up_to_a_week() {
        let hidden = Outcome::Negative(Negative {
            reason: Reason::Hidden,
            status: 500,
            code: "INTERNAL_SERVER_ERROR".into(),
            message: "m".into(),
        });
        let after = |standing| WARM.soonest(&hidden, standing, &Rules::default(), &scarce(), 0.0);
        assert_eq!(after(Standing::Believed { repeats: 1 }), 6 * HOUR);
        assert_eq!(after(Standing::Believed { repeats: 2 }), 12 * HOUR);
        assert_eq!(after(Standing::Believed { repeats: 40 }), 7 * 24 * HOUR);
        let watched = Wanted { warm: false, watch: Some(HOUR / 60) };
        let sure = Standing::Believed { repeats: 1 };
        let soonest = watched.soonest(&hidden, sure, &Rules::default(), &scarce(), 0.0);
        assert_eq!(soonest, HOUR, "not before its lifetime has passed");
    }
}
