//! What the proxy does while nobody asks.

use std::time::Duration;

use avatar_proxy::clock::Clock;

use super::app::TestApp;
use super::eventually::eventually;

/// Waits until no look is under way, so that nothing which began before a clock is set ends after it.
pub(crate) async fn no_looks(app: &TestApp) {
    eventually("looks end", async || app.metric("avatar_proxy_flights").await < 0.5).await;
}

/// Lets the background work go round, moving a clock in the test's hand on by a second: what was due before has been taken
/// then, and its looks are over.
pub(crate) async fn background_work(app: &TestApp, clock: &Clock) {
    const PACE: Duration = Duration::from_millis(500);
    let rounds = async || app.metric("avatar_proxy_store_seconds_count{operation=\"agenda\"}").await;
    // Twice, because one round may be half over.
    for _ in 0..2 {
        let before = rounds().await;
        clock.advance(PACE);
        eventually("the background work goes round", async || rounds().await > before + 0.5).await;
    }
    eventually("background looks end", async || app.metric("avatar_proxy_refreshes_running").await < 0.5).await;
}
