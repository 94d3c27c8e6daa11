//! What may be asked of the endpoints, and why it is not done.

use super::sign::BadSecret;
use crate::cursor::Cursor;
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
    #[error("there are as many webhooks as there may be")]
    TooMany,
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
    #[error("events: there are avatar.set, avatar.changed and avatar.removed")]
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
    /// Whether it begins with the oldest event that is kept, and not with what comes from now on.
    pub from_earliest: bool,
}

/// What is to be sent once more.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Replay {
    /// Everything behind this place.
    After(Cursor),
    /// What was given up.
    DeadLetters,
}
