//! What one device may see is no answer for another.

use avatar_proxy::demo::Reply;

use crate::support::app::{TestApp, World};
use crate::support::client::Answer;

async fn seen_by(app: &TestApp, header: Option<&str>, query: &str) -> Answer {
    let headers: Vec<(&str, &str)> = header.map(|device| ("x-device-id", device)).into_iter().collect();
    app.get_with(&format!("/user/avatar?phone=999001{query}"), &headers).await
}

#[tokio::test]
async fn devices_never_share_an_answer() {
    let world = World::new().await;
    let ada = world.gateway.person("999001").picture("17");
    ada.seen_by("friend");
    ada.seen_by("stranger").replies(Reply::Hidden);
    let app = world.start().await;
    for _ in 0..2 {
        seen_by(&app, Some("friend"), "").await.expect(200, "");
        seen_by(&app, Some("stranger"), "").await.expect(500, "");
        seen_by(&app, None, "&device_id=other").await.expect(200, "");
        seen_by(&app, None, "").await.expect(200, "");
        seen_by(&app, Some("Friend"), "").await.expect(200, "");
    }
    for device in ["friend", "stranger", "other", "", "Friend"] {
        assert_eq!(ada.seen_by(device).lookups(), 1, "{device:?}");
    }
    app.stop().await;
}

#[tokio::test]
async fn the_header_goes_before_the_parameter_and_both_name_the_same_device() {
    let world = World::new().await;
    let ada = world.gateway.person("999001").picture("17");
    let app = world.start().await;
    seen_by(&app, Some("sales"), "&device_id=support").await.expect(200, "fwd=miss");
    seen_by(&app, None, "&device_id=sales").await.expect(200, "hit");
    seen_by(&app, Some(""), "&device_id=sales").await.expect(200, "hit");
    seen_by(&app, None, "&device_id=support").await.expect(200, "fwd=miss");
    assert_eq!((ada.seen_by("sales").lookups(), ada.seen_by("support").lookups()), (1, 1));
    app.stop().await;
}

#[tokio::test]
async fn a_name_is_decoded_once_and_reaches_the_gateway_as_it_is() {
    let world = World::new().await;
    let app = world.start().await;
    for (header, query, name) in [
        ("caf%C3%A9", "caf%C3%A9", "caf\u{e9}"),
        ("a b", "a+b", "a b"),
        ("a+b", "a%2Bb", "a+b"),
        ("50%25", "50%25", "50%"),
        ("628123:7@s.whatsapp.net", "628123:7%40s.whatsapp.net", "628123:7@s.whatsapp.net"),
    ] {
        seen_by(&app, Some(header), "").await.expect(200, "fwd=miss");
        seen_by(&app, None, &format!("&device_id={query}")).await.expect(200, "hit");
        assert_eq!(world.gateway.log().last().unwrap().device.as_str(), name);
    }
    assert_eq!(world.gateway.lookups(), 5);
    app.stop().await;
}

#[tokio::test]
async fn an_empty_name_means_the_default_device_by_whatever_way_it_is_empty() {
    let world = World::new().await.flag("--default-device=main");
    let app = world.start().await;
    seen_by(&app, None, "").await.expect(200, "fwd=miss");
    for (header, query) in [
        (Some(""), ""),
        (Some("%20"), ""),
        (None, "&device_id="),
        (None, "&device_id=+"),
        (Some("main"), ""),
        (None, "&device_id=main"),
    ] {
        seen_by(&app, header, query).await.expect(200, "hit");
    }
    let native = app.get("/avatars/999001").await.expect(200, "hit");
    assert_eq!(native.json()["device_id"], "main");
    let log = world.gateway.log();
    assert_eq!((log.len(), log[0].device.as_str()), (1, "main"));
    app.stop().await;
}

#[tokio::test]
async fn the_longest_name_is_256_bytes() {
    let world = World::new().await;
    let app = world.start().await;
    let longest = "d".repeat(256);
    seen_by(&app, Some(&longest), "").await.expect(200, "fwd=miss");
    assert_eq!(world.gateway.log()[0].device.as_str(), longest);
    app.stop().await;
}
