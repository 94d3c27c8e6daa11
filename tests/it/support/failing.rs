//! A store that can be made to fail, in front of one that works.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use async_trait::async_trait;
use avatar_proxy::clock::Timestamp;
use avatar_proxy::jid::{Device, Jid, Key, Subject};
use avatar_proxy::outcome::Token;
use avatar_proxy::recheck::{Lessons, Outlook};
use avatar_proxy::store::none::Nothing;
use avatar_proxy::store::{
    Agenda, Applied, Candidate, Claim, Delivery, DeviceRecord, Due, Endpoint, Endpoints, Engine, Held, Kept, Known,
    Log, Outlay, Page, Progress, Put, Schedule, Size, Standing, Store, StoreError, Touch, Watch, Watched, Write,
};
use tokio::sync::watch;

pub(crate) struct Failing {
    works: Arc<dyn Engine>,
    fails: AtomicBool,
}

impl Failing {
    pub(crate) fn new(works: Arc<dyn Engine>) -> Arc<Self> {
        Arc::new(Self { works, fails: AtomicBool::new(false) })
    }

    pub(crate) fn fail(&self, fails: bool) {
        self.fails.store(fails, Ordering::SeqCst);
    }

    fn now(&self) -> &dyn Engine {
        if self.fails.load(Ordering::SeqCst) { &Nothing } else { &*self.works }
    }

    /// Everything whose deadline is before `now`, whoever has it under lease.
    pub(crate) async fn due(&self, now: Timestamp) -> Vec<Due> {
        let mut due = vec![];
        for Agenda { device, .. } in self.works.agenda().await.expect("it works") {
            due.extend(self.works.take_due(&device, now, now, 1000).await.expect("it works"));
        }
        due
    }
}

#[async_trait]
impl Schedule for Failing {
    async fn agenda(&self) -> Result<Vec<Agenda>, StoreError> {
        self.now().agenda().await
    }

    async fn take_due(
        &self,
        device: &Device,
        until: Timestamp,
        lease: Timestamp,
        limit: usize,
    ) -> Result<Vec<Due>, StoreError> {
        self.now().take_due(device, until, lease, limit).await
    }

    async fn take_rechecks(
        &self,
        device: &Device,
        now: Timestamp,
        lease: Timestamp,
        limit: usize,
    ) -> Result<Vec<Candidate>, StoreError> {
        self.now().take_rechecks(device, now, lease, limit).await
    }

    async fn outlay(&self, device: &Device, counts: &[usize]) -> Result<Outlay, StoreError> {
        self.now().outlay(device, counts).await
    }

    async fn reschedule(&self, keys: Vec<(Key, Option<Timestamp>)>) -> Result<(), StoreError> {
        self.now().reschedule(keys).await
    }

    async fn defer(&self, subjects: Vec<(Subject, Option<Timestamp>)>) -> Result<(), StoreError> {
        self.now().defer(subjects).await
    }

    async fn advance(
        &self,
        subject: &Subject,
        expected: Token,
        outlook: Outlook,
        recheck_at: Timestamp,
    ) -> Result<(), StoreError> {
        self.now().advance(subject, expected, outlook, recheck_at).await
    }

    async fn touch(&self, touches: Vec<Touch>) -> Result<(), StoreError> {
        self.now().touch(touches).await
    }

    async fn lessons(&self) -> Result<Option<Lessons>, StoreError> {
        self.now().lessons().await
    }

    async fn put_lessons(&self, lessons: &Lessons) -> Result<(), StoreError> {
        self.now().put_lessons(lessons).await
    }
}

#[async_trait]
impl Store for Failing {
    async fn find(&self, key: &Key) -> Result<Held, StoreError> {
        self.now().find(key).await
    }

    async fn claim(&self, key: &Key) -> Result<Claim, StoreError> {
        self.now().claim(key).await
    }

    async fn apply(&self, write: Write) -> Result<Applied, StoreError> {
        self.now().apply(write).await
    }

    async fn forget_idle(&self, before: Timestamp, limit: usize) -> Result<Vec<Subject>, StoreError> {
        self.now().forget_idle(before, limit).await
    }

    async fn forget(&self, jid: &Jid, device: Option<&Device>, at: Timestamp) -> Result<bool, StoreError> {
        self.now().forget(jid, device, at).await
    }

    async fn watch(&self, watch: Watch, due: Timestamp, limit: u64) -> Result<Watched, StoreError> {
        self.now().watch(watch, due, limit).await
    }

    async fn unwatch(&self, jid: &Jid, device: Option<&Device>) -> Result<bool, StoreError> {
        self.now().unwatch(jid, device).await
    }

    async fn watches(
        &self,
        device: Option<&Device>,
        after: Option<&Subject>,
        limit: usize,
    ) -> Result<Vec<Watch>, StoreError> {
        self.now().watches(device, after, limit).await
    }

    async fn device(&self, device: &Device) -> Result<Option<DeviceRecord>, StoreError> {
        self.now().device(device).await
    }

    async fn put_device(&self, device: &Device, record: DeviceRecord) -> Result<(), StoreError> {
        self.now().put_device(device, record).await
    }

    async fn size(&self, now: Timestamp) -> Result<Size, StoreError> {
        self.now().size(now).await
    }

    async fn check(&self) -> Result<(), StoreError> {
        self.now().check().await
    }

    async fn close(&self) {
        self.works.close().await;
    }
}

#[async_trait]
impl Log for Failing {
    async fn read_log(&self, after: u64, limit: usize) -> Result<Page, StoreError> {
        self.now().read_log(after, limit).await
    }

    async fn history(&self, jid: &Jid, device: Option<&Device>, before: u64, limit: usize) -> Result<Page, StoreError> {
        self.now().history(jid, device, before, limit).await
    }

    async fn trim_log(&self, before: Timestamp, limit: usize) -> Result<usize, StoreError> {
        self.now().trim_log(before, limit).await
    }

    fn tip(&self) -> watch::Receiver<u64> {
        self.works.tip()
    }
}

#[async_trait]
impl Endpoints for Failing {
    async fn endpoints(&self) -> Result<Vec<Known>, StoreError> {
        self.now().endpoints().await
    }

    async fn put_endpoint(&self, endpoint: Endpoint, new: Standing, limit: u64) -> Result<Put, StoreError> {
        self.now().put_endpoint(endpoint, new, limit).await
    }

    async fn drop_endpoint(&self, id: &str) -> Result<bool, StoreError> {
        self.now().drop_endpoint(id).await
    }

    async fn deliveries(&self, id: &str, dead: bool, after: u64, limit: usize) -> Result<Vec<Delivery>, StoreError> {
        self.now().deliveries(id, dead, after, limit).await
    }

    async fn progress(&self, progress: Progress) -> Result<(), StoreError> {
        self.now().progress(progress).await
    }

    async fn revive(&self, id: &str, after: u64, due: Timestamp) -> Result<u64, StoreError> {
        self.now().revive(id, after, due).await
    }

    async fn kept(&self, id: &str) -> Result<Kept, StoreError> {
        self.now().kept(id).await
    }

    async fn trim_dead(&self, before: Timestamp, limit: usize) -> Result<Vec<String>, StoreError> {
        self.now().trim_dead(before, limit).await
    }
}
