//! Replicas that are not heard of any more: what they had under way, and in hand, is others' within seconds.

use std::time::Duration;

use avatar_proxy::clock::Clock;
use avatar_proxy::jid::{Device, Key};
use avatar_proxy::outcome::Token;
use avatar_proxy::store::redis::{Address, Redis};
use avatar_proxy::store::{Applied, Question, Schedule as _, Shared as _, Store as _, Told, Write};

use super::super::{at, full, outlook, write};
use super::Server;
use crate::support::eventually::eventually;

/// Longer than any test.
const LEASE: i64 = 180;

/// A replica with a clock of its own, which stands still with it.
struct Replica {
    store: Redis,
    clock: Clock,
}

impl Replica {
    async fn join(server: &Server) -> Self {
        let clock = Clock::manual(at(0));
        let replica =
            Self { store: Redis::open(Address::parse(&server.url()).unwrap(), clock.clone()).await.unwrap(), clock };
        replica.is_heard_of(server).await;
        replica
    }

    /// So much time goes by for it, all at once.
    async fn lives_on(&self, server: &Server, seconds: u64) {
        self.clock.advance(Duration::from_secs(seconds));
        self.is_heard_of(server).await;
    }

    async fn is_heard_of(&self, server: &Server) {
        let now = self.clock.elapsed().as_micros().to_string();
        eventually("it is heard of", async || {
            let heard: Vec<String> = redis::from_redis_value(server.ask("HVALS {avatar-proxy}:replicas")).unwrap();
            heard.iter().any(|heard| heard.ends_with(&format!(" {now}")))
        })
        .await;
    }

    /// The flight that it began.
    async fn begins(&self, key: &Key) -> Token {
        match self.store.ask(question(key)).await.unwrap() {
            Told::Started { claim, .. } => claim.start,
            other => panic!("{other:?}"),
        }
    }

    async fn waits_for(&self, key: &Key, flight: Token) -> bool {
        let told = self.store.ask(question(key)).await.unwrap();
        matches!(told, Told::UnderWay { flight: other, .. } if other == flight)
    }
}

fn question(key: &Key) -> Question {
    let lease = Duration::from_secs(LEASE.unsigned_abs());
    Question { key: key.clone(), alive_at: at(0), checked: None, start: Some(lease), draft: None }
}

/// Both live on, second by second.
async fn live_on(server: &Server, replicas: &[&Replica], seconds: u64) {
    for _ in 0..seconds {
        for replica in replicas {
            replica.lives_on(server, 1).await;
        }
    }
}

async fn pair() -> (Server, Replica, Replica) {
    let server = Server::start();
    let (a, b) = (Replica::join(&server).await, Replica::join(&server).await);
    live_on(&server, &[&a, &b], 6).await;
    (server, a, b)
}

#[tokio::test]
async fn what_a_replica_had_under_way_that_is_not_heard_of_any_more_is_begun_by_another() {
    let (server, a, b) = pair().await;
    let lost = a.begins(&full("1")).await;
    live_on(&server, &[&b], 5).await;
    assert!(b.waits_for(&full("1"), lost).await, "it may yet be heard of");
    live_on(&server, &[&b], 1).await;
    let next = b.begins(&full("1")).await;

    // It only stood still.
    a.lives_on(&server, 6).await;
    let late = Write { start: lost, flown: true, ..write(&full("1"), Token(0), 1, 10) };
    assert!(matches!(a.store.apply(late).await.unwrap(), Applied::Late));
    assert!(a.waits_for(&full("1"), next).await);
}

#[tokio::test]
async fn what_it_brings_after_all_is_taken_if_nobody_began_anew() {
    let (server, a, b) = pair().await;
    let start = a.begins(&full("1")).await;
    live_on(&server, &[&b], 9).await;
    let done = Write { start, flown: true, ..write(&full("1"), Token(0), 1, 10) };
    assert!(matches!(a.store.apply(done).await.unwrap(), Applied::Done(_)));
}

#[tokio::test]
async fn nobody_is_taken_for_dead_while_nobody_could_be_heard_of() {
    let (server, a, b) = pair().await;
    let flight = a.begins(&full("1")).await;
    b.lives_on(&server, 9).await;
    assert!(b.waits_for(&full("1"), flight).await, "b was not there either");
    live_on(&server, &[&b], 5).await;
    assert!(b.waits_for(&full("1"), flight).await, "b has not been there for long enough to know");
    a.lives_on(&server, 14).await;
    live_on(&server, &[&a, &b], 9).await;
    assert!(b.waits_for(&full("1"), flight).await, "both are there");
}

#[tokio::test]
async fn what_a_replica_had_in_hand_that_is_not_heard_of_any_more_comes_up_again() {
    let (server, a, b) = pair().await;
    for who in 1..=4 {
        let done = Write { outlook: outlook(who), ..write(&full(&who.to_string()), Token(0), 1, 10 * who) };
        assert!(matches!(a.store.apply(done).await.unwrap(), Applied::Done(_)));
    }
    let device = Device::default();
    let (now, lease) = (at(100), at(100 + LEASE));
    let take = async |replica: &Replica| {
        let due = replica.store.take_due(&device, now, lease, 9).await.unwrap();
        let rechecked = replica.store.take_rechecks(&device, now, lease, 9).await.unwrap();
        let due: Vec<_> = due.into_iter().map(|due| (due.key, due.due_at)).collect();
        (due, rechecked.into_iter().map(|candidate| candidate.subject).collect::<Vec<_>>())
    };
    let (due, rechecked) = take(&a).await;
    assert_eq!((due.len(), rechecked.len()), (4, 4));
    // One was looked at meanwhile: it is not in hand any more.
    a.store.reschedule(vec![(due[0].0.clone(), Some(at(500)))]).await.unwrap();
    a.store.defer(vec![(rechecked[0].clone(), Some(at(500)))]).await.unwrap();

    live_on(&server, &[&b], 5).await;
    assert_eq!(take(&b).await, (vec![], vec![]), "it may yet be heard of");
    live_on(&server, &[&b], 1).await;
    assert_eq!(take(&b).await, (due[1..].to_vec(), rechecked[1..].to_vec()));
    // Once: they are in another's hand now.
    live_on(&server, &[&b], 2).await;
    assert_eq!(take(&b).await, (vec![], vec![]));
}
