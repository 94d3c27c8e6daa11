//! What can happen in a history, drawn from a seed.

use std::time::Duration;

use avatar_proxy::avatars::Ask;
use avatar_proxy::budget;
use avatar_proxy::jid::{Device, Jid, Key};
use avatar_proxy::outcome::Reason;
use fastrand::Rng;

pub(super) const PEOPLE: usize = 3;
pub(super) const DEVICES: usize = 2;

/// What the gateway answers for a device, whoever is asked about.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(super) enum Mood {
    Fine,
    RateLimited,
    DeviceOut,
    Passing {
        retry: bool,
    },
    Nonsense,
    Late,
    Request,
    Credentials,
    /// A gateway in trouble says this of everybody.
    NobodyRegistered,
}

#[derive(Clone, Copy, Debug)]
pub(super) enum Step {
    /// About a person, on a device, the preview or the picture.
    Ask {
        device: usize,
        person: usize,
        preview: bool,
        ask: Ask,
    },
    HangUp(usize),
    Pass(Duration),
    /// Somebody sets the wall clock, by this many milliseconds.
    Jump(i64),
    /// A person has another picture.
    Picture(usize),
    /// A person has none to be seen any more.
    Gone(usize, Reason),
    /// The next answers about a person, as many and no more, are this.
    Odd(usize, Reason, usize),
    Mood(usize, Mood),
    /// Lookups that start from now on wait for a release; what they will answer is known at their start, or at their end.
    Hold {
        known: bool,
    },
    Release,
    /// How long URLs live from now on; `None`: they do not say.
    UrlsLive(Option<Duration>),
    StoreFails(bool),
    /// Another replica, which looked later, writes between the next computation and its write.
    Interfere,
    Restart {
        graceful: bool,
    },
}

/// The configuration and the steps.
#[derive(Clone, Debug)]
pub(super) struct History {
    pub(super) seed: u64,
    pub(super) budget: budget::Config,
    pub(super) warm_for: Duration,
    pub(super) forget_after: Duration,
    pub(super) steps: Vec<Step>,
}

pub(super) fn device(number: usize) -> Device {
    Device::new(["ward", "desk"][number]).unwrap()
}

pub(super) fn key(device_number: usize, person: usize, preview: bool) -> Key {
    Key::new(device(device_number), Jid::parse(&format!("99900{person}")).unwrap(), preview, false)
}

fn reason(rng: &mut Rng) -> Reason {
    [Reason::NotSet, Reason::Hidden, Reason::Unregistered][rng.usize(..3)]
}

fn mood(rng: &mut Rng) -> Mood {
    match rng.u8(..16) {
        0..=5 => Mood::Fine,
        6 => Mood::RateLimited,
        7 => Mood::DeviceOut,
        8 => Mood::Passing { retry: true },
        9 => Mood::Passing { retry: false },
        10 => Mood::Nonsense,
        11 => Mood::Late,
        12 => Mood::Request,
        13 => Mood::Credentials,
        _ => Mood::NobodyRegistered,
    }
}

/// How a history is inclined.
struct Odds {
    store_fails: bool,
    clock_jumps: bool,
    /// how many people it is about
    people: usize,
    /// of ten clients, how many ask for a fresh look
    no_cache: u8,
    /// Most of the time passes in pieces in which something is no longer recent and not yet confirmed.
    hurries: bool,
}

impl Odds {
    fn draw(rng: &mut Rng) -> Self {
        Self {
            store_fails: rng.u8(..3) == 0,
            clock_jumps: rng.u8(..3) == 0,
            people: rng.usize(1..=PEOPLE),
            no_cache: [1, 3, 6][rng.usize(..3)],
            hurries: rng.u8(..3) == 0,
        }
    }
}

fn while_passes(rng: &mut Rng, hurries: bool) -> Duration {
    if hurries && rng.u8(..4) > 0 {
        return Duration::from_millis(rng.u64(10_000..60_000));
    }
    Duration::from_millis(match rng.u8(..10) {
        0..=1 => rng.u64(1..1000),
        2..=4 => rng.u64(1000..20_000),
        5..=6 => rng.u64(20_000..90_000),
        7 => rng.u64(90_000..3_600_000),
        8 => rng.u64(3_600_000..86_400_000),
        _ => rng.u64(86_400_000..5 * 86_400_000),
    })
}

fn life(rng: &mut Rng) -> Option<Duration> {
    [None, Some(20), Some(120), Some(3600), Some(86_400), Some(5 * 86_400), Some(45 * 86_400)][rng.usize(..7)]
        .map(Duration::from_secs)
}

impl Step {
    fn draw(rng: &mut Rng, odds: &Odds) -> Self {
        let person = |rng: &mut Rng| rng.usize(..odds.people);
        match rng.u8(..100) {
            0..=37 => {
                let ask = match rng.u8(..10) {
                    0 => Ask { no_cache: false, only_if_cached: true },
                    most if most <= odds.no_cache => Ask { no_cache: true, only_if_cached: false },
                    _ => Ask::default(),
                };
                Self::Ask { device: rng.usize(..DEVICES), person: person(rng), preview: rng.bool(), ask }
            }
            38..=39 => Self::HangUp(rng.usize(..8)),
            40..=43 if odds.store_fails => Self::StoreFails(rng.u8(..3) > 0),
            40..=61 => Self::Pass(while_passes(rng, odds.hurries)),
            62..=64 if odds.clock_jumps => {
                let by = i64::try_from(while_passes(rng, odds.hurries).as_millis()).unwrap();
                Self::Jump(if rng.bool() { by } else { -by })
            }
            65..=68 => Self::Picture(person(rng)),
            69..=71 => Self::Gone(person(rng), reason(rng)),
            72..=76 => Self::Odd(person(rng), reason(rng), rng.usize(1..=2)),
            77..=82 => Self::Mood(rng.usize(..DEVICES), mood(rng)),
            83..=85 => Self::Hold { known: rng.bool() },
            86..=88 => Self::Release,
            89..=90 => Self::UrlsLive(life(rng)),
            91..=96 => Self::Interfere,
            97 => Self::Restart { graceful: rng.bool() },
            _ => Self::Pass(Duration::from_secs(rng.u64(1..130))),
        }
    }
}

impl History {
    pub(super) fn draw(seed: u64) -> Self {
        let rng = &mut Rng::with_seed(seed);
        let odds = Odds::draw(rng);
        let mut steps = vec![Step::UrlsLive(life(rng))];
        steps.extend((0..rng.usize(8..60)).map(|_| Step::draw(rng, &odds)));
        Self {
            seed,
            budget: budget::Config {
                rate: [0.2, 1.0, 50.0][rng.usize(..3)],
                burst: [1, 3, 20][rng.usize(..3)],
                concurrency: [1, 2, 8][rng.usize(..3)],
                cool_down: Duration::from_secs(60),
                max_wait: Duration::from_secs(10),
            },
            warm_for: Duration::from_secs([3600, 3 * 86_400][rng.usize(..2)]),
            forget_after: Duration::from_secs([2 * 86_400, 30 * 86_400][rng.usize(..2)]),
            steps,
        }
    }
}
