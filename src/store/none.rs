//! A store that remembers nothing and always fails: the world without a store, for tests of everything above it.

use async_trait::async_trait;

use super::{Applied, Claim, DeviceRecord, Held, Size, Store, StoreError, Taken, Touch, Write};
use crate::clock::Timestamp;
use crate::jid::{Device, Key, Subject};

/// The store that is never there.
#[derive(Clone, Copy, Debug, Default)]
pub struct Nothing;

fn gone<T>() -> Result<T, StoreError> {
    Err(StoreError::Unavailable("there is no store".to_owned()))
}

#[async_trait]
impl Store for Nothing {
    async fn find(&self, _: &Key) -> Result<Held, StoreError> {
        gone()
    }

    async fn claim(&self, _: &Key) -> Result<Claim, StoreError> {
        gone()
    }

    async fn apply(&self, _: Write) -> Result<Applied, StoreError> {
        gone()
    }

    async fn take_due(&self, _: Timestamp, _: Timestamp, _: usize) -> Result<Taken, StoreError> {
        gone()
    }

    async fn reschedule(&self, _: Vec<(Key, Option<Timestamp>)>) -> Result<(), StoreError> {
        gone()
    }

    async fn touch(&self, _: Vec<Touch>) -> Result<(), StoreError> {
        gone()
    }

    async fn forget_idle(&self, _: Timestamp, _: usize) -> Result<Vec<Subject>, StoreError> {
        gone()
    }

    async fn device(&self, _: &Device) -> Result<Option<DeviceRecord>, StoreError> {
        gone()
    }

    async fn put_device(&self, _: &Device, _: DeviceRecord) -> Result<(), StoreError> {
        gone()
    }

    async fn size(&self, _: Timestamp) -> Result<Size, StoreError> {
        gone()
    }

    async fn check(&self) -> Result<(), StoreError> {
        gone()
    }

    async fn close(&self) {}
}
