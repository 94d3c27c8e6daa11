//! `kill -9` at any instant while events are delivered: each arrives, in its person's order, and is the same whenever it is sent
//! again.
//!
//! The receivers, in this process, outlive the proxy and remember what they were sent and what they answered.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use avatar_proxy::clock::Clock;
use avatar_proxy::demo::{Options, PersonHandle};
use serde_json::json;
use tokio::sync::watch;

use super::{at_home, event, ids, ids_of, in_order, made};
use crate::support::app::World;
use crate::support::client::Client;
use crate::support::eventually::eventually;
use crate::support::process::Process;
use crate::support::receiver::{Receiver, Reply};

pub(super) const PEOPLE: u64 = 12;

pub(super) fn phone(person: u64) -> String {
    format!("{}", 999_600 + person)
}

/// Lets people change their pictures, each time to one that they never had.
pub(super) async fn turn_pictures(people: Vec<PersonHandle>, mut stop: watch::Receiver<bool>) {
    let mut pictures = 1..;
    while !*stop.borrow_and_update() {
        let id = pictures.next().unwrap_or_default().to_string();
        people[fastrand::usize(..people.len())].picture(&id);
        tokio::time::sleep(Duration::from_millis(fastrand::u64(1..10))).await;
    }
}

/// Asks for everybody, until nobody answers.
pub(super) async fn ask(client: Client) {
    loop {
        let target = format!("/user/avatar?phone={}", phone(fastrand::u64(..PEOPLE)));
        if client.send(http::Method::GET, &target, &[]).await.is_err() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

/// Has a receiver take a moment for each answer, as long as `slow` says so: a kill can come before, within and behind it, and one
/// person's events wait for each other. The first attempt about the first person it refuses, so that something is kept for later.
/// Counts what it says yes to, by id.
pub(super) fn takes_its_time(receiver: &Receiver, slow: &Arc<AtomicBool>) -> Arc<Mutex<HashMap<String, u32>>> {
    let slow = slow.clone();
    let (accepted, mut refuses) = (Arc::new(Mutex::new(HashMap::new())), true);
    let noted = accepted.clone();
    receiver.answers(move |request| {
        let about_the_first = event(request)["payload"]["jid"] == format!("{}@s.whatsapp.net", phone(0));
        if about_the_first && std::mem::take(&mut refuses) {
            return Reply::status(500);
        }
        *noted.lock().unwrap().entry(request.header("webhook-id").to_owned()).or_default() += 1;
        let pause = if slow.load(Ordering::Relaxed) { fastrand::u64(..120) } else { 0 };
        Reply::status(200).after(Duration::from_millis(pause))
    });
    accepted
}

/// Kills the process so many times; tells what there was to lose.
async fn survives(kills: usize) {
    let options = Options { latency: Duration::ZERO..=Duration::from_millis(2), ..Options::default() };
    let [given, added] = [Receiver::new().await, Receiver::new().await];
    let world =
        at_home(World::with(options, Clock::system()).await).flag("--recheck-interval=40ms").flag("--warm-for=7d");
    let world = world.flag(&format!("--webhook={}", given.url("/"))).flag("--webhook-secret=s3cret");
    let people: Vec<_> = (0..PEOPLE).map(|person| world.gateway.person(&phone(person)).picture("0")).collect();
    let process = Process::start(&world);
    for person in 0..PEOPLE {
        process.client.avatar(&phone(person)).await.expect(200, "fwd=miss; stored");
    }
    made(&process.client, &json!({"url": added.url("/")})).await;
    drop(process);
    let (stop, stopped) = watch::channel(false);
    let turning = tokio::spawn(turn_pictures(people.clone(), stopped));
    let slow = Arc::new(AtomicBool::new(true));
    let accepted = [&given, &added].map(|receiver| takes_its_time(receiver, &slow));

    for _ in 0..kills {
        let process = Process::start(&world);
        let asking = tokio::spawn(ask(process.client.clone()));
        tokio::time::sleep(Duration::from_millis(fastrand::u64(5..300))).await;
        drop(process);
        // One that was in the middle of an answer panics, as it should; so does one that never learns of the kill, after a while.
        let _ = asking.await;
    }
    stop.send_replace(true);
    turning.await.unwrap();
    // Whoever is killed every moment gets little done: all the rest comes now.
    slow.store(false, Ordering::Relaxed);

    let process = Process::start(&world);
    let client = &process.client;
    for person in &people {
        eventually("everybody is caught up with", async || {
            let jid = person.jid();
            // Whom a killed process was about to look at comes up again when its lease ends; who asks does not wait for that.
            let _ = client.avatar_asking(&jid.to_string(), "no-cache").await;
            let known = client.get(&format!("/avatars/{jid}/changes?limit=1")).await.json();
            person.picture_id() == "0" || known["changes"][0]["payload"]["new_id"] == person.picture_id()
        })
        .await;
    }
    let log = client.change_log().await;
    let (mut sent, mut again) = (0, 0);
    for (receiver, accepted) in [&given, &added].into_iter().zip(&accepted) {
        eventually("everything is accepted", async || accepted.lock().unwrap().len() >= log.len()).await;
        let requests = receiver.requests();
        assert_eq!(ids(&requests), ids_of(&log), "what is in the log, and nothing else");
        let versions = in_order(&requests);
        assert!(
            versions.values().all(|versions| versions.iter().copied().eq(1..=versions.len() as u64)),
            "{versions:?}"
        );
        let mut bodies = HashMap::new();
        for request in &requests {
            let first = bodies.entry(request.header("webhook-id")).or_insert(&request.body);
            assert_eq!(*first, &request.body, "the same whenever it is sent");
        }
        sent += requests.len();
        again += requests.len() - bodies.len();
    }
    println!("{kills} kills: {} changes, {sent} deliveries to 2 endpoints, {again} of them again, 0 lost", log.len());
    assert!(log.len() > kills && again > 0, "there was something to lose: {} changes, {again} sent again", log.len());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_delivered_while_the_proxy_is_killed_arrives_in_order_and_under_the_same_id() {
    survives(20).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "takes a minute: make e2e"]
async fn e2e_two_hundred_kills_of_deliveries() {
    survives(200).await;
}
