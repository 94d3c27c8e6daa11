//! A clock in the test's hand.

use std::time::Duration;

use avatar_proxy::clock::{Clock, Timestamp};
use avatar_proxy::demo::Options;

use super::app::World;

/// Where the clock stands at first.
pub(crate) const NOW: Timestamp = Timestamp::from_seconds(1_800_000_000);

pub(crate) const SECOND: Duration = Duration::from_secs(1);

/// How long the simulated gateway's URLs live.
pub(crate) const TEN_DAYS: Duration = Duration::from_secs(10 * 86_400);

/// Longer ago than any look that `no-cache` is content with.
pub(crate) const NO_LONGER_RECENT: Duration = Duration::from_secs(11);

/// A world whose clock is moved by the test. It also creeps ahead, at half the speed of real time, until the test's runtime
/// ends: pauses of milliseconds, as before a retry, pass by themselves, and what takes seconds waits to be moved.
pub(crate) async fn world(options: Options) -> World {
    const STEP: Duration = Duration::from_millis(5);
    let clock = Clock::manual(NOW);
    let creeping = clock.clone();
    tokio::spawn(async move {
        loop {
            tokio::time::sleep(2 * STEP).await;
            creeping.advance(STEP);
        }
    });
    World::with(options, clock).await
}
