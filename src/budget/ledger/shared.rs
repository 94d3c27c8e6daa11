//! The ledger of a replica: what it asks of the budget that it shares with others, and what it makes of the answers.

use std::time::Duration;

use tokio::sync::oneshot;

use super::{LaneId, Ledger, Now, Probes, Stood, Waiter};
use crate::budget::device::DeviceState;
use crate::budget::reserve::{KEPT_OUT, Share};
use crate::budget::{Answer, Place, Priority};
use crate::jid::Device;
use crate::store::{Draft, Drawn, KnownDevice, Lesson};

/// Who waits for the reserve asks the store again after this time: it may be back.
const ASK_AGAIN: Duration = Duration::from_secs(1);

/// When to come back if there is nothing in reserve.
const NO_RESERVE: Duration = Duration::from_secs(30);

/// One who was let through, and for whom there was no token after all.
pub(in crate::budget) struct Returning {
    pub(in crate::budget) device: Device,
    pub(in crate::budget) priority: Priority,
    pub(in crate::budget) probes: Probes,
    pub(in crate::budget) stood: Stood,
}

impl Ledger {
    /// What a look of `device` draws.
    pub(in crate::budget) fn draft(&self, device: &Device, place: u64, lease: Duration, now: Now) -> Draft {
        let lane = self.lane_of(device);
        Draft {
            device: device.clone(),
            is_own: lane != LaneId::New,
            version: self.devices.get(device).and_then(DeviceState::version),
            rate: self.limits(&lane, now).rate,
            burst: self.config.burst.max(1),
            concurrency: self.config.concurrency.max(1),
            place,
            lease,
        }
    }

    /// Hears what all replicas know of a device; true if they are to be taught.
    pub(in crate::budget) fn hear(&mut self, device: &Device, known: &KnownDevice, now: Now) -> bool {
        if self.devices.len() >= self.forget_at {
            self.forget_idle(now);
        }
        let here = self.devices.entry(device.clone()).or_default();
        let was_proven = here.is_proven();
        let is_news = here.hear(known, now.wall, now.steady);
        if here.is_proven() && !was_proven {
            self.move_out(device, now);
        }
        self.refuse_waiting(device, false, now);
        is_news
    }

    /// What is to be made known of a device.
    pub(in crate::budget) fn lesson(&self, device: &Device, now: Now) -> Option<Lesson> {
        let known = self.devices.get(device)?;
        let cooling = known.cooling(now.steady).unwrap_or_default();
        Some(Lesson { device: device.clone(), version: known.version(), record: known.record(), cooling })
    }

    /// What is known here is known to all, as this version; or that is not certain any more.
    pub(in crate::budget) fn set_version(&mut self, device: &Device, version: Option<u64>) {
        if let Some(known) = self.devices.get_mut(device) {
            known.set_version(version);
        }
    }

    /// The store has lost something: nothing that it knew is certain. Returns the devices that cool down.
    pub(in crate::budget) fn forget_versions(&mut self, now: Now) -> Vec<Device> {
        self.devices.values_mut().for_each(|known| known.set_version(None));
        let cooling = self.devices.iter().filter(|(_, known)| known.cooling(now.steady).is_some());
        cooling.map(|(device, _)| device.clone()).collect()
    }

    /// Puts somebody back to where it stood; the next token comes after `wait`.
    pub(in crate::budget) fn put_back(
        &mut self,
        returning: Returning,
        wait: Duration,
        answer: oneshot::Sender<Answer>,
        now: Now,
    ) -> Place {
        let Returning { device, priority, probes, stood } = returning;
        self.end(&device, probes, true, now);
        let id = self.lane_of(&device);
        let limits = self.limits(&id, now);
        let lane = self.lane(id, now, limits);
        lane.expect(wait, limits);
        lane.put_back(stood.turn, Waiter { device: device.clone(), priority, answer, arrived: stood.arrived });
        Place { device, seat: stood.turn.1 }
    }

    /// The next token of a device's lane comes after `wait`.
    pub(in crate::budget) fn expect(&mut self, device: &Device, wait: Duration, now: Now) {
        let id = self.lane_of(device);
        let limits = self.limits(&id, now);
        self.lane(id, now, limits).expect(wait, limits);
    }

    /// Takes a token out of the reserve, if there is one.
    pub(in crate::budget) fn draw_from_reserve(&mut self, device: &Device, now: Now) -> Drawn {
        let id = self.lane_of(device);
        let (limits, rate) = (self.limits(&id, now), self.reserve_rate(&id, now));
        let reserve = self.lane(id, now, limits).reserve_mut();
        reserve.fill(now.steady, rate);
        if reserve.take() {
            Drawn::Booked
        } else if rate > 0.0 {
            let wait = (reserve.missing() / rate).min(crate::budget::lane::LONGEST_SECONDS);
            Drawn::Later(Duration::from_secs_f64(wait))
        } else {
            Drawn::Later(NO_RESERVE)
        }
    }

    /// How long to wait in the queue where the reserve says so.
    pub(in crate::budget) fn wait_for_reserve(wait: Duration) -> Duration {
        wait.min(ASK_AGAIN)
    }

    /// This replica's share of the reserve now.
    pub(in crate::budget) fn share(&self, now: Now) -> f64 {
        self.share.at(now.steady)
    }

    /// Has another share from now on.
    pub(in crate::budget) fn set_share(&mut self, share: Share, now: Now) {
        let ids: Vec<LaneId> = self.lanes.keys().cloned().collect();
        for id in ids {
            // What was gained up to now was gained by the old one.
            let rate = self.reserve_rate(&id, now);
            if let Some(lane) = self.lanes.get_mut(&id) {
                lane.reserve_mut().fill(now.steady, rate);
                if share.at(now.steady) <= 0.0 {
                    lane.reserve_mut().drain(now.steady);
                }
            }
        }
        self.share = share;
    }

    fn reserve_rate(&self, id: &LaneId, now: Now) -> f64 {
        self.limits(id, now).rate / (1.0 - KEPT_OUT) * KEPT_OUT * self.share.at(now.steady)
    }
}
