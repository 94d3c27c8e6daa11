//! What is known of one device: whether it exists, whether WhatsApp asked it to slow down, whether it is out of order. Pure.

use std::sync::Arc;
use std::time::Duration;

use super::Config;
use super::ledger::Now;
use crate::clock::Timestamp;
use crate::outcome::Failure;
use crate::store::{DeviceRecord, KnownDevice};

/// Where the doubling of cool-downs ends.
const COOL_DOWN_MAX: Duration = Duration::from_secs(3600);

/// A rate limit within this many lengths of the last cool-down after its end is the same trouble recurring.
const RECURS_WITHIN: u32 = 10;

/// After a rate limit the rate is cut to this share of what it was, and never below [`SLOWEST`] of the configured one.
const CUT: f64 = 0.5;
const SLOWEST: f64 = 1.0 / 16.0;

/// How long a cut of the rate takes to recover from nothing to all (s).
const RECOVERY_SECONDS: f64 = 2.0 * 3600.0;

/// A device or gateway that is out of order: the same answer for everybody until `until`, then one probe.
#[derive(Debug)]
pub(super) struct Hold {
    failure: Arc<Failure>,
    until: Duration,
    wait: Duration,
    max: Duration,
    probing: bool,
}

/// What a hold says to who would ask now.
pub(super) enum Held {
    /// The answer, and after how long it is worth asking again.
    Answer(Arc<Failure>, Duration),
    /// It may be probed.
    Probe,
}

impl Hold {
    /// Begins, or goes on after a failed probe with twice the wait up to `max`.
    pub(super) fn again(
        previous: Option<Self>,
        failure: &Failure,
        first: Duration,
        max: Duration,
        now: Duration,
    ) -> Self {
        let wait = match previous {
            // Looks that had started before the hold began say nothing new.
            Some(hold) if now < hold.until => return hold,
            Some(hold) => hold.wait.saturating_mul(2).min(max),
            None => first,
        };
        Self { failure: Arc::new(failure.clone()), until: now + wait, wait, max, probing: false }
    }

    /// The probe brought no verdict: the same wait once more.
    pub(super) fn inconclusive(&mut self, now: Duration) {
        self.until = now + self.wait.min(self.max);
        self.probing = false;
    }

    pub(super) fn ask(&self, now: Duration) -> Held {
        if self.probing || now < self.until {
            let left = self.until.saturating_sub(now).max(Duration::from_secs(1));
            Held::Answer(self.failure.clone(), left)
        } else {
            Held::Probe
        }
    }

    pub(super) fn begin_probe(&mut self) {
        self.probing = true;
    }

    /// The probe was given up before it asked.
    pub(super) fn abandon_probe(&mut self) {
        self.probing = false;
    }
}

/// Cool-downs that end within this time of one another, and shares of the rate that differ by no more, are the same: otherwise
/// replicas would go on teaching each other.
const AS_LONG: Duration = Duration::from_secs(1);
const AS_MUCH: f64 = 0.01;

/// One device.
#[derive(Debug, Default)]
pub(super) struct DeviceState {
    record: DeviceRecord,
    /// end of the cool-down on the steady clock
    cooling_until: Option<Duration>,
    unread: bool,
    /// What replicas that share the store know of it, as of the last time it was the same here.
    version: Option<u64>,
    /// Lookups that were let through and have not ended.
    pub(super) running: usize,
    /// Those of them that have not asked the gateway yet.
    pub(super) reserved: usize,
    pub(super) hold: Option<Hold>,
    /// When it last got a picture.
    pub(super) succeeded_at: Option<Now>,
}

impl DeviceState {
    /// As remembered. A wall clock that jumped while nobody looked cannot make a cool-down longer than it was made.
    pub(super) fn load(record: Option<DeviceRecord>, wall: Timestamp, now: Duration) -> Self {
        let record = record.unwrap_or_default();
        let longest = Duration::from_secs(record.cool_down_seconds.into());
        let left = record.cool_down_until.map(|until| until.since(wall).min(longest)).filter(|left| !left.is_zero());
        Self { record, cooling_until: left.map(|left| now + left), ..Self::default() }
    }

    /// A device of which nothing could be read: the store failed.
    pub(super) fn unread() -> Self {
        Self { unread: true, ..Self::default() }
    }

    /// Whether what the store remembers of it is still to be read.
    pub(super) fn is_unread(&self) -> bool {
        self.unread
    }

    /// Learns late what the store remembered, beside what was learnt since: the worse of both counts.
    pub(super) fn recall(&mut self, record: Option<DeviceRecord>, wall: Timestamp, now: Duration) {
        self.join(&Self::load(record, wall, now), wall);
    }

    /// The worse of both counts.
    fn join(&mut self, before: &Self, wall: Timestamp) {
        self.unread = false;
        self.record.proven |= before.record.proven;
        if before.share(wall) < self.share(wall) {
            (self.record.slowed_at, self.record.slowed_to) = (before.record.slowed_at, before.record.slowed_to);
        }
        if before.record.cool_down_until > self.record.cool_down_until {
            self.cooling_until = self.cooling_until.max(before.cooling_until);
            self.record.cool_down_until = before.record.cool_down_until;
            self.record.cool_down_seconds = before.record.cool_down_seconds;
        }
    }

    /// Hears what all replicas know, beside what is known here; true if they do not know the worse of it yet.
    pub(super) fn hear(&mut self, known: &KnownDevice, wall: Timestamp, now: Duration) -> bool {
        let theirs = Self::told(known, wall, now);
        let cooling = |device: &Self| device.cooling(now).unwrap_or_default();
        let is_news = self.is_proven() && !theirs.is_proven()
            || cooling(self) > cooling(&theirs) + AS_LONG
            || self.share(wall) < theirs.share(wall) - AS_MUCH;
        self.join(&theirs, wall);
        self.version = Some(known.version);
        is_news
    }

    /// As another replica's record says, in terms of the clocks here: of its cool-down the length counts that the store tells.
    fn told(known: &KnownDevice, wall: Timestamp, now: Duration) -> Self {
        let mut theirs = Self::load(known.record, wall, now);
        if known.version > 0 {
            let ends = wall + known.cooling;
            let is_cooling = !known.cooling.is_zero();
            theirs.cooling_until = is_cooling.then(|| now + known.cooling);
            let ended = |at: Timestamp| if is_cooling { ends } else { at.min(ends) };
            theirs.record.cool_down_until = theirs.record.cool_down_until.map(ended);
            theirs.record.slowed_at = theirs.record.slowed_at.map(ended);
        }
        theirs
    }

    pub(super) fn version(&self) -> Option<u64> {
        self.version
    }

    /// What is known here is what all know, as this version; or that is not certain any more.
    pub(super) fn set_version(&mut self, version: Option<u64>) {
        self.version = version;
    }

    pub(super) fn record(&self) -> DeviceRecord {
        self.record
    }

    /// Whether it ever got an answer about a person.
    pub(super) fn is_proven(&self) -> bool {
        self.record.proven
    }

    /// Marks it as proven; true if that is new.
    pub(super) fn prove(&mut self) -> bool {
        !std::mem::replace(&mut self.record.proven, true)
    }

    /// What is left of its cool-down.
    pub(super) fn cooling(&self, now: Duration) -> Option<Duration> {
        self.cooling_until.map(|until| until.saturating_sub(now)).filter(|left| !left.is_zero())
    }

    /// Begins a cool-down and returns its length; `None` if one is running: looks that were under way say nothing new.
    pub(super) fn cool_down(&mut self, config: &Config, wall: Timestamp, now: Duration) -> Option<Duration> {
        if self.cooling(now).is_some() {
            return None;
        }
        let last = Duration::from_secs(self.record.cool_down_seconds.into());
        let recurs = self.record.cool_down_until.is_some_and(|ended| wall.since(ended) <= last * RECURS_WITHIN);
        let max = COOL_DOWN_MAX.max(config.cool_down);
        let length = if recurs { (last * 2).clamp(config.cool_down, max) } else { config.cool_down };
        let share = (self.share(wall) * CUT).max(SLOWEST);
        self.cooling_until = Some(now + length);
        self.record.cool_down_until = Some(wall + length);
        self.record.cool_down_seconds = u32::try_from(length.as_secs().max(1)).unwrap_or(u32::MAX);
        self.record.slowed_at = Some(wall + length);
        self.record.slowed_to = share;
        Some(length)
    }

    /// The share of the configured rate that it may use: cut by a rate limit, recovering evenly.
    pub(super) fn share(&self, wall: Timestamp) -> f64 {
        self.record.slowed_at.map_or(1.0, |since| {
            (self.record.slowed_to + wall.since(since).as_secs_f64() / RECOVERY_SECONDS).clamp(SLOWEST, 1.0)
        })
    }

    /// Whether forgetting it loses nothing that counts.
    pub(super) fn is_idle(&self, now: Duration) -> bool {
        self.running == 0 && self.cooling(now).is_none()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::outcome::{Class, Envelope};

    fn config() -> Config {
        Config {
            rate: 1.0,
            burst: 20,
            concurrency: 2,
            cool_down: Duration::from_secs(60),
            max_wait: Duration::from_secs(10),
        }
    }

    fn secs(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    fn wall(seconds: i64) -> Timestamp {
        Timestamp::from_seconds(1_700_000_000 + seconds)
    }

    #[test]
    fn a_cool_down_doubles_while_it_recurs_and_cuts_the_rate() {
        let mut device = DeviceState::default();
        assert_eq!(device.cool_down(&config(), wall(0), secs(0)), Some(secs(60)));
        assert_eq!(device.cool_down(&config(), wall(1), secs(1)), None, "one is running");
        assert!((device.share(wall(60)) - 0.5).abs() < 1e-9);
        assert!((device.share(wall(60 + 3600)) - 1.0).abs() < 1e-9);
        let mut now = 60;
        let mut lengths = vec![];
        for _ in 0..8 {
            let length = device.cool_down(&config(), wall(now), secs(now.unsigned_abs())).unwrap().as_secs();
            lengths.push(length);
            now += i64::try_from(length).unwrap();
        }
        assert_eq!(lengths, [120, 240, 480, 960, 1920, 3600, 3600, 3600]);
        let quiet = now + 36_001;
        assert_eq!(device.cool_down(&config(), wall(quiet), secs(quiet.unsigned_abs())), Some(secs(60)));
    }

    #[test]
    fn a_restart_goes_on_cooling_down_and_a_clock_jump_cannot_stretch_it() {
        let mut device = DeviceState::default();
        device.cool_down(&config(), wall(0), secs(5000));
        let again = DeviceState::load(Some(device.record()), wall(20), secs(3));
        assert_eq!(again.cooling(secs(3)), Some(secs(40)));
        let back = DeviceState::load(Some(device.record()), wall(-86_400), secs(3));
        assert_eq!(back.cooling(secs(3)), Some(secs(60)));
        assert_eq!(DeviceState::load(Some(device.record()), wall(61), secs(3)).cooling(secs(3)), None);
    }

    #[test]
    fn what_is_read_late_counts_beside_what_was_learnt_since() {
        let mut before = DeviceState::default();
        before.cool_down(&config(), wall(0), secs(0));
        before.prove();
        let mut device = DeviceState::unread();
        device.recall(Some(before.record()), wall(20), secs(3));
        assert!(!device.is_unread() && device.is_proven());
        assert_eq!(device.cooling(secs(3)), Some(secs(40)));
        assert_eq!(device.record(), before.record());
        let mut device = DeviceState::unread();
        device.cool_down(&config(), wall(20), secs(3));
        let learnt = device.record();
        device.recall(Some(before.record()), wall(20), secs(3));
        assert_eq!(device.cooling(secs(3)), Some(secs(60)));
        assert_eq!(device.record(), DeviceRecord { proven: true, ..learnt });
    }

    #[test]
    fn a_hold_lets_one_probe_through_and_doubles() {
        let failure = Failure {
            class: Class::Device,
            retry: false,
            reply: Envelope { status: 401, code: "C".into(), message: "m".into(), results: None },
            detail: "d".into(),
        };
        let waits = |hold: &Hold, now| match hold.ask(now) {
            Held::Answer(_, left) => left,
            Held::Probe => Duration::ZERO,
        };
        let mut hold = Hold::again(None, &failure, secs(5), secs(300), secs(0));
        assert_eq!(waits(&hold, secs(0)), secs(5));
        hold = Hold::again(Some(hold), &failure, secs(5), secs(300), secs(1));
        assert_eq!(waits(&hold, secs(1)), secs(4), "a look that was under way says nothing new");
        assert_eq!(waits(&hold, secs(5)), secs(0));
        hold.begin_probe();
        assert_eq!(waits(&hold, secs(6)), secs(1), "one probe at a time");
        hold = Hold::again(Some(hold), &failure, secs(5), secs(300), secs(6));
        assert_eq!(waits(&hold, secs(6)), secs(10));
        let mut now = 16;
        for _ in 0..10 {
            hold = Hold::again(Some(hold), &failure, secs(5), secs(300), secs(now));
            now += 300;
        }
        assert_eq!(waits(&hold, secs(now - 300)), secs(300));
        hold.inconclusive(secs(now));
        assert_eq!(waits(&hold, secs(now)), secs(300));
    }
}
