//! What a client may ask of the cache: `no-cache` for a fresh look, `only-if-cached` for none.

use avatar_proxy::demo::Options;

use crate::support::hand::{self, NO_LONGER_RECENT, SECOND};

#[tokio::test]
async fn no_cache_is_a_fresh_look_unless_the_last_one_is_recent() {
    let world = hand::world(Options::default()).await;
    let ada = world.gateway.person("999001").picture("17");
    let app = world.start().await;
    app.avatar_asking("999001", "no-cache").await.expect(200, "fwd=request; stored; ttl=");
    ada.picture("18");
    let recent = app.avatar_asking("999001", "no-cache").await.expect(200, "hit; ttl=");
    assert!(recent.how().ends_with("; detail=recent"), "{recent:?}");
    assert_eq!((recent.picture_id().as_str(), ada.lookups()), ("17", 1));

    world.clock.advance(NO_LONGER_RECENT);
    assert_eq!(app.avatar("999001").await.expect(200, "hit; ttl=").picture_id(), "17");
    let fresh = app.avatar_asking("999001", "max-age=0, No-Cache").await.expect(200, "fwd=request; stored; ttl=");
    assert_eq!((fresh.picture_id().as_str(), fresh.header("age"), ada.lookups()), ("18", "0", 2));
    assert_eq!(app.avatar("999001").await.expect(200, "hit; ttl=").picture_id(), "18");
    app.stop().await;
}

#[tokio::test]
async fn no_cache_after_a_restart_is_content_with_a_recent_look_of_the_store() {
    let world = hand::world(Options::default()).await;
    let app = world.start().await;
    app.avatar("999001").await.expect(200, "fwd=miss");
    app.stop().await;
    let app = world.start().await;
    let recent = app.avatar_asking("999001", "no-cache").await.expect(200, "hit; ttl=");
    assert!(recent.how().ends_with("; detail=recent"), "{recent:?}");
    assert_eq!(world.gateway.lookups(), 1);
    app.stop().await;
}

#[tokio::test]
async fn clients_that_want_a_fresh_look_at_the_same_time_share_one() {
    let world = hand::world(Options::default()).await;
    let ada = world.gateway.person("999001").picture("17");
    let app = world.start().await;
    app.avatar("999001").await.expect(200, "fwd=miss");
    world.clock.advance(NO_LONGER_RECENT);
    let hold = ada.hold();
    let asking: Vec<_> = (0..5)
        .map(|_| {
            let client = (*app).clone();
            tokio::spawn(async move { client.avatar_asking("999001", "no-cache").await })
        })
        .collect();
    ada.arrived(2).await;
    drop(hold);
    for answer in asking {
        answer.await.unwrap().expect(200, "");
    }
    assert_eq!(ada.lookups(), 2);
    app.stop().await;
}

#[tokio::test]
async fn with_the_budget_spent_a_fresh_look_is_refused_and_the_live_answer_served_instead() {
    let world = hand::world(Options::default()).await;
    let world = world.flag("--gateway-rate=1/h").flag("--gateway-burst=1");
    let app = world.start().await;
    let refused = app.avatar("999001").await.expect(429, "detail=budget");
    assert_eq!(refused.code(), "RATE_LIMITED");
    assert!((3500..=3600).contains(&refused.retry_after()), "{refused:?}");

    world.clock.advance(3600 * SECOND);
    let first = app.avatar("999001").await.expect(200, "fwd=miss; stored");
    world.clock.advance(NO_LONGER_RECENT);
    let spared = app.avatar_asking("999001", "no-cache").await.expect(200, "hit; ttl=");
    assert!(spared.how().ends_with("; detail=budget"), "{spared:?}");
    assert_eq!((spared.body, world.gateway.lookups()), (first.body, 1));
    app.avatar("999002").await.expect(429, "detail=budget");
    app.stop().await;
}

#[tokio::test]
async fn only_if_cached_never_asks_the_gateway() {
    let world = hand::world(Options::default()).await;
    let app = world.start().await;
    for directives in ["only-if-cached", "no-cache, only-if-cached", "Only-If-Cached, max-stale"] {
        let absent = app.avatar_asking("999001", directives).await.expect(504, "detail=only-if-cached");
        assert_eq!((absent.code().as_str(), absent.header("retry-after")), ("GATEWAY_TIMEOUT", ""));
    }
    assert_eq!(world.gateway.lookups(), 0);

    let first = app.avatar("999001").await.expect(200, "fwd=miss");
    world.clock.advance(NO_LONGER_RECENT);
    for directives in ["only-if-cached", "no-cache, only-if-cached"] {
        let held = app.avatar_asking("999001", directives).await.expect(200, "hit; ttl=");
        assert_eq!(held.body, first.body);
    }
    app.stop().await;

    let app = world.start().await;
    for directives in ["no-cache, only-if-cached", "only-if-cached"] {
        let stored = app.avatar_asking("999001", directives).await.expect(200, "hit; ttl=");
        assert_eq!(stored.body, first.body, "a new process has it from the store");
    }
    world.clock.advance(hand::TEN_DAYS);
    app.avatar_asking("999001", "only-if-cached").await.expect(504, "detail=only-if-cached");
    app.stop().await;
}
