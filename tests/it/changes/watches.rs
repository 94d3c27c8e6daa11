//! Watches: people who are looked at though nobody asks.

use std::time::Duration;

use http::Method;

use super::{ADA, BOB, HOUR, listed, look, world};
use crate::support::app::TestApp;
use crate::support::background::background_work;
use crate::support::client::Answer;
use crate::support::eventually::eventually;

const JSON: (&str, &str) = ("content-type", "application/json");

async fn watch(app: &TestApp, who: &str, interval: &str) -> Answer {
    app.send_body(Method::PUT, &format!("/avatars/{who}/watch"), &[JSON], &format!("{{\"interval\":\"{interval}\"}}"))
        .await
}

async fn watches(app: &TestApp, query: &str) -> serde_json::Value {
    app.get(&format!("/watches{query}")).await.json()
}

fn watched(who: &str, device: &str, interval: &str) -> serde_json::Value {
    serde_json::json!({"jid": format!("{who}@s.whatsapp.net"), "device_id": device, "interval": interval})
}

#[tokio::test]
async fn who_is_watched_is_looked_at_though_nobody_asks() {
    let (world, ada) = world().await;
    let world = world.flag("--warm-for=5m").flag("--forget-after=10d");
    let app = world.start().await;
    let answer = watch(&app, ADA, "1h").await;
    assert_eq!((answer.status.as_u16(), answer.json()), (200, watched(ADA, "", "1h")));
    ada.arrived(1).await;
    background_work(&app, &world.clock).await;
    for hour in 1..=5 {
        ada.picture(&format!("{}", 17 + hour));
        world.clock.advance(HOUR + Duration::from_secs(1));
        ada.arrived(1 + hour).await;
        background_work(&app, &world.clock).await;
    }
    assert_eq!(listed(&app, "/changes").await.0, ["18", "19", "20", "21", "22"]);
    app.stop().await;

    // Over a restart, and longer than anything is kept that nobody asks for.
    let app = world.start().await;
    assert_eq!(watches(&app, "").await["watches"], serde_json::json!([watched(ADA, "", "1h")]));
    world.clock.advance(11 * 24 * HOUR);
    ada.arrived(7).await;
    background_work(&app, &world.clock).await;
    assert!(app.metric("avatar_proxy_watches").await < 1.5);
    assert_eq!(app.send(Method::DELETE, &format!("/avatars/{ADA}/watch"), &[]).await.unwrap().status, 204);
    assert_eq!(watches(&app, "").await, serde_json::json!({"watches": [], "next": null}));
    let looks = ada.lookups();
    world.clock.advance(3 * HOUR);
    background_work(&app, &world.clock).await;
    assert_eq!(ada.lookups(), looks, "nobody watches and nobody asks");
    app.stop().await;
}

#[tokio::test]
async fn a_shorter_interval_counts_at_once_and_whom_somebody_asks_for_is_looked_at_no_less() {
    let (world, ada) = world().await;
    let world = world.flag("--recheck-interval=6h");
    let app = world.start().await;
    look(&app, &world, ADA).await;
    watch(&app, ADA, "30d").await;
    world.clock.advance(6 * HOUR + Duration::from_secs(10));
    ada.arrived(2).await;
    background_work(&app, &world.clock).await;
    watch(&app, ADA, "10m").await;
    world.clock.advance(HOUR / 6 + Duration::from_secs(10));
    ada.arrived(3).await;
    app.stop().await;
}

#[tokio::test]
async fn watches_are_listed_by_device_in_pages() {
    let (world, _) = world().await;
    let app = world.start().await;
    for who in [ADA, BOB, "999003"] {
        watch(&app, who, "6h").await;
    }
    watch(&app, &format!("{BOB}@s.whatsapp.net"), "7d").await;
    let other = format!("/avatars/{ADA}/watch?device_id=other");
    app.send_body(Method::PUT, &other, &[JSON], "{\"interval\":\"90s\"}").await;
    let mut all = vec![];
    let mut after = String::new();
    loop {
        let page = watches(&app, &format!("?limit=1&after={after}")).await;
        all.extend(page["watches"].as_array().unwrap().clone());
        match page["next"].as_str() {
            Some(next) => next.clone_into(&mut after),
            None => break,
        }
    }
    let of_none = [watched(ADA, "", "6h"), watched(BOB, "", "7d"), watched("999003", "", "6h")];
    let of_other = watched(ADA, "other", "90s");
    assert_eq!(all, [&of_none[..], std::slice::from_ref(&of_other)].concat());
    assert_eq!(watches(&app, "?device_id=other").await["watches"], serde_json::json!([of_other]));
    assert_eq!(watches(&app, "?device_id=").await["watches"], serde_json::json!(of_none));
    // Without a device all are meant.
    app.send(Method::DELETE, &format!("/avatars/{ADA}/watch"), &[]).await.unwrap();
    assert_eq!(watches(&app, "").await["watches"], serde_json::json!(of_none[1..]));
    app.stop().await;
}

#[tokio::test]
async fn there_are_no_more_watches_than_allowed() {
    let (world, _) = world().await;
    let world = world.flag("--watch-limit=2");
    let app = world.start().await;
    for who in [ADA, BOB] {
        assert_eq!(watch(&app, who, "6h").await.status, 200);
    }
    let answer = watch(&app, "999003", "6h").await;
    assert_eq!((answer.status.as_u16(), answer.code().as_str()), (409, "TOO_MANY_WATCHES"));
    assert_eq!(watch(&app, BOB, "7h").await.status, 200, "another interval is not another watch");
    app.send(Method::DELETE, &format!("/avatars/{ADA}/watch"), &[]).await.unwrap();
    assert_eq!(watch(&app, "999003", "6h").await.status, 200);
    app.stop().await;
}

#[tokio::test]
async fn nonsense_changes_nothing() {
    let (world, ada) = world().await;
    let app = world.start().await;
    let put = async |headers: &[(&str, &str)], body: &str| {
        let answer = app.send_body(Method::PUT, &format!("/avatars/{ADA}/watch"), headers, body).await;
        (answer.status.as_u16(), answer.code())
    };
    let good = "{\"interval\":\"6h\"}";
    for body in [
        "",
        "x",
        "[]",
        "{}",
        "{\"interval\":6}",
        "{\"interval\":\"6\"}",
        "{\"interval\":\"0s\"}",
        "{\"interval\":\"-6h\"}",
        "{\"interval\":\"500ms\"}",
        "{\"interval\":\"366d\"}",
        "{\"interval\":\"6h\"} x",
    ] {
        assert_eq!(put(&[JSON], body).await, (400, "VALIDATION_ERROR".into()), "{body}");
    }
    assert_eq!(put(&[], good).await, (415, "UNSUPPORTED_MEDIA_TYPE".into()));
    assert_eq!(put(&[("content-type", "text/plain")], good).await, (415, "UNSUPPORTED_MEDIA_TYPE".into()));
    assert_eq!(put(&[JSON], &format!("{{\"interval\":\"{}\"}}", "6h".repeat(40_000))).await.0, 413);
    for foreign in [("origin", "https://evil.example"), ("sec-fetch-site", "cross-site")] {
        assert_eq!(put(&[JSON, foreign], good).await, (403, "FORBIDDEN".into()), "{foreign:?}");
        let answer = app.send(Method::DELETE, &format!("/avatars/{ADA}"), &[foreign]).await.unwrap();
        assert_eq!(answer.code(), "FORBIDDEN", "{foreign:?}");
    }
    let answer = app.send(Method::GET, &format!("/avatars/{ADA}/watch"), &[]).await.unwrap();
    assert_eq!((answer.status.as_u16(), answer.header("allow")), (405, "PUT, DELETE"));
    assert_eq!(watches(&app, "").await["watches"], serde_json::json!([]));
    background_work(&app, &world.clock).await;
    assert_eq!(ada.lookups(), 0);
    let own = format!("http://{}", app.app().address());
    assert_eq!(put(&[("content-type", "Application/JSON; charset=utf-8"), ("origin", &own)], good).await.0, 200);
    eventually("it is looked at", async || ada.lookups() == 1).await;
    app.stop().await;
}
