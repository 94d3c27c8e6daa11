//! What is held in memory: entries ready to be answered with, bounded in bytes.
//!
//! The map is keyed by a 128-bit digest under a random key of this process (SipHash, as Rust's own maps use it against
//! chosen collisions), because a million whole keys would weigh more than their answers. Whether an entry may be served is
//! decided by [`crate::entry::Entry::freshness`] alone; what is dead makes room as anything does that nobody asks for. An expiry of its own
//! for each entry would cost 48 bytes for each, and time at each hit.

use std::hash::{BuildHasherDefault, Hasher};
use std::time::Duration;

use moka::ops::compute::{CompResult, Op};
use moka::sync::Cache;
use siphasher::sip128::{Hasher128, SipHasher13};

use super::slot::Slot;
use crate::clock::Timestamp;
use crate::entry::Freshness;
use crate::jid::{Key, Subject, USER_MAX, Variant};

/// What moka holds per entry beside its slot (bytes): seven small allocations and a place in its table. Measured, with what the
/// allocator cannot use of its pages while entries come and go: `make bench ARGS=--memory` compares the result with the process.
const OVERHEAD: usize = 256;

/// How long an entry may lie in memory though nobody asks for it: it is dead, or soon will be, and if not it is in the store.
const IDLE: Duration = Duration::from_secs(86_400);

pub(super) struct Memory {
    cache: Cache<u128, Slot, BuildHasherDefault<Digested>>,
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

impl Memory {
    pub(super) fn new(limit: u64) -> Self {
        let cache = Cache::builder()
            .max_capacity(limit)
            .weigher(|_, slot| weight(slot))
            .time_to_idle(IDLE)
            .build_with_hasher(BuildHasherDefault::default());
        Self { cache, seed: (fastrand::u64(..), fastrand::u64(..)) }
    }

    pub(super) fn get(&self, key: &Key) -> Option<Slot> {
        self.cache.get(&self.digest(key))
    }

    pub(super) fn insert(&self, key: &Key, slot: Slot) {
        self.cache.insert(self.digest(key), slot);
    }

    /// Takes in what was read from the store, unless something from a later look that lives at `now` came in meanwhile; returns
    /// what is held then.
    pub(super) fn adopt(&self, key: &Key, slot: Slot, now: Timestamp) -> Slot {
        let is_better =
            |held: &Slot| held.entry.start() > slot.entry.start() && held.entry.freshness(now) != Freshness::Dead;
        let result = self.cache.entry(self.digest(key)).and_compute_with(|held| match held {
            Some(held) if is_better(held.value()) => Op::Nop,
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

    /// Forgets the answers about a subject that are from before its change to `version`.
    pub(super) fn forget_before(&self, subject: &Subject, version: u64) {
        for variant in (0..4).map(Variant::from_bits) {
            let digest = self.digest(&Key { subject: subject.clone(), variant });
            self.cache.entry(digest).and_compute_with(|held| match held {
                Some(held) if held.value().history().version < version => Op::Remove,
                _ => Op::Nop,
            });
        }
    }

    /// Takes one answer out.
    pub(super) fn remove(&self, key: &Key) {
        self.cache.invalidate(&self.digest(key));
    }

    /// Forgets all but these. Goes through everything.
    pub(super) fn retain(&self, stays: impl Fn(u128, &Slot) -> bool) {
        for (digest, slot) in &self.cache {
            if !stays(*digest, &slot) {
                self.cache.invalidate(&*digest);
            }
        }
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

    /// What it is kept under.
    pub(super) fn digest(&self, key: &Key) -> u128 {
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

/// Bytes held for an entry.
fn weight(slot: &Slot) -> u32 {
    u32::try_from(OVERHEAD + allocated(slot.size())).unwrap_or(u32::MAX)
}

/// Bytes that the allocator takes for so many: it has four sizes between a power of two and the next.
fn allocated(bytes: usize) -> usize {
    let step = (bytes.max(64).next_power_of_two() / 8).max(16);
    bytes.next_multiple_of(step)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::avatars::History;
    use crate::change::Standing;
    use crate::entry::{Entry, Jitter};
    use crate::jid::{Device, Jid};
    use crate::outcome::{Observation, Outcome, Picture, Rules, Token};

    const NOW: Timestamp = Timestamp::from_seconds(1_700_000_000);

    /// From the look with this start token, living for so many seconds.
    fn slot(start: u64, seconds: i64) -> Slot {
        let url = format!("https://h/p?oe={:X}", NOW.as_millis() / 1000 + 2 + seconds);
        let seen = Observation {
            variant: Variant::default(),
            outcome: Outcome::Present(Picture::new(&url, "1", "image")),
            start: Token(start),
            started_at: NOW,
            ended_at: NOW,
        };
        let sure = Standing::Believed { repeats: 0 };
        let entry = Entry::after(None, &seen, sure, &Rules::default(), Jitter(0.0));
        Slot::new(&entry, History::default(), None)
    }

    #[test]
    fn what_was_read_from_the_store_gives_way_to_a_later_look_that_lives() {
        let memory = Memory::new(1 << 20);
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

    #[test]
    fn memory_fills_its_limit_and_no_more() {
        let (limit, memory) = (1 << 20, Memory::new(1 << 20));
        for number in 0..5_000 {
            let key = Key::new(Device::default(), Jid::parse(&number.to_string()).unwrap(), false, false);
            memory.insert(&key, slot(1, 100));
        }
        let (entries, bytes) = memory.size();
        assert!(bytes <= limit && bytes > limit * 9 / 10, "{bytes} bytes");
        assert_eq!(bytes, entries * u64::from(weight(&slot(1, 100))));
    }

    #[test]
    fn an_allocation_counts_as_the_size_that_the_allocator_has_for_it() {
        let sizes = [(1, 16), (64, 64), (65, 80), (128, 128), (129, 160), (257, 320), (384, 384), (385, 448)];
        for (bytes, size) in sizes {
            assert_eq!(allocated(bytes), size);
        }
    }
}
