//! The lookup.

use std::time::Duration;

use crate::outcome::Rules;

/// How answers are kept.
#[derive(Clone, Debug)]
pub struct Config {
    /// Lifetimes and intervals.
    pub rules: Rules,
    /// Bound on the in-memory cache (bytes).
    pub memory_limit: u64,
    /// Since the last request: how long an entry goes on being refreshed.
    pub warm_for: Duration,
}
