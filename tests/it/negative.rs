//! One odd answer is not a removal: what becomes of "no picture", "hidden" and "not registered".

use std::time::Duration;

use avatar_proxy::demo::{Mode, Options, PersonHandle, Reply, SimulatedGateway};

use crate::support::app::{TestApp, World};
use crate::support::background::background_work;
use crate::support::client::Answer;
use crate::support::eventually::eventually;
use crate::support::hand::{self, NO_LONGER_RECENT, SECOND};

const ADA: &str = "999001";
const BOB: &str = "999002";

const HOUR: Duration = Duration::from_secs(3600);
const NOT_SET: &str = "that user or group does not have a profile picture";
const HIDDEN: &str = "the user has hidden their profile picture from you";

/// Somebody with a picture, of whom the gateway says so from now on.
async fn known(app: &TestApp, gateway: &SimulatedGateway, phone: &str) -> PersonHandle {
    let person = gateway.person(phone).picture("17");
    app.avatar(phone).await.expect(200, "fwd=miss; stored");
    person
}

async fn world() -> World {
    hand::world(Options::default()).await
}

/// A look made now, because a client wants it.
async fn look(app: &TestApp, world: &World, phone: &str) -> Answer {
    world.clock.advance(NO_LONGER_RECENT);
    app.avatar_asking(phone, "no-cache").await
}

#[track_caller]
fn assert_says(answer: &Answer, message: &str) {
    assert_eq!(answer.json()["message"], message, "{answer:?}");
}

#[tokio::test]
async fn one_odd_answer_does_not_replace_a_live_picture() {
    let world = world().await;
    let app = world.start().await;
    let ada = known(&app, &world.gateway, ADA).await;
    for odd in [Reply::Hidden, Reply::NotSet, Reply::Unregistered] {
        let lookups = ada.lookups();
        ada.replies_once(odd);
        let answer = look(&app, &world, ADA).await.expect(200, "fwd=request; stored");
        assert_eq!(answer.picture_id(), "17");
        app.avatar(ADA).await.expect(200, "hit; ttl=");
        // The second look comes by itself, and finds the picture.
        world.clock.advance(60 * SECOND);
        ada.arrived(lookups + 2).await;
        background_work(&app, &world.clock).await;
        assert_eq!(app.avatar(ADA).await.expect(200, "hit; ttl=").picture_id(), "17");
        assert_eq!(ada.lookups(), lookups + 2);
    }
    assert_eq!(app.get(&format!("/avatars/{ADA}")).await.json()["version"], 0);
    app.stop().await;
}

#[tokio::test]
async fn a_second_look_confirms_a_removal_and_its_reason_counts() {
    let world = world().await;
    let app = world.start().await;
    let ada = known(&app, &world.gateway, ADA).await.replies_in_turn([Reply::Hidden], Reply::NotSet);
    look(&app, &world, ADA).await.expect(200, "fwd=request; stored");
    world.clock.advance(40 * SECOND);
    let early = app.avatar_asking(ADA, "no-cache").await.expect(200, "fwd=request; stored");
    assert_eq!(early.picture_id(), "17", "a second look too soon after the first confirms nothing");
    world.clock.advance(20 * SECOND);
    eventually("it is believed", async || app.avatar(ADA).await.status == 500).await;
    assert_says(&app.avatar(ADA).await.expect(500, "hit; ttl="), NOT_SET);
    let native = app.get(&format!("/avatars/{ADA}")).await.json();
    assert_eq!((&native["outcome"], &native["version"], &native["url"]), (&"not_set".into(), &1.into(), &().into()));
    assert_eq!(ada.lookups(), 4);
    assert!(app.metric("avatar_proxy_changes_total{change=\"removed\"}").await > 0.5);
    app.stop().await;
}

#[tokio::test]
async fn the_second_look_is_made_for_somebody_nobody_asks_for_any_more() {
    let world = world().await.flag("--warm-for=30s");
    let app = world.start().await;
    let ada = known(&app, &world.gateway, ADA).await.replies(Reply::Hidden);
    look(&app, &world, ADA).await.expect(200, "fwd=request; stored");
    world.clock.advance(HOUR);
    ada.arrived(3).await;
    background_work(&app, &world.clock).await;
    assert_says(&app.avatar_asking(ADA, "only-if-cached").await.expect(500, "hit; ttl="), HIDDEN);
    assert_eq!(ada.lookups(), 3);
    app.stop().await;
}

#[tokio::test]
async fn a_picture_that_dies_in_doubt_gives_way_to_the_negative_answer() {
    let world = world().await.flag("--confirm-after=30d");
    let app = world.start().await;
    known(&app, &world.gateway, ADA).await.replies(Reply::Hidden);
    assert_eq!(look(&app, &world, ADA).await.expect(200, "fwd=request; stored").picture_id(), "17");
    world.clock.advance(hand::TEN_DAYS);
    assert_says(&app.avatar(ADA).await.expect(500, "fwd=stale; stored"), HIDDEN);
    assert_eq!(app.get(&format!("/avatars/{ADA}")).await.json()["version"], 0, "and still nothing is believed");
    app.stop().await;
}

#[tokio::test]
async fn not_registered_is_believed_only_of_a_device_that_had_a_success_in_between() {
    let world = world().await;
    let app = world.start().await;
    let ada = known(&app, &world.gateway, ADA).await.replies(Reply::Unregistered);
    look(&app, &world, ADA).await.expect(200, "fwd=request; stored");
    for lookups in 3..5 {
        // The wait for the next look doubles.
        world.clock.advance(120 * SECOND);
        ada.arrived(lookups).await;
        background_work(&app, &world.clock).await;
        assert_eq!(app.avatar(ADA).await.expect(200, "hit; ttl=").picture_id(), "17");
    }
    known(&app, &world.gateway, BOB).await;
    world.clock.advance(600 * SECOND);
    eventually("it is believed", async || app.avatar(ADA).await.status == 400).await;
    assert_eq!(app.avatar(ADA).await.code(), "INVALID_JID");
    app.stop().await;
}

#[tokio::test]
async fn a_negative_answer_about_somebody_new_is_given_at_once_and_confirmed() {
    let world = world().await.flag("--warm-for=1s");
    let ada = world.gateway.person(ADA).replies_in_turn([Reply::Hidden], Reply::NotSet);
    let app = world.start().await;
    assert_says(&app.avatar(ADA).await.expect(500, "fwd=miss; stored"), HIDDEN);
    assert_says(&app.avatar(ADA).await.expect(500, "hit; ttl="), HIDDEN);
    world.clock.advance(60 * SECOND);
    ada.arrived(2).await;
    background_work(&app, &world.clock).await;
    assert_says(&app.avatar(ADA).await.expect(500, "hit; ttl="), NOT_SET);
    assert_eq!(ada.lookups(), 2);
    app.stop().await;
}

#[tokio::test]
async fn each_negative_answer_lives_as_long_as_it_is_told_to() {
    for (flag, reply, status) in [
        ("--not-set-ttl=40m", Reply::NotSet, 500),
        ("--hidden-ttl=40m", Reply::Hidden, 500),
        ("--unregistered-ttl=40m", Reply::Unregistered, 400),
    ] {
        let world = world().await.flag(flag).flag("--warm-for=1s").flag("--confirm-after=1h");
        let ada = world.gateway.person(ADA).replies(reply);
        let app = world.start().await;
        app.avatar(ADA).await.expect(status, "fwd=miss; stored; ttl=2");
        world.clock.advance(HOUR / 2);
        app.avatar(ADA).await.expect(status, "hit; ttl=");
        world.clock.advance(HOUR / 6);
        app.avatar(ADA).await.expect(status, "fwd=stale; stored; ttl=2");
        assert_eq!(ada.lookups(), 2);
        app.stop().await;
    }
}

#[tokio::test]
async fn a_believed_negative_answer_is_looked_at_in_the_background_only_at_the_longer_interval() {
    let world = world().await.flag("--not-set-ttl=10m").flag("--recheck-interval=2h");
    let ada = world.gateway.person(ADA).replies(Reply::NotSet);
    let app = world.start().await;
    app.avatar(ADA).await.expect(500, "fwd=miss; stored");
    world.clock.advance(60 * SECOND);
    ada.arrived(2).await;
    background_work(&app, &world.clock).await;
    // Two hours, then four: doubling, and no more than a tenth later.
    for (wait, lookups) in [(2, 2), (4, 3)] {
        world.clock.advance(HOUR * wait * 19 / 20);
        background_work(&app, &world.clock).await;
        assert_eq!(ada.lookups(), lookups);
        world.clock.advance(HOUR * wait / 5);
        ada.arrived(lookups + 1).await;
        background_work(&app, &world.clock).await;
    }
    app.stop().await;
}

#[tokio::test]
async fn a_picture_that_comes_back_is_shown_at_once() {
    let world = world().await;
    let ada = world.gateway.person(ADA).replies(Reply::NotSet);
    let app = world.start().await;
    app.avatar(ADA).await.expect(500, "fwd=miss; stored");
    world.clock.advance(60 * SECOND);
    ada.arrived(2).await;
    background_work(&app, &world.clock).await;
    ada.picture("18").replies(Reply::Present);
    assert_eq!(look(&app, &world, ADA).await.expect(200, "fwd=request; stored").picture_id(), "18");
    assert_eq!(app.get(&format!("/avatars/{ADA}")).await.json()["version"], 1);
    assert!(app.metric("avatar_proxy_changes_total{change=\"set\"}").await > 0.5);
    app.stop().await;
}

#[tokio::test]
async fn a_gateway_that_calls_everybody_unregistered_for_a_while_removes_nobody() {
    let world = world().await.flag("--recheck-interval=1h").flag("--warm-for=30d");
    let app = world.start().await;
    let everybody: Vec<String> = (0..12).map(|n| format!("99900{n:02}")).collect();
    for phone in &everybody {
        known(&app, &world.gateway, phone).await;
    }
    world.gateway.set_mode(Mode::Everybody(Reply::Unregistered));
    for hours in 1..=6 {
        world.clock.advance(HOUR);
        world.gateway.arrived(12 * (1 + hours)).await;
        background_work(&app, &world.clock).await;
        for phone in &everybody {
            assert_eq!(app.avatar(phone).await.expect(200, "hit; ttl=").picture_id(), "17");
        }
    }
    // A client that insists makes no difference.
    look(&app, &world, &everybody[1]).await.expect(200, "fwd=request; stored");
    world.gateway.set_mode(Mode::Normal);
    world.clock.advance(8 * HOUR);
    background_work(&app, &world.clock).await;
    for phone in &everybody {
        let avatar = app.get(&format!("/avatars/{phone}")).await.json();
        assert_eq!((&avatar["outcome"], &avatar["version"]), (&"present".into(), &0.into()));
    }
    app.stop().await;
}
