//! Many replicas, one deliverer for each endpoint: whoever has its lease.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use avatar_proxy::clock::Clock;
use avatar_proxy::demo::{Options, PersonHandle};
use http::Method;
use serde_json::json;

use super::{ADA, BOB, EVE, all_have, at_home, endpoint, event, gets, ids, ids_of, in_order, lines, world};
use crate::support::app::{TestApp, World};
use crate::support::client::Client;
use crate::support::eventually::eventually;
use crate::support::process::Process;
use crate::support::receiver::{Receiver, Reply, Request};
use crate::support::redis::Redis;

async fn stop(apps: Vec<TestApp>) {
    for app in apps {
        app.stop().await;
    }
}

/// How often each event was sent.
fn counts(requests: &[Request]) -> BTreeMap<String, usize> {
    let mut counts = BTreeMap::new();
    for request in requests {
        *counts.entry(request.header("webhook-id").to_owned()).or_default() += 1;
    }
    counts
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_many_replicas_one_delivers_what_any_of_them_notices() {
    let server = Redis::start();
    let receiver = Receiver::new().await;
    let world = world().await.on(&server).flag(&format!("--webhook={}", receiver.url("/"))).flag("--webhook-secret=s");
    let apps = world.start_many(3).await;
    all_have(&apps[0], &world, &[ADA, BOB, EVE], "0").await;
    for round in 1..=12 {
        all_have(&apps[round % 3], &world, &[ADA, BOB, EVE], &round.to_string()).await;
    }
    let requests = gets(&receiver, 36).await;
    let log = apps[1].change_log().await;
    assert_eq!((ids(&requests), log.len()), (ids_of(&log), 36));
    in_order(&requests);
    let twice: Vec<_> = counts(&receiver.requests()).into_values().filter(|count| *count > 1).collect();
    assert!(twice.is_empty(), "each once: {twice:?}");
    for app in &apps {
        eventually("everybody tells how it stands", async || {
            let shown = &app.get("/webhooks").await.json()["webhooks"][0];
            shown["state"] == "active" && shown["lag"]["events"] == 0 && shown["last_result"]["result"] == "200"
        })
        .await;
    }
    stop(apps).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_done_to_an_endpoint_on_any_replica_reaches_whoever_delivers() {
    let server = Redis::start();
    let receiver = Receiver::new().await;
    let world = world().await.on(&server);
    let apps = world.start_many(3).await;
    all_have(&apps[0], &world, &[ADA], "0").await;
    let made = endpoint(&apps[0], &receiver).await;
    all_have(&apps[0], &world, &[ADA], "1").await;
    gets(&receiver, 1).await;
    // Until it is written down that it was delivered, a change on another replica has it sent once more.
    eventually("it is written down", async || made.shown(&apps[1]).await["lag"]["events"] == 0).await;
    assert_eq!(made.patch(&apps[1], &json!({"enabled": false})).await["state"], "disabled");
    for app in &apps {
        eventually("everybody knows", async || made.state(app).await == "disabled").await;
    }
    all_have(&apps[2], &world, &[ADA], "2").await;
    made.patch(&apps[2], &json!({"enabled": true})).await;
    assert_eq!(lines(&gets(&receiver, 2).await)[1], "avatar.changed 999001 2", "from where it was");
    made.replay(&apps[0], &json!({"after": ""})).await;
    let again = gets(&receiver, 4).await;
    eventually("it is written down", async || made.shown(&apps[1]).await["lag"]["events"] == 0).await;
    assert_eq!(lines(&again[2..]), ["avatar.changed 999001 1", "avatar.changed 999001 2"]);
    let tested = apps[1].send_body(Method::POST, &format!("/webhooks/{}/test", made.id), &[super::JSON], "").await;
    assert_eq!(tested.json()["delivered"], true, "{tested:?}");
    assert_eq!(apps[1].send(Method::DELETE, &format!("/webhooks/{}", made.id), &[]).await.unwrap().status, 204);
    for app in &apps {
        eventually("it is gone everywhere", async || {
            let is_gone = app.get(&format!("/webhooks/{}", made.id)).await.status == 404;
            is_gone && !app.get("/metrics").await.text().contains(&made.id)
        })
        .await;
    }
    let sent = receiver.requests().len();
    all_have(&apps[0], &world, &[ADA], "3").await;
    let other = endpoint(&apps[2], &receiver).await;
    all_have(&apps[0], &world, &[ADA], "4").await;
    assert_eq!(
        lines(&gets(&receiver, sent + 1).await)[sent],
        "avatar.changed 999001 4",
        "nothing of the dropped one's"
    );
    assert_eq!(other.state(&apps[1]).await, "active");
    stop(apps).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn changes_that_are_made_on_all_replicas_at_once_are_all_made() {
    let server = Redis::start();
    let receiver = Receiver::new().await;
    let world = world().await.on(&server);
    let apps = world.start_many(3).await;
    let made = endpoint(&apps[0], &receiver).await;
    for _ in 0..5 {
        let wishes = [json!({"enabled": false}), json!({"events": ["avatar.removed"]}), json!({"jids": [ADA]})];
        tokio::join!(
            made.patch(&apps[0], &wishes[0]),
            made.patch(&apps[1], &wishes[1]),
            made.patch(&apps[2], &wishes[2])
        );
        let shown = made.shown(&apps[0]).await;
        assert_eq!(
            (&shown["events"], &shown["jids"]),
            (&json!(["avatar.removed"]), &json!([format!("{ADA}@s.whatsapp.net")]))
        );
        eventually("it is disabled", async || made.state(&apps[1]).await == "disabled").await;
        made.patch(&apps[1], &json!({"enabled": true, "events": [], "jids": []})).await;
    }
    stop(apps).await;
}

/// Every replica has found by now what others have done to endpoints.
async fn all_look(apps: &[TestApp]) {
    for app in apps {
        let looks = async || app.metric("avatar_proxy_store_seconds_count{operation=\"endpoints\"}").await;
        let before = looks().await;
        eventually("it has looked", async || looks().await > before + 3.5).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_the_flags_give_is_made_anew_in_an_emptied_store_and_dropped_by_who_is_started_without_it() {
    let server = Redis::start();
    let [old, new] = [Receiver::new().await, Receiver::new().await];
    let world = world().await.on(&server).flag(&format!("--webhook={}", old.url("/"))).flag("--webhook-secret=s");
    let apps = world.start_many(2).await;
    let urls = async |app: &TestApp| {
        let shown = app.get("/webhooks").await.json();
        shown["webhooks"]
            .as_array()
            .unwrap()
            .iter()
            .map(|webhook| webhook["url"].as_str().unwrap().to_owned())
            .collect()
    };
    server.ask("FLUSHALL");
    let is_there = async || -> bool {
        let urls: Vec<String> = urls(&apps[0]).await;
        urls == [old.url("/")]
    };
    eventually("it is back", is_there).await;
    all_have(&apps[0], &world, &[ADA], "1").await;
    all_have(&apps[1], &world, &[ADA], "2").await;
    eventually("it is told of the gap, and of what came behind it", async || {
        let told = lines(&old.requests());
        // Whoever delivered before the store was emptied may have begun with it as well.
        ["avatar.gap", "avatar.changed 999001 2"].iter().all(|event| told.iter().any(|other| other == event))
    })
    .await;
    all_look(&apps).await;
    let world = world.flag(&format!("--webhook={}", new.url("/")));
    let later = world.start().await;
    all_look(&apps).await;
    let left: Vec<String> = urls(&apps[0]).await;
    assert_eq!(left, [new.url("/")], "it stays dropped, and the new one is everybody's");
    let told = old.requests().len();
    all_have(&apps[1], &world, &[ADA], "3").await;
    gets(&new, 1).await;
    assert_eq!(old.requests().len(), told);
    later.stop().await;
    stop(apps).await;
}

/// Processes that tell one receiver.
struct Scene {
    server: Redis,
    world: World,
    receiver: Receiver,
    ada: PersonHandle,
}

impl Scene {
    async fn new() -> Self {
        let (server, receiver) = (Redis::start(), Receiver::new().await);
        // URLs that live for a second, so that whoever is asked for is looked at.
        let (url_lifetime, expiry_step) = (Duration::from_secs(3)..=Duration::from_secs(3), Duration::from_secs(1));
        let options = Options { url_lifetime, expiry_step, ..Options::default() };
        let world = at_home(World::with(options, Clock::system()).await).on(&server);
        let world = world.flag(&format!("--webhook={}", receiver.url("/"))).flag("--webhook-secret=s");
        let ada = world.gateway.person(ADA).picture("0");
        Self { server, world, receiver, ada }
    }

    /// Changes the picture, and waits until that is in the log.
    async fn turn(&self, client: &Client, id: &str) {
        self.ada.picture(id);
        eventually("it is noticed", async || {
            client.avatar(ADA).await;
            let known = client.get(&format!("/avatars/{ADA}/changes?limit=1")).await.json();
            known["changes"][0]["payload"]["new_id"] == id
        })
        .await;
    }

    /// Waits until the receiver was told of this picture; returns how long that took.
    async fn told(&self, id: &str) -> Duration {
        let began = Instant::now();
        let is_told = async || self.receiver.requests().iter().any(|request| event(request)["payload"]["new_id"] == id);
        eventually("it is told", is_told).await;
        began.elapsed()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn when_the_deliverer_stops_or_dies_another_goes_on_within_seconds() {
    let scene = Scene::new().await;
    let first = Process::start(&scene.world);
    first.client.avatar(ADA).await.expect(200, "fwd=miss; stored");
    scene.turn(&first.client, "1").await;
    scene.told("1").await;
    let second = Process::start(&scene.world);
    first.ask_to_stop();
    scene.turn(&second.client, "2").await;
    let handed_over = scene.told("2").await;
    assert!(first.ended().0.success());
    let third = Process::start(&scene.world);
    second.kill();
    scene.turn(&third.client, "3").await;
    let inherited = scene.told("3").await;
    println!("handed over within {handed_over:?}, inherited within {inherited:?}");
    assert!(inherited < Duration::from_secs(12), "{inherited:?}");
    let requests = scene.receiver.requests();
    assert_eq!(ids(&requests), ids_of(&third.client.change_log().await));
    in_order(&requests);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_deliverer_that_stood_still_for_longer_than_its_lease_sends_nothing_any_more() {
    let scene = Scene::new().await;
    let mut first = Process::start(&scene.world);
    first.client.avatar(ADA).await.expect(200, "fwd=miss; stored");
    scene.turn(&first.client, "1").await;
    scene.told("1").await;
    let second = Process::start(&scene.world);
    // It has three of her events in hand, and one of them is under way, when it is stopped.
    scene.receiver.always(Reply::status(200).after(Duration::from_secs(3)));
    for id in ["2", "3", "4"] {
        scene.turn(&second.client, id).await;
    }
    scene.told("2").await;
    first.pause();
    scene.receiver.always(Reply::status(200));
    let taken_over = scene.told("4").await;
    println!("taken over within {taken_over:?}");
    let before = scene.receiver.requests();
    first.resume();
    let hears = tokio::task::spawn_blocking(move || (first.logs("webhook endpoint"), first));
    let _first = hears.await.unwrap();
    scene.turn(&second.client, "5").await;
    scene.told("5").await;
    let after = scene.receiver.requests();
    assert_eq!(after.len(), before.len() + 1, "{:?}", lines(&after));
    in_order(&after);
    assert_eq!(counts(&after).values().max(), Some(&2), "what was under way, and nothing else: {:?}", lines(&after));
    assert_eq!(ids(&after), ids_of(&second.client.change_log().await));
    assert!(scene.server.text("TYPE {avatar-proxy}:leases") == "hash");
}
