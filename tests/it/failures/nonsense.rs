//! Nothing comes back, it comes too late, or it is dead on arrival.

use std::time::Duration;

use avatar_proxy::demo::{Address, Mode, Options, Reply};

use super::{ask_anew, at_once};
use crate::support::app::World;
use crate::support::hand::{self, NO_LONGER_RECENT, NOW, SECOND};

#[tokio::test]
async fn a_url_that_is_dead_on_arrival_is_not_handed_out_and_not_asked_for_again() {
    let world = hand::world(Options::default()).await;
    let app = world.start().await;
    for (index, until) in [NOW - SECOND, NOW, NOW + SECOND].into_iter().enumerate() {
        let phone = format!("99900{index}");
        let person = world.gateway.person(&phone).picture("17").address(Address::Until(until));
        let answer = app.avatar(&phone).await.expect(502, "fwd=miss; detail=nonsense");
        assert_eq!(answer.message(), "the gateway handed out an expired URL");
        assert_eq!((answer.code().as_str(), answer.retry_after()), ("BAD_GATEWAY", 2));
        app.avatar(&phone).await.expect(502, "hit; ttl=2; detail=nonsense");
        assert_eq!(person.lookups(), 1);
    }
    app.stop().await;
}

#[tokio::test]
async fn a_gateway_that_cannot_be_reached_is_tried_twice_and_then_left_alone_for_a_moment() {
    let world = hand::flowing(Options::default()).await;
    let app = world.start().await;
    world.gateway.set_mode(Mode::Unreachable);
    app.avatar("999001").await.expect(502, "fwd=miss; detail=nonsense");
    app.avatar("999001").await.expect(502, "hit; ttl=2; detail=nonsense");
    assert_eq!((world.gateway.lookups(), world.gateway.connections()), (0, 2));
    assert_eq!(app.get("/ready").await.status, 200, "what is cached is served");
    world.gateway.set_mode(Mode::Normal);
    world.clock.advance(2 * SECOND);
    app.avatar("999001").await.expect(200, "fwd=miss; stored");

    world.gateway.stop().await;
    let answer = app.avatar("999002").await.expect(502, "fwd=miss; detail=nonsense");
    assert_eq!(answer.message(), "the gateway cannot be reached");
    app.stop().await;
}

#[tokio::test]
async fn an_answer_that_does_not_come_in_time_is_504_and_not_tried_again() {
    let world = hand::world(Options::default()).await.flag("--gateway-timeout=400ms");
    let app = world.start().await;
    let late = [Reply::Hang, Reply::Stalled, Reply::Drip(Duration::from_millis(50)), Reply::Present.after(30 * SECOND)];
    at_once(late.into_iter().enumerate(), |(index, reply)| {
        let (phone, client) = (format!("99900{index}"), (*app).clone());
        let person = world.gateway.person(&phone).replies(reply.clone());
        async move {
            let answer = client.avatar(&phone).await.expect(504, "fwd=miss; detail=late");
            assert_eq!(answer.message(), "the gateway did not answer in time");
            assert_eq!((answer.code().as_str(), answer.retry_after()), ("GATEWAY_TIMEOUT", 2));
            client.avatar(&phone).await.expect(504, "hit; ttl=");
            assert_eq!(person.lookups(), 1, "{reply:?}");
        }
    })
    .await;
    app.stop().await;
}

#[tokio::test]
async fn a_live_picture_is_served_instead_of_a_look_that_is_late() {
    let world = hand::world(Options::default()).await.flag("--gateway-timeout=2s");
    let app = world.start().await;
    let ada = world.gateway.person("999001").picture("17");
    app.avatar("999001").await.expect(200, "fwd=miss");
    ada.replies(Reply::Hang);
    world.clock.advance(NO_LONGER_RECENT);
    let kept = ask_anew(&app, "999001", "").await.expect(200, "fwd=stale; ttl=");
    assert!(kept.how().ends_with("; detail=late"), "{kept:?}");
    app.stop().await;
}

#[tokio::test]
async fn a_body_of_64_kib_is_read_and_no_more() {
    let world = World::new().await;
    let app = world.start().await;
    let ada = world.gateway.person("999001").picture("17").replies(Reply::Padded(64 << 10));
    let answer = app.avatar("999001").await.expect(200, "fwd=miss; stored");
    assert_eq!((answer.picture_id().as_str(), ada.lookups()), ("17", 1));
    app.stop().await;
}
