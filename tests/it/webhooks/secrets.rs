//! Secrets are told once, and neither listings, nor figures, nor the log of the real process ever say one; nor do figures and log
//! say where endpoints are, or whom an event is about.

use http::Method;
use serde_json::json;

use super::{Endpoint, ask, at_home, gets, made};
use crate::support::app::World;
use crate::support::client::Client;
use crate::support::eventually::eventually;
use crate::support::process::Process;
use crate::support::receiver::{Receiver, Reply};

const PHONE: &str = "628123400017";

/// What the secrets that a test chooses contain, and what those contain that are made.
const CHOSEN: &str = "s3cret";
const MADE: &str = "whsec_";

fn assert_silent(text: &str, secrets: &[&str]) {
    for secret in secrets {
        assert!(!text.contains(secret), "{secret}: {text}");
    }
}

/// Everything that is told of endpoints without being asked for a secret.
async fn assert_shown_without_secrets(client: &Client, endpoint: &Endpoint) {
    let bare = format!("/webhooks/{}", endpoint.id);
    for target in ["/webhooks", &bare, "/metrics"] {
        assert_silent(client.get(target).await.text(), &[CHOSEN, MADE, "\"secret\""]);
    }
    for (method, target, body) in [
        (Method::PATCH, bare.clone(), json!({"enabled": true})),
        (Method::PATCH, bare.clone(), json!({"events": []})),
        (Method::POST, format!("{bare}/replay"), json!({"dead_letters": true})),
        (Method::POST, format!("{bare}/test"), json!({})),
    ] {
        assert_silent(ask(client, method, &target, &body).await.text(), &[CHOSEN, MADE, "\"secret\""]);
    }
    // A refusal says how secrets look, and not how this one does.
    let refused = ask(client, Method::PATCH, &bare, &json!({"secret": "not a s3cret", "enabled": false})).await;
    assert_eq!(refused.status, 400);
    assert_silent(refused.text(), &[CHOSEN]);
}

/// Has the person's picture become this one, and waits until somebody knows.
async fn turns(world: &World, client: &Client, id: &str) {
    world.gateway.person(PHONE).picture(id);
    eventually("the change is noticed", async || {
        client.avatar(PHONE).await;
        client.get("/changes?limit=1000").await.text().contains(&format!("\"new_id\":\"{id}\""))
    })
    .await;
}

/// What figures and log say nothing of, besides secrets: where endpoints are, and whom an event is about.
const PRIVATE: [&str; 5] = ["t0ken", PHONE, "http://", "https://", "/hook-"];

fn assert_log_is_silent(lines: &[String]) {
    for line in lines {
        assert_silent(line, &[CHOSEN, MADE]);
        assert_silent(line, &PRIVATE);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_line_no_figure_and_no_listing_holds_a_secret() {
    let receivers = [Receiver::new().await, Receiver::new().await, Receiver::new().await];
    let [given, added, gone] = &receivers;
    let url = |receiver: &Receiver| receiver.url("/hook-t0ken?key=t0ken");
    let world = at_home(World::new().await).flag("--recheck-interval=40ms").flag("--warm-for=7d");
    let world = world.flag(&format!("--webhook={}", url(given))).flag("--webhook-secret=flag-s3cret");
    world.gateway.person(PHONE).picture("1");
    let process = Process::start(&world);
    let client = process.client.clone();
    client.avatar(PHONE).await.expect(200, "fwd=miss");
    let endpoint = made(&client, &json!({"url": url(added), "secret": "first-s3cret"})).await;
    assert_eq!(endpoint.secret, "first-s3cret");
    made(&client, &json!({"url": url(gone), "jids": [PHONE]})).await;
    added.next([Reply::status(500)]);
    gone.always(Reply::status(410));
    turns(&world, &client, "2").await;
    gets(given, 1).await;
    gets(added, 1).await;
    let told = endpoint.patch(&client, &json!({"secret": "second-s3cret"})).await;
    assert_eq!(told["secret"], "second-s3cret", "to who sets it");
    let told = endpoint.patch(&client, &json!({"rotate": true})).await;
    assert!(told["secret"].as_str().unwrap().starts_with("whsec_"));
    for wish in [
        json!({"url": "https://ada:url-s3cret@hooks.example/t0ken"}),
        json!({"url": "https://hooks.example/t0ken#s3cret"}),
        json!({"url": url(added), "secret": "not a s3cret"}),
        json!({"url": url(added), "secrets": "s3cret"}),
    ] {
        let answer = ask(&client, Method::POST, "/webhooks", &wish).await;
        assert_eq!(answer.status, 400, "{answer:?}");
        assert_silent(answer.text(), &[CHOSEN, "t0ken"]);
    }
    eventually("the endpoint that is gone is disabled", async || {
        client.get("/webhooks").await.text().contains("\"reason\":\"gone\"")
    })
    .await;
    assert_shown_without_secrets(&client, &endpoint).await;
    assert_silent(client.get("/metrics").await.text(), &PRIVATE);
    let (status, lines) = process.terminate();
    assert!(status.success(), "{status}");
    assert!(lines.iter().any(|line| line.contains("a webhook endpoint is disabled")), "it logs: {lines:#?}");
    assert_log_is_silent(&lines);

    let world = world.flag("--webhook-secret=other-s3cret");
    let process = Process::start(&world);
    let client = process.client.clone();
    turns(&world, &client, "3").await;
    gets(given, 2).await;
    assert_shown_without_secrets(&client, &endpoint).await;
    assert_log_is_silent(&process.terminate().1);
}
