//! Webhook endpoints and their deliveries: the same on every engine.

use avatar_proxy::jid::Key;
use avatar_proxy::outcome::Token;
use avatar_proxy::store::{
    Delivery, Disabled, Endpoint, Kept, Known, LastResult, Lease, Progress, Put, Secret, Standing, What, Wish, Write,
};

use super::{Engine, Opened, at, change, done, full, key_of, write};

fn endpoint(id: &str) -> Endpoint {
    Endpoint {
        id: id.into(),
        url: format!("https://receiver.example/{id}"),
        secrets: vec![Secret { text: "secret".into(), until: None }],
        events: vec!["avatar.set".into()],
        jids: vec![full("1").subject.jid],
        from_flag: false,
        created_at: at(0),
    }
}

fn standing(sequence: u64) -> Standing {
    Standing::at(format!("00000000000000aa.{sequence}").parse().unwrap())
}

async fn put(store: &Opened, id: &str) {
    assert_eq!(store.put_endpoint(endpoint(id), standing(0), 9).await.unwrap(), Put::Done);
}

fn delivery(sequence: u64, of: Option<&Key>) -> Delivery {
    Delivery {
        sequence,
        event_id: format!("e{sequence}"),
        subject: of.map(|key| key.subject.clone()),
        noticed_at: at(sequence.try_into().unwrap()),
        attempts: 1,
        first_at: Some(at(1)),
        due_at: at(6),
        dead: false,
        json: "{}".into(),
    }
}

fn keeps(id: &str, kept: Vec<Delivery>, ended: &[u64]) -> Progress {
    Progress { endpoint: id.into(), lease: Token(0), becomes: None, standing: standing(7), kept, ended: ended.into() }
}

/// Records a change of the picture of `key`'s subject: the event `e<sequence>`.
async fn changed(store: &Opened, key: &Key, sequence: u64) {
    let expected = store.find(key).await.unwrap().revision;
    done(store, Write { change: Some(change(&format!("e{sequence}"), sequence)), ..write(key, expected, 1, 10) }).await;
}

async fn sequences(store: &Opened, id: &str, dead: bool) -> Vec<u64> {
    let deliveries = store.deliveries(id, dead, 0, 99).await.unwrap();
    deliveries.iter().map(|delivery| delivery.sequence).collect()
}

pub(super) async fn an_endpoint_is_kept_as_it_was_put(engine: impl Engine) {
    let store = engine.open().await;
    assert_eq!(store.endpoints().await.unwrap(), []);
    put(&store, "b").await;
    put(&store, "a").await;
    let known = |id| Known { endpoint: endpoint(id), standing: standing(0), kept: Kept::default() };
    assert_eq!(store.endpoints().await.unwrap(), [known("a"), known("b")]);
}

pub(super) async fn there_are_no_more_endpoints_than_may_be(engine: impl Engine) {
    let store = engine.open().await;
    for (id, limit, ends) in [("a", 1, Put::Done), ("b", 1, Put::TooMany), ("a", 0, Put::Done), ("b", 2, Put::Done)] {
        assert_eq!(store.put_endpoint(endpoint(id), standing(0), limit).await.unwrap(), ends, "{id} {limit}");
    }
    assert_eq!(store.endpoints().await.unwrap().len(), 2);
}

pub(super) async fn who_changes_an_endpoint_does_not_move_its_cursor(engine: impl Engine) {
    let store = engine.open().await;
    put(&store, "a").await;
    let stands = Standing {
        disabled: Some(Disabled { why: "gone".into(), since: at(5) }),
        failing_since: Some(at(2)),
        last: Some(LastResult { at: at(5), text: "410".into() }),
        ..standing(7)
    };
    store.progress(Progress { standing: stands.clone(), ..keeps("a", vec![], &[]) }).await.unwrap();
    let renewed = Endpoint { url: "https://other.example/".into(), ..endpoint("a") };
    store.put_endpoint(renewed.clone(), standing(0), 9).await.unwrap();
    let known = Known { endpoint: renewed, standing: stands, kept: Kept::default() };
    assert_eq!(store.endpoints().await.unwrap(), [known]);
}

pub(super) async fn deliveries_are_kept_until_they_end(engine: impl Engine) {
    let store = engine.open().await;
    put(&store, "a").await;
    put(&store, "b").await;
    for sequence in 1..=3 {
        changed(&store, &full("1"), sequence).await;
    }
    let all = [delivery(1, Some(&full("1"))), delivery(2, Some(&full("1"))), delivery(9, None)];
    store.progress(keeps("a", all.to_vec(), &[])).await.unwrap();
    store.progress(keeps("b", vec![delivery(3, Some(&full("1")))], &[])).await.unwrap();
    assert_eq!(store.deliveries("a", false, 0, 99).await.unwrap(), all);
    assert_eq!(store.deliveries("a", false, 1, 1).await.unwrap(), all[1..2], "in pages");
    let later = Delivery { attempts: 2, due_at: at(300), ..all[1].clone() };
    let dead = Delivery { dead: true, ..all[2].clone() };
    store.progress(keeps("a", vec![later.clone(), dead.clone()], &[1, 77])).await.unwrap();
    assert_eq!(store.deliveries("a", false, 0, 99).await.unwrap(), [later]);
    assert_eq!(store.deliveries("a", true, 0, 99).await.unwrap(), [dead]);
    assert_eq!(sequences(&store, "b", false).await, [3]);
    let counts: Vec<_> = store.endpoints().await.unwrap().iter().map(|known| known.kept).collect();
    assert_eq!(counts, [Kept { pending: 1, dead: 1 }, Kept { pending: 1, dead: 0 }]);
    assert_eq!((store.kept("a").await.unwrap(), store.kept("c").await.unwrap()), (counts[0], Kept::default()));
}

pub(super) async fn a_dropped_endpoint_leaves_nothing(engine: impl Engine) {
    let store = engine.open().await;
    put(&store, "a").await;
    put(&store, "b").await;
    for id in ["a", "b"] {
        store.progress(keeps(id, vec![delivery(9, None)], &[])).await.unwrap();
    }
    assert!(store.drop_endpoint("a").await.unwrap());
    assert!(!store.drop_endpoint("a").await.unwrap(), "only once");
    store.progress(keeps("a", vec![delivery(10, None)], &[])).await.unwrap();
    assert!(sequences(&store, "a", false).await.is_empty(), "what was under way comes too late");
    assert_eq!(sequences(&store, "b", false).await, [9]);
    assert_eq!(store.endpoints().await.unwrap().len(), 1);
}

pub(super) async fn dead_deliveries_can_be_revived(engine: impl Engine) {
    let store = engine.open().await;
    put(&store, "a").await;
    let dead = |sequence| Delivery { dead: true, ..delivery(sequence, None) };
    store.progress(keeps("a", vec![dead(3), delivery(4, None), dead(5), dead(6)], &[])).await.unwrap();
    assert_eq!(store.revive("a", 3, at(50)).await.unwrap(), 2);
    assert_eq!((sequences(&store, "a", true).await, sequences(&store, "a", false).await), (vec![3], vec![4, 5, 6]));
    let revived = store.deliveries("a", false, 4, 1).await.unwrap();
    assert_eq!(revived, [Delivery { attempts: 0, first_at: None, due_at: at(50), ..delivery(5, None) }]);
    assert_eq!(store.revive("b", 0, at(50)).await.unwrap(), 0);
}

pub(super) async fn dead_deliveries_are_dropped_when_they_are_too_old(engine: impl Engine) {
    let store = engine.open().await;
    put(&store, "a").await;
    put(&store, "b").await;
    let dead = |sequence| Delivery { dead: true, ..delivery(sequence, None) };
    store.progress(keeps("a", vec![delivery(1, None), dead(2), dead(4), dead(6)], &[])).await.unwrap();
    store.progress(keeps("b", vec![dead(3), dead(5)], &[])).await.unwrap();
    assert_eq!(store.trim_dead(at(1), 9).await.unwrap(), [] as [&str; 0]);
    let mut dropped = store.trim_dead(at(5), 2).await.unwrap();
    dropped.sort();
    assert_eq!(dropped, ["a", "b"], "the oldest first");
    assert_eq!(store.trim_dead(at(5), 2).await.unwrap(), ["a"]);
    assert_eq!((sequences(&store, "a", true).await, sequences(&store, "b", true).await), (vec![6], vec![5]));
    assert_eq!(sequences(&store, "a", false).await, [1], "what is still to be delivered is kept, however old");
}

pub(super) async fn who_is_forgotten_is_delivered_to_nobody(engine: impl Engine) {
    let store = engine.open().await;
    put(&store, "a").await;
    let (one, other) = (key_of("d", "1", false, false), full("2"));
    changed(&store, &one, 1).await;
    changed(&store, &other, 2).await;
    changed(&store, &one, 3).await;
    let about_one = [delivery(1, Some(&one)), Delivery { dead: true, ..delivery(3, Some(&one)) }];
    store.progress(keeps("a", about_one.to_vec(), &[])).await.unwrap();
    store.progress(keeps("a", vec![delivery(2, Some(&other))], &[])).await.unwrap();
    // Nothing but the deliveries is left of them.
    store.forget_idle(at(99), 9).await.unwrap();
    store.trim_log(at(99), 9).await.unwrap();
    assert!(store.forget(&one.subject.jid, None, at(9)).await.unwrap());
    let record = store.read_log(3, 9).await.unwrap().records.pop().unwrap();
    assert_eq!(record.what, What::Forgotten);
    // Somebody tries again to deliver what they still hold.
    store.progress(keeps("a", vec![about_one[0].clone(), delivery(2, Some(&other))], &[])).await.unwrap();
    assert_eq!((sequences(&store, "a", false).await, sequences(&store, "a", true).await), (vec![2], vec![]));
}

pub(super) async fn webhooks_outlast_a_restart(engine: impl Engine) {
    let store = engine.open().await;
    put(&store, "a").await;
    store.progress(keeps("a", vec![delivery(9, None)], &[])).await.unwrap();
    let (known, kept) = (store.endpoints().await.unwrap(), store.deliveries("a", false, 0, 9).await.unwrap());
    drop(store);
    let store = engine.open().await;
    assert_eq!((store.endpoints().await.unwrap(), store.deliveries("a", false, 0, 9).await.unwrap()), (known, kept));
    assert_eq!(store.find(&full("1")).await.unwrap().revision, Token(0));
}

async fn wishes(store: &Opened, holder: &str, wish: Wish) -> Option<Lease> {
    store.lease(holder, &[("e".into(), wish)]).await.unwrap().remove(0)
}

pub(super) async fn what_an_endpoint_is_and_how_it_stands_change_together(engine: impl Engine) {
    let store = engine.open().await;
    store.put_endpoint(endpoint("e"), standing(1), 9).await.unwrap();
    let becomes = Endpoint { events: vec![], ..endpoint("e") };
    store.progress(Progress { becomes: Some(becomes.clone()), ..keeps("e", vec![], &[]) }).await.unwrap();
    let known = store.endpoints().await.unwrap().remove(0);
    assert_eq!((known.endpoint, known.standing), (becomes, standing(7)));
}

/// Where only one process can use a store, it has every lease, and nobody is fenced off.
pub(super) async fn a_lease_is_one_holders_who_fences_off_those_before(engine: impl Engine) {
    let a = engine.open().await;
    a.put_endpoint(endpoint("e"), standing(1), 9).await.unwrap();
    let first = wishes(&a, "a", Wish::Have).await.expect("nobody else has it");
    let under = |lease: &Lease| Progress { lease: lease.token, ..keeps("e", vec![], &[]) };
    a.progress(under(&first)).await.unwrap();
    let kept = wishes(&a, "a", Wish::Have).await.unwrap();
    assert_eq!((&kept.holder, kept.token), (&first.holder, first.token));
    assert_eq!(wishes(&a, "a", Wish::GiveUp).await, None);
}
