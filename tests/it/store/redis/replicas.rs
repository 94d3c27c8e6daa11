//! Several stores on one server are one.

use std::time::Duration;

use avatar_proxy::change::Change;
use avatar_proxy::clock::Clock;
use avatar_proxy::jid::{Device, Jid, Key};
use avatar_proxy::outcome::Token;
use avatar_proxy::store::{Applied, StoreError, What, Write};

use super::super::suite::touch;
use super::super::{Opened, at, change, done, full, key_of, preview, write};
use super::{Server, open, open_by};
use crate::support::eventually::eventually;

/// A stream's name and its entries, each a place and fields.
type Stream = (String, Vec<(String, Vec<String>)>);

async fn changed(store: &Opened, key: &Key, event: &str) -> Token {
    let expected = store.find(key).await.unwrap().revision;
    done(store, Write { change: Some(change(event, 1)), ..write(key, expected, 1, 10) }).await
}

#[tokio::test]
async fn what_one_replica_wrote_the_others_find_and_hear_of() {
    let server = Server::start();
    let (a, b) = (open(&server.url()).await, open(&server.url()).await);
    let mut tip = b.tip();
    assert_eq!(*tip.borrow_and_update(), 0);
    changed(&a, &full("1"), "e").await;
    tokio::time::timeout(Duration::from_secs(20), tip.changed()).await.expect("it is told").unwrap();
    assert_eq!(*tip.borrow(), 1);
    assert_eq!(b.read_log(0, 9).await.unwrap(), a.read_log(0, 9).await.unwrap());
    assert_eq!(b.find(&full("1")).await.unwrap(), a.find(&full("1")).await.unwrap());
    a.forget(&full("1").subject.jid, None, at(0)).await.unwrap();
    tip.changed().await.unwrap();
    assert_eq!(*tip.borrow(), 2, "of a forgetting as well");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn replicas_write_one_unbroken_chain() {
    let server = Server::start();
    let mut writers = vec![];
    for replica in 0..4u64 {
        let store = open(&server.url()).await;
        writers.push(tokio::spawn(async move {
            let mut links = vec![];
            for look in replica * 25..replica * 25 + 25 {
                let mut expected = store.claim(&full("1")).await.unwrap().held.revision;
                loop {
                    let told = Some(change(&look.to_string(), look));
                    let write = Write { change: told, ..write(&full("1"), expected, look, 10) };
                    match store.apply(write).await.unwrap() {
                        Applied::Done(token) => break links.push((expected, token)),
                        Applied::Conflict(held) => expected = held.revision,
                        Applied::Forgotten | Applied::Late => panic!("nobody was forgotten or late"),
                    }
                }
            }
            links
        }));
    }
    let mut links = vec![];
    for writer in writers {
        links.extend(writer.await.unwrap());
    }
    links.sort_unstable();
    assert_eq!((links.len(), links[0].0), (100, Token(0)));
    assert!(links.windows(2).all(|pair| pair[0].1 == pair[1].0), "each from what the one before left: {links:?}");
    let log = open(&server.url()).await.read_log(0, 1000).await.unwrap();
    assert_eq!((log.records.len(), log.extent.last), (100, 100));
}

#[tokio::test]
async fn what_one_replica_has_taken_is_not_due_for_another() {
    let server = Server::start();
    let (a, b) = (open(&server.url()).await, open(&server.url()).await);
    for who in 1..=20 {
        done(&a, write(&full(&who.to_string()), Token(0), 1, who)).await;
    }
    let device = &full("1").subject.device;
    let (one, other) = tokio::join!(a.take_due(device, at(50), at(90), 15), b.take_due(device, at(50), at(90), 15));
    let mut taken: Vec<_> = [one, other].map(|taken| taken.unwrap()).concat();
    taken.sort_by_key(|due| due.due_at);
    let due: Vec<_> = taken.iter().map(|due| due.due_at).collect();
    assert_eq!(due, (1..=20).map(at).collect::<Vec<_>>(), "each once");
}

#[tokio::test]
async fn who_was_forgotten_by_one_replica_does_not_come_back_by_another() {
    let server = Server::start();
    let (a, b) = (open(&server.url()).await, open(&server.url()).await);
    let jid = full("1").subject.jid;
    let claim = b.claim(&full("1")).await.unwrap();
    a.forget(&jid, None, at(0)).await.unwrap();
    let late = Write { start: claim.start, ..write(&full("1"), Token(0), 1, 10) };
    assert!(matches!(b.apply(late.clone()).await.unwrap(), Applied::Forgotten));
    // Long afterwards, when others are forgotten: it need not be known any more who it was.
    b.forget_idle(at(-900), 1).await.unwrap();
    assert_eq!(server.text("TYPE {avatar-proxy}:forgotten"), "none");
    assert!(matches!(b.apply(late).await.unwrap(), Applied::Forgotten), "nobody's look takes that long");
    let begun_since = Write { start: b.claim(&full("1")).await.unwrap().start, ..write(&full("1"), Token(0), 1, 10) };
    assert!(matches!(b.apply(begun_since).await.unwrap(), Applied::Done(_)));
}

#[tokio::test]
async fn nothing_is_left_of_who_was_forgotten() {
    let server = Server::start();
    let clock = Clock::manual(at(0));
    let store = open_by(clock.clone(), &server.url()).await;
    for key in [full("1"), preview("1"), key_of("d", "1", false, false), full("120363025246125486")] {
        changed(&store, &key, &format!("{key:?}")).await;
    }
    eventually("it is heard of", async || server.ask("EXISTS {avatar-proxy}:replicas") == redis::Value::Int(1)).await;
    assert_eq!(store.take_due(&Device::default(), at(10_000), at(20_000), 9).await.unwrap().len(), 3);
    assert_eq!(store.take_rechecks(&Device::default(), at(10_000), at(20_000), 9).await.unwrap().len(), 2);
    let hands =
        |server: &Server| -> Vec<String> { redis::from_redis_value(server.ask("KEYS {avatar-proxy}:hand:*")).unwrap() };
    assert_eq!(hands(&server).len(), 1);
    for who in ["1", "120363025246125486"] {
        store.forget(&Jid::parse(who).unwrap(), None, at(0)).await.unwrap();
    }
    clock.advance(Duration::from_secs(900));
    store.forget_idle(at(-900), 1).await.unwrap();
    let mut keys: Vec<String> = redis::cmd("KEYS").arg("*").query(&mut server.raw()).unwrap();
    keys.sort_unstable();
    let kept = ["devices", "log", "meta", "names", "replicas"].map(|key| format!("{{avatar-proxy}}:{key}"));
    assert_eq!(keys, kept);
    assert_eq!(store.read_log(0, 9).await.unwrap().records.iter().filter(|r| r.what == What::Forgotten).count(), 2);
}

#[tokio::test]
async fn whoever_is_idle_is_found_among_many_who_are_not() {
    let server = Server::start();
    let store = open(&server.url()).await;
    let name = |who: i64| format!("99900{who:07}");
    let writes = (0..1500).map(|who| {
        let asked = if who % 2 == 0 { 10 } else { 1000 };
        let write = Write { requested_at: Some(at(asked)), ..write(&full(&name(who)), Token(0), 1, 2000) };
        let store = store.clone();
        async move { drop(store.apply(write).await.unwrap()) }
    });
    futures_util::future::join_all(writes).await;
    for who in (0..1500).step_by(4) {
        store.touch(touch(&full(&name(who)), 1000, 2000)).await.unwrap();
    }
    assert_eq!(store.forget_idle(at(500), 9999).await.unwrap().len(), 375);
    assert_eq!(store.size(at(0)).await.unwrap().entries, 1125);
    assert_eq!(store.forget_idle(at(1001), 9999).await.unwrap().len(), 1125);
    assert_eq!(server.text("TYPE {avatar-proxy}:idle"), "none");
}

#[tokio::test]
async fn stores_with_prefixes_of_their_own_share_a_server() {
    let server = Server::start();
    let (a, b) =
        (open(&format!("{}/2?prefix=a", server.url())).await, open(&format!("{}/2?prefix=b", server.url())).await);
    done(&a, write(&full("1"), Token(0), 1, 10)).await;
    assert!(a.find(&full("1")).await.unwrap().entry.is_some());
    assert!(b.find(&full("1")).await.unwrap().entry.is_none());
    assert_eq!(server.ask("DBSIZE"), redis::Value::Int(0), "nor is it in another database");
}

#[tokio::test]
async fn the_log_is_a_stream_that_anybody_can_read() {
    let server = Server::start();
    let store = open(&server.url()).await;
    let told = Change { old_id: None, ..change("event", 7) };
    done(&store, Write { change: Some(told), ..write(&key_of("d", "1", false, false), Token(0), 1, 10) }).await;
    let group = "XGROUP CREATE {avatar-proxy}:log readers 0".split(' ').collect::<Vec<_>>();
    redis::cmd(group[0]).arg(&group[1..]).exec(&mut server.raw()).unwrap();
    let answer = server.ask("XREADGROUP GROUP readers one COUNT 9 STREAMS {avatar-proxy}:log >");
    let streams: Vec<Stream> = redis::from_redis_value(answer).unwrap();
    let (place, fields) = &streams[0].1[0];
    let fields: Vec<_> = fields.chunks(2).map(|pair| (pair[0].as_str(), pair[1].as_str())).collect();
    let expected = [
        ("kind", "changed"),
        ("at", "1700000009000"),
        ("device", "d"),
        ("jid", "1@s.whatsapp.net"),
        ("event_id", "event"),
        ("reason", ""),
        ("old_id", ""),
        ("new_id", "2"),
        ("version", "7"),
        ("not_before", "1700000003000"),
    ];
    assert_eq!((place.as_str(), &fields[..]), ("1-0", &expected[..]));
}

#[tokio::test]
async fn a_damaged_record_counts_as_absent_and_is_written_anew() {
    let server = Server::start();
    let store = open(&server.url()).await;
    for (who, due) in [("1", 10), ("2", 20)] {
        done(&store, write(&full(who), Token(0), 1, due)).await;
    }
    let set = |value: &[u8]| {
        redis::cmd("SET").arg("{avatar-proxy}:1/1").arg(value).exec(&mut server.raw()).unwrap();
    };
    for damage in [&b""[..], b"\xc1", b"no array", b"\x90", b"\x93\x01\xc2\xa0"] {
        set(damage);
        let held = store.find(&full("1")).await.unwrap();
        assert!(held.damaged && held.entry.is_none(), "{damage:?}: {held:?}");
        let mended = write(&full("1"), held.revision, 2, 10);
        done(&store, mended.clone()).await;
        assert_eq!(store.find(&full("1")).await.unwrap().entry, Some(mended.entry));
    }
    set(b"");
    let taken = store.take_due(&full("1").subject.device, at(30), at(90), 9).await.unwrap();
    assert_eq!(taken.iter().map(|due| due.key.clone()).collect::<Vec<_>>(), [full("2")], "it spoils nothing else");
}

#[tokio::test]
async fn an_emptied_server_is_another_log_whose_places_and_tokens_go_on() {
    let server = Server::start();
    let (a, b) = (open(&server.url()).await, open(&server.url()).await);
    for event in ["one", "two"] {
        changed(&a, &full("1"), event).await;
    }
    let (before, token) = (a.read_log(0, 9).await.unwrap(), a.claim(&full("1")).await.unwrap().start);
    server.ask("FLUSHALL");
    // It begins by somebody who has seen nothing.
    let c = open(&server.url()).await;
    changed(&c, &full("1"), "three").await;
    changed(&c, &full("2"), "three too").await;
    assert!(b.claim(&full("1")).await.unwrap().start > token);
    eventually("all go on behind where the old log ended", async || {
        [&a, &b, &c].iter().all(|store| *store.tip().borrow() > before.extent.last)
    })
    .await;
    changed(&a, &full("1"), "four").await;
    let after = b.read_log(0, 9).await.unwrap();
    assert!(after.extent.epoch != before.extent.epoch && !after.extent.reaches(before.extent.cursor(2)));
    assert_eq!(after.records.len(), 3);
    assert_eq!(after.extent, a.read_log(0, 9).await.unwrap().extent);
    assert_eq!(after.extent, c.read_log(0, 9).await.unwrap().extent);
}

#[tokio::test]
async fn a_script_that_the_server_does_not_know_is_sent_again() {
    let server = Server::start();
    let store = open(&server.url()).await;
    let revision = done(&store, write(&full("1"), Token(0), 1, 10)).await;
    server.ask("SCRIPT FLUSH");
    done(&store, write(&full("1"), revision, 2, 10)).await;
    assert!(store.find(&full("1")).await.unwrap().entry.is_some());
}

#[tokio::test]
async fn a_write_that_is_sent_twice_is_written_once() {
    let server = Server::start();
    let store = open(&server.url()).await;
    let twice = Write { change: Some(change("e", 1)), ..write(&full("1"), Token(0), 1, 10) };
    let token = done(&store, twice.clone()).await;
    assert_eq!(done(&store, twice).await, token);
    assert_eq!(store.read_log(0, 9).await.unwrap().extent.last, 1);
}

#[tokio::test]
async fn a_record_that_was_trimmed_leaves_no_trace() {
    let server = Server::start();
    let store = open(&server.url()).await;
    changed(&store, &full("1"), "e").await;
    assert_eq!(server.text("TYPE {avatar-proxy}:h:1/1"), "zset");
    store.trim_log(at(99), 9).await.unwrap();
    assert_eq!(server.text("TYPE {avatar-proxy}:h:1/1"), "none");
}

#[tokio::test]
async fn a_closed_store_leaves_no_connection() {
    let server = Server::start();
    let store = open(&server.url()).await;
    store.close().await;
    assert!(matches!(store.find(&full("1")).await, Err(StoreError::Unavailable(_))));
    eventually("its connections are gone", async || {
        let clients = server.text("CLIENT LIST");
        clients.lines().count() == 1
    })
    .await;
}
