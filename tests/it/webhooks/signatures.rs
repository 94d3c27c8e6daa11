//! Signatures of what really arrives, checked as receivers check them.

use avatar_proxy::demo::Options;
use hmac::{Hmac, KeyInit as _, Mac as _};
use serde_json::json;
use sha2::Sha256;
use standardwebhooks::Webhook;

use super::{ADA, HOUR, all_have, at_home, gets, made, world};
use crate::support::app::World;
use crate::support::hand::{self, change};
use crate::support::receiver::{Receiver, Request};

/// A receiver's end of Standard Webhooks.
fn standard(secret: &str) -> Webhook {
    match secret.strip_prefix("whsec_") {
        Some(_) => Webhook::new(secret).unwrap(),
        None => Webhook::from_bytes(secret.as_bytes().to_vec()).unwrap(),
    }
}

/// What the gateway's users compare `X-Hub-Signature-256` with.
fn hub(secret: &str, body: &[u8]) -> String {
    let mut mac = Hmac::<Sha256>::new_from_slice(secret.as_bytes()).unwrap();
    mac.update(body);
    format!("sha256={}", hex::encode(mac.finalize().into_bytes()))
}

/// Which of these secrets signed it by Standard Webhooks, whenever that was.
fn signed_by<'a>(request: &Request, secrets: &[&'a str]) -> Vec<&'a str> {
    let time = request.header("webhook-timestamp").parse().unwrap();
    let signatures: Vec<&str> = request.header("webhook-signature").split(' ').collect();
    let has_signed = |secret: &&&str| {
        let signature = standard(secret).sign(request.header("webhook-id"), time, &request.body).unwrap();
        signatures.contains(&signature.as_str())
    };
    let signed: Vec<&str> = secrets.iter().filter(has_signed).copied().collect();
    assert_eq!(signed.len(), signatures.len(), "a signature by nobody: {signatures:?}");
    signed
}

/// What arrives of one change of Ada's picture.
async fn delivery(world: &World, app: &crate::support::app::TestApp, receiver: &Receiver, id: &str) -> Request {
    let before = receiver.requests().len();
    change(app, world, ADA, id).await;
    gets(receiver, before + 1).await.pop().unwrap()
}

#[tokio::test]
async fn every_delivery_is_signed_in_both_kinds_with_the_secret_that_was_made_or_chosen() {
    let world = at_home(hand::world_of_today(Options::default()).await);
    let receiver = Receiver::new().await;
    let app = world.start().await;
    all_have(&app, &world, &[ADA], "1").await;
    for (picture, chosen) in [("2", None), ("3", Some("as-it-is")), ("4", Some("whsec_AAECAwQFBgcICQ=="))] {
        let endpoint = made(&app, &json!({"url": receiver.url("/"), "secret": chosen})).await;
        assert!(chosen.is_none_or(|chosen| chosen == endpoint.secret));
        let request = delivery(&world, &app, &receiver, picture).await;
        assert_eq!(request.header("content-type"), "application/json");
        assert_eq!(request.header("webhook-id"), super::event(&request)["payload"]["id"]);
        assert_eq!(request.header("x-hub-signature-256"), hub(&endpoint.secret, &request.body));
        standard(&endpoint.secret).verify(&request.body, &request.headers).unwrap();
        assert!(standard("another").verify(&request.body, &request.headers).is_err());
        assert!(standard(&endpoint.secret).verify(&[&request.body[..], b" "].concat(), &request.headers).is_err());
        app.send(http::Method::DELETE, &format!("/webhooks/{}", endpoint.id), &[]).await.unwrap();
    }
    app.stop().await;
}

#[tokio::test]
async fn while_a_secret_is_replaced_both_sign_and_a_day_later_the_new_one_alone() {
    let (world, receiver) = (world().await, Receiver::new().await);
    let app = world.start().await;
    all_have(&app, &world, &[ADA], "1").await;
    let endpoint = made(&app, &json!({"url": receiver.url("/"), "secret": "first"})).await;
    assert_eq!(signed_by(&delivery(&world, &app, &receiver, "2").await, &["first"]), ["first"]);
    let told = endpoint.patch(&app, &json!({"secret": "second"})).await;
    assert_eq!(told["secret"], "second");
    assert_eq!(endpoint.shown(&app).await["secret"], serde_json::Value::Null);
    let both = delivery(&world, &app, &receiver, "3").await;
    assert_eq!(signed_by(&both, &["first", "second"]), ["first", "second"]);
    assert_eq!(both.header("x-hub-signature-256"), hub("second", &both.body), "this kind has room for one");

    let told = endpoint.patch(&app, &json!({"rotate": true})).await;
    let third = told["secret"].as_str().unwrap();
    let two = delivery(&world, &app, &receiver, "4").await;
    assert_eq!(signed_by(&two, &["first", "second", third]), ["second", third], "two at the most");
    world.clock.advance(23 * HOUR);
    assert_eq!(signed_by(&delivery(&world, &app, &receiver, "5").await, &["second", third]).len(), 2);
    world.clock.advance(HOUR);
    assert_eq!(signed_by(&delivery(&world, &app, &receiver, "6").await, &["second", third]), [third]);
    app.stop().await;
}

#[tokio::test]
async fn a_flags_secret_that_is_another_after_a_restart_signs_beside_the_one_before_for_a_day() {
    let receiver = Receiver::new().await;
    let given = format!("--webhook={}", receiver.url("/given"));
    let world = world().await.flag(&given);
    let app = world.start().await;
    all_have(&app, &world, &[ADA], "1").await;
    let request = delivery(&world, &app, &receiver, "2").await;
    let names = ["webhook-signature", "x-hub-signature-256"];
    assert!(names.iter().all(|name| request.header(name).is_empty()) && !request.header("webhook-id").is_empty());
    app.stop().await;

    let world = world.flag("--webhook-secret=first");
    let app = world.start().await;
    assert_eq!(signed_by(&delivery(&world, &app, &receiver, "3").await, &["first"]), ["first"]);
    app.stop().await;

    let world = world.flag("--webhook-secret=second");
    let app = world.start().await;
    let both = delivery(&world, &app, &receiver, "4").await;
    assert_eq!(signed_by(&both, &["first", "second"]), ["first", "second"]);
    assert_eq!(both.header("x-hub-signature-256"), hub("second", &both.body));
    world.clock.advance(24 * HOUR);
    app.stop().await;
    let app = world.start().await;
    assert_eq!(signed_by(&delivery(&world, &app, &receiver, "5").await, &["first", "second"]), ["second"]);
    app.stop().await;
}

#[tokio::test]
async fn cloudevents_are_signed_as_they_are_sent() {
    let (world, receiver) = (world().await.flag("--event-format=cloudevents"), Receiver::new().await);
    let app = world.start().await;
    all_have(&app, &world, &[ADA], "1").await;
    made(&app, &json!({"url": receiver.url("/"), "secret": "first"})).await;
    let request = delivery(&world, &app, &receiver, "2").await;
    assert!(request.header("content-type").starts_with("application/cloudevents+json"));
    let event: serde_json::Value = serde_json::from_slice(&request.body).unwrap();
    assert_eq!((&event["specversion"], &event["id"]), (&json!("1.0"), &json!(request.header("webhook-id"))));
    assert_eq!(signed_by(&request, &["first"]), ["first"]);
    assert_eq!(request.header("x-hub-signature-256"), hub("first", &request.body));
    app.stop().await;
}
