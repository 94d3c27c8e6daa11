//! Who is looked at, and when: the planner beside what else one could do.

use avatar_proxy::clock::Timestamp;
use avatar_proxy::entry::Entry;

use crate::population::{DAY, World};
use crate::requests;

/// Who is looked at, and when.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Policy {
    /// The planner, with or without what is heard of people's activity.
    Ours { hints: bool },
    /// The planner without hints, told everybody's rate of change.
    Oracle,
    /// Everybody in turn.
    Uniform,
    /// A cache: who is asked for when what is held is older than this (ms). Nobody plans.
    Ttl(i64),
}

impl Policy {
    /// A cache whose time to live makes it spend all of so many lookups a day: it would ask a little oftener than it may.
    #[allow(clippy::cast_possible_truncation, clippy::cast_precision_loss)] // days
    pub(crate) fn ttl(world: &World, lookups_a_day: f64) -> Self {
        let rates = requests::rates(world);
        let (mut low, mut high) = (0.0, 1000.0);
        for _ in 0..50 {
            let days = f64::midpoint(low, high);
            let spent: f64 = rates.iter().map(|rate| 1.0 / (days + 1.0 / rate)).sum();
            *(if spent > lookups_a_day * 1.03 { &mut low } else { &mut high }) = days;
        }
        Self::Ttl((low * DAY as f64) as i64)
    }

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Ours { hints: true } => "planner",
            Self::Ours { hints: false } => "planner, no hints",
            Self::Oracle => "oracle",
            Self::Uniform => "uniform polling",
            Self::Ttl(_) => "TTL cache",
        }
    }

    pub(crate) fn plans(self) -> bool {
        !matches!(self, Self::Ttl(_))
    }

    pub(crate) fn takes_hints(self) -> bool {
        self == Self::Ours { hints: true }
    }

    /// Whether it does with too little budget what the planner does.
    pub(crate) fn saves(self) -> bool {
        matches!(self, Self::Ours { .. } | Self::Oracle)
    }

    /// The weight of somebody with this rate, where it is not the planner's own.
    pub(crate) fn weight(self, rate: f64) -> Option<f64> {
        match self {
            Self::Ours { .. } => None,
            Self::Oracle => Some(rate.sqrt()),
            Self::Uniform | Self::Ttl(_) => Some(1.0),
        }
    }

    /// Until when no client's request for something live makes a look.
    pub(crate) fn content_until(self, now: i64, entry: &Entry) -> i64 {
        match self {
            Self::Ttl(ttl) if entry.doubts == 0 => now + ttl,
            Self::Ttl(_) => 0,
            _ => i64::MAX,
        }
    }

    /// Whether a client's request for something live makes a look.
    pub(crate) fn is_too_old(self, age: i64, entry: &Entry<()>, now: Timestamp) -> bool {
        matches!(self, Self::Ttl(ttl) if age > ttl || entry.doubts > 0 && now >= entry.due_at)
    }
}
