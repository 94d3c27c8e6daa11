use proptest::prelude::*;

use super::*;
use crate::jid::{Device, Jid};

const START: Timestamp = Timestamp::from_seconds(1_700_000_000);

const SECOND: Duration = Duration::from_secs(1);

const HOUR: Duration = Duration::from_secs(3600);

const REFUSED: Ending = Ending::Failed { retry_after: None, slow: false };

/// A desk, a log, a store and a receiver, as plain as can be.
struct World {
    now: Timestamp,
    desk: Desk,
    /// Whose event each is; the first has the sequence 1.
    log: Vec<u64>,
    /// What a kill leaves.
    low_water: u64,
    failing_since: Option<Timestamp>,
    rows: BTreeMap<u64, Delivery>,
    under_way: Vec<Delivery>,
    /// What the receiver has got.
    delivered: BTreeSet<u64>,
    dead: BTreeSet<u64>,
    attempts: HashMap<u64, u32>,
    /// The instants of all attempts.
    sent_at: Vec<Timestamp>,
    away: bool,
    /// Whose events the receiver chokes on.
    poison: HashSet<u64>,
}

impl World {
    fn new() -> Self {
        Self {
            now: START,
            desk: Desk::new(0, None, None, START),
            log: vec![],
            low_water: 0,
            failing_since: None,
            rows: BTreeMap::new(),
            under_way: vec![],
            delivered: BTreeSet::new(),
            dead: BTreeSet::new(),
            attempts: HashMap::new(),
            sent_at: vec![],
            away: false,
            poison: HashSet::new(),
        }
    }

    fn append(&mut self, people: impl IntoIterator<Item = u64>) {
        self.log.extend(people);
        self.feed();
    }

    fn person(&self, sequence: u64) -> u64 {
        self.log[usize::try_from(sequence - 1).unwrap()]
    }

    /// Takes from the log whatever there is room for.
    fn feed(&mut self) {
        let last = self.log.len() as u64;
        while self.desk.room() > 0 && self.desk.read() < last {
            let sequence = self.desk.read() + 1;
            let jid = Jid::parse(&format!("{}", 999_000 + self.person(sequence))).unwrap();
            self.desk.take(Delivery {
                sequence,
                event_id: sequence.to_string(),
                subject: Some(Subject { device: Device::default(), jid }),
                noticed_at: self.now,
                attempts: 0,
                first_at: None,
                due_at: self.now,
                dead: false,
                json: "{}".into(),
            });
        }
    }

    /// Sends all that may be sent.
    fn send(&mut self) {
        self.feed();
        while let Some(delivery) = self.desk.next(self.now) {
            let (sequence, person) = (delivery.sequence, self.person(delivery.sequence));
            for earlier in (1..sequence).filter(|earlier| self.person(*earlier) == person) {
                let over = self.delivered.contains(&earlier) || self.dead.contains(&earlier);
                assert!(over, "{sequence} is sent before {earlier} of the same person");
            }
            *self.attempts.entry(sequence).or_default() += 1;
            self.sent_at.push(self.now);
            self.under_way.push(delivery);
            assert!(self.under_way.len() <= UNDER_WAY_MAX);
        }
        assert!(self.desk.letters.len() <= PENDING_MAX);
        let over = |sequence: &u64| self.delivered.contains(sequence) || self.dead.contains(sequence);
        let left = (1..=self.desk.read()).filter(|sequence| !over(sequence)).count();
        assert!(self.desk.pending() >= left, "{} pending, {left} left", self.desk.pending());
    }

    fn fails(&self, sequence: u64) -> bool {
        self.away || self.poison.contains(&self.person(sequence))
    }

    /// One attempt ends, as the receiver is.
    fn finish(&mut self, which: usize) -> Option<After> {
        let which = which.checked_rem(self.under_way.len())?;
        let sequence = self.under_way[which].sequence;
        let ending = if self.fails(sequence) { REFUSED } else { Ending::Delivered };
        self.end(which, ending)
    }

    fn end(&mut self, which: usize, ending: Ending) -> Option<After> {
        let sequence = self.under_way.swap_remove(which).sequence;
        let after = self.desk.ended(sequence, ending, self.now, 0.5);
        match after {
            Some(After::Delivered) => _ = self.delivered.insert(sequence),
            Some(After::Dead) => _ = self.dead.insert(sequence),
            _ => {}
        }
        after
    }

    fn finish_all(&mut self) {
        while self.finish(0).is_some() {}
    }

    fn save(&mut self) {
        let saving = self.desk.saving();
        self.desk.saved(&saving);
        for sequence in &saving.ended {
            self.rows.remove(sequence);
        }
        self.rows.extend(saving.kept.into_iter().map(|kept| (kept.sequence, kept)));
        (self.low_water, self.failing_since) = (saving.low_water, saving.failing_since);
        let open = (1..=self.low_water)
            .find(|sequence| !self.delivered.contains(sequence) && !self.rows.contains_key(sequence));
        assert_eq!(open, None, "the low water is {}", self.low_water);
    }

    /// Killed and started again, on what was saved. The receiver may have got what was under way.
    fn kill(&mut self, got: bool) {
        let lost = std::mem::take(&mut self.under_way);
        self.delivered.extend(lost.iter().map(|delivery| delivery.sequence).filter(|_| got && !self.away));
        self.dead = self.rows.values().filter(|row| row.dead).map(|row| row.sequence).collect();
        self.desk = Desk::new(self.low_water, self.failing_since, None, self.now);
        for row in self.rows.values() {
            if row.dead { self.desk.know(row.sequence) } else { self.desk.restore(row.clone()) }
        }
    }

    /// Lives on until nothing more happens before `until`.
    fn run(&mut self, until: Timestamp) {
        loop {
            self.send();
            if !self.under_way.is_empty() {
                self.finish_all();
                continue;
            }
            match self.desk.wake_at() {
                Some(at) if at <= until => self.now = self.now.max(at),
                _ => break,
            }
        }
        self.now = self.now.max(until);
        self.save();
    }

    fn run_for(&mut self, time: Duration) {
        self.run(self.now + time);
    }

    fn assert_all_delivered(&self) {
        let all: BTreeSet<u64> = (1..=self.log.len() as u64).collect();
        assert_eq!(self.delivered, all);
        assert_eq!((self.desk.room(), self.low_water), (PENDING_MAX, self.log.len() as u64));
        assert!(self.rows.is_empty(), "{:?}", self.rows);
    }
}

#[test]
fn what_gets_through_is_sent_once_and_leaves_nothing_behind() {
    let mut world = World::new();
    world.append((0..1000).map(|event| event % 7));
    world.run_for(SECOND);
    world.assert_all_delivered();
    assert!(world.attempts.values().all(|attempts| *attempts == 1));
}

#[test]
fn of_an_endpoint_that_was_away_for_three_days_everything_arrives() {
    let mut world = World::new();
    world.away = true;
    // Every ten minutes somebody else's picture changes.
    for event in 0..6 * 72 {
        world.append([event % 50]);
        world.run_for(HOUR / 6);
    }
    let away = world.sent_at.len();
    assert!(away < 300, "{away} attempts while it was away");
    world.away = false;
    world.run_for(15 * HOUR);
    world.assert_all_delivered();
    let most = world.attempts.values().max().copied();
    assert!(most <= Some(10), "{most:?} attempts");
    assert!(world.dead.is_empty());
}

#[test]
fn a_single_event_outlasts_three_days_as_well() {
    let mut world = World::new();
    world.away = true;
    world.append([1]);
    world.run(START + 72 * HOUR - SECOND);
    assert_eq!(world.sent_at.len(), 9);
    world.away = false;
    world.run_for(SECOND);
    world.assert_all_delivered();
    assert_eq!(world.attempts[&1], 10);
}

#[test]
fn what_failed_alone_does_not_wait_for_its_schedule_once_another_gets_through() {
    let mut world = World::new();
    world.away = true;
    world.append([1]);
    world.run_for(20 * HOUR);
    world.away = false;
    world.append([2]);
    world.run_for(SECOND);
    world.assert_all_delivered();
}

#[test]
fn while_the_endpoint_fails_there_is_one_probe_at_a_time_and_pauses_between() {
    let mut world = World::new();
    world.away = true;
    world.append(0..200);
    world.send();
    world.finish_all();
    let burst = world.sent_at.len();
    assert!(burst <= UNDER_WAY_MAX, "{burst} before it was known");
    while world.now < START + 48 * HOUR {
        let before = world.now;
        world.send();
        assert!(world.under_way.len() <= 1, "{} probes at once", world.under_way.len());
        world.finish_all();
        world.now = world.desk.wake_at().unwrap();
        assert!(world.now > before, "not without a pause");
    }
    let probes = world.sent_at.len() - burst;
    assert!((10..=600).contains(&probes), "{probes} probes");
    world.away = false;
    world.run_for(24 * HOUR);
    world.assert_all_delivered();
}

#[test]
fn one_persons_failing_event_holds_back_that_persons_later_ones_and_nobody_elses() {
    let mut world = World::new();
    world.poison = [3].into();
    for round in 0..500u64 {
        world.append(0..5);
        world.run_for(HOUR / 12);
        let others = (1..=world.log.len() as u64).filter(|sequence| world.person(*sequence) != 3);
        assert!(others.clone().all(|other| world.delivered.contains(&other)), "in round {round}");
        if world.desk.room() < 10 {
            break;
        }
    }
    assert!(world.sent_at.iter().is_sorted());
    assert!(world.desk.health.down.is_none() && world.desk.health.failing_since.is_none());
    assert!(world.low_water + 5 >= world.log.len() as u64, "what waits is kept, and the low water goes on");
    world.poison.clear();
    world.run_for(72 * HOUR);
    let over = world.delivered.len() + world.dead.len();
    assert_eq!((over, world.dead.len() <= 1), (world.log.len(), true), "{:?}", world.dead);
}

#[test]
fn two_who_fail_by_their_own_fault_hold_back_a_third_for_five_minutes_at_most() {
    let mut world = World::new();
    world.poison = [1, 2].into();
    world.append([1, 2]);
    world.run_for(20 * HOUR);
    assert!(world.desk.health.down.is_some(), "for all that can be known");
    world.append([3]);
    world.run_for(FRESH_PAUSE);
    assert!(world.delivered.contains(&3));
    world.append([3, 3, 4]);
    world.run_for(SECOND);
    assert_eq!(world.delivered.len(), 4);
    let before = world.sent_at.len();
    world.run_for(2 * HOUR);
    assert!(world.sent_at.len() - before <= 4, "and the two keep to the schedule");
}

#[test]
fn what_fails_for_three_days_is_dead_and_the_next_one_is_tried() {
    let mut world = World::new();
    world.poison = [1].into();
    world.append([1, 2, 1]);
    world.run_for(72 * HOUR);
    assert_eq!((world.dead.clone(), world.rows[&1].dead, world.rows[&1].attempts), ([1].into(), true, 10));
    assert_eq!(world.attempts[&3], 1, "at once");
    world.kill(false);
    world.poison.clear();
    world.run_for(HOUR);
    assert_eq!(world.delivered, [2, 3].into());
    assert_eq!((world.attempts[&1], world.low_water), (10, 3), "what is dead stays so");
}

#[test]
fn who_asks_for_time_has_it() {
    for (retry_after, slow, pause) in [(Some(600), false, 600), (Some(2), true, 5), (None, true, 5)] {
        let mut world = World::new();
        world.append([1]);
        world.send();
        let retry_after = retry_after.map(Duration::from_secs);
        world.end(0, Ending::Failed { retry_after, slow });
        world.append([2, 3]);
        world.now = START + Duration::from_secs(pause - 1);
        world.send();
        assert_eq!(world.under_way, [], "{retry_after:?} {slow}");
        world.now = START + Duration::from_secs(pause) + SECOND;
        world.send();
        assert_eq!(world.under_way.len(), if slow { 1 } else { 3 }, "{retry_after:?} {slow}");
    }
}

#[test]
fn who_is_gone_is_sent_nothing_any_more() {
    let mut world = World::new();
    world.append([1, 2]);
    world.send();
    assert_eq!(world.end(0, Ending::Gone), Some(After::Disabled));
    world.finish_all();
    world.append([3]);
    world.run_for(100 * HOUR);
    assert_eq!(world.sent_at.len(), 2);
    let disabled = world.desk.saving().disabled.unwrap();
    assert_eq!((disabled.why.as_str(), disabled.since), ("gone", START));
    assert_eq!(world.rows.len(), 2, "what is left waits for who enables it");
    world.kill(false);
    world.run_for(SECOND);
    world.assert_all_delivered();
}

#[test]
fn who_fails_for_five_days_is_disabled() {
    let mut world = World::new();
    world.away = true;
    for _ in 0..119 {
        world.append([1, 2]);
        world.run_for(HOUR);
    }
    assert_eq!(world.desk.saving().disabled, None);
    world.run_for(20 * HOUR);
    let disabled = world.desk.saving().disabled.unwrap();
    assert_eq!(disabled.why, "failing");
    assert!(disabled.since >= START + FAILING_MAX);
    let before = world.sent_at.len();
    world.run_for(100 * HOUR);
    assert_eq!(world.sent_at.len(), before);
}

#[test]
fn an_endpoint_with_nothing_left_to_try_does_not_fail() {
    let mut world = World::new();
    world.away = true;
    world.append([1]);
    world.run_for(80 * HOUR);
    assert_eq!((world.dead.len(), world.desk.saving().failing_since), (1, None));
    world.run_for(100 * HOUR);
    world.append([2]);
    world.run_for(SECOND);
    assert_eq!(world.desk.saving().disabled, None);
}

#[test]
fn who_sets_the_clock_back_stops_nothing() {
    let mut world = World::new();
    world.away = true;
    world.append([1]);
    world.run_for(HOUR);
    world.away = false;
    world.now = START - 9000 * HOUR;
    world.send();
    world.finish_all();
    world.save();
    world.assert_all_delivered();
}

/// What may happen.
#[derive(Clone, Debug)]
enum Step {
    Append(Vec<u64>),
    Send,
    Finish(usize),
    End(usize, Ending),
    Pass(u64),
    Away(bool),
    Poison(HashSet<u64>),
    Save,
    Kill(bool),
}

fn step() -> impl Strategy<Value = Step> {
    let slow = (proptest::option::of(0..4000u64), any::<bool>())
        .prop_map(|(seconds, slow)| Ending::Failed { retry_after: seconds.map(Duration::from_secs), slow });
    prop_oneof![
        3 => prop::collection::vec(0..6u64, 1..40).prop_map(Step::Append),
        4 => Just(Step::Send),
        6 => (0..40usize).prop_map(Step::Finish),
        1 => (0..40usize, slow).prop_map(|(which, ending)| Step::End(which, ending)),
        2 => prop_oneof![0..10u64, 0..8000u64, 0..60_000u64].prop_map(Step::Pass),
        1 => any::<bool>().prop_map(Step::Away),
        1 => prop::collection::hash_set(0..6u64, 0..3).prop_map(Step::Poison),
        2 => Just(Step::Save),
        1 => any::<bool>().prop_map(Step::Kill),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn who_is_away_for_three_days_gets_everything_within_ten_attempts_each(
        first in prop::collection::vec(0..8u64, 1..40),
        later in prop::collection::vec((0..8u64, 1..20_000u64), 0..60),
        kills in prop::collection::vec(any::<bool>(), 60),
    ) {
        let mut world = World::new();
        world.away = true;
        world.append(first);
        world.run_for(SECOND);
        for ((person, pause), kill) in later.into_iter().zip(kills) {
            if world.now + Duration::from_secs(pause) > START + 72 * HOUR {
                break;
            }
            if kill {
                world.save();
                world.kill(false);
            }
            world.run_for(Duration::from_secs(pause));
            world.append([person]);
        }
        world.run(START + 72 * HOUR - SECOND);
        world.away = false;
        world.run_for(30 * HOUR);
        world.assert_all_delivered();
        let most = world.attempts.values().max().copied();
        prop_assert!(most <= Some(10), "{:?} attempts", most);
    }
}

proptest! {
    #[test]
    fn whatever_happens_nothing_is_lost_and_everybody_keeps_their_order(steps in prop::collection::vec(step(), 1..120)) {
        let mut world = World::new();
        for step in steps {
            match step {
                Step::Append(people) => world.append(people),
                Step::Send => world.send(),
                Step::Finish(which) => _ = world.finish(which),
                Step::End(which, ending) => {
                    if let Some(which) = which.checked_rem(world.under_way.len()) {
                        world.end(which, ending);
                    }
                }
                Step::Pass(seconds) => world.now = world.now + Duration::from_secs(seconds),
                Step::Away(away) => world.away = away,
                Step::Poison(people) => world.poison = people,
                Step::Save => world.save(),
                Step::Kill(got) => world.kill(got),
            }
        }
        (world.away, world.poison) = (false, HashSet::new());
        world.finish_all();
        if world.desk.saving().disabled.is_some() {
            world.save();
            world.kill(false);
        }
        world.run_for(200 * HOUR);
        let over: BTreeSet<u64> = world.delivered.union(&world.dead).copied().collect();
        prop_assert_eq!(over.len(), world.log.len(), "all are delivered or dead");
        prop_assert_eq!(world.low_water, world.log.len() as u64);
        prop_assert!(world.rows.values().all(|row| row.dead));
    }
}
