//! A server that is gone, slow, full or somebody else's.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use avatar_proxy::clock::Clock;
use avatar_proxy::metrics::Metrics;
use avatar_proxy::outcome::Token;
use avatar_proxy::store::measured::Measured;
use avatar_proxy::store::redis::{Address, Redis as Engine};
use avatar_proxy::store::{Applied, Store as _, StoreError, What, Write};
use tokio_util::sync::CancellationToken;

use super::super::{change, done, full, write};
use super::{Server, open, refusal};
use crate::support::eventually::eventually;

#[tokio::test]
async fn who_may_not_come_in_is_told_so() {
    let server = Server::with(&["--requirepass s3cret"]);
    let at = |login: &str| server.url().replace("redis://", &format!("redis://{login}"));
    for login in ["", ":guess@", "ada:guess@"] {
        let said = refusal(&at(login)).await;
        assert!(said.contains("does not accept this user and password"), "{said}");
        assert!(!said.contains("guess"), "{said}");
    }
    open(&at(":s3cret@")).await;
    open(&at("default:s3cret@")).await;
}

#[tokio::test]
async fn who_may_not_do_what_a_store_needs_is_told_so() {
    let server = Server::start();
    let url = server.url().replace("redis://", "redis://ada:s3cret@");
    // The first is refused by itself, the second within a script.
    for missing in ["-evalsha", "-info"] {
        server.ask(&format!("ACL SETUSER ada reset on >s3cret ~* &* +@all {missing}"));
        let said = refusal(&url).await;
        assert!(
            said.contains("does not let this user do what the store needs (") && !said.contains("s3cret"),
            "{said}"
        );
    }
    // What the README says is enough.
    server.ask("ACL SETUSER ada reset on >s3cret ~{avatar-proxy}:* +@all -@admin");
    open(&url).await;
}

#[tokio::test]
async fn where_nobody_answers_is_said() {
    let mut server = Server::start();
    server.kill();
    let said = refusal(&server.url()).await;
    assert!(said.contains("cannot be reached") && said.contains(&server.port().to_string()), "{said}");
}

#[tokio::test]
async fn what_is_not_ours_is_left_alone() {
    let server = Server::start();
    for foreign in ["SET {avatar-proxy}:meta diary", "HSET {avatar-proxy}:meta day 1"] {
        server.ask("FLUSHALL");
        server.ask(foreign);
        let said = refusal(&server.url()).await;
        assert!(said.contains("is another program's") && said.contains("?prefix="), "{said}");
        assert_eq!(server.ask("DBSIZE"), redis::Value::Int(1));
    }
    open(&format!("{}?prefix=ours", server.url())).await;
}

#[tokio::test]
async fn what_a_program_of_another_format_made_is_left_alone() {
    let server = Server::start();
    open(&server.url()).await.close().await;
    for format in [9, 1] {
        server.ask(&format!("HSET {{avatar-proxy}}:meta format {format}"));
        let said = refusal(&server.url()).await;
        assert!(said.contains(&format!("has format {format}, and this program knows format 2")), "{said}");
    }
}

#[tokio::test]
async fn a_replica_is_no_place_for_a_store() {
    let primary = Server::start();
    let replica = Server::with(&[&format!("--replicaof 127.0.0.1 {}", primary.port())]);
    let said = refusal(&replica.url()).await;
    assert!(said.contains("read-only replica"), "{said}");
}

#[tokio::test]
async fn a_server_that_was_killed_and_restarted_costs_no_call_and_nothing_that_was_acknowledged() {
    let mut server = Server::with(&["--appendonly yes", "--appendfsync always"]);
    let store = open(&server.url()).await;
    let mut tip = store.tip();
    let revision = done(&store, Write { change: Some(change("e", 1)), ..write(&full("1"), Token(0), 1, 10) }).await;
    let held = store.find(&full("1")).await.unwrap();
    server.restart();
    assert_eq!(store.find(&full("1")).await.unwrap(), held, "by the first call");
    assert!(store.claim(&full("1")).await.unwrap().start > revision);
    tip.mark_unchanged();
    let other = open(&server.url()).await;
    done(&other, Write { change: Some(change("f", 2)), ..write(&full("1"), revision, 1, 10) }).await;
    eventually("what others append is heard of again", async || *tip.borrow() == 2).await;
}

/// Looks at one person over and over from several replicas, until the server has been killed in the middle of it and is back.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_acknowledged_survives_a_kill_of_the_server_and_is_told_once() {
    let mut server = Server::with(&["--appendonly yes", "--appendfsync always"]);
    let (acknowledged, stop) = (Arc::new(AtomicU64::new(0)), CancellationToken::new());
    let mut replicas = vec![];
    for replica in 1..=3 {
        let (store, acknowledged, stop) = (open(&server.url()).await, acknowledged.clone(), stop.clone());
        replicas.push(tokio::spawn(async move {
            let mut tokens = vec![];
            for look in 0.. {
                if stop.is_cancelled() {
                    break;
                }
                let Ok(claim) = store.claim(&full("1")).await else { continue };
                let id = replica * 1_000_000 + look;
                let told = Some(change(&id.to_string(), id));
                let write = Write { change: told, ..write(&full("1"), claim.held.revision, id, 10) };
                if let Ok(Applied::Done(token)) = store.apply(write).await {
                    acknowledged.fetch_add(1, Ordering::SeqCst);
                    tokens.push((token, id));
                }
            }
            tokens
        }));
    }
    for so_many in [100, 200, 300] {
        eventually("they write", async || acknowledged.load(Ordering::SeqCst) >= so_many).await;
        server.restart();
    }
    eventually("they write again", async || acknowledged.load(Ordering::SeqCst) >= 400).await;
    stop.cancel();
    let mut written = vec![];
    for replica in replicas {
        written.extend(replica.await.unwrap());
    }
    written.sort_unstable();
    let store = open(&server.url()).await;
    let page = store.read_log(0, 100_000).await.unwrap();
    let told = page.records.iter().map(|record| match &record.what {
        What::Change(change) => change.1.event_id.parse().unwrap(),
        What::Forgotten => panic!("nobody was forgotten"),
    });
    let mut told: Vec<u64> = told.collect();
    let all = told.len();
    told.retain(|id| written.iter().any(|(_, written)| written == id));
    let ids: Vec<u64> = written.iter().map(|(_, id)| *id).collect();
    assert_eq!(told, ids, "each once, in the order of their tokens");
    assert!(all <= ids.len() + 9, "and few more: at each kill, one of each replica's may have been written unheard");
    assert!(written.windows(2).all(|pair| pair[0].0 < pair[1].0), "no token is given twice");
}

#[tokio::test]
async fn a_server_that_lost_its_last_moments_goes_on_as_another_log() {
    let mut server = Server::start();
    let store = open(&server.url()).await;
    let changed = async |who: &str, event: &str| {
        let expected = store.find(&full(who)).await.unwrap().revision;
        done(&store, Write { change: Some(change(event, 1)), ..write(&full(who), expected, 1, 10) }).await
    };
    changed("1", "kept").await;
    server.ask("SAVE");
    changed("2", "lost").await;
    let before = store.read_log(0, 9).await.unwrap().extent;
    let token = store.claim(&full("1")).await.unwrap().start;
    server.restart();
    assert!(changed("3", "new").await > token, "by the first call");
    let after = store.read_log(0, 9).await.unwrap();
    assert!(after.extent.epoch != before.epoch && !after.extent.reaches(before.cursor(before.last)));
    let places: Vec<_> = after.records.iter().map(|record| record.sequence).collect();
    assert_eq!(places, [1, 4], "what was kept, and a place that was never given before");
    assert!(store.find(&full("1")).await.unwrap().entry.is_some());
    assert!(store.find(&full("2")).await.unwrap().entry.is_none());
}

#[tokio::test]
async fn tokens_that_a_server_lost_are_not_given_again() {
    let mut server = Server::start();
    let store = open(&server.url()).await;
    server.ask("SAVE");
    let mut last = Token(0);
    for _ in 0..9 {
        last = store.claim(&full("1")).await.unwrap().start;
    }
    server.restart();
    let start = store.claim(&full("1")).await.unwrap().start;
    assert!(start > last, "{start:?} after {last:?}");
}

#[tokio::test]
async fn what_was_lost_is_noticed_though_another_replica_has_gone_on_since() {
    let server = Server::start();
    let store = open(&server.url()).await;
    let mut revision = Token(0);
    for event in ["one", "two"] {
        let told = Some(change(event, 1));
        revision = done(&store, Write { change: told, ..write(&full("1"), revision, 1, 10) }).await;
    }
    let before = store.read_log(0, 9).await.unwrap().extent;
    // As it is when a server has lost the second, and somebody who had not seen it has appended another one.
    let other = "at 1 device  jid 2@s.whatsapp.net reason  old_id 1 new_id 2 version 1 not_before 1";
    let fields: Vec<_> = other.split(' ').collect();
    let mut raw = server.raw();
    redis::cmd("DEL").arg("{avatar-proxy}:log").exec(&mut raw).unwrap();
    for (place, event) in [("1-0", "one"), ("2-0", "another")] {
        let mut add = redis::cmd("XADD");
        add.arg("{avatar-proxy}:log").arg(place).arg("kind").arg("set").arg("event_id").arg(event).arg(&fields);
        add.exec(&mut raw).unwrap();
    }
    eventually("it is another log", async || store.read_log(0, 9).await.unwrap().extent.epoch != before.epoch).await;
    let after = store.read_log(0, 9).await.unwrap();
    assert_eq!(after.records.len(), 2);
    assert!(after.extent.last > before.last, "whoever stands at the end of the old one is behind");
    eventually("who waits is told", async || *store.tip().borrow() == after.extent.last).await;
}

#[tokio::test]
async fn while_the_server_is_gone_calls_fail_at_once() {
    let mut server = Server::start();
    let store = open(&server.url()).await;
    server.kill();
    let started = Instant::now();
    for _ in 0..50 {
        assert!(matches!(store.find(&full("1")).await, Err(StoreError::Unavailable(_))));
    }
    assert!(started.elapsed() < Duration::from_secs(10), "{:?}", started.elapsed());
    server.restart();
    eventually("it is found again", async || store.find(&full("1")).await.is_ok()).await;
}

#[tokio::test]
async fn a_server_that_stands_still_fails_calls_in_time() {
    let server = Server::start();
    let store = open(&server.url()).await;
    server.pause();
    let started = Instant::now();
    let calls = (0..8).map(|_| {
        let store = store.clone();
        tokio::spawn(async move { store.find(&full("1")).await })
    });
    for call in calls.collect::<Vec<_>>() {
        assert!(matches!(call.await.unwrap(), Err(StoreError::Unavailable(_))));
    }
    assert!(started.elapsed() < Duration::from_secs(8), "{:?}", started.elapsed());
    server.resume();
    eventually("it answers again", async || store.find(&full("1")).await.is_ok()).await;
}

#[tokio::test]
async fn a_server_that_stands_still_costs_the_first_call_seconds_and_the_others_nothing() {
    let server = Server::start();
    let engine = Engine::open(Address::parse(&server.url()).unwrap(), Clock::system()).await.unwrap();
    let store = Measured::new(Arc::new(engine), Arc::new(Metrics::new()));
    store.find(&full("1")).await.unwrap();
    server.pause();
    assert!(store.find(&full("1")).await.is_err());
    let began = Instant::now();
    assert!(store.find(&full("1")).await.is_err());
    assert!(began.elapsed() < Duration::from_secs(1), "{:?}", began.elapsed());
    server.resume();
}

#[tokio::test]
async fn a_full_server_refuses_a_write_as_a_whole_and_is_read_on() {
    let server = Server::start();
    let store = open(&server.url()).await;
    let revision = done(&store, write(&full("1"), Token(0), 1, 10)).await;
    let held = store.find(&full("1")).await.unwrap();
    store.check().await.unwrap();
    server.ask("CONFIG SET maxmemory 1");
    let wanted = Write { change: Some(change("e", 1)), ..write(&full("1"), revision, 2, 20) };
    for failed in [store.apply(wanted.clone()).await.err(), store.check().await.err()] {
        assert!(matches!(failed, Some(StoreError::Unavailable(said)) if said.contains("OOM")));
    }
    assert_eq!(store.find(&full("1")).await.unwrap(), held);
    assert_eq!(store.read_log(0, 9).await.unwrap().records, []);
    server.ask("CONFIG SET maxmemory 0");
    store.check().await.unwrap();
    done(&store, wanted).await;
    assert_eq!(store.read_log(0, 9).await.unwrap().records.len(), 1);
}
