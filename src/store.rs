//! What is remembered beyond this process: the interface that every engine implements.
//!
//! The store holds records and never interprets them: no freshness, no change logic, in no engine. Its one important promise
//! is [`Store::apply`]: entry, state and change of a subject, and when it is looked at next, are written together or not at all,
//! and only if nobody wrote that subject in between. Who loses that race is given the present state and computes again.
//!
//! Architecture invariant: this module and its engines know nothing of the gateway, of budgets or of HTTP.

use std::time::Duration;

use async_trait::async_trait;

use crate::change::{Change, State};
use crate::clock::Timestamp;
use crate::entry::Entry;
use crate::jid::{Device, Jid, Key, Subject};
use crate::outcome::Token;
use crate::recheck::Outlook;

mod device;
mod endpoints;
mod lease;
mod log;
pub mod measured;
pub mod migration;
pub mod none;
mod purse;
pub mod redis;
mod schedule;
mod shared;
pub mod sqlite;

pub use device::DeviceRecord;
pub use endpoints::{
    Delivery, Disabled, Endpoint, Endpoints, Kept, Known, LastResult, Progress, Put, Secret, Standing,
};
pub use lease::{Lease, Wish};
pub use log::{Extent, Log, Page, Record, What};
pub use purse::{Draft, Drawn, KnownDevice, Lesson, Marked, Purse, RESERVED, Share, ShareWish, Taught};
pub use schedule::{Agenda, Candidate, Deadline, Due, Outlay, Picture, Schedule, Touch};
pub use shared::{Ending, Landing, Question, Shared, Told};

/// What every engine is: the records, when they are looked at again, and the log, which are written together; and the webhooks
/// that are told of it.
pub trait Engine: Store + Log + Endpoints {}

impl<E: Store + Log + Endpoints> Engine for E {}

/// Why the store did not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The engine failed or cannot be reached; trying again later may help.
    #[error("the store failed: {0}")]
    Unavailable(String),
    /// A record cannot be read, because a newer program wrote it.
    #[error("a stored record cannot be read: {0}")]
    Unreadable(#[from] crate::record::Unreadable),
    /// Somebody else has what the caller wrote for: nothing was written, and trying again does not help.
    #[error("the lease has gone to somebody else")]
    Fenced,
    /// What is to be read of the log is on one server alone, which has replicas: it may be lost yet, and nobody is to be told of it.
    #[error("what was recorded last is not on the server's replicas yet")]
    Unconfirmed,
}

/// Why the store could not be opened: a sentence for the person who starts the program.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct OpenError(pub String);

/// What the store holds for a key, all read in one instant.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Held {
    /// The key's entry, fresh, due or dead.
    pub entry: Option<Entry>,
    /// The state of its subject.
    pub state: State,
    /// The end token of the last observation applied to the subject; zero when there was none.
    pub revision: Token,
    /// When somebody last asked for the key.
    pub requested_at: Option<Timestamp>,
    /// How often the subject is to be looked at though nobody asks.
    pub watch: Option<Duration>,
    /// What is known of the subject, as far as rechecks go.
    pub outlook: Option<Outlook>,
    /// The virtual time of its device's rechecks.
    pub virtual_now: f64,
    /// A record was damaged and counts as absent: the next look writes it anew.
    pub damaged: bool,
}

impl Held {
    /// Whether somebody asked for the key within `warm_for`.
    #[must_use]
    pub fn is_warm(&self, now: Timestamp, warm_for: Duration) -> bool {
        self.requested_at.is_some_and(|asked| now.since(asked) < warm_for)
    }
}

/// A look may start: its token, and what was held at that moment.
#[derive(Clone, Debug)]
pub struct Claim {
    /// The start token of the look.
    pub start: Token,
    /// What is held for its key.
    pub held: Held,
}

/// One atomic write.
#[derive(Clone, Debug)]
pub struct Write {
    /// Whose entry.
    pub key: Key,
    /// The start token of the look: if its subject was forgotten since, the write is turned away.
    pub start: Token,
    /// The revision that everything below was computed from.
    pub expected: Token,
    /// The subject's new state.
    pub state: State,
    /// The key's new entry; its deadline becomes the key's.
    pub entry: Entry,
    /// What is known of the subject now, as far as rechecks go: its rank among others.
    pub outlook: Outlook,
    /// From when on it may be rechecked.
    pub recheck_at: Timestamp,
    /// The change to append to the log.
    pub change: Option<Change>,
    /// When somebody asked, if this look was for a client. Never moves back.
    pub requested_at: Option<Timestamp>,
    /// Another key that must be looked at by then, held or not. It is of the same subject: only its variant counts. If it is
    /// not held it becomes a key without an entry, to be taken, rescheduled, touched and forgotten like any other.
    pub also_due: Option<(Key, Timestamp)>,
    /// Whether every other entry of the subject is due at once, because the picture changed.
    pub siblings_due: Option<Timestamp>,
    /// The look was started by [`Shared::ask`]: its flight ends with this write, which is turned away if its lease has run out.
    pub flown: bool,
}

/// How a [`Write`] ended.
#[derive(Clone, Debug)]
pub enum Applied {
    /// It is durable. The token is the end of the look, and the subject's new revision.
    Done(Token),
    /// Somebody else was faster: what is held now.
    Conflict(Box<Held>),
    /// The subject was forgotten while the look was under way: nothing of it is to be kept.
    Forgotten,
    /// The look took longer than its lease: nothing of it was kept, and others may have looked since.
    Late,
}

/// A subject that is looked at though nobody asks.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Watch {
    /// Who.
    pub subject: Subject,
    /// How old the last look may get.
    pub interval: Duration,
}

/// How a wish to watch ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Watched {
    /// It is durable.
    Done,
    /// There are as many watches as there may be, and this subject has none: nothing was written.
    TooMany,
}

/// Sizes, for metrics.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Size {
    /// Entries held.
    pub entries: u64,
    /// Subjects with a state.
    pub subjects: u64,
    /// Keys whose deadline has come.
    pub backlog: u64,
    /// Subjects that are watched.
    pub watches: u64,
    /// Records in the change log.
    pub logged: u64,
    /// When the oldest of them was appended.
    pub logged_since: Option<Timestamp>,
    /// Bytes on disk or in the server.
    pub bytes: u64,
}

/// The interface.
#[async_trait]
pub trait Store: Schedule {
    /// What is held for a key.
    ///
    /// # Errors
    /// When the store fails.
    async fn find(&self, key: &Key) -> Result<Held, StoreError>;

    /// Hands out a start token, with what is held at that moment.
    ///
    /// # Errors
    /// When the store fails: then a look may still be made, but nothing of it recorded.
    async fn claim(&self, key: &Key) -> Result<Claim, StoreError>;

    /// The one atomic compare and write. Durable when it returns [`Applied::Done`].
    ///
    /// # Errors
    /// When the store fails: then nothing was written, unless it is on another machine and could not say that it was.
    async fn apply(&self, write: Write) -> Result<Applied, StoreError>;

    /// Drops up to `limit` keys that nobody asked for since `before`, and the states of subjects that keep none. Returns the
    /// subjects that are gone. A key that nobody ever asked for counts from its deadline, because something else has it looked
    /// at; without one it has nothing left to stay for. What is watched stays. What was recorded in the log stays.
    ///
    /// # Errors
    /// When the store fails.
    async fn forget_idle(&self, before: Timestamp, limit: usize) -> Result<Vec<Subject>, StoreError>;

    /// Forgets everything about a person or group, as one device sees them or (`None`) all do: entries, state, watch, what the log
    /// tells of them and what is still to be delivered of it. If anything was held, a [`What::Forgotten`] is left in the log. Looks that are under way find their
    /// writes turned away. Durable when it returns; true if anything was held.
    ///
    /// # Errors
    /// When the store fails.
    async fn forget(&self, jid: &Jid, device: Option<&Device>, at: Timestamp) -> Result<bool, StoreError>;

    /// Watches a subject, or watches it at another interval; it may be rechecked from `recheck_at` on at the latest, held or not,
    /// and if it is not held it stands where somebody would whose turn comes now. Durable when it returns. Beyond `limit` watches
    /// there are no more.
    ///
    /// # Errors
    /// When the store fails.
    async fn watch(&self, watch: Watch, recheck_at: Timestamp, limit: u64) -> Result<Watched, StoreError>;

    /// Watches no more, as one device or all do. True if anybody was watched.
    ///
    /// # Errors
    /// When the store fails.
    async fn unwatch(&self, jid: &Jid, device: Option<&Device>) -> Result<bool, StoreError>;

    /// Who is watched, by device and jid: up to `limit` of those behind `after`.
    ///
    /// # Errors
    /// When the store fails.
    async fn watches(
        &self,
        device: Option<&Device>,
        after: Option<&Subject>,
        limit: usize,
    ) -> Result<Vec<Watch>, StoreError>;

    /// What is remembered about a device.
    ///
    /// # Errors
    /// When the store fails.
    async fn device(&self, device: &Device) -> Result<Option<DeviceRecord>, StoreError>;

    /// Remembers something about a device. Durable when it returns.
    ///
    /// # Errors
    /// When the store fails.
    async fn put_device(&self, device: &Device, record: DeviceRecord) -> Result<(), StoreError>;

    /// Sizes at `now`.
    ///
    /// # Errors
    /// When the store fails.
    async fn size(&self, now: Timestamp) -> Result<Size, StoreError>;

    /// Proves that it works: writes as much as a busy moment would, durably, takes it back, and leaves nothing behind. That a
    /// read succeeds says nothing about writing, nor does a write that happened to need no room.
    ///
    /// # Errors
    /// When the store fails.
    async fn check(&self) -> Result<(), StoreError>;

    /// What replicas that share this store do together; `None` where nobody can share it.
    fn shared(&self) -> Option<&dyn Shared> {
        None
    }

    /// Finishes what was acknowledged and closes; later calls fail.
    async fn close(&self);
}
