//! What is due: looks again before URLs die, confirms what is doubted, forgets what nobody asks for.
//!
//! A thin loop around a pure plan. Due keys are taken from the store under a lease, so that a process that dies loses nothing.
//! [`plan`] decides what becomes of each: only what somebody asked for lately (warm) is looked at again, and a second look at a
//! doubted outcome is made for anybody. What the budget does not let through is put off, never dropped and never hammered.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::avatars::{Avatars, Refreshed};
use crate::budget::Priority;
use crate::clock::{Clock, Timestamp};
use crate::jid::{Device, Key, Variant};
use crate::metrics::Metrics;
use crate::outcome::Rules;
use crate::store::{Due, Store, Taken};

/// What is looked at again, and for how long.
#[derive(Clone, Debug)]
pub struct Config {
    /// Since the last request: how long an entry goes on being refreshed.
    pub warm_for: Duration,
    /// Since the last request: when an entry is dropped from the store with its state.
    pub forget_after: Duration,
    /// Lifetimes and intervals.
    pub rules: Rules,
}

/// How many background looks may be under way or waiting, over all devices and for one; and how many there may be for one when
/// a recheck joins them, so that what is about to expire finds a place however much there is to recheck.
const RUNNING_MAX: usize = 256;
const RUNNING_PER_DEVICE: usize = 32;
const RUNNING_FOR_RECHECKS: usize = 16;

/// How long a taken key is not taken again: longer than any look.
const LEASE: Duration = Duration::from_secs(180);

/// The loop's pace when nothing tells it a better one.
const PACE: Duration = Duration::from_millis(500);
const PACE_MIN: Duration = Duration::from_millis(20);

/// How long the loop rests when the store fails.
const STORE_REST: Duration = Duration::from_secs(2);

/// How often sizes are read for the metrics.
const MEASURE_PACE: Duration = Duration::from_secs(5);

/// A key of a device that has enough under way is due again after this at the least, and up to twice as long.
const CROWDED: Duration = Duration::from_secs(5);

/// A recheck that finds no place comes back when this many times those before it have had their turn: a backlog that the budget
/// never clears must not be written anew every few seconds.
const CROWDED_RECHECKS: u32 = 4;

/// A look that failed is not made again before this.
const PUT_OFF_MIN: Duration = Duration::from_secs(1);

/// How long a second look at a negative outcome is tried for somebody nobody asks for.
const CONFIRM_WITHIN: Duration = Duration::from_secs(86_400);

/// How many keys are forgotten in one write.
const FORGET_BATCH: usize = 500;

/// What becomes of a due key.
#[derive(Clone, Copy, PartialEq, Debug)]
pub enum Step {
    /// It is looked at.
    Look(Priority),
    /// It is due again then.
    PutOff(Timestamp),
    /// It is not due again until somebody asks for it.
    Rest,
}

/// Decides what becomes of a due key; `blocked`: no lookup of its device starts before this time has passed.
#[must_use]
pub fn plan(due: &Due, now: Timestamp, blocked: Option<Duration>, config: &Config, jitter: f64) -> Step {
    let warm = due.requested_at.is_some_and(|requested| now.since(requested) < config.warm_for);
    // A key that is due long before its entry was planned to be has been asked for by the state machine.
    let wanted = due.entry.as_ref().is_none_or(|entry| due.due_at < entry.due_at);
    // The second look at a negative outcome is made for anybody, the ones after it for whom somebody asks. One that fails and
    // fails again is not tried for ever.
    let doubted = due.entry.as_ref().is_some_and(|entry| entry.doubts == 1 && now < entry.due_at + CONFIRM_WITHIN);
    // A watch is about whose picture it is: the full one tells.
    let watched = due.watch.is_some() && due.key.variant == Variant::default();
    if !(warm || watched || wanted || doubted) {
        return Step::Rest;
    }
    if let Some(wait) = blocked {
        // Everybody comes back from a cool-down, but not in the same instant.
        return Step::PutOff(now + wait + Duration::from_secs(30).mul_f64(jitter));
    }
    let expiring = due.entry.as_ref().is_some_and(|entry| entry.is_expiring(&config.rules));
    Step::Look(if expiring || doubted { Priority::Expiring } else { Priority::Recheck })
}

/// The background work. Cheap to clone.
#[derive(Clone)]
pub struct Refresh(Arc<Inner>);

struct Inner {
    config: Config,
    clock: Clock,
    store: Arc<dyn Store>,
    avatars: Avatars,
    metrics: Arc<Metrics>,
    tasks: TaskTracker,
    stop: CancellationToken,
    running: Arc<Semaphore>,
    per_device: Mutex<HashMap<Device, usize>>,
}

/// What the background work is made of.
pub struct Parts {
    /// What is looked at again.
    pub config: Config,
    /// Time.
    pub clock: Clock,
    /// Where the due keys are.
    pub store: Arc<dyn Store>,
    /// Who looks.
    pub avatars: Avatars,
    /// The figures.
    pub metrics: Arc<Metrics>,
    /// Where looks run.
    pub tasks: TaskTracker,
    /// Ends the loop; looks that ask the gateway by then finish.
    pub stop: CancellationToken,
}

impl Refresh {
    /// Background work that has not begun.
    #[must_use]
    pub fn new(parts: Parts) -> Self {
        let Parts { config, clock, store, avatars, metrics, tasks, stop } = parts;
        let running = Arc::new(Semaphore::new(RUNNING_MAX));
        Self(Arc::new(Inner {
            config,
            clock,
            store,
            avatars,
            metrics,
            tasks,
            stop,
            running,
            per_device: Mutex::default(),
        }))
    }

    /// Works until it is stopped.
    pub async fn run(self) {
        let inner = &self.0;
        let forget_pace = (inner.config.forget_after / 50).clamp(Duration::from_secs(1), Duration::from_secs(600));
        let mut forget_at = Duration::ZERO;
        let mut measure_at = Duration::ZERO;
        while !inner.stop.is_cancelled() {
            inner.avatars.flush_touches().await;
            let elapsed = inner.clock.elapsed();
            if elapsed >= forget_at {
                self.forget().await;
                forget_at = elapsed + forget_pace;
            }
            if elapsed >= measure_at {
                self.measure().await;
                measure_at = elapsed + MEASURE_PACE;
            }
            let rest = self.tick().await;
            tokio::select! {
                // Real time, too: the loop also serves a manual clock, which nobody may be moving.
                () = tokio::time::sleep(rest) => {}
                () = inner.clock.sleep(rest) => {}
                () = inner.stop.cancelled() => {}
            }
        }
        inner.avatars.flush_touches().await;
    }

    /// Takes what is due and sets it going; returns how long to rest.
    async fn tick(&self) -> Duration {
        let inner = &self.0;
        let free = inner.running.available_permits();
        if free == 0 {
            return PACE;
        }
        let now = inner.clock.now();
        let taken = match inner.store.take_due(now, now + LEASE, free).await {
            Ok(taken) => taken,
            Err(error) => {
                tracing::debug!(%error, "what is due cannot be taken");
                return STORE_REST;
            }
        };
        let Taken { due, next } = taken;
        let more = due.len() == free;
        let mut put_off = vec![];
        for due in due {
            let blocked = inner.avatars.blocked(&due.key).map(|refusal| refusal.retry_after());
            match plan(&due, now, blocked, &inner.config, fastrand::f64()) {
                Step::Rest => put_off.push((due.key, None)),
                Step::PutOff(at) => put_off.push((due.key, Some(at))),
                Step::Look(priority) if self.may_run(&due.key.subject.device, priority) => {
                    self.look(due, priority, now);
                }
                Step::Look(priority) => {
                    let turns = if priority == Priority::Recheck { CROWDED_RECHECKS } else { 1 };
                    let wait = inner.avatars.wait_for_budget(&due.key, priority).saturating_mul(turns).max(CROWDED);
                    put_off.push((due.key, Some(now + wait.mul_f64(1.0 + fastrand::f64()))));
                }
            }
        }
        if !put_off.is_empty() {
            self.reschedule(put_off).await;
        }
        if more {
            return PACE_MIN;
        }
        next.map_or(PACE, |next| next.since(inner.clock.now()).clamp(PACE_MIN, PACE))
    }

    fn may_run(&self, device: &Device, priority: Priority) -> bool {
        let most = if priority == Priority::Recheck { RUNNING_FOR_RECHECKS } else { RUNNING_PER_DEVICE };
        let mut counts = self.0.per_device.lock().unwrap_or_else(PoisonError::into_inner);
        let count = counts.entry(device.clone()).or_default();
        let may = *count < most;
        *count += usize::from(may);
        may
    }

    fn look(&self, due: Due, priority: Priority, taken_at: Timestamp) {
        let this = self.clone();
        let Due { key, entry, requested_at, .. } = due;
        // Nobody ever asked for it and nothing is held: the state machine did, and asks again if it still matters.
        let unheld = entry.is_none() && requested_at.is_none();
        // No more keys are taken than there is room for.
        let running = self.0.running.clone().try_acquire_owned();
        self.0.tasks.spawn(async move {
            let _running = running;
            let inner = &this.0;
            inner.metrics.refreshes_running.inc();
            let refreshed = inner.avatars.refresh(&key, priority, taken_at).await;
            inner.metrics.refreshes_running.dec();
            this.has_run(&key.subject.device);
            let again = |wait: Duration| inner.clock.now() + wait.max(PUT_OFF_MIN).mul_f64(1.0 + 0.2 * fastrand::f64());
            let result = match refreshed {
                Refreshed::Done => "done",
                Refreshed::Failed(class, wait) => {
                    this.reschedule(vec![(key, (!unheld).then(|| again(wait)))]).await;
                    class.as_str()
                }
                Refreshed::NotMade(wait) => {
                    this.reschedule(vec![(key, Some(again(wait)))]).await;
                    "not-made"
                }
            };
            inner.metrics.refreshes.with_label_values(&[result]).inc();
        });
    }

    fn has_run(&self, device: &Device) {
        let mut counts = self.0.per_device.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = counts.get_mut(device) {
            *count -= 1;
            if *count == 0 {
                counts.remove(device);
            }
        }
    }

    async fn reschedule(&self, keys: Vec<(Key, Option<Timestamp>)>) {
        if let Err(error) = self.0.store.reschedule(keys).await {
            // Their lease runs out, and they come up again.
            tracing::debug!(%error, "due keys are not rescheduled");
        }
    }

    /// Drops what nobody asked for since `forget_after`.
    async fn forget(&self) {
        let inner = &self.0;
        let before = inner.clock.now() - inner.config.forget_after;
        while let Ok(gone) = inner.store.forget_idle(before, FORGET_BATCH).await {
            inner.metrics.forgotten.inc_by(gone.len() as u64);
            for subject in &gone {
                inner.avatars.drop_idle(subject);
            }
            // Keys are counted in a batch and subjects come back: fewer of them do not mean that it was the last.
            if gone.is_empty() || inner.stop.is_cancelled() {
                break;
            }
        }
    }

    async fn measure(&self) {
        let inner = &self.0;
        let now = inner.clock.now();
        if let Ok(size) = inner.store.size(now).await {
            let gauge = |count: u64| i64::try_from(count).unwrap_or(i64::MAX);
            inner.metrics.store_entries.set(gauge(size.entries));
            inner.metrics.store_subjects.set(gauge(size.subjects));
            inner.metrics.store_bytes.set(gauge(size.bytes));
            inner.metrics.refresh_backlog.set(gauge(size.backlog));
            inner.metrics.watches.set(gauge(size.watches));
            inner.metrics.log_records.set(gauge(size.logged));
            inner.metrics.log_age_seconds.set(gauge(size.logged_since.map_or(0, |oldest| now.since(oldest).as_secs())));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::change::Standing;
    use crate::entry::{Entry, Jitter};
    use crate::jid::{Jid, Variant};
    use crate::outcome::{Observation, Outcome, Picture, Token};

    const HOUR: Duration = Duration::from_secs(3600);

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_seconds(1_700_000_000 + seconds)
    }

    fn config() -> Config {
        Config { warm_for: HOUR, forget_after: 24 * HOUR, rules: Rules::default() }
    }

    /// A picture seen at 0, whose URL lives for a day.
    fn due(due_at: i64, requested: Option<i64>) -> Due {
        let picture = Picture::new(&format!("https://h/p?oe={:X}", 1_700_000_000 + 86_400), "1", "image");
        let seen = Observation {
            variant: Variant::default(),
            outcome: Outcome::Present(picture),
            start: Token(1),
            started_at: at(0),
            ended_at: at(0),
        };
        let sure = Standing::Believed { repeats: 0 };
        Due {
            key: Key::new(Device::default(), Jid::parse("1").unwrap(), false, false),
            entry: Some(Entry::after(None, &seen, sure, &Rules::default(), Jitter(0.0, 0.0))),
            due_at: at(due_at),
            requested_at: requested.map(at),
            watch: None,
        }
    }

    #[test]
    fn only_what_somebody_asked_for_lately_is_looked_at_again() {
        let recheck = 6 * 3600;
        let step = |requested| plan(&due(recheck, requested), at(recheck), None, &config(), 0.0);
        assert_eq!(step(Some(recheck - 10)), Step::Look(Priority::Recheck));
        assert_eq!(step(Some(recheck - 3600)), Step::Rest);
        assert_eq!(step(None), Step::Rest);
    }

    #[test]
    fn what_is_about_to_die_comes_before_rechecks() {
        let mut expiring = due(80_000, Some(80_000));
        expiring.entry.as_mut().unwrap().due_at = at(75_000);
        assert_eq!(plan(&expiring, at(80_000), None, &config(), 0.0), Step::Look(Priority::Expiring));
    }

    #[test]
    fn a_doubted_outcome_is_looked_at_a_second_time_for_anybody() {
        let doubted = |doubts| {
            let mut doubted = due(60, None);
            let entry = doubted.entry.as_mut().unwrap();
            (entry.doubts, entry.due_at) = (doubts, at(60));
            doubted
        };
        assert_eq!(plan(&doubted(1), at(60), None, &config(), 0.0), Step::Look(Priority::Expiring));
        assert_eq!(plan(&doubted(2), at(60), None, &config(), 0.0), Step::Rest);
        assert_eq!(plan(&doubted(1), at(60 + 86_400), None, &config(), 0.0), Step::Rest, "a day of failures");
    }

    #[test]
    fn a_look_that_the_state_machine_asked_for_is_made_for_anybody() {
        assert!(matches!(plan(&due(5, None), at(5), None, &config(), 0.0), Step::Look(_)));
        let unheld = Due { entry: None, ..due(5, None) };
        assert!(matches!(plan(&unheld, at(5), None, &config(), 0.0), Step::Look(_)));
    }

    #[test]
    fn a_blocked_device_comes_back_later_and_not_all_at_once() {
        let step = |jitter| plan(&due(5, Some(0)), at(5), Some(HOUR), &config(), jitter);
        assert_eq!(step(0.0), Step::PutOff(at(3605)));
        assert_eq!(step(1.0), Step::PutOff(at(3635)));
    }
}
