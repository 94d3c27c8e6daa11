//! Who may ask the gateway now.

use std::time::Duration;

/// How much may be asked.
#[derive(Clone, Debug)]
pub struct Config {
    /// Lookups per second and device.
    pub rate: f64,
    /// Lookups that may start at once after a quiet time.
    pub burst: u32,
    /// Lookups of one device under way at once.
    pub concurrency: u32,
    /// The first cool-down after a rate limit; doubles to an hour (longer only if this is longer).
    pub cool_down: Duration,
    /// How long a client waits for budget.
    pub max_wait: Duration,
}
