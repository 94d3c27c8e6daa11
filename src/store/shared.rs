//! What replicas that share a store do together: one look per need.
//!
//! Any number of replicas that ask for one key make one look, in these words:
//! * A **flight** is the right to look at one key, under a lease. Its name is the start token of its look, which fences it: what
//!   a flight leaves behind is taken only while it is the key's flight and its lease has not run out. Whoever was stopped for
//!   longer, and goes on, changes nothing, whether somebody else took over meanwhile or not: what it brings is as old as its
//!   lease. Those of a replica that is not heard of for seconds, while others are, are made by whoever asks.
//! * An **ending** is how the last flight of a key failed. While it counts, nobody repeats the flight; afterwards it is what the
//!   next failure doubles the rest of.
//! * [`Shared::ask`] is one step in the store: what is held, the ending, the flight of somebody else, and the start of one's own,
//!   paid for with the budget of all.
//! * Whoever finds somebody else's flight under way waits for it ([`Shared::landed`]) and asks again.
//!
//! **Clocks.** Leases and endings begin and end by the store's clock; replicas say and are told lengths only. So neither the
//! skew between replicas nor a wall clock that is set changes anything. Where the store's own clock is set back, what began
//! later than now does not count; where it is set forward, leases end early, and the looks that they were for are turned away.

use std::time::Duration;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};

use super::{Claim, Draft, Drawn, Held, Purse, StoreError};
use crate::clock::Timestamp;
use crate::jid::Key;
use crate::outcome::{Failure, Token};
use crate::record::{self, Unreadable};

/// What somebody wants to know of a key.
#[derive(Clone, Debug)]
pub struct Question {
    /// Of which.
    pub key: Key,
    /// Only an entry that is not dead at this instant suffices.
    pub alive_at: Timestamp,
    /// If given: only one from a look that ended after the first instant, and not after the second.
    pub checked: Option<(Timestamp, Timestamp)>,
    /// Whether a look is to start if nothing suffices and nothing is in the way, and how long its lease is: longer than any look.
    pub start: Option<Duration>,
    /// What the look draws from the budget before it starts.
    pub draft: Option<Draft>,
}

/// What is so.
#[derive(Clone, Debug)]
pub enum Told {
    /// This is held, and suffices; or nothing suffices and nothing is in the way, and no look was to start.
    Held(Box<Held>),
    /// The last look failed, and it is not to be repeated for so long.
    Failed(Box<Ending>, Duration),
    /// Somebody else looks.
    UnderWay {
        /// The flight's name.
        flight: Token,
        /// After how long its lease runs out.
        left: Duration,
    },
    /// No look may start now: this is in the way of its draft.
    NotYet(Drawn),
    /// The look may start, and has drawn what it was to draw.
    Started {
        /// Its token, which is the flight's name, and what is held.
        claim: Box<Claim>,
        /// How the last look at the key failed, if none has succeeded since.
        last: Option<Box<Ending>>,
    },
}

/// How a flight failed.
#[derive(Clone, PartialEq, Debug)]
pub struct Ending {
    /// What whoever asks is told.
    pub failure: Failure,
    /// For how long it counts.
    pub rest: Duration,
}

/// A flight that brought nothing to write.
#[derive(Clone, Debug)]
pub struct Landing {
    /// Of which key.
    pub key: Key,
    /// The flight's name.
    pub flight: Token,
    /// What is to be remembered of it.
    pub ending: Option<Ending>,
}

/// What an engine does that many processes share. An engine of one process has nothing of it.
#[async_trait]
pub trait Shared: Purse {
    /// Tells what is so, and starts a look if it is to: in one step.
    ///
    /// # Errors
    /// When the store fails. Then a look may have started whose lease runs out by itself.
    async fn ask(&self, question: Question) -> Result<Told, StoreError>;

    /// Ends a flight that did not end with its write. One that is not its key's flight any more changes nothing.
    ///
    /// # Errors
    /// When the store fails: then its lease runs out by itself.
    async fn land(&self, landing: Landing) -> Result<(), StoreError>;

    /// Waits until somebody else's flight has ended, of which [`Told::UnderWay`] was told. It may also never be heard of: whoever
    /// waits asks again now and then.
    async fn landed(&self, flight: Token);
}

/// The stored form: format version, then the fields in order. A later version appends fields and reads the older ones.
#[derive(Serialize, Deserialize)]
struct Record {
    format: u8,
    rest_millis: u64,
    failure: Failure,
}

const FORMAT: u8 = 1;

impl Ending {
    /// The stored form.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let rest_millis = u64::try_from(self.rest.as_millis()).unwrap_or(u64::MAX);
        record::write(&Record { format: FORMAT, rest_millis, failure: self.failure.clone() })
    }

    /// Reads a stored form.
    ///
    /// # Errors
    /// When it is not one, or a newer program wrote it.
    pub fn decode(bytes: &[u8]) -> Result<Self, Unreadable> {
        let Record { rest_millis, failure, .. } = record::read(bytes, FORMAT)?;
        Ok(Self { failure, rest: Duration::from_millis(rest_millis) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::outcome::{Class, Envelope};

    #[test]
    fn the_first_format_stays_readable() {
        let reply = Envelope { status: 500, code: "C".into(), message: "m".into(), results: None };
        let failure = Failure { class: Class::Passing, retry: true, reply, detail: "d".into() };
        let ending = Ending { failure, rest: Duration::from_secs(4) };
        let stored = hex::encode(ending.encode());
        assert_eq!(stored, "9301cd0fa094a750617373696e67c394cd01f4a143a16dc0a164");
        assert_eq!(Ending::decode(&hex::decode(stored).unwrap()).unwrap(), ending);
        let mut newer = ending.encode();
        newer[1] = FORMAT + 1;
        assert!(matches!(Ending::decode(&newer), Err(Unreadable::Newer(_))));
    }
}
