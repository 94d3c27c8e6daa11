//! The lasting answers that are no picture: stored, and replayed as the gateway said them.

use avatar_proxy::demo::{Options, Reply};

use crate::support::app::World;
use crate::support::client::Client;
use crate::support::hand::{self, SECOND};

const NOT_SET: &str = "that user or group does not have a profile picture";
const HIDDEN: &str = "the user has hidden their profile picture from you";

fn replies() -> [(Reply, u16, &'static str, &'static str); 4] {
    [
        (Reply::NotSet, 500, "INTERNAL_SERVER_ERROR", NOT_SET),
        (Reply::NoAvatarFound, 500, "INTERNAL_SERVER_ERROR", "no avatar found"),
        (Reply::Hidden, 500, "INTERNAL_SERVER_ERROR", HIDDEN),
        (Reply::Unregistered, 400, "INVALID_JID", "Phone 999001@s.whatsapp.net is not on whatsapp"),
    ]
}

#[tokio::test]
async fn are_asked_for_once_and_told_the_same_way_ever_after_even_by_another_process() {
    for (reply, status, code, message) in replies() {
        let world = World::new().await;
        let ada = world.gateway.person("999001").replies(reply);
        let app = world.start().await;
        let first = app.avatar("999001").await.expect(status, "fwd=miss; stored; ttl=");
        let second = app.avatar("999001").await.expect(status, "hit; ttl=");
        app.stop().await;
        let app = world.start().await;
        let third = app.avatar("999001").await.expect(status, "hit; ttl=");
        app.stop().await;
        assert_eq!((first.code().as_str(), first.message().as_str()), (code, message));
        assert_eq!((&second.body, &third.body), (&first.body, &first.body));
        assert!(first.header("retry-after").is_empty() && first.header("etag").is_empty(), "{first:?}");
        assert_eq!(ada.lookups(), 1);
    }
}

#[tokio::test]
async fn are_the_gateways_answers_byte_for_byte() {
    let world = hand::world(Options { null_results: true, ..Options::default() }).await;
    let app = world.start().await;
    let gateway = Client::new(world.gateway.address());
    for (index, (reply, ..)) in replies().into_iter().enumerate() {
        let phone = format!("99900{index}");
        let _ = world.gateway.person(&phone).replies(reply);
        let (real, ours) = (gateway.avatar(&phone).await, app.avatar(&phone).await);
        assert_eq!((ours.status, &ours.body), (real.status, &real.body));
        assert_eq!(ours.header("content-type"), real.header("content-type"));
    }
    app.stop().await;
}

#[tokio::test]
async fn last_for_as_long_as_their_flag_says() {
    let world = hand::world(Options::default()).await;
    let world = world.flag("--not-set-ttl=3h").flag("--hidden-ttl=2h").flag("--unregistered-ttl=1h");
    let app = world.start().await;
    for (index, (reply, hours)) in
        [(Reply::NotSet, 3), (Reply::Hidden, 2), (Reply::Unregistered, 1)].into_iter().enumerate()
    {
        let phone = format!("99900{index}");
        let _ = world.gateway.person(&phone).replies(reply);
        let answer = app.avatar(&phone).await;
        assert_eq!(answer.how(), format!("avatar-proxy; fwd=miss; stored; ttl={}", hours * 3600));
        assert_eq!(answer.header("cache-control"), "private, max-age=60");
    }
    app.stop().await;
}

#[tokio::test]
async fn one_odd_answer_does_not_replace_a_picture_that_lives() {
    let world = hand::world(Options::default()).await;
    let app = world.start().await;
    let ada = world.gateway.person("999001").picture("17");
    app.avatar("999001").await.expect(200, "fwd=miss");
    ada.replies_once(Reply::Hidden);
    world.clock.advance(11 * SECOND);
    let answer = app.avatar_asking("999001", "no-cache").await.expect(200, "fwd=request; stored");
    assert_eq!((answer.picture_id().as_str(), ada.lookups()), ("17", 2));
    app.stop().await;
}
