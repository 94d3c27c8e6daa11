//! The gateway's own webhooks: who writes is looked at sooner.

use std::time::Duration;

use avatar_proxy::demo::{Options, PersonHandle};
use hmac::{Hmac, KeyInit as _, Mac as _};
use http::Method;
use sha2::Sha256;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

use crate::support::app::{TestApp, World};
use crate::support::background::background_work;
use crate::support::client::Answer;
use crate::support::eventually::eventually;
use crate::support::hand;

const ADA: &str = "999001";
const SECRET: &str = "a made-up secret";
const HOUR: Duration = Duration::from_secs(3600);

/// A world whose clock the test moves, with one person, and a proxy that takes webhooks.
async fn world() -> (World, PersonHandle) {
    let world = hand::world(Options::default()).await;
    let ada = world.gateway.person(ADA).picture("17");
    (world.flag(&format!("--gateway-webhook-secret={SECRET}")).flag("--recheck-interval=6h"), ada)
}

fn signature(body: &str) -> String {
    let mut mac = Hmac::<Sha256>::new_from_slice(SECRET.as_bytes()).unwrap();
    mac.update(body.as_bytes());
    format!("sha256={}", hex::encode(mac.finalize().into_bytes()))
}

async fn post(app: &TestApp, signature: &str, body: &str) -> Answer {
    app.send_body(Method::POST, "/hooks/gateway", &[("x-hub-signature-256", signature)], body).await
}

/// Has the gateway tell something, rightly signed.
async fn tell(app: &TestApp, body: &str) {
    let answer = post(app, &signature(body), body).await;
    assert_eq!((answer.status.as_u16(), answer.text()), (200, "OK"));
}

fn wrote(device: &str, who: &str) -> String {
    format!(r#"{{"event":"message","device_id":"{device}","payload":{{"from":"{who}@s.whatsapp.net","body":"x"}}}}"#)
}

async fn told(app: &TestApp, result: &str) -> f64 {
    app.metric(&format!("avatar_proxy_gateway_hooks_total{{result=\"{result}\"}}")).await
}

fn is(figure: f64, count: f64) -> bool {
    (figure - count).abs() < 0.5
}

/// Watches Ada once in thirty days, and has her looked at.
async fn watched(app: &TestApp, world: &World, ada: &PersonHandle) {
    let (target, headers) = (format!("/avatars/{ADA}/watch"), [("content-type", "application/json")]);
    let answer = app.send_body(Method::PUT, &target, &headers, r#"{"interval":"30d"}"#).await;
    assert_eq!(answer.status, 200);
    ada.arrived(1).await;
    background_work(app, &world.clock).await;
}

#[tokio::test]
async fn who_writes_is_looked_at_sooner_once_per_interval() {
    let (world, ada) = world().await;
    let app = world.start().await;
    watched(&app, &world, &ada).await;
    world.clock.advance(HOUR);
    background_work(&app, &world.clock).await;
    assert_eq!(ada.lookups(), 1, "nobody is in a hurry");
    // The gateway knows its devices by names that no client uses, and says other ones.
    tell(&app, &wrote("999900@s.whatsapp.net", ADA)).await;
    ada.arrived(2).await;
    background_work(&app, &world.clock).await;
    for _ in 0..20 {
        tell(&app, &wrote("", ADA)).await;
    }
    world.clock.advance(HOUR);
    background_work(&app, &world.clock).await;
    assert_eq!(ada.lookups(), 2);
    assert!(is(told(&app, "sooner").await, 1.0) && is(told(&app, "recent").await, 20.0));
    world.clock.advance(5 * HOUR);
    tell(&app, &wrote("", ADA)).await;
    ada.arrived(3).await;
    app.stop().await;
}

#[tokio::test]
async fn a_change_is_noticed_when_its_person_writes() {
    let (world, ada) = world().await;
    let app = world.start().await;
    watched(&app, &world, &ada).await;
    world.clock.advance(7 * HOUR);
    ada.picture("18");
    tell(&app, &wrote("", ADA)).await;
    ada.arrived(2).await;
    background_work(&app, &world.clock).await;
    let changes = app.get("/changes").await.json();
    assert_eq!(changes["changes"][0]["payload"]["new_id"], "18");
    app.stop().await;
}

#[tokio::test]
async fn who_appears_is_watched_if_that_is_wished_and_only_then() {
    let (world, ada) = world().await;
    let app = world.start().await;
    tell(&app, &wrote("", ADA)).await;
    assert!(is(told(&app, "unknown").await, 1.0));
    background_work(&app, &world.clock).await;
    assert_eq!(ada.lookups(), 0);
    app.stop().await;

    let world = world.flag("--discover").flag("--watch-limit=1");
    let app = world.start().await;
    tell(&app, &format!(r#"{{"event":"message","session_id":"sales","payload":{{"from":"{ADA}@s.whatsapp.net"}}}}"#))
        .await;
    ada.arrived(1).await;
    background_work(&app, &world.clock).await;
    let watches = app.get("/watches").await.json();
    assert_eq!(
        watches["watches"],
        serde_json::json!([{"jid": format!("{ADA}@s.whatsapp.net"), "device_id": "sales", "interval": "6h"}])
    );
    tell(&app, &wrote("", "999002")).await;
    assert!(is(told(&app, "too-many").await, 1.0));
    app.stop().await;
}

#[tokio::test]
async fn what_is_not_the_gateways_harms_nothing() {
    let (world, ada) = world().await;
    let world = world.flag("--discover");
    let app = world.start().await;
    let body = wrote("", ADA);
    let right = signature(&body);
    let wrong = [
        String::new(),
        "sha256=".to_owned(),
        right.replace("sha256=", ""),
        right.replace("sha256=", "sha1="),
        right[..right.len() - 2].to_owned(),
        format!("{right}00"),
        signature("another"),
        "sha256=\u{e9}".to_owned(),
    ];
    for wrong in &wrong {
        assert_eq!(post(&app, wrong, &body).await.code(), "UNAUTHORIZED", "{wrong}");
    }
    assert_eq!(app.send_body(Method::POST, "/hooks/gateway", &[], &body).await.status, 401);
    assert_eq!(app.get("/hooks/gateway").await.status, 405);
    for nonsense in ["", "{", "no JSON"] {
        assert_eq!(post(&app, &signature(nonsense), nonsense).await.code(), "VALIDATION_ERROR", "{nonsense}");
    }
    let deep = "[".repeat(100_000);
    tell(&app, &deep).await;
    for other in ["{}", "[]", r#"{"event":"message","payload":{"from":7}}"#, r#"{"event":"message.ack"}"#] {
        tell(&app, other).await;
    }
    let mebibyte = format!("{{\"x\":\"{}\"}}", "x".repeat((1 << 20) - 8));
    tell(&app, &mebibyte).await;
    let more = format!("{mebibyte} ");
    assert_eq!(post(&app, &signature(&more), &more).await.code(), "PAYLOAD_TOO_LARGE");
    background_work(&app, &world.clock).await;
    assert_eq!(ada.lookups(), 0);
    tell(&app, &body).await;
    ada.arrived(1).await;
    app.stop().await;
}

#[tokio::test]
async fn the_gateway_needs_no_credentials_but_its_signature() {
    let (world, ada) = world().await;
    let world = world.flag("--auth=ada:s3cret").flag("--discover");
    let app = world.start().await;
    assert_eq!(post(&app, &signature("another"), &wrote("", ADA)).await.status, 401);
    assert_eq!(app.get("/watches").await.status, 401);
    tell(&app, &wrote("", ADA)).await;
    ada.arrived(1).await;
    app.stop().await;
}

#[tokio::test]
async fn without_a_secret_there_is_no_such_address() {
    let world = hand::world(Options::default()).await;
    let app = world.start().await;
    assert_eq!(post(&app, &signature("{}"), "{}").await.code(), "NOT_FOUND");
    app.stop().await;
}

#[tokio::test]
async fn bodies_that_never_come_hold_a_bounded_room_and_give_it_back() {
    let (world, _) = world().await;
    let app = world.start().await;
    let large = "x".repeat(1 << 20);
    let head = format!(
        "POST /hooks/gateway HTTP/1.1\r\nhost: localhost\r\nx-hub-signature-256: {}\r\ncontent-length: 1048576\r\n\r\n",
        signature("")
    );
    let mut idle = JoinSet::new();
    for _ in 0..40 {
        let mut stream = TcpStream::connect(app.app().address()).await.unwrap();
        stream.write_all(head.as_bytes()).await.unwrap();
        idle.spawn(async move {
            let mut answer = [0; 12];
            stream.read_exact(&mut answer).await.map(|_| answer)
        });
    }
    // Those for whom there is no room are told so at once, the others after fifteen seconds.
    let first = idle.join_next().await.unwrap().unwrap().unwrap();
    assert_eq!(&first, b"HTTP/1.1 503");
    idle.shutdown().await;
    eventually("the room is given back", async || post(&app, &signature("{}"), &large).await.status == 401).await;
    app.stop().await;
}
