//! The gateway of the model: a world of people whose pictures change, and moods in which it answers.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use async_trait::async_trait;
use avatar_proxy::clock::{Clock, Timestamp};
use avatar_proxy::gateway::Lookup;
use avatar_proxy::gateway::failure::{self, Nonsense};
use avatar_proxy::jid::{Device, Key};
use avatar_proxy::outcome::{Class, Envelope, Failure, Negative, Outcome, Picture, Reason};
use tokio::sync::oneshot;

use super::shelf::Shelf;
use super::steps::Mood;
use super::watch::{Look, Watch};

#[derive(Default)]
struct World {
    /// by jid: how often it changed, and why it is not to be seen
    people: HashMap<String, (u64, Option<Reason>)>,
    /// by jid: what is said of somebody, and how often it still is
    odd: HashMap<String, (Reason, usize)>,
    moods: HashMap<Device, Mood>,
    hold: Option<bool>,
    held: Vec<oneshot::Sender<()>>,
    life: Option<Duration>,
    /// negative answers so far: no two have the same text
    negatives: u64,
}

pub(super) struct Script {
    world: Mutex<World>,
    clock: Clock,
    began: Timestamp,
    shelf: Arc<Shelf>,
    watch: Arc<Watch>,
}

/// A lookup that ends when it is dropped, whatever became of it.
struct UnderWay<'a>(&'a Watch, Look);

impl Drop for UnderWay<'_> {
    fn drop(&mut self) {
        self.0.lands(&self.1);
    }
}

/// How every text begins that is about a key's subject.
pub(super) fn whose(key: &Key) -> String {
    format!("{} {} ", key.subject.device.as_str(), key.subject.jid)
}

impl Script {
    pub(super) fn new(clock: Clock, shelf: Arc<Shelf>, watch: Arc<Watch>) -> Self {
        Self { world: Mutex::default(), began: clock.now(), clock, shelf, watch }
    }

    fn world(&self) -> MutexGuard<'_, World> {
        self.world.lock().unwrap()
    }

    pub(super) fn picture(&self, jid: String) {
        let mut world = self.world();
        let person = world.people.entry(jid).or_default();
        *person = (person.0 + 1, None);
    }

    pub(super) fn gone(&self, jid: String, reason: Reason) {
        self.world().people.entry(jid).or_default().1 = Some(reason);
    }

    pub(super) fn odd(&self, jid: String, reason: Reason, times: usize) {
        self.world().odd.insert(jid, (reason, times));
    }

    pub(super) fn mood(&self, device: Device, mood: Mood) {
        self.world().moods.insert(device, mood);
    }

    pub(super) fn urls_live(&self, life: Option<Duration>) {
        self.world().life = life;
    }

    pub(super) fn hold(&self, known: bool) {
        self.world().hold = Some(known);
    }

    pub(super) fn release(&self) {
        let mut world = self.world();
        world.hold = None;
        world.held.clear();
    }

    /// The id of the picture that is to be seen, or why there is none.
    pub(super) fn truth(&self, key: &Key) -> Result<String, Reason> {
        let (number, gone) = self.world().people.get(&key.subject.jid.to_string()).copied().unwrap_or_default();
        gone.map_or_else(|| Ok(format!("{}{number}", whose(key))), Err)
    }

    fn answer(&self, key: &Key) -> Result<Outcome, Failure> {
        let jid = key.subject.jid.to_string();
        let mut world = self.world();
        let ours = |class, retry| {
            let reply = Envelope { status: 500, code: "SCRIPTED".into(), message: "scripted".into(), results: None };
            Err(failure::replayed(class, retry, reply))
        };
        let negative = |world: &mut World, reason| {
            world.negatives += 1;
            let message = format!("{}{reason:?} {}", whose(key), world.negatives).into();
            Ok(Outcome::Negative(Negative { reason, status: 404, code: "NONE".into(), message }))
        };
        match world.moods.get(&key.subject.device).copied().unwrap_or(Mood::Fine) {
            Mood::Fine => {}
            Mood::RateLimited => return Err(failure::rate_limited(429)),
            Mood::DeviceOut => return ours(Class::Device, false),
            Mood::Passing { retry } => return ours(Class::Passing, retry),
            Mood::Nonsense => return Err(failure::nonsense(Nonsense::BrokenOff, None)),
            Mood::Late => return Err(failure::late()),
            Mood::Request => return ours(Class::Request, false),
            Mood::Credentials => return Err(failure::credentials(401)),
            Mood::NobodyRegistered => return negative(&mut world, Reason::Unregistered),
        }
        if let Some((reason, times)) = world.odd.get_mut(&jid).filter(|(_, times)| *times > 0) {
            *times -= 1;
            let reason = *reason;
            return negative(&mut world, reason);
        }
        let life = world.life;
        drop(world);
        let id = match self.truth(key) {
            Ok(id) => id,
            Err(reason) => return negative(&mut self.world(), reason),
        };
        let kind = if key.variant.preview { "preview" } else { "image" };
        // The image host's clock goes right, whatever ours does; the same expiry comes back for a while.
        let now = (self.began + self.clock.elapsed()).as_millis() / 1000;
        let url = match life.map(|life| i64::try_from(life.as_secs()).unwrap()) {
            Some(life) => format!("https://h/{id}/{kind}?oe={:X}", (now / (life / 2) + 2) * (life / 2)),
            None => format!("https://h/{id}/{kind}"),
        };
        Ok(Outcome::Present(Picture::new(&url, &id, kind)))
    }
}

#[async_trait]
impl Lookup for Script {
    async fn lookup(&self, key: &Key) -> Result<Outcome, Failure> {
        self.watch.stirs();
        let under_way = UnderWay(&self.watch, self.watch.starts(key, self.shelf.works()));
        let (known, release) = {
            let mut world = self.world();
            let known = world.hold;
            let release = known.map(|_| {
                let (sender, release) = oneshot::channel();
                world.held.push(sender);
                release
            });
            (known, release)
        };
        let early = (known != Some(false)).then(|| self.answer(key));
        if let Some(release) = release {
            // Whoever lets it go drops the other end.
            let _ = release.await;
        }
        let answer = early.unwrap_or_else(|| self.answer(key));
        let answer = match answer {
            // The client turns these away.
            Ok(Outcome::Present(picture))
                if picture.expires_at().is_some_and(|oe| oe - Duration::from_secs(2) <= self.clock.now()) =>
            {
                Err(failure::nonsense(Nonsense::Expired, Some(200)))
            }
            answer => answer,
        };
        self.watch.stirs();
        self.watch.answers(&under_way.1, &answer, self.shelf.works());
        answer
    }
}
