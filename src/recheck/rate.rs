//! How often somebody changes their picture: empirical Bayes over a grid of rates.
//!
//! A look after a time `t` finds a change of rate `r` with probability `1 - exp(-r t)`, however many there were in between. What
//! is kept of a person is what this likelihood needs, three numbers; what is kept of all people together is how common each rate
//! is ([`Prior`]), learnt from everybody's looks. A person's rate is the mean of the posterior: the square of the weight that
//! makes the mean delay least, when the rate is not known for certain.

use std::array;

use serde::{Deserialize, Serialize};

use crate::clock::Timestamp;

/// The grid: once a day, and each further rate so many times slower than the one before; the last is once in five years.
const RATES: usize = 12;
const RATIO: f64 = 1.98;
const GRID: [f64; RATES] = grid();

const fn grid() -> [f64; RATES] {
    let mut rates = [1.0; RATES];
    let mut k = 1;
    while k < RATES {
        rates[k] = rates[k - 1] / RATIO;
        k += 1;
    }
    rates
}

/// What is taken for granted before anybody was looked at: most change their picture about every so many days, two thirds of them
/// within this factor up or down; and how many person-days, or looks, outweigh it.
const USUAL: f64 = 1.0 / 150.0;
const SPREAD: f64 = 4.0;
const GRANTED: f64 = 500.0;

/// People change: a person's history counts for half after this many days. What all people taught fades in about so many, and is
/// brought up to date so often.
const HISTORY_DAYS: f64 = 540.0;
const PRIOR_DAYS: f64 = 20.0;
const FADE_EVERY: f64 = 0.01;

/// What is known of one person's changes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Evidence {
    /// Days at whose end nothing had changed.
    quiet: f32,
    /// Looks that found a change.
    changes: f32,
    /// Days that such a look came after the one before, on average.
    gap: f32,
}

impl Evidence {
    /// Takes in a look so many days after the one before.
    pub fn looked(&mut self, days: f64, changed: bool) {
        #[allow(clippy::cast_possible_truncation)] // seven digits are plenty
        let (days, kept) = (days as f32, (-days / HISTORY_DAYS).exp2() as f32);
        self.quiet *= kept;
        self.changes *= kept;
        if changed {
            self.changes += 1.0;
            self.gap += (days - self.gap) / self.changes;
        } else {
            self.quiet += days;
        }
    }
}

/// How common each rate is, and what follows for one person.
#[derive(Clone, Debug, PartialEq)]
pub struct Prior {
    /// what was learnt, in person-days; they fade
    learnt: [f64; RATES],
    /// looks, and the virtual time that they were waited for; they fade as well
    served: (f64, f64),
    faded_at: Option<Timestamp>,
    /// the logarithm of how common each rate is
    logs: [f64; RATES],
}

/// What is taken for granted, in person-days: a bell over the logarithm of the rate.
fn granted() -> [f64; RATES] {
    let bells = GRID.map(|rate| (-0.5 * ((rate / USUAL).ln() / SPREAD.ln()).powi(2)).exp());
    let all: f64 = bells.iter().sum();
    bells.map(|bell| bell / all * GRANTED)
}

impl Default for Prior {
    fn default() -> Self {
        Self::from(PriorRecord { learnt: vec![], served: (0.0, 0.0), faded_at: None })
    }
}

impl Prior {
    /// How often a person changes their picture, as far as one can tell (changes a day).
    #[must_use]
    pub fn rate(&self, evidence: &Evidence) -> f64 {
        mean(&self.posterior(evidence))
    }

    /// Learns from a look at a person that came so many days after the one before; returns the person's rate.
    pub(super) fn learn(&mut self, evidence: &Evidence, days: f64, now: Timestamp) -> f64 {
        let posterior = self.posterior(evidence);
        // By the time between looks, because whoever is looked at oftener would otherwise count for more people.
        for (learnt, likely) in self.learnt.iter_mut().zip(posterior) {
            *learnt += likely * days;
        }
        let passed = super::days(now, *self.faded_at.get_or_insert(now));
        if passed >= FADE_EVERY {
            let kept = (-passed / PRIOR_DAYS).exp();
            self.learnt = self.learnt.map(|learnt| learnt * kept);
            self.served = (self.served.0 * kept, self.served.1 * kept);
            self.faded_at = Some(now);
            self.settle();
        }
        mean(&posterior)
    }

    /// Learns that somebody was looked at after so much virtual time.
    pub(super) fn served(&mut self, virtual_time: f64) {
        self.served = (self.served.0 + 1.0, self.served.1 + virtual_time);
    }

    /// The weight that people are served by, on average: looks, by the virtual time that everybody waited for them.
    #[must_use]
    pub fn mean_weight(&self) -> f64 {
        (GRANTED + self.served.0) / (GRANTED / USUAL.sqrt() + self.served.1)
    }

    /// How likely each rate is for a person.
    fn posterior(&self, evidence: &Evidence) -> [f64; RATES] {
        let (quiet, changes, gap) = (f64::from(evidence.quiet), f64::from(evidence.changes), f64::from(evidence.gap));
        let logs: [f64; RATES] = array::from_fn(|k| {
            let rate = GRID[k];
            let found = if changes > 0.0 { changes * (-(-rate * gap.max(super::SHORTEST)).exp_m1()).ln() } else { 0.0 };
            self.logs[k] - rate * quiet + found
        });
        let highest = logs.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let odds = logs.map(|log| (log - highest).exp());
        let all: f64 = odds.iter().sum();
        odds.map(|odds| odds / all)
    }

    fn settle(&mut self) {
        let granted = granted();
        let sums: [f64; RATES] = array::from_fn(|k| granted[k] + self.learnt[k]);
        let all: f64 = sums.iter().sum();
        self.logs = sums.map(|sum| (sum / all).ln());
    }
}

fn mean(posterior: &[f64; RATES]) -> f64 {
    posterior.iter().zip(GRID).map(|(likely, rate)| likely * rate).sum()
}

/// The stored form.
#[derive(Serialize, Deserialize)]
pub(super) struct PriorRecord {
    pub(super) learnt: Vec<f64>,
    pub(super) served: (f64, f64),
    pub(super) faded_at: Option<Timestamp>,
}

impl Prior {
    pub(super) fn record(&self) -> PriorRecord {
        PriorRecord { learnt: self.learnt.to_vec(), served: self.served, faded_at: self.faded_at }
    }
}

/// What was learnt over another grid is not used.
impl From<PriorRecord> for Prior {
    fn from(PriorRecord { learnt, served, faded_at }: PriorRecord) -> Self {
        let sane =
            |sums: &[f64; RATES]| sums.iter().chain([&served.0, &served.1]).all(|sum| sum.is_finite() && *sum >= 0.0);
        let mut prior = match <[f64; RATES]>::try_from(learnt).ok().filter(sane) {
            Some(learnt) => Self { learnt, served, faded_at, logs: [0.0; RATES] },
            None => Self { learnt: [0.0; RATES], served: (0.0, 0.0), faded_at: None, logs: [0.0; RATES] },
        };
        prior.settle();
        prior
    }
}
