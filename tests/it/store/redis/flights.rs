//! Flights, as the store keeps them: who may look, who waits, and what is left of who did not come back.

use std::sync::Arc;
use std::time::Duration;

use avatar_proxy::clock::Clock;
use avatar_proxy::jid::Key;
use avatar_proxy::outcome::{Class, Envelope, Failure, Token};
use avatar_proxy::store::redis::{Address, Redis};
use avatar_proxy::store::{Applied, Ending, Landing, Question, Shared as _, Store as _, Told, Write};

use super::super::{at, full, key_of, preview, write};
use super::Server;

const LEASE: Duration = Duration::from_secs(30);

fn question(key: &Key) -> Question {
    Question { key: key.clone(), alive_at: at(0), checked: None, start: Some(LEASE), draft: None }
}

/// Two replicas, and the clock of their server.
struct Pair {
    server: Server,
    clock: Clock,
    a: Arc<Redis>,
    b: Arc<Redis>,
}

impl Pair {
    async fn new() -> Self {
        let (server, clock) = (Server::start(), Clock::manual(at(0)));
        clock.advance(Duration::from_secs(86_400));
        let open = async || Redis::open(Address::parse(&server.url()).unwrap(), clock.clone()).await.unwrap();
        let (a, b) = (Arc::new(open().await), Arc::new(open().await));
        Self { server, clock, a, b }
    }
}

async fn started(store: &Redis, key: &Key) -> (Token, Option<Ending>) {
    match store.ask(question(key)).await.unwrap() {
        Told::Started { claim, last } => (claim.start, last.map(|last| *last)),
        other => panic!("{other:?}"),
    }
}

fn ending(rest: u64) -> Ending {
    let reply = Envelope { status: 500, code: "C".into(), message: "1 is unwell".into(), results: None };
    let failure = Failure { class: Class::Passing, retry: false, reply, detail: "d".into() };
    Ending { failure, rest: Duration::from_secs(rest) }
}

fn landing(key: &Key, flight: Token, ending: Option<Ending>) -> Landing {
    Landing { key: key.clone(), flight, ending }
}

#[tokio::test]
async fn one_replica_looks_and_the_others_are_told_by_whom() {
    let pair = Pair::new().await;
    let Pair { a, b, .. } = &pair;
    let (flight, last) = started(a, &full("1")).await;
    assert_eq!(last, None);
    match b.ask(question(&full("1"))).await.unwrap() {
        Told::UnderWay { flight: other, left } => assert_eq!((other, left), (flight, LEASE)),
        other => panic!("{other:?}"),
    }
    // Other keys are nobody's business.
    for key in [preview("1"), full("2"), key_of("d", "1", false, false)] {
        started(b, &key).await;
    }
    let waiting = tokio::spawn({
        let b = b.clone();
        async move { b.landed(flight).await }
    });
    let done = Write { start: flight, flown: true, ..write(&full("1"), Token(0), 1, 10) };
    assert!(matches!(a.apply(done.clone()).await.unwrap(), Applied::Done(_)));
    tokio::time::timeout(Duration::from_secs(20), waiting).await.expect("it is told").unwrap();
    match b.ask(question(&full("1"))).await.unwrap() {
        Told::Held(held) => assert_eq!(held.entry, Some(done.entry)),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn what_is_dead_or_looked_at_too_long_ago_does_not_suffice() {
    let pair = Pair::new().await;
    let Pair { a, .. } = &pair;
    let (flight, _) = started(a, &full("1")).await;
    let done = Write { start: flight, flown: true, ..write(&full("1"), Token(0), 1, 10) };
    let (dead_at, checked_at) = (done.entry.dead_at, done.entry.checked_at);
    a.apply(done).await.unwrap();
    let ms = Duration::from_millis(1);
    let suffices = async |alive_at, checked| {
        let told = a.ask(Question { alive_at, checked, ..question(&full("1")) }).await.unwrap();
        match told {
            Told::Held(_) => true,
            Told::Started { claim, .. } => {
                a.land(landing(&full("1"), claim.start, None)).await.unwrap();
                false
            }
            other => panic!("{other:?}"),
        }
    };
    assert!(suffices(dead_at - ms, None).await && !suffices(dead_at, None).await);
    assert!(suffices(at(0), Some((checked_at - ms, checked_at))).await);
    assert!(!suffices(at(0), Some((checked_at, checked_at + ms))).await, "from before");
    assert!(!suffices(at(0), Some((checked_at - ms - ms, checked_at - ms))).await, "the clock was set back since");
    let only_told = Question { alive_at: dead_at, start: None, ..question(&full("1")) };
    assert!(matches!(a.ask(only_told).await.unwrap(), Told::Held(held) if held.entry.is_some()));
}

#[tokio::test]
async fn a_flight_whose_lease_ran_out_leaves_nothing_behind_whoever_took_over() {
    let pair = Pair::new().await;
    let Pair { clock, a, b, .. } = &pair;
    let (late, _) = started(a, &full("1")).await;
    let brought = Write { start: late, flown: true, ..write(&full("1"), Token(0), 1, 10) };
    let moment = Duration::from_millis(1);
    clock.advance(LEASE.saturating_sub(moment));
    assert!(matches!(b.ask(question(&full("1"))).await.unwrap(), Told::UnderWay { .. }));
    clock.advance(moment);
    assert!(matches!(a.apply(brought.clone()).await.unwrap(), Applied::Late), "nobody took over");

    let (next, _) = started(b, &full("1")).await;
    assert!(matches!(a.apply(brought.clone()).await.unwrap(), Applied::Late), "somebody did");
    a.land(landing(&full("1"), late, Some(ending(2)))).await.unwrap();
    let theirs = Write { start: next, flown: true, ..write(&full("1"), Token(0), 2, 10) };
    let Applied::Done(revision) = b.apply(theirs.clone()).await.unwrap() else { panic!("theirs is not late") };
    let again = Write { expected: revision, ..brought };
    assert!(matches!(a.apply(again).await.unwrap(), Applied::Late), "whatever it is computed from");
    let held = a.find(&full("1")).await.unwrap();
    assert_eq!((held.entry, held.revision), (Some(theirs.entry), revision));
}

#[tokio::test]
async fn a_write_that_is_sent_twice_is_not_taken_for_late() {
    let pair = Pair::new().await;
    let Pair { a, .. } = &pair;
    let (flight, _) = started(a, &full("1")).await;
    let twice = Write { start: flight, flown: true, ..write(&full("1"), Token(0), 1, 10) };
    let Applied::Done(token) = a.apply(twice.clone()).await.unwrap() else { panic!("it is the first") };
    assert!(matches!(a.apply(twice).await.unwrap(), Applied::Done(again) if again == token));
}

#[tokio::test]
async fn an_ending_counts_for_its_time_and_is_what_the_next_one_is_told() {
    let pair = Pair::new().await;
    let Pair { clock, a, b, .. } = &pair;
    let (flight, _) = started(a, &full("1")).await;
    a.land(landing(&full("1"), flight, Some(ending(2)))).await.unwrap();
    match b.ask(question(&full("1"))).await.unwrap() {
        Told::Failed(told, left) => assert_eq!((*told, left), (ending(2), Duration::from_secs(2))),
        other => panic!("{other:?}"),
    }
    assert!(matches!(b.ask(question(&preview("1"))).await.unwrap(), Told::Started { .. }), "it is that key's alone");
    clock.advance(Duration::from_secs(2));
    let (flight, last) = started(b, &full("1")).await;
    assert_eq!(last, Some(ending(2)));
    let done = Write { start: flight, flown: true, ..write(&full("1"), Token(0), 1, 10) };
    b.apply(done.clone()).await.unwrap();
    let later = Question { alive_at: done.entry.dead_at, ..question(&full("1")) };
    assert!(matches!(a.ask(later).await.unwrap(), Told::Started { last: None, .. }), "a success ends the row");
}

#[tokio::test]
async fn nothing_is_left_of_how_a_look_at_somebody_forgotten_failed() {
    let pair = Pair::new().await;
    let Pair { server, a, .. } = &pair;
    for (key, device) in [(full("1"), None), (key_of("d", "1", false, false), Some(()))] {
        let (flight, _) = started(a, &key).await;
        a.land(landing(&key, flight, Some(ending(300)))).await.unwrap();
        let device = device.map(|()| &key.subject.device);
        a.forget(&key.subject.jid, device, at(0)).await.unwrap();
        assert!(matches!(a.ask(question(&key)).await.unwrap(), Told::Started { last: None, .. }), "{key:?}");
    }
    assert_eq!(server.text("TYPE {avatar-proxy}:e:1@s.whatsapp.net"), "none");
}

#[tokio::test]
async fn a_look_at_who_was_forgotten_meanwhile_ends_its_flight() {
    let pair = Pair::new().await;
    let Pair { a, b, .. } = &pair;
    let (flight, _) = started(a, &full("1")).await;
    b.forget(&full("1").subject.jid, None, at(0)).await.unwrap();
    let brought = Write { start: flight, flown: true, ..write(&full("1"), Token(0), 1, 10) };
    assert!(matches!(a.apply(brought).await.unwrap(), Applied::Forgotten));
    started(b, &full("1")).await;
}

#[tokio::test]
async fn a_full_server_still_tells_who_looks_and_what_is_held() {
    let pair = Pair::new().await;
    let Pair { server, a, b, .. } = &pair;
    let (flight, _) = started(a, &full("1")).await;
    a.apply(Write { start: flight, flown: true, ..write(&full("1"), Token(0), 1, 10) }).await.unwrap();
    server.ask("CONFIG SET maxmemory 1");
    assert!(matches!(b.ask(question(&full("1"))).await.unwrap(), Told::Held(_)));
    let (flight, _) = started(a, &full("2")).await;
    assert!(matches!(b.ask(question(&full("2"))).await.unwrap(), Told::UnderWay { .. }));
    a.land(landing(&full("2"), flight, Some(ending(2)))).await.unwrap();
    assert!(matches!(b.ask(question(&full("2"))).await.unwrap(), Told::Failed(..)));
}

#[tokio::test]
async fn a_servers_clock_that_was_set_back_keeps_nobody_waiting() {
    let (server, later) = (Server::start(), Clock::manual(at(0)));
    let address = || Address::parse(&server.url()).unwrap();
    later.advance(Duration::from_secs(86_400));
    let before = Redis::open(address(), later).await.unwrap();
    started(&before, &full("1")).await;
    let (flight, _) = started(&before, &full("2")).await;
    before.land(landing(&full("2"), flight, Some(ending(300)))).await.unwrap();
    let now = Redis::open(address(), Clock::manual(at(0))).await.unwrap();
    for who in ["1", "2"] {
        started(&now, &full(who)).await;
    }
}
