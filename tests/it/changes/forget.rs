//! `DELETE /avatars/{jid}`: everything about a person goes, and nothing comes back.

use http::Method;

use super::{ADA, BOB, change, listed, look, world};
use crate::support::app::TestApp;
use crate::support::background::background_work;
use crate::support::client::Client;
use crate::support::eventually::eventually;
use crate::support::subscriber::Subscriber;

async fn forget(app: &TestApp, target: &str) {
    let answer = app.send(Method::DELETE, target, &[]).await.unwrap();
    assert_eq!((answer.status.as_u16(), answer.body.len()), (204, 0), "{answer:?}");
}

#[tokio::test]
async fn nothing_is_left_of_who_is_forgotten_and_cursors_stay_valid() {
    let (world, ada) = world().await;
    let app = world.start().await;
    for who in [ADA, BOB] {
        world.gateway.person(who).picture("1");
        look(&app, &world, who).await;
        change(&app, &world, who, "2").await;
    }
    let (_, cursor) = listed(&app, "/changes?limit=1").await;
    let mut subscriber = Subscriber::new(app.app().address(), "/events", &[]).await;
    let json = ("content-type", "application/json");
    app.send_body(Method::PUT, &format!("/avatars/{ADA}/watch"), &[json], "{\"interval\":\"1h\"}").await;

    forget(&app, &format!("/avatars/{ADA}")).await;
    forget(&app, &format!("/avatars/{ADA}")).await;
    app.avatar_asking(ADA, "only-if-cached").await.expect(504, "detail=only-if-cached");
    assert_eq!(listed(&app, "/changes").await.0, ["2"], "the other one's");
    assert_eq!(listed(&app, &format!("/avatars/{ADA}/changes")).await.0, [""; 0]);
    assert_eq!(listed(&app, &format!("/changes?after={cursor}")).await.0, ["2"], "no gap");
    assert_eq!(app.get("/watches").await.json()["watches"], serde_json::json!([]));
    let late = Subscriber::new(app.app().address(), "/events?last_event_id=earliest", &[]).await;
    assert_eq!({ late }.next().await.unwrap().json()["payload"]["jid"], format!("{BOB}@s.whatsapp.net"));
    app.avatar(BOB).await.expect(200, "hit; ttl=");

    // Another beginning: a baseline, and another history.
    ada.picture("3");
    app.avatar(ADA).await.expect(200, "fwd=miss; stored");
    change(&app, &world, ADA, "4").await;
    let event = subscriber.next().await.unwrap().json();
    assert_eq!((&event["payload"]["old_id"], &event["payload"]["version"]), (&"3".into(), &1.into()));
    forget(&app, &format!("/avatars/{BOB}")).await;
    app.stop().await;

    let file = std::fs::read(world.store_path()).unwrap();
    let held = |who: &str| file.windows(who.len()).any(|part| part == who.as_bytes());
    assert!(held(ADA) && !held(BOB), "what is deleted is overwritten");
}

#[tokio::test]
async fn a_look_that_was_under_way_brings_nothing_back() {
    let (world, ada) = world().await;
    let app = world.start().await;
    look(&app, &world, ADA).await;
    let held = ada.hold();
    let asking = tokio::spawn({
        world.clock.advance(crate::support::hand::NO_LONGER_RECENT);
        let client = Client::clone(&app);
        async move { client.avatar_asking(ADA, "no-cache").await }
    });
    ada.arrived(2).await;
    forget(&app, &format!("/avatars/{ADA}")).await;
    ada.picture("18");
    held.release();
    assert_eq!(asking.await.unwrap().status, 200, "whoever waited is answered");
    app.avatar_asking(ADA, "only-if-cached").await.expect(504, "detail=only-if-cached");
    background_work(&app, &world.clock).await;
    eventually("nothing is stored", async || app.metric("avatar_proxy_flights").await < 0.5).await;
    assert_eq!(listed(&app, "/changes").await.0, [""; 0]);
    app.avatar(ADA).await.expect(200, "fwd=miss; stored");
    app.stop().await;
}

#[tokio::test]
async fn one_device_forgets_and_another_remembers() {
    let (world, _) = world().await;
    let app = world.start().await;
    for device in ["one", "two"] {
        app.get(&format!("/user/avatar?phone={ADA}&device_id={device}")).await.expect(200, "fwd=miss; stored");
    }
    forget(&app, &format!("/avatars/{ADA}?device_id=one")).await;
    let cached = async |device: &str| {
        let only = [("cache-control", "only-if-cached"), ("x-device-id", device)];
        app.get_with(&format!("/user/avatar?phone={ADA}"), &only).await.status.as_u16()
    };
    assert_eq!((cached("one").await, cached("two").await), (504, 200));
    forget(&app, &format!("/avatars/{ADA}")).await;
    assert_eq!((cached("one").await, cached("two").await), (504, 504));
    app.stop().await;
}

#[tokio::test]
async fn nonsense_forgets_nobody() {
    let (world, _) = world().await;
    let app = world.start().await;
    for target in ["/avatars/x@y", "/avatars/%zz", "/avatars/1?device_id=a&device_id=b"] {
        let answer = app.send(Method::DELETE, target, &[]).await.unwrap();
        assert_eq!((answer.status.as_u16(), answer.code().as_str()), (400, "VALIDATION_ERROR"), "{target}");
    }
    app.stop().await;
}
