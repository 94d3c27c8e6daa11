//! When an entry is looked at again, and when it is left alone.

use std::time::Duration;

use avatar_proxy::clock::Timestamp;
use avatar_proxy::demo::{Address, Options, PersonHandle, SimulatedGateway};

use crate::support::app::{TestApp, World};
use crate::support::background::background_work;
use crate::support::eventually::eventually;
use crate::support::hand::{self, TEN_DAYS};

const ADA: &str = "999001";

const HOUR: Duration = Duration::from_secs(3600);
const DAY: Duration = Duration::from_secs(86_400);

async fn world() -> World {
    hand::world(Options::default()).await
}

fn ada(gateway: &SimulatedGateway) -> PersonHandle {
    gateway.person(ADA).picture("17")
}

/// The seconds that an answer says it may still be served.
async fn ttl(app: &TestApp) -> u64 {
    let answer = app.avatar(ADA).await;
    let (_, ttl) = answer.how().split_once("ttl=").unwrap_or_else(|| panic!("{answer:?}"));
    ttl.split(';').next().and_then(|ttl| ttl.parse().ok()).unwrap()
}

/// When the gateway was last asked.
fn last_look(gateway: &SimulatedGateway) -> Timestamp {
    gateway.log().last().expect("it was asked").at
}

#[tokio::test]
async fn a_warm_url_is_renewed_with_a_fifth_of_its_life_left() {
    let world = world().await.flag("--recheck-interval=30d").flag("--warm-for=30d");
    let ada = ada(&world.gateway);
    let app = world.start().await;
    app.avatar(ADA).await.expect(200, "fwd=miss; stored");
    world.clock.advance(TEN_DAYS * 7 / 10);
    background_work(&app, &world.clock).await;
    assert_eq!(ada.lookups(), 1);
    world.clock.advance(TEN_DAYS / 10);
    ada.arrived(2).await;
    background_work(&app, &world.clock).await;
    let lead = app.metric("avatar_proxy_refresh_lead_seconds_sum").await;
    assert!((lead - DAY.as_secs_f64() * 2.0).abs() < 600.0, "renewed {lead} s before its death");
    assert!(ttl(&app).await > 9 * DAY.as_secs());
    assert_eq!(ada.lookups(), 2);
    app.stop().await;
}

#[tokio::test]
async fn what_nobody_asks_for_is_left_alone_and_served_while_it_lives_and_warm_again_when_asked() {
    let world = world().await.flag("--recheck-interval=6h").flag("--warm-for=1h");
    let ada = ada(&world.gateway);
    let app = world.start().await;
    app.avatar(ADA).await.expect(200, "fwd=miss; stored");
    for _ in 0..2 {
        world.clock.advance(4 * DAY);
        background_work(&app, &world.clock).await;
    }
    assert_eq!(ada.lookups(), 1);
    app.avatar(ADA).await.expect(200, "hit; ttl=");
    ada.arrived(2).await;
    eventually("it is renewed", async || ttl(&app).await > 9 * DAY.as_secs()).await;
    app.stop().await;
}

#[tokio::test]
async fn what_has_died_unasked_is_looked_up_when_somebody_asks() {
    let world = world().await.flag("--warm-for=1h");
    let ada = ada(&world.gateway);
    let app = world.start().await;
    app.avatar(ADA).await.expect(200, "fwd=miss; stored");
    world.clock.advance(TEN_DAYS);
    background_work(&app, &world.clock).await;
    assert_eq!(ada.lookups(), 1);
    app.avatar_asking(ADA, "only-if-cached").await.expect(504, "detail=only-if-cached");
    app.avatar(ADA).await.expect(200, "fwd=stale; stored; ttl=");
    assert_eq!(ada.lookups(), 2);
    app.stop().await;
}

#[tokio::test]
async fn a_warm_entry_is_rechecked_and_a_changed_picture_noticed() {
    let world = world().await.flag("--recheck-interval=6h");
    let ada = ada(&world.gateway);
    let app = world.start().await;
    app.avatar(ADA).await.expect(200, "fwd=miss; stored");
    ada.picture("18");
    world.clock.advance(5 * HOUR);
    background_work(&app, &world.clock).await;
    assert_eq!(app.avatar(ADA).await.expect(200, "hit; ttl=").picture_id(), "17");
    world.clock.advance(HOUR);
    ada.arrived(2).await;
    eventually("the change is noticed", async || app.avatar(ADA).await.picture_id() == "18").await;
    assert_eq!(app.avatar(ADA).await.header("age"), "0");
    assert!(world.clock.now().since(last_look(&world.gateway)) < HOUR);
    app.stop().await;
}

#[tokio::test]
async fn what_is_about_to_expire_is_not_held_up_by_rechecks() {
    let world = hand::flowing(Options::default()).await.flag("--recheck-interval=6h").flag("--gateway-concurrency=1");
    let ada = ada(&world.gateway).address(Address::Lasting(7 * HOUR));
    let app = world.start().await;
    for n in 0..60 {
        app.avatar(&format!("99910{n:02}")).await.expect(200, "fwd=miss; stored");
    }
    world.clock.advance(HOUR);
    app.avatar(ADA).await.expect(200, "fwd=miss; stored");

    let held = world.gateway.hold();
    world.clock.advance(5 * HOUR);
    let looks = async || app.metric("avatar_proxy_refreshes_running").await;
    eventually("one recheck asks and one waits", async || looks().await > 1.5).await;
    world.clock.advance(HOUR);
    eventually("Ada's look waits beside it", async || looks().await > 2.5).await;
    held.release();
    ada.arrived(2).await;
    let place = world.gateway.log().iter().rposition(|lookup| lookup.jid == Some(ada.jid())).unwrap();
    assert!(place <= 61 + 2, "after what had begun, not after {}", place - 61);
    app.stop().await;
}

#[tokio::test]
async fn an_expiry_that_is_missing_or_unreadable_counts_as_the_fallback() {
    for address in [Address::WithoutExpiry, Address::UnreadableExpiry, Address::Missing] {
        let world = world().await.flag("--fallback-ttl=2h").flag("--warm-for=1h");
        let ada = ada(&world.gateway).address(address.clone());
        let app = world.start().await;
        let answer = app.avatar(ADA).await.expect(200, "fwd=miss; stored; ttl=7");
        assert_eq!(answer.url().is_empty(), address == Address::Missing);
        assert!((7190..=7200).contains(&ttl(&app).await));
        world.clock.advance(2 * HOUR);
        app.avatar(ADA).await.expect(200, "fwd=stale; stored");
        assert_eq!(ada.lookups(), 2);
        app.stop().await;
    }
}

#[tokio::test]
async fn an_expiry_in_years_counts_as_thirty_days() {
    let world = world().await.flag("--warm-for=1h");
    let ada = ada(&world.gateway).address(Address::Until(world.clock.now() + 1500 * DAY));
    let app = world.start().await;
    app.avatar(ADA).await.expect(200, "fwd=miss; stored");
    assert!((30 * 86_400 - 10..=30 * 86_400).contains(&ttl(&app).await));
    world.clock.advance(30 * DAY);
    app.avatar(ADA).await.expect(200, "fwd=stale; stored");
    assert_eq!(ada.lookups(), 2);
    app.stop().await;
}
