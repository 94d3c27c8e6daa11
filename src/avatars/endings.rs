//! How failed lookups of single keys ended: kept for a short time, so that neither clients nor replicas repeat them in turn.
//!
//! A failure in passing rests its key for 2 s, doubling to 5 min while it recurs; a wrong request for 60 s. Failures of devices
//! and of the gateway's credentials concern more than one key: those are the budget's.
//!
//! These are the endings that this process has seen. Where replicas share a store it keeps theirs, which count as long as it
//! answers ([`crate::store::Shared`]).

use std::sync::Arc;
use std::time::Duration;

use compact_str::CompactString;
use moka::sync::Cache;

use crate::clock::Clock;
use crate::jid::Key;
use crate::outcome::{Class, Failure};

const REQUEST_REST: Duration = Duration::from_secs(60);
pub(super) const FIRST_REST: Duration = Duration::from_secs(2);
const LONGEST_REST: Duration = Duration::from_secs(300);

/// What the cache and the allocator hold per failed key beside its texts (bytes).
const OVERHEAD: usize = 512;

#[derive(Clone)]
struct Rest {
    failure: Arc<Failure>,
    until: Duration,
    wait: Duration,
}

pub(super) struct Endings {
    rests: Cache<Key, Rest>,
    clock: Clock,
}

impl Endings {
    /// Remembers no more than `limit` bytes: anybody can invent keys that fail.
    pub(super) fn new(limit: u64, clock: Clock) -> Self {
        let rests = Cache::builder().max_capacity(limit).weigher(weight).time_to_live(LONGEST_REST * 3).build();
        Self { rests, clock }
    }

    /// The ending that still counts for `key`, and for how long.
    pub(super) fn of(&self, key: &Key) -> Option<(Arc<Failure>, Duration)> {
        let rest = self.rests.get(key)?;
        let left = rest.until.saturating_sub(self.clock.elapsed());
        (!left.is_zero()).then_some((rest.failure, left))
    }

    /// How the last lookup of `key` failed, if none succeeded since, and for how long that counted.
    pub(super) fn last(&self, key: &Key) -> Option<(Class, Duration)> {
        self.rests.get(key).map(|rest| (rest.failure.class, rest.wait))
    }

    /// Remembers how a lookup failed, for so long.
    pub(super) fn failed(&self, key: &Key, failure: Arc<Failure>, wait: Duration) {
        let until = self.clock.elapsed() + wait;
        self.rests.insert(key.clone(), Rest { failure, until, wait });
    }

    /// Forgets every failure: what the gateway said may name a person.
    pub(super) fn clear(&self) {
        self.rests.invalidate_all();
    }

    /// A lookup succeeded: the next failure is a first one.
    pub(super) fn succeeded(&self, key: &Key) {
        self.rests.invalidate(key);
    }
}

/// For how long a key rests after a failure, the last of which was this one and counted for so long. Failures that concern more
/// than the key rest elsewhere.
pub(super) fn rest(class: Class, last: Option<(Class, Duration)>) -> Option<Duration> {
    match class {
        Class::Request => Some(REQUEST_REST),
        Class::Passing | Class::Nonsense | Class::Late => Some(match last {
            Some((Class::Passing | Class::Nonsense | Class::Late, wait)) => wait.saturating_mul(2).min(LONGEST_REST),
            _ => FIRST_REST,
        }),
        Class::RateLimited | Class::Device | Class::Credentials => None,
    }
}

fn weight(key: &Key, rest: &Rest) -> u32 {
    let failure = &rest.failure;
    let results = failure.reply.results.as_ref().map_or(0, CompactString::len);
    let texts = [
        key.subject.device.as_str().len(),
        failure.reply.code.len(),
        failure.reply.message.len(),
        failure.detail.len(),
        results,
    ];
    u32::try_from(OVERHEAD + texts.into_iter().sum::<usize>()).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Timestamp;
    use crate::jid::{Device, Jid};
    use crate::outcome::Envelope;

    fn failure(class: Class) -> Arc<Failure> {
        let reply = Envelope { status: 500, code: "C".into(), message: "m".into(), results: None };
        Arc::new(Failure { class, retry: false, reply, detail: "d".into() })
    }

    #[test]
    fn a_passing_failure_rests_its_key_for_two_seconds_doubling_to_five_minutes() {
        let clock = Clock::manual(Timestamp::from_seconds(1_700_000_000));
        let endings = Endings::new(1 << 20, clock.clone());
        let key = Key::new(Device::default(), Jid::parse("1").unwrap(), false, false);
        let failed = |class| {
            let rest = rest(class, endings.last(&key));
            rest.inspect(|rest| endings.failed(&key, failure(class), *rest)).unwrap_or_default()
        };
        let mut waits = vec![];
        for _ in 0..10 {
            let wait = failed(Class::Passing);
            assert_eq!(endings.of(&key).unwrap().1, wait);
            clock.advance(wait);
            assert!(endings.of(&key).is_none());
            waits.push(wait.as_secs());
        }
        assert_eq!(waits, [2, 4, 8, 16, 32, 64, 128, 256, 300, 300]);
        endings.succeeded(&key);
        assert_eq!(failed(Class::Late).as_secs(), 2);
        assert_eq!(failed(Class::Request).as_secs(), 60);
        assert_eq!(failed(Class::Passing).as_secs(), 2, "a wrong request is another trouble");
        assert_eq!(failed(Class::Device), Duration::ZERO);
    }
    #[test]
    fn failed_keys_are_bounded_in_bytes_however_many_are_invented() {
        let endings = Endings::new(1 << 20, Clock::manual(Timestamp::from_seconds(1_700_000_000)));
        let device = Device::new(&"d".repeat(256)).unwrap();
        for number in 0..20_000 {
            let key = Key::new(device.clone(), Jid::parse(&format!("62{number}")).unwrap(), false, false);
            endings.failed(&key, failure(Class::Request), REQUEST_REST);
        }
        endings.rests.run_pending_tasks();
        assert!((500..2048).contains(&endings.rests.entry_count()), "{}", endings.rests.entry_count());
        assert!(endings.rests.weighted_size() <= 1 << 20);
    }
}
