//! What is to be looked at without anybody waiting: URLs before they die, doubts, people whose picture may have changed. And what
//! nobody asks for any more is forgotten.
//!
//! A thin loop around a pure plan ([`plan`]). The order of things lies in the store, in two queues for each device ([`Schedule`]);
//! from each the loop takes one look at a time, or as many as the budget lets start within a moment, and takes the next when that
//! one has started: so what comes next is decided as late as possible, deadlines and rechecks both have their place in the budget's
//! queue, in which nobody starves, and a crowded device holds up no other. Each taken look is under a lease, so that a process that
//! dies loses nothing. What the budget does not let through is put off, never dropped and never hammered.
//!
//! Every few seconds it is foreseen for each device whether the budget will suffice ([`Forecast`]): with too little, URLs are renewed
//! as late as is safe, rechecks go where change is likeliest, and deadlines that stand too close are begun with early.
//!
//! [`Schedule`]: crate::store::Schedule

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::stream;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::avatars::{Avatars, BACKGROUND_PATIENCE, Refreshed};
use crate::budget::Priority;
use crate::clock::{Clock, Timestamp};
use crate::jid::{Device, Key};
use crate::metrics::Metrics;
use crate::outcome::Rules;
use crate::recheck::forecast::{Forecast, SAMPLES};
use crate::store::{Agenda, Store, StoreError};

pub mod plan;

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

impl Config {
    /// Whether what was last asked for then is refreshed at `at`.
    fn is_warm(&self, requested_at: Option<Timestamp>, at: Timestamp) -> bool {
        requested_at.is_some_and(|asked| at.since(asked) < self.warm_for)
    }
}

/// Looks of one kind that stand in one device's queue at once: as many as the rate lets start within this time, and no more than
/// may be under way.
const MOMENT: Duration = Duration::from_millis(50);

/// How many devices' schedules are asked at once.
const DEVICES_AT_ONCE: usize = 16;

/// How long what was taken is not taken again: longer than it may wait for the budget, and any look.
const LEASE: Duration = Duration::from_secs(180);

/// The loop's pace when nothing tells it a better one.
const PACE: Duration = Duration::from_millis(500);
const PACE_MIN: Duration = Duration::from_millis(20);

/// How long the loop rests when the store fails.
const STORE_REST: Duration = Duration::from_secs(2);

/// How often sizes are read for the metrics.
const MEASURE_PACE: Duration = Duration::from_secs(5);

/// How often it is foreseen whether a device's budget will suffice.
const FORECAST_PACE: Duration = Duration::from_secs(10);

/// How often what was learnt is remembered.
const REMEMBER_PACE: Duration = Duration::from_secs(60);

/// A look that failed is not made again before this.
const PUT_OFF_MIN: Duration = Duration::from_secs(1);

/// How many keys are forgotten in one write.
const FORGET_BATCH: usize = 500;

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
    /// Looks that have been taken and have not started.
    standing: Mutex<HashMap<(Device, Priority), usize>>,
    /// One of them has.
    started: Notify,
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

/// What a look was taken for: where it goes back to if nothing comes of it.
enum Purpose {
    /// The key's deadline. If nothing is held and nobody ever asked for it, the state machine did, and asks again if it matters.
    Deadline { unheld: bool },
    /// To see whether the subject's picture changed.
    Recheck,
}

/// Gives up a look's place among those that stand in its device's queue, once.
struct Standing {
    refresh: Refresh,
    place: Mutex<Option<(Device, Priority)>>,
}

impl Standing {
    fn has_started(&self) {
        let Some(place) = lock(&self.place).take() else { return };
        let inner = &self.refresh.0;
        let mut standing = lock(&inner.standing);
        if let Some(count) = standing.get_mut(&place) {
            *count -= 1;
            if *count == 0 {
                standing.remove(&place);
            }
        }
        inner.started.notify_one();
    }
}

impl Drop for Standing {
    fn drop(&mut self) {
        self.has_started();
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Refresh {
    /// Background work that has not begun.
    #[must_use]
    pub fn new(parts: Parts) -> Self {
        let Parts { config, clock, store, avatars, metrics, tasks, stop } = parts;
        Self(Arc::new(Inner {
            config,
            clock,
            store,
            avatars,
            metrics,
            tasks,
            stop,
            standing: Mutex::default(),
            started: Notify::new(),
        }))
    }

    /// Works until it is stopped.
    pub async fn run(self) {
        let inner = &self.0;
        let forget_pace = (inner.config.forget_after / 50).clamp(Duration::from_secs(1), Duration::from_secs(600));
        let [mut forget_at, mut measure_at, mut remember_at] = [Duration::ZERO; 3];
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
            if elapsed >= remember_at {
                inner.avatars.remember_lessons().await;
                remember_at = elapsed + REMEMBER_PACE;
            }
            let rest = self.tick().await;
            tokio::select! {
                // Real time, too: the loop also serves a manual clock, which nobody may be moving.
                () = tokio::time::sleep(rest) => {}
                () = inner.clock.sleep(rest) => {}
                // Not at once: others that start in the same moment are made up for together.
                () = inner.started.notified() => tokio::time::sleep(PACE_MIN).await,
                () = inner.stop.cancelled() => {}
            }
        }
        inner.avatars.flush_touches().await;
        inner.avatars.remember_lessons().await;
    }

    /// Takes what may start of what there is to do, and sets it going; returns how long to rest.
    async fn tick(&self) -> Duration {
        let inner = &self.0;
        let agenda = match inner.store.agenda().await {
            Ok(agenda) => agenda,
            Err(error) => {
                tracing::debug!(%error, "what is to be looked at cannot be read");
                return STORE_REST;
            }
        };
        // Nothing is foreseen for devices that have nothing to be looked at any more.
        inner.avatars.foresee_only(&agenda.iter().map(|agenda| &agenda.device).collect());
        let rests = stream::iter(agenda).map(|agenda| self.serve(agenda)).buffer_unordered(DEVICES_AT_ONCE);
        rests.fold(PACE, async |soonest, rest| soonest.min(rest)).await.max(PACE_MIN)
    }

    /// Takes what may start of what there is to do for a device; returns when there may be more.
    async fn serve(&self, agenda: Agenda) -> Duration {
        let inner = &self.0;
        let Agenda { device, due_at, recheck_at } = agenda;
        let forecast = self.foresee(&device).await;
        if inner.avatars.blocked(&device).is_some() {
            return PACE;
        }
        let now = inner.clock.now();
        let until = now + forecast.pressing;
        let taken = async {
            let deadlines = match due_at {
                Some(due_at) if due_at <= until => self.take_due(&device, now, until).await?,
                Some(due_at) => due_at.since(until),
                None => PACE,
            };
            let rechecks = match recheck_at {
                Some(recheck_at) if recheck_at <= now => self.take_rechecks(&device, now).await?,
                Some(recheck_at) => recheck_at.since(now),
                None => PACE,
            };
            Ok::<_, StoreError>(deadlines.min(rechecks))
        };
        taken.await.unwrap_or_else(|error| {
            tracing::debug!(%error, "what is to be looked at cannot be taken");
            STORE_REST
        })
    }

    /// How many looks of a kind a device has room for in the budget's queue.
    fn room(&self, device: &Device, priority: Priority) -> usize {
        let inner = &self.0;
        if inner.avatars.wait_for_budget(device, priority) >= BACKGROUND_PATIENCE {
            return 0;
        }
        let rate = inner.avatars.rate(device);
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // saturates, and is bounded
        let most = ((rate * MOMENT.as_secs_f64()).ceil() as usize).clamp(1, inner.avatars.concurrency());
        let standing = lock(&inner.standing).get(&(device.clone(), priority)).copied().unwrap_or_default();
        most.saturating_sub(standing)
    }

    /// Takes deadlines and sets their looks going, as many as there is room for; returns when there may be more to take.
    async fn take_due(&self, device: &Device, now: Timestamp, until: Timestamp) -> Result<Duration, StoreError> {
        let inner = &self.0;
        let room = self.room(device, Priority::Expiring);
        if room == 0 {
            return Ok(PACE);
        }
        let taken = inner.store.take_due(device, until, now + LEASE, room).await?;
        let mut rest = vec![];
        for due in taken {
            if plan::is_looked_at(&due, now, &inner.config) {
                let unheld = due.entry.is_none() && due.requested_at.is_none();
                self.look(due.key, Purpose::Deadline { unheld }, now);
            } else {
                rest.push((due.key, None));
            }
        }
        if rest.is_empty() {
            return Ok(PACE);
        }
        inner.store.reschedule(rest).await?;
        Ok(PACE_MIN)
    }

    /// The same with rechecks.
    async fn take_rechecks(&self, device: &Device, now: Timestamp) -> Result<Duration, StoreError> {
        let inner = &self.0;
        let room = self.room(device, Priority::Recheck);
        if room == 0 {
            return Ok(PACE);
        }
        let taken = inner.store.take_rechecks(device, now, now + LEASE, room).await?;
        let mut rest = vec![];
        for candidate in taken {
            match plan::looked_at(&candidate, now, &inner.config) {
                Some(variant) => self.look(Key { subject: candidate.subject, variant }, Purpose::Recheck, now),
                None => rest.push((candidate.subject, None)),
            }
        }
        if rest.is_empty() {
            return Ok(PACE);
        }
        inner.store.defer(rest).await?;
        Ok(PACE_MIN)
    }

    fn look(&self, key: Key, purpose: Purpose, taken_at: Timestamp) {
        let priority = match purpose {
            Purpose::Deadline { .. } => Priority::Expiring,
            Purpose::Recheck => Priority::Recheck,
        };
        let place = (key.subject.device.clone(), priority);
        *lock(&self.0.standing).entry(place.clone()).or_default() += 1;
        let standing = Standing { refresh: self.clone(), place: Mutex::new(Some(place)) };
        let this = self.clone();
        self.0.tasks.spawn(async move {
            let inner = &this.0;
            inner.metrics.refreshes_running.inc();
            let refreshed = inner.avatars.refresh(&key, priority, taken_at, || standing.has_started()).await;
            inner.metrics.refreshes_running.dec();
            let again = |wait: Duration| inner.clock.now() + wait.max(PUT_OFF_MIN).mul_f64(1.0 + 0.2 * fastrand::f64());
            let result = match refreshed {
                Refreshed::Done => "done",
                Refreshed::Failed(class, wait) => {
                    this.put_back(key, purpose, again(wait), true).await;
                    class.as_str()
                }
                Refreshed::NotMade(wait) => {
                    this.put_back(key, purpose, again(wait), false).await;
                    "not-made"
                }
            };
            inner.metrics.refreshes.with_label_values(&[result]).inc();
        });
    }

    /// Nothing came of a look.
    async fn put_back(&self, key: Key, purpose: Purpose, again: Timestamp, failed: bool) {
        let store = &self.0.store;
        let put_back = match purpose {
            Purpose::Deadline { unheld } => store.reschedule(vec![(key, (!(unheld && failed)).then_some(again))]).await,
            Purpose::Recheck => store.defer(vec![(key.subject, Some(again))]).await,
        };
        if let Err(error) = put_back {
            // Their lease runs out, and they come up again.
            tracing::debug!(%error, "a look is not put back");
        }
    }

    /// Foresees what a device's budget will be needed for, if that was not done lately.
    async fn foresee(&self, device: &Device) -> Forecast {
        let inner = &self.0;
        let elapsed = inner.clock.elapsed();
        let last = inner.avatars.foreseen(device);
        let before = last.map(|(forecast, _)| forecast).unwrap_or_default();
        if last.is_some_and(|(_, made_at)| elapsed < made_at + FORECAST_PACE) {
            return before;
        }
        let Ok(outlay) = inner.store.outlay(device, &SAMPLES).await else { return before };
        let deadlines = plan::still_wanted(&outlay.deadlines, inner.clock.now(), &inner.config);
        let allowed = inner.avatars.rate(device);
        let forecast = Forecast::new(deadlines, outlay.rechecks, inner.config.rules.recheck_interval, allowed);
        if forecast.falls_short() && !before.falls_short() {
            tracing::warn!(
                device = inner.avatars.label(device),
                needed_per_second = forecast.deadlines,
                allowed_per_second = forecast.allowed,
                "the budget does not suffice to renew every URL before it dies"
            );
        }
        inner.avatars.foresee(device, forecast, elapsed);
        forecast
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
        self.measure_forecasts();
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

    fn measure_forecasts(&self) {
        let inner = &self.0;
        let mut needed: HashMap<(String, &str), f64> = HashMap::new();
        for (device, forecast) in inner.avatars.forecasts() {
            let label = inner.avatars.label(&device);
            *needed.entry((label.clone(), "expiring")).or_default() += forecast.deadlines;
            *needed.entry((label, "recheck")).or_default() += forecast.rechecks;
        }
        inner.metrics.budget_needed.reset();
        for ((label, work), needed) in needed {
            inner.metrics.budget_needed.with_label_values(&[&label, work]).set(needed);
        }
    }
}
