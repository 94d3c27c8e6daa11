//! Wrong credentials are answered ever more slowly, so that passwords are guessed slowly.
//!
//! The rules:
//! * Only answers to wrong credentials wait: right ones are served at once, whatever else came from the same address, so that
//!   nobody can lock others out.
//! * Who guesses is known by the address: for IPv6 by its first 64 bits, which one subscriber has whole.
//! * Memory is bounded: so many addresses, and those beyond share one count; so many answers wait at once, and what would be one
//!   more is refused at once, with its connection.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// So many mistakes cost nothing: people mistype, and programs try again.
const FREE: u32 = 10;

/// What the first mistake beyond costs; each further one twice as much.
const FIRST_DELAY: Duration = Duration::from_millis(125);

/// The most that one costs.
const LONGEST_DELAY: Duration = Duration::from_secs(2);

/// After so long without a mistake, all are forgiven.
const FORGIVEN_AFTER: Duration = Duration::from_secs(600);

/// How many addresses are remembered.
const ORIGINS_MAX: usize = 10_000;

/// How many answers to one address may wait at once.
const WAITING_PER_ORIGIN: u32 = 4;

/// How many answers may wait at once altogether.
const WAITING_MAX: u32 = 1000;

/// How often room is made, when there is none.
const ROOM_INTERVAL: Duration = Duration::from_secs(1);

/// When a request with wrong credentials is answered.
pub(super) enum Pace {
    AtOnce,
    /// After this time; the place is taken until it is dropped.
    After(Duration, Place),
    /// Too many wait already. It may be tried again after this time.
    TooMany(Duration),
}

/// Who guesses.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
enum Origin {
    V4(u32),
    V6(u64),
    /// everybody for whom there is no room
    Others,
}

impl Origin {
    fn of(peer: IpAddr) -> Self {
        match peer.to_canonical() {
            IpAddr::V4(address) => Self::V4(address.to_bits()),
            IpAddr::V6(address) => {
                let [a, b, c, d, ..] = address.segments().map(u64::from);
                Self::V6(a << 48 | b << 32 | c << 16 | d)
            }
        }
    }
}

/// What an address did.
struct Tries {
    wrong: u32,
    waiting: u32,
    last: Instant,
}

#[derive(Default)]
struct Table {
    tries: HashMap<Origin, Tries>,
    waiting: u32,
    room_made: Option<Instant>,
}

/// Who tried wrong credentials lately.
#[derive(Default)]
pub(super) struct Throttle(Mutex<Table>);

/// The right to wait with an answer.
pub(super) struct Place {
    throttle: Arc<Throttle>,
    origin: Origin,
}

impl Throttle {
    /// Wrong credentials came from an address.
    pub(super) fn wrong(self: &Arc<Self>, peer: IpAddr, now: Instant) -> Pace {
        let mut table = self.table();
        let origin = table.place(Origin::of(peer), now);
        let all_wait = table.waiting >= WAITING_MAX;
        let tries = table.tries.entry(origin).or_insert(Tries { wrong: 0, waiting: 0, last: now });
        if now.saturating_duration_since(tries.last) >= FORGIVEN_AFTER {
            tries.wrong = 0;
        }
        tries.wrong = tries.wrong.saturating_add(1);
        tries.last = now;
        let delay = delay(tries.wrong);
        if delay.is_zero() {
            return Pace::AtOnce;
        }
        if all_wait || tries.waiting >= WAITING_PER_ORIGIN {
            return Pace::TooMany(delay);
        }
        tries.waiting += 1;
        table.waiting += 1;
        Pace::After(delay, Place { throttle: self.clone(), origin })
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Table {
    /// Where an address is counted: by itself, if there is room.
    fn place(&mut self, origin: Origin, now: Instant) -> Origin {
        if self.tries.len() < ORIGINS_MAX || self.tries.contains_key(&origin) {
            return origin;
        }
        if self.room_made.is_none_or(|made| now.saturating_duration_since(made) >= ROOM_INTERVAL) {
            self.room_made = Some(now);
            self.tries
                .retain(|_, tries| tries.waiting > 0 || now.saturating_duration_since(tries.last) < FORGIVEN_AFTER);
        }
        if self.tries.len() < ORIGINS_MAX { origin } else { Origin::Others }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut table = self.throttle.table();
        table.waiting -= 1;
        if let Some(tries) = table.tries.get_mut(&self.origin) {
            tries.waiting -= 1;
        }
    }
}

/// What the so manieth mistake costs.
fn delay(wrong: u32) -> Duration {
    match wrong.saturating_sub(FREE) {
        0 => Duration::ZERO,
        beyond => FIRST_DELAY.saturating_mul(1 << (beyond - 1).min(16)).min(LONGEST_DELAY),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(last: u32) -> IpAddr {
        IpAddr::from(last.to_be_bytes())
    }

    #[test]
    fn every_mistake_costs_more_up_to_a_bound_and_time_forgives() {
        let throttle = Arc::new(Throttle::default());
        let now = Instant::now();
        let mut waits = vec![];
        for _ in 0..17 {
            waits.push(match throttle.wrong(address(1), now) {
                Pace::AtOnce => 0,
                Pace::After(wait, _) => wait.as_millis(),
                Pace::TooMany(_) => panic!("nobody waits"),
            });
        }
        assert_eq!(waits[..10], [0; 10]);
        assert_eq!(waits[10..], [125, 250, 500, 1000, 2000, 2000, 2000]);
        assert!(matches!(throttle.wrong(address(2), now), Pace::AtOnce), "others pay nothing for it");
        assert!(matches!(throttle.wrong(address(1), now + FORGIVEN_AFTER), Pace::AtOnce));
    }

    #[test]
    fn few_wait_and_the_others_are_refused() {
        let throttle = Arc::new(Throttle::default());
        let now = Instant::now();
        let paces: Vec<Pace> = (0..20).map(|_| throttle.wrong(address(1), now)).collect();
        let waiting = paces.iter().filter(|pace| matches!(pace, Pace::After(..))).count();
        let refused = paces.iter().filter(|pace| matches!(pace, Pace::TooMany(_))).count();
        assert_eq!((waiting, refused), (4, 6));
        drop(paces);
        assert!(matches!(throttle.wrong(address(1), now), Pace::After(..)), "places are given back");
        assert_eq!(throttle.table().waiting, 0);
    }

    #[test]
    fn memory_is_bounded_however_many_addresses_guess() {
        let throttle = Arc::new(Throttle::default());
        let now = Instant::now();
        for last in 0..30_000 {
            let _ = throttle.wrong(address(last), now);
        }
        assert_eq!(throttle.table().tries.len(), ORIGINS_MAX + 1);
        assert!(matches!(throttle.wrong(address(40_000), now), Pace::After(..)), "who has no room shares a count");
        let _ = throttle.wrong(address(40_000), now + FORGIVEN_AFTER);
        assert!(throttle.table().tries.len() < 10, "what is forgiven makes room");
    }

    #[test]
    fn a_subscriber_is_one_address() {
        let origin = |text: &str| Origin::of(text.parse().unwrap());
        assert_eq!(origin("2001:db8:1:2::1"), origin("2001:db8:1:2:ffff::9"));
        assert_ne!(origin("2001:db8:1:2::1"), origin("2001:db8:1:3::1"));
        assert_eq!(origin("::ffff:192.0.2.1"), origin("192.0.2.1"));
    }
}
