//! What is announced outlasts the server that it was recorded on, where that has replicas.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use avatar_proxy::demo::Options;
use redis::{RedisResult, from_redis_value};

use super::ADA;
use crate::support::app::{TestApp, World};
use crate::support::eventually::eventually;
use crate::support::hand::{self, NO_LONGER_RECENT};
use crate::support::redis::Redis;
use crate::support::relay::Relay;
use crate::support::subscriber::Subscriber;

/// What stands among the ids for a gap.
const GAP: &str = "gap";

/// The ids of what subscribers were told, one by one.
type Told = Arc<Mutex<Vec<String>>>;

pub(crate) async fn in_step(replica: &Redis) {
    eventually("the replica is in step", async || replica.text("INFO replication").contains("master_link_status:up"))
        .await;
}

/// Reads on and on.
async fn listen(app: &TestApp) -> Told {
    let told = Told::default();
    let (noted, mut subscriber) = (told.clone(), Subscriber::new(app.app().address(), "/events", &[]).await);
    tokio::spawn(async move {
        while let Ok(Some(event)) = subscriber.try_next().await {
            // A gap has no id.
            let id = event.json()["payload"]["id"].as_str().unwrap_or(GAP).to_owned();
            noted.lock().unwrap().push(id);
        }
    });
    told
}

/// Gives her another picture, and has it looked at.
async fn change(app: &TestApp, world: &World, id: u64) {
    world.clock.advance(NO_LONGER_RECENT);
    world.gateway.person(ADA).picture(&id.to_string());
    app.avatar_asking(ADA, "no-cache").await;
}

/// Reads on and on, after a baseline and two changes that were announced.
async fn hears_of_two_changes(app: &TestApp, world: &World) -> Told {
    let told = listen(app).await;
    for id in 0..3 {
        change(app, world, id).await;
    }
    eventually("it is announced", async || told.lock().unwrap().len() == 2).await;
    told
}

fn logged(server: &Redis) -> u64 {
    from_redis_value(server.ask("XLEN {avatar-proxy}:log")).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn while_no_replica_confirms_nothing_is_announced_and_that_is_said() {
    let primary = Redis::start();
    let relay = Relay::to(primary.port()).await;
    let replica = Redis::with(&[&format!("--replicaof 127.0.0.1 {}", relay.port())]);
    in_step(&replica).await;
    let world = hand::world(Options::default()).await.on(&primary).flag("--recheck-interval=365d");
    let app = world.start().await;
    let told = hears_of_two_changes(&app, &world).await;
    assert!(app.metric("avatar_proxy_log_unconfirmed").await < 0.5);
    relay.hold();
    change(&app, &world, 3).await;
    assert_eq!(logged(&primary), 3);
    let holds_back = async || app.metric("avatar_proxy_log_unconfirmed").await > 0.5;
    eventually("it is said that it is held back", holds_back).await;
    assert_eq!(told.lock().unwrap().len(), 2);
    assert!(app.metric("avatar_proxy_store_up").await > 0.5, "the store works");
    assert_eq!(app.get("/changes").await.status, 503, "nor is it listed");
    // A replica that is gone for good confirms nothing, and is waited for no more.
    drop(replica);
    relay.lead_to(1);
    eventually("it is announced", async || told.lock().unwrap().len() == 3).await;
    eventually("it is said", async || app.metric("avatar_proxy_log_unconfirmed").await < 0.5).await;
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_announced_by_a_primary_that_was_replaced_while_it_lives() {
    let primary = Redis::start();
    let replica = Redis::with(&[&format!("--replicaof 127.0.0.1 {}", primary.port())]);
    in_step(&replica).await;
    let monitor = format!("--sentinel monitor main 127.0.0.1 {} 1", primary.port());
    let sentinel = Redis::with(&["--sentinel", &monitor]);
    eventually("the Sentinel knows the replica", async || {
        let known: Vec<redis::Value> = from_redis_value(sentinel.ask("SENTINEL REPLICAS main")).unwrap();
        known.len() == 1
    })
    .await;
    let url = format!("--store=redis+sentinel://127.0.0.1:{}/main", sentinel.port());
    let world = hand::flowing(Options::default()).await.flag(&url).flag("--recheck-interval=365d");
    let app = world.start().await;
    let told = hears_of_two_changes(&app, &world).await;
    eventually("the Sentinel finds the replica fit to take over", async || {
        sentinel.try_ask("SENTINEL FAILOVER main").is_ok()
    })
    .await;
    let mut pictures = 3..;
    let mut change = async || change(&app, &world, pictures.next().unwrap_or_default()).await;
    eventually("the old primary is told that it is one no longer", async || {
        change().await;
        let told: RedisResult<String> =
            primary.try_ask("INFO replication").and_then(|told| Ok(from_redis_value(told)?));
        told.is_ok_and(|told| told.contains("role:slave"))
    })
    .await;
    let before = told.lock().unwrap().len();
    eventually("what is noticed from then on is announced", async || {
        change().await;
        told.lock().unwrap().len() > before
    })
    .await;
    let kept: BTreeSet<_> =
        app.change_log().await.iter().map(|event| event["payload"]["id"].as_str().unwrap().to_owned()).collect();
    let lost: Vec<_> = told.lock().unwrap().iter().filter(|id| *id != GAP && !kept.contains(*id)).cloned().collect();
    assert!(lost.is_empty(), "announced and lost: {}", lost.len());
    app.stop().await;
}

/// Kills the primary of so many proxies while its replica is behind; returns how many changes were told and how many the replica
/// did not have.
async fn survives_a_failover(proxies: usize) -> (usize, u64) {
    let mut primary = Redis::start();
    let (replicates, serves) = (Relay::to(primary.port()).await, Relay::to(primary.port()).await);
    let replica = Redis::with(&[&format!("--replicaof 127.0.0.1 {}", replicates.port())]);
    in_step(&replica).await;
    let url = format!("--store=redis://127.0.0.1:{}", serves.port());
    let world = hand::flowing(Options::default()).await.flag(&url).flag("--recheck-interval=365d");
    let apps = world.start_many(proxies).await;
    let mut told = vec![];
    for app in &apps {
        told.push(listen(app).await);
    }
    let mut pictures = 0..;
    let mut change = async || {
        let id = pictures.next().unwrap_or_default();
        change(&apps[usize::try_from(id).unwrap() % proxies], &world, id).await;
    };
    for _ in 0..fastrand::u32(10..30) {
        change().await;
    }
    replicates.hold();
    for _ in 0..fastrand::u32(5..15) {
        change().await;
    }
    // Long enough for all of it to be announced, if nothing held it back.
    tokio::time::sleep(Duration::from_millis(fastrand::u64(50..500))).await;
    let lost = logged(&primary) - logged(&replica);
    primary.kill();
    replica.ask("REPLICAOF NO ONE");
    serves.lead_to(replica.port());
    for told in &told {
        let before = told.lock().unwrap().len();
        eventually("what is noticed from then on is announced", async || {
            change().await;
            told.lock().unwrap().len() > before
        })
        .await;
    }
    let kept: BTreeSet<_> =
        apps[0].change_log().await.iter().map(|event| event["payload"]["id"].as_str().unwrap().to_owned()).collect();
    let mut all = BTreeSet::new();
    for told in &told {
        let told = told.lock().unwrap();
        let once: BTreeSet<_> = told.iter().cloned().collect();
        // Of several one may have gone on, and told of it, before another noticed that something was lost: behind a gap all of it is
        // told again.
        assert!(proxies > 1 || once.len() == told.len() && !once.contains(GAP), "{told:?}");
        all.extend(once.into_iter().filter(|id| id != GAP));
    }
    let announced_and_lost: Vec<_> = all.difference(&kept).collect();
    assert!(announced_and_lost.is_empty(), "{} of {}", announced_and_lost.len(), all.len());
    for app in apps {
        app.stop().await;
    }
    (all.len(), lost)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_what_was_announced_nothing_is_lost_with_the_primary() {
    const ROUNDS: usize = 5;
    let (mut announced, mut lost) = (0, 0);
    for round in 0..ROUNDS {
        let (told, missing) = survives_a_failover(1 + round % 2).await;
        (announced, lost) = (announced + told, lost + missing);
    }
    println!("{ROUNDS} failovers: {announced} changes announced, 0 of them lost, {lost} lost that were not");
    assert!(lost >= 5, "there was something to lose: {lost}");
}
