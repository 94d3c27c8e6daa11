//! The native API: one avatar, typed and honest.

use avatar_proxy::demo::{Address, Options, Reply};
use serde_json::{Value, json};

use crate::support::app::World;
use crate::support::hand::{self, NO_LONGER_RECENT, NOW, SECOND};

#[tokio::test]
async fn a_picture_is_told_with_all_that_is_known_of_it() {
    let world = hand::world(Options::default()).await;
    let until = NOW + 1000 * SECOND;
    let _ = world.gateway.person("999001").picture("17").address(Address::Until(until));
    let app = world.start().await;
    for how in ["fwd=miss; stored; ttl=", "hit; ttl="] {
        let answer = app.get_with("/avatars/+999001", &[("x-device-id", "sales")]).await.expect(200, how);
        assert_eq!(answer.header("content-type"), "application/json");
        let url = app.get_with("/user/avatar?phone=999001", &[("x-device-id", "sales")]).await.expect(200, "hit").url();
        let expected = json!({
            "jid": "999001@s.whatsapp.net", "device_id": "sales", "preview": false, "outcome": "present",
            "id": "17", "url": url, "type": "image", "expires_at": until.rfc3339(), "checked_at": NOW.rfc3339(),
            "changed_at": null, "version": 0, "image": null,
        });
        assert_eq!(answer.json(), expected);
    }
    app.stop().await;
}

#[tokio::test]
async fn every_outcome_is_200_and_says_which() {
    let world = World::new().await;
    let app = world.start().await;
    for (index, (reply, outcome)) in [
        (Reply::NotSet, "not_set"),
        (Reply::NoAvatarFound, "not_set"),
        (Reply::Hidden, "hidden"),
        (Reply::Unregistered, "unregistered"),
    ]
    .into_iter()
    .enumerate()
    {
        let _ = world.gateway.person(&format!("99900{index}")).replies(reply);
        let mut told = app.get(&format!("/avatars/99900{index}")).await.expect(200, "fwd=miss; stored; ttl=").json();
        assert!(told["checked_at"].take().is_string());
        let expected = json!({
            "jid": format!("99900{index}@s.whatsapp.net"), "device_id": "", "preview": false, "outcome": outcome,
            "id": null, "url": null, "type": null, "expires_at": null, "checked_at": null,
            "changed_at": null, "version": 0, "image": null,
        });
        assert_eq!(told, expected);
    }
    app.stop().await;
}

#[tokio::test]
async fn a_channel_without_an_address_is_present_without_one() {
    let world = World::new().await;
    let _ = world.gateway.person("120363144038483540@newsletter").picture("17").address(Address::Missing);
    let app = world.start().await;
    let told = app.get("/avatars/120363144038483540@newsletter").await.expect(200, "fwd=miss").json();
    assert_eq!((&told["outcome"], &told["id"], &told["url"]), (&json!("present"), &json!("17"), &Value::Null));
    app.stop().await;
}

#[tokio::test]
async fn it_is_the_same_knowledge_as_the_gateways_endpoint_has() {
    let world = World::new().await;
    let app = world.start().await;
    let group = "120363025246125486@g.us";
    app.get(&format!("/avatars/{group}?preview=true&community=1&device_id=sales")).await.expect(200, "fwd=miss");
    let last = world.gateway.log().pop().unwrap();
    assert_eq!((last.preview, last.community, last.device.as_str()), (true, true, "sales"));
    let told =
        app.get(&format!("/avatars/{}?preview=T&community=true&device_id=sales", group.replace('@', "%40"))).await;
    assert_eq!((&told.json()["preview"], &told.json()["type"]), (&json!(true), &json!("preview")));
    let target = format!("/user/avatar?phone={group}&is_preview=1&is_community=1&device_id=sales");
    assert_eq!(app.get(&target).await.expect(200, "hit").url(), told.json()["url"].as_str().unwrap());
    assert_eq!(world.gateway.lookups(), 1);
    app.stop().await;
}

#[tokio::test]
async fn a_change_counts_up_the_version_and_tells_when_it_was_noticed() {
    let world = hand::world(Options::default()).await;
    let ada = world.gateway.person("999001").picture("17");
    let app = world.start().await;
    let told = async |headers: &[(&str, &str)]| app.get_with("/avatars/999001", headers).await.json();
    let before = told(&[]).await;
    assert_eq!((&before["version"], &before["changed_at"]), (&json!(0), &Value::Null));

    world.clock.advance(NO_LONGER_RECENT);
    let again = told(&[("cache-control", "no-cache")]).await;
    assert_eq!((&again["version"], &again["changed_at"]), (&json!(0), &Value::Null), "signed again is not changed");
    assert_ne!((&again["url"], &again["checked_at"]), (&before["url"], &before["checked_at"]));

    ada.picture("18");
    world.clock.advance(NO_LONGER_RECENT);
    let after = told(&[("cache-control", "no-cache")]).await;
    assert_eq!((&after["version"], &after["id"]), (&json!(1), &json!("18")));
    assert_eq!(after["changed_at"], after["checked_at"]);
    assert_eq!(told(&[]).await, after);
    app.stop().await;

    let app = world.start().await;
    assert_eq!(app.get("/avatars/999001").await.expect(200, "hit").json(), after, "another process knows it too");
    app.stop().await;
}

#[tokio::test]
async fn failures_come_in_the_envelope() {
    let world = World::new().await;
    let app = world.start().await;
    for (index, (reply, status, code)) in [
        (Reply::LoggedOut, 401, "AUTHENTICATION_ERROR"),
        (Reply::RateLimited, 429, "RATE_LIMITED"),
        (Reply::ContextTimeout, 408, "CONTEXT_ERROR"),
        (Reply::Page(502), 502, "BAD_GATEWAY"),
        (Reply::Unauthorized, 502, "BAD_GATEWAY"),
    ]
    .into_iter()
    .enumerate()
    {
        let _ = world.gateway.person(&format!("99900{index}")).replies(reply);
        let device = format!("device-{index}");
        let answer = app.get_with(&format!("/avatars/99900{index}"), &[("x-device-id", &device)]).await;
        assert_eq!((answer.status.as_u16(), answer.code().as_str()), (status, code));
        assert!(answer.json()["results"].is_null() && answer.retry_after() > 0, "{answer:?}");
    }
    app.stop().await;
}

#[tokio::test]
async fn cache_directives_count_here_too() {
    let world = World::new().await;
    let app = world.start().await;
    let absent = app.get_with("/avatars/999001", &[("cache-control", "only-if-cached")]).await;
    absent.expect(504, "detail=only-if-cached");
    app.get("/avatars/999001").await.expect(200, "fwd=miss");
    let recent = app.get_with("/avatars/999001", &[("cache-control", "no-cache")]).await.expect(200, "hit");
    assert!(recent.how().ends_with("; detail=recent"), "{recent:?}");
    assert_eq!(world.gateway.lookups(), 1);
    app.stop().await;
}
