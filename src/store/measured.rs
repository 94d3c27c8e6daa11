//! Measures a store: every call's time and failures, for every engine alike, and whether it works.
//!
//! The rules kept here:
//! * A store that hangs is a store that failed: each call has a deadline, and after one that passed, calls fail at once until the
//!   store works again, so that a hanging disk costs a client seconds once and not each time, and nothing piles up before it.
//! * A store fails from the first call that does, and works again when its [`Store::check`] succeeds, not before: on a full disk
//!   every read succeeds, and so does a write that changes nothing. While it fails it is checked every second, whether
//!   anybody asks for anything or not.
//! * One line in the log when it begins to fail and one when it works again, however many calls fail in between.

use std::future::Future;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use tokio::sync::Notify;

use super::{Applied, Claim, DeviceRecord, Held, Size, Store, StoreError, Taken, Touch, Write};
use crate::clock::Timestamp;
use crate::jid::{Device, Key, Subject};
use crate::metrics::Metrics;

/// No call takes longer.
const DEADLINE: Duration = Duration::from_secs(5);

/// How often a store that fails is checked.
const CHECK_PACE: Duration = Duration::from_secs(1);

const OPERATIONS: [&str; 11] = [
    "find",
    "claim",
    "apply",
    "take_due",
    "reschedule",
    "touch",
    "forget_idle",
    "device",
    "put_device",
    "size",
    "check",
];

/// A store with its measure.
pub struct Measured {
    store: Arc<dyn Store>,
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
    pub fn new(store: Arc<dyn Store>, metrics: Arc<Metrics>) -> Self {
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
        let (result, late) = match tokio::time::timeout(self.deadline, call).await {
            Ok(result) => (result, false),
            Err(_) => (Err(StoreError::Unavailable(format!("no answer within {:?}", self.deadline))), true),
        };
        self.metrics.store_seconds.with_label_values(&[operation]).observe(began.elapsed().as_secs_f64());
        if let Err(error) = &result {
            self.metrics.store_errors.with_label_values(&[operation]).inc();
            if let StoreError::Unavailable(reason) = error {
                self.fails(operation, reason, began, late);
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

    async fn take_due(&self, now: Timestamp, lease: Timestamp, limit: usize) -> Result<Taken, StoreError> {
        self.measure("take_due", self.store.take_due(now, lease, limit)).await
    }

    async fn reschedule(&self, keys: Vec<(Key, Option<Timestamp>)>) -> Result<(), StoreError> {
        self.measure("reschedule", self.store.reschedule(keys)).await
    }

    async fn touch(&self, touches: Vec<Touch>) -> Result<(), StoreError> {
        self.measure("touch", self.store.touch(touches)).await
    }

    async fn forget_idle(&self, before: Timestamp, limit: usize) -> Result<Vec<Subject>, StoreError> {
        self.measure("forget_idle", self.store.forget_idle(before, limit)).await
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

    async fn close(&self) {
        self.store.close().await;
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicUsize;

    use super::*;
    use crate::store::none::Nothing;

    const DEADLINE: Duration = Duration::from_millis(300);

    const CHECK_PACE: Duration = Duration::from_millis(10);

    /// Reads succeed; writes do as they are told.
    #[derive(Default)]
    struct Disk {
        full: AtomicBool,
        hangs: AtomicBool,
        asked: AtomicUsize,
    }

    impl Disk {
        async fn write(&self) -> Result<(), StoreError> {
            self.asked.fetch_add(1, Ordering::SeqCst);
            if self.hangs.load(Ordering::SeqCst) {
                std::future::pending::<()>().await;
            }
            if self.full.load(Ordering::SeqCst) { Nothing.check().await } else { Ok(()) }
        }
    }

    #[async_trait]
    impl Store for Disk {
        async fn find(&self, _: &Key) -> Result<Held, StoreError> {
            Ok(Held::default())
        }

        async fn claim(&self, key: &Key) -> Result<Claim, StoreError> {
            Nothing.claim(key).await
        }

        async fn apply(&self, write: Write) -> Result<Applied, StoreError> {
            Nothing.apply(write).await
        }

        async fn take_due(&self, _: Timestamp, _: Timestamp, _: usize) -> Result<Taken, StoreError> {
            Ok(Taken::default())
        }

        async fn reschedule(&self, _: Vec<(Key, Option<Timestamp>)>) -> Result<(), StoreError> {
            self.write().await
        }

        async fn touch(&self, _: Vec<Touch>) -> Result<(), StoreError> {
            self.write().await
        }

        async fn forget_idle(&self, _: Timestamp, _: usize) -> Result<Vec<Subject>, StoreError> {
            Ok(vec![])
        }

        async fn device(&self, _: &Device) -> Result<Option<DeviceRecord>, StoreError> {
            Ok(None)
        }

        async fn put_device(&self, _: &Device, _: DeviceRecord) -> Result<(), StoreError> {
            self.write().await
        }

        async fn size(&self, _: Timestamp) -> Result<Size, StoreError> {
            Ok(Size::default())
        }

        async fn check(&self) -> Result<(), StoreError> {
            self.write().await
        }

        async fn close(&self) {}
    }

    fn measured() -> (Arc<Disk>, Arc<Measured>) {
        let disk = Arc::new(Disk::default());
        let measured = Measured::new(disk.clone(), Arc::new(Metrics::new()));
        let measured = Arc::new(Measured { deadline: DEADLINE, check_pace: CHECK_PACE, ..measured });
        tokio::spawn({
            let measured = measured.clone();
            async move { measured.heal().await }
        });
        (disk, measured)
    }

    fn is_up(measured: &Measured) -> bool {
        measured.metrics.store_up.get() == 1
    }

    async fn works_again(measured: &Measured) {
        let healed = async {
            while !is_up(measured) {
                tokio::time::sleep(CHECK_PACE).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(10), healed).await.expect("it works again");
    }

    #[tokio::test]
    async fn what_reads_well_and_writes_nothing_does_not_make_a_full_disk_look_well() {
        let (disk, measured) = measured();
        disk.full.store(true, Ordering::SeqCst);
        assert!(is_up(&measured) && measured.touch(vec![]).await.is_err() && !is_up(&measured));
        let now = Timestamp::from_seconds(1_700_000_000);
        for _ in 0..20 {
            assert!(measured.size(now).await.is_ok() && measured.take_due(now, now, 1).await.is_ok());
            assert!(!is_up(&measured));
            tokio::time::sleep(CHECK_PACE / 2).await;
        }
        disk.full.store(false, Ordering::SeqCst);
        // Nobody asks for anything.
        works_again(&measured).await;
        let asked = disk.asked.load(Ordering::SeqCst);
        tokio::time::sleep(CHECK_PACE * 10).await;
        assert_eq!(disk.asked.load(Ordering::SeqCst), asked, "what works is not checked");
    }

    #[tokio::test]
    async fn a_disk_that_hangs_costs_seconds_once_and_is_left_alone_until_it_answers() {
        let (disk, measured) = measured();
        disk.hangs.store(true, Ordering::SeqCst);
        assert!(measured.touch(vec![]).await.is_err());
        for _ in 0..1000 {
            assert!(measured.touch(vec![]).await.is_err());
        }
        // The first call and, if that took a while, a check or two.
        assert!(disk.asked.load(Ordering::SeqCst) < 10, "nothing piles up before it");
        disk.hangs.store(false, Ordering::SeqCst);
        works_again(&measured).await;
        assert!(measured.touch(vec![]).await.is_ok());
    }

    #[tokio::test]
    async fn a_call_from_before_it_worked_again_is_news_of_the_past() {
        let (_, measured) = measured();
        let began = Instant::now();
        measured.fails("find", "gone", began, false);
        assert!(!is_up(&measured));
        measured.works();
        measured.fails("find", "gone", began, true);
        assert!(is_up(&measured) && measured.touch(vec![]).await.is_ok());
    }
}
