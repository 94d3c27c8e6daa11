//! The change log's readers: whoever wants to know what changed stands somewhere in the log and goes on from there.
//!
//! The rules kept here:
//! * **A subscriber is a cursor.** Nothing is remembered for it, and nothing is sent that is not in the log by then, so that what
//!   was sent survives a kill.
//! * **One reader for all who are abreast.** It follows the log and keeps the newest events, written out once, in the *tail*.
//!   Whoever has fallen behind the tail reads the log itself until it has caught up: slow is slower, never incomplete.
//! * **What was missed is said.** Whoever stands where the log no longer reaches is told so by a gap, and goes on with the oldest
//!   that is kept.
//!
//! Architecture invariant: this module knows the log and nothing of lookups.

use std::collections::{HashSet, VecDeque};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::clock::{Clock, Timestamp};
use crate::cursor::{Cursor, Epoch};
use crate::jid::{Device, Jid, Subject};
use crate::metrics::Metrics;
use crate::store::{Extent, Log, Record, StoreError, What};

mod event;
mod reader;
#[cfg(test)]
mod tests;
pub mod webhook;

pub use event::{Event, Format};
pub use reader::Reader;

/// What is told, and for how long it is kept.
#[derive(Clone, Debug)]
pub struct Config {
    /// How long records stay in the log.
    pub retention: Duration,
    /// How events are written.
    pub format: Format,
}

/// How many events the tail keeps (each a few hundred bytes, written out).
const TAIL_MAX: usize = 4096;

/// How many events a subscriber is handed at once.
const BATCH_MAX: usize = 64;

/// How many records are read from the log at once.
const READ_MAX: usize = 500;

/// How many records are looked at for one listing, however few of them are wanted.
const SCANNED_MAX: usize = 10_000;

/// How many records are dropped in one write.
const TRIM_BATCH: usize = 1000;

/// The pace of looking after the log when nothing happens, and after a failure of the store.
const PACE: Duration = Duration::from_secs(1);

/// The log's readers. Cheap to clone.
#[derive(Clone)]
pub struct Events(Arc<Inner>);

struct Inner {
    config: Config,
    clock: Clock,
    log: Arc<dyn Log>,
    metrics: Arc<Metrics>,
    tail: RwLock<Tail>,
    /// How far the tail reaches.
    tip: watch::Sender<u64>,
    /// The last record of somebody's being forgotten.
    forgettings: watch::Sender<u64>,
    stop: CancellationToken,
}

/// The newest events.
struct Tail {
    /// Of which log.
    epoch: Epoch,
    /// What comes behind this is in `events`, as far as `last`.
    first: u64,
    last: u64,
    events: VecDeque<Arc<Event>>,
}

impl Tail {
    /// A tail that begins behind `last`.
    fn behind(epoch: Epoch, last: u64) -> Self {
        Self { epoch, first: last, last, events: VecDeque::new() }
    }
}

/// Which changes somebody wants.
#[derive(Clone, Debug, Default)]
pub struct Filter {
    /// As this device sees them; `None`: all.
    pub device: Option<Device>,
    /// Of these; `None`: of everybody.
    pub jids: Option<HashSet<Jid>>,
}

impl Filter {
    fn wants(&self, subject: &Subject) -> bool {
        self.device.as_ref().is_none_or(|device| *device == subject.device)
            && self.jids.as_ref().is_none_or(|jids| jids.contains(&subject.jid))
    }
}

/// Where somebody begins to read.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Start {
    /// With what is recorded from now on.
    Now,
    /// With the oldest that is kept.
    Earliest,
    /// Behind this place.
    After(Cursor),
}

/// A part of the log, for one who asks for it.
#[derive(Debug)]
pub struct Listing {
    /// Oldest first; or newest first, for one person's history.
    pub events: Vec<Arc<Event>>,
    /// Where to go on.
    pub next: Option<Cursor>,
}

/// What the readers are made of.
pub struct Parts {
    /// What is told.
    pub config: Config,
    /// Time.
    pub clock: Clock,
    /// What is read.
    pub log: Arc<dyn Log>,
    /// The figures.
    pub metrics: Arc<Metrics>,
    /// Ends every stream and the loop.
    pub stop: CancellationToken,
}

impl Events {
    /// Readers that have read nothing yet.
    #[must_use]
    pub fn new(parts: Parts) -> Self {
        let Parts { config, clock, log, metrics, stop } = parts;
        // Until the log has been read, nobody is abreast.
        let tail = RwLock::new(Tail { first: u64::MAX, ..Tail::behind(Epoch::default(), 0) });
        let (tip, forgettings) = (watch::Sender::new(0), watch::Sender::new(0));
        Self(Arc::new(Inner { config, clock, log, metrics, tail, tip, forgettings, stop }))
    }

    /// Follows the log into the tail, and drops what is too old, until it is stopped.
    pub async fn run(self) {
        let inner = &self.0;
        let mut grown = inner.log.tip();
        let mut trim_at = Duration::ZERO;
        while !inner.stop.is_cancelled() {
            grown.mark_unchanged();
            match self.follow().await {
                Ok(true) => continue,
                Ok(false) => {}
                Err(error) => tracing::debug!(%error, "the change log cannot be read"),
            }
            let elapsed = inner.clock.elapsed();
            if elapsed >= trim_at {
                self.trim().await;
                trim_at = elapsed + self.trim_pace();
            }
            tokio::select! {
                _ = grown.changed() => {}
                () = tokio::time::sleep(PACE) => {}
                () = inner.stop.cancelled() => {}
            }
        }
    }

    /// Takes the next records into the tail; true if there may be more. Of a log that was not followed before the tail begins at the
    /// end: whoever stands in the one before is told of a gap when it reads this one.
    async fn follow(&self) -> Result<bool, StoreError> {
        let inner = &self.0;
        let (epoch, after) = {
            let tail = inner.tail.read().unwrap_or_else(PoisonError::into_inner);
            (tail.epoch, tail.last)
        };
        let page = inner.log.read_log(after, READ_MAX).await?;
        if page.extent.epoch != epoch {
            let Extent { epoch, last, .. } = page.extent;
            *inner.tail.write().unwrap_or_else(PoisonError::into_inner) = Tail::behind(epoch, last);
            inner.forgettings.send_replace(last);
            inner.tip.send_replace(last);
            return Ok(false);
        }
        let more = page.records.len() == READ_MAX;
        let last = if more { page.records.last().map_or(after, |record| record.sequence) } else { page.extent.last };
        if last <= after {
            return Ok(false);
        }
        // Somebody was forgotten: what is told of them from before is no longer in the log, nor must it be here.
        let forgotten = page.records.iter().rev().find(|record| record.what == What::Forgotten);
        let forgotten = forgotten.map(|record| record.sequence);
        let events: Vec<_> = self.events(&page.extent, page.records, &Filter::default()).collect();
        let mut tail = inner.tail.write().unwrap_or_else(PoisonError::into_inner);
        if let Some(forgotten) = forgotten {
            *tail = Tail::behind(epoch, forgotten);
        }
        let first = tail.first;
        tail.events.extend(events.into_iter().filter(|event| event.sequence > first));
        tail.last = last;
        while tail.events.len() > TAIL_MAX {
            tail.first = tail.events.pop_front().map_or(tail.first, |event| event.sequence);
        }
        drop(tail);
        if let Some(forgotten) = forgotten {
            inner.forgettings.send_replace(forgotten);
        }
        inner.tip.send_replace(last);
        Ok(more)
    }

    async fn trim(&self) {
        let before = self.too_old();
        loop {
            match self.0.log.trim_log(before, TRIM_BATCH).await {
                Ok(trimmed) => {
                    self.0.metrics.log_trimmed.inc_by(trimmed as u64);
                    if trimmed < TRIM_BATCH {
                        return;
                    }
                }
                Err(error) => {
                    tracing::debug!(%error, "the change log cannot be trimmed");
                    return;
                }
            }
        }
    }

    /// Where in the log one stands who begins there.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn place(&self, start: Start) -> Result<Cursor, StoreError> {
        let extent = self.0.log.read_log(0, 0).await?.extent;
        Ok(extent.cursor(self.begin(&extent, start).0))
    }

    /// Whether other processes may use the same store.
    #[must_use]
    pub fn is_shared(&self) -> bool {
        self.0.log.is_shared()
    }

    /// The log's end as it was read last; `None` before it was read at all. Asks the store nothing.
    #[must_use]
    pub fn read_upto(&self) -> Option<Cursor> {
        let tail = self.0.tail.read().unwrap_or_else(PoisonError::into_inner);
        (tail.epoch != Epoch::default()).then_some(Cursor { epoch: tail.epoch, sequence: tail.last })
    }

    /// When the oldest record behind the sequence `after` was appended.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn oldest_behind(&self, after: u64) -> Result<Option<Timestamp>, StoreError> {
        Ok(self.0.log.read_log(after, 1).await?.records.first().map(|record| record.at))
    }

    /// The log's last sequence.
    #[must_use]
    pub fn end(&self) -> u64 {
        *self.0.log.tip().borrow()
    }

    /// What was noticed before this is too old to be kept.
    fn too_old(&self) -> Timestamp {
        self.0.clock.now() - self.0.config.retention
    }

    /// How often to look for what is too old.
    fn trim_pace(&self) -> Duration {
        (self.0.config.retention / 50).clamp(Duration::from_secs(1), Duration::from_secs(600))
    }

    /// An event that says that it is a test. It stands in no log.
    #[must_use]
    pub fn test(&self, id: String) -> Event {
        Event::test(id, self.0.clock.now(), self.0.config.format)
    }

    /// Where reading begins, and the gap there is to tell of.
    fn begin(&self, extent: &Extent, start: Start) -> (u64, Option<Arc<Event>>) {
        match start {
            Start::Now => (extent.last, None),
            Start::Earliest => (extent.trimmed, None),
            Start::After(cursor) if extent.reaches(cursor) => (cursor.sequence, None),
            Start::After(cursor) => (extent.trimmed, Some(self.gap(cursor, extent))),
        }
    }

    fn gap(&self, from: Cursor, extent: &Extent) -> Arc<Event> {
        Arc::new(Event::gap(from, extent.cursor(extent.trimmed), self.0.clock.now(), self.0.config.format))
    }

    fn events<'a>(
        &self,
        extent: &'a Extent,
        records: Vec<Record>,
        filter: &'a Filter,
    ) -> impl Iterator<Item = Arc<Event>> + use<'a> {
        let format = self.0.config.format;
        records.into_iter().filter_map(move |record| match record.what {
            What::Change(change) if filter.wants(&change.0) => {
                let (subject, change) = *change;
                Some(Arc::new(Event::change(subject, &change, extent.cursor(record.sequence), format)))
            }
            What::Change(_) | What::Forgotten => None,
        })
    }

    /// Up to `limit` events from `start` on, oldest first. Always tells where to go on; it may have looked at many records and
    /// found none that is wanted.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn list(&self, start: Start, filter: &Filter, limit: usize) -> Result<Listing, StoreError> {
        let mut extent = self.0.log.read_log(0, 0).await?.extent;
        let (mut at, gap) = self.begin(&extent, start);
        let mut events = Vec::from_iter(gap);
        self.0.metrics.gaps.inc_by(events.len() as u64);
        let mut scanned = 0;
        while events.len() < limit && scanned < SCANNED_MAX {
            // Whoever wants everything reads no more than is asked for.
            let room = limit - events.len();
            let most = if filter.jids.is_none() && filter.device.is_none() { room.min(READ_MAX) } else { READ_MAX };
            let page = self.0.log.read_log(at, most).await?;
            let read = page.records.len();
            extent = page.extent;
            let last = page.records.last().map_or(at, |record| record.sequence);
            // The end was seen: also what there is not, because it was of somebody who is forgotten.
            let seen = if read < most { extent.last.max(last) } else { last };
            let found: Vec<_> = self.events(&extent, page.records, filter).take(room).collect();
            at = match found.last() {
                Some(event) if found.len() == room => event.sequence,
                _ => seen,
            };
            events.extend(found);
            scanned += read;
            if read < most {
                break;
            }
        }
        Ok(Listing { events, next: Some(extent.cursor(at)) })
    }

    /// What changed about one person or group, newest first: up to `limit` events from before `before`.
    ///
    /// # Errors
    /// When the store fails, or the place is in another log.
    pub async fn history(
        &self,
        jid: &Jid,
        device: Option<&Device>,
        before: Option<Cursor>,
        limit: usize,
    ) -> Result<Result<Listing, ForeignCursor>, StoreError> {
        let sequence = before.map_or(u64::MAX, |cursor| cursor.sequence);
        let mut page = self.0.log.history(jid, device, sequence, limit + 1).await?;
        if before.is_some_and(|cursor| cursor.epoch != page.extent.epoch) {
            return Ok(Err(ForeignCursor));
        }
        let more = page.records.len() > limit;
        page.records.truncate(limit);
        let events: Vec<_> = self.events(&page.extent, page.records, &Filter::default()).collect();
        let next = events.last().filter(|_| more).map(|event| page.extent.cursor(event.sequence));
        Ok(Ok(Listing { events, next }))
    }

    /// Changes when somebody was forgotten: what was read before may be about them.
    #[must_use]
    pub fn forgettings(&self) -> watch::Receiver<u64> {
        self.0.forgettings.subscribe()
    }

    /// The media type of an event's text.
    #[must_use]
    pub fn media_type(&self) -> &'static str {
        self.0.config.format.media_type()
    }

    /// Cancelled when the program stops.
    #[must_use]
    pub fn stop(&self) -> &CancellationToken {
        &self.0.stop
    }
}

/// A place in another log, where only this one will do.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ForeignCursor;
