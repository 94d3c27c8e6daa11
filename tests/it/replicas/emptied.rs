//! A Redis that was emptied: another log, told by a gap, into which replicas put back what they hold.

use std::time::Duration;

use avatar_proxy::demo::Options;
use serde_json::json;

use super::ADA;
use crate::support::app::{TestApp, World};
use crate::support::eventually::eventually;
use crate::support::hand::{self, change, look};
use crate::support::redis::Redis;
use crate::support::subscriber::Subscriber;

const BOB: &str = "999002";
const PEOPLE: u64 = 50;

fn phone(person: u64) -> String {
    format!("{}", 999_100 + person)
}

/// Requests are remembered an eighth of a second after the last that was.
async fn world(server: &Redis) -> World {
    hand::world(Options::default()).await.on(server).flag("--recheck-interval=365d").flag("--warm-for=1s")
}

async fn is_new(app: &TestApp, epoch: &str) {
    eventually("it is another log", async || {
        !app.get("/changes").await.json()["next"].as_str().unwrap().starts_with(epoch)
    })
    .await;
}

async fn epoch(app: &TestApp) -> String {
    app.get("/changes").await.json()["next"].as_str().unwrap().split('.').next().unwrap().to_owned()
}

/// Waits until the store holds so many entries, while these people are asked for.
async fn holds(server: &Redis, world: &World, app: &TestApp, people: &[String]) {
    eventually("they are put back", async || {
        world.clock.advance(Duration::from_millis(200));
        for who in people {
            app.avatar(who).await.expect(200, "hit; ttl=");
        }
        let held: Option<usize> = redis::from_redis_value(server.ask("HGET {avatar-proxy}:meta entries")).unwrap();
        held >= Some(people.len())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_replicas_hold_goes_back_into_an_emptied_server() {
    let server = Redis::start();
    let world = world(&server).await;
    let app = world.start().await;
    let people: Vec<_> = (0..PEOPLE).map(phone).collect();
    for who in &people {
        app.avatar(who).await.expect(200, "fwd=miss; stored");
    }
    let (before, lookups) = (epoch(&app).await, world.gateway.lookups());
    server.ask("FLUSHALL");
    is_new(&app, &before).await;
    holds(&server, &world, &app, &people).await;
    app.stop().await;
    let restarted = world.start().await;
    for who in &people {
        restarted.avatar(who).await.expect(200, "hit; ttl=");
    }
    assert_eq!(world.gateway.lookups(), lookups, "nobody was asked for again");
    restarted.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_request_puts_somebody_back_however_lately_there_was_another() {
    let server = Redis::start();
    let world = hand::world(Options::default()).await.on(&server);
    let apps = world.start_many(2).await;
    apps[0].avatar(ADA).await.expect(200, "fwd=miss; stored");
    let before = epoch(&apps[0]).await;
    server.ask("FLUSHALL");
    is_new(&apps[0], &before).await;
    world.clock.advance(Duration::from_secs(1));
    apps[0].avatar(ADA).await.expect(200, "hit; ttl=");
    eventually("she is known to the store, and so to the other replica", async || {
        apps[1].avatar_asking(ADA, "only-if-cached").await.status == 200
    })
    .await;
    for app in apps {
        app.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_has_changed_since_is_noticed_and_versions_go_on() {
    let server = Redis::start();
    let world = world(&server).await;
    let app = world.start().await;
    world.gateway.person(ADA).picture("1");
    look(&app, &world, ADA).await;
    change(&app, &world, ADA, "2").await;
    let mut subscriber = Subscriber::new(app.app().address(), "/events", &[]).await;
    let before = epoch(&app).await;
    server.ask("FLUSHALL");
    is_new(&app, &before).await;
    holds(&server, &world, &app, &[ADA.to_owned()]).await;
    change(&app, &world, ADA, "3").await;
    assert_eq!(subscriber.next().await.unwrap().name, "gap");
    let payload = subscriber.next().await.unwrap().json()["payload"].clone();
    assert_eq!([&payload["old_id"], &payload["new_id"], &payload["version"]], [&json!("2"), &json!("3"), &json!(2)]);
    drop(subscriber);
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_the_new_store_has_from_a_later_look_stays() {
    let server = Redis::start();
    let world = world(&server).await;
    let apps = world.start_many(2).await;
    for who in [ADA, BOB] {
        world.gateway.person(who).picture("1");
        for app in &apps {
            app.avatar(who).await;
        }
    }
    let before = epoch(&apps[0]).await;
    server.ask("FLUSHALL");
    for app in &apps {
        is_new(app, &before).await;
    }
    // A baseline for the new store: no change passes by.
    change(&apps[0], &world, ADA, "2").await;
    let later = apps[0].avatar(ADA).await.url();
    holds(&server, &world, &apps[1], &[ADA, BOB].map(str::to_owned)).await;
    // One may have been put back before the other's request was heard of; whoever is asked for from now on is, too.
    world.clock.advance(Duration::from_millis(200));
    eventually("the other one has it, too", async || apps[1].avatar(ADA).await.url() == later).await;
    for app in apps {
        app.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_nobody_asks_for_leaves_memory_after_a_while() {
    let server = Redis::start();
    let world = world(&server).await;
    let app = world.start().await;
    for who in [ADA, BOB] {
        app.avatar(who).await.expect(200, "fwd=miss; stored");
    }
    let before = epoch(&app).await;
    server.ask("FLUSHALL");
    is_new(&app, &before).await;
    holds(&server, &world, &app, &[ADA.to_owned()]).await;
    world.clock.advance(Duration::from_secs(121));
    let is_gone = async || app.avatar_asking(BOB, "only-if-cached").await.status == 504;
    eventually("he is nowhere", is_gone).await;
    app.avatar_asking(ADA, "only-if-cached").await.expect(200, "hit; ttl=");
    app.stop().await;
}
