//! `kill -9` at any instant while pictures change: what was announced is in the log, once, and nobody is left behind.
//!
//! The gateway, in this process, outlives the proxy and remembers what was true when. A subscriber follows the change log across
//! all the kills, coming back with the last cursor it saw.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use avatar_proxy::clock::Clock;
use avatar_proxy::demo::{Options, PersonHandle, Reply};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::support::app::World;
use crate::support::client::Client;
use crate::support::eventually::eventually;
use crate::support::process::Process;
use crate::support::subscriber::{Event, Subscriber};

const PEOPLE: u64 = 12;

fn phone(person: u64) -> String {
    format!("{}", 999_000 + person)
}

/// What the gateway showed of each person, in its turn; `None`: no picture.
type Histories = Arc<Mutex<HashMap<String, Vec<Option<String>>>>>;

/// Lets people change their pictures, some often and some seldom, now and then to one they had before or to none.
async fn turn_pictures(people: Vec<PersonHandle>, histories: Histories, mut stop: watch::Receiver<bool>) {
    while !*stop.borrow_and_update() {
        let person = &people[fastrand::usize(..people.len()).min(fastrand::usize(..people.len()))];
        let next = (fastrand::u8(..10) > 0).then(|| fastrand::u8(1..6).to_string());
        {
            let mut histories = histories.lock().unwrap();
            let history = histories.get_mut(&person.jid().to_string()).unwrap();
            if history.last() != Some(&next) {
                history.push(next.clone());
                match next {
                    Some(id) => person.replies(Reply::Present).picture(&id),
                    None => person.replies(Reply::NotSet),
                };
            }
        }
        tokio::time::sleep(Duration::from_millis(fastrand::u64(1..15))).await;
    }
}

/// Asks for everybody, over and over.
fn ask(client: Client) -> JoinHandle<()> {
    tokio::spawn(async move {
        loop {
            let target = format!("/user/avatar?phone={}", phone(fastrand::u64(..PEOPLE)));
            if client.send(http::Method::GET, &target, &[]).await.is_err() {
                return;
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    })
}

/// Follows the log until the connection breaks.
fn follow(process: &Process, announced: &Arc<Mutex<Vec<Event>>>) -> JoinHandle<()> {
    let (address, announced) = (process.address(), announced.clone());
    tokio::spawn(async move {
        let last = announced.lock().unwrap().last().map_or("earliest".to_owned(), |event: &Event| event.id.clone());
        let Some(mut subscriber) = Subscriber::try_new(address, &format!("/events?last_event_id={last}")).await else {
            return;
        };
        while let Ok(Some(event)) = subscriber.try_next().await {
            announced.lock().unwrap().push(event);
        }
    })
}

/// What was believed of one person, in its turn, by the log: the versions have no holes and each change begins where the one
/// before it ended.
fn chain(log: &[serde_json::Value], jid: &str) -> Vec<Option<String>> {
    let mut beliefs: Vec<Option<String>> = vec![];
    let payloads = log.iter().map(|event| &event["payload"]).filter(|payload| payload["jid"] == jid);
    for (version, payload) in (1..).zip(payloads) {
        let id = |name: &str| payload[name].as_str().map(str::to_owned);
        assert_eq!(payload["version"], version, "{payload}");
        match beliefs.last() {
            Some(last) => assert_eq!(*last, id("old_id"), "{payload}"),
            None => beliefs.push(id("old_id")),
        }
        assert_ne!(id("old_id"), id("new_id"), "{payload}");
        beliefs.push(id("new_id"));
    }
    beliefs
}

fn is_ordered_part(part: &[Option<String>], whole: &[Option<String>]) -> bool {
    let mut rest = whole.iter();
    part.iter().all(|one| rest.any(|other| other == one))
}

/// Kills the process so many times; tells what there was to compare.
async fn survives(kills: usize) {
    let options = Options { latency: Duration::ZERO..=Duration::from_millis(3), ..Options::default() };
    let world = World::with(options, Clock::system()).await;
    let world = world.flag("--recheck-interval=40ms").flag("--not-set-ttl=40ms").flag("--confirm-after=30ms");
    let people: Vec<_> = (0..PEOPLE).map(|person| world.gateway.person(&phone(person)).picture("0")).collect();
    let first = |person: &PersonHandle| (person.jid().to_string(), vec![Some("0".to_owned())]);
    let histories: Histories = Arc::new(Mutex::new(people.iter().map(first).collect()));
    // Everybody's baseline: what changes before the first look is nothing that anybody could notice, and no change in the log.
    let process = Process::start(&world);
    for person in 0..PEOPLE {
        process.client.avatar(&phone(person)).await.expect(200, "fwd=miss; stored");
    }
    drop(process);
    let (stop, stopped) = watch::channel(false);
    let turning = tokio::spawn(turn_pictures(people.clone(), histories.clone(), stopped));
    let announced = Arc::new(Mutex::new(vec![]));

    for _ in 0..kills {
        let process = Process::start(&world);
        let (asking, following) = (ask(process.client.clone()), follow(&process, &announced));
        tokio::time::sleep(Duration::from_millis(fastrand::u64(5..200))).await;
        drop(process);
        for task in [asking, following] {
            // One that was in the middle of an answer panics, as it should.
            let _ = task.await;
        }
    }
    stop.send_replace(true);
    turning.await.unwrap();

    let process = Process::start(&world);
    let following = follow(&process, &announced);
    let client = &process.client;
    let histories = histories.lock().unwrap().clone();
    for (jid, history) in histories.iter().filter(|(_, history)| history.len() > 1) {
        let truth = history.last().unwrap();
        eventually("everybody is caught up with", async || {
            // Whom a killed process was about to look at comes up again when its lease ends; who asks does not wait for that.
            let _ = client.avatar_asking(jid, "no-cache").await;
            let known = client.get(&format!("/avatars/{jid}/changes?limit=1")).await.json();
            known["changes"][0]["payload"]["new_id"].as_str().map(str::to_owned) == *truth
        })
        .await;
    }
    let log = client.change_log().await;
    eventually("everything is announced", async || announced.lock().unwrap().len() >= log.len()).await;
    let announced: Vec<_> = announced.lock().unwrap().iter().map(Event::json).collect();
    assert!(announced == log, "announced once, in order, what is in the log: {} and {}", announced.len(), log.len());
    let mut ids: Vec<_> = log.iter().map(|event| event["payload"]["id"].as_str().unwrap()).collect();
    ids.sort_unstable();
    ids.dedup();
    assert_eq!(ids.len(), log.len(), "nothing twice");
    for (jid, history) in &histories {
        let chain = chain(&log, jid);
        assert!(is_ordered_part(&chain, history), "{chain:?} is no ordered part of {history:?}");
    }
    let changes: usize = histories.values().map(|history| history.len() - 1).sum();
    println!(
        "{kills} kills: {changes} changes at the gateway, {} noticed, {} announced, 0 lost, 0 twice",
        log.len(),
        announced.len()
    );
    assert!(log.len() > kills, "there was something to lose: {}", log.len());
    following.abort();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_announced_survives_a_kill_at_any_instant() {
    survives(20).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "takes a minute or two: make e2e"]
async fn e2e_three_hundred_kills() {
    survives(300).await;
}
