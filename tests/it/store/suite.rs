//! The promises, one test each.

use avatar_proxy::jid::Key;
use avatar_proxy::outcome::Token;
use avatar_proxy::store::{Applied, DeviceRecord, Held, Size, StoreError, Touch, Write};

use super::schedule::take;
use super::{Engine, at, change, conflict, done, full, key_of, look, outlook, preview, write};

const NONE: Token = Token(0);

/// A request; what has neither a deadline nor a time from when on to be rechecked gets both then.
pub(super) fn touch(key: &Key, when: i64, due: i64) -> Vec<Touch> {
    vec![Touch { key: key.clone(), at: at(when), due_at: Some(at(due)), recheck_at: at(due) }]
}

pub(super) async fn nothing_is_held_at_first(engine: impl Engine) {
    let store = engine.open().await;
    assert_eq!(store.find(&full("1")).await.unwrap(), Held::default());
    assert_eq!(store.claim(&full("1")).await.unwrap().held, Held::default());
    assert_eq!(take(&store, 0).await, []);
    assert_eq!(store.device(&full("1").subject.device).await.unwrap(), None);
    assert_eq!(store.forget_idle(at(9), 10).await.unwrap(), []);
}

pub(super) async fn what_was_applied_is_found(engine: impl Engine) {
    let store = engine.open().await;
    let given = Write { requested_at: Some(at(5)), ..write(&full("1"), NONE, 7, 30) };
    let revision = done(&store, given.clone()).await;
    let held = Held {
        entry: Some(given.entry),
        state: given.state,
        revision,
        requested_at: Some(at(5)),
        watch: None,
        outlook: Some(given.outlook),
        virtual_now: 0.0,
        damaged: false,
    };
    assert_eq!(store.find(&full("1")).await.unwrap(), held);
    assert_eq!(store.claim(&full("1")).await.unwrap().held, held);
    let other = store.find(&preview("1")).await.unwrap();
    assert_eq!(other, Held { entry: None, requested_at: None, ..held }, "the state is the subject's");
}

pub(super) async fn who_computed_from_an_old_revision_is_given_the_present(engine: impl Engine) {
    let store = engine.open().await;
    let first = done(&store, write(&full("1"), NONE, 1, 10)).await;
    let present = store.find(&full("1")).await.unwrap();
    assert_eq!(conflict(&store, write(&full("1"), NONE, 2, 20)).await, present);
    assert_eq!(conflict(&store, write(&full("2"), first, 2, 20)).await, Held::default(), "nothing was there");
    let other = conflict(&store, write(&preview("1"), NONE, 2, 20)).await;
    assert_eq!((other.entry, other.revision), (None, first), "the revision is the subject's");
    assert_eq!(store.find(&full("1")).await.unwrap(), present, "a conflict writes nothing");
    assert_eq!(store.find(&full("2")).await.unwrap(), Held::default());
    assert_eq!(take(&store, 50).await, [(full("1"), 10)]);
    done(&store, write(&full("1"), first, 2, 20)).await;
}

pub(super) async fn of_many_writes_from_one_revision_exactly_one_wins(engine: impl Engine) {
    let store = engine.open().await;
    let revision = done(&store, write(&full("1"), NONE, 1000, 10)).await;
    let racers: Vec<_> = (0..64)
        .map(|id| {
            let (store, write) = (store.clone(), write(&full("1"), revision, id, 10));
            tokio::spawn(async move { (id, store.apply(write).await.unwrap()) })
        })
        .collect();
    let (mut won, mut lost) = (vec![], vec![]);
    for racer in racers {
        match racer.await.unwrap() {
            (id, Applied::Done(token)) => won.push((id, token)),
            (_, Applied::Conflict(held)) => lost.push(held),
            (_, Applied::Forgotten | Applied::Late) => panic!("nobody was forgotten or late"),
        }
    }
    assert_eq!((won.len(), lost.len()), (1, 63));
    let (entry, state) = look(won[0].0, Token(won[0].0), at(10));
    let outlook = Some(outlook(10));
    let present = Held { entry: Some(entry), state, revision: won[0].1, outlook, ..Held::default() };
    assert!(lost.iter().all(|held| **held == present), "every loser sees the winner");
}

pub(super) async fn many_writers_that_try_again_all_get_through(engine: impl Engine) {
    let store = engine.open().await;
    let writers: Vec<_> = (0..16)
        .map(|id| {
            let store = store.clone();
            tokio::spawn(async move {
                let mut expected = NONE;
                loop {
                    match store.apply(write(&full("1"), expected, id, 10)).await.unwrap() {
                        Applied::Done(token) => return (expected, token),
                        Applied::Conflict(held) => expected = held.revision,
                        Applied::Forgotten | Applied::Late => panic!("nobody was forgotten or late"),
                    }
                }
            })
        })
        .collect();
    let mut links = vec![];
    for writer in writers {
        links.push(writer.await.unwrap());
    }
    links.sort_unstable();
    assert_eq!(links[0].0, NONE);
    assert!(links.windows(2).all(|pair| pair[0].1 == pair[1].0), "an unbroken chain: {links:?}");
    assert!(links.iter().all(|(from, to)| from < to));
}

pub(super) async fn a_look_starts_after_what_it_was_given_and_ends_after_it_starts(engine: impl Engine) {
    let store = engine.open().await;
    let mut last = NONE;
    for _ in 0..5 {
        let claim = store.claim(&full("1")).await.unwrap();
        assert!(claim.start > last && claim.held.revision == last, "{claim:?}");
        let other = store.claim(&full("2")).await.unwrap().start;
        assert!(other > claim.start, "one counter for all");
        last = done(&store, write(&full("1"), last, 1, 10)).await;
        assert!(last > other);
    }
}

pub(super) async fn tokens_grow_over_a_restart(engine: impl Engine) {
    let mut last = NONE;
    for round in 0..4 {
        let store = engine.open().await;
        let claim = store.claim(&full("1")).await.unwrap();
        assert!(claim.start > last, "{claim:?} after {last:?}");
        let (entry, _) = look(1, claim.start, at(10));
        last = done(&store, Write { entry, ..write(&full("1"), claim.held.revision, 1, 10) }).await;
        assert!(last > claim.start);
        if round % 2 == 0 {
            store.close().await;
        }
    }
}

pub(super) async fn a_restart_keeps_everything(engine: impl Engine) {
    let store = engine.open().await;
    let device = full("1").subject.device;
    let record = DeviceRecord { proven: true, cool_down_until: Some(at(7)), ..DeviceRecord::default() };
    let also_due = Some((preview("1"), at(20)));
    done(&store, Write { requested_at: Some(at(5)), also_due, ..write(&full("1"), NONE, 7, 30) }).await;
    store.put_device(&device, record).await.unwrap();
    let held = store.find(&full("1")).await.unwrap();
    let size = store.size(at(25)).await.unwrap();
    store.close().await;
    let store = engine.open().await;
    assert_eq!(store.find(&full("1")).await.unwrap(), held);
    assert_eq!(store.device(&device).await.unwrap(), Some(record));
    let again = store.size(at(25)).await.unwrap();
    assert_eq!((again.entries, again.subjects, again.backlog), (size.entries, size.subjects, size.backlog));
    assert_eq!(take(&store, 50).await, [(preview("1"), 20), (full("1"), 30)]);
}

pub(super) async fn a_store_that_was_dropped_has_lost_nothing(engine: impl Engine) {
    let store = engine.open().await;
    done(&store, write(&full("1"), NONE, 7, 30)).await;
    let held = store.find(&full("1")).await.unwrap();
    drop(store);
    assert_eq!(engine.open().await.find(&full("1")).await.unwrap(), held);
}

pub(super) async fn a_request_is_never_moved_back(engine: impl Engine) {
    let store = engine.open().await;
    let requested = async || store.find(&full("1")).await.unwrap().requested_at;
    let mut revision = NONE;
    for (asked, counts) in [(None, None), (Some(50), Some(50)), (Some(40), Some(50)), (None, Some(50))] {
        let asked = Write { requested_at: asked.map(at), ..write(&full("1"), revision, 1, 10) };
        revision = done(&store, asked).await;
        assert_eq!(requested().await, counts.map(at));
    }
    store.touch(touch(&full("1"), 45, 99)).await.unwrap();
    assert_eq!(requested().await, Some(at(50)));
    store.touch([touch(&full("1"), 60, 99), touch(&full("1"), 55, 99)].concat()).await.unwrap();
    assert_eq!(requested().await, Some(at(60)));
}

pub(super) async fn devices_and_variants_are_kept_apart(engine: impl Engine) {
    let store = engine.open().await;
    let keys =
        [("a", false), ("a", true), ("b", false), ("", false)].map(|(device, small)| key_of(device, "1", small, false));
    let mut revisions = vec![];
    for (id, key) in (1..).zip(&keys) {
        let expected = store.find(key).await.unwrap().revision;
        revisions.push(done(&store, write(key, expected, id, 10)).await);
    }
    for (id, key) in (1..).zip(&keys) {
        let held = store.find(key).await.unwrap();
        assert_eq!(held.entry.unwrap().outcome.id(), Some(id.to_string().as_str()));
    }
    let held = store.find(&keys[0]).await.unwrap();
    assert_eq!(held.revision, revisions[1], "variants of one subject share its revision");
    assert_eq!(store.find(&keys[2]).await.unwrap().revision, revisions[2], "devices do not");
    assert_eq!(store.find(&key_of("c", "1", false, false)).await.unwrap(), Held::default());
}

pub(super) async fn idle_keys_go_with_their_state(engine: impl Engine) {
    let store = engine.open().await;
    let asked = |key: &Key, expected, when| Write { requested_at: Some(at(when)), ..write(key, expected, 1, 1000) };
    let revision = done(&store, asked(&full("1"), NONE, 10)).await;
    done(&store, asked(&preview("1"), revision, 50)).await;
    done(&store, asked(&full("2"), NONE, 20)).await;
    assert_eq!(store.forget_idle(at(10), 10).await.unwrap(), [], "asked for then, not before");
    assert_eq!(store.forget_idle(at(30), 10).await.unwrap(), [full("2").subject]);
    let held = store.find(&full("1")).await.unwrap();
    assert!(held.entry.is_none() && held.revision > revision, "the other variant keeps the state: {held:?}");
    assert!(store.find(&preview("1")).await.unwrap().entry.is_some());
    assert_eq!(store.find(&full("2")).await.unwrap(), Held::default());
    assert_eq!(store.forget_idle(at(51), 10).await.unwrap(), [full("1").subject]);
    let Size { entries, subjects, backlog, .. } = store.size(at(5000)).await.unwrap();
    assert_eq!((entries, subjects, backlog), (0, 0, 0));
}

pub(super) async fn forgetting_is_bounded(engine: impl Engine) {
    let store = engine.open().await;
    for who in ["1", "2", "3", "4", "5"] {
        done(&store, Write { requested_at: Some(at(1)), ..write(&full(who), NONE, 1, 10) }).await;
    }
    let mut left = vec![];
    for _ in 0..4 {
        let gone = store.forget_idle(at(9), 2).await.unwrap();
        left.push((gone.len(), store.size(at(0)).await.unwrap().entries));
    }
    assert_eq!(left, [(2, 3), (2, 1), (1, 0), (0, 0)]);
}

pub(super) async fn what_nobody_asked_for_stays_while_it_is_looked_at(engine: impl Engine) {
    let store = engine.open().await;
    done(&store, write(&full("1"), NONE, 1, 100)).await;
    done(&store, write(&full("2"), NONE, 1, 100)).await;
    store.reschedule(vec![(full("2"), None)]).await.unwrap();
    assert_eq!(store.forget_idle(at(100), 10).await.unwrap(), [full("2").subject], "neither asked for nor due");
    assert_eq!(store.forget_idle(at(101), 10).await.unwrap(), [full("1").subject], "long overdue");
}

pub(super) async fn a_forgotten_subject_begins_anew(engine: impl Engine) {
    let store = engine.open().await;
    let old = done(&store, Write { requested_at: Some(at(1)), ..write(&full("1"), NONE, 1, 10) }).await;
    store.forget_idle(at(9), 10).await.unwrap();
    assert_eq!(conflict(&store, write(&full("1"), old, 2, 10)).await, Held::default(), "a late result is turned away");
    assert!(done(&store, write(&full("1"), NONE, 2, 10)).await > old);
}

pub(super) async fn devices_are_remembered(engine: impl Engine) {
    let store = engine.open().await;
    let (a, b) = (key_of("a", "1", false, false).subject.device, full("1").subject.device);
    let first = DeviceRecord { proven: true, ..DeviceRecord::default() };
    let second = DeviceRecord {
        proven: true,
        cool_down_until: Some(at(60)),
        cool_down_seconds: 120,
        slowed_at: Some(at(3)),
        slowed_to: 0.25,
    };
    store.put_device(&a, first).await.unwrap();
    assert_eq!(store.device(&a).await.unwrap(), Some(first));
    store.put_device(&a, second).await.unwrap();
    assert_eq!(store.device(&a).await.unwrap(), Some(second));
    assert_eq!(store.device(&b).await.unwrap(), None);
}

pub(super) async fn sizes_are_told(engine: impl Engine) {
    let store = engine.open().await;
    let revision = done(&store, write(&full("1"), NONE, 1, 10)).await;
    done(&store, Write { change: Some(change("e", 1)), ..write(&preview("1"), revision, 1, 20) }).await;
    done(&store, write(&full("2"), NONE, 1, 30)).await;
    let size = store.size(at(20)).await.unwrap();
    assert_eq!((size.entries, size.subjects, size.backlog), (3, 2, 2));
    assert!(size.bytes > 0);
}

pub(super) async fn a_closed_store_answers_no_more(engine: impl Engine) {
    let store = engine.open().await;
    let writes: Vec<_> = (0..32)
        .map(|who| {
            let store = store.clone();
            let write = write(&full(&format!("62{who}")), NONE, 1, 10);
            tokio::spawn(async move { store.apply(write).await })
        })
        .collect();
    tokio::join!(store.close(), store.close());
    let mut acknowledged = 0;
    for write in writes {
        acknowledged += u64::from(write.await.unwrap().is_ok());
    }
    let closed = |error| matches!(error, StoreError::Unavailable(_));
    assert!(closed(store.find(&full("1")).await.unwrap_err()));
    assert!(closed(store.claim(&full("1")).await.unwrap_err()));
    assert!(closed(store.apply(write(&full("1"), NONE, 1, 10)).await.unwrap_err()));
    assert!(closed(store.agenda().await.unwrap_err()));
    assert!(closed(store.touch(touch(&full("1"), 1, 1)).await.unwrap_err()));
    assert!(closed(store.size(at(0)).await.unwrap_err()));
    store.close().await;
    let store = engine.open().await;
    assert_eq!(store.size(at(0)).await.unwrap().entries, acknowledged, "what was acknowledged, and nothing else");
}
