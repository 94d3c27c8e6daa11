//! Measures a store: every call's time and failures, for every engine alike, and whether it works.
//!
//! The rules kept here:
//! * A store that hangs is a store that failed: each call has a deadline, and after one that failed late, by this deadline or by the
//!   engine's own, calls fail at once until the store works again, so that a hanging disk or server costs a client seconds once and
//!   not each time, and nothing piles up before it.
//! * A store fails from the first call that does, and works again when its [`Store::check`] succeeds, not before: on a full disk
//!   every read succeeds, and so does a write that changes nothing. While it fails it is checked every second, whether
//!   anybody asks for anything or not.
//! * One line in the log when it begins to fail and one when it works again, however many calls fail in between.

use std::future::Future;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use tokio::sync::{Notify, watch};

use super::{
    Applied, Claim, DeviceRecord, Engine, Held, Log, Page, Shared, Size, Store, StoreError, Watch, Watched, Write,
};
use crate::clock::Timestamp;
use crate::deadline::within;
use crate::jid::{Device, Jid, Key, Subject};
use crate::metrics::Metrics;

mod endpoints;
mod schedule;
mod shared;
#[cfg(test)]
mod tests;

/// No call takes longer.
const DEADLINE: Duration = Duration::from_secs(5);

/// What fails after this time was waited for in vain.
const LATE: Duration = Duration::from_secs(1);

/// How often a store that fails is checked.
const CHECK_PACE: Duration = Duration::from_secs(1);

const OPERATIONS: [&str; 39] = [
    "find",
    "claim",
    "ask",
    "land",
    "draw",
    "give_back",
    "reserve",
    "apply",
    "agenda",
    "take_due",
    "take_rechecks",
    "outlay",
    "reschedule",
    "defer",
    "advance",
    "touch",
    "lessons",
    "put_lessons",
    "forget_idle",
    "forget",
    "watch",
    "unwatch",
    "watches",
    "read_log",
    "history",
    "trim_log",
    "device",
    "put_device",
    "size",
    "check",
    "endpoints",
    "put_endpoint",
    "drop_endpoint",
    "deliveries",
    "progress",
    "lease",
    "kept",
    "revive",
    "trim_dead",
];

/// A store with its measure.
pub struct Measured {
    store: Arc<dyn Engine>,
    metrics: Arc<Metrics>,
    standing: Mutex<Standing>,
    /// A call ran into its deadline, and no check has succeeded since.
    hangs: AtomicBool,
    /// It has begun to fail.
    failing: Notify,
    deadline: Duration,
    check_pace: Duration,
}

/// Whether it works.
#[derive(Clone, Copy)]
enum Standing {
    /// Since then: what began earlier and fails now is news of the past.
    Works(Instant),
    /// Since then.
    Fails(Instant),
}

impl Measured {
    /// Measures `store` into `metrics`.
    #[must_use]
    pub fn new(store: Arc<dyn Engine>, metrics: Arc<Metrics>) -> Self {
        metrics.store_up.set(1);
        for operation in OPERATIONS {
            // There from the start, so that the first failure is seen as a rise from zero.
            metrics.store_errors.with_label_values(&[operation]);
        }
        let standing = Mutex::new(Standing::Works(Instant::now()));
        Self {
            store,
            metrics,
            standing,
            hangs: AtomicBool::new(false),
            failing: Notify::new(),
            deadline: DEADLINE,
            check_pace: CHECK_PACE,
        }
    }

    /// Checks the store whenever it fails, until it works again. Never ends by itself.
    pub async fn heal(&self) {
        loop {
            self.failing.notified().await;
            while self.metrics.store_up.get() == 0 {
                tokio::time::sleep(self.check_pace).await;
                // A failure is counted like any other.
                let _ = self.check().await;
            }
        }
    }

    async fn measure<T>(
        &self,
        operation: &'static str,
        call: impl Future<Output = Result<T, StoreError>> + Send,
    ) -> Result<T, StoreError> {
        if self.hangs.load(Ordering::Relaxed) {
            self.metrics.store_errors.with_label_values(&[operation]).inc();
            return Err(StoreError::Unavailable("it does not answer".to_owned()));
        }
        self.time(operation, call).await
    }

    async fn time<T>(
        &self,
        operation: &'static str,
        call: impl Future<Output = Result<T, StoreError>> + Send,
    ) -> Result<T, StoreError> {
        let began = Instant::now();
        let result = within(self.deadline, call)
            .await
            .unwrap_or_else(|_| Err(StoreError::Unavailable(format!("no answer within {:?}", self.deadline))));
        self.metrics.store_seconds.with_label_values(&[operation]).observe(began.elapsed().as_secs_f64());
        // Who was fenced off was answered, and rightly so; replicas that lag are no failure either.
        if let Err(error) = &result
            && !matches!(error, StoreError::Fenced | StoreError::Unconfirmed)
        {
            self.metrics.store_errors.with_label_values(&[operation]).inc();
            if let StoreError::Unavailable(reason) = error {
                self.fails(operation, reason, began, began.elapsed() >= LATE.min(self.deadline));
            }
        }
        result
    }

    fn fails(&self, operation: &str, reason: &str, began: Instant, late: bool) {
        let mut standing = self.standing.lock().unwrap_or_else(PoisonError::into_inner);
        match *standing {
            Standing::Works(since) if began < since => return,
            Standing::Works(_) => {
                *standing = Standing::Fails(Instant::now());
                self.metrics.store_up.set(0);
                tracing::error!(
                    operation,
                    reason,
                    "the store fails: lookups go on from memory and the gateway, and nothing new is recorded"
                );
                self.failing.notify_one();
            }
            Standing::Fails(_) => {}
        }
        self.hangs.fetch_or(late, Ordering::Relaxed);
    }

    /// Whether what was recorded last is announced to nobody.
    fn holds_back(&self, holds_back: bool) {
        if (self.metrics.log_unconfirmed.get() == 1) == holds_back {
            return;
        }
        self.metrics.log_unconfirmed.set(holds_back.into());
        if holds_back {
            tracing::warn!(
                "no replica of the store confirms what is recorded: changes are not announced until one does"
            );
        } else {
            tracing::info!("what is recorded is confirmed, and announced, again");
        }
    }

    fn damaged(&self, held: &Held) {
        if held.damaged {
            self.metrics.store_damaged.inc();
            tracing::warn!("a damaged record counts as absent until a look writes it anew");
        }
    }

    fn works(&self) {
        let mut standing = self.standing.lock().unwrap_or_else(PoisonError::into_inner);
        if let Standing::Fails(since) = *standing {
            *standing = Standing::Works(Instant::now());
            self.hangs.store(false, Ordering::Relaxed);
            self.metrics.store_up.set(1);
            tracing::info!(seconds = since.elapsed().as_secs(), "the store works again");
        }
    }
}

#[async_trait]
impl Store for Measured {
    async fn find(&self, key: &Key) -> Result<Held, StoreError> {
        let held = self.measure("find", self.store.find(key)).await?;
        self.damaged(&held);
        Ok(held)
    }

    async fn claim(&self, key: &Key) -> Result<Claim, StoreError> {
        let claim = self.measure("claim", self.store.claim(key)).await?;
        self.damaged(&claim.held);
        Ok(claim)
    }

    async fn apply(&self, write: Write) -> Result<Applied, StoreError> {
        self.measure("apply", self.store.apply(write)).await
    }

    async fn forget_idle(&self, before: Timestamp, limit: usize) -> Result<Vec<Subject>, StoreError> {
        self.measure("forget_idle", self.store.forget_idle(before, limit)).await
    }

    async fn forget(&self, jid: &Jid, device: Option<&Device>, at: Timestamp) -> Result<bool, StoreError> {
        self.measure("forget", self.store.forget(jid, device, at)).await
    }

    async fn watch(&self, watch: Watch, recheck_at: Timestamp, limit: u64) -> Result<Watched, StoreError> {
        self.measure("watch", self.store.watch(watch, recheck_at, limit)).await
    }

    async fn unwatch(&self, jid: &Jid, device: Option<&Device>) -> Result<bool, StoreError> {
        self.measure("unwatch", self.store.unwatch(jid, device)).await
    }

    async fn watches(
        &self,
        device: Option<&Device>,
        after: Option<&Subject>,
        limit: usize,
    ) -> Result<Vec<Watch>, StoreError> {
        self.measure("watches", self.store.watches(device, after, limit)).await
    }

    async fn device(&self, device: &Device) -> Result<Option<DeviceRecord>, StoreError> {
        self.measure("device", self.store.device(device)).await
    }

    async fn put_device(&self, device: &Device, record: DeviceRecord) -> Result<(), StoreError> {
        self.measure("put_device", self.store.put_device(device, record)).await
    }

    async fn size(&self, now: Timestamp) -> Result<Size, StoreError> {
        self.measure("size", self.store.size(now)).await
    }

    /// Also made while the store hangs: it is what tells that it hangs no more.
    async fn check(&self) -> Result<(), StoreError> {
        let checked = self.time("check", self.store.check()).await;
        if checked.is_ok() {
            self.works();
        }
        checked
    }

    fn shared(&self) -> Option<&dyn Shared> {
        self.store.shared().map(|_| self as &dyn Shared)
    }

    async fn close(&self) {
        self.store.close().await;
    }
}

#[async_trait]
impl Log for Measured {
    async fn read_log(&self, after: u64, limit: usize) -> Result<Page, StoreError> {
        let read = self.measure("read_log", self.store.read_log(after, limit)).await;
        match &read {
            Err(StoreError::Unconfirmed) => self.holds_back(true),
            // What is read up to the end tells that all of it is confirmed.
            Ok(page) if !page.records.is_empty() && page.records.len() < limit => self.holds_back(false),
            _ => {}
        }
        read
    }

    async fn history(&self, jid: &Jid, device: Option<&Device>, before: u64, limit: usize) -> Result<Page, StoreError> {
        self.measure("history", self.store.history(jid, device, before, limit)).await
    }

    async fn trim_log(&self, before: Timestamp, limit: usize) -> Result<usize, StoreError> {
        self.measure("trim_log", self.store.trim_log(before, limit)).await
    }

    fn is_shared(&self) -> bool {
        self.store.is_shared()
    }

    fn tip(&self) -> watch::Receiver<u64> {
        self.store.tip()
    }
}
