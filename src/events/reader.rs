//! One reader of the log: of the tail while it is abreast of it, and of the log itself while it is not.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError};

use tokio::sync::watch;

use super::{BATCH_MAX, Event, Events, Filter, PACE, Start};
use crate::cursor::Cursor;
use crate::store::{Extent, StoreError};

impl Events {
    /// A reader that begins at `start`.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn read(&self, start: Start, filter: Filter) -> Result<Reader, StoreError> {
        let mut reader = self.read_uncounted(start, filter).await?;
        self.0.metrics.subscribers.inc();
        reader.is_subscriber = true;
        Ok(reader)
    }

    /// A reader that is no subscriber to the figures: those of a webhook are its own.
    pub(super) async fn read_uncounted(&self, start: Start, filter: Filter) -> Result<Reader, StoreError> {
        let extent = self.0.log.read_log(0, 0).await?.extent;
        let (at, gap) = self.begin(&extent, start);
        let (events, place, tip) = (self.clone(), Arc::new(AtomicU64::new(at)), self.0.tip.subscribe());
        Ok(Reader { events, filter, extent, at, place, gap, tip, abreast: false, is_subscriber: false })
    }
}

/// One who reads on and on.
pub struct Reader {
    events: Events,
    filter: Filter,
    /// The log as it was last seen.
    extent: Extent,
    at: u64,
    /// The same, for whoever wants to know it while this waits.
    place: Arc<AtomicU64>,
    gap: Option<Arc<Event>>,
    tip: watch::Receiver<u64>,
    /// Whether it has been served from the tail since it last fell behind.
    pub(super) abreast: bool,
    /// Whether the figures count it and what it reads.
    is_subscriber: bool,
}

impl Reader {
    /// Where it stands.
    #[must_use]
    pub fn cursor(&self) -> Cursor {
        self.extent.cursor(self.at)
    }

    /// Where it stands from now on, even while it waits for what is wanted.
    pub(super) fn place(&self) -> Arc<AtomicU64> {
        self.place.clone()
    }

    /// The next events, at least one; waits until there are any. May be given up at any time without losing one.
    pub async fn next(&mut self) -> Vec<Arc<Event>> {
        loop {
            let found = match self.gap.take() {
                Some(gap) => vec![gap],
                None => match self.of_tail() {
                    Some(found) => found,
                    None => self.of_log().await,
                },
            };
            self.place.store(self.at, Ordering::Relaxed);
            if !found.is_empty() {
                if self.is_subscriber {
                    let metrics = &self.events.0.metrics;
                    metrics.events_sent.inc_by(found.len() as u64);
                    metrics.gaps.inc_by(found.iter().filter(|event| event.kind.is_none()).count() as u64);
                }
                return found;
            }
            let at = self.at;
            // The sender lives as long as `events`.
            let _ = self.tip.wait_for(|tip| *tip > at).await;
        }
    }

    /// What the tail has for this reader; `None`: it does not reach back that far.
    fn of_tail(&mut self) -> Option<Vec<Arc<Event>>> {
        let inner = &self.events.0;
        let tail = inner.tail.read().unwrap_or_else(PoisonError::into_inner);
        if self.at < tail.first {
            if std::mem::take(&mut self.abreast) && self.is_subscriber {
                inner.metrics.fall_backs.inc();
            }
            return None;
        }
        self.abreast = true;
        let behind = tail.events.partition_point(|event| event.sequence <= self.at);
        let wants = |event: &&Arc<Event>| event.subject.as_ref().is_some_and(|subject| self.filter.wants(subject));
        let wanted = tail.events.range(behind..).filter(wants);
        let found: Vec<_> = wanted.take(BATCH_MAX).cloned().collect();
        self.at = match found.last() {
            Some(event) if found.len() == BATCH_MAX => event.sequence,
            // Of a log that is read ahead of the tail, nothing is read twice.
            _ => self.at.max(tail.last),
        };
        Some(found)
    }

    /// Reads on in the log. Waits a little if it cannot be read.
    async fn of_log(&mut self) -> Vec<Arc<Event>> {
        let page = match self.events.0.log.read_log(self.at, BATCH_MAX).await {
            Ok(page) => page,
            Err(error) => {
                tracing::debug!(%error, "a subscriber waits for the change log");
                tokio::time::sleep(PACE).await;
                return vec![];
            }
        };
        let here = self.cursor();
        self.extent = page.extent;
        if !page.extent.reaches(here) {
            self.at = page.extent.trimmed;
            return vec![self.events.gap(here, &page.extent)];
        }
        let full = page.records.len() == BATCH_MAX;
        self.at = match page.records.last() {
            Some(record) if full => record.sequence,
            _ => page.extent.last,
        };
        self.events.events(&page.extent, page.records, &self.filter).collect()
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        if self.is_subscriber {
            self.events.0.metrics.subscribers.dec();
        }
    }
}
