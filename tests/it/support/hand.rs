//! A clock in the test's hand.

use std::time::Duration;

use avatar_proxy::clock::{Clock, Timestamp};
use avatar_proxy::demo::Options;

use super::app::{TestApp, World};

/// Where the clock stands at first.
pub(crate) const NOW: Timestamp = Timestamp::from_seconds(1_800_000_000);

pub(crate) const SECOND: Duration = Duration::from_secs(1);

/// How long the simulated gateway's URLs live.
pub(crate) const TEN_DAYS: Duration = Duration::from_secs(10 * 86_400);

/// Longer ago than any look that `no-cache` is content with.
pub(crate) const NO_LONGER_RECENT: Duration = Duration::from_secs(11);

/// A world whose clock is moved by the test alone.
///
/// Only the steady clock creeps, by microseconds that no wall clock shows: buckets begin empty, and a token takes a moment.
pub(crate) async fn world(options: Options) -> World {
    World::with(options, creeping(NOW, Duration::from_micros(50))).await
}

/// The same, beginning with the system's time: what strangers judge by their own clocks is in time at first.
pub(crate) async fn world_of_today(options: Options) -> World {
    World::with(options, creeping(Clock::system().now(), Duration::from_micros(50))).await
}

/// A world whose clock flows, at half the speed of real time: the pause before a retry passes by itself, and what takes
/// seconds still waits for the test to move the clock.
pub(crate) async fn flowing(options: Options) -> World {
    World::with(options, creeping(NOW, TICK / 2)).await
}

const TICK: Duration = Duration::from_millis(10);

/// A manual clock that moves by `step` in each [`TICK`], until the test's runtime ends.
pub(crate) fn creeping(start: Timestamp, step: Duration) -> Clock {
    let clock = Clock::manual(start);
    let creeping = clock.clone();
    tokio::spawn(async move {
        loop {
            tokio::time::sleep(TICK).await;
            creeping.advance(step);
        }
    });
    clock
}

/// A look made now, because a client wants it.
pub(crate) async fn look(app: &TestApp, world: &World, who: &str) {
    world.clock.advance(NO_LONGER_RECENT);
    let answer = app.avatar_asking(who, "no-cache").await;
    assert!(answer.how().contains("fwd="), "{answer:?}");
}

/// Changes a picture, and has it noticed.
pub(crate) async fn change(app: &TestApp, world: &World, who: &str, id: &str) {
    world.gateway.person(who).picture(id);
    look(app, world, who).await;
}
