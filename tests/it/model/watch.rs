//! What must be true of every lookup and of every answer, checked while a history happens.
//!
//! It knows of the gateway's answers, of the steps of the history and of what was written, and nothing of how the proxy works.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard};
use std::time::Duration;

use avatar_proxy::avatars::{Ask, Found, Met, Unmet};
use avatar_proxy::budget;
use avatar_proxy::change::Change;
use avatar_proxy::clock::{Clock, Timestamp};
use avatar_proxy::entry::Entry;
use avatar_proxy::jid::{Device, Key, Subject};
use avatar_proxy::outcome::{Failure, Outcome, Reason, Rules};

use super::shelf::Shelf;
use super::steps;

/// By then a client has long been answered with a `no-cache`.
const RECENT: Duration = Duration::from_secs(10);

/// A look, from its start to its end.
pub(super) struct Look {
    key: Key,
    started_at: Timestamp,
    stored: bool,
}

/// When a client asked.
#[derive(Clone, Copy)]
pub(super) struct Moment {
    at: Timestamp,
    jumps: u64,
    number: u64,
}

struct Negative {
    ended_at: Timestamp,
    jumps: u64,
    number: u64,
}

/// The last picture that the gateway gave for a key, as long as nothing may take its place.
struct Good {
    dead_at: Timestamp,
    url: String,
    number: u64,
    /// in the store, too
    stored: bool,
    /// known to be in the memory of the process that runs
    in_memory: bool,
}

#[derive(Default)]
struct Bucket {
    tokens: f64,
    at: Duration,
    known: bool,
}

#[derive(Default)]
struct Seen {
    good: HashMap<Key, Good>,
    /// negative looks since the last picture of each key of the subject
    negatives: HashMap<Key, Vec<Negative>>,
    successes: HashMap<Device, u64>,
    in_flight: HashSet<Key>,
    starts: HashMap<Key, u64>,
    buckets: HashMap<Device, Bucket>,
    /// until when on the steady clock, and whether a process before this one left it behind
    cooling: HashMap<Device, (Duration, bool)>,
    urls: HashMap<String, Key>,
    /// negative answers by their texts
    told: HashMap<String, u64>,
    versions: HashMap<Subject, (u64, Option<String>)>,
    number: u64,
    jumps: u64,
    violation: Option<String>,
}

pub(super) struct Watch {
    clock: Clock,
    rules: Rules,
    budget: budget::Config,
    stirred: AtomicU64,
    seen: Mutex<Seen>,
}

impl Watch {
    pub(super) fn new(clock: Clock, rules: Rules, budget: budget::Config) -> Self {
        Self { clock, rules, budget, stirred: AtomicU64::new(0), seen: Mutex::default() }
    }

    fn seen(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().unwrap()
    }

    /// Something happened.
    pub(super) fn stirs(&self) {
        self.stirred.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn stirred(&self) -> u64 {
        self.stirred.load(Ordering::Relaxed)
    }

    pub(super) fn violated(&self, what: impl Into<String>) {
        self.seen().violated(what);
    }

    pub(super) fn violation(&self) -> Option<String> {
        self.seen().violation.clone()
    }

    /// A lookup starts at the gateway.
    pub(super) fn starts(&self, key: &Key, stored: bool) -> Look {
        let (steady, now) = (self.clock.elapsed(), self.clock.now());
        let device = &key.subject.device;
        let mut seen = self.seen();
        if !seen.in_flight.insert(key.clone()) {
            seen.violated("two lookups for one key in flight at once");
        }
        let flying = seen.in_flight.iter().filter(|other| other.subject.device == *device).count();
        if flying > self.budget.concurrency as usize {
            seen.violated(format!("{flying} lookups of one device in flight"));
        }
        if seen.cooling.get(device).is_some_and(|(until, _)| *until > steady) {
            seen.violated("a lookup started during a cool-down");
        }
        let burst = f64::from(self.budget.burst);
        let bucket = seen.buckets.entry(device.clone()).or_default();
        let refilled = bucket.tokens + self.budget.rate * steady.saturating_sub(bucket.at).as_secs_f64();
        bucket.tokens = if bucket.known { refilled.min(burst) } else { burst } - 1.0;
        (bucket.at, bucket.known) = (steady, true);
        if bucket.tokens < -1e-6 {
            let over = -bucket.tokens;
            seen.violated(format!("{over:.3} lookups more than rate * t + burst"));
        }
        *seen.starts.entry(key.clone()).or_default() += 1;
        Look { key: key.clone(), started_at: now, stored }
    }

    /// How many lookups for a key have started.
    pub(super) fn count(&self, key: &Key) -> u64 {
        self.seen().starts.get(key).copied().unwrap_or_default()
    }

    pub(super) fn is_in_flight(&self, key: &Key) -> bool {
        self.seen().in_flight.contains(key)
    }

    /// It is over, with or without an answer.
    pub(super) fn lands(&self, look: &Look) {
        self.seen().in_flight.remove(&look.key);
    }

    /// The gateway answers, while the store works or not.
    pub(super) fn answers(&self, look: &Look, answer: &Result<Outcome, Failure>, stored: bool) {
        let (steady, now) = (self.clock.elapsed(), self.clock.now());
        let mut seen = self.seen();
        let seen = &mut *seen;
        seen.number += 1;
        let number = seen.number;
        let (key, device) = (&look.key, &look.key.subject.device);
        let stored = stored && look.stored;
        match answer {
            Ok(Outcome::Present(picture)) => {
                seen.successes.insert(device.clone(), number);
                let longest = now + Duration::from_secs(30 * 86_400);
                let dead_at = picture
                    .expires_at()
                    .map_or(now + self.rules.fallback_ttl, |oe| (oe - Duration::from_secs(2)).min(longest));
                let url = picture.url().into_owned();
                seen.urls.insert(url.clone(), key.clone());
                seen.good.insert(key.clone(), Good { dead_at, url, number, stored, in_memory: true });
                seen.negatives.remove(key);
            }
            Ok(Outcome::Negative(negative)) => {
                seen.told.insert(negative.message.to_string(), number);
                seen.negative(key, negative.reason, look, now, &self.rules);
                let lost = |good: &Good| good.dead_at <= now || !good.in_memory && !stored;
                if seen.good.get(key).is_some_and(lost) {
                    seen.good.remove(key);
                }
            }
            Err(failure) if failure.class == avatar_proxy::outcome::Class::RateLimited => {
                let until = steady + self.budget.cool_down;
                seen.cooling.insert(device.clone(), (until, false));
            }
            Err(_) => {}
        }
    }

    /// Another replica saw the same later. A URL that does not say how long it lives begins a new life, by the clock as it is then.
    pub(super) fn overtaken(&self, key: &Key, entry: &Entry) {
        if let (Outcome::Present(picture), Some(good)) = (&entry.outcome, self.seen().good.get_mut(key))
            && *picture.url() == *good.url
        {
            good.dead_at = entry.dead_at;
        }
    }

    /// A client is answered.
    pub(super) fn answered(&self, store: &Shelf, key: &Key, ask: Ask, asked: Moment, answer: &Result<Found, Unmet>) {
        self.stirs();
        let now = self.clock.now();
        let works = store.works();
        let held = store.peek(key).is_some_and(|(entry, _)| entry.dead_at > now);
        let mut seen = self.seen();
        let seen = &mut *seen;
        let good = seen.good.get_mut(key).filter(|good| good.dead_at > now);
        match answer {
            Ok(found) => {
                let outcome = &found.slot.to_entry().outcome;
                if found.slot.entry.dead_at <= now {
                    seen.violated("a dead entry was served");
                } else if let Some(why) = wrong_for(key, outcome) {
                    seen.violated(why);
                } else if ask.no_cache
                    && matches!(found.met, Met::Asked { .. } | Met::Recent)
                    && asked.jumps == seen.jumps
                    && found.slot.entry.checked_at < asked.at - RECENT
                {
                    seen.violated("no-cache was answered with an old look");
                } else if let Outcome::Present(picture) = outcome {
                    if picture.expires_at().is_some_and(|oe| oe < now + Duration::from_secs(2)) {
                        seen.violated("a dead URL was served");
                    }
                    if seen.urls.get(&*picture.url()) != Some(key) {
                        seen.violated("a URL that the gateway never gave for this key");
                    }
                    if let Some(good) = seen.good.get_mut(key).filter(|good| good.url == picture.url()) {
                        good.in_memory = true;
                    }
                } else if good.is_some_and(|good| !is_own_look(found, asked, good.number, &seen.told)) {
                    seen.violated(format!("{outcome:?} took the place of a live picture too soon ({:?})", found.met));
                }
            }
            Err(Unmet::OwnerGone) => seen.violated("a flight's task vanished"),
            Err(unmet) => {
                let kept = good.is_some_and(|good| good.in_memory || good.stored && works);
                if kept || held {
                    seen.violated(format!("{unmet:?} instead of a live entry"));
                }
            }
        }
    }

    pub(super) fn changed(&self, key: &Key, change: &Change) {
        let mut seen = self.seen();
        let last = seen.versions.insert(key.subject.clone(), (change.version, change.new_id.clone()));
        if let Some((version, id)) = last
            && (change.version != version + 1 || change.old_id != id)
        {
            seen.violated(format!("version {} from {:?} follows {version} with {id:?}", change.version, change.old_id));
        }
        // The other answers about the subject leave the memory.
        seen.good.retain(|other, good| other.subject != key.subject || other == key || good.stored);
        for (other, good) in &mut seen.good {
            good.in_memory &= other.subject != key.subject || other == key;
        }
    }

    /// Nobody asked for a key for long.
    pub(super) fn forgotten(&self, key: &Key) {
        let mut seen = self.seen();
        seen.good.retain(|other, _| other.subject != key.subject);
        seen.versions.remove(&key.subject);
    }

    pub(super) fn moment(&self) -> Moment {
        let seen = self.seen();
        Moment { at: self.clock.now(), jumps: seen.jumps, number: seen.number }
    }

    /// The wall clock was set: what a process before this one wrote down with it counts no more.
    pub(super) fn jumped(&self) {
        let mut seen = self.seen();
        seen.jumps += 1;
        seen.cooling.retain(|_, (_, inherited)| !*inherited);
    }

    pub(super) fn store_failed(&self) {
        self.seen().cooling.retain(|_, (_, inherited)| !*inherited);
    }

    /// A new process knows what is in the store, and nothing else.
    pub(super) fn restarted(&self, store: &Shelf) {
        let (steady, now) = (self.clock.elapsed(), self.clock.now());
        let mut seen = self.seen();
        seen.good.retain(|_, good| good.stored);
        seen.good.values_mut().for_each(|good| good.in_memory = false);
        seen.cooling.clear();
        for device in (0..steps::DEVICES).map(steps::device).filter(|_| store.works()) {
            let Some(record) = store.record(&device) else { continue };
            let most = Duration::from_secs(record.cool_down_seconds.into());
            let left = record.cool_down_until.map_or(Duration::ZERO, |until| until.since(now)).min(most);
            seen.cooling.insert(device, (steady + left, true));
        }
    }
}

impl Seen {
    fn violated(&mut self, what: impl Into<String>) {
        self.violation.get_or_insert(what.into());
    }

    /// A negative look: it may take the place of pictures if there was another one, long enough before.
    fn negative(&mut self, key: &Key, reason: Reason, look: &Look, now: Timestamp, rules: &Rules) {
        let vouched = self.successes.get(&key.subject.device).copied().unwrap_or_default();
        let (jumps, number) = (self.jumps, self.number);
        for variant in [false, true] {
            let mut about = key.clone();
            about.variant.preview = variant;
            let earlier = self.negatives.entry(about.clone()).or_default();
            let confirms = |first: &Negative| {
                let apart = look.started_at >= first.ended_at + rules.confirm_after;
                // What was noted before the clock was set cannot be compared with what is noted after.
                first.jumps != jumps || apart && (reason != Reason::Unregistered || vouched > first.number)
            };
            // Believed of the subject, it takes every picture's place, as soon as that is looked at.
            if earlier.iter().any(confirms) {
                self.good.remove(&about);
            }
            earlier.push(Negative { ended_at: now, jumps, number });
        }
    }
}

/// Whether a client is answered with the look that it waited for, and another one brought a picture before it was its turn to
/// take that answer.
fn is_own_look(found: &Found, asked: Moment, picture: u64, told: &HashMap<String, u64>) -> bool {
    let Outcome::Negative(negative) = found.slot.to_entry().outcome else { return false };
    let look = told.get(&*negative.message).copied().unwrap_or_default();
    matches!(found.met, Met::Asked { .. }) && asked.number < look && look < picture
}

/// Every text in the script names the device and the person it is for.
fn wrong_for(key: &Key, outcome: &Outcome) -> Option<String> {
    let whose = super::script::whose(key);
    let (text, kind) = match outcome {
        Outcome::Present(picture) => (picture.id().to_owned(), picture.kind().into_owned()),
        Outcome::Negative(negative) => (negative.message.to_string(), String::new()),
    };
    let expected = if key.variant.preview { "preview" } else { "image" };
    (!text.starts_with(&whose) || !kind.is_empty() && kind != expected)
        .then(|| format!("{text} ({kind}) was served to {whose}"))
}
