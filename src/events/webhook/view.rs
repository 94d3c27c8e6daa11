//! What is told of an endpoint. A secret is in it only for who has just set it.

use std::time::Duration;

use super::board::Figures;
use crate::clock::Timestamp;
use crate::jid::Jid;
use crate::store::{Endpoint, Known, LastResult, Secret, Standing};

/// An endpoint, and how it stands.
#[derive(Clone, PartialEq, Debug)]
pub struct View {
    /// Names it.
    pub id: String,
    /// Its address.
    pub url: String,
    /// Its newest secret; only for who has just made the endpoint, or had it given another.
    pub secret: Option<Secret>,
    /// Which events it gets, by name (`avatar.set`); all when empty.
    pub events: Vec<String>,
    /// Whose; everybody's when empty.
    pub jids: Vec<Jid>,
    /// It was given by a flag, and not over the API.
    pub from_flag: bool,
    /// When it was made.
    pub created_at: Timestamp,
    /// Whether it is delivered to.
    pub state: State,
    /// How the last attempt ended.
    pub last: Option<LastResult>,
    /// How far it is behind.
    pub lag: Lag,
    /// Events that were read for it and are not delivered yet.
    pub pending: u64,
    /// Events that were given up, until somebody has them sent again.
    pub dead_letters: u64,
}

/// Whether an endpoint is delivered to.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum State {
    /// It is, or would be if there were anything.
    Active,
    /// It is tried again and again, and nothing got through.
    Failing {
        /// When the first of the attempts was made that all have failed since.
        since: Timestamp,
    },
    /// Nothing is sent until somebody enables it.
    Disabled {
        /// In a word: `asked`, `gone` (it answered 410), `failing` (for five days), or `address`: one that may not be used any
        /// more, which enabling does not change.
        why: String,
        /// Since when.
        since: Timestamp,
    },
}

impl State {
    /// All words for it.
    pub(super) const WORDS: [&str; 3] = ["active", "failing", "disabled"];

    /// The word for it.
    #[must_use]
    pub const fn as_str(&self) -> &'static str {
        match self {
            Self::Active => "active",
            Self::Failing { .. } => "failing",
            Self::Disabled { .. } => "disabled",
        }
    }

    /// The state of one that stands like this. Its address may not be used since `barred`.
    pub(super) fn of(standing: &Standing, barred: Option<Timestamp>) -> Self {
        match (&standing.disabled, barred, standing.failing_since) {
            (Some(disabled), ..) => Self::Disabled { why: disabled.why.clone(), since: disabled.since },
            (None, Some(since), _) => Self::Disabled { why: "address".to_owned(), since },
            (None, None, Some(since)) => Self::Failing { since },
            (None, None, None) => Self::Active,
        }
    }
}

/// How far an endpoint is behind the log.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Lag {
    /// Events that it has yet to get at the most: those pending, and what was not read for it yet, whether it wants it or not.
    pub events: u64,
    /// The age of the oldest of them; zero when there is none.
    pub time: Duration,
}

/// What came of a test.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Tested {
    /// The receiver took it.
    pub delivered: bool,
    /// The answer's status, or a word for why there was none.
    pub result: String,
    /// How long that took.
    pub took: Duration,
}

impl View {
    pub(super) fn new(known: Known, figures: &Figures, lag: Lag) -> Self {
        let Known { endpoint, standing, kept: _ } = known;
        let Endpoint { id, url, secrets: _, events, jids, from_flag, created_at } = endpoint;
        Self {
            id,
            url,
            secret: None,
            events,
            jids,
            from_flag,
            created_at,
            state: figures.state.clone(),
            last: standing.last,
            lag,
            pending: figures.kept.pending,
            dead_letters: figures.kept.dead,
        }
    }
}
