//! What is held in memory: entries ready to be answered with, bounded in bytes.
//!
//! The map is keyed by a 128-bit digest under a random key of this process (SipHash, as Rust's own maps use it against
//! chosen collisions), because a million whole keys would weigh more than their answers. moka's expiry only collects garbage:
//! whether an entry may be served is decided by [`Entry::freshness`] alone.

use std::hash::{BuildHasherDefault, Hasher};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, Instant};

use moka::Expiry;
use moka::ops::compute::{CompResult, Op};
use moka::sync::Cache;
use sha2::{Digest as _, Sha256};
use siphasher::sip128::{Hasher128, SipHasher13};

use crate::change::State;
use crate::clock::{Clock, Timestamp};
use crate::entry::{Entry, Freshness};
use crate::jid::{Key, Subject, USER_MAX, Variant};
use crate::outcome::Outcome;

/// What moka and the allocator hold per entry beside its texts (bytes), measured at a million entries.
const OVERHEAD: usize = 448;

/// What an entity tag is made of: some bits of a digest. The same answer has the same tag after a restart and on every replica.
#[must_use]
pub fn tag_of(answer: &[u8]) -> u64 {
    let digest = Sha256::digest(answer);
    u64::from_be_bytes(digest[..8].try_into().expect("a SHA-256 has more than eight bytes"))
}

/// An entry in memory, with what answers need beside it.
#[derive(Debug)]
pub struct Slot {
    /// The entry.
    pub entry: Entry,
    /// What its subject's state says of changes.
    pub history: History,
    /// Changes whenever the answer's body does.
    pub tag: u64,
    /// When a request was last remembered in the store (ms).
    touched: AtomicI64,
    /// When a request last asked for a refresh by itself (ms).
    nudged: AtomicI64,
}

/// A subject's changes in brief.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct History {
    /// How often the picture changed since the baseline.
    pub version: u64,
    /// When the last change was noticed.
    pub changed_at: Option<Timestamp>,
}

impl From<&State> for History {
    fn from(state: &State) -> Self {
        state
            .recorded
            .as_ref()
            .map_or_else(Self::default, |recorded| Self { version: recorded.version, changed_at: recorded.changed_at })
    }
}

/// The shortest time between two refreshes that requests for one entry ask for.
const NUDGE: Duration = Duration::from_secs(1);

impl Slot {
    /// An entry made ready, last asked for at `requested_at` as far as the store knows.
    #[must_use]
    pub fn new(entry: Entry, history: History, requested_at: Option<Timestamp>) -> Self {
        Self {
            history,
            tag: tag_of(match &entry.outcome {
                Outcome::Present(picture) => picture.results().as_bytes(),
                Outcome::Negative(_) => b"",
            }),
            touched: AtomicI64::new(requested_at.map_or(i64::MIN, Timestamp::as_millis)),
            nudged: AtomicI64::new(i64::MIN),
            entry,
        }
    }

    /// Whether a request at `now` is worth remembering, because the last one remembered is `grain` or longer ago. Says so to
    /// one caller only.
    pub(super) fn touch(&self, now: Timestamp, grain: Duration) -> bool {
        claim(&self.touched, now, grain)
    }

    /// Whether a request at `now` may ask for a refresh by itself. Says so to one caller only, and not at every request.
    pub(super) fn nudge(&self, now: Timestamp) -> bool {
        claim(&self.nudged, now, NUDGE)
    }

    fn weight(&self) -> u32 {
        let heap = match &self.entry.outcome {
            Outcome::Present(picture) => picture.heap_bytes(),
            Outcome::Negative(negative) => negative.message.len() + negative.code.len(),
        };
        u32::try_from(OVERHEAD + heap).unwrap_or(u32::MAX)
    }
}

/// Moves `last` to `now` if that is at least `grain` on; true for the one caller who did. A clock set back counts as long ago.
fn claim(last: &AtomicI64, now: Timestamp, grain: Duration) -> bool {
    let seen = last.load(Ordering::Relaxed);
    let (now, grain) = (now.as_millis(), i64::try_from(grain.as_millis()).unwrap_or(i64::MAX));
    (now < seen || now.saturating_sub(seen) >= grain)
        && last.compare_exchange(seen, now, Ordering::Relaxed, Ordering::Relaxed).is_ok()
}

pub(super) struct Memory {
    cache: Cache<u128, Arc<Slot>, BuildHasherDefault<Digested>>,
    seed: (u64, u64),
}

/// A key that is a digest is its own hash.
#[derive(Default)]
struct Digested(u64);

impl Hasher for Digested {
    fn write(&mut self, bytes: &[u8]) {
        for chunk in bytes.chunks(8) {
            let mut word = [0; 8];
            word[..chunk.len()].copy_from_slice(chunk);
            self.0 ^= u64::from_ne_bytes(word);
        }
    }

    fn write_u128(&mut self, digest: u128) {
        self.0 = (digest >> 64) as u64;
    }

    fn finish(&self) -> u64 {
        self.0
    }
}

/// Lets moka drop what is dead. Takes the wall clock as it was when the entry came in.
struct Garbage(Clock);

impl Expiry<u128, Arc<Slot>> for Garbage {
    fn expire_after_create(&self, _: &u128, slot: &Arc<Slot>, _: Instant) -> Option<Duration> {
        Some(slot.entry.ttl(self.0.now()))
    }

    fn expire_after_update(&self, key: &u128, slot: &Arc<Slot>, at: Instant, _: Option<Duration>) -> Option<Duration> {
        self.expire_after_create(key, slot, at)
    }
}

impl Memory {
    pub(super) fn new(limit: u64, clock: &Clock) -> Self {
        let cache = Cache::builder()
            .max_capacity(limit)
            .weigher(|_, slot: &Arc<Slot>| slot.weight())
            .expire_after(Garbage(clock.clone()))
            .build_with_hasher(BuildHasherDefault::default());
        Self { cache, seed: (fastrand::u64(..), fastrand::u64(..)) }
    }

    pub(super) fn get(&self, key: &Key) -> Option<Arc<Slot>> {
        self.cache.get(&self.digest(key))
    }

    pub(super) fn insert(&self, key: &Key, slot: Arc<Slot>) {
        self.cache.insert(self.digest(key), slot);
    }

    /// Takes in what was read from the store, unless something from a later look that lives at `now` came in meanwhile; returns
    /// what is held then.
    pub(super) fn adopt(&self, key: &Key, slot: Arc<Slot>, now: Timestamp) -> Arc<Slot> {
        let is_better = |held: &Entry| held.start() > slot.entry.start() && held.freshness(now) != Freshness::Dead;
        let result = self.cache.entry(self.digest(key)).and_compute_with(|held| match held {
            Some(held) if is_better(&held.value().entry) => Op::Nop,
            _ => Op::Put(slot.clone()),
        });
        match result {
            CompResult::Unchanged(held) => held.into_value(),
            _ => slot,
        }
    }

    /// Forgets every answer about a subject but the one named.
    pub(super) fn forget_others(&self, subject: &Subject, kept: Option<Variant>) {
        for bits in 0..4 {
            let variant = Variant::from_bits(bits);
            if Some(variant) != kept {
                self.cache.invalidate(&self.digest(&Key { subject: subject.clone(), variant }));
            }
        }
    }

    /// Takes one answer out.
    pub(super) fn remove(&self, key: &Key) {
        self.cache.invalidate(&self.digest(key));
    }

    /// Forgets everything.
    pub(super) fn clear(&self) {
        self.cache.invalidate_all();
    }

    /// Entries and bytes held, nearly: moka counts in the background.
    pub(super) fn size(&self) -> (u64, u64) {
        self.cache.run_pending_tasks();
        (self.cache.entry_count(), self.cache.weighted_size())
    }

    fn digest(&self, key: &Key) -> u128 {
        let Key { subject: Subject { device, jid }, variant } = key;
        let mut hasher = SipHasher13::new_with_keys(self.seed.0, self.seed.1);
        // The user behind its length, and the long part last: no two keys are spelled alike.
        let (user, mut head) = (jid.user().as_bytes(), [0; 3 + USER_MAX]);
        head[0] = u8::try_from(user.len()).unwrap_or(u8::MAX);
        head[1] = jid.server() as u8;
        head[2] = variant.to_bits();
        head[3..3 + user.len()].copy_from_slice(user);
        hasher.write(&head[..3 + user.len()]);
        hasher.write(device.as_str().as_bytes());
        hasher.finish128().as_u128()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::change::Standing;
    use crate::entry::Jitter;
    use crate::jid::{Device, Jid};
    use crate::outcome::{Observation, Picture, Rules, Token};

    const NOW: Timestamp = Timestamp::from_seconds(1_700_000_000);

    /// From the look with this start token, living for so many seconds.
    fn slot(start: u64, seconds: i64) -> Arc<Slot> {
        let url = format!("https://h/p?oe={:X}", NOW.as_millis() / 1000 + 2 + seconds);
        let seen = Observation {
            variant: Variant::default(),
            outcome: Outcome::Present(Picture::new(&url, "1", "image")),
            start: Token(start),
            started_at: NOW,
            ended_at: NOW,
        };
        let sure = Standing::Believed { repeats: 0 };
        let entry = Entry::after(None, &seen, sure, &Rules::default(), Jitter(0.0, 0.0));
        Arc::new(Slot::new(entry, History::default(), None))
    }

    #[test]
    fn what_was_read_from_the_store_gives_way_to_a_later_look_that_lives() {
        let memory = Memory::new(1 << 20, &Clock::manual(NOW));
        let key = Key::new(Device::default(), Jid::parse("1").unwrap(), false, false);
        let start = |seconds| {
            let now = NOW + Duration::from_secs(seconds);
            (memory.adopt(&key, slot(5, 100), now).entry.start(), memory.get(&key).unwrap().entry.start())
        };
        assert_eq!(start(0), (Token(5), Token(5)));
        memory.insert(&key, slot(7, 10));
        assert_eq!(start(9), (Token(7), Token(7)));
        assert_eq!(start(10), (Token(5), Token(5)), "dead, it is no better");
    }
}
