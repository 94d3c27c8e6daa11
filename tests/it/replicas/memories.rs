//! What one replica notices leaves the memories of all others.

use std::time::{Duration, Instant};

use avatar_proxy::demo::{Address, Options};
use http::Method;

use super::ADA;
use crate::support::app::{TestApp, World};
use crate::support::client::Answer;
use crate::support::eventually::eventually;
use crate::support::hand::{self, SECOND, change, look};
use crate::support::redis::Redis;

const BOB: &str = "999002";
const HOUR: Duration = Duration::from_secs(3600);

/// How soon a replica forgets what another one knows to be old.
const SOON: Duration = Duration::from_secs(1);

/// A world whose clock the test moves, where nobody is looked at but when a test wants it.
async fn world(server: &Redis) -> World {
    hand::world(Options::default()).await.on(server).flag("--recheck-interval=365d").flag("--warm-for=1s")
}

async fn stop(apps: Vec<TestApp>) {
    for app in apps {
        app.stop().await;
    }
}

/// Everybody has these people in memory.
async fn all_know(apps: &[TestApp], people: &[&str]) {
    for who in people {
        for app in apps {
            app.avatar(who).await;
            app.avatar(who).await.expect(200, "hit; ttl=");
        }
    }
}

async fn memory_hits(app: &TestApp) -> f64 {
    app.metric("avatar_proxy_lookups_total{met=\"memory\"}").await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_change_that_one_replica_notices_leaves_the_memories_of_the_others() {
    let server = Redis::start();
    let world = world(&server).await;
    let apps = world.start_many(3).await;
    for who in [ADA, BOB] {
        world.gateway.person(who).picture("17");
    }
    all_know(&apps, &[ADA, BOB]).await;
    for (round, id) in ["18", "19", "20"].into_iter().enumerate() {
        let (noticing, others) = (&apps[round], apps.iter().enumerate().filter(|(at, _)| *at != round));
        change(noticing, &world, ADA, id).await;
        let (noticed, lookups) = (Instant::now(), world.gateway.lookups());
        let new = noticing.avatar(ADA).await.expect(200, "hit; ttl=").url();
        for (_, other) in others {
            eventually("it answers with the new picture", async || other.avatar(ADA).await.url() == new).await;
            assert!(noticed.elapsed() < SOON, "{:?}", noticed.elapsed());
        }
        assert_eq!(world.gateway.lookups(), lookups, "which it has from the store");
    }
    for app in &apps {
        let before = memory_hits(app).await;
        app.avatar(BOB).await.expect(200, "hit; ttl=");
        assert!(memory_hits(app).await > before, "whoever did not change stays");
    }
    stop(apps).await;
}

#[tokio::test]
async fn what_a_replica_has_noticed_itself_stays_in_its_memory() {
    let server = Redis::start();
    let world = world(&server).await;
    let apps = world.start_many(2).await;
    world.gateway.person(ADA).picture("17");
    look(&apps[0], &world, ADA).await;
    change(&apps[0], &world, ADA, "18").await;
    // When the other one has heard of it, so has this one: both wait for the same.
    let reads = async |app: &TestApp| app.metric("avatar_proxy_store_seconds_count{operation=\"read_log\"}").await;
    let before = reads(&apps[0]).await;
    eventually("the log is read", async || reads(&apps[0]).await > before + 2.5).await;
    let (hits, finds) = (memory_hits(&apps[0]).await, memory_hits(&apps[1]).await);
    apps[0].avatar(ADA).await.expect(200, "hit; ttl=");
    assert!(memory_hits(&apps[0]).await > hits);
    apps[1].avatar(ADA).await.expect(200, "hit; ttl=");
    assert!(memory_hits(&apps[1]).await < finds + 0.5, "that one has it from the store");
    stop(apps).await;
}

#[tokio::test]
async fn who_is_forgotten_by_one_replica_is_in_no_memory() {
    let server = Redis::start();
    let world = world(&server).await;
    let apps = world.start_many(3).await;
    all_know(&apps, &[ADA]).await;
    let answer = apps[0].send(Method::DELETE, &format!("/avatars/{ADA}"), &[]).await.unwrap();
    assert_eq!(answer.status, 204);
    let forgotten = Instant::now();
    for app in &apps {
        let absent = async || app.avatar_asking(ADA, "only-if-cached").await.status == 504;
        eventually("it knows nothing of her", absent).await;
        assert!(forgotten.elapsed() < SOON, "{:?}", forgotten.elapsed());
    }
    stop(apps).await;
}

#[tokio::test]
async fn a_replica_that_did_not_hear_of_a_change_in_time_forgets_everything() {
    let server = Redis::start();
    let world = world(&server).await.flag("--retention=10h");
    let apps = world.start_many(1).await;
    world.gateway.person(ADA).picture("17");
    all_know(&apps, &[ADA, BOB]).await;
    // Nothing reaches the first one, as if it were cut off, until what it should hear of is no longer kept.
    let trimmed = ["HINCRBY {avatar-proxy}:meta last 5", "HINCRBY {avatar-proxy}:meta trimmed 4"];
    for command in trimmed {
        server.ask(command);
    }
    let from_the_store = async || {
        apps[0].avatar(BOB).await.expect(200, "hit; ttl=");
        apps[0].metric("avatar_proxy_lookups_total{met=\"store\"}").await > 0.5
    };
    eventually("it asks the store again", from_the_store).await;
    stop(apps).await;
}

fn age(answer: &Answer) -> u64 {
    answer.headers["age"].to_str().unwrap().parse().unwrap()
}

#[tokio::test]
async fn what_another_replica_has_looked_at_again_is_not_looked_at_once_more() {
    let server = Redis::start();
    let world = hand::world(Options::default()).await.on(&server).flag("--recheck-interval=7d");
    world.gateway.person(ADA).address(Address::Lasting(10 * HOUR));
    let apps = world.start_many(3).await;
    all_know(&apps, &[ADA]).await;
    world.clock.advance(8 * HOUR);
    eventually("one of them renews her URL", async || world.gateway.lookups() == 2).await;
    // Long enough for the other memories to hold what seems to have been passed over.
    world.clock.advance(10 * SECOND);
    for app in &apps {
        eventually("it answers with the later look", async || age(&app.avatar(ADA).await) < 60).await;
    }
    assert_eq!(world.gateway.lookups(), 2);
    stop(apps).await;
}
