//! The budget as the lookups see it: who waits, who is let through, what it remembers. On a manual clock, without sockets; the
//! runtime has one thread, so that letting everybody else run for a while means that everything has happened.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::task::JoinHandle;

use super::*;
use crate::outcome::{Class, Envelope, Negative, Picture, Reason};
use crate::store::{DeviceRecord, StoreError};

mod devices;
mod queue;
mod stress;

const LONG: Duration = Duration::from_secs(3600);

fn secs(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn device(name: &str) -> Device {
    Device::new(name).unwrap()
}

fn config() -> Config {
    Config { rate: 1.0, burst: 4, concurrency: 2, cool_down: secs(60), max_wait: secs(10) }
}

/// A device of which nothing is known but that it exists.
fn proven() -> DeviceRecord {
    DeviceRecord { proven: true, ..DeviceRecord::default() }
}

#[expect(clippy::unnecessary_wraps, reason = "the result of a lookup")]
fn present() -> Result<Outcome, Failure> {
    Ok(Outcome::Present(Picture::new("https://h/p?oe=7FFFFFFF", "1", "image")))
}

#[expect(clippy::unnecessary_wraps, reason = "the result of a lookup")]
fn unregistered() -> Result<Outcome, Failure> {
    let (code, message) = ("INVALID_JID".into(), "m".into());
    Ok(Outcome::Negative(Negative { reason: Reason::Unregistered, status: 400, code, message }))
}

fn failed(class: Class) -> Result<Outcome, Failure> {
    let reply = Envelope { status: 500, code: "C".into(), message: "m".into(), results: None };
    Err(Failure { class, retry: false, reply, detail: "d".into() })
}

/// Everybody who can do something does it.
async fn settle() {
    for _ in 0..64 {
        tokio::task::yield_now().await;
    }
}

/// A store of device records that can fail.
#[derive(Default)]
struct Records {
    records: Mutex<HashMap<Device, DeviceRecord>>,
    fails: AtomicBool,
}

impl Records {
    fn get(&self, name: &str) -> Option<DeviceRecord> {
        self.records.lock().unwrap().get(&device(name)).copied()
    }

    fn fail(&self, fails: bool) {
        self.fails.store(fails, Ordering::SeqCst);
    }
}

/// A budget at work.
struct Desk {
    budget: Budget,
    clock: Clock,
    records: Arc<Records>,
    metrics: Arc<Metrics>,
}

/// Somebody who asked.
struct Asking {
    place: Option<Place>,
    task: JoinHandle<Result<Permit, Refusal>>,
}

impl Desk {
    /// With these devices known to exist. Buckets are empty.
    fn with(config: Config, known: &[&str]) -> Self {
        let records = Arc::new(Records::default());
        records.records.lock().unwrap().extend(known.iter().map(|name| (device(name), proven())));
        Self::over(config, Clock::manual(Timestamp::from_seconds(1_700_000_000)), records)
    }

    fn new(known: &[&str]) -> Self {
        Self::with(config(), known)
    }

    fn over(config: Config, clock: Clock, records: Arc<Records>) -> Self {
        let metrics = Arc::new(Metrics::new());
        let budget = Budget::new(config, clock.clone(), records.clone(), metrics.clone());
        tokio::spawn({
            let budget = budget.clone();
            async move { budget.run().await }
        });
        Self { budget, clock, records, metrics }
    }

    /// A budget that begins anew with what is stored, as after a restart.
    fn restarted(&self) -> Self {
        Self::over(self.budget.config().clone(), self.clock.clone(), self.records.clone())
    }

    async fn pass(&self, by: Duration) {
        self.clock.advance(by);
        settle().await;
    }

    /// Makes the device's lane, and fills its bucket.
    async fn save_up(&self, name: &str) {
        drop(self.granted(name).await);
        self.pass(secs(60)).await;
    }

    async fn ask(&self, name: &str, priority: Priority, patience: Duration) -> Asking {
        let budget = self.budget.clone();
        let device = device(name);
        let place: Arc<Mutex<Option<Place>>> = Arc::default();
        let seen = place.clone();
        let task = tokio::spawn(async move {
            budget.admit(&device, priority, patience, |place| *seen.lock().unwrap() = Some(place)).await
        });
        settle().await;
        let place = place.lock().unwrap().clone();
        Asking { place, task }
    }

    async fn miss(&self, name: &str) -> Asking {
        self.ask(name, Priority::Miss, LONG).await
    }

    /// Somebody who was let through, after as long as it takes.
    async fn granted(&self, name: &str) -> Permit {
        let asking = self.miss(name).await;
        for _ in 0..100 {
            if asking.is_answered() {
                return asking.permit().await;
            }
            self.pass(secs(1)).await;
        }
        panic!("nobody is let through for {name}");
    }

    /// Looks something up, with this result.
    async fn look(&self, name: &str, result: Result<Outcome, Failure>) {
        let mut permit = self.granted(name).await;
        permit.start().unwrap();
        self.budget.report(&mut permit, &result).await;
        drop(permit);
        settle().await;
    }

    async fn refused(&self, name: &str) -> Refusal {
        self.ask(name, Priority::Miss, secs(10)).await.refusal().await
    }
}

impl Asking {
    fn is_answered(&self) -> bool {
        self.task.is_finished()
    }

    async fn answer(self) -> Result<Permit, Refusal> {
        assert!(self.task.is_finished(), "it still waits");
        self.task.await.unwrap()
    }

    async fn permit(self) -> Permit {
        self.answer().await.unwrap_or_else(|refusal| panic!("refused: {refusal:?}"))
    }

    async fn refusal(self) -> Refusal {
        match self.answer().await {
            Err(refusal) => refusal,
            Ok(_) => panic!("it was let through"),
        }
    }

    /// The client goes away.
    async fn leave(self) {
        self.task.abort();
        let _ = self.task.await;
        settle().await;
    }
}

/// The store: device records, and nothing of everything else.
mod records {
    use async_trait::async_trait;

    use super::*;
    use crate::jid::{Jid, Key, Subject};
    use crate::outcome::Token;
    use crate::recheck::{Lessons, Outlook};
    use crate::store::none::Nothing;
    use crate::store::{
        Agenda, Applied, Candidate, Claim, Due, Held, Outlay, Schedule, Size, Touch, Watch, Watched, Write,
    };

    #[async_trait]
    impl Schedule for Records {
        async fn agenda(&self) -> Result<Vec<Agenda>, StoreError> {
            Nothing.agenda().await
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

        async fn reschedule(&self, keys: Vec<(Key, Option<Timestamp>)>) -> Result<(), StoreError> {
            Nothing.reschedule(keys).await
        }

        async fn defer(&self, subjects: Vec<(Subject, Option<Timestamp>)>) -> Result<(), StoreError> {
            Nothing.defer(subjects).await
        }

        async fn advance(
            &self,
            who: &Subject,
            expected: Token,
            outlook: Outlook,
            at: Timestamp,
        ) -> Result<(), StoreError> {
            Nothing.advance(who, expected, outlook, at).await
        }

        async fn touch(&self, touches: Vec<Touch>) -> Result<(), StoreError> {
            Nothing.touch(touches).await
        }

        async fn lessons(&self) -> Result<Option<Lessons>, StoreError> {
            Nothing.lessons().await
        }

        async fn put_lessons(&self, lessons: &Lessons) -> Result<(), StoreError> {
            Nothing.put_lessons(lessons).await
        }
    }

    #[async_trait]
    impl Store for Records {
        async fn device(&self, device: &Device) -> Result<Option<DeviceRecord>, StoreError> {
            if self.fails.load(Ordering::SeqCst) {
                return Nothing.device(device).await;
            }
            Ok(self.records.lock().unwrap().get(device).copied())
        }

        async fn put_device(&self, device: &Device, record: DeviceRecord) -> Result<(), StoreError> {
            if self.fails.load(Ordering::SeqCst) {
                return Nothing.put_device(device, record).await;
            }
            self.records.lock().unwrap().insert(device.clone(), record);
            Ok(())
        }

        async fn forget(&self, jid: &Jid, device: Option<&Device>, at: Timestamp) -> Result<bool, StoreError> {
            Nothing.forget(jid, device, at).await
        }

        async fn watch(&self, watch: Watch, due: Timestamp, limit: u64) -> Result<Watched, StoreError> {
            Nothing.watch(watch, due, limit).await
        }

        async fn unwatch(&self, jid: &Jid, device: Option<&Device>) -> Result<bool, StoreError> {
            Nothing.unwatch(jid, device).await
        }

        async fn watches(
            &self,
            device: Option<&Device>,
            after: Option<&Subject>,
            limit: usize,
        ) -> Result<Vec<Watch>, StoreError> {
            Nothing.watches(device, after, limit).await
        }

        async fn find(&self, key: &Key) -> Result<Held, StoreError> {
            Nothing.find(key).await
        }

        async fn claim(&self, key: &Key) -> Result<Claim, StoreError> {
            Nothing.claim(key).await
        }

        async fn apply(&self, write: Write) -> Result<Applied, StoreError> {
            Nothing.apply(write).await
        }

        async fn forget_idle(&self, before: Timestamp, limit: usize) -> Result<Vec<Subject>, StoreError> {
            Nothing.forget_idle(before, limit).await
        }

        async fn size(&self, now: Timestamp) -> Result<Size, StoreError> {
            Nothing.size(now).await
        }

        async fn check(&self) -> Result<(), StoreError> {
            Nothing.check().await
        }

        async fn close(&self) {}
    }
}
