//! The command line.

use std::time::Duration;

use clap::Parser;

use crate::population::{BUDGETS, LEARNING, MEASURED, PEOPLE};
use crate::tally::Days;

/// Measures how long changes wait for their event, beside other ways of spending the same lookups.
#[derive(Clone, Debug, Parser)]
#[command(name = "cargo bench --bench freshness --", max_term_width = 120)]
pub(crate) struct Options {
    /// Lookups a day; may be given several times
    #[arg(long, default_values_t = BUDGETS)]
    pub(crate) budget: Vec<f64>,
    /// Another world by the same rules
    #[arg(long, default_value_t = 1)]
    pub(crate) seed: u64,
    /// Fewer people, only to see that it works; budgets shrink with them
    #[arg(long, default_value_t = PEOPLE)]
    pub(crate) people: usize,
    /// Days to learn
    #[arg(long, default_value_t = LEARNING)]
    pub(crate) learning: i64,
    /// Days to measure
    #[arg(long, default_value_t = MEASURED)]
    pub(crate) measured: i64,
    /// `--recheck-interval`, in hours
    #[arg(long, default_value_t = 6.0)]
    pub(crate) interval: f64,
    /// Without the table of what activity is worth
    #[arg(long)]
    pub(crate) no_hints: bool,
    /// Instead: what the planner costs with a million people
    #[arg(long)]
    pub(crate) cost: bool,
    /// Given by cargo.
    #[arg(long, hide = true)]
    pub(crate) bench: bool,
}

impl Options {
    pub(crate) fn days(&self) -> Days {
        Days { learning: self.learning, measured: self.measured }
    }

    pub(crate) fn interval(&self) -> Duration {
        Duration::from_secs_f64(self.interval * 3600.0)
    }

    /// The budget for as many people as there are.
    #[allow(clippy::cast_precision_loss)] // few people
    pub(crate) fn scaled(&self, budget: f64) -> f64 {
        budget * self.people as f64 / PEOPLE as f64
    }
}
