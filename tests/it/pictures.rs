//! A changed picture: noticed once, for the preview and the full picture alike.

use std::time::Duration;

use avatar_proxy::demo::{Options, PersonHandle, Reply};

use crate::support::app::{TestApp, World};
use crate::support::background::background_work;
use crate::support::client::Answer;
use crate::support::eventually::eventually;
use crate::support::hand::{self, NO_LONGER_RECENT};

const ADA: &str = "999001";
const FULL: bool = false;
const PREVIEW: bool = true;

async fn world() -> (World, PersonHandle) {
    let world = hand::world(Options::default()).await;
    let ada = world.gateway.person(ADA).picture("17");
    (world, ada)
}

async fn avatar(app: &TestApp, preview: bool) -> Answer {
    app.get(&format!("/user/avatar?phone={ADA}&is_preview={preview}")).await
}

/// A look made now, because a client wants it; the picture's id.
async fn look(app: &TestApp, world: &World, preview: bool) -> String {
    world.clock.advance(NO_LONGER_RECENT);
    let no_cache = [("cache-control", "no-cache")];
    let answer = app.get_with(&format!("/user/avatar?phone={ADA}&is_preview={preview}"), &no_cache).await;
    answer.expect(200, "fwd=request; stored").picture_id()
}

/// What `GET /avatars/{jid}` says: id, version, and whether there was ever a change.
async fn native(app: &TestApp, preview: bool) -> (String, u64, bool) {
    let avatar = app.get(&format!("/avatars/{ADA}?preview={preview}")).await.json();
    let id = avatar["id"].as_str().unwrap_or_default().to_owned();
    (id, avatar["version"].as_u64().expect("a number"), !avatar["changed_at"].is_null())
}

async fn changes(app: &TestApp) -> f64 {
    app.metric("avatar_proxy_changes_total{change=\"changed\"}").await
}

#[tokio::test]
async fn every_change_counts_the_version_up_by_one() {
    let (world, ada) = world().await;
    let app = world.start().await;
    avatar(&app, FULL).await.expect(200, "fwd=miss; stored");
    assert_eq!(native(&app, FULL).await, ("17".to_owned(), 0, false));
    for (id, version) in [("18", 1), ("19", 2), ("17", 3)] {
        ada.picture(id);
        assert_eq!(look(&app, &world, FULL).await, id);
        assert_eq!(native(&app, FULL).await, (id.to_owned(), version, true));
        look(&app, &world, FULL).await;
        assert_eq!(native(&app, FULL).await.1, version, "another signature is not another picture");
    }
    assert!((changes(&app).await - 3.0).abs() < 0.1);
    app.stop().await;
}

#[tokio::test]
async fn a_change_of_the_full_picture_has_the_preview_looked_at_too() {
    let (world, ada) = world().await;
    let app = world.start().await;
    for preview in [FULL, PREVIEW] {
        avatar(&app, preview).await.expect(200, "fwd=miss; stored");
    }
    ada.picture("18");
    assert_eq!(look(&app, &world, FULL).await, "18");
    eventually("the preview follows", async || avatar(&app, PREVIEW).await.picture_id() == "18").await;
    avatar(&app, PREVIEW).await.expect(200, "hit; ttl=");
    background_work(&app, &world.clock).await;
    assert_eq!(native(&app, PREVIEW).await, ("18".to_owned(), 1, true));
    assert_eq!(ada.lookups(), 4, "each was looked at twice");
    assert!((changes(&app).await - 1.0).abs() < 0.1);
    app.stop().await;
}

#[tokio::test]
async fn a_preview_that_nobody_asks_for_any_more_follows_all_the_same() {
    let (mut world, ada) = world().await;
    world = world.flag("--warm-for=5m");
    let app = world.start().await;
    avatar(&app, PREVIEW).await.expect(200, "fwd=miss; stored");
    world.clock.advance(Duration::from_secs(3600));
    avatar(&app, FULL).await.expect(200, "fwd=miss; stored");
    ada.picture("18");
    assert_eq!(look(&app, &world, FULL).await, "18");
    ada.arrived(4).await;
    background_work(&app, &world.clock).await;
    assert_eq!(avatar(&app, PREVIEW).await.expect(200, "hit; ttl=").picture_id(), "18");
    app.stop().await;
}

#[tokio::test]
async fn a_new_preview_alone_is_no_change_until_the_full_picture_has_been_looked_at() {
    for full_is_known in [true, false] {
        let (world, ada) = world().await;
        let app = world.start().await;
        avatar(&app, PREVIEW).await.expect(200, "fwd=miss; stored");
        if full_is_known {
            avatar(&app, FULL).await.expect(200, "fwd=miss; stored");
        }
        ada.picture("18");
        let held = ada.hold_next();
        let answer = tokio::spawn({
            let (clock, client) = (world.clock.clone(), crate::support::client::Client::clone(&app));
            clock.advance(NO_LONGER_RECENT);
            async move {
                let no_cache = [("cache-control", "no-cache")];
                client.get_with(&format!("/user/avatar?phone={ADA}&is_preview=true"), &no_cache).await
            }
        });
        ada.arrived(2 + u64::from(full_is_known)).await;
        let full = ada.hold();
        held.release();
        assert_eq!(answer.await.unwrap().expect(200, "fwd=request; stored").picture_id(), "18");
        assert_eq!(native(&app, PREVIEW).await, ("18".to_owned(), 0, false));
        ada.arrived(3 + u64::from(full_is_known)).await;
        full.release();
        eventually("the change is recorded", async || native(&app, PREVIEW).await.1 == 1).await;
        assert_eq!(avatar(&app, FULL).await.expect(200, "hit; ttl=").picture_id(), "18");
        app.stop().await;
    }
}

#[tokio::test]
async fn a_preview_under_an_id_of_its_own_is_the_full_pictures_twin() {
    let (world, ada) = world().await;
    let app = world.start().await;
    avatar(&app, FULL).await.expect(200, "fwd=miss; stored");
    ada.preview_picture(Some("p17"));
    assert_eq!(avatar(&app, PREVIEW).await.expect(200, "fwd=miss; stored").picture_id(), "p17");
    ada.arrived(3).await;
    background_work(&app, &world.clock).await;
    // The full picture was looked at and is the same: from now on the preview's id is known.
    assert_eq!(look(&app, &world, PREVIEW).await, "p17");
    background_work(&app, &world.clock).await;
    assert_eq!((ada.lookups(), native(&app, FULL).await), (4, ("17".to_owned(), 0, false)));

    ada.picture("18").preview_picture(Some("p18"));
    assert_eq!(look(&app, &world, FULL).await, "18");
    eventually("the preview follows", async || avatar(&app, PREVIEW).await.picture_id() == "p18").await;
    background_work(&app, &world.clock).await;
    assert_eq!(native(&app, PREVIEW).await, ("p18".to_owned(), 1, true));
    assert!((changes(&app).await - 1.0).abs() < 0.1);
    app.stop().await;
}

#[tokio::test]
async fn a_removal_and_a_return_are_changes_too() {
    let (world, ada) = world().await;
    let app = world.start().await;
    for preview in [FULL, PREVIEW] {
        avatar(&app, preview).await.expect(200, "fwd=miss; stored");
    }
    ada.replies(Reply::NotSet);
    assert_eq!(look(&app, &world, FULL).await, "17");
    world.clock.advance(Duration::from_secs(60));
    eventually("both are gone", async || {
        avatar(&app, FULL).await.status == 500 && avatar(&app, PREVIEW).await.status == 500
    })
    .await;
    background_work(&app, &world.clock).await;
    assert_eq!(native(&app, FULL).await, (String::new(), 1, true));
    ada.replies(Reply::Present);
    assert_eq!(look(&app, &world, FULL).await, "17");
    eventually("the preview returns", async || avatar(&app, PREVIEW).await.status == 200).await;
    assert_eq!(native(&app, PREVIEW).await, ("17".to_owned(), 2, true));
    app.stop().await;
}
