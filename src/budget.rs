//! Who may ask the gateway now.
//!
//! Lookups are what gets accounts banned, so every one of them, retries included, is admitted here. The rules:
//! * In any time t at most `rate * t + burst` lookups start for a device. Buckets begin empty, so that a restart is not a
//!   second burst. Devices that never had an answer share one bucket, so that invented names buy nothing.
//! * Replicas that share a store share the budget as well (`purse`).
//! * Once a rate limit is recorded, none starts for that device until its cool-down ends; this survives a restart.
//! * A device that is out of order (logged out, unknown) stops only itself, a gateway that refuses the proxy's credentials
//!   stops everything; both are probed by one lookup at a time, and answer in between what they answered last.
//! * Misses of clients come before entries about to expire, these before rechecks; nobody starves.
//! * Who cannot be served within its patience is told so at once, and after how long it is worth coming back.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{Notify, oneshot};

use crate::clock::{Clock, Timestamp};
use crate::jid::Device;
use crate::metrics::Metrics;
use crate::outcome::{Failure, Outcome};
use crate::store::{Draft, Store};

mod device;
mod lane;
mod learn;
mod ledger;
mod purse;
mod reserve;
#[cfg(test)]
mod tests;

use lane::Seat;
use ledger::{Ledger, Now, Probes, Started, Stood};
use purse::Holding;

/// How much may be asked.
#[derive(Clone, Debug)]
pub struct Config {
    /// Lookups per second and device.
    pub rate: f64,
    /// Lookups that may start at once after a quiet time.
    pub burst: u32,
    /// Lookups of one device under way at once.
    pub concurrency: u32,
    /// The first cool-down after a rate limit; doubles to an hour (longer only if this is longer).
    pub cool_down: Duration,
    /// How long a client waits for budget.
    pub max_wait: Duration,
}

/// What a lookup is for.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Priority {
    /// A client waits.
    Miss,
    /// An entry is about to expire.
    Expiring,
    /// To see whether something changed.
    Recheck,
}

impl Priority {
    /// How long this may be passed over by what came later.
    #[must_use]
    pub fn patience(self) -> Duration {
        match self {
            Self::Miss => Duration::ZERO,
            Self::Expiring => Duration::from_secs(15),
            Self::Recheck => Duration::from_secs(60),
        }
    }

    fn as_str(self) -> &'static str {
        match self {
            Self::Miss => "miss",
            Self::Expiring => "expiring",
            Self::Recheck => "recheck",
        }
    }
}

/// Why a lookup may not start, and after how long it is worth coming back.
#[derive(Clone, PartialEq, Debug)]
pub enum Refusal {
    /// Others come first, and the patience does not suffice.
    Spent {
        /// When a lookup could start.
        retry_after: Duration,
    },
    /// WhatsApp asked this device to slow down.
    CoolingDown {
        /// What is left of the cool-down.
        retry_after: Duration,
    },
    /// The device or the gateway is out of order; what it said last.
    Held {
        /// What it said.
        failure: Arc<Failure>,
        /// When it is probed next.
        retry_after: Duration,
    },
}

impl Refusal {
    /// After how long it is worth coming back.
    #[must_use]
    pub fn retry_after(&self) -> Duration {
        match self {
            Self::Spent { retry_after } | Self::CoolingDown { retry_after } | Self::Held { retry_after, .. } => {
                *retry_after
            }
        }
    }

    fn as_str(&self) -> &'static str {
        match self {
            Self::Spent { .. } => "spent",
            Self::CoolingDown { .. } => "cool-down",
            Self::Held { .. } => "held",
        }
    }
}

/// How much of its budget a device has left, in the words of the header field `RateLimit` (draft-ietf-httpapi-ratelimit-headers).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Allowance {
    /// Lookups that could start at once: none while it cools down or is out of order.
    pub left: u64,
    /// When it has all of it again, if nothing is asked meanwhile; while it is held back, when that ends.
    pub resets_after: Duration,
    /// All of it.
    pub burst: u64,
    /// How long it takes to come back. A rate limit makes that longer.
    pub window: Duration,
}

/// The one place that lets lookups start. Cheap to clone.
#[derive(Clone)]
pub struct Budget(Arc<Shared>);

struct Shared {
    config: Config,
    clock: Clock,
    store: Arc<dyn Store>,
    metrics: Arc<Metrics>,
    ledger: Mutex<Ledger>,
    writing: tokio::sync::Mutex<()>,
    changed: Notify,
    /// What this replica holds of a budget that is shared.
    holding: Holding,
}

/// What who waits is told.
type Answer = Result<Permit, Refusal>;

/// A lookup may start. Dropping it ends the lookup, as far as the budget is concerned.
pub struct Permit {
    shared: Arc<Shared>,
    device: Device,
    priority: Priority,
    probes: Probes,
    /// nobody waited for it
    at_once: bool,
    used: bool,
    stood: Stood,
    /// What it has drawn from a budget that is shared.
    booked: Option<Draft>,
    /// when it asked for that, by the steady clock
    drawn_at: Duration,
    /// it is back in the queue
    is_over: bool,
}

/// A place in the queue, by which who waits can be moved ahead.
#[derive(Clone, Debug)]
pub struct Place {
    device: Device,
    seat: Seat,
}

impl Budget {
    /// A budget that remembers devices in `store`.
    #[must_use]
    pub fn new(config: Config, clock: Clock, store: Arc<dyn Store>, metrics: Arc<Metrics>) -> Self {
        let ledger = Mutex::new(Ledger::new(config.clone(), store.shared().is_some()));
        let (writing, changed, holding) = (tokio::sync::Mutex::default(), Notify::new(), Holding::default());
        Self(Arc::new(Shared { config, clock, store, metrics, ledger, writing, changed, holding }))
    }

    /// The configuration.
    #[must_use]
    pub fn config(&self) -> &Config {
        &self.0.config
    }

    /// Lets those who wait start as tokens come; runs until it is dropped.
    pub async fn run(&self) {
        tokio::join!(self.0.pump(), self.0.hold());
    }

    /// Waits for permission to start one lookup for `device`; dropping the future gives up the place in the queue.
    ///
    /// `seated` is told that place.
    ///
    /// # Errors
    /// Why it may not start, at once if that is clear: also when the wait would be longer than `patience`.
    pub async fn admit(
        &self,
        device: &Device,
        priority: Priority,
        patience: Duration,
        seated: impl FnOnce(Place) + Send,
    ) -> Result<Permit, Refusal> {
        self.load(device).await;
        let began = self.0.clock.elapsed();
        let (answer, answered) = oneshot::channel();
        let queued = self.0.lock().enqueue(device, priority, patience, answer, self.0.now());
        let result = match queued {
            Ok(place) => {
                self.0.changed.notify_one();
                seated(place.clone());
                let _leave = Leave { shared: &self.0, place: &place };
                answered.await.unwrap_or(Err(Refusal::Spent { retry_after: Duration::from_secs(1) }))
            }
            Err(refusal) => Err(refusal),
        };
        let waited = self.0.clock.elapsed().saturating_sub(began).as_secs_f64();
        self.0.metrics.budget_wait_seconds.with_label_values(&[priority.as_str()]).observe(waited);
        result.map_err(|refusal| self.0.refused(priority, refusal))
    }

    /// Permission to start one lookup for `device` now, if nobody waits and nothing stands in the way.
    pub async fn at_once(&self, device: &Device, priority: Priority) -> Option<Permit> {
        self.load(device).await;
        let (probes, stood) = self.0.lock().at_once(device, priority, self.0.now())?;
        Some(self.0.permit(device.clone(), priority, probes, stood, true))
    }

    /// Moves who waits at `place` to where somebody of `priority` would stand who came now, if that is further ahead.
    pub fn promote(&self, place: &Place, priority: Priority) {
        self.0.lock().promote(place, priority, self.0.now());
        self.0.changed.notify_one();
    }

    /// How long a lookup for `device` that came now would wait.
    #[must_use]
    pub fn estimate(&self, device: &Device, priority: Priority) -> Duration {
        self.0.lock().estimate(device, priority, self.0.now())
    }

    /// Lookups per second that `device` is allowed now, cool-downs aside.
    #[must_use]
    pub fn rate(&self, device: &Device) -> f64 {
        self.0.lock().rate(device, self.0.now())
    }

    /// The label under which `device` is counted.
    #[must_use]
    pub fn label(&self, device: &Device) -> String {
        self.0.lock().label(device)
    }

    /// Why nothing can start for `device` before some time, if that is so.
    #[must_use]
    pub fn blocked(&self, device: &Device) -> Option<Refusal> {
        self.0.lock().blocked(device, self.0.now())
    }

    /// How much of its budget `device` has left.
    #[must_use]
    pub fn allowance(&self, device: &Device) -> Allowance {
        self.0.lock().allowance(device, self.0.now())
    }

    /// Whether the gateway refuses the proxy's own credentials and is not to be probed yet.
    ///
    /// False as soon as a probe may start, because only a lookup can be one: a balancer that sends no lookups to whom is not
    /// ready would keep a gateway that has long been mended out of use.
    #[must_use]
    pub fn gateway_refuses(&self) -> bool {
        self.0.lock().gateway_refuses(self.0.now())
    }

    /// When `device` last got a picture out of the gateway, in this process; rather too early where the wall clock was set since.
    #[must_use]
    pub fn succeeded_at(&self, device: &Device) -> Option<Timestamp> {
        self.0.lock().succeeded_at(device, self.0.now())
    }

    /// Learns from how a lookup ended that was started. Durable when it returns, if the store answers.
    pub async fn report(&self, permit: &mut Permit, result: &Result<Outcome, Failure>) {
        let lesson = self.0.lock().learn(&permit.device, permit.probes, result, self.0.now());
        permit.probes = Probes::default();
        self.0.changed.notify_one();
        if let Some(length) = lesson.cool_down {
            tracing::warn!(device = ?permit.device, seconds = length.as_secs(), "WhatsApp says slow down: cooling down");
            self.0.metrics.cool_downs.with_label_values(&[&lesson.label]).inc();
        }
        if lesson.changed {
            self.remember(&permit.device).await;
        }
    }

    /// Writes what is known of a device into the store: one after the other, so that the last to be written is the newest.
    async fn remember(&self, device: &Device) {
        if self.0.store.shared().is_some() {
            return self.0.teach(device).await;
        }
        let _turn = self.0.writing.lock().await;
        // What could not be read before must not be undone by what is written now.
        self.load(device).await;
        let record = self.0.lock().record(device);
        if let Some(record) = record
            && let Err(error) = self.0.store.put_device(device, record).await
        {
            tracing::warn!(?device, %error, "what was learnt of a device is not stored");
        }
    }

    /// Writes the present levels into the metrics.
    pub fn measure(&self) {
        let metrics = &self.0.metrics;
        let levels = self.0.lock().levels(self.0.now());
        metrics.gateway_refuses.set(i64::from(levels.gateway_refuses));
        metrics.budget_waiting.set(i64::try_from(levels.waiting).unwrap_or(i64::MAX));
        for (label, tokens) in levels.tokens {
            metrics.budget_tokens.with_label_values(&[&label]).set(tokens);
        }
        for (label, rate) in levels.rates {
            metrics.budget_allowed.with_label_values(&[&label]).set(rate);
        }
        for (label, left) in levels.cooling {
            // There before its first cool-down, so that this is seen as a rise from zero.
            metrics.cool_downs.with_label_values(&[&label]);
            metrics.cool_down_seconds.with_label_values(&[&label]).set(left.as_secs_f64());
        }
    }

    /// Reads what is remembered of a device that this process has not met yet, or could not read.
    async fn load(&self, device: &Device) {
        if self.0.lock().knows(device) {
            return;
        }
        if let Some(shared) = self.0.store.shared() {
            match shared.known(device).await {
                Ok(known) => {
                    let is_news = self.0.lock().hear(device, &known, self.0.now());
                    if is_news {
                        self.0.teach(device).await;
                    }
                }
                Err(error) => self.0.lock().meet(device, Err(error), self.0.now()),
            }
            return;
        }
        let remembered = self.0.store.device(device).await;
        if let Err(error) = &remembered {
            tracing::debug!(?device, %error, "what is remembered of a device cannot be read");
        }
        self.0.lock().meet(device, remembered, self.0.now());
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Ledger> {
        self.ledger.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn now(&self) -> Now {
        Now { steady: self.clock.elapsed(), wall: self.clock.now() }
    }

    fn permit(
        self: &Arc<Self>,
        device: Device,
        priority: Priority,
        probes: Probes,
        stood: Stood,
        at_once: bool,
    ) -> Permit {
        let shared = self.clone();
        Permit {
            shared,
            device,
            priority,
            probes,
            at_once,
            used: false,
            stood,
            booked: None,
            drawn_at: Duration::ZERO,
            is_over: false,
        }
    }

    /// Counts a refusal.
    fn refused(&self, priority: Priority, refusal: Refusal) -> Refusal {
        self.metrics.budget_refusals.with_label_values(&[priority.as_str(), refusal.as_str()]).inc();
        refusal
    }

    /// Lets those who wait start as tokens come. Never ends by itself.
    async fn pump(self: &Arc<Self>) {
        loop {
            let changed = self.changed.notified();
            match self.let_start() {
                Some(next) => tokio::select! {
                    () = self.clock.sleep(next) => {}
                    () = changed => {}
                },
                None => changed.await,
            }
        }
    }

    /// Lets everybody start who may; returns when the next token comes that somebody waits for.
    fn let_start(self: &Arc<Self>) -> Option<Duration> {
        let (started, next) = self.lock().pump(self.now());
        for Started { device, priority, probes, answer, stood } in started {
            // Nobody waits for it any more: the permit comes back and is dropped here, which gives its token back.
            let _ = answer.send(Ok(self.permit(device, priority, probes, stood, false)));
        }
        next
    }
}

impl Permit {
    /// The lookup is about to ask the gateway: from here on its token is spent.
    ///
    /// # Errors
    /// When something came between its admission and now: a rate limit, a device out of order.
    pub fn start(&mut self) -> Result<(), Refusal> {
        let now = self.shared.now();
        let started = self.shared.lock().start(&self.device, self.probes, now);
        started.map_err(|refusal| self.shared.refused(self.priority, refusal))?;
        if self.at_once {
            self.shared.metrics.budget_wait_seconds.with_label_values(&[self.priority.as_str()]).observe(0.0);
        }
        self.used = true;
        Ok(())
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        if let Some(draft) = self.booked.take() {
            self.shared.holding.give_back(draft);
        }
        if self.is_over {
            return;
        }
        let now = self.shared.now();
        self.shared.lock().end(&self.device, self.probes, !self.used, now);
        self.shared.changed.notify_one();
    }
}

/// Gives up a place in the queue.
struct Leave<'a> {
    shared: &'a Shared,
    place: &'a Place,
}

impl Drop for Leave<'_> {
    fn drop(&mut self) {
        let left = self.shared.lock().leave(self.place);
        drop(left);
    }
}
