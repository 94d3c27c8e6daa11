//! One run: a world, a budget, a policy. Time goes from event to event; clients' requests come between.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::time::Duration;

use avatar_proxy::budget::{Permit, Priority};
use avatar_proxy::change::{self, Circumstances, Kind, State};
use avatar_proxy::clock::Timestamp;
use avatar_proxy::entry::{Entry, Freshness, Jitter};
use avatar_proxy::jid::Variant;
use avatar_proxy::outcome::{Failure, Observation, Outcome, Rules, Token};
use avatar_proxy::recheck::forecast::{Forecast, SAMPLES};
use avatar_proxy::recheck::turn::Turn;
use avatar_proxy::recheck::{Lessons, Look, Outlook};
use fastrand::Rng;

use crate::answers;
use crate::gate::{CONCURRENCY, Gate};
use crate::policy::Policy;
use crate::population::{DAY, DAYS_BETWEEN_MESSAGES, ODD, RATE_LIMITS, REPLY, World};
use crate::queues::{Queues, Taken};
use crate::requests::Requests;
use crate::tally::{Days, Tally};

/// What is run.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Setup {
    pub(crate) lookups_a_day: f64,
    pub(crate) policy: Policy,
    pub(crate) days: Days,
    /// `--recheck-interval`
    pub(crate) interval: Duration,
}

/// Where the simulation's clock begins.
const START: i64 = 1_700_000_000_000;

/// From when on a dead URL is counted as missed: until then people are looked at for the first time.
const SETTLED: i64 = 15 * DAY;

/// After the measured days, changes that nobody was told of are waited for: so long at the most.
const TAIL: i64 = 45 * DAY;

/// How often the forecast is made.
const FORECAST_EVERY: i64 = DAY / 24;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Event {
    /// A picture changes.
    Change(u32),
    /// Somebody writes, as always, or because the picture changed.
    Message(u32),
    Extra(u32),
    /// A flight ends.
    Ended(usize),
    /// The planner may have something to do.
    Wake,
    /// The next lookup is told to slow down.
    SlowDown,
    Forecast,
}

#[derive(Default)]
struct Person {
    picture: u32,
    /// When it changed since the last look that saw it.
    untold: Vec<i64>,
    state: State,
    entry: Option<Entry>,
    revision: Token,
    flying: bool,
    /// Odd answers in a row.
    odd: u32,
    subject: Option<Outlook>,
}

/// What clients are answered with; kept small, because it is read at every request.
#[derive(Clone)]
struct Served {
    entry: Entry<()>,
    /// When the URL really dies, if there is one.
    expires: Option<i64>,
}

struct Flight {
    person: u32,
    permit: Permit,
    start: Token,
    started_at: i64,
    answer: Result<Outcome, Failure>,
    /// How many of the changes it sees.
    sees: usize,
}

pub(crate) struct Simulation<'a> {
    world: &'a World,
    setup: Setup,
    now: i64,
    gate: Gate,
    /// What happens in the world, whatever is done about it.
    fate: Rng,
    /// How lookups fare.
    luck: Rng,
    people: Vec<Person>,
    served: Vec<Option<Served>>,
    /// Until when a request for somebody does nothing at all (ms): nearly all of them are no more than this comparison.
    quiet_until: Vec<i64>,
    events: BinaryHeap<Reverse<(i64, u64, Event)>>,
    pushed: u64,
    flights: Vec<Option<Flight>>,
    running: u32,
    slow_down: bool,
    tokens: u64,
    queues: Queues,
    lessons: Lessons,
    forecast: Forecast,
    /// Deadlines until then stand too close to wait for them.
    early_until: i64,
    wake_at: i64,
    known: u64,
    rules: Rules,
    tally: Tally,
}

fn at(now: i64) -> Timestamp {
    Timestamp::from_millis(START + now)
}

fn since_start(at: Timestamp) -> i64 {
    at.as_millis() - START
}

fn millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}

impl<'a> Simulation<'a> {
    pub(crate) fn new(world: &'a World, setup: Setup) -> Self {
        let count = world.rates.len();
        let mut this = Self {
            world,
            setup,
            now: 0,
            gate: Gate::new(setup.lookups_a_day, at(0)),
            fate: Rng::with_seed(world.seed ^ 0xFA7E),
            luck: Rng::with_seed(world.seed ^ 0x10C4),
            people: (0..count).map(|_| Person::default()).collect(),
            served: vec![None; count],
            quiet_until: vec![0; count],
            events: BinaryHeap::new(),
            pushed: 0,
            flights: vec![],
            running: 0,
            slow_down: false,
            tokens: 0,
            queues: Queues::new(count),
            lessons: Lessons::default(),
            forecast: Forecast::default(),
            early_until: 0,
            wake_at: i64::MAX,
            known: 0,
            // Rechecks are the planner's: an entry is due because of its expiry alone.
            rules: Rules { recheck_interval: Duration::from_secs(40 * 86_400), ..Rules::default() },
            tally: Tally::new(setup.lookups_a_day, setup.days),
        };
        for (person, rate) in (0..).zip(&world.rates) {
            this.later(*rate, Event::Change(person));
            this.later(1.0 / DAYS_BETWEEN_MESSAGES, Event::Message(person));
        }
        this.later(RATE_LIMITS, Event::SlowDown);
        this.push(FORECAST_EVERY, Event::Forecast);
        this
    }

    /// Runs to the end.
    pub(crate) fn run(mut self) -> Tally {
        let end = self.setup.days.end();
        let mut requests = Requests::new(self.world);
        let mut request_at = requests.next_at();
        while self.now < end || self.tally.is_waiting() && self.now < end + TAIL {
            let Some(Reverse((event_at, ..))) = self.events.peek() else { break };
            if request_at < *event_at {
                self.request(requests.whom(), request_at);
                request_at = requests.next_at();
            } else if let Some(Reverse((at, _, event))) = self.events.pop() {
                self.advance(at);
                self.handle(event);
            }
        }
        self.tally
    }

    fn advance(&mut self, to: i64) {
        self.gate.advance(Duration::from_millis((to - self.now).unsigned_abs()));
        self.now = to;
    }

    fn push(&mut self, after: i64, event: Event) {
        self.pushed += 1;
        self.events.push(Reverse((self.now + after, self.pushed, event)));
    }

    /// The next event of a Poisson process with so many a day.
    fn later(&mut self, rate: f64, event: Event) {
        let after = self.wait(rate);
        self.push(after, event);
    }

    #[allow(clippy::cast_possible_truncation, clippy::cast_precision_loss)] // saturates
    fn wait(&mut self, rate: f64) -> i64 {
        (-(1.0 - self.fate.f64()).ln() / rate * DAY as f64) as i64
    }

    fn handle(&mut self, event: Event) {
        match event {
            Event::Change(person) => {
                self.later(self.world.rates[person as usize], event);
                self.change(person);
            }
            Event::Message(person) => {
                self.later(1.0 / DAYS_BETWEEN_MESSAGES, event);
                self.hint(person);
            }
            Event::Extra(person) => self.hint(person),
            Event::Ended(flight) => {
                self.ended(flight);
                self.go_on();
            }
            Event::SlowDown => {
                self.later(RATE_LIMITS, event);
                self.slow_down = true;
            }
            Event::Forecast => {
                self.push(FORECAST_EVERY, event);
                self.look_ahead();
                self.go_on();
            }
            // One that an earlier one has overtaken is nobody's.
            Event::Wake if self.wake_at != self.now => {}
            Event::Wake => {
                self.wake_at = i64::MAX;
                self.go_on();
            }
        }
    }

    fn change(&mut self, person: u32) {
        let one = &mut self.people[person as usize];
        one.picture += 1;
        // Before the baseline there is nothing to tell.
        if one.state.recorded.is_some() {
            one.untold.push(self.now);
            self.tally.happened(self.now);
        }
        let mut after = 0;
        loop {
            after += self.wait((self.world.likelier - 1.0) / DAYS_BETWEEN_MESSAGES);
            if after > DAY {
                break;
            }
            self.push(after, Event::Extra(person));
        }
    }

    /// Somebody writes.
    fn hint(&mut self, person: u32) {
        let one = &mut self.people[person as usize];
        if self.setup.policy.takes_hints()
            && let Some(before) = one.subject.filter(|_| !one.flying)
            && let Some(outlook) =
                self.lessons.active(&before, self.queues.virtual_now, at(self.now), self.setup.interval)
        {
            self.queues.advance(person, outlook.turn.rank, self.now);
            one.subject = Some(outlook);
        }
    }

    /// A client asks.
    fn request(&mut self, person: usize, now: i64) {
        self.tally.asked(now);
        if now < self.quiet_until[person] {
            return;
        }
        if let Some(Served { entry, expires }) = &self.served[person] {
            let live = entry.freshness(at(now)) != Freshness::Dead;
            self.tally.dead_served += u64::from(live && expires.is_some_and(|expires| expires <= now));
            if live && !self.setup.policy.is_too_old(now - since_start(entry.checked_at), entry, at(now)) {
                return;
            }
            let one = &self.people[person];
            self.tally.missed += u64::from(!live && expires.is_some() && !one.flying && now > SETTLED);
        }
        if !self.people[person].flying {
            self.advance(now);
            self.people[person].flying = self.gate.ask(person, Priority::Miss);
            if self.people[person].flying {
                self.go_on();
            }
        }
    }

    /// Lets those start who may, and plans as far as there is budget.
    fn go_on(&mut self) {
        loop {
            for (person, permit) in self.gate.let_start() {
                self.start(person, permit);
            }
            let free = self.running < CONCURRENCY && self.gate.waiting() == 0;
            if !free || !self.gate.wait().is_zero() || !self.plan() {
                break;
            }
        }
        if self.running == CONCURRENCY {
            return;
        }
        let (wait, waiting) = (millis(self.gate.wait()), i64::try_from(self.gate.waiting()).unwrap_or(i64::MAX));
        let wake_at = if wait > 0 || waiting > 0 {
            self.now + wait / (waiting + 1) + 1
        } else {
            self.queues.next_at().map_or(i64::MAX, |next| next.max(self.now + 1))
        };
        if wake_at < self.wake_at {
            self.wake_at = wake_at;
            self.push(wake_at - self.now, Event::Wake);
        }
    }

    /// Asks for a look at who is next; false if there is nobody.
    fn plan(&mut self) -> bool {
        if !self.setup.policy.plans() {
            return false;
        }
        let (person, priority) = match self.queues.take(self.now, self.now.max(self.early_until)) {
            Some(Taken::Due(person)) => (person, Priority::Expiring),
            Some(Taken::Recheck(person)) => (person, Priority::Recheck),
            None => return false,
        };
        let asked = self.gate.ask(person as usize, priority);
        self.people[person as usize].flying = asked;
        if !asked {
            self.put(person);
        }
        true
    }

    fn put(&mut self, person: u32) {
        let one = &self.people[person as usize];
        if let Some(entry) = one.entry.as_ref().filter(|_| self.setup.policy.plans()) {
            let scarce = self.setup.policy.saves() && self.forecast.is_scarce();
            let soonest = if scarce { self.forecast.soonest(self.setup.interval) } else { self.setup.interval };
            let rank = one.subject.map_or(self.queues.virtual_now, |subject| subject.turn.rank);
            self.queues.put(person, since_start(entry.due_at), since_start(entry.checked_at + soonest), rank);
        }
    }

    fn look_ahead(&mut self) {
        let within =
            |(count, due_at): (usize, i64)| (count, Duration::from_millis((due_at - self.now).max(0).unsigned_abs()));
        let deadlines = self.queues.deadlines(&SAMPLES).map(within);
        self.forecast = Forecast::new(deadlines, self.known, self.setup.interval, self.setup.lookups_a_day / 86_400.0);
        self.early_until = self.now + millis(self.forecast.pressing);
    }

    fn start(&mut self, person: usize, permit: Option<Permit>) {
        let number = u32::try_from(person).unwrap_or(u32::MAX);
        self.queues.remove(number);
        let Some(permit) = permit.and_then(|mut permit| permit.start().is_ok().then_some(permit)) else {
            self.people[person].flying = false;
            self.put(number);
            return;
        };
        self.tally.starts(self.now);
        self.running += 1;
        self.tokens += 1;
        let one = &self.people[person];
        let answer = if std::mem::take(&mut self.slow_down) {
            Err(answers::slow_down())
        } else if self.luck.f64() < ODD {
            Ok(answers::hidden())
        } else {
            Ok(answers::picture(person, one.picture, START + self.now))
        };
        let sees = one.untold.len();
        let flight = Flight { person: number, permit, start: Token(self.tokens), started_at: self.now, answer, sees };
        let place = self.flights.iter().position(Option::is_none).unwrap_or(self.flights.len());
        if place == self.flights.len() {
            self.flights.push(None);
        }
        self.flights[place] = Some(flight);
        let takes = self.luck.i64(REPLY.0..=REPLY.1);
        self.push(takes, Event::Ended(place));
    }

    fn ended(&mut self, place: usize) {
        let Some(Flight { person, permit, start, started_at, answer, sees }) = self.flights[place].take() else {
            return;
        };
        self.running -= 1;
        self.gate.report(permit, &answer);
        self.people[person as usize].flying = false;
        match answer {
            Ok(outcome) => {
                let seen = Observation {
                    variant: Variant::default(),
                    outcome,
                    start,
                    started_at: at(started_at),
                    ended_at: at(self.now),
                };
                self.record(person, &seen, sees);
            }
            Err(_) => self.tally.slows_down(self.now),
        }
        self.put(person);
    }

    /// Takes in what a look saw, as the program does.
    fn record(&mut self, person: u32, seen: &Observation, changes: usize) {
        let one = &mut self.people[person as usize];
        let around = Circumstances {
            applied: one.revision,
            device_succeeded_at: self.gate.succeeded_at(),
            entropy: self.luck.u128(..),
            rules: &self.rules,
        };
        let verdict = change::observe(&one.state, seen, around);
        let mut rules = self.rules.clone();
        rules.renew_late = self.setup.policy.saves() && self.forecast.is_scarce();
        let jitter = Jitter(self.luck.f64());
        let entry = Entry::after(one.entry.as_ref(), seen, verdict.standing, &rules, jitter);
        self.known += u64::from(one.state.recorded.is_none() && verdict.state.recorded.is_some());
        self.tokens += 1;
        (one.revision, one.state) = (Token(self.tokens), verdict.state);
        if verdict.change.as_ref().is_some_and(|change| change.kind == Kind::Removed) {
            self.tally.removed(one.odd + 1);
        }
        one.odd += 1;
        if matches!(seen.outcome, Outcome::Present(_)) {
            one.odd = 0;
            for happened in one.untold.drain(..changes.min(one.untold.len())) {
                self.tally.told(happened, self.now);
            }
            let (now, virtual_now, random) = (at(self.now), self.queues.virtual_now, self.luck.f64());
            let look = Look { changed: verdict.change.is_some(), at: now, virtual_now };
            let mut subject = match &one.subject {
                Some(before) => {
                    self.lessons.learn(before, look);
                    self.lessons.looked(before, look, 1.0, random)
                }
                None => self.lessons.met(virtual_now, now, 1.0, random),
            };
            if let Some(weight) = self.setup.policy.weight(self.world.rates[person as usize]) {
                let first = one.subject.is_none();
                subject.turn =
                    if first { Turn::first(virtual_now, weight, random) } else { Turn::next(virtual_now, weight, 0.5) };
            }
            one.subject = Some(subject);
        }
        let expires = match &entry.outcome {
            Outcome::Present(picture) => picture.expires_at().map(since_start),
            Outcome::Negative(_) => None,
        };
        let live = since_start(entry.dead_at).min(expires.unwrap_or(i64::MAX));
        self.quiet_until[person as usize] = live.min(self.setup.policy.content_until(self.now, &entry));
        self.served[person as usize] = Some(Served { entry: entry.with(()), expires });
        one.entry = Some(entry);
    }
}
