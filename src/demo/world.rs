//! Everything the simulated gateway knows, and what it decides.
//!
//! A lookup is counted and answered in one step under one lock: what it will be told is settled when it arrives, as with an
//! answer already under way. Waiting, for latency or for a test that holds it, comes after that and changes nothing.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{Notify, watch};

use super::person::Person;
use super::reply::Facts;
use super::script::Reply;
use super::sign::Signer;
use super::wire::Answer;
use super::{Allowance, DeviceState, Devices, Lookup, Mode, Options};
use crate::clock::Clock;
use crate::jid::{Device, Jid, JidError};

/// Devices with an allowance of their own; beyond it the idle ones are forgotten.
const DEVICES_WITH_ALLOWANCE: usize = 1_000;

pub(super) struct World {
    pub(super) clock: Clock,
    pub(super) options: Options,
    pub(super) signer: Signer,
    state: Mutex<State>,
    /// Something was counted.
    moved: Notify,
}

pub(super) struct State {
    pub(super) people: HashMap<Jid, Person>,
    pub(super) mode: Mode,
    pub(super) devices: Devices,
    pub(super) conditions: HashMap<Device, DeviceState>,
    pub(super) credentials: Vec<(String, String)>,
    pub(super) allowance: Option<Allowance>,
    pub(super) strangers: Reply,
    pub(super) gate: Gate,
    pub(super) log: VecDeque<Lookup>,
    pub(super) lookups: u64,
    pub(super) in_flight: usize,
    pub(super) max_in_flight: usize,
    pub(super) connections: u64,
    pub(super) open_connections: usize,
    pub(super) picture_requests: u64,
    /// Strangers and devices that are known only because they were met.
    met: usize,
    spent: HashMap<Device, VecDeque<Duration>>,
    dice: fastrand::Rng,
}

/// A request for an avatar, as far as it could be read.
pub(super) struct Asked {
    /// `phone` as it was given.
    pub(super) phone: String,
    pub(super) jid: Result<Jid, JidError>,
    /// The device's name as it was given.
    pub(super) device: String,
    /// A boolean that could not be read: its parameter.
    pub(super) unreadable: Option<&'static str>,
    pub(super) preview: bool,
    pub(super) community: bool,
    /// Whether the caller's password is right.
    pub(super) authorized: bool,
}

/// What was decided about a lookup.
pub(super) struct Decision {
    pub(super) answer: Answer,
    pub(super) latency: Duration,
    pub(super) gates: Vec<Gate>,
    /// Kept for as long as the lookup is under way.
    pub(super) visit: Visit,
}

/// A lookup under way.
pub(super) struct Visit(Arc<World>);

impl Drop for Visit {
    fn drop(&mut self) {
        self.0.change(|state| state.in_flight -= 1);
    }
}

/// A place where lookups wait while anybody holds it.
#[derive(Clone, Default)]
pub(super) struct Gate(Arc<watch::Sender<usize>>);

impl Gate {
    pub(super) fn hold(&self) {
        self.0.send_modify(|holders| *holders += 1);
    }

    pub(super) fn release(&self) {
        self.0.send_modify(|holders| *holders -= 1);
    }

    pub(super) fn is_held(&self) -> bool {
        *self.0.borrow() > 0
    }

    pub(super) async fn passed(&self) {
        // Fails only when the sender is gone, and this is one.
        let _ = self.0.subscribe().wait_for(|holders| *holders == 0).await;
    }
}

impl World {
    pub(super) fn new(mut options: Options, authority: &str, clock: Clock) -> Self {
        options.base_path.truncate(options.base_path.trim_end_matches('/').len());
        let base = options.public_url.clone().unwrap_or_else(|| format!("http://{authority}"));
        let state = State {
            people: HashMap::new(),
            mode: Mode::Normal,
            devices: options.devices.clone(),
            conditions: HashMap::new(),
            credentials: options.credentials.clone(),
            allowance: options.allowance,
            strangers: options.strangers.clone(),
            gate: Gate::default(),
            log: VecDeque::new(),
            lookups: 0,
            in_flight: 0,
            max_in_flight: 0,
            connections: 0,
            open_connections: 0,
            picture_requests: 0,
            met: 0,
            spent: HashMap::new(),
            dice: fastrand::Rng::with_seed(options.seed),
        };
        let signer = Signer::new(options.seed, base.trim_end_matches('/').to_owned());
        Self { clock, options, signer, state: Mutex::new(state), moved: Notify::new() }
    }

    /// A test that panicked while it held the lock has left nothing half-done.
    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes something that somebody may be waiting for.
    pub(super) fn change<R>(&self, change: impl FnOnce(&mut State) -> R) -> R {
        let result = change(&mut self.state());
        self.moved.notify_waiters();
        result
    }

    /// Waits until `reached` holds.
    pub(super) async fn until(&self, reached: impl Fn(&State) -> bool) {
        loop {
            let moved = self.moved.notified();
            tokio::pin!(moved);
            moved.as_mut().enable();
            if reached(&self.state()) {
                return;
            }
            moved.await;
        }
    }

    /// Counts a lookup and settles what becomes of it.
    pub(super) fn look_up(self: &Arc<Self>, asked: &Asked) -> Decision {
        self.change(|state| {
            state.count(self, asked);
            let reply = state.judge(self, asked);
            let (reply, latency) = state.settle(self, reply);
            Decision {
                answer: state.render(self, asked, &reply),
                latency,
                gates: state.gates(asked),
                visit: Visit(Arc::clone(self)),
            }
        })
    }

    /// How a device is, as the gateway itself knows it: no lookup, and counted as none.
    pub(super) fn status(self: &Arc<Self>, asked: &Asked) -> Answer {
        let state = self.state();
        let condition = state.conditions.get(&state.account(asked)).copied().unwrap_or(DeviceState::Connected);
        let reply = match (&state.mode, &state.refusal(asked), condition) {
            (Mode::Everybody(reply), _, _) | (_, Some(reply), _) => reply.clone(),
            (_, None, DeviceState::WithoutSession) => Reply::NoSession,
            (_, None, condition) => Reply::json(
                200,
                format!(
                    r#"{{"code":"SUCCESS","message":"Connection status retrieved","results":{{"device_id":"","is_connected":{},"is_logged_in":{}}}}}"#,
                    condition == DeviceState::Connected,
                    condition != DeviceState::LoggedOut,
                ),
            ),
        };
        state.render(self, asked, &reply)
    }
}

impl State {
    fn count(&mut self, world: &World, asked: &Asked) {
        self.lookups += 1;
        self.in_flight += 1;
        self.max_in_flight = self.max_in_flight.max(self.in_flight);
        let device = self.account(asked);
        if let Ok(jid) = asked.jid {
            self.count_person(jid, &device, world.options.remember);
        }
        if self.log.len() >= world.options.remember {
            self.log.pop_front();
        }
        self.log.push_back(Lookup {
            at: world.clock.now(),
            elapsed: world.clock.elapsed(),
            device,
            jid: asked.jid.ok(),
            preview: asked.preview,
            community: asked.community,
        });
    }

    /// Counts a lookup of one person. Strangers and devices met for the first time are remembered up to a limit only.
    fn count_person(&mut self, jid: Jid, device: &Device, limit: usize) {
        if !self.people.contains_key(&jid) {
            if self.met >= limit {
                return;
            }
            self.met += 1;
        }
        let person = self.people.entry(jid).or_insert_with(|| Person::new(&jid));
        person.everyone.lookups += 1;
        if !person.devices.contains_key(device) {
            if self.met >= limit {
                return;
            }
            self.met += 1;
        }
        person.devices.entry(device.clone()).or_default().lookups += 1;
    }

    /// The account that asks: the device named, or the only one there is.
    fn account(&self, asked: &Asked) -> Device {
        match &self.devices {
            Devices::Known(known) if asked.device.is_empty() && known.len() == 1 => device(&known[0]),
            _ => device(&asked.device),
        }
    }

    /// The first objection on the way that a request takes through the gateway, or else what the person's script says.
    fn judge(&mut self, world: &World, asked: &Asked) -> Reply {
        if let Mode::Everybody(reply) = &self.mode {
            return reply.clone();
        }
        if let Some(refusal) = self.refusal(asked) {
            return refusal;
        }
        if let Some(parameter) = asked.unreadable {
            return Reply::Internal(format!("failed to decode: schema: error converting value for \"{parameter}\""));
        }
        let jid = match asked.jid {
            Ok(jid) => jid,
            Err(JidError::Blank) => return Reply::Blank,
            Err(_) => return Reply::InvalidJid,
        };
        let device = self.account(asked);
        match self.conditions.get(&device) {
            Some(DeviceState::LoggedOut) => return Reply::LoggedOut,
            Some(DeviceState::Offline) => return Reply::NotConnected,
            Some(DeviceState::WithoutSession) => return Reply::NoSession,
            Some(DeviceState::Connected) | None => {}
        }
        if !self.may_ask(&device, world.clock.elapsed()) {
            return Reply::RateLimited;
        }
        let lucky = self.people.get(&jid).is_some_and(|person| person.lucky);
        for trouble in world.options.troubles.iter().filter(|_| !lucky) {
            if self.dice.u32(0..trouble.one_in.max(1)) == 0 {
                return trouble.reply.clone();
            }
        }
        self.people
            .get_mut(&jid)
            .and_then(|person| person.next_reply(&device))
            .unwrap_or_else(|| self.strangers.clone())
    }

    /// Why nobody is asked, whatever the request is about.
    fn refusal(&self, asked: &Asked) -> Option<Reply> {
        if !asked.authorized {
            return Some(Reply::Unauthorized);
        }
        match &self.devices {
            Devices::Known(known) if asked.device.is_empty() => (known.len() != 1).then_some(Reply::DeviceIdRequired),
            Devices::Known(known) => (!known.contains(&asked.device)).then_some(Reply::DeviceNotFound),
            Devices::Any => None,
        }
    }

    /// Spends one of the device's allowance, if there is one left.
    fn may_ask(&mut self, device: &Device, now: Duration) -> bool {
        let Some(allowance) = self.allowance else { return true };
        let recent = |spent: &VecDeque<Duration>| spent.back().is_some_and(|last| now < *last + allowance.per);
        if self.spent.len() >= DEVICES_WITH_ALLOWANCE && !self.spent.contains_key(device) {
            self.spent.retain(|_, spent| recent(spent));
        }
        let spent = self.spent.entry(device.clone()).or_default();
        while spent.front().is_some_and(|first| now >= *first + allowance.per) {
            spent.pop_front();
        }
        if spent.len() >= allowance.lookups {
            return false;
        }
        spent.push_back(now);
        true
    }

    /// Throws the dice, and picks the latency.
    fn settle(&mut self, world: &World, mut reply: Reply) -> (Reply, Duration) {
        let micros = |duration: &Duration| u64::try_from(duration.as_micros()).unwrap_or(u64::MAX);
        let usual = &world.options.latency;
        let (least, most) = (micros(usual.start()), micros(usual.end()));
        let mut latency = Duration::from_micros(self.dice.u64(least..=most.max(least)));
        loop {
            reply = match reply {
                Reply::After(delay, reply) => {
                    latency = delay;
                    *reply
                }
                Reply::OneIn(n, odd, otherwise) => {
                    if self.dice.u32(0..n.max(1)) == 0 {
                        *odd
                    } else {
                        *otherwise
                    }
                }
                settled => return (settled, latency),
            };
        }
    }

    fn render(&self, world: &World, asked: &Asked, reply: &Reply) -> Answer {
        let (mut jid, mut id, mut url) = (asked.phone.clone(), String::new(), String::new());
        if let Ok(known) = asked.jid {
            jid = known.to_string();
            let stranger;
            let person = if let Some(person) = self.people.get(&known) {
                person
            } else {
                stranger = Person::new(&known);
                &stranger
            };
            id = person.picture_id(asked.preview, world.clock.now());
            url = person.url(&jid, &id, asked.preview, world);
        }
        let null_results = world.options.null_results;
        let (url, id) = (url.as_str(), id.as_str());
        Facts { jid: &jid, device: &asked.device, url, id, preview: asked.preview, null_results }.answer(reply)
    }

    fn gates(&mut self, asked: &Asked) -> Vec<Gate> {
        let device = self.account(asked);
        let person = asked.jid.ok().and_then(|jid| self.people.get_mut(&jid));
        let held = person.map(|person| person.gates(&device)).unwrap_or_default();
        std::iter::once(self.gate.clone()).chain(held).filter(Gate::is_held).collect()
    }

    /// Whether these credentials are right; with none configured any are.
    pub(super) fn authorizes(&self, given: Option<(&str, &str)>) -> bool {
        self.credentials.is_empty()
            || given.is_some_and(|(user, password)| self.credentials.iter().any(|(u, p)| u == user && p == password))
    }
}

/// A device's name; one that is too long to be any device's is as good as none.
pub(super) fn device(name: &str) -> Device {
    Device::new(name).unwrap_or_default()
}
