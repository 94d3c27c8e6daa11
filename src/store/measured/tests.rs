use std::sync::atomic::AtomicUsize;

use super::*;
use crate::outcome::Token;
use crate::recheck::{Lessons, Outlook};
use crate::store::none::Nothing;
use crate::store::{
    Agenda, Candidate, Delivery, Due, Endpoint, Endpoints, Kept, Known, Outlay, Progress, Put, Schedule, Touch,
};

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
impl Schedule for Disk {
    async fn agenda(&self) -> Result<Vec<Agenda>, StoreError> {
        Ok(vec![])
    }

    async fn take_due(&self, of: &Device, a: Timestamp, b: Timestamp, n: usize) -> Result<Vec<Due>, StoreError> {
        Nothing.take_due(of, a, b, n).await
    }

    async fn take_rechecks(
        &self,
        of: &Device,
        a: Timestamp,
        b: Timestamp,
        n: usize,
    ) -> Result<Vec<Candidate>, StoreError> {
        Nothing.take_rechecks(of, a, b, n).await
    }

    async fn outlay(&self, of: &Device, counts: &[usize]) -> Result<Outlay, StoreError> {
        Nothing.outlay(of, counts).await
    }

    async fn reschedule(&self, _: Vec<(Key, Option<Timestamp>)>) -> Result<(), StoreError> {
        self.write().await
    }

    async fn defer(&self, subjects: Vec<(Subject, Option<Timestamp>)>) -> Result<(), StoreError> {
        Nothing.defer(subjects).await
    }

    async fn advance(&self, who: &Subject, expected: Token, outlook: Outlook, at: Timestamp) -> Result<(), StoreError> {
        Nothing.advance(who, expected, outlook, at).await
    }

    async fn touch(&self, _: Vec<Touch>) -> Result<(), StoreError> {
        self.write().await
    }

    async fn lessons(&self) -> Result<Option<Lessons>, StoreError> {
        Nothing.lessons().await
    }

    async fn put_lessons(&self, lessons: &Lessons) -> Result<(), StoreError> {
        Nothing.put_lessons(lessons).await
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

    async fn forget_idle(&self, _: Timestamp, _: usize) -> Result<Vec<Subject>, StoreError> {
        Ok(vec![])
    }

    async fn forget(&self, _: &Jid, _: Option<&Device>, _: Timestamp) -> Result<bool, StoreError> {
        self.write().await.map(|()| false)
    }

    async fn watch(&self, watch: Watch, due: Timestamp, limit: u64) -> Result<Watched, StoreError> {
        Nothing.watch(watch, due, limit).await
    }

    async fn unwatch(&self, _: &Jid, _: Option<&Device>) -> Result<bool, StoreError> {
        Ok(false)
    }

    async fn watches(&self, _: Option<&Device>, _: Option<&Subject>, _: usize) -> Result<Vec<Watch>, StoreError> {
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

#[async_trait]
impl Log for Disk {
    async fn read_log(&self, after: u64, limit: usize) -> Result<Page, StoreError> {
        Nothing.read_log(after, limit).await
    }

    async fn history(&self, jid: &Jid, device: Option<&Device>, before: u64, limit: usize) -> Result<Page, StoreError> {
        Nothing.history(jid, device, before, limit).await
    }

    async fn trim_log(&self, before: Timestamp, limit: usize) -> Result<usize, StoreError> {
        Nothing.trim_log(before, limit).await
    }

    fn tip(&self) -> watch::Receiver<u64> {
        Nothing.tip()
    }
}

#[async_trait]
impl Endpoints for Disk {
    async fn endpoints(&self) -> Result<Vec<Known>, StoreError> {
        Ok(vec![])
    }

    async fn put_endpoint(
        &self,
        endpoint: Endpoint,
        new: crate::store::Standing,
        limit: u64,
    ) -> Result<Put, StoreError> {
        Nothing.put_endpoint(endpoint, new, limit).await
    }

    async fn drop_endpoint(&self, _: &str) -> Result<bool, StoreError> {
        self.write().await.map(|()| false)
    }

    async fn deliveries(&self, _: &str, _: bool, _: u64, _: usize) -> Result<Vec<Delivery>, StoreError> {
        Ok(vec![])
    }

    async fn progress(&self, _: Progress) -> Result<(), StoreError> {
        self.write().await
    }

    async fn revive(&self, _: &str, _: u64, _: Timestamp) -> Result<u64, StoreError> {
        self.write().await.map(|()| 0)
    }

    async fn kept(&self, _: &str) -> Result<Kept, StoreError> {
        Ok(Kept::default())
    }

    async fn trim_dead(&self, _: Timestamp, _: usize) -> Result<Vec<String>, StoreError> {
        self.write().await.map(|()| vec![])
    }
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
        assert!(measured.size(now).await.is_ok() && measured.agenda().await.is_ok());
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

#[test]
fn the_failures_of_every_operation_are_counted_from_zero() {
    let sources = [
        include_str!("../measured.rs"),
        include_str!("endpoints.rs"),
        include_str!("schedule.rs"),
        include_str!("shared.rs"),
    ];
    let measured = sources.iter().flat_map(|source| source.split("measure(\"").skip(1));
    let mut names: Vec<_> = measured.filter_map(|rest| rest.split('"').next()).chain(["check"]).collect();
    names.sort_unstable();
    names.dedup();
    let mut operations = OPERATIONS;
    operations.sort_unstable();
    assert_eq!(names, operations);
}
