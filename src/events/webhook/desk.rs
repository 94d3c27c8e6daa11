//! What is sent to one endpoint, and when: a planner that is told of instants and endings, and touches neither socket nor store.
//!
//! The rules kept here:
//! * **Order is per person.** Of one person's events only the first that is left may be sent. Nobody waits for another person.
//! * **The endpoint fails as a whole** when different people's events failed and none got through since, or when it says so itself
//!   (429, 502, 504). From then on there is one attempt at a time, a probe, at the pauses of the schedule, until one gets
//!   through. Whenever one gets through, everything that failed before is due: nobody waits for the schedule while the endpoint
//!   takes others. An event that fails again although others got through since its last attempt fails by its own fault: it keeps to
//!   the schedule, and says nothing about the endpoint from then on.
//! * **Bounded.** At most [`PENDING_MAX`] events are held; whoever reads the log waits while there is no room.
//! * **Nothing is lost.** The low water, behind which the log need not be read again, never passes an event that is neither
//!   delivered nor dead nor kept in the store. What failed, and what waits behind it, is kept; what is merely under way is not.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet, VecDeque};
use std::time::Duration;

use super::schedule;
use crate::clock::Timestamp;
use crate::jid::Subject;
use crate::store::{Delivery, Disabled};

#[cfg(test)]
mod tests;

/// Events that are held at the most.
pub(super) const PENDING_MAX: usize = 256;

/// Attempts that are under way at once, at the most.
const UNDER_WAY_MAX: usize = 32;

/// So many people's failures, and no success, are the endpoint's failure.
const SUSPECTS: usize = 2;

/// While the endpoint fails, an event that was never tried may be the probe this long after the last, before the schedule says so:
/// what a rare person waits for two others who fail by their own fault.
const FRESH_PAUSE: Duration = Duration::from_secs(5 * 60);

/// An endpoint that failed for so long is disabled.
const FAILING_MAX: Duration = Duration::from_secs(5 * 24 * 3600);

/// How an attempt ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Ending {
    /// It is delivered.
    Delivered,
    /// It is not.
    Failed {
        /// How long the receiver wants to be left alone.
        retry_after: Option<Duration>,
        /// It said that it has too much to do, or is not there.
        slow: bool,
    },
    /// The receiver wants nothing any more.
    Gone,
}

/// What followed from an ending.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum After {
    /// It is delivered.
    Delivered,
    /// It is tried again.
    Again,
    /// It is given up.
    Dead,
    /// The endpoint gets nothing any more.
    Disabled,
}

/// What is to be written down.
#[derive(Clone, PartialEq, Debug)]
pub(super) struct Saving {
    /// The log need not be read again up to here, once the rest is written.
    pub(super) low_water: u64,
    pub(super) failing_since: Option<Timestamp>,
    pub(super) disabled: Option<Disabled>,
    pub(super) kept: Vec<Delivery>,
    pub(super) ended: Vec<u64>,
}

/// One endpoint's desk.
pub(super) struct Desk {
    /// The log was taken up to here.
    read: u64,
    /// What of the log behind the low water is kept already, dead or not.
    known: BTreeSet<u64>,
    letters: BTreeMap<u64, Letter>,
    /// Each person's events that are left, in their order.
    queues: HashMap<Option<Subject>, VecDeque<u64>>,
    /// Those at the head of their queue that are not under way.
    heads: BTreeSet<u64>,
    under_way: usize,
    health: Health,
    /// Given up, and not yet written down as that.
    dead: Vec<Delivery>,
    /// Kept in the store and not needed there any more.
    ended: Vec<u64>,
}

/// An event that is left.
struct Letter {
    delivery: Delivery,
    under_way: Option<UnderWay>,
    /// The store has it.
    kept: bool,
    /// The store does not have it, or not as it is.
    stale: bool,
    failed: Option<Failure>,
    own_fault: bool,
}

/// The attempt that is being made.
#[derive(Clone, Copy)]
struct UnderWay {
    began: Timestamp,
    /// It was begun although the endpoint fails.
    probe: bool,
}

/// The last time that it failed.
struct Failure {
    at: Timestamp,
    /// How many had got through by then.
    successes: u64,
}

/// What followed from a failure for the event itself.
struct Failed {
    after: After,
    own_fault: bool,
    /// Whose it is.
    subject: Option<Subject>,
}

#[derive(Default)]
struct Health {
    successes: u64,
    /// Whose events failed since the last success, through no fault of their own that is known.
    suspects: HashSet<Option<Subject>>,
    failing_since: Option<Timestamp>,
    down: Option<Down>,
    /// The receiver wants to be left alone.
    rest_until: Timestamp,
    disabled: Option<Disabled>,
}

/// It fails as a whole.
struct Down {
    /// Probes that failed.
    probes: u32,
    probe_at: Timestamp,
    last_at: Timestamp,
}

/// Whether an instant is still to come. What is too far away to have been planned is not: somebody set the clock back.
fn is_ahead(at: Timestamp, now: Timestamp) -> bool {
    at > now && at <= now + schedule::LONGEST
}

impl Desk {
    /// A desk that begins behind `read`. One that has been failing begins with a probe.
    pub(super) fn new(read: u64, failing_since: Option<Timestamp>, disabled: Option<Disabled>, now: Timestamp) -> Self {
        let down = failing_since.map(|_| Down { probes: 0, probe_at: now, last_at: now });
        Self {
            read,
            known: BTreeSet::new(),
            letters: BTreeMap::new(),
            queues: HashMap::new(),
            heads: BTreeSet::new(),
            under_way: 0,
            health: Health { failing_since, down, disabled, ..Health::default() },
            dead: vec![],
            ended: vec![],
        }
    }

    /// How many more events it holds.
    pub(super) fn room(&self) -> usize {
        PENDING_MAX.saturating_sub(self.letters.len())
    }

    /// How many events it holds.
    pub(super) fn pending(&self) -> usize {
        self.letters.len()
    }

    /// When the oldest of them was noticed.
    pub(super) fn oldest(&self) -> Option<Timestamp> {
        self.letters.first_key_value().map(|(_, letter)| letter.delivery.noticed_at)
    }

    /// Where the log is to be read on from.
    pub(super) fn read(&self) -> u64 {
        self.read
    }

    /// Notes that the store has this one, so that it is not taken from the log again.
    pub(super) fn know(&mut self, sequence: u64) {
        self.known.insert(sequence);
    }

    /// Takes what the store has kept, in its order, before anything is taken from the log.
    pub(super) fn restore(&mut self, delivery: Delivery) {
        self.know(delivery.sequence);
        self.put(delivery, true);
    }

    /// Everything that the store keeps was taken. Returns whether the endpoint stands differently now: what failed may be gone with
    /// who was forgotten.
    pub(super) fn restored(&mut self) -> bool {
        let failed = self.health.failing_since.is_some();
        self.absolve();
        failed && self.health.failing_since.is_none()
    }

    /// Where nothing is left, nothing could tell whether the endpoint still fails.
    fn absolve(&mut self) {
        if self.letters.is_empty() {
            (self.health.down, self.health.failing_since) = (None, None);
            self.health.suspects.clear();
        }
    }

    /// Takes the next event of the log.
    pub(super) fn take(&mut self, delivery: Delivery) {
        self.read = self.read.max(delivery.sequence);
        if !self.known.remove(&delivery.sequence) {
            self.put(delivery, false);
        }
    }

    /// Nothing that is wanted stands in the log up to here but what was taken.
    pub(super) fn passed(&mut self, sequence: u64) {
        self.read = self.read.max(sequence);
    }

    fn put(&mut self, delivery: Delivery, kept: bool) {
        let sequence = delivery.sequence;
        let queue = self.queues.entry(delivery.subject.clone()).or_default();
        queue.push_back(sequence);
        if queue.len() == 1 {
            self.heads.insert(sequence);
        }
        let letter = Letter { delivery, under_way: None, kept, stale: !kept, failed: None, own_fault: false };
        self.letters.insert(sequence, letter);
    }

    /// What is to be sent now. It is under way until [`Desk::ended`] is told of it.
    pub(super) fn next(&mut self, now: Timestamp) -> Option<Delivery> {
        let sequence = self.choose(now)?;
        let letter = self.letters.get_mut(&sequence)?;
        letter.under_way = Some(UnderWay { began: now, probe: self.health.down.is_some() });
        self.heads.remove(&sequence);
        self.under_way += 1;
        if let Some(down) = &mut self.health.down {
            down.last_at = now;
        }
        Some(letter.delivery.clone())
    }

    fn choose(&self, now: Timestamp) -> Option<u64> {
        if self.is_held() || is_ahead(self.health.rest_until, now) {
            return None;
        }
        let heads = self.heads.iter().filter_map(|sequence| self.letters.get(sequence));
        let mut due = heads.filter(|letter| !is_ahead(self.opens_at(letter), now));
        let chosen = if self.health.down.is_some() {
            due.min_by_key(|letter| (letter.own_fault, letter.delivery.attempts, letter.delivery.sequence))
        } else {
            due.next()
        };
        chosen.map(|letter| letter.delivery.sequence)
    }

    /// Nothing may be sent before something ends.
    fn is_held(&self) -> bool {
        let most = if self.health.down.is_some() { 1 } else { UNDER_WAY_MAX };
        self.health.disabled.is_some() || self.under_way >= most
    }

    /// From when on it may be sent.
    fn opens_at(&self, letter: &Letter) -> Timestamp {
        let due_at = letter.delivery.due_at;
        match &self.health.down {
            Some(down) if letter.delivery.attempts == 0 => due_at.max(down.probe_at.min(down.last_at + FRESH_PAUSE)),
            Some(down) => due_at.max(down.probe_at),
            None => due_at,
        }
    }

    /// When to ask for the next one again, unless something ends or is taken before.
    pub(super) fn wake_at(&self) -> Option<Timestamp> {
        if self.is_held() {
            return None;
        }
        let heads = self.heads.iter().filter_map(|sequence| self.letters.get(sequence));
        heads.map(|letter| self.opens_at(letter)).min().map(|at| at.max(self.health.rest_until))
    }

    /// An attempt has ended. `jitter` is a random number from 0 to 1.
    pub(super) fn ended(&mut self, sequence: u64, ending: Ending, now: Timestamp, jitter: f64) -> Option<After> {
        let attempt = self.letters.get_mut(&sequence)?.under_way.take()?;
        self.under_way -= 1;
        match ending {
            Ending::Delivered => {
                self.succeeded(now);
                let letter = self.remove(sequence)?;
                self.ended.extend(letter.kept.then_some(sequence));
                Some(After::Delivered)
            }
            Ending::Failed { retry_after, slow } => {
                self.health.rest_until = self.health.rest_until.max(now + schedule::patience(retry_after));
                let Failed { after, own_fault, subject } = self.failed(sequence, attempt, now, retry_after, jitter)?;
                let disabled = if own_fault { None } else { self.suspect(subject, attempt, now, slow, jitter) };
                self.absolve();
                Some(disabled.unwrap_or(after))
            }
            Ending::Gone => {
                self.failed(sequence, attempt, now, None, jitter);
                self.disable("gone", now);
                Some(After::Disabled)
            }
        }
    }

    fn succeeded(&mut self, now: Timestamp) {
        self.health.successes += 1;
        self.health.suspects.clear();
        self.health.down = None;
        if self.health.failing_since.take().is_none() {
            return;
        }
        let failed = |letter: &&mut Letter| !letter.own_fault && letter.delivery.attempts > 0;
        for letter in self.letters.values_mut().filter(failed) {
            // What failed before a restart did so long enough ago.
            let soon = letter.failed.as_ref().map_or(now, |failure| now.max(failure.at + schedule::PAUSES[0]));
            letter.delivery.due_at = letter.delivery.due_at.min(soon);
        }
    }

    /// What follows for the event itself.
    fn failed(
        &mut self,
        sequence: u64,
        attempt: UnderWay,
        now: Timestamp,
        retry_after: Option<Duration>,
        jitter: f64,
    ) -> Option<Failed> {
        let successes = self.health.successes;
        let letter = self.letters.get_mut(&sequence)?;
        letter.own_fault |= letter.failed.as_ref().is_some_and(|failure| failure.successes < successes);
        letter.failed = Some(Failure { at: now, successes });
        letter.stale = true;
        let (own_fault, subject) = (letter.own_fault, letter.delivery.subject.clone());
        let delivery = &mut letter.delivery;
        delivery.attempts += 1;
        let first_at = *delivery.first_at.get_or_insert(attempt.began);
        if let Some(due_at) = schedule::again(delivery.attempts, first_at, now, retry_after, jitter) {
            delivery.due_at = due_at;
            self.heads.insert(sequence);
            return Some(Failed { after: After::Again, own_fault, subject });
        }
        let letter = self.remove(sequence)?;
        self.dead.push(Delivery { dead: true, ..letter.delivery });
        Some(Failed { after: After::Dead, own_fault, subject })
    }

    /// A failure that may be the endpoint's.
    fn suspect(
        &mut self,
        subject: Option<Subject>,
        attempt: UnderWay,
        now: Timestamp,
        slow: bool,
        jitter: f64,
    ) -> Option<After> {
        let health = &mut self.health;
        let since = *health.failing_since.get_or_insert(attempt.began);
        health.suspects.insert(subject);
        match &mut health.down {
            Some(down) if attempt.probe => {
                down.probes += 1;
                down.probe_at = now + schedule::pause(down.probes + 1, jitter);
            }
            None if slow || health.suspects.len() >= SUSPECTS => {
                health.down = Some(Down { probes: 0, probe_at: now + schedule::pause(1, jitter), last_at: now });
            }
            // What was under way already when the endpoint was found to fail is no probe.
            Some(_) | None => {}
        }
        (now.since(since) >= FAILING_MAX).then(|| {
            self.disable("failing", now);
            After::Disabled
        })
    }

    fn disable(&mut self, why: &str, now: Timestamp) {
        self.health.disabled.get_or_insert_with(|| Disabled { why: why.to_owned(), since: now });
    }

    /// Takes it out; the next one of the same person is at the head then.
    fn remove(&mut self, sequence: u64) -> Option<Letter> {
        let letter = self.letters.remove(&sequence)?;
        if let Some(queue) = self.queues.get_mut(&letter.delivery.subject) {
            queue.pop_front();
            match queue.front() {
                Some(next) => _ = self.heads.insert(*next),
                None => _ = self.queues.remove(&letter.delivery.subject),
            }
        }
        Some(letter)
    }

    /// What is to be written down by now; [`Desk::saved`] is told when it was.
    pub(super) fn saving(&self) -> Saving {
        let is_to_be_kept = |letter: &Letter| {
            let head = self.queues.get(&letter.delivery.subject).and_then(VecDeque::front);
            let waits = head.and_then(|head| self.letters.get(head)).is_some_and(|head| head.delivery.attempts > 0);
            waits || self.health.down.is_some() || self.health.disabled.is_some()
        };
        let unwritten = self.letters.values().filter(|letter| letter.stale);
        let kept = unwritten.clone().filter(|letter| is_to_be_kept(letter)).map(|letter| letter.delivery.clone());
        let open = self.letters.values().find(|letter| !letter.kept && !is_to_be_kept(letter));
        Saving {
            low_water: open.map_or(self.read, |letter| letter.delivery.sequence - 1),
            failing_since: self.health.failing_since,
            disabled: self.health.disabled.clone(),
            kept: kept.chain(self.dead.iter().cloned()).collect(),
            ended: self.ended.clone(),
        }
    }

    /// It was written, and nothing has happened here since [`Desk::saving`].
    pub(super) fn saved(&mut self, saving: &Saving) {
        for delivery in &saving.kept {
            if let Some(letter) = self.letters.get_mut(&delivery.sequence) {
                (letter.kept, letter.stale) = (true, false);
            }
        }
        self.dead.clear();
        self.ended.clear();
        self.known = self.known.split_off(&(self.read + 1));
    }
}
