//! Random histories: whatever is asked in whatever order, the store answers as a map in memory would.

use std::cell::RefCell;
use std::collections::BTreeMap;

use avatar_proxy::change::State;
use avatar_proxy::clock::Timestamp;
use avatar_proxy::entry::Entry;
use avatar_proxy::jid::{Key, Subject, Variant};
use avatar_proxy::outcome::Token;
use avatar_proxy::store::{Applied, DeviceRecord, Held, Touch, Write};
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};

use super::{Engine, Opened, at, change, key_of, write};

#[derive(Clone, Debug)]
enum Step {
    Find(Key),
    Claim(Key),
    Apply { key: Key, stale: bool, due: i64, asked: Option<i64>, also: Option<(u8, i64)>, siblings: Option<i64> },
    Take { now: i64, lease: i64, limit: usize },
    Reschedule(Vec<(Key, Option<i64>)>),
    Touch(Vec<(Key, i64, i64)>),
    Forget(i64),
    PutDevice(Key, u32),
    Size(i64),
    Restart,
}

/// Two devices, two groups, four variants.
fn key() -> impl Strategy<Value = Key> {
    (any::<bool>(), any::<bool>(), any::<bool>(), any::<bool>()).prop_map(|(device, group, preview, community)| {
        let group = if group { "120363025246125486@g.us" } else { "120363025246125487@g.us" };
        key_of(if device { "d" } else { "" }, group, preview, community)
    })
}

fn step() -> impl Strategy<Value = Step> {
    let when = || 0i64..40;
    let maybe = move || proptest::option::of(when());
    let also = proptest::option::weighted(0.3, (0u8..4, when()));
    prop_oneof![
        3 => key().prop_map(Step::Find),
        1 => key().prop_map(Step::Claim),
        6 => (key(), prop::bool::weighted(0.2), when(), maybe(), also, proptest::option::weighted(0.3, when()))
            .prop_map(|(key, stale, due, asked, also, siblings)| Step::Apply { key, stale, due, asked, also, siblings }),
        3 => (when(), when(), 1usize..5).prop_map(|(now, lease, limit)| Step::Take { now, lease: now + lease, limit }),
        2 => prop::collection::vec((key(), maybe()), 0..4).prop_map(Step::Reschedule),
        2 => prop::collection::vec((key(), when(), when()), 0..4).prop_map(Step::Touch),
        1 => when().prop_map(Step::Forget),
        1 => (key(), any::<u32>()).prop_map(|(key, seconds)| Step::PutDevice(key, seconds)),
        2 => when().prop_map(Step::Size),
        // Seldom: it is the slowest by far.
        1 => prop::bool::weighted(0.1).prop_map(|restart| if restart { Step::Restart } else { Step::Size(9) }),
    ]
}

#[derive(Default)]
struct Row {
    entry: Option<Entry>,
    due: Option<Timestamp>,
    requested: Option<Timestamp>,
}

#[derive(Default)]
struct Model {
    rows: BTreeMap<Key, Row>,
    subjects: BTreeMap<Subject, (Token, State)>,
    last: Token,
    looks: u64,
}

impl Model {
    fn held(&self, key: &Key) -> Held {
        let row = self.rows.get(key);
        let (revision, state) = self.subjects.get(&key.subject).cloned().unwrap_or_default();
        Held {
            entry: row.and_then(|row| row.entry.clone()),
            requested_at: row.and_then(|row| row.requested),
            revision,
            state,
            watch: None,
            damaged: false,
        }
    }

    fn grown(&mut self, token: Token) {
        assert!(token > self.last, "{token:?} after {:?}", self.last);
        self.last = token;
    }

    fn apply(&mut self, write: &Write, end: Token) {
        self.grown(end);
        let subject = &write.key.subject;
        self.subjects.insert(subject.clone(), (end, write.state.clone()));
        let row = self.rows.entry(write.key.clone()).or_default();
        row.entry = Some(write.entry.clone());
        row.due = Some(write.entry.due_at);
        row.requested = row.requested.max(write.requested_at);
        if let Some(due) = write.siblings_due {
            for (key, row) in &mut self.rows {
                if key.subject == *subject && *key != write.key && row.entry.is_some() {
                    row.due = Some(row.due.map_or(due, |old| old.min(due)));
                }
            }
        }
        if let Some((key, due)) = &write.also_due {
            let row = self.rows.entry(key.clone()).or_default();
            row.due = Some(row.due.map_or(*due, |old| old.min(*due)));
        }
    }

    fn soonest(&self) -> Option<Timestamp> {
        self.rows.values().filter_map(|row| row.due).min()
    }

    fn backlog(&self, now: Timestamp) -> Vec<Timestamp> {
        let mut backlog: Vec<_> = self.rows.values().filter_map(|row| row.due).filter(|due| *due <= now).collect();
        backlog.sort_unstable();
        backlog
    }

    fn forget(&mut self, before: Timestamp) -> Vec<Subject> {
        let kept = |row: &Row| row.requested.or(row.due).is_some_and(|since| since >= before);
        self.rows.retain(|_, row| kept(row));
        let gone = |subject: &Subject| !self.rows.keys().any(|key| key.subject == *subject);
        self.subjects.extract_if(.., |subject, _| gone(subject)).map(|(subject, _)| subject).collect()
    }
}

async fn follow(model: &mut Model, store: &Opened, step: Step) {
    match step {
        Step::Find(key) => assert_eq!(store.find(&key).await.unwrap(), model.held(&key)),
        Step::Claim(key) => {
            let claim = store.claim(&key).await.unwrap();
            assert_eq!(claim.held, model.held(&key));
            model.grown(claim.start);
        }
        Step::Apply { key, stale, due, asked, also, siblings } => {
            model.looks += 1;
            let present = model.held(&key);
            let expected = if stale { Token(present.revision.0 + 1) } else { present.revision };
            let also_due = also.map(|(variant, due)| {
                (Key { subject: key.subject.clone(), variant: Variant::from_bits(variant) }, at(due))
            });
            let write = Write {
                change: siblings.map(|_| change(&format!("{:?}", model.last), 1)),
                requested_at: asked.map(at),
                also_due,
                siblings_due: siblings.map(at),
                flown: false,
                ..write(&key, expected, model.looks, due)
            };
            match store.apply(write.clone()).await.unwrap() {
                Applied::Conflict(held) => assert!(stale && *held == present),
                Applied::Forgotten | Applied::Late => panic!("nobody was forgotten or late"),
                Applied::Done(end) => {
                    assert!(!stale);
                    model.apply(&write, end);
                }
            }
        }
        Step::Take { now, lease, limit } => {
            let backlog = model.backlog(at(now));
            let taken = store.take_due(at(now), at(lease), limit).await.unwrap();
            let times: Vec<_> = taken.due.iter().map(|due| due.due_at).collect();
            assert_eq!(times, backlog[..backlog.len().min(limit)]);
            for due in taken.due {
                let row = model.rows.get_mut(&due.key).expect("it is held");
                assert_eq!(
                    (due.entry, Some(due.due_at), due.requested_at),
                    (row.entry.clone(), row.due, row.requested)
                );
                row.due = Some(at(lease));
            }
            assert_eq!(taken.next, model.soonest());
        }
        Step::Reschedule(keys) => {
            let keys: Vec<_> = keys.into_iter().map(|(key, due)| (key, due.map(at))).collect();
            store.reschedule(keys.clone()).await.unwrap();
            for (key, due) in keys {
                model.rows.entry(key).and_modify(|row| row.due = due);
            }
        }
        Step::Touch(touches) => {
            let touch = |(key, when, due)| Touch { key, at: at(when), due_at: at(due) };
            let touches: Vec<_> = touches.into_iter().map(touch).collect();
            store.touch(touches.clone()).await.unwrap();
            for touch in touches {
                model.rows.entry(touch.key).and_modify(|row| {
                    row.requested = row.requested.max(Some(touch.at));
                    row.due = row.due.or(Some(touch.due_at));
                });
            }
        }
        Step::Forget(before) => {
            let mut gone = store.forget_idle(at(before), usize::MAX).await.unwrap();
            gone.sort_unstable();
            assert_eq!(gone, model.forget(at(before)));
        }
        Step::PutDevice(key, cool_down_seconds) => {
            let record = DeviceRecord { cool_down_seconds, ..DeviceRecord::default() };
            store.put_device(&key.subject.device, record).await.unwrap();
            assert_eq!(store.device(&key.subject.device).await.unwrap(), Some(record));
        }
        Step::Size(now) => {
            let size = store.size(at(now)).await.unwrap();
            let told = [size.entries, size.subjects, size.backlog];
            let entries = model.rows.values().filter(|row| row.entry.is_some()).count();
            assert_eq!(told, [entries, model.subjects.len(), model.backlog(at(now)).len()].map(|n| n as u64));
        }
        Step::Restart => unreachable!("done by who holds the store"),
    }
}

/// As many stores as there may be on one place: each step is another one's.
async fn open<E: Engine>(engine: &E) -> Vec<Opened> {
    let mut stores = vec![];
    for _ in 0..E::REPLICAS {
        stores.push(engine.open().await);
    }
    stores
}

pub(super) fn behaves_as_the_model<E: Engine>(engine: &E) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let stores = RefCell::new(runtime.block_on(open(engine)));
    let last = RefCell::new(Token(0));
    let mut runner = TestRunner::new(Config { cases: 256, failure_persistence: None, ..Config::default() });
    let checked = runner.run(&prop::collection::vec(step(), 1..40), |steps| {
        let mut stores = stores.borrow_mut();
        runtime.block_on(async {
            // One store for all the histories: each begins by forgetting the one before.
            stores[0].forget_idle(Timestamp::from_millis(i64::MAX), usize::MAX).await.unwrap();
            let mut model = Model { last: last.take(), ..Model::default() };
            for (at, step) in steps.into_iter().enumerate() {
                if matches!(step, Step::Restart) {
                    for store in stores.iter() {
                        store.close().await;
                    }
                    *stores = open(engine).await;
                } else {
                    follow(&mut model, &stores[at % stores.len()], step).await;
                }
            }
            last.replace(model.last);
        });
        Ok(())
    });
    if let Err(failure) = checked {
        panic!("{failure}");
    }
}
