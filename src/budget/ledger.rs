//! Everything the budget knows, under one lock: devices, their lanes, and whether the gateway refuses the proxy.
//!
//! Pure but for the channels by which those who wait are answered: time comes in, and who may start comes out.

use std::collections::hash_map::Entry;
use std::collections::{HashMap, HashSet};
use std::time::Duration;

use tokio::sync::oneshot;

use super::device::{DeviceState, Held, Hold};
use super::lane::{Gate, Lane, Limits, Seat, Turn};
use super::reserve::{KEPT_OUT, Share};
use super::{Allowance, Answer, Config, Place, Priority, Refusal};
use crate::clock::Timestamp;
use crate::jid::Device;
use crate::metrics::DEVICES_MAX;
use crate::store::{DeviceRecord, StoreError};

mod shared;
#[cfg(test)]
mod tests;

pub(super) use shared::Returning;

/// Devices known at once; beyond it those with nothing to remember are forgotten.
const DEVICES_KNOWN_MAX: usize = 10_000;

/// The labels of devices that have none of their own: those that never had an answer, and those beyond [`DEVICES_MAX`].
const NEW: &str = "new";
const OTHER: &str = "other";

/// An instant on both clocks.
#[derive(Clone, Copy, Debug)]
pub(super) struct Now {
    pub(super) steady: Duration,
    pub(super) wall: Timestamp,
}

/// Which bucket a device draws from.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(super) enum LaneId {
    /// The one that unproven devices share.
    New,
    Own(Device),
}

/// Somebody in the queue.
pub(super) struct Waiter {
    pub(super) device: Device,
    pub(super) priority: Priority,
    pub(super) answer: oneshot::Sender<Answer>,
    pub(super) arrived: Duration,
}

/// Of what a lookup is the probe.
#[derive(Clone, Copy, Default, Debug)]
pub(super) struct Probes {
    pub(super) device: bool,
    pub(super) gateway: bool,
}

/// A lookup that may start.
pub(super) struct Started {
    pub(super) device: Device,
    pub(super) priority: Priority,
    pub(super) probes: Probes,
    pub(super) answer: oneshot::Sender<Answer>,
    pub(super) stood: Stood,
}

/// Where somebody stood who was let through, and since when.
#[derive(Clone, Copy, Debug)]
pub(super) struct Stood {
    pub(super) turn: Turn,
    pub(super) arrived: Duration,
}

/// The present levels, for metrics.
pub(super) struct Levels {
    pub(super) gateway_refuses: bool,
    pub(super) waiting: usize,
    pub(super) tokens: Vec<(String, f64)>,
    /// Lookups per second that are allowed.
    pub(super) rates: Vec<(String, f64)>,
    pub(super) cooling: Vec<(String, Duration)>,
}

pub(super) struct Ledger {
    pub(super) config: Config,
    pub(super) devices: HashMap<Device, DeviceState>,
    pub(super) lanes: HashMap<LaneId, Lane<Waiter>>,
    /// The gateway refuses the proxy's own credentials.
    pub(super) gateway: Option<Hold>,
    seats: Seat,
    /// Whether others share the store, and so its buckets.
    is_shared: bool,
    /// What this replica may use without it.
    share: Share,
    /// How many devices are too many.
    forget_at: usize,
    /// The devices that appear by label in the metrics: the first that there were, so that series neither come and go nor become
    /// many.
    labelled: HashSet<Device>,
}

impl LaneId {
    fn device(&self) -> Option<&Device> {
        match self {
            Self::New => None,
            Self::Own(device) => Some(device),
        }
    }
}

impl Ledger {
    pub(super) fn new(config: Config, is_shared: bool) -> Self {
        let (devices, lanes) = (HashMap::new(), HashMap::new());
        let labelled = HashSet::new();
        Self {
            config,
            devices,
            lanes,
            gateway: None,
            seats: 0,
            is_shared,
            share: Share::default(),
            forget_at: DEVICES_KNOWN_MAX,
            labelled,
        }
    }

    /// Whether what the store remembers of `device` is known here.
    pub(super) fn knows(&self, device: &Device) -> bool {
        self.devices.get(device).is_some_and(|known| !known.is_unread())
    }

    /// What is to be remembered of `device`.
    pub(super) fn record(&self, device: &Device) -> Option<DeviceRecord> {
        self.devices.get(device).map(DeviceState::record)
    }

    /// Meets a device of which the store remembers this; an error is a store that failed.
    pub(super) fn meet(&mut self, device: &Device, remembered: Result<Option<DeviceRecord>, StoreError>, now: Now) {
        if self.devices.len() >= self.forget_at {
            self.forget_idle(now);
        }
        match (self.devices.entry(device.clone()), remembered) {
            (Entry::Vacant(place), Ok(record)) => {
                place.insert(DeviceState::load(record, now.wall, now.steady));
            }
            (Entry::Vacant(place), Err(_)) => {
                place.insert(DeviceState::unread());
            }
            (Entry::Occupied(mut known), Ok(record)) if known.get().is_unread() => {
                let was_proven = known.get().is_proven();
                known.get_mut().recall(record, now.wall, now.steady);
                if known.get().is_proven() && !was_proven {
                    self.move_out(device, now);
                }
            }
            (Entry::Occupied(_), _) => {}
        }
    }

    /// Forgets devices for which nobody waits and that have nothing under way: those that never had an answer first, because
    /// anybody can invent as many of them as there are names.
    fn forget_idle(&mut self, now: Now) {
        let Self { devices, lanes, .. } = self;
        lanes.retain(|id, lane| *id == LaneId::New || !lane.is_idle());
        let waiting: HashSet<Device> =
            lanes.get(&LaneId::New).into_iter().flat_map(Lane::waiters).map(|waiter| waiter.device.clone()).collect();
        let kept = |device: &Device, known: &DeviceState| {
            !known.is_idle(now.steady) || waiting.contains(device) || lanes.contains_key(&LaneId::Own(device.clone()))
        };
        devices.retain(|device, known| known.is_proven() || kept(device, known));
        if devices.len() > DEVICES_KNOWN_MAX / 2 {
            devices.retain(|device, known| kept(device, known));
        }
        // What cannot be forgotten now is not gone through again for every name that comes.
        self.forget_at = DEVICES_KNOWN_MAX.max(self.devices.len() * 2);
    }

    /// Devices and lanes that are known.
    #[cfg(test)]
    pub(super) fn sizes(&self) -> (usize, usize) {
        (self.devices.len(), self.lanes.len())
    }

    pub(super) fn waiting(&self) -> usize {
        self.lanes.values().map(Lane::waiting).sum()
    }

    pub(super) fn gateway_refuses(&self, now: Now) -> bool {
        self.gateway.as_ref().is_some_and(|hold| matches!(hold.ask(now.steady), Held::Answer(..)))
    }

    /// By the wall clock as it goes now, or as it went then if that is earlier: a clock that was set must not make an old
    /// success a late one.
    pub(super) fn succeeded_at(&self, device: &Device, now: Now) -> Option<Timestamp> {
        let then = self.devices.get(device)?.succeeded_at?;
        Some(then.wall.min(now.wall - now.steady.saturating_sub(then.steady)))
    }

    /// A device that now has a lane of its own takes along those who wait for it, what is under way and what the shared bucket
    /// had saved up: two buckets at once would be twice the rate.
    pub(super) fn move_out(&mut self, device: &Device, now: Now) {
        let own = LaneId::Own(device.clone());
        if self.lanes.contains_key(&own) {
            return;
        }
        let limits = self.limits(&LaneId::New, now);
        if let Some(shared) = self.lanes.get_mut(&LaneId::New) {
            shared.fill(now.steady, limits);
            let known = self.devices.get(device);
            let (running, reserved) = known.map_or((0, 0), |known| (known.running, known.reserved));
            let lane = shared.split_off(running, reserved, |waiter| waiter.device == *device);
            self.lanes.insert(own, lane);
        }
    }

    pub(super) fn lane_of(&self, device: &Device) -> LaneId {
        match self.devices.get(device) {
            Some(known) if known.is_proven() => LaneId::Own(device.clone()),
            _ => LaneId::New,
        }
    }

    /// What may pass a lane's bucket now: a device that was rate limited gets a share of the configured rate.
    fn limits(&self, lane: &LaneId, now: Now) -> Limits {
        let known = lane.device().and_then(|device| self.devices.get(device));
        let part = if self.is_shared { 1.0 - KEPT_OUT } else { 1.0 };
        Limits {
            rate: self.config.rate * part * known.map_or(1.0, |known| known.share(now.wall)),
            burst: f64::from(self.config.burst.max(1)),
            concurrency: self.config.concurrency.max(1) as usize,
        }
    }

    /// Lookups per second that a device is allowed now.
    pub(super) fn rate(&self, device: &Device, now: Now) -> f64 {
        self.limits(&self.lane_of(device), now).rate
    }

    /// A lane, begun if need be, and filled.
    fn lane(&mut self, id: LaneId, now: Now, limits: Limits) -> &mut Lane<Waiter> {
        let is_shared = self.is_shared;
        let lane = self.lanes.entry(id).or_insert_with(|| {
            if is_shared { Lane::of_a_shared_bucket(now.steady, limits) } else { Lane::new(now.steady) }
        });
        lane.fill(now.steady, limits);
        lane
    }

    /// Why nothing can start for `device` before some time, if that is so.
    pub(super) fn blocked(&self, device: &Device, now: Now) -> Option<Refusal> {
        self.objection(device, Probes::default(), now)
    }

    /// Why a lookup cannot start that is the probe of these: what it probes does not stop it.
    pub(super) fn objection(&self, device: &Device, probes: Probes, now: Now) -> Option<Refusal> {
        let known = self.devices.get(device);
        if let Some(retry_after) = known.and_then(|known| known.cooling(now.steady)) {
            return Some(Refusal::CoolingDown { retry_after });
        }
        let gateway = self.gateway.as_ref().filter(|_| !probes.gateway);
        let device = known.and_then(|known| known.hold.as_ref()).filter(|_| !probes.device);
        [gateway, device].into_iter().flatten().find_map(|hold| match hold.ask(now.steady) {
            Held::Answer(failure, retry_after) => Some(Refusal::Held { failure, retry_after }),
            Held::Probe => None,
        })
    }

    /// Puts somebody into the queue; whoever is let through later is answered.
    pub(super) fn enqueue(
        &mut self,
        device: &Device,
        priority: Priority,
        patience: Duration,
        answer: oneshot::Sender<Answer>,
        now: Now,
    ) -> Result<Place, Refusal> {
        if let Some(refusal) = self.blocked(device, now) {
            return Err(refusal);
        }
        let id = self.lane_of(device);
        let limits = self.limits(&id, now);
        self.seats += 1;
        let seat = self.seats;
        let lane = self.lane(id, now, limits);
        let wait = lane.estimate(now.steady, priority, limits);
        if wait > patience {
            return Err(Refusal::Spent { retry_after: wait });
        }
        let waiter = Waiter { device: device.clone(), priority, answer, arrived: now.steady };
        lane.enqueue(now.steady, priority, seat, waiter);
        Ok(Place { device: device.clone(), seat })
    }

    pub(super) fn promote(&mut self, place: &Place, priority: Priority, now: Now) {
        if let Some(lane) = self.lanes.get_mut(&self.lane_of(&place.device)) {
            lane.promote(now.steady, priority, place.seat);
        }
    }

    pub(super) fn leave(&mut self, place: &Place) -> Option<Waiter> {
        self.lanes.get_mut(&self.lane_of(&place.device))?.leave(place.seat)
    }

    /// How much of its budget a device has left.
    pub(super) fn allowance(&mut self, device: &Device, now: Now) -> Allowance {
        let id = self.lane_of(device);
        let Limits { rate, burst, .. } = self.limits(&id, now);
        let tokens = self.tokens(&id, now);
        let refill = Duration::from_secs_f64(((burst - tokens) / rate).clamp(0.0, super::lane::LONGEST_SECONDS));
        let blocked = self.blocked(device, now).map(|refusal| refusal.retry_after());
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "between 0 and the burst")]
        let whole = |tokens: f64| tokens as u64;
        Allowance {
            left: if blocked.is_some() { 0 } else { whole(tokens) },
            resets_after: blocked.unwrap_or(refill),
            burst: whole(burst),
            window: Duration::from_secs_f64((burst / rate).min(super::lane::LONGEST_SECONDS)),
        }
    }

    /// How long somebody who came now would wait at least.
    pub(super) fn estimate(&mut self, device: &Device, priority: Priority, now: Now) -> Duration {
        let id = self.lane_of(device);
        let limits = self.limits(&id, now);
        self.lane(id, now, limits).estimate(now.steady, priority, limits)
    }

    /// Everybody who may start now, and when the next token comes that somebody waits for.
    pub(super) fn pump(&mut self, now: Now) -> (Vec<Started>, Option<Duration>) {
        let ids: Vec<LaneId> =
            self.lanes.iter().filter(|(_, lane)| lane.waiting() > 0).map(|(id, _)| id.clone()).collect();
        let mut next: Option<Duration> = None;
        let mut started = vec![];
        for id in ids {
            let limits = self.limits(&id, now);
            while let Some(lane) = self.lanes.get_mut(&id).filter(|lane| lane.waiting() > 0) {
                lane.fill(now.steady, limits);
                match lane.gate(limits) {
                    Gate::Full => break,
                    Gate::Later(wait) => {
                        next = Some(next.map_or(wait, |next| next.min(wait)));
                        break;
                    }
                    Gate::Open => {}
                }
                let Some((turn, Waiter { device, priority, answer, arrived })) = lane.pop() else { break };
                if answer.is_closed() {
                    continue;
                }
                if let Some(refusal) = self.blocked(&device, now) {
                    let _ = answer.send(Err(refusal));
                    continue;
                }
                let probes = self.let_through(&id, &device);
                started.push(Started { device, priority, probes, answer, stood: Stood { turn, arrived } });
            }
        }
        (started, next)
    }

    /// Lets one through for whom nobody would have to wait.
    pub(super) fn at_once(&mut self, device: &Device, priority: Priority, now: Now) -> Option<(Probes, Stood)> {
        if self.blocked(device, now).is_some() {
            return None;
        }
        let id = self.lane_of(device);
        let limits = self.limits(&id, now);
        let lane = self.lane(id.clone(), now, limits);
        if lane.waiting() > 0 || lane.gate(limits) != Gate::Open {
            return None;
        }
        self.seats += 1;
        let stood = Stood { turn: (now.steady + priority.patience(), self.seats), arrived: now.steady };
        Some((self.let_through(&id, device), stood))
    }

    /// Takes a token and a place for a lookup that may now start.
    fn let_through(&mut self, id: &LaneId, device: &Device) -> Probes {
        if let Some(lane) = self.lanes.get_mut(id) {
            lane.reserve();
        }
        let known = self.devices.entry(device.clone()).or_insert_with(DeviceState::unread);
        known.running += 1;
        known.reserved += 1;
        self.begin_probes(device)
    }

    /// Marks the lookup that may now start as the probe of what is held, and says of what.
    fn begin_probes(&mut self, device: &Device) -> Probes {
        let of_device = self.devices.get_mut(device).and_then(|known| known.hold.as_mut());
        Probes {
            device: of_device.map(Hold::begin_probe).is_some(),
            gateway: self.gateway.as_mut().map(Hold::begin_probe).is_some(),
        }
    }

    /// A lookup that was let through asks the gateway now.
    ///
    /// # Errors
    /// What came between, if it may not.
    pub(super) fn start(&mut self, device: &Device, probes: Probes, now: Now) -> Result<(), Refusal> {
        if let Some(refusal) = self.objection(device, probes, now) {
            return Err(refusal);
        }
        let id = self.lane_of(device);
        let limits = self.limits(&id, now);
        if let (Some(lane), Some(known)) = (self.lanes.get_mut(&id), self.devices.get_mut(device)) {
            lane.fill(now.steady, limits);
            lane.start();
            known.reserved = known.reserved.saturating_sub(1);
        }
        Ok(())
    }

    /// A lookup that was let through has ended; `unused`: it never asked the gateway.
    pub(super) fn end(&mut self, device: &Device, probes: Probes, unused: bool, now: Now) {
        let id = self.lane_of(device);
        let limits = self.limits(&id, now);
        if let (Some(lane), Some(known)) = (self.lanes.get_mut(&id), self.devices.get_mut(device)) {
            lane.fill(now.steady, limits);
            lane.end(unused);
            known.running = known.running.saturating_sub(1);
            known.reserved -= usize::from(unused).min(known.reserved);
        }
        if probes.device
            && let Some(hold) = self.devices.get_mut(device).and_then(|known| known.hold.as_mut())
        {
            hold.abandon_probe();
        }
        if probes.gateway
            && let Some(hold) = &mut self.gateway
        {
            hold.abandon_probe();
        }
    }

    /// By which label a device is counted: its own, or the one of all that never had an answer or that are too many.
    pub(super) fn label(&mut self, device: &Device) -> String {
        if !self.devices.get(device).is_some_and(DeviceState::is_proven) {
            return NEW.to_owned();
        }
        if !self.labelled.contains(device) {
            if self.labelled.len() >= DEVICES_MAX {
                return OTHER.to_owned();
            }
            self.labelled.insert(device.clone());
        }
        device.label()
    }

    /// The present levels.
    pub(super) fn levels(&mut self, now: Now) -> Levels {
        let waiting = self.waiting();
        let proven = self.devices.iter().filter(|(_, known)| known.is_proven()).map(|(device, _)| device);
        let room = DEVICES_MAX - self.labelled.len();
        let newcomers: Vec<Device> =
            proven.filter(|device| !self.labelled.contains(*device)).take(room).cloned().collect();
        self.labelled.extend(newcomers);
        let mut tokens = vec![(NEW.to_owned(), self.tokens(&LaneId::New, now))];
        let mut rates = vec![(NEW.to_owned(), self.limits(&LaneId::New, now).rate)];
        let mut cooling = vec![(NEW.to_owned(), self.longest_cool_down(false, now))];
        if self.labelled.len() == DEVICES_MAX {
            cooling.push((OTHER.to_owned(), self.longest_cool_down(true, now)));
        }
        for device in self.labelled.clone() {
            let label = device.label();
            let left = self.devices.get(&device).and_then(|known| known.cooling(now.steady));
            let lane = LaneId::Own(device);
            let rate = if left.is_some() { 0.0 } else { self.limits(&lane, now).rate };
            cooling.push((label.clone(), left.unwrap_or_default()));
            rates.push((label.clone(), rate));
            tokens.push((label, self.tokens(&lane, now)));
        }
        Levels { gateway_refuses: self.gateway.is_some(), waiting, tokens, rates, cooling }
    }

    /// Among the devices without a label of their own that had an answer, or never had one.
    fn longest_cool_down(&self, proven: bool, now: Now) -> Duration {
        let devices = self.devices.iter().filter(|(device, _)| !self.labelled.contains(*device));
        let cooling = devices.filter(|(_, known)| known.is_proven() == proven);
        cooling.filter_map(|(_, known)| known.cooling(now.steady)).max().unwrap_or_default()
    }

    fn tokens(&mut self, id: &LaneId, now: Now) -> f64 {
        let limits = self.limits(id, now);
        self.lanes.get_mut(id).map_or(0.0, |lane| {
            lane.fill(now.steady, limits);
            lane.tokens()
        })
    }
}
