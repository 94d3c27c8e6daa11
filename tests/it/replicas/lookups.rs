//! Promise 3 over many replicas: one lookup per need, whoever asks where, and whoever dies or is stopped meanwhile.

use std::time::{Duration, Instant};

use avatar_proxy::avatars::{Found, Met, Unmet, Why};
use avatar_proxy::clock::Clock;
use avatar_proxy::demo::{Options, Reply, SimulatedGateway};
use avatar_proxy::outcome::Outcome;
use avatar_proxy::store::{Question, Shared, Store, Told};
use tokio::task::{JoinHandle, JoinSet};

use crate::support::eventually::eventually;
use crate::support::hand::{self, NOW};
use crate::support::redis::Redis;
use crate::support::replica::{GATEWAY_TIMEOUT, Replica, key};

const ADA: &str = "999001";
const BOB: &str = "999002";

/// One gateway, one store, and replicas between them.
struct World {
    gateway: SimulatedGateway,
    clock: Clock,
    replicas: Vec<Replica>,
    redis: Redis,
}

impl World {
    async fn new(replicas: usize) -> Self {
        Self::with(replicas, Clock::system()).await
    }

    /// Whose clock, the store's included, is moved by the test; buckets fill all the same.
    async fn by_hand(replicas: usize) -> Self {
        Self::with(replicas, hand::creeping(NOW, Duration::from_micros(50))).await
    }

    async fn with(replicas: usize, clock: Clock) -> Self {
        let gateway = SimulatedGateway::on_a_free_port(Options::default(), clock.clone()).await.unwrap();
        let redis = Redis::start();
        let mut world = Self { gateway, clock, replicas: vec![], redis };
        for _ in 0..replicas {
            world.replicas.push(Replica::start(&world.redis.url(), &world.gateway, &world.clock).await);
        }
        world
    }

    /// Each replica gets its share of what the budget keeps for times without the store.
    async fn have_reserves(&self) {
        self.clock.advance(Duration::from_secs(67 * 60));
        // To be seen by the others, and to be granted what they gave up.
        for _ in 0..3 {
            for replica in &self.replicas {
                let before = replica.calls("reserve");
                self.clock.advance(Duration::from_secs(1));
                eventually("it has a share", async || replica.calls("reserve") > before).await;
            }
        }
    }

    /// Somebody asks this replica, and the test goes on.
    fn asks(&self, replica: usize, phone: &'static str) -> JoinHandle<Result<Found, Unmet>> {
        let replica = self.replicas[replica].clone();
        tokio::spawn(async move { replica.look(phone).await })
    }
}

fn id(found: &Found) -> String {
    match &found.slot.to_entry().outcome {
        Outcome::Present(picture) => picture.id().to_owned(),
        Outcome::Negative(negative) => negative.reason.as_str().to_owned(),
    }
}

/// And shorter than what a client that waits for an answer gives it.
const LONGER_THAN_A_LEASE: Duration = GATEWAY_TIMEOUT.saturating_add(Duration::from_secs(12));

const ASKED: Met = Met::Asked { why: Why::Miss, collapsed: false, stored: true };

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn eight_hundred_clients_of_eight_replicas_cost_one_lookup() {
    let world = World::new(8).await;
    let ada = world.gateway.person(ADA).picture("17");
    let held = ada.hold();
    let mut asking: JoinSet<_> = world
        .replicas
        .iter()
        .flat_map(|replica| std::iter::repeat_n(replica.clone(), 100))
        .map(|replica| async move { replica.look(ADA).await })
        .collect();
    eventually("all wait", async || world.replicas.iter().map(Replica::waiting).sum::<i64>() == 800).await;
    ada.arrived(1).await;
    held.release();
    while let Some(answer) = asking.join_next().await {
        assert_eq!(id(&answer.unwrap().unwrap()), "17");
    }
    assert_eq!(ada.lookups(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_waits_at_another_replica_learns_of_the_result_within_20_ms() {
    let world = World::new(8).await;
    let mut latest = vec![];
    for round in 0..21 {
        let phone: &'static str = format!("9990{round:02}").leak();
        let ada = world.gateway.person(phone).picture("17");
        let held = ada.hold();
        let asking: JoinSet<_> = (0..8)
            .map(|replica| {
                let asking = world.asks(replica, phone);
                async move { (asking.await.unwrap().unwrap().met, Instant::now()) }
            })
            .collect();
        let asked = |replica: &Replica| replica.calls("ask");
        eventually("all have asked", async || world.replicas.iter().all(|replica| asked(replica) > round)).await;
        ada.arrived(1).await;
        held.release();
        let (looked, waited): (Vec<_>, Vec<_>) =
            asking.join_all().await.into_iter().partition(|(met, _)| *met == ASKED);
        // Who looked answers when it has stored what it saw.
        let [(_, stored)] = looked[..] else { panic!("one looks: {looked:?}") };
        latest.extend(waited.iter().map(|(_, at)| at.saturating_duration_since(stored)).max());
    }
    latest.sort_unstable();
    assert!(latest[latest.len() / 2] < Duration::from_millis(20), "{latest:?}");
}

#[tokio::test]
async fn a_hit_costs_one_round_trip_and_a_cold_lookup_two() {
    let world = World::new(2).await;
    let [a, b] = &world.replicas[..] else { unreachable!() };
    let all = |replica: &Replica| {
        let operations = ["find", "claim", "ask", "land", "apply", "device", "put_device"];
        operations.map(|operation| replica.calls(operation))
    };
    // What is known of the device is read once, and what it brought is remembered.
    for replica in [a, b] {
        replica.look(BOB).await.unwrap();
    }
    let (before_a, before_b) = (all(a), all(b));
    let heard = world.redis.listen();
    assert_eq!(a.look(ADA).await.unwrap().met, ASKED);
    assert_eq!(heard.commands_with(ADA), 2);
    let heard = world.redis.listen();
    assert_eq!(b.look(ADA).await.unwrap().met, Met::Store);
    assert_eq!(heard.commands_with(ADA), 1);
    let more = |replica, before: [u64; 7]| {
        let mut more = all(replica);
        more.iter_mut().zip(before).for_each(|(now, before)| *now -= before);
        more
    };
    assert_eq!(more(a, before_a), [0, 0, 1, 0, 1, 0, 0], "ask and apply");
    assert_eq!(more(b, before_b), [0, 0, 1, 0, 0, 0, 0], "ask");
}

#[tokio::test]
async fn a_failed_lookup_is_not_repeated_by_other_replicas_and_rests_longer_each_time() {
    let world = World::by_hand(3).await;
    let ada = world.gateway.person(ADA).replies(Reply::ContextTimeout);
    for (lookups, rest) in [2, 4, 8].into_iter().enumerate() {
        for replica in 0..3 {
            let unmet = world.replicas[(lookups + replica) % 3].look(ADA).await.unwrap_err();
            let retry_after = match unmet {
                Unmet::Failed { retry_after, .. } if replica == 0 => retry_after,
                Unmet::Resting { retry_after, .. } if replica > 0 => retry_after,
                other => panic!("{other:?}"),
            };
            assert_eq!(retry_after, Duration::from_secs(rest));
        }
        assert_eq!(ada.lookups(), lookups as u64 + 1);
        world.clock.advance(Duration::from_secs(rest));
    }
    ada.replies(Reply::Present);
    assert_eq!(world.replicas[0].look(ADA).await.unwrap().met, ASKED);
    // A success ends the row of failures, whoever made them.
    world.clock.advance(Duration::from_secs(11 * 86_400));
    ada.replies(Reply::ContextTimeout);
    match world.replicas[1].look(ADA).await.unwrap_err() {
        Unmet::Failed { retry_after, .. } => assert_eq!(retry_after, Duration::from_secs(2)),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn whoever_waits_for_a_lookup_that_fails_does_not_repeat_it() {
    let world = World::new(4).await;
    for (phone, reply) in [(ADA, Reply::ContextTimeout), (BOB, Reply::LoggedOut)] {
        let person = world.gateway.person(phone).replies(reply);
        let held = person.hold();
        let before: Vec<u64> = world.replicas.iter().map(|replica| replica.calls("ask")).collect();
        let asking: Vec<_> = (0..4).map(|replica| world.asks(replica, phone)).collect();
        let asked = |(replica, before): (&Replica, &u64)| replica.calls("ask") > *before;
        eventually("all have asked", async || world.replicas.iter().zip(&before).all(asked)).await;
        person.arrived(1).await;
        held.release();
        for asking in asking {
            assert!(asking.await.unwrap().is_err());
        }
        assert_eq!(person.lookups(), 1);
    }
}

#[tokio::test]
async fn the_lookup_of_a_replica_that_died_is_made_by_another_when_its_lease_ends() {
    let world = World::by_hand(1).await;
    let lease = Duration::from_secs(30);
    let question = Question { key: key(ADA), alive_at: NOW, checked: None, start: Some(lease), draft: None };
    // Whoever asks so, and is not heard of again, is dead.
    let told = world.replicas[0].store.ask(question).await.unwrap();
    assert!(matches!(told, Told::Started { .. }), "{told:?}");
    let ada = world.gateway.person(ADA).picture("17");
    let asking = world.asks(0, ADA);
    eventually("it has asked", async || world.replicas[0].calls("ask") > 1).await;
    assert_eq!(ada.lookups(), 0);
    world.clock.advance(lease);
    assert_eq!(asking.await.unwrap().unwrap().met, ASKED);
}

#[tokio::test]
async fn a_replica_that_was_stopped_for_longer_than_its_lease_changes_nothing() {
    let world = World::by_hand(2).await;
    let ada = world.gateway.person(ADA).picture("17");
    let held = ada.hold_next();
    let stopped = world.asks(0, ADA);
    ada.arrived(1).await;
    world.clock.advance(LONGER_THAN_A_LEASE);
    ada.picture("18");
    assert_eq!(id(&world.replicas[1].look(ADA).await.unwrap()), "18");
    let recorded = world.replicas[1].store.find(&key(ADA)).await.unwrap();

    held.release();
    let found = stopped.await.unwrap().unwrap();
    assert_eq!((id(&found).as_str(), found.met), ("18", Met::Store), "its client is told what is so now");
    assert_eq!(world.replicas[1].store.find(&key(ADA)).await.unwrap(), recorded);
    assert_eq!(ada.lookups(), 2);
}

#[tokio::test]
async fn replicas_whose_store_is_gone_look_alone_record_nothing_and_are_one_again_when_it_is_back() {
    let mut world = World::by_hand(2).await;
    let ada = world.gateway.person(ADA);
    world.have_reserves().await;
    world.redis.kill();
    for replica in &world.replicas {
        let alone = Met::Asked { why: Why::Miss, collapsed: false, stored: false };
        assert_eq!(replica.look(ADA).await.unwrap().met, alone);
        assert_eq!(replica.look(ADA).await.unwrap().met, Met::Memory);
    }
    assert_eq!(ada.lookups(), 2);
    world.redis.restart();
    eventually("the store is back", async || world.replicas.iter().all(Replica::has_a_store)).await;
    assert_eq!(world.replicas[0].look(BOB).await.unwrap().met, ASKED);
    assert_eq!(world.replicas[1].look(BOB).await.unwrap().met, Met::Store);
}

#[tokio::test]
async fn nor_does_it_if_nobody_took_over() {
    let world = World::by_hand(1).await;
    let ada = world.gateway.person(ADA).picture("17");
    let held = ada.hold_next();
    let stopped = world.asks(0, ADA);
    ada.arrived(1).await;
    world.clock.advance(LONGER_THAN_A_LEASE);
    ada.picture("18");
    held.release();
    assert_eq!(id(&stopped.await.unwrap().unwrap()), "18", "what it had been told was as old as its lease");
    assert_eq!(ada.lookups(), 2);
}
