//! The schedule's calls, measured like all others.

use async_trait::async_trait;

use super::Measured;
use crate::clock::Timestamp;
use crate::jid::{Device, Key, Subject};
use crate::outcome::Token;
use crate::recheck::{Lessons, Outlook};
use crate::store::{Agenda, Candidate, Due, Outlay, Schedule, StoreError, Touch};

#[async_trait]
impl Schedule for Measured {
    async fn agenda(&self) -> Result<Vec<Agenda>, StoreError> {
        self.measure("agenda", self.store.agenda()).await
    }

    async fn take_due(
        &self,
        device: &Device,
        until: Timestamp,
        lease: Timestamp,
        limit: usize,
    ) -> Result<Vec<Due>, StoreError> {
        self.measure("take_due", self.store.take_due(device, until, lease, limit)).await
    }

    async fn take_rechecks(
        &self,
        device: &Device,
        now: Timestamp,
        lease: Timestamp,
        limit: usize,
    ) -> Result<Vec<Candidate>, StoreError> {
        self.measure("take_rechecks", self.store.take_rechecks(device, now, lease, limit)).await
    }

    async fn outlay(&self, device: &Device, counts: &[usize]) -> Result<Outlay, StoreError> {
        self.measure("outlay", self.store.outlay(device, counts)).await
    }

    async fn reschedule(&self, keys: Vec<(Key, Option<Timestamp>)>) -> Result<(), StoreError> {
        self.measure("reschedule", self.store.reschedule(keys)).await
    }

    async fn defer(&self, subjects: Vec<(Subject, Option<Timestamp>)>) -> Result<(), StoreError> {
        self.measure("defer", self.store.defer(subjects)).await
    }

    async fn advance(
        &self,
        subject: &Subject,
        expected: Token,
        outlook: Outlook,
        recheck_at: Timestamp,
    ) -> Result<(), StoreError> {
        self.measure("advance", self.store.advance(subject, expected, outlook, recheck_at)).await
    }

    async fn touch(&self, touches: Vec<Touch>) -> Result<(), StoreError> {
        self.measure("touch", self.store.touch(touches)).await
    }

    async fn lessons(&self) -> Result<Option<Lessons>, StoreError> {
        self.measure("lessons", self.store.lessons()).await
    }

    async fn put_lessons(&self, lessons: &Lessons) -> Result<(), StoreError> {
        self.measure("put_lessons", self.store.put_lessons(lessons)).await
    }
}
