//! Somebody sets the clock, forward or back: nothing dead is served, and nothing waits for the old time to come again.

use std::time::Duration;

use avatar_proxy::clock::Timestamp;
use avatar_proxy::demo::{Address, Options, Reply};
use avatar_proxy::entry::MARGIN;
use avatar_proxy::outcome::signed_until;

use crate::support::app::World;
use crate::support::background::{background_work, no_looks};
use crate::support::client::{Answer, Client};
use crate::support::eventually::eventually;
use crate::support::hand::{self, NO_LONGER_RECENT};

const ADA: &str = "999001";
const BOB: &str = "999002";

const DAY: Duration = Duration::from_secs(86_400);

async fn world() -> World {
    hand::world(Options::default()).await
}

#[track_caller]
fn assert_alive(answer: &Answer, now: Timestamp) {
    assert!(signed_until(&answer.url()).is_some_and(|expiry| expiry > now + MARGIN), "dead at {now:?}: {answer:?}");
}

#[tokio::test]
async fn a_leap_forward_serves_nothing_dead() {
    let world = world().await;
    let app = world.start().await;
    for phone in [ADA, BOB] {
        app.avatar(phone).await.expect(200, "fwd=miss; stored");
    }
    let later = world.clock.now() + 20 * DAY;
    world.clock.jump(later);
    for phone in [ADA, BOB] {
        let answer = app.avatar(phone).await;
        assert_eq!(answer.status, 200);
        assert_alive(&answer, later);
        assert_alive(&app.avatar(phone).await.expect(200, "hit; ttl="), later);
    }
    app.stop().await;
}

#[tokio::test]
async fn a_clock_set_back_is_no_reason_to_believe_yesterdays_future() {
    let world = world().await;
    let (ada, bob) = (world.gateway.person(ADA).picture("17"), world.gateway.person(BOB).replies(Reply::Hidden));
    let app = world.start().await;
    app.avatar(ADA).await.expect(200, "fwd=miss; stored");
    app.avatar(BOB).await.expect(500, "fwd=miss; stored");
    background_work(&app, &world.clock).await;

    let earlier = world.clock.now() - 5 * DAY;
    world.clock.jump(earlier);
    ada.picture("18");
    bob.picture("27").replies(Reply::Present);
    assert_alive(&app.avatar(ADA).await.expect(200, "hit; ttl="), earlier);
    app.avatar(BOB).await.expect(500, "hit; ttl=");
    // Asked for, they are looked at again, though by the clock they have five days to go.
    eventually("Ada's is looked at", async || app.avatar(ADA).await.picture_id() == "18").await;
    eventually("Bob's is looked at", async || app.avatar(BOB).await.picture_id() == "27").await;
    background_work(&app, &world.clock).await;
    assert_eq!((ada.lookups(), bob.lookups()), (2, 2), "once is enough");
    app.stop().await;
}

#[tokio::test]
async fn a_fresh_look_can_be_had_at_once_when_the_clock_was_set_back() {
    let world = world().await;
    let ada = world.gateway.person(ADA).picture("17");
    let app = world.start().await;
    app.avatar(ADA).await.expect(200, "fwd=miss; stored");
    world.clock.jump(world.clock.now() - DAY);
    ada.picture("18");
    let answer = app.avatar_asking(ADA, "no-cache").await.expect(200, "fwd=request; stored");
    assert_eq!((answer.picture_id().as_str(), ada.lookups()), ("18", 2));
    app.stop().await;
}

#[tokio::test]
async fn a_clock_set_back_during_a_look_does_not_repeat_it() {
    let world = world().await;
    let ada = world.gateway.person(ADA).picture("17");
    let app = world.start().await;
    app.avatar(ADA).await.expect(200, "fwd=miss; stored");
    world.clock.advance(NO_LONGER_RECENT);
    let held = ada.hold();
    let client = Client::clone(&app);
    let asking = tokio::spawn(async move { client.avatar_asking(ADA, "no-cache").await });
    ada.arrived(2).await;
    world.clock.jump(world.clock.now() - DAY);
    held.release();
    asking.await.unwrap().expect(200, "fwd=request; stored");
    assert_eq!(ada.lookups(), 2);
    app.stop().await;
}

#[tokio::test]
async fn there_and_back_again_wedges_nothing() {
    let world = world().await.flag("--recheck-interval=1h");
    let ada = world.gateway.person(ADA).picture("17").address(Address::Lasting(2 * DAY));
    let app = world.start().await;
    app.avatar(ADA).await.expect(200, "fwd=miss; stored");
    let start = world.clock.now();
    for days in [9, 0, 30, 1, 0] {
        let now = start + days * DAY;
        // A URL that was signed before a leap may be dead on arrival after it, which is another story.
        no_looks(&app).await;
        world.clock.jump(now);
        let answer = app.avatar(ADA).await;
        assert_eq!(answer.status, 200, "{answer:?}");
        assert_alive(&answer, now);
    }
    background_work(&app, &world.clock).await;
    // From here on time passes as it should, and so does everything else.
    world.clock.advance(NO_LONGER_RECENT);
    ada.picture("18");
    let lookups = ada.lookups();
    app.avatar_asking(ADA, "no-cache").await.expect(200, "fwd=request; stored");
    assert_eq!(ada.lookups(), lookups + 1);
    world.clock.advance(DAY / 24);
    ada.arrived(lookups + 2).await;
    app.stop().await;
}
