//! What is due.

use std::time::Duration;

/// What is looked at again, and for how long.
#[derive(Clone, Debug)]
pub struct Config {
    /// Since the last request: how long an entry goes on being refreshed.
    pub warm_for: Duration,
    /// Since the last request: when an entry is dropped from the store with its state.
    pub forget_after: Duration,
}
