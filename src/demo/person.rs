//! One person, as tests script them.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use super::script::{Address, Reply, Shape};
use super::sign::{file_name, oe_after, oe_at};
use super::world::{Gate, State, World, device};
use crate::clock::Timestamp;
use crate::jid::{Device, Jid};

/// How long to wait for lookups that a test expects (seconds of real time).
pub(super) const PATIENCE: Duration = Duration::from_secs(30);

/// What is known about a person.
pub(super) struct Person {
    picture: PictureId,
    /// Previews show another id than the full picture.
    twin: Option<String>,
    address: Address,
    shape: Option<Shape>,
    /// A number of one's own, from the address.
    pub(super) seed: u64,
    /// What goes wrong by chance goes wrong with others.
    pub(super) lucky: bool,
    pub(super) everyone: Scope,
    pub(super) devices: HashMap<Device, Scope>,
}

/// What is told to whoever asks, or to one device, and how often they asked.
#[derive(Default)]
pub(super) struct Scope {
    in_turn: VecDeque<Reply>,
    then: Option<Reply>,
    gate: Option<Gate>,
    next_gates: VecDeque<Gate>,
    pub(super) lookups: u64,
}

enum PictureId {
    Fixed(String),
    /// Another one each time this has passed, on the wall clock, counted from an offset.
    Turning(Duration, Duration),
}

impl Person {
    pub(super) fn new(jid: &Jid) -> Self {
        let seed = jid
            .user()
            .bytes()
            .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3));
        Self {
            picture: PictureId::Fixed((1_600_000_000 + seed % 100_000_000).to_string()),
            twin: None,
            address: Address::Usual,
            shape: None,
            seed,
            lucky: false,
            everyone: Scope::default(),
            devices: HashMap::new(),
        }
    }

    /// What `device` is told next; `None` when nothing was said about this person.
    pub(super) fn next_reply(&mut self, device: &Device) -> Option<Reply> {
        let Self { devices, everyone, .. } = self;
        devices.get_mut(device).and_then(Scope::next_reply).or_else(|| everyone.next_reply())
    }

    pub(super) fn gates(&mut self, device: &Device) -> Vec<Gate> {
        let Self { devices, everyone, .. } = self;
        devices.get_mut(device).into_iter().chain([everyone]).flat_map(Scope::gates).collect()
    }

    pub(super) fn picture_id(&self, preview: bool, now: Timestamp) -> String {
        match (&self.twin, &self.picture) {
            (Some(twin), _) if preview => twin.clone(),
            (_, PictureId::Fixed(id)) => id.clone(),
            (_, PictureId::Turning(every, offset)) => {
                let whole = |duration: &Duration| i64::try_from(duration.as_millis()).unwrap_or(i64::MAX);
                let (every, offset) = (whole(every).max(1), whole(offset));
                let turn = (now.as_millis() - offset).div_euclid(every);
                (turn.saturating_mul(every).saturating_add(offset) / 1000).to_string()
            }
        }
    }

    pub(super) fn url(&self, jid: &str, id: &str, preview: bool, world: &World) -> String {
        let options = &world.options;
        let now = world.clock.now();
        let oe = match &self.address {
            Address::Text(text) => return text.clone(),
            Address::Missing => return String::new(),
            Address::WithoutExpiry => None,
            Address::UnreadableExpiry => Some("soon".to_owned()),
            Address::Until(until) => Some(oe_at(*until)),
            Address::Lasting(lifetime) => Some(oe_after(now, *lifetime, options.expiry_step)),
            Address::Usual => {
                // Everybody has a share of their own, so that not all URLs die at once.
                let (least, most) = (*options.url_lifetime.start(), *options.url_lifetime.end());
                let share = u32::try_from(self.seed % 1000).unwrap_or_default();
                Some(oe_after(now, least + most.saturating_sub(least) * share / 1000, options.expiry_step))
            }
        };
        let shape = self.shape.unwrap_or(options.shape);
        world.signer.sign(&file_name(jid, id), preview, oe.as_deref(), shape)
    }
}

impl Scope {
    fn next_reply(&mut self) -> Option<Reply> {
        self.in_turn.pop_front().or_else(|| self.then.clone())
    }

    fn gates(&mut self) -> Vec<Gate> {
        let next = std::iter::from_fn(|| self.next_gates.pop_front()).find(Gate::is_held);
        self.gate.iter().cloned().chain(next).collect()
    }
}

/// A person at the gateway, to be scripted and watched. Everything takes effect for lookups that arrive from then on.
///
/// What arranges something gives the handle back, so that one line does: `let ada = gateway.person("1").picture("17");`
///
/// Who was never scripted is a stranger, and answered as [`super::Options::strangers`] says.
#[derive(Clone)]
pub struct PersonHandle {
    world: Arc<World>,
    jid: Jid,
    /// Replies, holds and counts are about this device only.
    device: Option<Device>,
}

#[expect(
    clippy::must_use_candidate,
    clippy::return_self_not_must_use,
    reason = "said for its effect; the handle is a convenience"
)]
impl PersonHandle {
    pub(super) fn new(world: Arc<World>, jid: Jid) -> Self {
        Self { world, jid, device: None }
    }

    /// The person's canonical address.
    pub fn jid(&self) -> Jid {
        self.jid
    }

    /// The same person as one device sees them: replies and holds given to this handle are for that device only and come before
    /// those for everybody, and its counts are that device's. The picture stays the same for all.
    pub fn seen_by(&self, name: &str) -> Self {
        Self { device: Some(device(name)), ..self.clone() }
    }

    /// Answers so from now on. What was to come in turn is forgotten.
    pub fn replies(&self, reply: Reply) -> Self {
        self.replies_in_turn([], reply)
    }

    /// Answers these in turn, one for each lookup, and then always the last one.
    pub fn replies_in_turn(&self, in_turn: impl IntoIterator<Item = Reply>, then: Reply) -> Self {
        self.scope(|scope| {
            scope.in_turn = in_turn.into_iter().collect();
            scope.then = Some(then);
        });
        self.clone()
    }

    /// Answers the next lookup so, after those already announced, and then goes on as before.
    pub fn replies_once(&self, reply: Reply) -> Self {
        self.scope(|scope| scope.in_turn.push_back(reply));
        self.clone()
    }

    /// Has this picture: a person without a script becomes present; a person with one has it as soon as the script shows one.
    pub fn picture(&self, id: &str) -> Self {
        self.person(|person| {
            person.picture = PictureId::Fixed(id.to_owned());
            person.everyone.then.get_or_insert(Reply::Present);
        });
        self.clone()
    }

    /// Changes the picture by itself, each time this has passed on the wall clock. Its id is the time of its last change, in
    /// Unix seconds, as WhatsApp's are.
    pub fn picture_turns(&self, every: Duration) -> Self {
        self.person(|person| {
            let millis = u64::try_from(every.as_millis()).unwrap_or(u64::MAX).max(1);
            person.picture = PictureId::Turning(every, Duration::from_millis(person.seed % millis));
            person.everyone.then.get_or_insert(Reply::Present);
        });
        self.clone()
    }

    /// Previews show this id instead of the full picture's; `None` ends that.
    pub fn preview_picture(&self, id: Option<&str>) -> Self {
        self.person(|person| person.twin = id.map(str::to_owned));
        self.clone()
    }

    /// Gives pictures addresses of this kind.
    pub fn address(&self, address: Address) -> Self {
        self.person(|person| person.address = address);
        self.clone()
    }

    /// Writes signed addresses in this shape.
    pub fn shape(&self, shape: Shape) -> Self {
        self.person(|person| person.shape = Some(shape));
        self.clone()
    }

    /// Is spared what goes wrong by chance ([`super::Options::troubles`]).
    pub fn spared_trouble(&self) -> Self {
        self.person(|person| person.lucky = true);
        self.clone()
    }

    /// The id of the full picture at this moment, whatever the script says.
    pub fn picture_id(&self) -> String {
        let now = self.world.clock.now();
        self.person(|person| person.picture_id(false, now))
    }

    /// Keeps every lookup that arrives from now on waiting, its answer already settled, until the guard is dropped.
    #[must_use = "a hold ends when its guard is dropped"]
    pub fn hold(&self) -> Hold {
        Hold::new(self.scope(|scope| scope.gate.get_or_insert_default().clone()))
    }

    /// Keeps the next lookup waiting, and no other. Can be said several times, for the next few, one by one.
    #[must_use = "a hold ends when its guard is dropped"]
    pub fn hold_next(&self) -> Hold {
        let hold = Hold::new(Gate::default());
        self.scope(|scope| scope.next_gates.push_back(hold.0.clone()));
        hold
    }

    /// Lookups that have arrived.
    pub fn lookups(&self) -> u64 {
        self.scope(|scope| scope.lookups)
    }

    /// Waits until `n` lookups have arrived, counted from the gateway's start; they need not have been answered.
    ///
    /// # Panics
    /// When they do not arrive within 30 s.
    pub async fn arrived(&self, n: u64) {
        let count = |state: &State| {
            let person = state.people.get(&self.jid);
            match &self.device {
                None => person.map(|person| &person.everyone),
                Some(device) => person.and_then(|person| person.devices.get(device)),
            }
            .map_or(0, |scope| scope.lookups)
        };
        let arrived = self.world.until(|state| count(state) >= n);
        assert!(
            tokio::time::timeout(PATIENCE, arrived).await.is_ok(),
            "{} of {n} expected lookups of {:?} arrived",
            count(&self.world.state()),
            self.jid
        );
    }

    fn person<R>(&self, change: impl FnOnce(&mut Person) -> R) -> R {
        change(self.world.state().people.entry(self.jid).or_insert_with(|| Person::new(&self.jid)))
    }

    fn scope<R>(&self, change: impl FnOnce(&mut Scope) -> R) -> R {
        self.person(|person| match &self.device {
            None => change(&mut person.everyone),
            Some(device) => change(person.devices.entry(device.clone()).or_default()),
        })
    }
}

/// Keeps lookups waiting while it lives.
pub struct Hold(Gate);

impl Hold {
    pub(super) fn new(gate: Gate) -> Self {
        gate.hold();
        Self(gate)
    }

    /// Lets them go.
    pub fn release(self) {}
}

impl Drop for Hold {
    fn drop(&mut self) {
        self.0.release();
    }
}
