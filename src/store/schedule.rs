//! What is to be looked at, and when: the part of the interface that the background work lives on.
//!
//! Two queues for each device, so that one that is crowded holds up no other:
//! * *Deadlines*: keys that are looked at by an instant, because a URL dies or a doubt is to be settled. Soonest first.
//! * *Rechecks*: subjects whose picture may have changed. From some instant on they may be looked at; of those that may, the
//!   one with the smallest rank is next ([`crate::recheck`]).
//!
//! Both are taken from under a lease: a taker that dies loses nothing, because what it took comes up again.

use std::time::Duration;

use async_trait::async_trait;

use super::StoreError;
use crate::clock::Timestamp;
use crate::entry::Entry;
use crate::jid::{Device, Key, Subject, Variant};
use crate::outcome::Token;
use crate::recheck::{Lessons, Outlook};

/// When a device has something to be looked at.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Agenda {
    /// Whose.
    pub device: Device,
    /// The soonest deadline, or end of a lease.
    pub due_at: Option<Timestamp>,
    /// From when on a subject may be rechecked; long ago if one was ready before.
    pub recheck_at: Option<Timestamp>,
}

/// A key whose deadline has come.
#[derive(Clone, Debug)]
pub struct Due {
    /// The key.
    pub key: Key,
    /// Its entry; `None` where a look was asked for before anything was held.
    pub entry: Option<Entry>,
    /// When it was due.
    pub due_at: Timestamp,
    /// When somebody last asked for it.
    pub requested_at: Option<Timestamp>,
    /// How often its subject is to be looked at though nobody asks.
    pub watch: Option<Duration>,
}

/// A subject whose turn has come to be rechecked.
#[derive(Clone, Debug)]
pub struct Candidate {
    /// Who.
    pub subject: Subject,
    /// How often it is to be looked at though nobody asks.
    pub watch: Option<Duration>,
    /// Its pictures. Empty for one that is watched and was never looked at.
    pub pictures: Vec<Picture>,
}

/// What is held of one picture of a [`Candidate`].
#[derive(Clone, Debug)]
pub struct Picture {
    /// Which.
    pub variant: Variant,
    /// Its entry; `None` where a look was asked for before anything was held.
    pub entry: Option<Entry>,
    /// When somebody last asked for it.
    pub requested_at: Option<Timestamp>,
}

/// A deadline among others.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Deadline {
    /// How many have come by then.
    pub count: usize,
    /// When.
    pub due_at: Timestamp,
    /// When somebody last asked for its key.
    pub requested_at: Option<Timestamp>,
}

/// What will be needed for a device.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Outlay {
    /// The k-th deadline, soonest first, for each k that was asked for and that there is.
    pub deadlines: Vec<Deadline>,
    /// Subjects that are rechecked.
    pub rechecks: u64,
}

/// A request that is to be remembered.
#[derive(Clone, Debug)]
pub struct Touch {
    /// What was asked for.
    pub key: Key,
    /// When.
    pub at: Timestamp,
    /// The key's deadline, if it has none because nobody had asked for long.
    pub due_at: Option<Timestamp>,
    /// From when on its subject may be rechecked, if it is not because nobody had asked for long.
    pub recheck_at: Timestamp,
}

/// The interface.
#[async_trait]
pub trait Schedule: Send + Sync {
    /// What there is to do, for every device that has something.
    ///
    /// # Errors
    /// When the store fails.
    async fn agenda(&self) -> Result<Vec<Agenda>, StoreError>;

    /// Takes up to `limit` keys of a device whose deadline is `until` or before, soonest first; they do not come up again before
    /// `lease`, unless something else says so.
    ///
    /// # Errors
    /// When the store fails.
    async fn take_due(
        &self,
        device: &Device,
        until: Timestamp,
        lease: Timestamp,
        limit: usize,
    ) -> Result<Vec<Due>, StoreError>;

    /// Takes up to `limit` of a device's subjects that may be rechecked at `now`, smallest rank first, and moves the device's
    /// virtual time on to the greatest of their ranks; they may not be rechecked again before `lease`, unless something else
    /// says so. With very many who may since lately, not all need be considered at once. Virtual time begins anew when nobody of a
    /// device is rechecked any more.
    ///
    /// # Errors
    /// When the store fails.
    async fn take_rechecks(
        &self,
        device: &Device,
        now: Timestamp,
        lease: Timestamp,
        limit: usize,
    ) -> Result<Vec<Candidate>, StoreError>;

    /// What will be needed for a device: the `counts`-th deadlines (ascending), and how many are rechecked.
    ///
    /// # Errors
    /// When the store fails.
    async fn outlay(&self, device: &Device, counts: &[usize]) -> Result<Outlay, StoreError>;

    /// Sets deadlines (`None`: none until somebody asks). Keys that are not held are passed over.
    ///
    /// # Errors
    /// When the store fails.
    async fn reschedule(&self, keys: Vec<(Key, Option<Timestamp>)>) -> Result<(), StoreError>;

    /// Sets from when on subjects may be rechecked (`None`: not until somebody asks); their ranks stay. Who is not held is passed
    /// over.
    ///
    /// # Errors
    /// When the store fails.
    async fn defer(&self, subjects: Vec<(Subject, Option<Timestamp>)>) -> Result<(), StoreError>;

    /// Moves a subject to the rank that its outlook says, and lets it be rechecked from `recheck_at` on at the latest, unless it was
    /// looked at since the revision that this was computed from. Who is not rechecked at all stays so.
    ///
    /// # Errors
    /// When the store fails.
    async fn advance(
        &self,
        subject: &Subject,
        expected: Token,
        outlook: Outlook,
        recheck_at: Timestamp,
    ) -> Result<(), StoreError>;

    /// Remembers requests. Keys that are not held are passed over.
    ///
    /// # Errors
    /// When the store fails.
    async fn touch(&self, touches: Vec<Touch>) -> Result<(), StoreError>;

    /// What was learnt of all people together.
    ///
    /// # Errors
    /// When the store fails.
    async fn lessons(&self) -> Result<Option<Lessons>, StoreError>;

    /// Remembers what was learnt of all people together.
    ///
    /// # Errors
    /// When the store fails.
    async fn put_lessons(&self, lessons: &Lessons) -> Result<(), StoreError>;
}
