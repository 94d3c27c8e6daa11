//! Who may ask the gateway now.
//!
//! Lookups are what gets accounts banned, so every one of them, retries included, is admitted here. The rules:
//! * In any time t at most `rate * t + burst` lookups start for a device. Buckets begin empty, so that a restart is not a
//!   second burst. Devices that never had an answer share one bucket, so that invented names buy nothing.
//! * Once a rate limit is recorded, none starts for that device until its cool-down ends; this survives a restart.
//! * A device that is out of order (logged out, unknown) stops only itself, a gateway that refuses the proxy's credentials
//!   stops everything; both are probed by one lookup at a time, and answer in between what they answered last.
//! * Misses of clients come before entries about to expire, these before rechecks; nobody starves.
//! * Who cannot be served within its patience is told so at once, and after how long it is worth coming back.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{Notify, oneshot};

use crate::clock::{Clock, Timestamp};
use crate::jid::Device;
use crate::metrics::{DEVICES_MAX, Metrics};
use crate::outcome::{Class, Failure, Outcome, Reason};
use crate::store::Store;

mod device;
mod lane;

use device::{DeviceState, Held, Hold};
use lane::{Gate, Lane, Limits, Seat};

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

/// A device that is out of order is probed after this, doubling to [`DEVICE_PROBE_MAX`].
const DEVICE_PROBE: Duration = Duration::from_secs(5);
const DEVICE_PROBE_MAX: Duration = Duration::from_secs(300);

/// A gateway that refuses the proxy's credentials is probed this often.
const GATEWAY_PROBE: Duration = Duration::from_secs(30);

/// Devices known at once; beyond it those with nothing to remember are forgotten.
const DEVICES_KNOWN_MAX: usize = 10_000;

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

/// The one place that lets lookups start. Cheap to clone.
#[derive(Clone)]
pub struct Budget(Arc<Shared>);

struct Shared {
    config: Config,
    clock: Clock,
    store: Arc<dyn Store>,
    metrics: Arc<Metrics>,
    state: Mutex<State>,
    changed: Notify,
}

/// Which bucket a device draws from.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
enum LaneId {
    /// The one that unproven devices share.
    New,
    Own(Device),
}

struct Waiter {
    device: Device,
    answer: oneshot::Sender<Result<Permit, Refusal>>,
}

#[derive(Default)]
struct State {
    devices: HashMap<Device, DeviceState>,
    lanes: HashMap<LaneId, Lane<Waiter>>,
    gateway: Option<Hold>,
    seats: Seat,
}

/// A lookup may start. Dropping it ends the lookup, as far as the budget is concerned.
pub struct Permit {
    shared: Arc<Shared>,
    lane: LaneId,
    device: Device,
    probes_device: bool,
    probes_gateway: bool,
    used: bool,
}

/// A place in the queue, by which who waits can be moved ahead.
#[derive(Clone, Debug)]
pub struct Place {
    lane: LaneId,
    seat: Seat,
}

impl Budget {
    /// A budget that remembers devices in `store`.
    #[must_use]
    pub fn new(config: Config, clock: Clock, store: Arc<dyn Store>, metrics: Arc<Metrics>) -> Self {
        let state = Mutex::default();
        Self(Arc::new(Shared { config, clock, store, metrics, state, changed: Notify::new() }))
    }

    /// The configuration.
    #[must_use]
    pub fn config(&self) -> &Config {
        &self.0.config
    }

    /// Lets those who wait start as tokens come; runs until it is dropped.
    pub async fn run(&self) {
        loop {
            let changed = self.0.changed.notified();
            let (next, unwanted) = self.0.pump(&mut self.0.lock());
            drop(unwanted);
            match next {
                Some(next) => tokio::select! {
                    () = self.0.clock.sleep(next) => {}
                    () = changed => {}
                },
                None => changed.await,
            }
        }
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
        let result = match self.0.enqueue(device, priority, patience) {
            Ok((place, answer)) => {
                seated(place.clone());
                let _leave = Leave { shared: &self.0, place: &place };
                answer.await.unwrap_or(Err(Refusal::Spent { retry_after: Duration::from_secs(1) }))
            }
            Err(refusal) => Err(refusal),
        };
        let waited = self.0.clock.elapsed().saturating_sub(began).as_secs_f64();
        self.0.metrics.budget_wait_seconds.with_label_values(&[priority.as_str()]).observe(waited);
        if let Err(refusal) = &result {
            self.0.metrics.budget_refusals.with_label_values(&[priority.as_str(), refusal.as_str()]).inc();
        }
        result
    }

    /// Moves who waits at `place` to where somebody of `priority` would stand who came now, if that is further ahead.
    pub fn promote(&self, place: &Place, priority: Priority) {
        let now = self.0.clock.elapsed();
        if let Some(lane) = self.0.lock().lanes.get_mut(&place.lane) {
            lane.promote(now, priority, place.seat);
        }
        self.0.changed.notify_one();
    }

    /// How long a client's lookup for `device` that came now would wait.
    #[must_use]
    pub fn estimate(&self, device: &Device) -> Duration {
        let lane = self.0.lock().lane_of(device);
        self.0.estimate(&lane, Priority::Miss)
    }

    /// Why nothing can start for `device` before some time, if that is so.
    #[must_use]
    pub fn blocked(&self, device: &Device) -> Option<Refusal> {
        let now = self.0.clock.elapsed();
        self.0.lock().blocked(device, now)
    }

    /// Whether the gateway refuses the proxy's own credentials and is not to be probed yet.
    ///
    /// False as soon as a probe may start, because only a lookup can be one: a balancer that sends no lookups to whom is not
    /// ready would keep a gateway that has long been mended out of use.
    #[must_use]
    pub fn gateway_refuses(&self) -> bool {
        let now = self.0.clock.elapsed();
        self.0.lock().gateway.as_ref().is_some_and(|hold| matches!(hold.ask(now), Held::Answer(..)))
    }

    /// When `device` last got a picture out of the gateway, in this process.
    #[must_use]
    pub fn succeeded_at(&self, device: &Device) -> Option<Timestamp> {
        self.0.lock().devices.get(device)?.succeeded_at
    }

    /// Learns from how a lookup ended. Durable when it returns, if the store answers.
    pub async fn report(&self, permit: &mut Permit, result: &Result<Outcome, Failure>) {
        permit.used = true;
        let changed = self.0.learn(permit, result);
        self.0.changed.notify_one();
        if changed {
            let record = self.0.lock().devices.get(&permit.device).map(DeviceState::record);
            if let Some(record) = record
                && let Err(error) = self.0.store.put_device(&permit.device, record).await
            {
                tracing::warn!(device = ?permit.device, %error, "what was learnt of a device is not stored");
            }
        }
    }

    /// Writes the present levels into the metrics.
    pub fn measure(&self) {
        let shared = &self.0;
        let (now, wall) = (shared.clock.elapsed(), shared.clock.now());
        let mut guard = shared.lock();
        let state = &mut *guard;
        let metrics = &shared.metrics;
        metrics.budget_tokens.reset();
        metrics.cool_down_seconds.reset();
        metrics.gateway_refuses.set(i64::from(state.gateway.is_some()));
        let mut waiting = 0;
        for (id, lane) in &mut state.lanes {
            waiting += lane.waiting();
            lane.fill(now, limits(&shared.config, &state.devices, id, wall));
        }
        metrics.budget_waiting.set(i64::try_from(waiting).unwrap_or(i64::MAX));
        for (id, lane) in state.lanes.iter().take(DEVICES_MAX) {
            metrics.budget_tokens.with_label_values(&[&id.label()]).set(lane.tokens());
        }
        for (device, known) in state.devices.iter().filter(|(_, known)| known.is_proven()).take(DEVICES_MAX) {
            let left = known.cooling(now).unwrap_or_default();
            metrics.cool_down_seconds.with_label_values(&[&device.label()]).set(left.as_secs_f64());
        }
    }

    /// Reads what is remembered of a device that this process has not met yet.
    async fn load(&self, device: &Device) {
        if self.0.lock().devices.contains_key(device) {
            return;
        }
        let record = match self.0.store.device(device).await {
            Ok(record) => record,
            Err(error) => {
                tracing::warn!(?device, %error, "what is remembered of a device cannot be read");
                None
            }
        };
        let (wall, now) = (self.0.clock.now(), self.0.clock.elapsed());
        let mut state = self.0.lock();
        if state.devices.len() >= DEVICES_KNOWN_MAX {
            state.forget_idle(now);
        }
        state.devices.entry(device.clone()).or_insert_with(|| DeviceState::load(record, wall, now));
    }
}

impl LaneId {
    fn device(&self) -> Option<&Device> {
        match self {
            Self::New => None,
            Self::Own(device) => Some(device),
        }
    }

    fn label(&self) -> String {
        self.device().map_or_else(|| "new".to_owned(), Device::label)
    }
}

/// What may pass a lane's bucket now: a device that was rate limited gets a share of the configured rate.
fn limits(config: &Config, devices: &HashMap<Device, DeviceState>, lane: &LaneId, wall: Timestamp) -> Limits {
    let share = lane.device().and_then(|device| devices.get(device)).map_or(1.0, |known| known.share(wall));
    Limits {
        rate: config.rate * share,
        burst: f64::from(config.burst.max(1)),
        concurrency: config.concurrency.max(1) as usize,
    }
}

impl State {
    fn lane_of(&self, device: &Device) -> LaneId {
        match self.devices.get(device) {
            Some(known) if known.is_proven() => LaneId::Own(device.clone()),
            _ => LaneId::New,
        }
    }

    fn blocked(&self, device: &Device, now: Duration) -> Option<Refusal> {
        let known = self.devices.get(device);
        if let Some(retry_after) = known.and_then(|known| known.cooling(now)) {
            return Some(Refusal::CoolingDown { retry_after });
        }
        let holds = [self.gateway.as_ref(), known.and_then(|known| known.hold.as_ref())];
        holds.into_iter().flatten().find_map(|hold| match hold.ask(now) {
            Held::Answer(failure, retry_after) => Some(Refusal::Held { failure, retry_after }),
            Held::Probe => None,
        })
    }

    /// Marks the lookup that may now start as the probe of what is held, and says of what.
    fn begin_probes(&mut self, device: &Device) -> (bool, bool) {
        let of_device = self.devices.get_mut(device).and_then(|known| known.hold.as_mut());
        let probes_device = of_device.map(Hold::begin_probe).is_some();
        let probes_gateway = self.gateway.as_mut().map(Hold::begin_probe).is_some();
        (probes_device, probes_gateway)
    }

    fn forget_idle(&mut self, now: Duration) {
        let Self { devices, lanes, .. } = self;
        lanes.retain(|id, lane| *id == LaneId::New || !lane.is_idle());
        devices.retain(|device, known| !known.is_idle(now) || lanes.contains_key(&LaneId::Own(device.clone())));
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn limits(&self, state: &State, lane: &LaneId) -> Limits {
        limits(&self.config, &state.devices, lane, self.clock.now())
    }

    fn enqueue(
        self: &Arc<Self>,
        device: &Device,
        priority: Priority,
        patience: Duration,
    ) -> Result<(Place, oneshot::Receiver<Result<Permit, Refusal>>), Refusal> {
        let now = self.clock.elapsed();
        let mut guard = self.lock();
        let state = &mut *guard;
        if let Some(refusal) = state.blocked(device, now) {
            return Err(refusal);
        }
        let id = state.lane_of(device);
        let limits = self.limits(state, &id);
        let lane = state.lanes.entry(id.clone()).or_insert_with(|| Lane::new(now));
        lane.fill(now, limits);
        let wait = lane.estimate(now, priority, limits);
        if wait > patience {
            return Err(Refusal::Spent { retry_after: wait });
        }
        state.seats += 1;
        let (answer, answered) = oneshot::channel();
        lane.enqueue(now, priority, state.seats, Waiter { device: device.clone(), answer });
        let place = Place { lane: id, seat: state.seats };
        drop(guard);
        self.changed.notify_one();
        Ok((place, answered))
    }

    fn estimate(&self, lane: &LaneId, priority: Priority) -> Duration {
        let now = self.clock.elapsed();
        let state = self.lock();
        let limits = self.limits(&state, lane);
        state.lanes.get(lane).map_or(Duration::ZERO, |lane| lane.estimate(now, priority, limits))
    }

    /// Lets everybody start who may; returns when the next token comes that somebody waits for, and the permits that nobody
    /// waits for any more, to be dropped without the lock.
    fn pump(self: &Arc<Self>, state: &mut State) -> (Option<Duration>, Vec<Permit>) {
        let (now, wall) = (self.clock.elapsed(), self.clock.now());
        let ids: Vec<LaneId> =
            state.lanes.iter().filter(|(_, lane)| lane.waiting() > 0).map(|(id, _)| id.clone()).collect();
        let mut next: Option<Duration> = None;
        let mut unwanted = vec![];
        for id in ids {
            let limits = limits(&self.config, &state.devices, &id, wall);
            while let Some(lane) = state.lanes.get_mut(&id).filter(|lane| lane.waiting() > 0) {
                lane.fill(now, limits);
                match lane.gate(limits) {
                    Gate::Full => break,
                    Gate::Later(wait) => {
                        next = Some(next.map_or(wait, |next| next.min(wait)));
                        break;
                    }
                    Gate::Open => {}
                }
                let Some(waiter) = lane.pop() else { break };
                if waiter.answer.is_closed() {
                    continue;
                }
                if let Some(refusal) = state.blocked(&waiter.device, now) {
                    let _ = waiter.answer.send(Err(refusal));
                    continue;
                }
                if let Some(lane) = state.lanes.get_mut(&id) {
                    lane.start();
                }
                let (probes_device, probes_gateway) = state.begin_probes(&waiter.device);
                let permit = Permit {
                    shared: self.clone(),
                    lane: id.clone(),
                    device: waiter.device,
                    probes_device,
                    probes_gateway,
                    used: false,
                };
                if let Err(Ok(permit)) = waiter.answer.send(Ok(permit)) {
                    unwanted.push(permit);
                }
            }
        }
        (next, unwanted)
    }

    /// Applies the end of a lookup; true if the device's record changed.
    fn learn(&self, permit: &mut Permit, result: &Result<Outcome, Failure>) -> bool {
        let (now, wall) = (self.clock.elapsed(), self.clock.now());
        let mut guard = self.lock();
        let state = &mut *guard;
        let device = &permit.device;
        let class = result.as_ref().err().map(|failure| failure.class);

        match (class, result) {
            (Some(Class::Credentials), Err(failure)) => {
                let again = Hold::again(state.gateway.take(), failure, GATEWAY_PROBE, GATEWAY_PROBE, now);
                state.gateway = Some(again);
            }
            (Some(Class::Nonsense | Class::Late), _) if permit.probes_gateway => {
                if let Some(hold) = &mut state.gateway {
                    hold.inconclusive(now);
                }
            }
            (Some(Class::Nonsense | Class::Late), _) => {}
            _ if permit.probes_gateway => state.gateway = None,
            _ => {}
        }

        let known = state.devices.entry(device.clone()).or_default();
        let changed = match (class, result) {
            (None, Ok(outcome)) => {
                known.hold = None;
                if matches!(outcome, Outcome::Present(_)) {
                    known.succeeded_at = Some(wall);
                }
                let exists = !matches!(outcome, Outcome::Negative(no) if no.reason == Reason::Unregistered);
                exists && known.prove()
            }
            (Some(Class::RateLimited), _) => {
                known.hold = None;
                let length = known.cool_down(&self.config, wall, now);
                if let Some(length) = length {
                    tracing::warn!(?device, seconds = length.as_secs(), "WhatsApp says slow down: cooling down");
                    self.metrics.cool_downs.with_label_values(&[&device.label()]).inc();
                }
                length.is_some()
            }
            (Some(Class::Device), Err(failure)) => {
                let again = Hold::again(known.hold.take(), failure, DEVICE_PROBE, DEVICE_PROBE_MAX, now);
                known.hold = Some(again);
                false
            }
            (Some(Class::Request), _) => {
                known.hold = None;
                false
            }
            _ => {
                if let Some(hold) = known.hold.as_mut().filter(|_| permit.probes_device) {
                    hold.inconclusive(now);
                }
                false
            }
        };
        permit.probes_device = false;
        permit.probes_gateway = false;

        // Nobody else of this device waits for what cannot come.
        if let Some(refusal) = state.blocked(device, now) {
            let everybody = matches!(class, Some(Class::Credentials));
            for (id, lane) in &mut state.lanes {
                if !everybody && *id != permit.lane {
                    continue;
                }
                for waiter in lane.take(|waiter| everybody || waiter.device == *device) {
                    let _ = waiter.answer.send(Err(refusal.clone()));
                }
                if matches!(refusal, Refusal::CoolingDown { .. }) && *id != LaneId::New {
                    // What would be saved up while cooling down is not to be spent at once afterwards.
                    lane.drain(now + refusal.retry_after());
                }
            }
        }
        changed
    }
}

impl Permit {
    fn end(&mut self, state: &mut State) {
        let limits = self.shared.limits(state, &self.lane);
        if let Some(lane) = state.lanes.get_mut(&self.lane) {
            lane.end(!self.used, limits);
        }
        if self.probes_device
            && let Some(hold) = state.devices.get_mut(&self.device).and_then(|known| known.hold.as_mut())
        {
            hold.abandon_probe();
        }
        if self.probes_gateway
            && let Some(hold) = &mut state.gateway
        {
            hold.abandon_probe();
        }
    }

    /// The lookup is about to ask the gateway: from here on its token is spent.
    pub fn start(&mut self) {
        self.used = true;
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        let shared = self.shared.clone();
        self.end(&mut shared.lock());
        shared.changed.notify_one();
    }
}

/// Gives up a place in the queue.
struct Leave<'a> {
    shared: &'a Shared,
    place: &'a Place,
}

impl Drop for Leave<'_> {
    fn drop(&mut self) {
        let left = self.shared.lock().lanes.get_mut(&self.place.lane).and_then(|lane| lane.leave(self.place.seat));
        drop(left);
    }
}
