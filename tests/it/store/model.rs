//! Random histories: whatever is asked in whatever order, the store answers as a map in memory would.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;

use avatar_proxy::change::State;
use avatar_proxy::clock::Timestamp;
use avatar_proxy::entry::Entry;
use avatar_proxy::jid::{Device, Key, Subject, Variant};
use avatar_proxy::outcome::Token;
use avatar_proxy::recheck::Outlook;
use avatar_proxy::store::{Applied, DeviceRecord, Held, Touch, Write};
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};

use super::migration::migrate;
use super::sqlite::File;
use super::{Engine, Opened, at, change, key_of, outlook, redis, write};
use crate::support::redis::Redis as Server;

#[derive(Clone, Debug)]
enum Step {
    Find(Key),
    Claim(Key),
    Apply {
        key: Key,
        stale: bool,
        due: i64,
        rank: i64,
        asked: Option<i64>,
        also: Option<(u8, i64)>,
        siblings: Option<i64>,
    },
    Plan(Plan),
    Forget(i64),
    PutDevice(Key, u32),
    Size(i64),
    Restart,
}

/// What concerns the schedule.
#[derive(Clone, Debug)]
enum Plan {
    Take { key: Key, now: i64, lease: i64, limit: usize },
    Recheck { key: Key, now: i64, lease: i64, limit: usize },
    Outlay(Key),
    Reschedule(Vec<(Key, Option<i64>)>),
    Defer(Vec<(Key, Option<i64>)>),
    Advance { key: Key, stale: bool, rank: i64, from: i64 },
    Touch(Vec<(Key, i64, i64)>),
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
    let seldom = || prop::bool::weighted(0.2);
    let also = proptest::option::weighted(0.3, (0u8..4, when()));
    prop_oneof![
        3 => key().prop_map(Step::Find),
        1 => key().prop_map(Step::Claim),
        6 => (key(), seldom(), when(), when(), maybe(), also, proptest::option::weighted(0.3, when()))
            .prop_map(|(key, stale, due, rank, asked, also, siblings)| {
                Step::Apply { key, stale, due, rank, asked, also, siblings }
            }),
        12 => plan().prop_map(Step::Plan),
        1 => when().prop_map(Step::Forget),
        1 => (key(), any::<u32>()).prop_map(|(key, seconds)| Step::PutDevice(key, seconds)),
        2 => when().prop_map(Step::Size),
        // Seldom: it is the slowest by far.
        1 => prop::bool::weighted(0.1).prop_map(|restart| if restart { Step::Restart } else { Step::Size(9) }),
    ]
}

fn plan() -> impl Strategy<Value = Plan> {
    let when = || 0i64..40;
    let maybe = move || proptest::option::of(when());
    prop_oneof![
        3 => (key(), when(), when(), 1usize..5)
            .prop_map(|(key, now, lease, limit)| Plan::Take { key, now, lease: now + lease, limit }),
        4 => (key(), when(), when(), 0usize..3)
            .prop_map(|(key, now, lease, limit)| Plan::Recheck { key, now, lease: now + lease, limit }),
        1 => key().prop_map(Plan::Outlay),
        2 => prop::collection::vec((key(), maybe()), 0..4).prop_map(Plan::Reschedule),
        2 => prop::collection::vec((key(), maybe()), 0..4).prop_map(Plan::Defer),
        2 => (key(), prop::bool::weighted(0.2), when(), when())
            .prop_map(|(key, stale, rank, from)| Plan::Advance { key, stale, rank, from }),
        2 => prop::collection::vec((key(), when(), when()), 0..4).prop_map(Plan::Touch),
    ]
}

#[derive(Clone, Default)]
struct Row {
    entry: Option<Entry>,
    due: Option<Timestamp>,
    /// what a lease stands in the place of
    due_before: Option<Timestamp>,
    requested: Option<Timestamp>,
}

#[derive(Clone, Default)]
struct Known {
    revision: Token,
    state: State,
    outlook: Option<Outlook>,
    recheck_at: Option<Timestamp>,
    recheck_before: Option<Timestamp>,
    ready: bool,
}

#[derive(Clone, Default)]
struct Model {
    rows: BTreeMap<Key, Row>,
    subjects: BTreeMap<Subject, Known>,
    virtual_now: BTreeMap<Device, f64>,
    last: Token,
    looks: u64,
    ranks: u16,
}

impl Model {
    fn held(&self, key: &Key) -> Held {
        let row = self.rows.get(key);
        let Known { revision, state, outlook, .. } = self.subjects.get(&key.subject).cloned().unwrap_or_default();
        Held {
            entry: row.and_then(|row| row.entry.clone()),
            requested_at: row.and_then(|row| row.requested),
            revision,
            state,
            watch: None,
            outlook,
            virtual_now: self.virtual_time(&key.subject.device),
            damaged: false,
        }
    }

    /// Nobody has anything in hand any more.
    fn end_leases(&mut self) {
        for row in self.rows.values_mut().filter(|row| row.due_before.is_some()) {
            row.due = row.due_before.take();
        }
        for known in self.subjects.values_mut().filter(|known| known.recheck_before.is_some()) {
            known.recheck_at = known.recheck_before.take();
        }
    }

    /// How many of a device are rechecked.
    fn rechecks(&self, device: &Device) -> usize {
        let of_device = self.subjects.iter().filter(|(subject, _)| subject.device == *device);
        of_device.filter(|(_, known)| known.recheck_at.is_some()).count()
    }

    fn virtual_time(&self, device: &Device) -> f64 {
        self.virtual_now.get(device).copied().unwrap_or_default()
    }

    /// Virtual time begins anew where nobody is rechecked any more.
    fn begin_anew(&mut self) {
        for device in self.virtual_now.keys().cloned().collect::<Vec<_>>() {
            if self.rechecks(&device) == 0 {
                self.virtual_now.remove(&device);
            }
        }
    }

    /// A rank that nobody else has: the order of equals is nobody's business.
    fn unlike_any(&mut self, rank: i64) -> Outlook {
        self.ranks += 1;
        let mut outlook = outlook(rank);
        outlook.turn.rank += f64::from(self.ranks) / 1024.0;
        outlook
    }

    fn grown(&mut self, token: Token) {
        assert!(token > self.last, "{token:?} after {:?}", self.last);
        self.last = token;
    }

    fn apply(&mut self, write: &Write, end: Token) {
        self.grown(end);
        let subject = &write.key.subject;
        self.subjects.insert(
            subject.clone(),
            Known {
                revision: end,
                state: write.state.clone(),
                outlook: Some(write.outlook),
                recheck_at: Some(write.recheck_at),
                recheck_before: None,
                ready: false,
            },
        );
        let row = self.rows.entry(write.key.clone()).or_default();
        row.entry = Some(write.entry.clone());
        (row.due, row.due_before) = (write.entry.deadline(), None);
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

    /// The deadlines of a device, soonest first.
    fn deadlines(&self, device: &Device) -> Vec<Timestamp> {
        let of_device = self.rows.iter().filter(|(key, _)| key.subject.device == *device);
        let mut deadlines: Vec<_> = of_device.filter_map(|(_, row)| row.due).collect();
        deadlines.sort_unstable();
        deadlines
    }

    fn backlog(&self, now: Timestamp) -> usize {
        self.rows.values().filter(|row| row.due.is_some_and(|due| due <= now)).count()
    }

    /// Takes whoever is next of a device's rechecks.
    fn recheck(&mut self, device: &Device, now: Timestamp, lease: Timestamp, limit: usize) -> Vec<Subject> {
        let mut ready = vec![];
        for (subject, known) in self.subjects.iter_mut().filter(|(subject, _)| subject.device == *device) {
            known.ready |= known.recheck_at.is_some_and(|at| at <= now);
            if known.ready {
                ready.push((known.outlook.map_or(0.0, |outlook| outlook.turn.rank), subject.clone()));
            }
        }
        ready.sort_by(|(a, _), (b, _)| a.total_cmp(b));
        ready.truncate(limit);
        for (rank, subject) in &ready {
            let virtual_now = self.virtual_now.entry(device.clone()).or_default();
            *virtual_now = virtual_now.max(*rank);
            let known = self.subjects.get_mut(subject).expect("it is held");
            known.recheck_before = known.recheck_before.or(known.recheck_at);
            (known.recheck_at, known.ready) = (Some(lease), false);
        }
        ready.into_iter().map(|(_, subject)| subject).collect()
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
        Step::Apply { key, stale, due, rank, asked, also, siblings } => {
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
                outlook: model.unlike_any(rank),
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
        Step::Plan(plan) => follow_plan(model, store, plan).await,
        Step::Forget(before) => {
            let mut gone = store.forget_idle(at(before), usize::MAX).await.unwrap();
            gone.sort_unstable();
            assert_eq!(gone, model.forget(at(before)));
            model.begin_anew();
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
            assert_eq!(told, [entries, model.subjects.len(), model.backlog(at(now))].map(|n| n as u64));
        }
        Step::Restart => unreachable!("done by who holds the store"),
    }
}

async fn follow_plan(model: &mut Model, store: &Opened, plan: Plan) {
    match plan {
        Plan::Take { key, now, lease, limit } => {
            let device = key.subject.device;
            let mut expected = model.deadlines(&device);
            expected.retain(|due| *due <= at(now));
            expected.truncate(limit);
            let taken = store.take_due(&device, at(now), at(lease), limit).await.unwrap();
            assert_eq!(taken.iter().map(|due| due.due_at).collect::<Vec<_>>(), expected);
            for due in taken {
                let row = model.rows.get_mut(&due.key).expect("it is held");
                assert_eq!(
                    (due.entry, Some(due.due_at), due.requested_at),
                    (row.entry.clone(), row.due, row.requested)
                );
                row.due_before = row.due_before.or(row.due);
                row.due = Some(at(lease));
            }
        }
        Plan::Recheck { key, now, lease, limit } => {
            let device = key.subject.device;
            let taken = store.take_rechecks(&device, at(now), at(lease), limit).await.unwrap();
            let expected = model.recheck(&device, at(now), at(lease), limit);
            assert_eq!(taken.iter().map(|one| one.subject.clone()).collect::<Vec<_>>(), expected);
            for candidate in taken {
                let told: BTreeMap<_, _> = candidate
                    .pictures
                    .into_iter()
                    .map(|one| (one.variant.to_bits(), (one.entry, one.requested_at)))
                    .collect();
                let rows = model.rows.iter().filter(|(key, _)| key.subject == candidate.subject);
                let held: BTreeMap<_, _> =
                    rows.map(|(key, row)| (key.variant.to_bits(), (row.entry.clone(), row.requested))).collect();
                assert_eq!(told, held);
            }
        }
        Plan::Outlay(key) => {
            let device = key.subject.device;
            let deadlines = model.deadlines(&device);
            let rechecks = model.rechecks(&device) as u64;
            let told = store.outlay(&device, &[1, 2, 5]).await.unwrap();
            let there: Vec<_> = [1, 2, 5].into_iter().filter_map(|k| Some((k, *deadlines.get(k - 1)?))).collect();
            assert_eq!(told.deadlines.iter().map(|one| (one.count, one.due_at)).collect::<Vec<_>>(), there);
            for one in &told.deadlines {
                // Of several at one instant it may be any.
                let there = |(key, row): (&Key, &Row)| {
                    key.subject.device == device && row.due == Some(one.due_at) && row.requested == one.requested_at
                };
                assert!(model.rows.iter().any(there), "{one:?}");
            }
            assert_eq!(told.rechecks, rechecks);
            let agenda = store.agenda().await.unwrap();
            let of_device = agenda.iter().find(|agenda| agenda.device == device);
            assert_eq!(of_device.and_then(|agenda| agenda.due_at), deadlines.first().copied());
            assert_eq!(of_device.is_some_and(|agenda| agenda.recheck_at.is_some()), rechecks > 0);
        }
        Plan::Reschedule(keys) => {
            let keys: Vec<_> = keys.into_iter().map(|(key, due)| (key, due.map(at))).collect();
            store.reschedule(keys.clone()).await.unwrap();
            for (key, due) in keys {
                model.rows.entry(key).and_modify(|row| (row.due, row.due_before) = (due, None));
            }
        }
        Plan::Defer(keys) => {
            let subjects: Vec<_> = keys.into_iter().map(|(key, from)| (key.subject, from.map(at))).collect();
            store.defer(subjects.clone()).await.unwrap();
            for (subject, from) in subjects {
                model.subjects.entry(subject).and_modify(|known| {
                    (known.recheck_at, known.recheck_before, known.ready) = (from, None, false);
                });
                model.begin_anew();
            }
        }
        Plan::Advance { key, stale, rank, from } => {
            let outlook = model.unlike_any(rank);
            let revision = model.held(&key).revision;
            let expected = if stale { Token(revision.0 + 1) } else { revision };
            store.advance(&key.subject, expected, outlook, at(from)).await.unwrap();
            if !stale {
                model.subjects.entry(key.subject).and_modify(|known| {
                    known.outlook = Some(outlook);
                    known.recheck_at = known.recheck_at.map(|before| before.min(at(from)));
                });
            }
        }
        Plan::Touch(touches) => {
            let touch = |(key, when, due)| Touch { key, at: at(when), due_at: Some(at(due)), recheck_at: at(due) };
            let touches: Vec<_> = touches.into_iter().map(touch).collect();
            store.touch(touches.clone()).await.unwrap();
            for touch in touches {
                let Some(row) = model.rows.get_mut(&touch.key) else { continue };
                row.requested = row.requested.max(Some(touch.at));
                row.due = row.due.or(touch.due_at);
                let known = model.subjects.get_mut(&touch.key.subject).expect("it is held");
                known.recheck_at = known.recheck_at.or(Some(touch.recheck_at));
            }
        }
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
                    if !E::LEASES_STAY {
                        model.end_leases();
                    }
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

/// A history on a file that is then moved, and goes on in the other place as it does where it was.
#[test]
fn after_a_migration_both_stores_behave_as_the_model() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let server = Server::start();
    let histories = || prop::collection::vec(step(), 1..40);
    let mut runner = TestRunner::new(Config { cases: 96, failure_persistence: None, ..Config::default() });
    let cases = Cell::new(0);
    let checked = runner.run(&(histories(), histories()), |(before, after)| {
        // Each has a store of its own, also those that fail.
        cases.set(cases.get() + 1);
        runtime.block_on(async {
            let (file, mut model) = (File::new(), Model::default());
            let store = file.open().await;
            for step in before.into_iter().filter(|step| !matches!(step, Step::Restart)) {
                follow(&mut model, &store, step).await;
            }
            store.close().await;
            let url = format!("{}?prefix={}", server.url(), cases.get());
            migrate(&file.path(), &url).await.unwrap();
            model.end_leases();
            let there = (redis::open(&url).await, model.clone());
            for (store, mut model) in [there, (file.open().await, model)] {
                for step in after.iter().filter(|step| !matches!(step, Step::Restart)) {
                    follow(&mut model, &store, step.clone()).await;
                }
                store.close().await;
            }
        });
        Ok(())
    });
    if let Err(failure) = checked {
        panic!("{failure}");
    }
}
