//! Many replicas for a long time: `make soak-replicas`.

use std::collections::{BTreeMap, HashSet};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use avatar_proxy::clock::Clock;
use avatar_proxy::demo::Options;
use tokio::sync::Barrier;
use tokio::task::JoinSet;

use super::fleet::Fleet;
use crate::replicas::budget::Ordeal;
use crate::replicas::confirmed::in_step;
use crate::support::app::World;
use crate::support::client::Client;
use crate::support::eventually::eventually;
use crate::support::process::Process;
use crate::support::redis::Redis;
use crate::support::relay::Relay;
use crate::support::subscriber::Subscriber;

/// Longer ago than any look that `no-cache` is content with.
const NO_LONGER_RECENT: Duration = Duration::from_millis(10_500);

/// How long somebody is asked for until the newest picture is seen: a replica that died had the key in hand for 15 s.
const PATIENCE: Duration = Duration::from_secs(60);

fn from_environment(name: &str, otherwise: u64) -> u64 {
    std::env::var(name).map_or(otherwise, |number| number.parse().unwrap_or_else(|_| panic!("{name} is a number")))
}

fn phone(person: u64) -> String {
    (999_000_000 + person).to_string()
}

/// The proxy's figures are of real time here. Leases are short, because many die.
async fn world() -> World {
    let world = World::with(Options::default(), Clock::system()).await;
    world.flag("--recheck-interval=365d").flag("--gateway-timeout=5s")
}

/// Each of so many people changes picture so often, and is asked for by two clients at once whenever the last look is no longer
/// recent, until the new picture is seen.
struct Crowd {
    people: u64,
    rounds: u64,
    noticed: Arc<AtomicU64>,
}

/// Clients that ask at the same time, each for people of its own.
const CLIENTS: u64 = 256;

impl Crowd {
    fn new(people: u64, rounds: u64) -> Self {
        Self { people, rounds, noticed: Arc::default() }
    }

    async fn asks(&self, world: &World, fleet: &Fleet) {
        let mut clients = JoinSet::new();
        for client in 0..CLIENTS {
            let people: Vec<_> = (client..self.people)
                .step_by(usize::try_from(CLIENTS).unwrap())
                .map(|person| (phone(person), world.gateway.person(&phone(person))))
                .collect();
            let (fleet, noticed, rounds) = (fleet.clone(), self.noticed.clone(), self.rounds);
            clients.spawn(async move {
                for round in 0..=rounds {
                    let began = Instant::now();
                    for (phone, person) in &people {
                        let id = round.to_string();
                        person.picture(&id);
                        let asked = Instant::now();
                        loop {
                            let (one, other) = tokio::join!(fleet.look(phone), fleet.look(phone));
                            if one.status == 200 && one.picture_id() == id && other.picture_id() == id {
                                break;
                            }
                            assert!(asked.elapsed() < PATIENCE, "never seen: {one:?} {other:?}");
                            tokio::time::sleep(Duration::from_millis(200)).await;
                        }
                        noticed.fetch_add(u64::from(round > 0), Ordering::Relaxed);
                    }
                    tokio::time::sleep(NO_LONGER_RECENT.saturating_sub(began.elapsed())).await;
                }
            });
        }
        while let Some(ended) = clients.join_next().await {
            ended.unwrap();
        }
    }
}

/// What subscribers were told, or what is in the log: of whom, the new ids in their order.
fn by_person(log: &[serde_json::Value]) -> BTreeMap<String, Vec<u64>> {
    let mut found: BTreeMap<String, Vec<u64>> = BTreeMap::new();
    for event in log {
        let payload = &event["payload"];
        let id = payload["new_id"].as_str().and_then(|id| id.parse().ok()).expect("a picture's number");
        found.entry(payload["jid"].as_str().unwrap().to_owned()).or_default().push(id);
    }
    found
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "takes many minutes: make soak-replicas"]
async fn each_of_a_million_changes_is_recorded_once_whatever_becomes_of_eight_replicas() {
    let changes = from_environment("SOAK_CHANGES", 1_000_000);
    let (server, world) = (Redis::start(), world().await);
    let (world, fleet, people) = (world.on(&server), Fleet::default(), 20_000.min(changes));
    let crowd = Crowd::new(people, changes / people);
    let mut replicas: Vec<Process> = (0..8).map(|_| fleet.start(&world)).collect();
    let (began, is_over) = (Instant::now(), AtomicBool::new(false));
    let asking = async {
        crowd.asks(&world, &fleet).await;
        is_over.store(true, Ordering::Relaxed);
    };
    let mut happened = [0; 3];
    let troubling = async {
        while !is_over.load(Ordering::Relaxed) {
            tokio::time::sleep(Duration::from_secs(fastrand::u64(5..15))).await;
            let process = replicas.remove(fastrand::usize(..replicas.len()));
            let lot = fastrand::usize(..happened.len());
            happened[lot] += 1;
            if lot == 0 {
                process.pause();
                // As a health check does that is not answered.
                fleet.leave_out(&process);
                tokio::time::sleep(Duration::from_secs(fastrand::u64(1..20))).await;
                process.resume();
                fleet.take_in(&process);
                replicas.push(process);
                continue;
            }
            fleet.leave_out(&process);
            if lot == 1 {
                drop(process);
            } else {
                process.ask_to_stop();
                eventually("it ends", async || process.client.send(http::Method::GET, "/health", &[]).await.is_err())
                    .await;
            }
            replicas.push(fleet.start(&world));
            println!("{} changes in {:.0} s", crowd.noticed.load(Ordering::Relaxed), began.elapsed().as_secs_f64());
        }
    };
    tokio::join!(asking, troubling);
    let (took, each_second) =
        (began.elapsed().as_secs(), crowd.noticed.load(Ordering::Relaxed) / began.elapsed().as_secs().max(1));
    let log = fleet.any().1.change_log().await;
    let (found, noticed) = (by_person(&log), crowd.noticed.load(Ordering::Relaxed));
    assert_eq!((found.len() as u64, log.len() as u64), (people, noticed));
    let expected: Vec<u64> = (1..=crowd.rounds).collect();
    for (jid, ids) in found {
        assert_eq!(ids, expected, "{jid}");
    }
    let [paused, killed, stopped] = happened;
    println!(
        "8 replicas, {noticed} noticed changes in {took} s ({each_second}/s): recorded twice 0, lost 0; {} lookups; {killed} kills, \
         {stopped} stops, {paused} times standing still",
        world.gateway.lookups(),
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "takes many minutes: make soak-replicas"]
async fn what_is_announced_outlasts_a_hundred_primaries() {
    let failovers = from_environment("SOAK_FAILOVERS", 100);
    let mut primary = Redis::start();
    let serves = Relay::to(primary.port()).await;
    let world = world().await.flag(&format!("--store=redis://127.0.0.1:{}", serves.port()));
    let (world, fleet, is_over) = (Arc::new(world), Fleet::default(), Arc::new(AtomicBool::new(false)));
    let replicas: Vec<Process> = (0..2).map(|_| fleet.start(&world)).collect();
    let told: Vec<_> = {
        let mut told = vec![];
        for replica in &replicas {
            let ids = Arc::new(Mutex::new(vec![]));
            let (mut subscriber, notes) = (Subscriber::new(replica.address(), "/events", &[]).await, ids.clone());
            tokio::spawn(async move {
                while let Ok(Some(event)) = subscriber.try_next().await {
                    let id = event.json()["payload"]["id"].as_str().unwrap_or("gap").to_owned();
                    notes.lock().unwrap().push(id);
                }
            });
            told.push(ids);
        }
        told
    };
    // Whoever is asked for has another picture than the last time; what becomes of the question does not matter.
    let mut load = JoinSet::new();
    for client in 0..32 {
        let (world, fleet, is_over) = (world.clone(), fleet.clone(), is_over.clone());
        load.spawn(async move {
            let mut round = 0_u64;
            while !is_over.load(Ordering::Relaxed) {
                round += 1;
                let person = phone(client * 100 + round % 100);
                world.gateway.person(&person).picture(&round.to_string());
                let asked = tokio::time::timeout(Duration::from_secs(2), fleet.look(&person));
                let _ = asked.await;
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        });
    }
    let mut lost = 0;
    for round in 0..failovers {
        let replicates = Relay::to(primary.port()).await;
        let replica = Redis::with(&[&format!("--replicaof 127.0.0.1 {}", replicates.port())]);
        in_step(&replica).await;
        let before = told[0].lock().unwrap().len();
        eventually("changes are announced", async || told[0].lock().unwrap().len() > before + 20).await;
        // In its last moments the primary has what its replica has not.
        replicates.hold();
        tokio::time::sleep(Duration::from_millis(fastrand::u64(50..400))).await;
        let length = |server: &Redis| redis::from_redis_value::<u64>(server.ask("XLEN {avatar-proxy}:log")).unwrap();
        let had = length(&primary);
        primary.kill();
        replica.ask("REPLICAOF NO ONE");
        lost += had.saturating_sub(length(&replica));
        serves.lead_to(replica.port());
        primary = replica;
        if round % 10 == 9 {
            println!("{} failovers, {} announced", round + 1, told[0].lock().unwrap().len());
        }
    }
    is_over.store(true, Ordering::Relaxed);
    while load.join_next().await.is_some() {}
    let client = &replicas[0].client;
    eventually("the store is back after the last failover", async || client.get("/changes").await.status == 200).await;
    let log = client.change_log().await;
    let kept: HashSet<_> = log.iter().map(|event| event["payload"]["id"].as_str().unwrap().to_owned()).collect();
    let told: Vec<String> = told.iter().flat_map(|told| told.lock().unwrap().clone()).collect();
    let gaps = told.iter().filter(|id| *id == "gap").count();
    let told: HashSet<String> = told.into_iter().filter(|id| id != "gap").collect();
    let gone = told.difference(&kept).count();
    assert_eq!(gone, 0, "announced and lost, of {}", told.len());
    println!(
        "{failovers} primaries killed: {} changes announced, 0 of them lost ({lost} lost that were not announced), {gaps} gaps",
        told.len()
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "takes many minutes: make soak-replicas"]
async fn the_budget_holds_for_a_day_whatever_becomes_of_replicas() {
    let hours = u32::try_from(from_environment("SOAK_HOURS", 24)).unwrap();
    // Half of the longest step on average; more is asked for than the rate allows.
    let (step, steps) = (Duration::from_secs(2), hours * 3600);
    let endured = Ordeal { rate: 0.3, burst: 20, step, steps }.is_endured().await;
    println!(
        "{:.1} h by the clock of the test: {} lookups, 0 more than the budget allows; {} replicas died or stopped, {} lost sight \
         of the store",
        endured.time.as_secs_f64() / 3600.0,
        endured.starts,
        endured.ends,
        endured.losses,
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "takes many minutes: make soak-replicas"]
async fn eight_times_a_thousand_clients_of_one_cold_key_make_one_lookup() {
    const CLIENTS: usize = 1000;
    rlimit::increase_nofile_limit(u64::MAX).expect("a limit");
    let server = Redis::start();
    let (world, fleet) = (world().await.on(&server), Fleet::default());
    let replicas: Vec<Process> = (0..8).map(|_| fleet.start(&world)).collect();
    let person = world.gateway.person(&phone(1)).picture("17");
    let all_connected = Arc::new(Barrier::new(8 * CLIENTS + 1));
    let mut clients = JoinSet::new();
    for process in &replicas {
        for _ in 0..CLIENTS {
            let (client, all_connected) = (Client::new(process.address()), all_connected.clone());
            clients.spawn(async move {
                client.get("/health").await;
                all_connected.wait().await;
                client.avatar(&phone(1)).await
            });
        }
    }
    let hold = person.hold();
    all_connected.wait().await;
    person.arrived(1).await;
    let mut connected = 0.0;
    for process in &replicas {
        connected += process.client.metric("avatar_proxy_http_connections").await;
    }
    assert!(connected >= 8.0 * 1000.0);
    tokio::time::sleep(Duration::from_secs(2)).await;
    let released = Instant::now();
    hold.release();
    let mut answers = 0;
    while let Some(answer) = clients.join_next().await {
        let answer = answer.unwrap();
        assert!(answer.status == 200 && answer.picture_id() == "17", "{answer:?}");
        answers += 1;
    }
    assert_eq!(person.lookups(), 1);
    println!("{answers} clients of 8 replicas: 1 lookup, and all had the answer after {:?}", released.elapsed());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "takes many minutes: make soak-replicas"]
async fn a_rolling_restart_fails_nobody_and_loses_no_subscriber_anything() {
    const SUBSCRIBERS: usize = 1000;
    rlimit::increase_nofile_limit(u64::MAX).expect("a limit");
    let server = Redis::start();
    let (world, fleet) = (world().await.on(&server), Fleet::default());
    let mut replicas: Vec<Process> = (0..8).map(|_| fleet.start(&world)).collect();
    let is_over = Arc::new(AtomicBool::new(false));
    let told: Vec<_> = (0..SUBSCRIBERS).map(|_| Arc::new(Mutex::new(Vec::<String>::new()))).collect();
    let (mut subscribers, connected) = (JoinSet::new(), Arc::new(AtomicU64::new(0)));
    for told in &told {
        let (told, fleet, connected) = (told.clone(), fleet.clone(), connected.clone());
        subscribers.spawn(async move {
            let mut last = "earliest".to_owned();
            loop {
                let target = format!("/events?last_event_id={last}");
                let Some(mut events) = Subscriber::try_new(fleet.any().0, &target).await else {
                    tokio::time::sleep(Duration::from_millis(20)).await;
                    continue;
                };
                connected.fetch_add(1, Ordering::Relaxed);
                while let Ok(Some(event)) = events.try_next().await {
                    assert_eq!(event.name, "", "nothing but changes: no gap");
                    last.clone_from(&event.id);
                    told.lock().unwrap().push(event.id);
                }
            }
        });
    }
    eventually("all subscribe", async || connected.load(Ordering::Relaxed) == SUBSCRIBERS as u64).await;
    let (requests, failed) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
    let mut load = JoinSet::new();
    for client in 0..32 {
        let (fleet, is_over) = (fleet.clone(), is_over.clone());
        let (requests, failed) = (requests.clone(), failed.clone());
        let people: Vec<_> = (0..10).map(|person| phone(client * 10 + person)).collect();
        let people: Vec<_> = people.into_iter().map(|phone| (world.gateway.person(&phone), phone)).collect();
        load.spawn(async move {
            for round in 0_u64.. {
                // Everybody has another picture, and is asked for until that is no longer recent.
                let began = Instant::now();
                for (person, _) in &people {
                    person.picture(&round.to_string());
                }
                let mut how = "no-cache";
                while began.elapsed() < NO_LONGER_RECENT {
                    for (_, phone) in &people {
                        let target = format!("/user/avatar?phone={phone}");
                        let answer = fleet.get(&target, &[("cache-control", how)]).await;
                        failed.fetch_add(u64::from(answer.status != 200), Ordering::Relaxed);
                        requests.fetch_add(1, Ordering::Relaxed);
                        tokio::time::sleep(Duration::from_millis(10)).await;
                    }
                    how = "max-stale";
                    if is_over.load(Ordering::Relaxed) {
                        return;
                    }
                }
            }
        });
    }
    tokio::time::sleep(Duration::from_secs(5)).await;
    for _ in 0..replicas.len() {
        let process = replicas.remove(0);
        replicas.push(fleet.start(&world));
        fleet.leave_out(&process);
        process.ask_to_stop();
        let (status, _) = tokio::task::spawn_blocking(move || process.ended()).await.unwrap();
        assert!(status.success(), "{status}");
        tokio::time::sleep(Duration::from_secs(3)).await;
    }
    is_over.store(true, Ordering::Relaxed);
    while load.join_next().await.is_some() {}
    let log: Vec<_> = fleet.any().1.change_log().await;
    for (number, told) in told.iter().enumerate() {
        eventually("a subscriber has heard of all", async || told.lock().unwrap().len() >= log.len()).await;
        let told = told.lock().unwrap();
        let different: HashSet<_> = told.iter().collect();
        assert_eq!((told.len(), different.len()), (log.len(), log.len()), "subscriber {number}");
    }
    subscribers.shutdown().await;
    let ((moved, cut_off), failed) = (fleet.asked_again(), failed.load(Ordering::Relaxed));
    assert_eq!((failed, cut_off), (0, 0));
    println!(
        "8 replicas restarted one by one: {} requests, 0 failed ({moved} were answered by another, as a load balancer sees to); {} \
         changes, 0 of them missed by {SUBSCRIBERS} subscribers, who had to subscribe {} times",
        requests.load(Ordering::Relaxed),
        log.len(),
        connected.load(Ordering::Relaxed),
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "takes many minutes: make soak-replicas"]
async fn a_process_that_stood_still_for_longer_than_its_lease_changes_nothing() {
    // The gateway's timeout, and ten seconds.
    const LEASE: Duration = Duration::from_secs(11);
    let server = Redis::start();
    let (world, fleet) = (world().await.on(&server).flag("--gateway-timeout=1s"), Fleet::default());
    let (one, other) = (fleet.start(&world), fleet.start(&world));
    let person = world.gateway.person(&phone(1)).picture("1");
    other.client.avatar(&phone(1)).await.expect(200, "fwd=miss");
    tokio::time::sleep(NO_LONGER_RECENT).await;
    person.picture("2");
    let hold = person.hold_next();
    let asked = tokio::spawn({
        let client = one.client.clone();
        async move { client.avatar_asking(&phone(1), "no-cache").await }
    });
    person.arrived(2).await;
    one.pause();
    // Its answer is in its socket by the time that it goes on.
    hold.release();
    tokio::time::sleep(LEASE + Duration::from_secs(1)).await;
    person.picture("3");
    let answer = other.client.avatar_asking(&phone(1), "no-cache").await;
    assert_eq!(answer.picture_id(), "3", "{answer:?}");
    one.resume();
    asked.await.unwrap();
    tokio::time::sleep(Duration::from_secs(1)).await;
    let log = other.client.change_log().await;
    assert_eq!(by_person(&log).into_values().collect::<Vec<_>>(), [[3]]);
    for process in [&one, &other] {
        assert_eq!(process.client.avatar(&phone(1)).await.picture_id(), "3");
    }
}
