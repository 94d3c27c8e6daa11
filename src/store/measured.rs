//! Measures a store: every call's time and failures, for every engine alike, and whether it answers.
//!
//! It also gives each call a deadline: a store that hangs is a store that failed, and failure of a part is not failure of the
//! whole.

use std::future::Future;
use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;

use super::{Applied, Claim, DeviceRecord, Held, Size, Store, StoreError, Taken, Touch, Write};
use crate::clock::Timestamp;
use crate::jid::{Device, Key, Subject};
use crate::metrics::Metrics;

/// No call takes longer.
const DEADLINE: Duration = Duration::from_secs(5);

const OPERATIONS: [&str; 10] =
    ["find", "claim", "apply", "take_due", "reschedule", "touch", "forget_idle", "device", "put_device", "size"];

/// A store with its measure.
pub struct Measured {
    store: Arc<dyn Store>,
    metrics: Arc<Metrics>,
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
        Self { store, metrics }
    }

    async fn measure<T>(
        &self,
        operation: &'static str,
        call: impl Future<Output = Result<T, StoreError>> + Send,
    ) -> Result<T, StoreError> {
        let began = Instant::now();
        let result = tokio::time::timeout(DEADLINE, call)
            .await
            .unwrap_or_else(|_| Err(StoreError::Unavailable(format!("no answer within {} s", DEADLINE.as_secs()))));
        self.metrics.store_seconds.with_label_values(&[operation]).observe(began.elapsed().as_secs_f64());
        match &result {
            Ok(_) => self.note(true),
            Err(error) => {
                self.metrics.store_errors.with_label_values(&[operation]).inc();
                if matches!(error, StoreError::Unavailable(_)) {
                    self.note(false);
                }
            }
        }
        result
    }

    /// Logs once when it fails and once when it is back, not at every call.
    fn note(&self, up: bool) {
        let was = self.metrics.store_up.get() == 1;
        if was != up {
            self.metrics.store_up.set(i64::from(up));
            if up {
                tracing::info!("the store answers again");
            } else {
                tracing::error!("the store fails: lookups go on from memory, and nothing new is recorded");
            }
        }
    }
}

#[async_trait]
impl Store for Measured {
    async fn find(&self, key: &Key) -> Result<Held, StoreError> {
        self.measure("find", self.store.find(key)).await
    }

    async fn claim(&self, key: &Key) -> Result<Claim, StoreError> {
        self.measure("claim", self.store.claim(key)).await
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

    async fn close(&self) {
        self.store.close().await;
    }
}
