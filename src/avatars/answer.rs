//! Every way in which a lookup can be met, by name. The edge turns them into statuses and headers; nothing else does.

use std::sync::Arc;
use std::time::Duration;

use super::slot::Slot;
use crate::budget::Refusal;
use crate::clock::Timestamp;
use crate::outcome::Failure;

/// What the client asks of the cache.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Ask {
    /// `Cache-Control: no-cache`: a fresh look, within the budget.
    pub no_cache: bool,
    /// `Cache-Control: only-if-cached`: never ask the gateway.
    pub only_if_cached: bool,
}

/// A lookup that is answered with an outcome.
#[derive(Clone, Debug)]
pub struct Found {
    /// The answer.
    pub slot: Slot,
    /// How it came about.
    pub met: Met,
    /// The instant at which it was found live.
    pub at: Timestamp,
}

/// How an outcome came about.
#[derive(Clone, Debug, PartialEq)]
pub enum Met {
    /// From memory.
    Memory,
    /// From the store.
    Store,
    /// The gateway was asked.
    Asked {
        /// Why.
        why: Why,
        /// Whether somebody else's lookup was shared.
        collapsed: bool,
        /// Whether the answer is in the store; if not, it is in memory alone and would not survive a restart.
        stored: bool,
    },
    /// `no-cache`, but the last look is very recent.
    Recent,
    /// `no-cache`, but the budget did not allow a look: the live entry.
    Spared(Refusal),
    /// A look failed: the live entry instead.
    Kept(Arc<Failure>),
}

/// Why the gateway was asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Why {
    /// Nothing was held.
    Miss,
    /// What was held is dead.
    Stale,
    /// The client wanted a fresh look.
    Request,
}

/// A lookup that is not answered with an outcome.
#[derive(Clone, Debug, PartialEq)]
pub enum Unmet {
    /// The gateway was asked and failed.
    Failed {
        /// How.
        failure: Arc<Failure>,
        /// After how long it is worth asking again.
        retry_after: Duration,
        /// Why it was asked.
        why: Why,
        /// Whether somebody else's lookup was shared.
        collapsed: bool,
    },
    /// The gateway failed a moment ago and is left alone: what it said then.
    Resting {
        /// How it failed.
        failure: Arc<Failure>,
        /// After how long it is asked again.
        retry_after: Duration,
    },
    /// The budget does not allow a look.
    Refused(Refusal),
    /// `only-if-cached`, and nothing live is held.
    Absent,
    /// Whoever made the lookup is gone, and so is who tried again.
    OwnerGone,
    /// It did not end within any time that it is given.
    TooLong,
}

impl Met {
    /// The word in metrics.
    #[must_use]
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::Memory => "memory",
            Self::Store => "store",
            Self::Asked { collapsed: true, .. } => "collapsed",
            Self::Asked { why: Why::Miss, .. } => "miss",
            Self::Asked { why: Why::Stale, .. } => "stale",
            Self::Asked { why: Why::Request, .. } => "request",
            Self::Recent => "recent",
            Self::Spared(_) => "spared",
            Self::Kept(_) => "kept",
        }
    }
}

impl Unmet {
    /// The word in metrics.
    #[must_use]
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::Failed { .. } => "failed",
            Self::Resting { .. } => "resting",
            Self::Refused(_) => "refused",
            Self::Absent => "absent",
            Self::OwnerGone => "owner-gone",
            Self::TooLong => "too-long",
        }
    }
}
