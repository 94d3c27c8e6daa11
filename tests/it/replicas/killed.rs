//! A replica that is killed: what it was looking at, for clients or by itself, is looked at by another one within seconds. One that
//! only stood still goes on.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use avatar_proxy::clock::Clock;
use avatar_proxy::demo::Options;
use http::Method;
use tokio::time::Instant;

use super::ADA;
use crate::support::app::World;
use crate::support::eventually::eventually;
use crate::support::process::Process;
use crate::support::redis::Redis;

const BOB: &str = "999002";
const CAROL: &str = "999003";

/// Sooner than the leases of its lookups end: the gateway's timeout, 20 s, and 10 s.
const SOON: Duration = Duration::from_secs(25);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_asks_another_replica_is_answered_though_the_one_that_was_killed_had_all_places() {
    let server = Redis::start();
    let world = World::with(Options::default(), Clock::system()).await.on(&server);
    let world = world.flag("--gateway-rate=100/s").flag(&format!("--max-wait={}s", SOON.as_secs()));
    let killed = Process::start(&world);
    let other = Process::start(&world);
    // So the device has places of its own: two.
    killed.client.avatar("999009").await.expect(200, "fwd=miss; stored");
    let mut held = vec![];
    for phone in [ADA, BOB] {
        let person = world.gateway.person(phone);
        held.push(person.hold_next());
        let client = killed.client.clone();
        tokio::spawn(async move { client.send(Method::GET, &format!("/user/avatar?phone={phone}"), &[]).await });
        person.arrived(1).await;
    }
    killed.kill();
    let began = Instant::now();
    let (ada, carol) = tokio::join!(other.client.avatar(ADA), other.client.avatar(CAROL));
    ada.expect(200, "fwd=miss; stored");
    carol.expect(200, "fwd=miss; stored");
    assert!(began.elapsed() < SOON, "{:?}", began.elapsed());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_changes_is_noticed_by_another_replica_though_the_one_that_was_killed_had_taken_it() {
    let server = Redis::start();
    let world = World::with(Options::default(), Clock::system()).await.on(&server).flag("--recheck-interval=100ms");
    let ada = world.gateway.person(ADA).picture("17");
    let killed = Process::start(&world);
    killed.client.avatar(ADA).await.expect(200, "fwd=miss; stored");
    let _held = ada.hold_next();
    ada.arrived(2).await;
    let other = Process::start(&world);
    killed.kill();
    ada.picture("18");
    eventually("it is noticed", async || other.client.change_log().await.len() == 1).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_stood_still_does_not_take_the_store_for_gone() {
    let server = Redis::start();
    let world = World::with(Options::default(), Clock::system()).await.on(&server).flag("--gateway-rate=1000/s");
    let process = Process::start(&world);
    let is_over = Arc::new(AtomicBool::new(false));
    // So that questions to the store are under way whenever it stops.
    let asking: Vec<_> = (0..32)
        .map(|client| {
            let (asks, is_over) = (process.client.clone(), is_over.clone());
            tokio::spawn(async move {
                for round in 0.. {
                    if is_over.load(Ordering::Relaxed) {
                        break;
                    }
                    asks.avatar(&(999_000_000 + client * 100_000 + round).to_string()).await;
                }
            })
        })
        .collect();
    tokio::time::sleep(Duration::from_millis(500)).await;
    // A little and much longer than a question to the store may take.
    for millis in [2_100, 6_000] {
        process.pause();
        tokio::time::sleep(Duration::from_millis(millis)).await;
        process.resume();
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
    is_over.store(true, Ordering::Relaxed);
    for asking in asking {
        asking.await.unwrap();
    }
    process.client.avatar("999999").await;
    let log = process.kill();
    assert!(!log.iter().any(|line| line.contains("the store fails")), "{log:?}");
}
