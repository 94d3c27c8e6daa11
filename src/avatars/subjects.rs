//! What may be wished of a person or group as a whole: to be watched, to be forgotten.

use std::sync::atomic::Ordering;

use super::Avatars;
use crate::jid::{Device, Jid, Key, Subject, Variant};
use crate::store::{StoreError, Watch, Watched};

impl Avatars {
    /// Looks at somebody no more unless somebody asks, as one device or (`None`) as all. True if anybody was watched.
    ///
    /// # Errors
    /// When the store fails: then nothing has changed.
    pub async fn unwatch(&self, jid: &Jid, device: Option<&Device>) -> Result<bool, StoreError> {
        self.0.store.unwatch(jid, device).await
    }

    /// Who is watched, by device and jid: up to `limit` of those behind `after`.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn watches(
        &self,
        device: Option<&Device>,
        after: Option<&Subject>,
        limit: usize,
    ) -> Result<Vec<Watch>, StoreError> {
        self.0.store.watches(device, after, limit).await
    }

    /// Drops every answer about a subject that the store has dropped because nobody asked for it.
    pub fn drop_idle(&self, subject: &Subject) {
        self.0.memory.forget_others(subject, None);
    }

    /// Forgets everything that is held about a person or group, as one device sees them or (`None`) all do. When this returns
    /// nothing of it is served or stored any more, looks that were under way included. True if anything was stored.
    ///
    /// # Errors
    /// When the store fails: then nothing is forgotten.
    pub async fn forget(&self, jid: &Jid, device: Option<&Device>) -> Result<bool, StoreError> {
        let inner = &self.0;
        let held = inner.store.forget(jid, device, inner.clock.now()).await?;
        if let Some(device) = device {
            // In this order: a flight that ends after the second step sees the first, and takes back what it has brought.
            inner.forgets.fetch_add(1, Ordering::SeqCst);
            let subject = Subject { device: device.clone(), jid: *jid };
            inner.memory.forget_others(&subject, None);
            for variant in (0..4).map(Variant::from_bits) {
                inner.endings.succeeded(&Key { subject: subject.clone(), variant });
            }
        } else {
            // Who knows under which devices answers are held that the store never saw.
            inner.forget_all();
        }
        Ok(held)
    }

    /// Looks at somebody at least this often from now on, though nobody asks, as far as the budget goes.
    ///
    /// # Errors
    /// When the store fails: then nothing has changed.
    pub async fn watch(&self, watch: Watch, limit: u64) -> Result<Watched, StoreError> {
        let key = Key { subject: watch.subject.clone(), variant: Variant::default() };
        let now = self.0.clock.now();
        let held = self.0.store.find(&key).await?;
        let recheck_at = held.outlook.map_or(now, |outlook| (outlook.looked_at + watch.interval).max(now));
        self.0.store.watch(watch, recheck_at, limit).await
    }
}
