//! A store that remembers nothing and always fails: the world without a store, for tests of everything above it.

use async_trait::async_trait;

use tokio::sync::watch;

use super::{
    Agenda, Applied, Candidate, Claim, Delivery, DeviceRecord, Due, Endpoint, Endpoints, Held, Kept, Known, Log,
    Outlay, Page, Progress, Put, Schedule, Size, Standing, Store, StoreError, Touch, Watch, Watched, Write,
};
use crate::clock::Timestamp;
use crate::jid::{Device, Jid, Key, Subject};
use crate::outcome::Token;
use crate::recheck::{Lessons, Outlook};

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

    async fn forget_idle(&self, _: Timestamp, _: usize) -> Result<Vec<Subject>, StoreError> {
        gone()
    }

    async fn forget(&self, _: &Jid, _: Option<&Device>, _: Timestamp) -> Result<bool, StoreError> {
        gone()
    }

    async fn watch(&self, _: Watch, _: Timestamp, _: u64) -> Result<Watched, StoreError> {
        gone()
    }

    async fn unwatch(&self, _: &Jid, _: Option<&Device>) -> Result<bool, StoreError> {
        gone()
    }

    async fn watches(&self, _: Option<&Device>, _: Option<&Subject>, _: usize) -> Result<Vec<Watch>, StoreError> {
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

#[async_trait]
impl Schedule for Nothing {
    async fn agenda(&self) -> Result<Vec<Agenda>, StoreError> {
        gone()
    }

    async fn take_due(&self, _: &Device, _: Timestamp, _: Timestamp, _: usize) -> Result<Vec<Due>, StoreError> {
        gone()
    }

    async fn take_rechecks(
        &self,
        _: &Device,
        _: Timestamp,
        _: Timestamp,
        _: usize,
    ) -> Result<Vec<Candidate>, StoreError> {
        gone()
    }

    async fn outlay(&self, _: &Device, _: &[usize]) -> Result<Outlay, StoreError> {
        gone()
    }

    async fn reschedule(&self, _: Vec<(Key, Option<Timestamp>)>) -> Result<(), StoreError> {
        gone()
    }

    async fn defer(&self, _: Vec<(Subject, Option<Timestamp>)>) -> Result<(), StoreError> {
        gone()
    }

    async fn advance(&self, _: &Subject, _: Token, _: Outlook, _: Timestamp) -> Result<(), StoreError> {
        gone()
    }

    async fn touch(&self, _: Vec<Touch>) -> Result<(), StoreError> {
        gone()
    }

    async fn lessons(&self) -> Result<Option<Lessons>, StoreError> {
        gone()
    }

    async fn put_lessons(&self, _: &Lessons) -> Result<(), StoreError> {
        gone()
    }
}

#[async_trait]
impl Log for Nothing {
    async fn read_log(&self, _: u64, _: usize) -> Result<Page, StoreError> {
        gone()
    }

    async fn history(&self, _: &Jid, _: Option<&Device>, _: u64, _: usize) -> Result<Page, StoreError> {
        gone()
    }

    async fn trim_log(&self, _: Timestamp, _: usize) -> Result<usize, StoreError> {
        gone()
    }

    fn tip(&self) -> watch::Receiver<u64> {
        watch::channel(0).1
    }
}

#[async_trait]
impl Endpoints for Nothing {
    async fn endpoints(&self) -> Result<Vec<Known>, StoreError> {
        gone()
    }

    async fn put_endpoint(&self, _: Endpoint, _: Standing, _: u64) -> Result<Put, StoreError> {
        gone()
    }

    async fn drop_endpoint(&self, _: &str) -> Result<bool, StoreError> {
        gone()
    }

    async fn deliveries(&self, _: &str, _: bool, _: u64, _: usize) -> Result<Vec<Delivery>, StoreError> {
        gone()
    }

    async fn kept(&self, _: &str) -> Result<Kept, StoreError> {
        gone()
    }

    async fn progress(&self, _: Progress) -> Result<(), StoreError> {
        gone()
    }

    async fn revive(&self, _: &str, _: u64, _: Timestamp) -> Result<u64, StoreError> {
        gone()
    }

    async fn trim_dead(&self, _: Timestamp, _: usize) -> Result<Vec<String>, StoreError> {
        gone()
    }
}
