//! WhatsApp says: slow down. Nothing more is asked for that device, and what lives is served.

use avatar_proxy::demo::{Options, Reply};

use super::{ask, ask_anew};
use crate::support::hand::{self, NO_LONGER_RECENT, SECOND};

#[tokio::test]
async fn a_rate_limit_is_429_with_retry_after_and_never_tried_again() {
    for reply in [
        Reply::RateLimited,
        Reply::Page(429),
        Reply::Envelope { status: 500, code: "X".into(), message: "Returned status 429".into() },
    ] {
        let world = hand::world(Options::default()).await;
        let app = world.start().await;
        let ada = world.gateway.person("999001").replies(reply);
        let answer = app.avatar("999001").await.expect(429, "fwd=miss; detail=rate-limit");
        assert_eq!((answer.code().as_str(), answer.retry_after()), ("RATE_LIMITED", 60));
        assert!(answer.json()["results"].is_null());
        assert_eq!(answer.header("cache-control"), "no-store");
        assert_eq!(ada.lookups(), 1);
        app.stop().await;
    }
}

#[tokio::test]
async fn the_whole_device_cools_down_and_no_other_does() {
    let world = hand::world(Options::default()).await;
    let app = world.start().await;
    let known = ask(&app, "999001", "sales").await.expect(200, "fwd=miss");
    let _ = world.gateway.person("999002").replies_once(Reply::RateLimited);
    ask(&app, "999002", "sales").await.expect(429, "fwd=miss; detail=rate-limit");
    let lookups = world.gateway.lookups();

    for phone in ["999002", "999003"] {
        let answer = ask(&app, phone, "sales").await.expect(429, "detail=rate-limit");
        assert_eq!(answer.code(), "RATE_LIMITED");
        assert!((1..=60).contains(&answer.retry_after()), "{answer:?}");
    }
    world.clock.advance(NO_LONGER_RECENT);
    assert_eq!(ask(&app, "999001", "sales").await.expect(200, "hit; ttl=").body, known.body);
    let spared = ask_anew(&app, "999001", "sales").await.expect(200, "hit; ttl=");
    assert!(spared.how().ends_with("; detail=rate-limit") && spared.body == known.body, "{spared:?}");
    assert_eq!(world.gateway.lookups(), lookups);

    ask(&app, "999002", "support").await.expect(200, "fwd=miss");
    world.clock.advance(60 * SECOND);
    ask(&app, "999002", "sales").await.expect(200, "fwd=miss");
    app.stop().await;
}

#[tokio::test]
async fn a_cool_down_outlives_the_process() {
    let world = hand::world(Options::default()).await;
    let app = world.start().await;
    let _ = world.gateway.person("999001").replies_once(Reply::RateLimited);
    app.avatar("999001").await.expect(429, "fwd=miss");
    app.stop().await;
    let app = world.start().await;
    app.avatar("999001").await.expect(429, "detail=rate-limit");
    assert_eq!(world.gateway.lookups(), 1);
    app.stop().await;
}
