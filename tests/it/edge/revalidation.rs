//! A client that holds an answer asks whether it is still the one: 304 if so, and never for a link that died.

use avatar_proxy::demo::{Address, Options, Reply};

use crate::support::app::TestApp;
use crate::support::client::Answer;
use crate::support::hand::{self, NO_LONGER_RECENT, NOW, SECOND};

async fn if_none_match(app: &TestApp, target: &str, tags: &str) -> Answer {
    app.get_with(target, &[("if-none-match", tags)]).await
}

const ADA: &str = "/user/avatar?phone=999001";

#[tokio::test]
async fn what_the_client_holds_is_not_sent_again() {
    let world = hand::world(Options::default()).await;
    let app = world.start().await;
    for target in [ADA, "/avatars/999001"] {
        let whole = app.get(target).await;
        let tag = whole.header("etag").to_owned();
        assert!(tag.len() > 2 && tag.starts_with('"') && tag.ends_with('"'), "a strong tag: {tag}");
        for tags in [tag.clone(), format!("W/{tag}"), format!("\"x\", W/{tag} ,\"y\""), "*".to_owned()] {
            let answer = if_none_match(&app, target, &tags).await.expect(304, "hit; ttl=");
            assert_eq!((answer.body.len(), answer.header("etag")), (0, &*tag), "{tags}");
            assert!(matches!(answer.header("content-length"), "" | "0"), "{answer:?}");
            for name in ["cache-control", "vary", "age"] {
                assert_eq!(answer.header(name), whole.header(name), "{name}");
            }
        }
        for tags in ["\"x\"", "W/\"x\"", &tag.replace('"', ""), ""] {
            let answer = if_none_match(&app, target, tags).await.expect(200, "hit; ttl=");
            assert_eq!(answer.body, whole.body, "{tags}");
        }
    }
    app.stop().await;
}

#[tokio::test]
async fn the_same_answer_has_the_same_tag_in_another_process() {
    let world = hand::world(Options::default()).await;
    let app = world.start().await;
    let tag = app.get(ADA).await.header("etag").to_owned();
    app.stop().await;
    let app = world.start().await;
    if_none_match(&app, ADA, &tag).await.expect(304, "hit; ttl=");
    app.stop().await;
}

#[tokio::test]
async fn a_url_that_was_signed_again_is_sent_although_the_picture_is_the_same() {
    let world = hand::world(Options::default()).await;
    let ada = world.gateway.person("999001").picture("17").address(Address::Until(NOW + 100 * SECOND));
    let app = world.start().await;
    let first = app.get(ADA).await.expect(200, "fwd=miss");
    ada.address(Address::Until(NOW + 1000 * SECOND));
    world.clock.advance(NO_LONGER_RECENT);
    let held = first.header("etag");
    let headers = [("if-none-match", held), ("cache-control", "no-cache")];
    let second = app.get_with(ADA, &headers).await.expect(200, "fwd=request; stored");
    assert_ne!(second.header("etag"), held);
    assert_eq!((second.picture_id(), second.url() == first.url()), (first.picture_id(), false));
    app.stop().await;
}

#[tokio::test]
async fn a_dead_link_is_never_confirmed() {
    let world = hand::world(Options::default()).await;
    let ada = world.gateway.person("999001").picture("17").address(Address::Until(NOW + 100 * SECOND));
    let app = world.start().await;
    let first = app.get(ADA).await.expect(200, "fwd=miss");
    ada.replies(Reply::ContextTimeout);
    world.clock.advance(99 * SECOND);
    if_none_match(&app, ADA, first.header("etag")).await.expect(408, "fwd=stale; detail=passing");
    ada.replies(Reply::Present).address(Address::Until(NOW + 1000 * SECOND));
    world.clock.advance(4 * SECOND);
    let answer = if_none_match(&app, ADA, first.header("etag")).await.expect(200, "fwd=stale; stored");
    assert_ne!(answer.url(), first.url());
    app.stop().await;
}

#[tokio::test]
async fn preview_and_full_picture_and_other_people_have_other_tags() {
    let world = hand::world(Options::default()).await;
    let app = world.start().await;
    let mut tags = vec![];
    for target in [ADA, "/user/avatar?phone=999001&is_preview=1", "/user/avatar?phone=999002", "/avatars/999001"] {
        tags.push(app.get(target).await.header("etag").to_owned());
    }
    tags.sort();
    tags.dedup();
    assert_eq!(tags.len(), 4);
    app.stop().await;
}
