//! What may be asked of the endpoints, and why it is not done.

use super::sign::BadSecret;
use crate::cursor::Cursor;
use crate::events::Start;
use crate::jid::Jid;
use crate::outbound::BadUrl;
use crate::store::StoreError;

/// Why an endpoint is not as somebody wished.
#[derive(Debug, thiserror::Error)]
pub enum Trouble {
    /// There is none of that id.
    #[error("there is no such webhook")]
    Unknown,
    /// There are as many as there may be.
    #[error("there are {0} webhooks, and no more may be")]
    TooMany(u64),
    /// It was given by this flag, and only that can change it.
    #[error("this webhook was given by {0} when the program was started: change it there")]
    Given(&'static str),
    /// Not an address for an endpoint.
    #[error("url: {0}")]
    Url(#[from] BadUrl),
    /// Not a secret.
    #[error("secret: {0}")]
    Secret(#[from] BadSecret),
    /// Not an event.
    #[error("events: there are avatar.set, avatar.changed, avatar.removed and avatar.gap, which everybody gets")]
    Event,
    /// A place that is not in the log.
    #[error("after: is no place in this log")]
    Cursor,
    /// Nothing was done.
    #[error("{0}")]
    Store(#[from] StoreError),
}

/// An endpoint that somebody wishes for.
#[derive(Clone, Debug)]
pub struct New {
    /// Its address.
    pub url: String,
    /// What deliveries are signed with; `None`: one is made.
    pub secret: Option<String>,
    /// Which events, by name; all when empty.
    pub events: Vec<String>,
    /// Whose; everybody's when empty.
    pub jids: Vec<Jid>,
    /// Where in the log it begins.
    pub from: Start,
}

/// What is to be otherwise about an endpoint; `None` stays as it is.
#[derive(Clone, Debug, Default)]
pub struct Change {
    /// Whether it is sent events, from where it was and what had failed at once.
    pub enabled: Option<bool>,
    /// What deliveries are signed with from now on; `Some(None)`: one is made. The one before holds for a while.
    pub secret: Option<Option<String>>,
    /// Which events, by name; all when empty.
    pub events: Option<Vec<String>>,
    /// Whose; everybody's when empty.
    pub jids: Option<Vec<Jid>>,
}

/// What is to be sent once more.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Replay {
    /// Everything behind this place.
    After(Cursor),
    /// Everything that is kept.
    Earliest,
    /// What was given up.
    DeadLetters,
}
