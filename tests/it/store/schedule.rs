//! Two queues for each device: deadlines of keys, and rechecks of subjects.

use avatar_proxy::clock::Timestamp;
use avatar_proxy::jid::{Device, Jid, Key, Subject, Variant};
use avatar_proxy::outcome::{Negative, Outcome, Reason, Token};
use avatar_proxy::recheck::Lessons;
use avatar_proxy::store::{Agenda, Deadline, Due, Held, Outlay, Touch, Watch, Write};

use super::suite::touch;
use super::{Engine, Opened, at, done, full, key_of, outlook, preview, write};

const NONE: Token = Token(0);

/// Every deadline up to `now`, in brief, leased for a minute.
pub(super) async fn take(store: &Opened, now: i64) -> Vec<(Key, i64)> {
    let mut taken = vec![];
    for Agenda { device, .. } in store.agenda().await.unwrap() {
        taken.extend(brief(&store.take_due(&device, at(now), at(now + 60), 100).await.unwrap()));
    }
    taken
}

fn brief(taken: &[Due]) -> Vec<(Key, i64)> {
    taken.iter().map(|due| (due.key.clone(), (due.due_at.as_millis() - at(0).as_millis()) / 1000)).collect()
}

/// The soonest deadline of all.
async fn soonest(store: &Opened) -> Option<Timestamp> {
    store.agenda().await.unwrap().iter().filter_map(|agenda| agenda.due_at).min()
}

/// Who may be rechecked at `now`, in the order in which they come, leased for a minute.
async fn recheck(store: &Opened, device: &str, now: i64, limit: usize) -> Vec<Subject> {
    let device = Device::new(device).unwrap();
    let taken = store.take_rechecks(&device, at(now), at(now + 60), limit).await.unwrap();
    taken.into_iter().map(|candidate| candidate.subject).collect()
}

fn who(names: &[&str]) -> Vec<Subject> {
    names.iter().map(|name| full(name).subject).collect()
}

/// Somebody of this rank, who may be rechecked from then on.
fn ranked(name: &str, rank: i64, recheck_at: i64) -> Write {
    Write { outlook: outlook(rank), recheck_at: at(recheck_at), ..write(&full(name), NONE, 1, 900) }
}

pub(super) async fn due_keys_come_in_order_and_under_a_lease(engine: impl Engine) {
    let store = engine.open().await;
    for (who, due) in [("1", 30), ("2", 10), ("3", 20), ("4", 90)] {
        done(&store, Write { requested_at: Some(at(due + 1)), ..write(&full(who), NONE, 1, due) }).await;
    }
    let device = &full("1").subject.device;
    assert!(store.take_due(device, at(9), at(70), 10).await.unwrap().is_empty());
    assert_eq!(soonest(&store).await, Some(at(10)));
    let taken = store.take_due(device, at(40), at(70), 2).await.unwrap();
    assert_eq!(brief(&taken), [(full("2"), 10), (full("3"), 20)]);
    assert_eq!(soonest(&store).await, Some(at(30)), "the limit left one behind");
    assert_eq!(taken[0].requested_at, Some(at(11)));
    assert_eq!(taken[0].entry, store.find(&full("2")).await.unwrap().entry);
    let taken = store.take_due(device, at(40), at(75), 2).await.unwrap();
    assert_eq!(
        (brief(&taken), soonest(&store).await),
        (vec![(full("1"), 30)], Some(at(70))),
        "the end of the first lease"
    );
    let taken = store.take_due(device, at(69), at(99), 10).await.unwrap();
    assert_eq!((brief(&taken), soonest(&store).await), (vec![], Some(at(70))));
    let held = store.find(&full("2")).await.unwrap();
    assert_eq!(held.entry.unwrap().due_at, at(10), "a lease is no part of the entry");
}

pub(super) async fn a_taker_that_dies_loses_nothing<E: Engine>(engine: E) {
    let store = engine.open().await;
    done(&store, write(&full("1"), NONE, 1, 10)).await;
    assert_eq!(take(&store, 10).await, [(full("1"), 10)]);
    assert_eq!(recheck(&store, "", 10, 9).await, who(&["1"]));
    drop(store);
    let store = engine.open().await;
    if E::LEASES_STAY {
        assert_eq!((take(&store, 69).await, recheck(&store, "", 69, 9).await), (vec![], vec![]));
        assert_eq!(take(&store, 70).await, [(full("1"), 70)]);
    } else {
        assert_eq!(take(&store, 70).await, [(full("1"), 10)], "nobody else has this file, and nobody has it in hand");
    }
    assert_eq!(recheck(&store, "", 70, 9).await, who(&["1"]));
}

pub(super) async fn a_key_can_be_taken_off_the_schedule_and_a_request_brings_it_back(engine: impl Engine) {
    let store = engine.open().await;
    done(&store, write(&full("1"), NONE, 1, 10)).await;
    done(&store, write(&full("2"), NONE, 1, 20)).await;
    store.reschedule(vec![(full("1"), None), (full("2"), Some(at(500)))]).await.unwrap();
    assert_eq!(take(&store, 499).await, []);
    store.touch(touch(&full("1"), 30, 40)).await.unwrap();
    assert_eq!(store.find(&full("1")).await.unwrap().requested_at, Some(at(30)));
    assert_eq!(take(&store, 40).await, [(full("1"), 40)]);
    store.touch(touch(&full("2"), 30, 40)).await.unwrap();
    assert_eq!(take(&store, 50).await, [], "what has a due time keeps it");
    assert_eq!(take(&store, 500).await, [(full("1"), 100), (full("2"), 500)]);
}

pub(super) async fn keys_that_are_not_held_are_passed_over(engine: impl Engine) {
    let store = engine.open().await;
    done(&store, write(&full("1"), NONE, 1, 10)).await;
    store.reschedule(vec![(full("2"), Some(at(5))), (preview("1"), Some(at(5)))]).await.unwrap();
    store.touch([touch(&full("2"), 1, 5), touch(&preview("1"), 1, 5)].concat()).await.unwrap();
    assert_eq!(take(&store, 50).await, [(full("1"), 10)]);
    assert_eq!(store.find(&full("2")).await.unwrap(), Held::default());
    assert_eq!(store.find(&preview("1")).await.unwrap().requested_at, None);
}

pub(super) async fn a_look_at_another_variant_can_be_asked_for(engine: impl Engine) {
    let store = engine.open().await;
    let ask = |expected, due| Write { also_due: Some((full("1"), at(due))), ..write(&preview("1"), expected, 1, 900) };
    let revision = done(&store, ask(NONE, 30)).await;
    assert_eq!(store.size(at(0)).await.unwrap().entries, 1, "a look that was asked for is no entry");
    let revision = done(&store, ask(revision, 20)).await;
    let revision = done(&store, ask(revision, 50)).await;
    let taken = store.take_due(&full("1").subject.device, at(60), at(70), 10).await.unwrap();
    assert_eq!(brief(&taken), [(full("1"), 20)], "the soonest counts");
    assert_eq!(taken[0].entry, None);
    let revision = done(&store, write(&full("1"), revision, 1, 800)).await;
    assert_eq!(store.size(at(0)).await.unwrap().entries, 2);
    store.reschedule(vec![(full("1"), None)]).await.unwrap();
    done(&store, ask(revision, 75)).await;
    assert_eq!(take(&store, 100).await, [(full("1"), 75)]);
}

pub(super) async fn siblings_are_due_at_once_when_the_picture_changed(engine: impl Engine) {
    let group = "120363025246125486@g.us";
    let [a, b, c, d] = [(false, false), (true, false), (false, true), (true, true)]
        .map(|(preview, community)| key_of("", group, preview, community));
    let store = engine.open().await;
    done(&store, write(&full("1"), NONE, 1, 500)).await;
    let mut revision = NONE;
    for (key, due) in [(&a, 500), (&b, 600), (&c, 5)] {
        revision = done(&store, write(key, revision, 1, due)).await;
    }
    store.reschedule(vec![(b.clone(), None)]).await.unwrap();
    let write =
        Write { siblings_due: Some(at(10)), also_due: Some((d.clone(), at(400))), ..write(&a, revision, 2, 700) };
    done(&store, write).await;
    assert_eq!(take(&store, 399).await, [(c.clone(), 5), (b.clone(), 10)], "{d:?} is not held, {a:?} was just seen");
}

pub(super) async fn of_those_who_may_be_rechecked_the_smallest_rank_is_next(engine: impl Engine) {
    let store = engine.open().await;
    for (name, rank, from) in [("1", 7, 10), ("2", -3, 40), ("3", 5, 30), ("4", 6, 20)] {
        done(&store, ranked(name, rank, from)).await;
    }
    assert_eq!(recheck(&store, "", 9, 10).await, []);
    assert_eq!(recheck(&store, "", 25, 1).await, who(&["4"]));
    assert_eq!(recheck(&store, "", 35, 1).await, who(&["3"]), "whose time came later and whose rank is smaller");
    assert_eq!(recheck(&store, "", 50, 10).await, who(&["2", "1"]));
    assert_eq!(recheck(&store, "", 84, 10).await, [], "under lease");
    assert_eq!(recheck(&store, "", 85, 10).await, who(&["4"]));
    assert_eq!(recheck(&store, "", 110, 10).await, who(&["2", "3", "1"]), "a taker that died has lost nothing");
}

pub(super) async fn a_device_has_a_schedule_and_a_virtual_time_of_its_own(engine: impl Engine) {
    let store = engine.open().await;
    let of_d = key_of("d", "1", false, false);
    done(&store, ranked("1", 7, 10)).await;
    done(&store, Write { outlook: outlook(3), ..write(&of_d, NONE, 1, 20) }).await;
    let mut agenda = store.agenda().await.unwrap();
    agenda.sort_by_key(|agenda| agenda.due_at);
    let of = |device: &Key, due: i64, recheck: i64| Agenda {
        device: device.subject.device.clone(),
        due_at: Some(at(due)),
        recheck_at: Some(at(recheck)),
    };
    assert_eq!(agenda, [of(&of_d, 20, 20), of(&full("1"), 900, 10)]);
    assert_eq!(recheck(&store, "", 50, 9).await, who(&["1"]));
    assert!(store.take_due(&of_d.subject.device, at(19), at(99), 9).await.unwrap().is_empty());
    let is = |held: Held, rank: f64| (held.virtual_now - rank).abs() < 1e-9;
    let find = async |key: &Key| store.find(key).await.unwrap();
    assert!(is(find(&full("1")).await, 7.0) && is(find(&of_d).await, 0.0));
    assert!(is(find(&full("2")).await, 7.0), "also for who is not held");
    assert!(is(store.claim(&full("2")).await.unwrap().held, 7.0));
    done(&store, ranked("3", 2, 10)).await;
    assert_eq!(recheck(&store, "", 50, 9).await, who(&["3"]));
    assert!(is(find(&full("1")).await, 7.0), "it never goes back");
    store.close().await;
    let store = engine.open().await;
    assert!(is(store.find(&full("1")).await.unwrap(), 7.0));
}

pub(super) async fn a_recheck_is_told_what_is_held_of_each_picture(engine: impl Engine) {
    let store = engine.open().await;
    let revision = done(&store, Write { requested_at: Some(at(5)), ..write(&full("1"), NONE, 1, 30) }).await;
    let small = Write { also_due: Some((full("1"), at(10))), ..write(&preview("1"), revision, 2, 40) };
    done(&store, small.clone()).await;
    let taken = store.take_rechecks(&full("1").subject.device, at(50), at(90), 9).await.unwrap();
    assert_eq!(taken.len(), 1, "both pictures are one person's");
    let mut pictures = taken.into_iter().next().unwrap().pictures;
    pictures.sort_by_key(|picture| picture.variant.to_bits());
    let told: Vec<_> = pictures.into_iter().map(|one| (one.variant, one.entry, one.requested_at)).collect();
    let held = store.find(&full("1")).await.unwrap();
    assert_eq!(told, [(Variant::default(), held.entry, Some(at(5))), (preview("1").variant, Some(small.entry), None)]);
}

pub(super) async fn a_look_of_any_kind_is_the_recheck_of_all_pictures(engine: impl Engine) {
    let store = engine.open().await;
    let revision = done(&store, ranked("1", 5, 10)).await;
    assert_eq!(recheck(&store, "", 10, 0).await, [], "it is ready now, and nobody took it");
    let again = Write { outlook: outlook(9), recheck_at: at(500), ..write(&preview("1"), revision, 1, 900) };
    done(&store, again).await;
    assert_eq!(recheck(&store, "", 499, 9).await, []);
    assert_eq!(recheck(&store, "", 500, 9).await, who(&["1"]));
}

pub(super) async fn a_recheck_can_be_put_off_ended_and_asked_for_again(engine: impl Engine) {
    let store = engine.open().await;
    for name in ["1", "2", "3"] {
        done(&store, ranked(name, 1, 10)).await;
    }
    let subject = |name: &str| full(name).subject;
    assert_eq!(recheck(&store, "", 10, 0).await, []);
    store.defer(vec![(subject("1"), Some(at(70))), (subject("2"), None), (subject("9"), Some(at(1)))]).await.unwrap();
    assert_eq!(recheck(&store, "", 60, 9).await, who(&["3"]));
    assert_eq!(recheck(&store, "", 70, 9).await, who(&["1"]));
    store
        .touch([touch(&full("2"), 75, 80), touch(&full("1"), 75, 80), touch(&preview("2"), 75, 76)].concat())
        .await
        .unwrap();
    assert_eq!(recheck(&store, "", 79, 9).await, [], "a picture that is not held wakes nobody");
    assert_eq!(recheck(&store, "", 80, 9).await, who(&["2"]), "who has a time keeps it");
}

pub(super) async fn whoever_is_heard_of_moves_ahead_unless_looked_at_meanwhile(engine: impl Engine) {
    let store = engine.open().await;
    let one = done(&store, ranked("1", 5, 10)).await;
    let two = done(&store, ranked("2", 6, 10)).await;
    let three = done(&store, ranked("3", 7, 99)).await;
    assert_eq!(recheck(&store, "", 10, 0).await, [], "two are ready now");
    let subject = |name: &str| full(name).subject;
    store.advance(&subject("2"), two, outlook(1), at(400)).await.unwrap();
    store.advance(&subject("1"), Token(one.0 + 100), outlook(0), at(0)).await.unwrap();
    store.advance(&subject("3"), three, outlook(0), at(60)).await.unwrap();
    store.advance(&subject("9"), NONE, outlook(0), at(0)).await.unwrap();
    assert_eq!(store.find(&full("2")).await.unwrap().outlook, Some(outlook(1)));
    assert_eq!(store.find(&full("1")).await.unwrap().outlook, Some(outlook(5)), "computed from an old revision");
    assert_eq!(recheck(&store, "", 50, 9).await, who(&["2", "1"]), "nobody is looked at before the time");
    assert_eq!(recheck(&store, "", 60, 9).await, who(&["3"]), "which was brought forward");
    store.defer(vec![(subject("3"), None)]).await.unwrap();
    store.advance(&subject("3"), three, outlook(0), at(70)).await.unwrap();
    assert_eq!(recheck(&store, "", 100, 9).await, [], "nobody asks for them");
}

pub(super) async fn who_is_watched_and_was_never_looked_at_comes_after_whose_turn_has_come(engine: impl Engine) {
    let store = engine.open().await;
    done(&store, ranked("1", 5, 10)).await;
    done(&store, ranked("2", 6, 10)).await;
    assert_eq!(recheck(&store, "", 10, 1).await, who(&["1"]));
    let hour = std::time::Duration::from_secs(3600);
    let watch = |name: &str| Watch { subject: full(name).subject, interval: hour };
    store.watch(watch("3"), at(20), 9).await.unwrap();
    store.watch(watch("2"), at(500), 9).await.unwrap();
    done(&store, ranked("4", 4, 10)).await;
    assert_eq!(recheck(&store, "", 30, 9).await, who(&["4", "3", "2"]));
    let none: &[Subject] = &[];
    store.unwatch(&full("3").subject.jid, None).await.unwrap();
    assert_eq!(recheck(&store, "", 900, 9).await, who(&["4", "1", "2"]), "nothing is left of who is held by nobody");
    assert_eq!(store.size(at(0)).await.unwrap().subjects, 3);
    store.forget(&Jid::parse("4").unwrap(), None, at(1)).await.unwrap();
    store.forget_idle(Timestamp::from_millis(i64::MAX), 9).await.unwrap();
    store.unwatch(&full("2").subject.jid, None).await.unwrap();
    store.forget_idle(Timestamp::from_millis(i64::MAX), 9).await.unwrap();
    assert_eq!(recheck(&store, "", 9000, 9).await, none);
    assert_eq!(store.agenda().await.unwrap(), []);
}

pub(super) async fn what_will_be_needed_is_foreseen(engine: impl Engine) {
    let store = engine.open().await;
    for (name, due, asked) in [("1", 10, None), ("2", 20, None), ("3", 30, Some(4))] {
        done(&store, Write { requested_at: asked.map(at), ..write(&full(name), NONE, 1, due) }).await;
    }
    done(&store, write(&key_of("d", "1", false, false), NONE, 1, 5)).await;
    let outlay = async || store.outlay(&full("1").subject.device, &[1, 3, 4]).await.unwrap();
    let deadline =
        |count, due: i64, asked: Option<i64>| Deadline { count, due_at: at(due), requested_at: asked.map(at) };
    let deadlines = vec![deadline(1, 10, None), deadline(3, 30, Some(4))];
    assert_eq!(outlay().await, Outlay { deadlines, rechecks: 3 });
    assert_eq!(recheck(&store, "", 10, 9).await, who(&["1"]));
    store.defer(vec![(full("2").subject, None)]).await.unwrap();
    store.reschedule(vec![(full("1"), None)]).await.unwrap();
    assert_eq!(outlay().await, Outlay { deadlines: vec![deadline(1, 20, None)], rechecks: 2 });
    let nobody = Device::new("nobody's").unwrap();
    assert_eq!(store.outlay(&nobody, &[1]).await.unwrap(), Outlay::default());
}

pub(super) async fn a_believed_negative_outcome_has_no_deadline(engine: impl Engine) {
    let store = engine.open().await;
    let negative = Negative { reason: Reason::Hidden, status: 500, code: "C".into(), message: "m".into() };
    let mut hidden = write(&full("1"), NONE, 1, 10);
    hidden.entry.outcome = Outcome::Negative(negative);
    hidden.entry.due_at = Timestamp::from_millis(i64::MAX);
    let revision = done(&store, Write { requested_at: Some(at(5)), ..hidden.clone() }).await;
    assert_eq!(take(&store, 900).await, []);
    assert_eq!(store.find(&full("1")).await.unwrap().entry, Some(hidden.entry.clone()));
    let touched = Touch { due_at: None, ..touch(&full("1"), 6, 7).remove(0) };
    store.touch(vec![touched]).await.unwrap();
    assert_eq!(take(&store, 900).await, []);
    hidden.entry.due_at = at(20);
    done(&store, Write { expected: revision, ..hidden }).await;
    assert_eq!(take(&store, 900).await, [(full("1"), 20)], "while it is doubted");
}

pub(super) async fn lessons_are_remembered(engine: impl Engine) {
    let store = engine.open().await;
    assert_eq!(store.lessons().await.unwrap(), None);
    let mut lessons = Lessons::default();
    let before = outlook(1);
    lessons.learn(&before, avatar_proxy::recheck::Look { changed: true, at: at(86_400), virtual_now: 3.0 });
    store.put_lessons(&lessons).await.unwrap();
    store.close().await;
    let kept = engine.open().await.lessons().await.unwrap().unwrap();
    assert_eq!(kept.encode(), lessons.encode());
}
