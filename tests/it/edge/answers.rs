//! The gateway's answers, byte for byte, and what the headers say about them.

use avatar_proxy::demo::{Address, Options};
use http::Method;

use crate::support::client::{Answer, Client};
use crate::support::hand::{self, NOW, SECOND};

const TARGETS: [&str; 3] = [
    "/user/avatar?phone=999001",
    "/user/avatar?phone=999001&is_preview=true",
    "/user/avatar?phone=120363025246125486%40g.us&is_community=true",
];

/// The lifetime in `Cache-Control: private, max-age=<seconds>`.
fn max_age(answer: &Answer) -> u64 {
    let seconds = answer.header("cache-control").strip_prefix("private, max-age=");
    seconds.and_then(|seconds| seconds.parse().ok()).unwrap_or_else(|| panic!("{answer:?}"))
}

#[tokio::test]
async fn are_the_gateways_byte_for_byte() {
    let world = hand::world(Options::default()).await;
    for phone in ["999001", "120363025246125486@g.us"] {
        let _ = world.gateway.person(phone).address(Address::Until(NOW + hand::TEN_DAYS));
    }
    let (app, gateway) = (world.start().await, Client::new(world.gateway.address()));
    for target in TARGETS {
        let real = gateway.get(target).await;
        for how in ["fwd=miss; stored; ttl=", "hit; ttl="] {
            let ours = app.get(target).await.expect(200, how);
            assert_eq!((ours.text(), ours.header("content-type")), (real.text(), real.header("content-type")));
        }
        assert!(real.text().contains("\\u0026oe="), "escaped as Go does: {}", real.text());
    }
    app.stop().await;
}

#[tokio::test]
async fn to_head_are_the_same_without_a_body() {
    let world = hand::world(Options::default()).await;
    let _ = world.gateway.person("999002").replies(avatar_proxy::demo::Reply::NotSet);
    let app = world.start().await;
    let others = ["/user/avatar?phone=999002", "/user/avatar", "/avatars/999001", "/nowhere", "/health"];
    for target in TARGETS.into_iter().chain(others) {
        app.get(target).await;
        let whole = app.get(target).await;
        let head = app.send(Method::HEAD, target, &[]).await.unwrap();
        assert_eq!((head.status, head.body.len()), (whole.status, 0), "{target}");
        let compared = ["content-length", "content-type", "etag", "vary", "cache-control", "allow"];
        for name in compared {
            assert_eq!(head.header(name), whole.header(name), "{target}: {name}");
        }
        assert_eq!(head.header("content-length"), whole.body.len().to_string(), "{target}");
    }
    app.stop().await;
}

#[tokio::test]
async fn head_of_somebody_new_is_a_lookup_like_any_other() {
    let world = hand::world(Options::default()).await;
    let app = world.start().await;
    let head = app.send(Method::HEAD, TARGETS[0], &[]).await.unwrap().expect(200, "fwd=miss; stored");
    let whole = app.get(TARGETS[0]).await.expect(200, "hit");
    assert_eq!(head.header("content-length"), whole.body.len().to_string());
    assert_eq!(world.gateway.lookups(), 1);
    app.stop().await;
}

#[tokio::test]
async fn tell_their_age_and_never_promise_more_than_the_url_has_left() {
    let world = hand::world(Options::default()).await;
    let _ = world.gateway.person("999001").address(Address::Until(NOW + 100 * SECOND));
    let app = world.start().await;
    let first = app.avatar("999001").await.expect(200, "fwd=miss; stored; ttl=98");
    assert_eq!((first.header("age"), max_age(&first), first.header("vary")), ("0", 60, "X-Device-Id"));
    world.clock.advance(50 * SECOND);
    let later = app.avatar("999001").await.expect(200, "hit; ttl=48");
    assert_eq!((later.header("age"), max_age(&later), later.header("vary")), ("50", 48, "X-Device-Id"));
    app.stop().await;
}

#[tokio::test]
async fn without_an_expiry_last_for_the_fallback() {
    // Nothing is warm, so that no look in the background comes before the one that is asked for here.
    let world = hand::world(Options::default()).await.flag("--fallback-ttl=30s").flag("--warm-for=0s");
    for (index, address) in
        [Address::WithoutExpiry, Address::UnreadableExpiry, Address::Missing].into_iter().enumerate()
    {
        let _ = world.gateway.person(&format!("99900{index}")).address(address);
    }
    let app = world.start().await;
    for index in 0..3 {
        let answer = app.avatar(&format!("99900{index}")).await.expect(200, "fwd=miss; stored; ttl=30");
        assert_eq!(max_age(&answer), 30);
    }
    world.clock.advance(30 * SECOND);
    for index in 0..3 {
        app.avatar(&format!("99900{index}")).await.expect(200, "fwd=stale; stored; ttl=30");
    }
    app.stop().await;
}
