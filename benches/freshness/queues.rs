//! Both queues of one device, in memory, in the order in which a store hands them out.

use std::cmp::Ordering;
use std::collections::BTreeSet;

/// A rank, in its order.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Rank(f64);

impl Eq for Rank {}

impl PartialOrd for Rank {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Rank {
    fn cmp(&self, other: &Self) -> Ordering {
        self.0.total_cmp(&other.0)
    }
}

/// Where somebody stands.
#[derive(Clone, Copy, Debug)]
struct Place {
    due_at: i64,
    eligible_at: i64,
    rank: Rank,
    ready: bool,
}

/// Who has a deadline, soonest first; who may be rechecked from when on; and who may be rechecked now, by rank.
pub(crate) struct Queues {
    due: BTreeSet<(i64, u32)>,
    eligible: BTreeSet<(i64, u32)>,
    ready: BTreeSet<(Rank, u32)>,
    places: Vec<Option<Place>>,
    pub(crate) virtual_now: f64,
}

/// Who is to be looked at now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Taken {
    /// Because of a deadline.
    Due(u32),
    /// To see whether something changed.
    Recheck(u32),
}

impl Queues {
    pub(crate) fn new(people: usize) -> Self {
        Self {
            due: BTreeSet::new(),
            eligible: BTreeSet::new(),
            ready: BTreeSet::new(),
            places: vec![None; people],
            virtual_now: 0.0,
        }
    }

    /// Puts somebody into both.
    pub(crate) fn put(&mut self, person: u32, due_at: i64, eligible_at: i64, rank: f64) {
        self.remove(person);
        self.due.insert((due_at, person));
        self.eligible.insert((eligible_at, person));
        self.places[person as usize] = Some(Place { due_at, eligible_at, rank: Rank(rank), ready: false });
    }

    pub(crate) fn remove(&mut self, person: u32) {
        if let Some(place) = self.places[person as usize].take() {
            self.due.remove(&(place.due_at, person));
            if place.ready {
                self.ready.remove(&(place.rank, person));
            } else {
                self.eligible.remove(&(place.eligible_at, person));
            }
        }
    }

    /// Moves somebody to another rank, who may be rechecked from then on at the latest.
    pub(crate) fn advance(&mut self, person: u32, rank: f64, eligible_at: i64) {
        if let Some(place) = &mut self.places[person as usize] {
            if place.ready {
                self.ready.remove(&(place.rank, person));
                self.ready.insert((Rank(rank), person));
            } else if eligible_at < place.eligible_at {
                self.eligible.remove(&(place.eligible_at, person));
                self.eligible.insert((eligible_at, person));
                place.eligible_at = eligible_at;
            }
            place.rank = Rank(rank);
        }
    }

    /// Takes who is next out of both; deadlines until then come first.
    pub(crate) fn take(&mut self, now: i64, deadlines_until: i64) -> Option<Taken> {
        while let Some(&(at, person)) = self.eligible.first().filter(|(at, _)| *at <= now) {
            self.eligible.remove(&(at, person));
            if let Some(place) = &mut self.places[person as usize] {
                place.ready = true;
                self.ready.insert((place.rank, person));
            }
        }
        if let Some(&(_, person)) = self.due.first().filter(|(at, _)| *at <= deadlines_until) {
            self.remove(person);
            return Some(Taken::Due(person));
        }
        let &(rank, person) = self.ready.first()?;
        self.virtual_now = self.virtual_now.max(rank.0);
        self.remove(person);
        Some(Taken::Recheck(person))
    }

    /// When somebody comes up next.
    pub(crate) fn next_at(&self) -> Option<i64> {
        [self.due.first(), self.eligible.first()].into_iter().flatten().map(|(at, _)| *at).min()
    }

    /// When the k-th deadline is, for each of these.
    pub(crate) fn deadlines<'a>(&'a self, samples: &'a [usize]) -> impl Iterator<Item = (usize, i64)> + 'a {
        samples.iter().filter_map(|k| Some((*k, self.due.iter().nth(*k - 1)?.0)))
    }
}
