//! The figures of every endpoint, in memory: what listings and metrics tell of it without asking the store.
//!
//! An endpoint's task writes its row; of one that has none, the row is as it was left, or as the store has it. What metrics tell is
//! computed when somebody asks for it, and goes with the endpoint.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use super::view::{Lag, State};
use crate::clock::Timestamp;
use crate::metrics::Metrics;
use crate::store::{Kept, Known};

/// What comes of attempts, in metrics.
pub(super) const RESULTS: [&str; 3] = ["delivered", "failed", "dead"];

/// What is known of one endpoint.
#[derive(Clone, Debug)]
pub(super) struct Figures {
    pub(super) state: State,
    /// The log was read for it up to here.
    pub(super) read: Arc<AtomicU64>,
    /// What was read for it and is not delivered yet, and what is dead.
    pub(super) kept: Kept,
    /// When the oldest was noticed of what it has yet to get; `None`: not known, or there is nothing.
    pub(super) oldest: Option<Timestamp>,
    /// Another replica delivers to it.
    pub(super) elsewhere: bool,
}

impl Figures {
    /// As the store has it.
    pub(super) fn of(known: &Known, state: State) -> Self {
        let read = Arc::new(AtomicU64::new(known.standing.cursor.sequence));
        Self { state, read, kept: known.kept, oldest: None, elsewhere: false }
    }

    /// Nothing is sent to it.
    pub(super) fn is_disabled(&self) -> bool {
        matches!(self.state, State::Disabled { .. })
    }

    /// No task writes its row.
    pub(super) fn is_untended(&self) -> bool {
        self.elsewhere || self.is_disabled()
    }

    /// Brings the row of one that another replica delivers to up to date with what the store says.
    pub(super) fn follow(&mut self, now: Self) {
        let is_same = self.elsewhere && self.kept == now.kept;
        let stands = self.read.load(Ordering::Relaxed) >= now.read.load(Ordering::Relaxed);
        // Found out once, it holds as long as nothing moves.
        *self = Self { oldest: self.oldest.filter(|_| is_same && stands), ..now };
    }

    /// How far it is behind a log that ends at `end`.
    pub(super) fn lag(&self, end: u64, now: Timestamp) -> Lag {
        let events = self.kept.pending + end.saturating_sub(self.read.load(Ordering::Relaxed));
        let time = self.oldest.filter(|_| events > 0).map_or(Duration::ZERO, |oldest| now.since(oldest));
        Lag { events, time }
    }
}

/// One endpoint's row.
pub(super) struct Row(Mutex<Figures>);

impl Row {
    pub(super) fn new(figures: Figures) -> Self {
        Self(Mutex::new(figures))
    }

    pub(super) fn get(&self) -> Figures {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(super) fn set(&self, change: impl FnOnce(&mut Figures)) {
        change(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner));
    }
}

/// All rows, by the endpoint's id.
pub(super) struct Board {
    metrics: Arc<Metrics>,
    rows: Mutex<HashMap<String, Arc<Row>>>,
}

impl Board {
    pub(super) fn new(metrics: Arc<Metrics>) -> Self {
        Self { metrics, rows: Mutex::default() }
    }

    /// Begins a row, in the place of the one there may be.
    pub(super) fn put(&self, id: &str, figures: Figures) -> Arc<Row> {
        let row = Arc::new(Row::new(figures));
        for result in RESULTS {
            self.metrics.webhook_deliveries.with_label_values(&[id, result]);
        }
        self.rows.lock().unwrap_or_else(PoisonError::into_inner).insert(id.to_owned(), row.clone());
        row
    }

    pub(super) fn get(&self, id: &str) -> Option<Arc<Row>> {
        self.rows.lock().unwrap_or_else(PoisonError::into_inner).get(id).cloned()
    }

    /// All ids.
    pub(super) fn ids(&self) -> Vec<String> {
        self.rows.lock().unwrap_or_else(PoisonError::into_inner).keys().cloned().collect()
    }

    /// The ids of those, of what no task here delivers to, whose figures are such.
    pub(super) fn untended(&self, such: impl Fn(&Figures) -> bool) -> Vec<String> {
        let rows = self.rows.lock().unwrap_or_else(PoisonError::into_inner);
        let is_such = |row: &Row| Some(row.get()).filter(Figures::is_untended).is_some_and(|figures| such(&figures));
        rows.iter().filter(|(_, row)| is_such(row)).map(|(id, _)| id.clone()).collect()
    }

    /// Takes a row away, and whatever the metrics tell of it. Its task has ended.
    pub(super) fn remove(&self, id: &str) {
        let mut rows = self.rows.lock().unwrap_or_else(PoisonError::into_inner);
        rows.remove(id);
        let metrics = &self.metrics;
        // What was never told need not be taken back.
        for result in RESULTS {
            let _ = metrics.webhook_deliveries.remove_label_values(&[id, result]);
        }
        for state in State::WORDS {
            let _ = metrics.webhook_state.remove_label_values(&[id, state]);
        }
        for gauge in [
            &metrics.webhook_lag_events,
            &metrics.webhook_lag_seconds,
            &metrics.webhook_pending,
            &metrics.webhook_dead_letters,
        ] {
            let _ = gauge.remove_label_values(&[id]);
        }
    }

    /// Brings the gauges up to date with a log that ends at `end`.
    pub(super) fn measure(&self, end: u64, now: Timestamp) {
        let whole = |number: u64| i64::try_from(number).unwrap_or(i64::MAX);
        // Held all the while, so that nothing is told of one that is being removed.
        let rows = self.rows.lock().unwrap_or_else(PoisonError::into_inner);
        for (id, row) in rows.iter() {
            let (figures, metrics, id) = (row.get(), &self.metrics, id.as_str());
            let lag = figures.lag(end, now);
            for state in State::WORDS {
                metrics.webhook_state.with_label_values(&[id, state]).set((state == figures.state.as_str()).into());
            }
            metrics.webhook_lag_events.with_label_values(&[id]).set(whole(lag.events));
            metrics.webhook_lag_seconds.with_label_values(&[id]).set(whole(lag.time.as_secs()));
            metrics.webhook_pending.with_label_values(&[id]).set(whole(figures.kept.pending));
            metrics.webhook_dead_letters.with_label_values(&[id]).set(whole(figures.kept.dead));
        }
    }
}
