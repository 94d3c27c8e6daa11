//! A store that was moved from a file to a server is the same store.

use std::path::Path;
use std::time::Duration;

use avatar_proxy::clock::Clock;
use avatar_proxy::jid::Key;
use avatar_proxy::migrate::{self, Config, Error, Summary, Telling};
use avatar_proxy::outcome::Token;
use avatar_proxy::recheck::{Lessons, Look};
use avatar_proxy::store::migration::{Place, Tally};
use avatar_proxy::store::redis::Address;
use avatar_proxy::store::redis::migration::Target;
use avatar_proxy::store::sqlite::migration::Source;
use avatar_proxy::store::{
    Delivery, DeviceRecord, Disabled, Endpoint, LastResult, Progress, Secret, Size, Standing, Watch, Write,
};
use tokio_util::sync::CancellationToken;

use super::sqlite::File;
use super::{Engine as _, Opened, at, change, done, full, key_of, outlook, preview, redis, write};
use crate::support::redis::Redis as Server;
use crate::support::relay::Relay;

pub(super) async fn migrate(from: &Path, to: &str) -> Result<Summary, Error> {
    let stores = Config { from: from.to_owned(), to: Address::parse(to).unwrap() };
    migrate::run(stores, Clock::system(), &CancellationToken::new(), Telling::Nothing).await
}

/// Why it cannot be moved.
async fn refusal(from: &Path, to: &str) -> String {
    migrate(from, to).await.expect_err("it must not be moved").to_string()
}

fn keys() -> Vec<Key> {
    let mut keys: Vec<Key> = (0..900).map(|n| full(&format!("999{n:04}"))).collect();
    keys.extend((0..300).map(|n| key_of("another device", &format!("999{n:04}"), false, false)));
    keys.extend((0..300).map(|n| preview(&format!("999{n:04}"))));
    keys.extend((0..9).map(|n| key_of("d\u{e9}vice", &format!("12036302524612548{n}@g.us"), true, true)));
    keys
}

/// Of everything that can be in a store there is something, and of some of it more than a page.
async fn fill(store: &Opened) {
    let keys = keys();
    let (first, second) = (&keys[0], &keys[1]);
    for (number, key) in (0u32..).zip(&keys) {
        let held = store.find(key).await.unwrap();
        let logged = (number % 2 == 0).then(|| change(&format!("e{number}"), u64::from(number)));
        let number_of_seconds = i64::from(number);
        done(
            store,
            Write {
                change: logged,
                requested_at: (number % 3 > 0).then(|| at(number_of_seconds)),
                also_due: (number % 5 == 0)
                    .then(|| (preview("9990500"), at(40)))
                    .map(|(other, due)| (Key { subject: key.subject.clone(), variant: other.variant }, due)),
                outlook: outlook(number_of_seconds),
                recheck_at: at(number_of_seconds % 100),
                ..write(key, held.revision, u64::from(number) + 1, number_of_seconds)
            },
        )
        .await;
    }
    for key in keys.iter().rev().step_by(7) {
        let watch = Watch { subject: key.subject.clone(), interval: Duration::from_secs(3600) };
        store.watch(watch, at(50), 999).await.unwrap();
    }
    let never_seen = Watch { subject: full("9995555").subject, interval: Duration::from_secs(60) };
    store.watch(never_seen, at(9), 999).await.unwrap();
    // Something is in hand, some are ready, some come up no more.
    store.take_rechecks(&first.subject.device, at(30), at(5000), 20).await.unwrap();
    store.take_due(&first.subject.device, at(20), at(5000), 5).await.unwrap();
    store.defer(vec![(keys[600].subject.clone(), None)]).await.unwrap();
    store.reschedule(vec![(keys[601].clone(), None)]).await.unwrap();

    let record = DeviceRecord {
        proven: true,
        cool_down_until: Some(at(60)),
        cool_down_seconds: 60,
        slowed_at: Some(at(1)),
        slowed_to: 0.25,
    };
    store.put_device(&first.subject.device, record).await.unwrap();
    store.put_device(&keys[900].subject.device, DeviceRecord::default()).await.unwrap();
    let mut lessons = Lessons::default();
    lessons.learn(&outlook(1), Look { changed: true, at: at(86_400), virtual_now: 3.0 });
    store.put_lessons(&lessons).await.unwrap();

    for id in ["one", "two"] {
        let secret = |text: &str, until| Secret { text: text.into(), until };
        let endpoint = Endpoint {
            id: id.into(),
            url: format!("https://receiver.example/{id}"),
            secrets: vec![secret("new", None), secret("old", Some(at(9)))],
            events: vec!["avatar.set".into()],
            jids: vec![first.subject.jid],
            from_flag: id == "one",
            created_at: at(3),
        };
        let epoch = store.read_log(0, 0).await.unwrap().extent;
        let standing = Standing {
            cursor: epoch.cursor(7),
            disabled: (id == "two").then(|| Disabled { why: "gone".into(), since: at(5) }),
            failing_since: Some(at(4)),
            last: Some(LastResult { at: at(4), text: "500".into() }),
        };
        store.put_endpoint(endpoint, standing.clone(), 9).await.unwrap();
        let delivery = |sequence: u64, subject: Option<&Key>, dead: bool| Delivery {
            sequence,
            event_id: format!("e{}", (sequence - 1) * 2),
            subject: subject.map(|key| key.subject.clone()),
            noticed_at: at(2),
            attempts: 3,
            first_at: dead.then(|| at(3)),
            due_at: at(8),
            dead,
            json: format!("{{\"of\":{sequence}}}").into(),
        };
        let mut kept: Vec<_> = (2..300).map(|n| delivery(n, Some(&keys[0]), n % 4 == 0)).collect();
        kept.push(delivery(300, None, false));
        let lease = Token(0);
        store
            .progress(Progress { endpoint: id.into(), lease, becomes: None, standing, kept, ended: vec![] })
            .await
            .unwrap();
    }
    store.trim_log(at(100), 5).await.unwrap();
    store.forget(&second.subject.jid, None, at(70)).await.unwrap();
}

/// Everything that can be asked of a store, answered by both in the same words.
async fn assert_same(file: &Opened, server: &Opened) {
    for key in keys().into_iter().chain([full("9995555"), preview("9990005")]) {
        let (here, there) = (file.find(&key).await.unwrap(), server.find(&key).await.unwrap());
        assert_eq!(here, there, "{key:?}");
        let (jid, device) = (key.subject.jid, &key.subject.device);
        for device in [None, Some(device)] {
            let here = file.history(&jid, device, u64::MAX, 50).await.unwrap();
            assert_eq!(here, server.history(&jid, device, u64::MAX, 50).await.unwrap());
        }
        assert_eq!(file.device(device).await.unwrap(), server.device(device).await.unwrap());
        let counts = [1, 2, 50, 400];
        let (here, there) =
            (file.outlay(device, &counts).await.unwrap(), server.outlay(device, &counts).await.unwrap());
        assert_eq!(here.rechecks, there.rechecks);
        let dues =
            |outlay: &avatar_proxy::store::Outlay| outlay.deadlines.iter().map(|one| one.due_at).collect::<Vec<_>>();
        assert_eq!(dues(&here), dues(&there));
    }
    let (here, there) = (file.read_log(0, 9999).await.unwrap(), server.read_log(0, 9999).await.unwrap());
    assert!(here.records.len() > 700 && here.extent.trimmed > 0);
    assert_eq!(here, there);
    let watches = file.watches(None, None, 999).await.unwrap();
    assert!(watches.len() > 200);
    assert_eq!(watches, server.watches(None, None, 999).await.unwrap());
    let endpoints = file.endpoints().await.unwrap();
    assert_eq!(endpoints, server.endpoints().await.unwrap());
    for endpoint in endpoints {
        let id = &endpoint.endpoint.id;
        for dead in [false, true] {
            let kept = file.deliveries(id, dead, 0, 999).await.unwrap();
            assert!(kept.len() > 70);
            assert_eq!(kept, server.deliveries(id, dead, 0, 999).await.unwrap());
        }
    }
    let lessons = |lessons: Option<Lessons>| lessons.unwrap().encode();
    assert_eq!(lessons(file.lessons().await.unwrap()), lessons(server.lessons().await.unwrap()));
    let size = |size: Size| Size { bytes: 0, ..size };
    assert_eq!(size(file.size(at(200)).await.unwrap()), size(server.size(at(200)).await.unwrap()));
    let agenda = file.agenda().await.unwrap();
    assert_eq!(agenda.len(), server.agenda().await.unwrap().len());
}

/// What comes up, in its order; whoever takes from one takes the same from the other.
async fn assert_same_turns(file: &Opened, server: &Opened) {
    for agenda in file.agenda().await.unwrap() {
        let device = agenda.device;
        for round in 0..20 {
            // Few enough at once for both to consider them all.
            let now = at(round * 10);
            let (here, there) = (
                file.take_rechecks(&device, now, at(9000), 30).await.unwrap(),
                server.take_rechecks(&device, now, at(9000), 30).await.unwrap(),
            );
            let said = |one: Vec<avatar_proxy::store::Candidate>| {
                one.into_iter().map(|one| format!("{:?} {:?}", one.subject, one.watch)).collect::<Vec<_>>()
            };
            assert_eq!(said(here), said(there), "{device:?} at {now:?}");
        }
        let (here, there) = (
            file.take_due(&device, at(9_999), at(20_000), 9_999).await.unwrap(),
            server.take_due(&device, at(9_999), at(20_000), 9_999).await.unwrap(),
        );
        let sorted = |mut taken: Vec<avatar_proxy::store::Due>| {
            taken.sort_by_key(|due| (due.due_at, due.key.clone()));
            taken.into_iter().map(|due| format!("{due:?}")).collect::<Vec<_>>()
        };
        assert_eq!(sorted(here), sorted(there));
    }
    let gone = |mut gone: Vec<avatar_proxy::jid::Subject>| {
        gone.sort_unstable();
        gone
    };
    for before in [at(300), at(100_000)] {
        let here = gone(file.forget_idle(before, 9_999).await.unwrap());
        assert_eq!(here, gone(server.forget_idle(before, 9_999).await.unwrap()));
    }
    // A late word about somebody who was forgotten on both is held by neither.
    let jid = keys()[0].subject.jid;
    assert!(file.forget(&jid, None, at(80)).await.unwrap() && server.forget(&jid, None, at(80)).await.unwrap());
    assert_eq!(file.endpoints().await.unwrap(), server.endpoints().await.unwrap());
    assert_eq!(file.read_log(0, 9999).await.unwrap(), server.read_log(0, 9999).await.unwrap());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_migrated_store_answers_as_the_file_did_and_goes_on_in_the_same_way() {
    let (file, server) = (File::new(), Server::start());
    let store = file.open().await;
    fill(&store).await;
    let last = store.claim(&full("1")).await.unwrap().start;
    let extent = store.read_log(0, 0).await.unwrap().extent;
    store.close().await;
    let before = std::fs::read(file.path()).unwrap();

    let summary = migrate(&file.path(), &server.url()).await.unwrap();
    let Tally { devices, subjects, entries, watches, logged, endpoints, deliveries } = summary.tally;
    assert_eq!((devices, endpoints, summary.passed_over), (2, 2, 0));
    assert!(subjects > 1200 && entries > subjects && watches > 200 && logged > 700 && deliveries == 598, "{summary}");
    assert!(std::fs::read(file.path()).unwrap() == before, "the file was written to");

    let (here, there) = (file.open().await, redis::open(&server.url()).await);
    assert_eq!(there.read_log(0, 0).await.unwrap().extent, extent);
    assert!(there.claim(&full("1")).await.unwrap().start > last, "a token went back");
    assert_same(&here, &there).await;
    assert_same_turns(&here, &there).await;
    assert_eq!(server.ask("HEXISTS {avatar-proxy}:meta migration"), ::redis::Value::Int(0));
    here.close().await;
    there.close().await;
    // Once more it is refused: what is there now may be newer.
    assert!(refusal(&file.path(), &server.url()).await.contains("holds this store already"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_empty_store_is_moved_as_well_and_cursors_stay_valid() {
    let (file, server) = (File::new(), Server::start());
    let store = file.open().await;
    let extent = store.read_log(0, 9).await.unwrap().extent;
    store.close().await;
    let summary = migrate(&file.path(), &server.url()).await.unwrap();
    assert_eq!(summary.tally, Tally::default());
    let store = redis::open(&server.url()).await;
    assert_eq!(store.read_log(0, 9).await.unwrap().extent, extent);
    done(&store, Write { change: Some(change("e", 1)), ..write(&full("1"), Token(0), 1, 1) }).await;
    assert_eq!(store.read_log(0, 9).await.unwrap().records[0].sequence, extent.last + 1);
    store.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_nobody_could_ask_for_stays_behind_and_spoils_nothing_else() {
    let (file, server) = (File::new(), Server::start());
    let store = file.open().await;
    fill(&store).await;
    store.close().await;
    file.raw()
        .execute_batch(
            "UPDATE subjects SET jid = 'nobody' WHERE id = 3;
            UPDATE entries SET record = x'c1' WHERE id = 16;
            UPDATE entries SET record = x'' WHERE id = 20;
            UPDATE subjects SET state = x'', outlook = x'00' WHERE id = 6;
            UPDATE log SET jid = 'nobody' WHERE sequence = 20;
            UPDATE log SET kind = 'unheard of' WHERE sequence = 21;
            UPDATE deliveries SET jid = 'nobody' WHERE sequence = 9;",
        )
        .unwrap();
    let summary = migrate(&file.path(), &server.url()).await.unwrap();
    assert_eq!(summary.passed_over, 4, "a person, a record of the log, a delivery to each of two");
    let (here, there) = (file.open().await, redis::open(&server.url()).await);
    for key in keys() {
        assert_eq!(here.find(&key).await.unwrap().entry, there.find(&key).await.unwrap().entry, "{key:?}");
    }
    assert!(here.find(&keys()[3]).await.unwrap().damaged && there.find(&keys()[3]).await.unwrap().damaged);
    assert_eq!(here.read_log(0, 9999).await.unwrap(), there.read_log(0, 9999).await.unwrap());
    here.close().await;
    there.close().await;
}

/// Moves so many pages, as a run does that is interrupted then. Returns how many items those are.
async fn begin(file: &File, server: &Server, pages: usize) -> u64 {
    let source = Source::open(&file.path()).unwrap();
    let address = Address::parse(&server.url()).unwrap();
    let opened = Target::open(address, Clock::system(), source.head(), source.tokens(), source.state()).await;
    let (target, begun) = opened.unwrap();
    let (mut at, mut rows) = (begun.at, 0);
    for _ in 0..pages {
        let Some(page) = source.page(&at).unwrap() else { break };
        // Whoever does not know whether a page arrived sends it once more.
        target.put(&page).await.unwrap();
        target.put(&page).await.unwrap();
        rows += page.items.len() as u64;
        at = page.next;
    }
    rows
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_not_finished_is_no_store_and_goes_on() {
    let (file, server, whole) = (File::new(), Server::start(), Server::start());
    let store = file.open().await;
    fill(&store).await;
    store.close().await;
    let digest = migrate(&file.path(), &whole.url()).await.unwrap().digest;

    let rows = begin(&file, &server, 3).await;
    let said = redis::refusal(&server.url()).await;
    assert!(said.contains("`avatar-proxy migrate`, which has not finished"), "{said}");

    // Another file's migration is turned away.
    let another = File::new();
    another.open().await.close().await;
    let before = server.ask("HGETALL {avatar-proxy}:meta");
    let said = refusal(&another.path(), &server.url()).await;
    assert!(said.contains("is being filled from another store") && said.contains("nothing was changed"), "{said}");
    assert_eq!(server.ask("HGETALL {avatar-proxy}:meta"), before);

    assert!(begin(&file, &server, 2).await > 0 && rows > 300);
    assert_eq!(migrate(&file.path(), &server.url()).await.unwrap().digest, digest);
    let (here, there) = (file.open().await, redis::open(&server.url()).await);
    assert_same(&here, &there).await;
    here.close().await;
    there.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replica_that_still_runs_leaves_what_is_being_filled_alone() {
    let (file, server) = (File::new(), Server::start());
    let store = file.open().await;
    fill(&store).await;
    store.close().await;
    // One had another store there before, one had this very one: somebody emptied it and began anew.
    let (another, this) = (Server::start(), Server::start());
    migrate(&file.path(), &this.url()).await.unwrap();
    let relays = [Relay::to(another.port()).await, Relay::to(this.port()).await];
    let mut stores = vec![];
    for relay in &relays {
        stores.push(redis::open(&format!("redis://127.0.0.1:{}", relay.port())).await);
    }
    begin(&file, &server, 3).await;
    for relay in &relays {
        relay.lead_to(server.port());
    }

    let before = server.ask("HGETALL {avatar-proxy}:meta");
    for store in &stores {
        let late = full("9998888");
        let said = store.apply(write(&late, Token(0), 1, 1)).await.unwrap_err().to_string();
        assert!(said.contains("has not finished"), "{said}");
        assert!(store.find(&late).await.is_err() && store.claim(&late).await.is_err());
    }
    assert_eq!(server.ask("HGETALL {avatar-proxy}:meta"), before);
    migrate(&file.path(), &server.url()).await.unwrap();
    for store in stores {
        assert!(store.find(&keys()[7]).await.unwrap().entry.is_some(), "it goes on");
        store.close().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_migrations_do_not_mix() {
    let (file, server) = (File::new(), Server::start());
    let store = file.open().await;
    fill(&store).await;
    store.close().await;
    let source = Source::open(&file.path()).unwrap();
    let target = async || {
        let address = Address::parse(&server.url()).unwrap();
        let opened = Target::open(address, Clock::system(), source.head(), source.tokens(), source.state()).await;
        opened.unwrap().0
    };
    let (one, other) = (target().await, target().await);
    let first = source.page(&Place::START).unwrap().unwrap();
    let second = source.page(&first.next).unwrap().unwrap();
    let third = source.page(&second.next).unwrap().unwrap();
    one.put(&first).await.unwrap();
    one.put(&second).await.unwrap();
    for page in [&first, &third] {
        let ahead = other.put(page).await;
        let is_third = page.from == third.from;
        assert_eq!(ahead.is_ok(), is_third, "{ahead:?}");
    }
    let said = one.put(&second).await.unwrap_err().to_string();
    assert!(said.contains("another migration fills it"), "{said}");
    assert!(one.finish().await.is_err(), "it is not at its end");
    server.ask("FLUSHALL");
    let said = one.put(&third).await.unwrap_err().to_string();
    assert!(said.contains("has lost what was carried over"), "{said}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_file_that_was_used_between_two_runs_is_not_mixed_with_itself() {
    let (file, server) = (File::new(), Server::start());
    let store = file.open().await;
    fill(&store).await;
    store.close().await;
    begin(&file, &server, 3).await;
    let store = file.open().await;
    let late = full("9997777");
    done(&store, write(&late, Token(0), 1, 1)).await;
    store.close().await;
    let said = refusal(&file.path(), &server.url()).await;
    assert!(said.contains("which was used since"), "{said}");
    server.ask("FLUSHALL");
    migrate(&file.path(), &server.url()).await.unwrap();
    assert!(redis::open(&server.url()).await.find(&late).await.unwrap().entry.is_some());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_others_have_written_to_meanwhile_is_found_and_never_becomes_a_store() {
    let (file, server) = (File::new(), Server::start());
    let store = file.open().await;
    fill(&store).await;
    store.close().await;
    for harm in [
        "SET {avatar-proxy}:1/9990100 x",
        "DEL {avatar-proxy}:1/9990100",
        "ZREM {avatar-proxy}:wait:1 9990250",
        "HINCRBYFLOAT {avatar-proxy}:virtual 1 7",
        "XDEL {avatar-proxy}:log 30-0",
        "XADD {avatar-proxy}:log 99999-0 kind set",
        "HDEL {avatar-proxy}:standings one",
        "HDEL {avatar-proxy}:d:one 9",
        "DEL {avatar-proxy}:o:1/9990000",
        "ZREM {avatar-proxy}:h:1/9990060 e60",
        "HSET {avatar-proxy}:device_records another x",
        "HDEL {avatar-proxy}:meta lessons",
        "HINCRBY {avatar-proxy}:meta trimmed 1",
    ] {
        server.ask("FLUSHALL");
        // All is there, and nothing is compared yet.
        begin(&file, &server, usize::MAX).await;
        assert_ne!(server.ask(harm), ::redis::Value::Int(0), "{harm}: nothing was there");
        let said = migrate(&file.path(), &server.url()).await.expect_err(harm).to_string();
        assert!(
            said.contains("what arrived is not what was sent") || said.contains("cannot be read"),
            "{harm}: {said}"
        );
        assert!(redis::refusal(&server.url()).await.contains("has not finished"), "{harm}");
    }
}
