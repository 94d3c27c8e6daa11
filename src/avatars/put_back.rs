//! Another store has taken the old one's place, because a server was emptied or lost its last moments: what memory holds goes back
//! into it, so that neither a restart nor the other replicas have to ask the gateway for everybody at once.
//!
//! The rules kept here:
//! * Memory does not know whose answers it holds: the keys come from those who ask for them. Each is put back when it is asked for
//!   the next time, however lately it was before, for [`WINDOW`]; what nobody asks for in that time leaves memory, because it may
//!   have been overtaken unseen.
//! * One at a time: others' calls wait for one such write at most.
//! * What the store has from a later look stays, and takes the place of what is in memory.
//! * Where nothing is left of somebody, the picture in memory is the baseline, and versions go on where they were: what has changed
//!   since is noticed.

use std::collections::HashSet;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;

use super::look::entropy;
use super::slot::{History, Slot};
use super::{Avatars, Inner};
use crate::change::{self, Circumstances, State};
use crate::clock::Timestamp;
use crate::entry::{Entry, Freshness};
use crate::jid::Key;
use crate::outcome::{Observation, Token};
use crate::store::{Applied, Held, StoreError, Touch, Write};

/// For how long answers go back.
const WINDOW: Duration = Duration::from_secs(120);

/// How often somebody else may be faster.
const TRIES: usize = 4;

/// Stands for no instant.
const NEVER: i64 = i64::MIN;

/// What is to go back.
pub(super) struct PutBack {
    /// Since when answers go back, or never (ms): read at each hit.
    begun: AtomicI64,
    open: Mutex<Option<Open>>,
    /// There is something to be done.
    wanted: Notify,
}

/// Since another store has taken the old one's place.
struct Open {
    /// What was looked at later is in the new one.
    since: Timestamp,
    /// On the steady clock.
    until: Duration,
    /// Keys that were asked for and are not done yet.
    waiting: Vec<Key>,
    /// What is in memory as the new store has it.
    settled: HashSet<u128>,
}

impl Default for PutBack {
    fn default() -> Self {
        Self { begun: AtomicI64::new(NEVER), open: Mutex::default(), wanted: Notify::new() }
    }
}

impl PutBack {
    fn open(&self) -> MutexGuard<'_, Option<Open>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Another store has taken the old one's place.
    pub(super) fn begin(&self, now: Timestamp, elapsed: Duration) {
        let (waiting, settled) = (vec![], HashSet::new());
        *self.open() = Some(Open { since: now, until: elapsed + WINDOW, waiting, settled });
        self.begun.store(now.as_millis(), Ordering::Relaxed);
        self.wanted.notify_one();
    }

    /// For how long after a request that was remembered the next one need not be, which is `grain` at the most: what was
    /// remembered in the old store is not in the new one.
    pub(super) fn grain(&self, grain: Duration, now: Timestamp) -> Duration {
        match self.begun.load(Ordering::Relaxed) {
            NEVER => grain,
            begun => grain.min(now.since(Timestamp::from_millis(begun))),
        }
    }

    /// These were asked for.
    pub(super) fn asked(&self, touches: &[Touch]) {
        if let Some(open) = &mut *self.open() {
            open.waiting.extend(touches.iter().map(|touch| touch.key.clone()));
            self.wanted.notify_one();
        }
    }

    /// The next one, and since when it counts.
    fn next(&self) -> Option<(Key, Timestamp)> {
        let mut open = self.open();
        let open = open.as_mut()?;
        open.waiting.pop().map(|key| (key, open.since))
    }

    fn settled(&self, digest: u128) {
        if let Some(open) = &mut *self.open() {
            open.settled.insert(digest);
        }
    }

    /// How long it still goes on.
    fn left(&self, elapsed: Duration) -> Option<Duration> {
        self.open().as_ref().map(|open| open.until.saturating_sub(elapsed))
    }
}

impl Avatars {
    /// Puts back what memory holds whenever another store has taken the old one's place. Never ends by itself.
    pub(super) async fn put_back(&self) {
        let inner = &*self.0;
        loop {
            while let Some((key, since)) = inner.put_back.next() {
                match inner.put_one_back(&key, since).await {
                    Ok(()) => inner.put_back.settled(inner.memory.digest(&key)),
                    Err(error) => tracing::debug!(%error, "an answer is not put back"),
                }
            }
            match inner.put_back.left(inner.clock.elapsed()) {
                Some(Duration::ZERO) => {
                    let avatars = self.clone();
                    // It may take a moment; one that panicked has ended as well.
                    let _ = tokio::task::spawn_blocking(move || avatars.0.end_putting_back()).await;
                }
                Some(left) => tokio::select! {
                    () = inner.put_back.wanted.notified() => {}
                    () = inner.clock.sleep(left) => {}
                },
                None => inner.put_back.wanted.notified().await,
            }
        }
    }
}

impl Inner {
    fn end_putting_back(&self) {
        self.put_back.begun.store(NEVER, Ordering::Relaxed);
        if let Some(Open { since, settled, .. }) = self.put_back.open().take() {
            self.memory.retain(|digest, slot| slot.entry.checked_at > since || settled.contains(&digest));
        }
    }

    /// Brings store and memory together about one key: both have what is from the later look then.
    async fn put_one_back(&self, key: &Key, since: Timestamp) -> Result<(), StoreError> {
        let now = self.clock.now();
        let lives = |slot: &Slot| slot.entry.checked_at <= since && slot.entry.freshness(now) != Freshness::Dead;
        let Some(slot) = self.memory.get(key).filter(lives) else { return Ok(()) };
        let (entry, mut held) = (slot.to_entry(), Held::default());
        for _ in 0..TRIES {
            let outlook = held.outlook.unwrap_or_else(|| self.learning.met(&held, entry.checked_at));
            let state = if held.state == State::default() { self.baseline(key, &entry, &slot) } else { held.state };
            let write = Write {
                key: key.clone(),
                start: entry.start(),
                expected: held.revision,
                state: state.clone(),
                flown: false,
                entry: entry.clone(),
                outlook,
                recheck_at: entry.checked_at + self.config.rules.recheck_interval,
                change: None,
                requested_at: Some(now),
                also_due: None,
                siblings_due: None,
            };
            held = match self.store.apply(write).await? {
                Applied::Done(_) => {
                    self.memory.insert(key, Slot::new(&entry, History::from(&state), Some(now)));
                    return Ok(());
                }
                Applied::Conflict(held) => *held,
                // No flight of its own could be late.
                Applied::Late => return Ok(()),
                Applied::Forgotten => {
                    self.memory.remove(key);
                    return Ok(());
                }
            };
            if let Some(later) = held.entry.as_ref().filter(|held| held.start() >= entry.start()) {
                self.memory.insert(key, Slot::new(later, History::from(&held.state), held.requested_at));
                return Ok(());
            }
        }
        Ok(())
    }

    /// What is believed of somebody of whom nothing is left but an answer.
    fn baseline(&self, key: &Key, entry: &Entry, slot: &Slot) -> State {
        let seen = Observation {
            variant: key.variant,
            outcome: entry.outcome.clone(),
            start: entry.start(),
            started_at: entry.checked_at,
            ended_at: entry.checked_at,
        };
        let rules = &self.config.rules;
        let around = Circumstances { applied: Token(0), device_succeeded_at: None, entropy: entropy(), rules };
        let mut state = change::observe(&State::default(), &seen, around).state;
        if let Some(recorded) = &mut state.recorded {
            let History { version, changed_at } = slot.history();
            (recorded.version, recorded.changed_at) = (version, changed_at);
        }
        state
    }
}
