//! What the budget learns from how a lookup ended: which devices exist, which rest and for how long, whether the gateway takes
//! the proxy's credentials.

use std::time::Duration;

use super::Refusal;
use super::device::{DeviceState, Hold};
use super::ledger::{LaneId, Ledger, Now, Probes, Waiter};
use crate::jid::Device;
use crate::outcome::{Class, Failure, Outcome, Reason};

/// A device that is out of order is probed after this, doubling to [`DEVICE_PROBE_MAX`].
const DEVICE_PROBE: Duration = Duration::from_secs(5);
const DEVICE_PROBE_MAX: Duration = Duration::from_secs(300);

/// A gateway that refuses the proxy's credentials is probed this often.
const GATEWAY_PROBE: Duration = Duration::from_secs(30);

/// What is worth telling of what was learnt.
#[derive(Debug, Default)]
pub(super) struct Lesson {
    /// Whether what is to be remembered of the device changed.
    pub(super) changed: bool,
    /// The length of the cool-down that began.
    pub(super) cool_down: Option<Duration>,
    /// By which label the device is counted.
    pub(super) label: String,
}

impl Ledger {
    /// Applies the end of a lookup that was let start.
    pub(super) fn learn(
        &mut self,
        device: &Device,
        probes: Probes,
        result: &Result<Outcome, Failure>,
        now: Now,
    ) -> Lesson {
        self.learn_of_gateway(probes.gateway, result, now);
        let mut lesson = self.learn_of_device(device, probes.device, result, now);
        if self.devices.get(device).is_some_and(DeviceState::is_proven) {
            self.move_out(device, now);
        }
        if lesson.cool_down.is_some() {
            lesson.label = self.label(device);
        }
        let everybody = matches!(result, Err(failure) if failure.class == Class::Credentials);
        self.refuse_waiting(device, everybody, now);
        lesson
    }

    fn learn_of_gateway(&mut self, probe: bool, result: &Result<Outcome, Failure>, now: Now) {
        match result {
            Err(failure) if failure.class == Class::Credentials => {
                let again = Hold::again(self.gateway.take(), failure, GATEWAY_PROBE, GATEWAY_PROBE, now.steady);
                self.gateway = Some(again);
            }
            Err(Failure { class: Class::Nonsense | Class::Late, .. }) => {
                if let Some(hold) = self.gateway.as_mut().filter(|_| probe) {
                    hold.inconclusive(now.steady);
                }
            }
            _ if probe => self.gateway = None,
            _ => {}
        }
    }

    fn learn_of_device(&mut self, device: &Device, probe: bool, result: &Result<Outcome, Failure>, now: Now) -> Lesson {
        let known = self.devices.entry(device.clone()).or_insert_with(DeviceState::unread);
        let mut lesson = Lesson::default();
        lesson.changed = match result {
            Ok(outcome) => {
                known.hold = None;
                if matches!(outcome, Outcome::Present(_)) {
                    known.succeeded_at = Some(now);
                }
                let exists = !matches!(outcome, Outcome::Negative(no) if no.reason == Reason::Unregistered);
                exists && known.prove()
            }
            Err(Failure { class: Class::RateLimited, .. }) => {
                known.hold = None;
                lesson.cool_down = known.cool_down(&self.config, now.wall, now.steady);
                lesson.cool_down.is_some()
            }
            Err(failure) if failure.class == Class::Device => {
                let again = Hold::again(known.hold.take(), failure, DEVICE_PROBE, DEVICE_PROBE_MAX, now.steady);
                known.hold = Some(again);
                false
            }
            Err(Failure { class: Class::Request, .. }) => {
                known.hold = None;
                false
            }
            Err(_) => {
                if let Some(hold) = known.hold.as_mut().filter(|_| probe) {
                    hold.inconclusive(now.steady);
                }
                false
            }
        };
        lesson
    }

    /// Nobody waits for what cannot come.
    pub(super) fn refuse_waiting(&mut self, device: &Device, everybody: bool, now: Now) {
        let Some(refusal) = self.blocked(device, now) else { return };
        let id = self.lane_of(device);
        if let Refusal::CoolingDown { retry_after } = refusal
            && id != LaneId::New
            && let Some(lane) = self.lanes.get_mut(&id)
        {
            // What would be saved up while cooling down is not to be spent at once afterwards.
            lane.drain(now.steady + retry_after);
        }
        let taken: Vec<Waiter> = if everybody {
            self.lanes.values_mut().flat_map(|lane| lane.take(|_| true)).collect()
        } else {
            self.lanes.get_mut(&id).map(|lane| lane.take(|waiter| waiter.device == *device)).unwrap_or_default()
        };
        for Waiter { device, answer, .. } in taken {
            // Everybody is told what concerns them: other devices do not cool down with this one.
            let refusal = self.blocked(&device, now).unwrap_or_else(|| refusal.clone());
            let _ = answer.send(Err(refusal));
        }
    }
}
