//! A live entry, where there is one, is served instead of any failure.

use avatar_proxy::demo::{Mode, Options, Reply};

use super::rows::rows;
use super::{ask, ask_anew, at_once};
use crate::support::hand::{self, NO_LONGER_RECENT};

#[tokio::test]
async fn whatever_goes_wrong_with_a_fresh_look_the_live_picture_is_served_and_says_why() {
    let world = hand::flowing(Options::default()).await;
    let app = world.start().await;
    let played: Vec<_> = rows("1").into_iter().enumerate().collect();
    let first = at_once(0..played.len(), |index| {
        let client = (*app).clone();
        async move { ask(&client, &format!("9990{index:03}"), &format!("device-{index}")).await }
    })
    .await;
    world.clock.advance(NO_LONGER_RECENT);
    at_once(played.into_iter().zip(first), |((index, row), first)| {
        let (phone, device, client) = (format!("9990{index:03}"), format!("device-{index}"), (*app).clone());
        let person = world.gateway.person(&phone).replies(row.said.clone());
        async move {
            assert_eq!(first.status, 200);
            for _ in 0..2 {
                let kept = ask_anew(&client, &phone, &device).await.expect(200, "fwd=stale; ttl=");
                assert!(kept.how().ends_with(&format!("; detail={}", row.class)), "{row:?}: {kept:?}");
                assert_eq!((&kept.body, kept.header("retry-after")), (&first.body, ""));
                assert_eq!(person.lookups(), 1 + row.lookups, "the second time it rests: {row:?}");
            }
            let plain = ask(&client, &phone, &device).await.expect(200, "hit; ttl=");
            assert_eq!(plain.body, first.body);
        }
    })
    .await;
    app.stop().await;
}

#[tokio::test]
async fn with_the_gateway_gone_a_new_process_serves_what_the_store_holds() {
    let world = hand::flowing(Options::default()).await;
    let app = world.start().await;
    let first = app.avatar("999001").await.expect(200, "fwd=miss");
    app.stop().await;
    world.gateway.set_mode(Mode::Unreachable);
    world.clock.advance(NO_LONGER_RECENT);
    let app = world.start().await;
    let kept = app.avatar_asking("999001", "no-cache").await.expect(200, "fwd=stale; ttl=");
    assert!(kept.how().ends_with("; detail=nonsense"), "{kept:?}");
    assert_eq!((kept.body, app.avatar("999001").await.expect(200, "hit; ttl=").body), (first.body.clone(), first.body));
    app.stop().await;
}

#[tokio::test]
async fn a_dead_link_is_not_served_whatever_goes_wrong() {
    let world = hand::flowing(Options::default()).await;
    let app = world.start().await;
    let ada = world.gateway.person("999001").picture("17");
    app.avatar("999001").await.expect(200, "fwd=miss");
    ada.replies(Reply::internal("database is locked"));
    world.clock.advance(hand::TEN_DAYS);
    app.avatar("999001").await.expect(500, "");
    app.stop().await;
}
