//! Who was asked for lately: remembered in memory at each request, written to the store now and then, in one batch.
//!
//! A request is worth a write only if the last one remembered is a *grain* ago; a `kill -9` loses at most a grain and a flush.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use crate::jid::Key;
use crate::store::Touch;

/// The coarsest grain.
const GRAIN_MAX: Duration = Duration::from_secs(60);

/// The most keys remembered between two flushes; what is beyond is remembered at its next request after its grain.
const KEYS_MAX: usize = 100_000;

pub(super) struct Touches {
    grain: Duration,
    keys: Mutex<HashMap<Key, Touch>>,
}

impl Touches {
    /// For entries that stay warm for `warm_for`: the grain is a small part of it.
    pub(super) fn new(warm_for: Duration) -> Self {
        Self { grain: (warm_for / 8).min(GRAIN_MAX), keys: Mutex::default() }
    }

    pub(super) fn grain(&self) -> Duration {
        self.grain
    }

    pub(super) fn add(&self, touch: Touch) {
        let mut keys = self.keys.lock().unwrap_or_else(PoisonError::into_inner);
        if keys.len() < KEYS_MAX || keys.contains_key(&touch.key) {
            keys.insert(touch.key.clone(), touch);
        }
    }

    pub(super) fn take(&self) -> Vec<Touch> {
        std::mem::take(&mut *self.keys.lock().unwrap_or_else(PoisonError::into_inner)).into_values().collect()
    }
}
