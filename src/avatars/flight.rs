//! One flight per key: however many clients ask for a key at once, one lookup is made, and everybody learns how it ended.
//!
//! A flight belongs to nobody's connection: it is a task of its own, so the first client may hang up half way. It gives up only
//! while it waits for the budget and nobody waits for it any more. Its endings are named ([`Ending`], [`Wait`]); whatever else
//! happens to the task, panic and abort included, its waiters learn that its owner is gone.

use std::collections::HashMap;
use std::collections::hash_map::Entry as Place;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::watch;

use super::slot::Slot;
use crate::budget::{self, Budget, Priority, Refusal};
use crate::clock::Clock;
use crate::jid::Key;
use crate::outcome::Failure;

/// How a flight ended.
#[derive(Clone, Debug)]
pub(super) enum Ending {
    /// With an outcome.
    Done(Slot, Source),
    /// With a failure, and after how long it is worth asking again.
    Failed(Arc<Failure>, Duration, Source),
    /// The budget did not let it start.
    GaveUp(Refusal),
}

/// Where an ending came from.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Source {
    /// The store had it: nothing was asked.
    Kept,
    /// The gateway was asked.
    Looked {
        /// Whether something was held that is dead, or not fresh enough.
        stale: bool,
        /// Whether what it said is in the store, and not in memory alone.
        stored: bool,
    },
}

/// What a waiter learns.
#[derive(Clone, Debug)]
pub(super) enum Wait {
    /// It ended.
    Ended(Ending),
    /// Its owner is gone without a word: it panicked or was stopped.
    OwnerGone,
    /// The budget did not let it start within the waiter's patience.
    NotStarted,
    /// It started and did not end within any time that it is given.
    TooLong,
}

#[derive(Clone, Debug)]
enum Stage {
    Waiting,
    Asking,
    Ended(Ending),
    Lost,
}

pub(super) struct Flight {
    stage: watch::Sender<Stage>,
    queued: Mutex<Queued>,
}

/// For whom it flies, and where it stands in the budget's queue.
struct Queued {
    priority: Priority,
    place: Option<budget::Place>,
    /// whether any client ever waited for it
    wanted: bool,
}

/// The flights under way.
#[derive(Default)]
pub(super) struct Flights(Mutex<HashMap<Key, Arc<Flight>>>);

/// A passenger.
pub(super) struct Seat {
    stage: watch::Receiver<Stage>,
    /// Whether the flight was under way already.
    pub(super) collapsed: bool,
}

/// The pilot: who holds this must end the flight, and ends it whatever happens.
pub(super) struct Pilot {
    flights: Arc<Flights>,
    flight: Arc<Flight>,
    key: Key,
}

impl Flights {
    /// Boards the flight for `key`; if there is none, makes one, to be flown by the pilot that is returned.
    pub(super) fn board(
        self: &Arc<Self>,
        key: &Key,
        priority: Priority,
        wanted: bool,
        budget: &Budget,
    ) -> (Seat, Option<Pilot>) {
        let mut flights = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match flights.entry(key.clone()) {
            Place::Occupied(entry) => {
                let flight = entry.get().clone();
                // Subscribed under the lock, so that a flight that nobody waits for does not give up at this very moment.
                let stage = flight.stage.subscribe();
                drop(flights);
                flight.promote(priority, wanted, budget);
                (Seat { stage, collapsed: true }, None)
            }
            Place::Vacant(entry) => {
                let (sender, stage) = watch::channel(Stage::Waiting);
                let queued = Mutex::new(Queued { priority, place: None, wanted });
                let flight = Arc::new(Flight { stage: sender, queued });
                entry.insert(flight.clone());
                let pilot = Pilot { flights: self.clone(), flight: flight.clone(), key: key.clone() };
                (Seat { stage, collapsed: false }, Some(pilot))
            }
        }
    }

    /// How many are under way.
    pub(super) fn count(&self) -> usize {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).len()
    }

    /// Takes the flight off the list, so that the next who asks makes a new one. With `if_empty`: only if nobody waits.
    fn strike(&self, key: &Key, flight: &Arc<Flight>, if_empty: bool) -> bool {
        let mut flights = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if if_empty && flight.stage.receiver_count() > 0 {
            return false;
        }
        if flights.get(key).is_some_and(|listed| Arc::ptr_eq(listed, flight)) {
            flights.remove(key);
        }
        true
    }
}

impl Flight {
    fn promote(&self, priority: Priority, wanted: bool, budget: &Budget) {
        let mut queued = self.queued.lock().unwrap_or_else(PoisonError::into_inner);
        queued.wanted |= wanted;
        if priority < queued.priority {
            queued.priority = priority;
            if let Some(place) = &queued.place {
                budget.promote(place, priority);
            }
        }
    }
}

impl Seat {
    /// Waits until it no longer waits for the budget, one way or the other.
    pub(super) async fn started(&mut self) {
        // Where its owner is gone, whoever waits for the end learns of it.
        let _ = self.stage.wait_for(|stage| !matches!(stage, Stage::Waiting)).await;
    }

    /// Waits for the end: `patience` until it starts, but not after `leaves`, and `longest` from then on.
    pub(super) async fn wait(
        mut self,
        clock: &Clock,
        patience: Duration,
        longest: Duration,
        leaves: impl Future<Output = ()>,
    ) -> Wait {
        let first = tokio::select! {
            biased;
            stage = self.stage.wait_for(|stage| !matches!(stage, Stage::Waiting)) => stage.map(|stage| stage.clone()),
            () = clock.sleep(patience) => return Wait::NotStarted,
            () = leaves => return Wait::NotStarted,
        };
        let last = match first {
            Ok(Stage::Asking) => tokio::select! {
                biased;
                stage = self.stage.wait_for(|stage| matches!(stage, Stage::Ended(_) | Stage::Lost)) => {
                    stage.map(|stage| stage.clone())
                }
                () = clock.sleep(longest) => return Wait::TooLong,
            },
            other => other,
        };
        match last {
            Ok(Stage::Ended(ending)) => Wait::Ended(ending),
            _ => Wait::OwnerGone,
        }
    }
}

impl Pilot {
    /// Whether any client waits or waited.
    pub(super) fn is_wanted(&self) -> bool {
        self.flight.queued.lock().unwrap_or_else(PoisonError::into_inner).wanted
    }

    /// For whom it flies.
    pub(super) fn priority(&self) -> Priority {
        self.flight.queued.lock().unwrap_or_else(PoisonError::into_inner).priority
    }

    /// It stands in the budget's queue: whoever boards from now on may move it ahead.
    pub(super) fn seated(&self, place: budget::Place, budget: &Budget, at: Priority) {
        let mut queued = self.flight.queued.lock().unwrap_or_else(PoisonError::into_inner);
        if queued.priority < at {
            budget.promote(&place, queued.priority);
        }
        queued.place = Some(place);
    }

    /// It asks the gateway now.
    pub(super) fn asking(&self) {
        self.flight.stage.send_replace(Stage::Asking);
    }

    /// Waits until nobody waits for it, and takes it off the list in the same moment.
    pub(super) async fn abandoned(&self) {
        loop {
            self.flight.stage.closed().await;
            if self.flights.strike(&self.key, &self.flight, true) {
                return;
            }
        }
    }

    /// Tells everybody how it ended.
    pub(super) fn end(self, ending: Ending) {
        // Off the list first: who comes after an ending wants a new flight, not this one's ending.
        self.flights.strike(&self.key, &self.flight, false);
        self.flight.stage.send_replace(Stage::Ended(ending));
    }
}

impl Drop for Pilot {
    fn drop(&mut self) {
        self.flights.strike(&self.key, &self.flight, false);
        // Without an ending by now there is nobody left to bring one.
        self.flight.stage.send_if_modified(|stage| {
            let lost = !matches!(stage, Stage::Ended(_));
            if lost {
                *stage = Stage::Lost;
            }
            lost
        });
    }
}

#[cfg(test)]
mod tests {
    use std::future::pending;

    use super::*;
    use crate::clock::Timestamp;
    use crate::jid::{Device, Jid};
    use crate::metrics::Metrics;
    use crate::outcome::{Class, Envelope};

    const LONG: Duration = Duration::from_secs(3600);

    struct World {
        flights: Arc<Flights>,
        budget: Budget,
        clock: Clock,
        key: Key,
    }

    impl World {
        fn new() -> Self {
            let clock = Clock::manual(Timestamp::from_seconds(1_700_000_000));
            let config = budget::Config {
                rate: 1.0,
                burst: 1,
                concurrency: 1,
                cool_down: Duration::from_secs(60),
                max_wait: Duration::from_secs(10),
            };
            let store = Arc::new(crate::store::none::Nothing);
            let budget = Budget::new(config, clock.clone(), store, Arc::new(Metrics::new()));
            let key = Key::new(Device::default(), Jid::parse("1").unwrap(), false, false);
            Self { flights: Arc::default(), budget, clock, key }
        }

        fn board(&self) -> (Seat, Option<Pilot>) {
            self.flights.board(&self.key, Priority::Miss, true, &self.budget)
        }
    }

    fn failure() -> Ending {
        let reply = Envelope { status: 500, code: "C".into(), message: "m".into(), results: None };
        let failure = Failure { class: Class::Passing, retry: false, reply, detail: "d".into() };
        Ending::Failed(Arc::new(failure), Duration::from_secs(2), Source::Looked { stale: false, stored: false })
    }

    #[tokio::test]
    async fn everybody_learns_the_one_ending_and_the_next_flies_anew() {
        let world = World::new();
        let (first, pilot) = world.board();
        let (second, none) = world.board();
        assert!(none.is_none() && second.collapsed && !first.collapsed);
        let pilot = pilot.unwrap();
        pilot.asking();
        pilot.end(failure());
        for seat in [first, second] {
            let wait = seat.wait(&world.clock, LONG, LONG, pending()).await;
            assert!(matches!(wait, Wait::Ended(Ending::Failed(..))), "{wait:?}");
        }
        assert!(world.board().1.is_some());
    }

    #[tokio::test]
    async fn a_pilot_that_vanishes_leaves_word() {
        let world = World::new();
        let (seat, pilot) = world.board();
        let task = tokio::spawn(async move {
            let _pilot = pilot;
            panic!("the pilot of a test panics on purpose");
        });
        assert!(matches!(seat.wait(&world.clock, LONG, LONG, pending()).await, Wait::OwnerGone));
        assert!(task.await.is_err());
        assert!(world.board().1.is_some());
    }

    #[tokio::test]
    async fn patience_ends_before_the_start_and_later_after_it() {
        let world = World::new();
        let (seat, pilot) = world.board();
        let (other, _) = world.board();
        let clock = world.clock.clone();
        let waiting = tokio::spawn(async move { seat.wait(&clock, Duration::from_secs(10), LONG, pending()).await });
        tokio::task::yield_now().await;
        world.clock.advance(Duration::from_secs(10));
        assert!(matches!(waiting.await.unwrap(), Wait::NotStarted));
        pilot.as_ref().unwrap().asking();
        let clock = world.clock.clone();
        let waiting = tokio::spawn(async move { other.wait(&clock, LONG, Duration::from_secs(20), pending()).await });
        tokio::task::yield_now().await;
        world.clock.advance(Duration::from_secs(20));
        assert!(matches!(waiting.await.unwrap(), Wait::TooLong));
    }

    #[tokio::test]
    async fn a_flight_is_abandoned_only_when_the_last_passenger_has_left() {
        let world = World::new();
        let (first, pilot) = world.board();
        let (second, _) = world.board();
        let pilot = pilot.unwrap();
        let abandoned = tokio::spawn(async move {
            pilot.abandoned().await;
            pilot
        });
        drop(first);
        tokio::task::yield_now().await;
        assert!(!abandoned.is_finished());
        drop(second);
        let pilot = abandoned.await.unwrap();
        let (_third, new) = world.board();
        assert!(new.is_some(), "who comes later flies anew");
        drop(pilot);
        assert!(world.board().0.collapsed, "and is not struck off by the one that was abandoned");
    }
}
