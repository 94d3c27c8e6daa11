//! The change log, watches and forgetting: the same on every engine.

use std::time::Duration;

use avatar_proxy::change::Change;
use avatar_proxy::jid::{Device, Jid, Key, Subject};
use avatar_proxy::outcome::Token;
use avatar_proxy::store::{Applied, Page, Watch, Watched, What, Write};

use super::{Engine, Opened, at, change, done, full, key_of, preview, write};

const HOUR: Duration = Duration::from_secs(3600);

/// Applies a change of the picture of `key`'s subject, noticed after so many seconds; returns the new revision.
async fn changed(store: &Opened, key: &Key, expected: Token, event: &str, seconds: i64) -> Token {
    let change = Change { noticed_at: at(seconds), ..change(event, 1) };
    done(store, Write { change: Some(change), ..write(key, expected, 1, 10) }).await
}

fn told(page: &Page) -> Vec<(u64, String)> {
    let what = |what: &What| match what {
        What::Change(change) => format!("{}{}", change.0.device.as_str(), change.1.event_id),
        What::Forgotten => "forgotten".to_owned(),
    };
    page.records.iter().map(|record| (record.sequence, what(&record.what))).collect()
}

fn events(of: &[(u64, &str)]) -> Vec<(u64, String)> {
    of.iter().map(|(sequence, event)| (*sequence, (*event).to_owned())).collect()
}

fn watch_of(key: &Key, interval: Duration) -> Watch {
    Watch { subject: key.subject.clone(), interval }
}

pub(super) async fn the_log_is_read_from_any_place(engine: impl Engine) {
    let store = engine.open().await;
    assert_eq!(store.read_log(0, 9).await.unwrap().records, []);
    let mut tip = store.tip();
    let one = changed(&store, &full("1"), Token(0), "a", 1).await;
    assert!(tip.has_changed().unwrap() && *tip.borrow_and_update() == 1, "who waits is told");
    done(&store, write(&full("2"), Token(0), 1, 10)).await;
    assert!(!tip.has_changed().unwrap(), "a look without a change is nothing to tell");
    changed(&store, &preview("1"), one, "b", 2).await;
    changed(&store, &key_of("d", "1", false, false), Token(0), "c", 3).await;
    let all = store.read_log(0, 9).await.unwrap();
    assert_eq!(told(&all), events(&[(1, "a"), (2, "b"), (3, "dc")]));
    assert_eq!((all.extent.trimmed, all.extent.last), (0, 3));
    let What::Change(first) = &all.records[0].what else { panic!("{all:?}") };
    assert_eq!(**first, (full("1").subject, Change { noticed_at: at(1), ..change("a", 1) }), "as it was written");
    assert_eq!(told(&store.read_log(1, 1).await.unwrap()), events(&[(2, "b")]));
    assert_eq!(told(&store.read_log(3, 9).await.unwrap()), []);

    let jid = Jid::parse("1").unwrap();
    let history = async |device: Option<&str>, before, limit| {
        let device = device.map(|name| Device::new(name).unwrap());
        told(&store.history(&jid, device.as_ref(), before, limit).await.unwrap())
    };
    assert_eq!(history(None, u64::MAX, 9).await, events(&[(3, "dc"), (2, "b"), (1, "a")]), "newest first");
    assert_eq!(history(Some(""), u64::MAX, 9).await, events(&[(2, "b"), (1, "a")]));
    assert_eq!(history(None, 3, 1).await, events(&[(2, "b")]));
    store.close().await;

    let store = engine.open().await;
    assert_eq!(*store.tip().borrow(), 3);
    assert_eq!(store.read_log(0, 9).await.unwrap(), all, "the same log, by the same epoch");
    store.close().await;
}

pub(super) async fn the_log_is_trimmed_at_its_oldest_end(engine: impl Engine) {
    let store = engine.open().await;
    let mut revision = Token(0);
    // The third was noticed by a clock that had been set back.
    for (event, seconds) in [("a", 10), ("b", 20), ("c", 5), ("d", 40)] {
        revision = changed(&store, &full("1"), revision, event, seconds).await;
    }
    assert_eq!(store.trim_log(at(10), 9).await.unwrap(), 0, "the oldest stands before all others");
    assert_eq!(store.trim_log(at(40), 1).await.unwrap(), 1);
    assert_eq!(store.trim_log(at(40), 9).await.unwrap(), 2);
    let page = store.read_log(0, 9).await.unwrap();
    assert_eq!((told(&page), page.extent.trimmed, page.extent.last), (events(&[(4, "d")]), 3, 4));
    let size = store.size(at(0)).await.unwrap();
    assert_eq!((size.logged, size.logged_since), (1, Some(at(40))));
    assert_eq!(store.trim_log(at(100), 9).await.unwrap(), 1);
    store.close().await;

    let store = engine.open().await;
    let extent = store.read_log(0, 9).await.unwrap().extent;
    assert_eq!((extent.trimmed, extent.last), (4, 4), "an empty log remembers how far it came");
    changed(&store, &full("1"), revision, "e", 50).await;
    assert_eq!(told(&store.read_log(4, 9).await.unwrap()), events(&[(5, "e")]), "no sequence is given twice");
    store.close().await;
}

pub(super) async fn a_watch_is_part_of_what_is_held(engine: impl Engine) {
    let store = engine.open().await;
    let watch = async |key: &Key, interval, limit| store.watch(watch_of(key, interval), at(5), limit).await.unwrap();
    done(&store, write(&full("1"), Token(0), 1, 100)).await;
    assert_eq!(watch(&full("1"), HOUR, 2).await, Watched::Done);
    assert_eq!(watch(&full("2"), HOUR, 2).await, Watched::Done);
    assert_eq!(watch(&full("3"), HOUR, 2).await, Watched::TooMany);
    assert_eq!(watch(&full("1"), 2 * HOUR, 2).await, Watched::Done, "another interval is no other watch");
    assert_eq!(store.find(&preview("1")).await.unwrap().watch, Some(2 * HOUR));
    assert_eq!(store.find(&full("3")).await.unwrap().watch, None);
    assert_eq!(store.size(at(0)).await.unwrap().watches, 2);
    let mut taken = store.take_rechecks(&full("1").subject.device, at(5), at(900), 9).await.unwrap();
    taken.sort_by_key(|candidate| candidate.subject.clone());
    let taken: Vec<_> = taken.into_iter().map(|one| (one.subject, one.pictures.len(), one.watch)).collect();
    let watched = [(full("1").subject, 1, Some(2 * HOUR)), (full("2").subject, 0, Some(HOUR))];
    assert_eq!(taken, watched, "held or not");

    let jid = Jid::parse("1").unwrap();
    assert!(!store.unwatch(&jid, Some(&Device::new("d").unwrap())).await.unwrap());
    assert!(store.unwatch(&jid, None).await.unwrap() && !store.unwatch(&jid, None).await.unwrap());
    assert_eq!(store.find(&full("1")).await.unwrap().watch, None);
    assert_eq!(store.size(at(0)).await.unwrap().watches, 1);
    store.close().await;
}

pub(super) async fn watches_are_listed_in_pages(engine: impl Engine) {
    let store = engine.open().await;
    let mut all = vec![];
    for device in ["", "d"] {
        for who in ["1", "2", "3"] {
            all.push(watch_of(&key_of(device, who, false, false), HOUR));
            store.watch(all.last().unwrap().clone(), at(0), 99).await.unwrap();
        }
    }
    let d = Device::new("d").unwrap();
    for device in [None, Some(&d)] {
        let (mut seen, mut after): (Vec<Watch>, Option<Subject>) = (vec![], None);
        loop {
            let page = store.watches(device, after.as_ref(), 2).await.unwrap();
            let Some(last) = page.last() else { break };
            after = Some(last.subject.clone());
            seen.extend(page);
        }
        assert_eq!(seen, if device.is_some() { &all[3..] } else { &all[..] });
    }
    store.close().await;
}

pub(super) async fn who_is_watched_is_not_idle(engine: impl Engine) {
    let store = engine.open().await;
    for who in ["1", "2"] {
        let write = write(&full(who), Token(0), 1, 10);
        done(&store, Write { requested_at: Some(at(0)), ..write }).await;
    }
    store.watch(watch_of(&full("1"), HOUR), at(10), 9).await.unwrap();
    let revision = store.find(&full("1")).await.unwrap().revision;
    done(&store, Write { requested_at: Some(at(1)), ..write(&preview("1"), revision, 1, 10) }).await;
    assert_eq!(store.forget_idle(at(900), 9).await.unwrap(), [full("2").subject]);
    assert!(store.find(&preview("1")).await.unwrap().entry.is_some(), "made while it was watched");
    store.unwatch(&full("1").subject.jid, None).await.unwrap();
    assert_eq!(store.forget_idle(at(900), 9).await.unwrap(), [full("1").subject]);
    store.close().await;
}

pub(super) async fn who_is_forgotten_leaves_nothing_but_that(engine: impl Engine) {
    let store = engine.open().await;
    let of_d = key_of("d", "1", false, false);
    let one = changed(&store, &full("1"), Token(0), "a", 1).await;
    changed(&store, &preview("1"), one, "b", 2).await;
    changed(&store, &of_d, Token(0), "c", 3).await;
    changed(&store, &full("2"), Token(0), "e", 4).await;
    store.watch(watch_of(&full("1"), HOUR), at(0), 9).await.unwrap();
    let (jid, d) = (full("1").subject.jid, Device::new("d").unwrap());
    let log = async || told(&store.read_log(0, 9).await.unwrap());

    assert!(store.forget(&jid, Some(&d), at(5)).await.unwrap());
    assert_eq!(log().await, events(&[(1, "a"), (2, "b"), (4, "e"), (5, "forgotten")]));
    assert!(store.find(&full("1")).await.unwrap().entry.is_some(), "another device's");
    assert!(store.forget(&jid, None, at(6)).await.unwrap());
    assert!(!store.forget(&jid, None, at(7)).await.unwrap(), "nothing was held, and nothing is said");
    assert_eq!(log().await, events(&[(4, "e"), (5, "forgotten"), (6, "forgotten")]));
    for key in [full("1"), preview("1"), of_d] {
        assert_eq!(store.find(&key).await.unwrap(), avatar_proxy::store::Held::default());
    }
    let size = store.size(at(900)).await.unwrap();
    assert_eq!((size.entries, size.subjects, size.watches, size.logged), (1, 1, 0, 3));
    assert_eq!(store.read_log(0, 0).await.unwrap().extent.trimmed, 0, "cursors stay valid");
    store.close().await;
}

pub(super) async fn a_look_that_began_before_is_turned_away(engine: impl Engine) {
    let store = engine.open().await;
    let (one, two, of_d) = (full("1"), full("2"), key_of("d", "1", false, false));
    let jid = one.subject.jid;
    let look = async |key: &Key| {
        let claim = store.claim(key).await.unwrap();
        Write { start: claim.start, ..write(key, claim.held.revision, 1, 10) }
    };
    let turned_away = async |write: Write| matches!(store.apply(write).await.unwrap(), Applied::Forgotten);
    let (early, of_another, elsewhere) = (look(&one).await, look(&two).await, look(&of_d).await);
    store.forget(&jid, Some(&one.subject.device), at(0)).await.unwrap();
    let late = look(&one).await;
    assert!(turned_away(early).await, "though nothing was held when it began");
    assert!(!turned_away(of_another).await && !turned_away(elsewhere).await && !turned_away(late).await);
    let (again, elsewhere) = (look(&one).await, look(&of_d).await);
    store.forget(&jid, None, at(0)).await.unwrap();
    assert!(turned_away(again).await && turned_away(elsewhere).await, "whatever the device");
    assert!(store.find(&one).await.unwrap().entry.is_none());
    store.close().await;
}
