//! Verifiers that people have already accept what we deliver, and refuse what was altered on the way: code as the gateway's own
//! documentation shows it, and the official package of Standard Webhooks.

use std::io::Write as _;
use std::process::{Command, Stdio};

use http::Method;
use serde_json::{Value, json};

use super::program::python;
use crate::support::app::World;
use crate::support::eventually::eventually;
use crate::support::receiver::{Receiver, Request};

const ADA: &str = "999001";

/// A secret as it is made here, and one as people choose it.
const SECRETS: [&str; 2] = ["whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD", "a-plain-secret"];

/// A change and a test, as an endpoint with this secret gets them.
async fn delivered(secret: &str) -> Vec<Request> {
    let receiver = Receiver::new().await;
    let world = World::new().await.flag("--recheck-interval=100ms");
    let world = world.flag(&format!("--webhook={}", receiver.url("/"))).flag(&format!("--webhook-secret={secret}"));
    let ada = world.gateway.person(ADA).picture("17");
    let app = world.start().await;
    app.avatar(ADA).await;
    ada.picture("18");
    eventually("the change arrives", async || receiver.requests().len() == 1).await;
    let id = app.get("/webhooks").await.json()["webhooks"][0]["id"].as_str().unwrap().to_owned();
    let tested = app.send(Method::POST, &format!("/webhooks/{id}/test"), &[]).await.unwrap();
    assert_eq!(tested.json()["delivered"], true, "{tested:?}");
    app.stop().await;
    receiver.requests()
}

/// A delivery as the programs read it.
fn written(request: &Request) -> Value {
    let header = |name: &str| (name.to_owned(), json!(request.header(name)));
    let names = ["webhook-id", "webhook-timestamp", "webhook-signature", "x-hub-signature-256"];
    let headers: serde_json::Map<_, _> = names.map(header).into_iter().collect();
    json!({"headers": headers, "body": String::from_utf8(request.body.clone()).unwrap()})
}

/// The same, otherwise.
fn with(delivery: &Value, place: &str, text: &str) -> Value {
    let mut other = delivery.clone();
    *other.pointer_mut(place).expect("there is such a place") = text.into();
    other
}

/// What a program makes of these deliveries, with this secret.
fn verdicts(mut interpreter: Command, program: &str, secret: &str, deliveries: &[Value]) -> Vec<Value> {
    let path = format!("{}/tests/e2e/{program}", env!("CARGO_MANIFEST_DIR"));
    let command = interpreter.args([&path, secret]).stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut child = command.spawn().expect("the program starts");
    let mut stdin = child.stdin.take().expect("stdin is a pipe");
    for delivery in deliveries {
        writeln!(stdin, "{delivery}").unwrap();
    }
    drop(stdin);
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success());
    let text = String::from_utf8(output.stdout).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

async fn accept_ours_and_nothing_else(interpreter: impl Fn() -> Command, program: &str, verifiers: &[&str]) {
    for secret in SECRETS {
        for request in delivered(secret).await {
            let genuine = written(&request);
            let body = genuine["body"].as_str().unwrap();
            let forged = "sha256=".to_owned() + &"0".repeat(64);
            let stamp: u64 = request.header("webhook-timestamp").parse().unwrap();
            // What it is, and whether the gateway's form and the package see that it is not ours.
            let cases = [
                (genuine.clone(), true, true),
                (with(&genuine, "/body", &body.replacen("avatar", "Avatar", 1)), false, false),
                (with(&genuine, "/body", &format!("{body} ")), false, false),
                (with(&genuine, "/headers/x-hub-signature-256", &forged), false, true),
                (with(&genuine, "/headers/webhook-signature", "v1,AAAA"), true, false),
                (with(&genuine, "/headers/webhook-id", "another"), true, false),
                (with(&genuine, "/headers/webhook-timestamp", &(stamp + 1).to_string()), true, false),
            ];
            let deliveries = cases.each_ref().map(|(delivery, ..)| delivery.clone());
            let verdict = |gateway: bool, package: bool| {
                let all = [("gateway", gateway), ("package", package)];
                let known = all.iter().filter(|(name, _)| verifiers.contains(name));
                known.map(|(name, accepts)| ((*name).to_owned(), json!(accepts))).collect::<Value>()
            };
            let expected = cases.map(|(_, gateway, package)| verdict(gateway, package));
            assert_eq!(verdicts(interpreter(), program, secret, &deliveries), expected);
            let stranger = verdicts(interpreter(), program, "another-secret", &[genuine]);
            assert_eq!(stranger, [verdict(false, false)], "whoever has another secret");
        }
    }
}

#[tokio::test]
#[ignore = "needs Python and its standardwebhooks: make e2e"]
async fn verifiers_in_python_accept_our_deliveries_and_nothing_else() {
    accept_ours_and_nothing_else(python, "verify.py", &["gateway", "package"]).await;
}

#[tokio::test]
#[ignore = "needs Node.js: make e2e"]
async fn a_verifier_in_javascript_accepts_our_deliveries_and_nothing_else() {
    accept_ours_and_nothing_else(|| Command::new("node"), "verify.mjs", &["gateway"]).await;
}
