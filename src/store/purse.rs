//! The budget of a store's replicas: buckets, places, what is known of devices, and what is left for times without the store.
//!
//! * A look is **drawn** before it starts: a token of its lane's bucket and a place among those under way, in one step, or word of
//!   how long to wait. Nothing is drawn from what is known no more: a draft names the version of the device that it was made from,
//!   and where the store has another one, that comes back and nothing starts.
//! * What is learnt of a device is **taught**, by compare-and-set of that version, so that the worse of two lessons stays.
//! * A **reserve** is a share of what the buckets leave out, for a bounded time: for a replica that loses sight of the store.
//!
//! Buckets begin empty, also where a store lost what it had: whoever has seen more than is there makes it known ([`Marked`]).
//! Instants are the store's own; replicas say and are told lengths.

use std::time::Duration;

use async_trait::async_trait;

use super::{DeviceRecord, StoreError};
use crate::jid::Device;

/// What one look takes of the budget.
#[derive(Clone, PartialEq, Debug)]
pub struct Draft {
    /// Whose look.
    pub device: Device,
    /// Whether the device has a lane of its own; all others share one.
    pub is_own: bool,
    /// What is known of the device.
    pub version: Option<u64>,
    /// Tokens per second that the bucket gains.
    pub rate: f64,
    /// What a bucket and the reserves of all replicas hold at most.
    pub burst: u32,
    /// Looks of the lane under way at once.
    pub concurrency: u32,
    /// The name of its place. A draft that is sent twice meets its own.
    pub place: u64,
    /// After how long the place is free though nobody gave it back.
    pub lease: Duration,
}

/// What became of a draft.
#[derive(Clone, PartialEq, Debug)]
pub enum Drawn {
    /// It has a token and a place: the look may start.
    Booked,
    /// Not before this time has passed.
    Later(Duration),
    /// Something else is known of the device.
    Changed(KnownDevice),
}

/// What all replicas know of a device.
#[derive(Clone, PartialEq, Debug)]
pub struct KnownDevice {
    /// Changes with every lesson; zero where there was none.
    pub version: u64,
    /// What is remembered, by the wall clock of whoever wrote it.
    pub record: Option<DeviceRecord>,
    /// What is left of its cool-down.
    pub cooling: Duration,
}

/// What a replica has learnt of a device.
#[derive(Clone, PartialEq, Debug)]
pub struct Lesson {
    /// Of which.
    pub device: Device,
    /// What it knew of it before.
    pub version: Option<u64>,
    /// What is to be remembered.
    pub record: DeviceRecord,
    /// What is left of its cool-down: nothing is saved up meanwhile.
    pub cooling: Duration,
}

/// What became of a lesson.
#[derive(Clone, PartialEq, Debug)]
pub enum Taught {
    /// It is known to all, as this version.
    Done(u64),
    /// Something else was known before: nothing was written.
    Changed(KnownDevice),
}

/// A replica's wish for a share of the reserve.
#[derive(Clone, PartialEq, Debug)]
pub struct ShareWish {
    /// Who.
    pub holder: u64,
    /// Counts a holder's wishes: one that arrives late is not granted.
    pub turn: u64,
    /// The share that it has, and goes on using if the answer is lost.
    pub using: f64,
    /// How many may have one.
    pub holders_max: u32,
    /// Whether it wants none any more.
    pub is_over: bool,
}

/// A share of the reserve, for [`RESERVED`] from before the wish was sent.
#[derive(Clone, PartialEq, Debug)]
pub struct Share {
    /// From 0 to 1. Those of all replicas never add up to more than 1.
    pub share: f64,
    /// What the store is.
    pub mark: Marked,
}

/// Differs from what it was once the store has lost something.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Marked(pub String);

/// For how long a share is good. The store books it for longer, so that clocks may differ in their pace.
pub const RESERVED: Duration = Duration::from_secs(3600);

/// The budget as a store keeps it for all of its replicas.
#[async_trait]
pub trait Purse: Send + Sync {
    /// Takes a token and a place, if there are.
    ///
    /// # Errors
    /// When the store fails. Then they may have been taken; the place comes back with its lease, and the token does not.
    async fn draw(&self, draft: Draft) -> Result<Drawn, StoreError>;

    /// Gives places back. Those that are nobody's any more change nothing.
    ///
    /// # Errors
    /// When the store fails: then they come back with their leases.
    async fn give_back(&self, drafts: &[Draft]) -> Result<(), StoreError>;

    /// What is known of a device.
    ///
    /// # Errors
    /// When the store fails.
    async fn known(&self, device: &Device) -> Result<KnownDevice, StoreError>;

    /// Makes something known to all. Durable when it returns [`Taught::Done`].
    ///
    /// # Errors
    /// When the store fails: then it may be known all the same.
    async fn teach(&self, lesson: Lesson) -> Result<Taught, StoreError>;

    /// Takes or renews a share of the reserve, or gives it back.
    ///
    /// # Errors
    /// When the store fails: then the share that the wish says is used is still booked.
    async fn reserve(&self, wish: ShareWish) -> Result<Share, StoreError>;
}
