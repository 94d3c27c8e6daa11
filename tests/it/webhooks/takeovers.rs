//! Replicas that die and stand still at any instant while they deliver: each event arrives, in its person's order.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use avatar_proxy::clock::Clock;
use avatar_proxy::demo::Options;
use tokio::sync::watch;

use super::kills::{PEOPLE, ask, phone, takes_its_time, turn_pictures};
use super::{at_home, ids, ids_of, in_order};
use crate::support::app::World;
use crate::support::eventually::eventually;
use crate::support::process::Process;
use crate::support::receiver::Receiver;
use crate::support::redis::Redis;

/// Longer than a lease lasts that nobody keeps.
const PAUSE: Duration = Duration::from_secs(7);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_becomes_of_deliverers_everything_arrives_in_order() {
    const ROUNDS: usize = 4;
    let (server, receiver) = (Redis::start(), Receiver::new().await);
    // URLs that live for a second, so that whoever is asked for is looked at.
    let (url_lifetime, expiry_step) = (Duration::from_secs(3)..=Duration::from_secs(3), Duration::from_secs(1));
    let options = Options { url_lifetime, expiry_step, ..Options::default() };
    let world = at_home(World::with(options, Clock::system()).await).on(&server);
    let world = world.flag(&format!("--webhook={}", receiver.url("/"))).flag("--webhook-secret=s3cret");
    let people: Vec<_> = (0..PEOPLE).map(|person| world.gateway.person(&phone(person)).picture("0")).collect();
    let mut replicas = vec![];
    for _ in 0..3 {
        let process = Process::start(&world);
        let asks = tokio::spawn(ask(process.client.clone()));
        replicas.push((process, asks));
    }
    for person in 0..PEOPLE {
        replicas[0].0.client.avatar(&phone(person)).await;
    }
    let (stop, stopped) = watch::channel(false);
    let turning = tokio::spawn(turn_pictures(people.clone(), stopped));
    let slow = Arc::new(AtomicBool::new(true));
    let accepted = takes_its_time(&receiver, &slow);
    for round in 0..ROUNDS {
        let before = accepted.lock().unwrap().len();
        eventually("somebody delivers", async || accepted.lock().unwrap().len() > before + 5).await;
        // Two of three at once: the one that delivers is among them more often than not.
        let (other, one) = (replicas.remove(0), replicas.remove(0));
        one.0.pause();
        if round % 2 == 0 {
            drop(other.0);
        } else {
            other.0.pause();
            tokio::time::sleep(PAUSE).await;
            other.0.resume();
            replicas.push(other);
        }
        let before = accepted.lock().unwrap().len();
        eventually("somebody else delivers", async || accepted.lock().unwrap().len() > before + 5).await;
        one.0.resume();
        replicas.push(one);
        while replicas.len() < 3 {
            let process = Process::start(&world);
            let asks = tokio::spawn(ask(process.client.clone()));
            replicas.push((process, asks));
        }
    }
    stop.send_replace(true);
    turning.await.unwrap();
    slow.store(false, Ordering::Relaxed);
    let client = &replicas[0].0.client;
    for person in &people {
        eventually("everybody is caught up with", async || {
            let known = client.get(&format!("/avatars/{}/changes?limit=1", person.jid())).await.json();
            person.picture_id() == "0" || known["changes"][0]["payload"]["new_id"] == person.picture_id()
        })
        .await;
    }
    let log = client.change_log().await;
    eventually("everything is accepted", async || accepted.lock().unwrap().len() >= log.len()).await;
    let requests = receiver.requests();
    assert_eq!(ids(&requests), ids_of(&log), "what is in the log, and nothing else");
    let versions = in_order(&requests);
    assert!(versions.values().all(|versions| versions.iter().copied().eq(1..=versions.len() as u64)), "{versions:?}");
    let mut bodies = HashMap::new();
    for request in &requests {
        let first = bodies.entry(request.header("webhook-id")).or_insert(&request.body);
        assert_eq!(*first, &request.body, "the same whenever it is sent");
    }
    println!("{ROUNDS} rounds: {} changes, {} deliveries, 0 lost", log.len(), requests.len());
    for (process, asks) in replicas {
        asks.abort();
        drop(process);
    }
}
