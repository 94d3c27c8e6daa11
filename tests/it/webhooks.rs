//! Webhooks that arrive: through the whole proxy, to receivers on real sockets that fail in every way.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use avatar_proxy::demo::Options;
use http::Method;
use serde_json::{Value, json};

use crate::support::app::{TestApp, World};
use crate::support::client::{Answer, Client};
use crate::support::eventually::eventually;
use crate::support::hand;
use crate::support::receiver::{Receiver, Request};

mod addresses;
mod api;
mod away;
mod broken;
mod forget;
mod kills;
mod order;
mod refusals;
mod replicas;
mod secrets;
mod signatures;
mod takeovers;

const ADA: &str = "999001";
const BOB: &str = "999002";
const EVE: &str = "999003";
const MINUTE: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(3600);

const JSON: (&str, &str) = ("content-type", "application/json");

/// A world whose clock the test moves, where endpoints may be on this machine. Nobody is looked at but when a test wants it.
async fn world() -> World {
    at_home(hand::world(Options::default()).await)
}

fn at_home(world: World) -> World {
    world.flag("--webhook-allow-private=true").flag("--recheck-interval=365d").flag("--warm-for=1s")
}

/// Asks for something with a body.
async fn ask(client: &Client, method: Method, target: &str, body: &Value) -> Answer {
    client.send_body(method, target, &[JSON], &body.to_string()).await
}

/// An endpoint that was made over the API.
#[derive(Clone)]
struct Endpoint {
    id: String,
    secret: String,
}

/// Makes an endpoint.
async fn made(client: &Client, wish: &Value) -> Endpoint {
    let answer = ask(client, Method::POST, "/webhooks", wish).await;
    assert_eq!(answer.status, 201, "{answer:?}");
    let text = |name: &str| answer.json()[name].as_str().expect("it is told").to_owned();
    Endpoint { id: text("id"), secret: text("secret") }
}

/// Makes an endpoint for everything that comes from now on.
async fn endpoint(client: &Client, receiver: &Receiver) -> Endpoint {
    made(client, &json!({"url": receiver.url("/hook")})).await
}

impl Endpoint {
    /// As it is shown.
    async fn shown(&self, client: &Client) -> Value {
        let answer = client.get(&format!("/webhooks/{}", self.id)).await;
        assert_eq!(answer.status, 200, "{answer:?}");
        answer.json()
    }

    async fn state(&self, client: &Client) -> String {
        self.shown(client).await["state"].as_str().expect("a state").to_owned()
    }

    /// How its last attempt ended.
    async fn last(&self, client: &Client) -> String {
        self.shown(client).await["last_result"]["result"].as_str().unwrap_or_default().to_owned()
    }

    /// Changes it, which must be possible.
    async fn patch(&self, client: &Client, change: &Value) -> Value {
        let answer = ask(client, Method::PATCH, &format!("/webhooks/{}", self.id), change).await;
        assert_eq!(answer.status, 200, "{answer:?}");
        answer.json()
    }

    /// Has it sent something once more, which must be possible.
    async fn replay(&self, client: &Client, what: &Value) -> Value {
        let answer = ask(client, Method::POST, &format!("/webhooks/{}/replay", self.id), what).await;
        assert_eq!(answer.status, 200, "{answer:?}");
        answer.json()
    }
}

/// Everybody has this picture from now on, and is looked at.
async fn all_have(app: &TestApp, world: &World, people: &[&str], id: &str) {
    world.clock.advance(hand::NO_LONGER_RECENT);
    for who in people {
        world.gateway.person(who).picture(id);
        let answer = app.avatar_asking(who, "no-cache").await;
        assert!(answer.how().contains("fwd="), "{answer:?}");
    }
}

/// What an event is named, whom it is about, and what the picture's id is now: `avatar.changed 999001 18`.
fn line(event: &Value) -> String {
    let text = |name: &str| event["payload"][name].as_str().unwrap_or_default();
    let who = text("jid").split('@').next().unwrap_or_default();
    format!("{} {who} {}", event["event"].as_str().unwrap_or_default(), text("new_id")).trim_end().to_owned()
}

fn event(request: &Request) -> Value {
    serde_json::from_slice(&request.body).expect("a delivery is JSON")
}

/// Whether a delivery is about this person.
fn is_about(request: &Request, who: &str) -> bool {
    event(request)["payload"]["jid"].as_str().is_some_and(|jid| jid.starts_with(who))
}

/// What was sent, one line each, in the order in which it came.
fn lines(requests: &[Request]) -> Vec<String> {
    requests.iter().map(|request| line(&event(request))).collect()
}

/// The ids of what was sent.
fn ids(requests: &[Request]) -> BTreeSet<String> {
    requests.iter().map(|request| request.header("webhook-id").to_owned()).collect()
}

/// The ids of events.
fn ids_of(events: &[Value]) -> BTreeSet<String> {
    events.iter().map(|event| event["payload"]["id"].as_str().expect("an id").to_owned()).collect()
}

/// Waits until a receiver was sent so much.
#[track_caller]
fn gets(receiver: &Receiver, count: usize) -> impl Future<Output = Vec<Request>> {
    let arrives = eventually("everything arrives", async move || receiver.requests().len() >= count);
    async move {
        arrives.await;
        receiver.requests()
    }
}

/// Lets time pass in steps until something holds. Between them the proxy has a moment; one that needs longer finds it later, and
/// what is done by then is done later than it had to be, but not sooner.
#[track_caller]
fn in_time<F: AsyncFnMut() -> bool>(
    world: &World,
    step: Duration,
    what: &str,
    mut condition: F,
) -> impl Future<Output = ()> {
    eventually(what, async move || {
        let holds = condition().await;
        if !holds {
            world.clock.advance(step);
        }
        holds
    })
}

/// Each person's versions in the order in which they came first, which must be the order in which they were made; all that were
/// sent, by person.
#[track_caller]
fn in_order(requests: &[Request]) -> BTreeMap<String, Vec<u64>> {
    let mut people: BTreeMap<String, Vec<u64>> = BTreeMap::new();
    for event in requests.iter().map(event).filter(|event| event["event"] != "avatar.gap") {
        let versions = people.entry(event["payload"]["jid"].as_str().expect("a person").to_owned()).or_default();
        let version = event["payload"]["version"].as_u64().expect("a version");
        if !versions.contains(&version) {
            assert!(versions.last().is_none_or(|last| *last < version), "{version} behind {versions:?}");
            versions.push(version);
        }
    }
    people
}
