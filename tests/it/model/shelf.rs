//! The store of the model: maps in memory that keep every promise of [`Store`], can be made to fail, and watch what is written.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};

use async_trait::async_trait;
use avatar_proxy::change::{Belief, Standing, State};
use avatar_proxy::clock::Timestamp;
use avatar_proxy::entry::{Entry, Jitter};
use avatar_proxy::jid::{Device, Jid, Key, Subject};
use avatar_proxy::outcome::{Observation, Rules, Token};
use avatar_proxy::recheck::{Lessons, Outlook};
use avatar_proxy::store::none::Nothing;
use avatar_proxy::store::{
    self, Agenda, Applied, Candidate, Claim, DeviceRecord, Due, Held, Outlay, Schedule, Size, Store, StoreError, Touch,
    Watched, Write,
};

use super::watch::Watch;

#[derive(Clone, Default)]
struct Row {
    entry: Option<Entry>,
    due: Option<Timestamp>,
    requested: Option<Timestamp>,
}

#[derive(Default)]
struct Maps {
    rows: BTreeMap<Key, Row>,
    subjects: BTreeMap<Subject, (Token, State)>,
    devices: BTreeMap<Device, DeviceRecord>,
    last: u64,
    fails: bool,
    /// another replica's look, which started later, is written before the next apply
    interferes: bool,
}

pub(super) struct Shelf {
    maps: Mutex<Maps>,
    watch: Arc<Watch>,
}

impl Maps {
    fn token(&mut self) -> Token {
        self.last += 1;
        Token(self.last)
    }

    fn held(&self, key: &Key) -> Held {
        let row = self.rows.get(key).cloned().unwrap_or_default();
        let (revision, state) = self.subjects.get(&key.subject).cloned().unwrap_or_default();
        Held { entry: row.entry, requested_at: row.requested, revision, state, ..Held::default() }
    }

    /// Another replica looked for the same, from later on, saw the same, was faster to write it, and recorded nothing of it.
    fn overtake(&mut self, write: &Write) -> Entry {
        let (variant, now, start) = (write.key.variant, write.entry.checked_at, self.token());
        let outcome = write.entry.outcome.clone();
        let seen = Observation { variant, outcome, start, started_at: now, ended_at: now };
        let sure = Standing::Believed { repeats: 1 };
        let entry = Entry::after(None, &seen, sure, &Rules::default(), Jitter(0.0));
        let row = self.rows.entry(write.key.clone()).or_default();
        row.due = entry.deadline();
        row.entry = Some(entry.clone());
        let end = self.token();
        self.subjects.entry(write.key.subject.clone()).or_default().0 = end;
        entry
    }
}

impl Shelf {
    pub(super) fn new(watch: Arc<Watch>) -> Self {
        Self { maps: Mutex::default(), watch }
    }

    fn lock(&self) -> MutexGuard<'_, Maps> {
        self.maps.lock().unwrap()
    }

    fn open(&self) -> Result<MutexGuard<'_, Maps>, StoreError> {
        self.watch.stirs();
        let maps = self.lock();
        if maps.fails { Err(StoreError::Unavailable("it fails by script".into())) } else { Ok(maps) }
    }

    pub(super) fn fail(&self, fails: bool) {
        self.lock().fails = fails;
    }

    pub(super) fn interfere(&self) {
        self.lock().interferes = true;
    }

    /// What is held for a key and when it is due, if the store answers.
    pub(super) fn peek(&self, key: &Key) -> Option<(Entry, Option<Timestamp>)> {
        let maps = self.lock();
        let row = maps.rows.get(key).filter(|_| !maps.fails)?;
        Some((row.entry.clone()?, row.due))
    }

    pub(super) fn works(&self) -> bool {
        !self.lock().fails
    }

    pub(super) fn record(&self, device: &Device) -> Option<DeviceRecord> {
        self.lock().devices.get(device).copied()
    }

    /// A change continues its subject's history: no version is left out, and the old id is the one before.
    fn check_change(&self, held: &Held, write: &Write) {
        let (old, start) = (held.state.recorded.as_ref(), write.entry.start());
        if held.entry.as_ref().is_some_and(|held| held.start() > start) {
            self.watch.violated("an earlier look took the place of a later one");
        }
        if write.change.is_some() && start <= held.revision {
            self.watch.violated("a look that overlapped another made a change");
        }
        let Some(new) = write.state.recorded.as_ref() else {
            if old.is_some() {
                self.watch.violated("a history was lost");
            }
            return;
        };
        let id = |belief: &Belief| match belief {
            Belief::Id(id) => Some(id.clone()),
            Belief::Negative(_) => None,
        };
        let Some(old) = old else {
            if new.version != 0 || write.change.is_some() {
                self.watch.violated("the first belief is a change");
            }
            return;
        };
        let step = u64::from(write.change.is_some());
        if new.incarnation != old.incarnation || new.version != old.version + step {
            self.watch.violated(format!("version {} follows {}", new.version, old.version));
        }
        match &write.change {
            Some(change) => {
                let ids = (change.old_id.clone(), change.new_id.clone());
                if ids != (id(&old.belief), id(&new.belief)) || change.version != new.version || ids.0 == ids.1 {
                    self.watch.violated(format!("a change from {:?} to {:?}: {change:?}", old.belief, new.belief));
                }
                self.watch.changed(&write.key, change);
            }
            None if id(&old.belief) != id(&new.belief) => {
                self.watch.violated(format!("no change from {:?} to {:?}", old.belief, new.belief));
            }
            None => {}
        }
    }
}

#[async_trait]
impl Schedule for Shelf {
    /// Deadlines alone: the model is about what is answered and recorded, and rechecks are no other looks than these.
    async fn agenda(&self) -> Result<Vec<Agenda>, StoreError> {
        let maps = self.open()?;
        let mut soonest: BTreeMap<Device, Timestamp> = BTreeMap::new();
        for (key, row) in &maps.rows {
            if let Some(due) = row.due {
                let soonest = soonest.entry(key.subject.device.clone()).or_insert(due);
                *soonest = due.min(*soonest);
            }
        }
        let agenda = |(device, due)| Agenda { device, due_at: Some(due), recheck_at: None };
        Ok(soonest.into_iter().map(agenda).collect())
    }

    async fn take_due(
        &self,
        device: &Device,
        until: Timestamp,
        lease: Timestamp,
        limit: usize,
    ) -> Result<Vec<Due>, StoreError> {
        let mut maps = self.open()?;
        let mut due: Vec<(Timestamp, Key)> = maps
            .rows
            .iter()
            .filter(|(key, _)| key.subject.device == *device)
            .filter_map(|(key, row)| Some((row.due?, key.clone())))
            .filter(|(at, _)| *at <= until)
            .collect();
        due.sort_unstable();
        due.truncate(limit);
        let take = |(due_at, key): (Timestamp, Key)| {
            let row = maps.rows.get_mut(&key).expect("it is held");
            row.due = Some(lease);
            Due { entry: row.entry.clone(), requested_at: row.requested, due_at, key, watch: None }
        };
        Ok(due.into_iter().map(take).collect())
    }

    async fn take_rechecks(
        &self,
        _: &Device,
        _: Timestamp,
        _: Timestamp,
        _: usize,
    ) -> Result<Vec<Candidate>, StoreError> {
        self.open().map(|_| vec![])
    }

    async fn outlay(&self, _: &Device, _: &[usize]) -> Result<Outlay, StoreError> {
        self.open().map(|_| Outlay::default())
    }

    async fn reschedule(&self, keys: Vec<(Key, Option<Timestamp>)>) -> Result<(), StoreError> {
        let mut maps = self.open()?;
        for (key, due) in keys {
            maps.rows.entry(key).and_modify(|row| row.due = due);
        }
        Ok(())
    }

    async fn defer(&self, _: Vec<(Subject, Option<Timestamp>)>) -> Result<(), StoreError> {
        self.open().map(|_| ())
    }

    async fn advance(&self, _: &Subject, _: Token, _: Outlook, _: Timestamp) -> Result<(), StoreError> {
        self.open().map(|_| ())
    }

    async fn touch(&self, touches: Vec<Touch>) -> Result<(), StoreError> {
        let mut maps = self.open()?;
        for touch in touches {
            maps.rows.entry(touch.key).and_modify(|row| {
                row.requested = row.requested.max(Some(touch.at));
                row.due = row.due.or(touch.due_at);
            });
        }
        Ok(())
    }

    async fn lessons(&self) -> Result<Option<Lessons>, StoreError> {
        self.open().map(|_| None)
    }

    async fn put_lessons(&self, _: &Lessons) -> Result<(), StoreError> {
        self.open().map(|_| ())
    }
}

#[async_trait]
impl Store for Shelf {
    async fn forget(&self, jid: &Jid, device: Option<&Device>, at: Timestamp) -> Result<bool, StoreError> {
        Nothing.forget(jid, device, at).await
    }

    async fn watch(&self, watch: store::Watch, due: Timestamp, limit: u64) -> Result<Watched, StoreError> {
        Nothing.watch(watch, due, limit).await
    }

    async fn unwatch(&self, jid: &Jid, device: Option<&Device>) -> Result<bool, StoreError> {
        Nothing.unwatch(jid, device).await
    }

    async fn watches(
        &self,
        device: Option<&Device>,
        after: Option<&Subject>,
        limit: usize,
    ) -> Result<Vec<store::Watch>, StoreError> {
        Nothing.watches(device, after, limit).await
    }

    async fn find(&self, key: &Key) -> Result<Held, StoreError> {
        Ok(self.open()?.held(key))
    }

    async fn claim(&self, key: &Key) -> Result<Claim, StoreError> {
        let mut maps = self.open()?;
        Ok(Claim { start: maps.token(), held: maps.held(key) })
    }

    async fn apply(&self, write: Write) -> Result<Applied, StoreError> {
        let mut maps = self.open()?;
        let subject = &write.key.subject;
        if std::mem::take(&mut maps.interferes) {
            self.watch.overtaken(&write.key, &maps.overtake(&write));
        }
        let held = maps.held(&write.key);
        if held.revision != write.expected {
            return Ok(Applied::Conflict(Box::new(held)));
        }
        self.check_change(&held, &write);
        let end = maps.token();
        maps.subjects.insert(subject.clone(), (end, write.state.clone()));
        let row = maps.rows.entry(write.key.clone()).or_default();
        row.due = write.entry.deadline();
        row.entry = Some(write.entry.clone());
        row.requested = row.requested.max(write.requested_at);
        let sooner = |row: &mut Row, due: Timestamp| row.due = Some(row.due.map_or(due, |old| old.min(due)));
        if let Some(due) = write.siblings_due {
            let siblings = maps.rows.iter_mut().filter(|(key, _)| key.subject == *subject && **key != write.key);
            siblings.filter(|(_, row)| row.entry.is_some()).for_each(|(_, row)| sooner(row, due));
        }
        if let Some((key, due)) = write.also_due {
            sooner(maps.rows.entry(key).or_default(), due);
        }
        Ok(Applied::Done(end))
    }

    async fn forget_idle(&self, before: Timestamp, limit: usize) -> Result<Vec<Subject>, StoreError> {
        let mut maps = self.open()?;
        let idle = |row: &Row| row.requested.or(row.due).is_none_or(|since| since < before);
        let keys: Vec<Key> =
            maps.rows.iter().filter(|(_, row)| idle(row)).map(|(key, _)| key.clone()).take(limit).collect();
        for key in keys {
            maps.rows.remove(&key);
            self.watch.forgotten(&key);
        }
        let Maps { rows, subjects, .. } = &mut *maps;
        let gone = |subject: &Subject| !rows.keys().any(|key| key.subject == *subject);
        Ok(subjects.extract_if(.., |subject, _| gone(subject)).map(|(subject, _)| subject).collect())
    }

    async fn device(&self, device: &Device) -> Result<Option<DeviceRecord>, StoreError> {
        Ok(self.open()?.devices.get(device).copied())
    }

    async fn put_device(&self, device: &Device, record: DeviceRecord) -> Result<(), StoreError> {
        self.open()?.devices.insert(device.clone(), record);
        Ok(())
    }

    async fn size(&self, _now: Timestamp) -> Result<Size, StoreError> {
        self.open().map(|_| Size::default())
    }

    async fn check(&self) -> Result<(), StoreError> {
        self.open().map(|_| ())
    }

    async fn close(&self) {}
}
