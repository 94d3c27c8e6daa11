//! The engine for many replicas: a Redis server, or several that are one.
//!
//! The rules kept here:
//! * One Lua script for each atomic step (`scripts`), so that what is written together is seen together by every replica.
//! * All keys have one hash tag, so that a cluster keeps them on one node, and begin with it, so that stores can share a server.
//! * Nothing is left to the server's own expiry or clock: what is dropped is dropped by somebody who says so. Flights and endings
//!   (`together`), places in the budget (`purse`) and who is there (`attend`), which are over within minutes, are the exception.
//! * A server that was emptied, or that lost what it was told last, is noticed by the next call of whoever has seen more: what is
//!   there goes on as a log with another epoch, so that subscribers are told of a gap. Neither tokens nor places in the log are
//!   given twice: an empty store's tokens begin where the clock stands, in microseconds, which is beyond all that were handed out.
//! * Durable means here: acknowledged by the server, which keeps it as it was told to (`appendonly`, replicas).
//!
//! `address` reads the URL, `link` keeps the connection, `open` looks at what is there, `probe` does so without beginning a store,
//! `rows`, `schedule`, `log` and `endpoints` read what the scripts answer, `follow` hears of what other replicas append, `attend`
//! tells them that this one is there, `together` keeps them from looking twice, `purse` from spending twice, `confirm` waits for the
//! server's replicas, `migration` fills a store with what another engine holds; this file joins them.

mod address;
mod attend;
mod confirm;
mod endpoints;
mod follow;
mod link;
mod log;
pub mod migration;
mod open;
pub mod probe;
mod purse;
mod reply;
mod rows;
mod schedule;
mod scripts;
mod together;

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard};

use async_trait::async_trait;
use redis::{ErrorKind, RedisError, ServerErrorKind, Value};
use tokio::sync::watch;
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::TaskTracker;

pub use self::address::Address;

use self::confirm::Confirmed;
use self::link::Link;
use self::reply::{Fields, number};
use self::scripts::{Arguments, Script, Scripts, millis};
use self::together::Landings;
use super::{Applied, Claim, DeviceRecord, Held, OpenError, Size, Store, StoreError, Watch, Watched, Write};
use crate::change::State;
use crate::clock::{Clock, Timestamp};
use crate::jid::{Device, Jid, Key, Subject};
use crate::outcome::Token;
use crate::record::unless_damaged;

/// Keys in one call at most: bounds for how long it keeps the server from everybody else.
const BATCH: usize = 500;

/// A store on a Redis.
///
/// Dropping it without [`Store::close`] loses nothing either.
pub struct Redis {
    shared: Arc<Shared>,
    /// Whether it is open. Every call holds this, so that closing waits for those under way.
    is_open: tokio::sync::RwLock<bool>,
    /// Ends `tasks`, at the latest when this is dropped.
    stop: DropGuard,
    tasks: TaskTracker,
}

/// What the calls and the tasks have in common.
struct Shared {
    link: Link,
    scripts: Scripts,
    clock: Clock,
    /// By what other replicas know whose a look is.
    replica: u64,
    /// The key that all others follow from.
    meta: String,
    /// The highest token that was seen here.
    tokens: AtomicU64,
    /// The log as it was seen here last.
    seen: RwLock<Seen>,
    /// Its last sequence, for those who wait.
    tip: watch::Sender<u64>,
    /// The flights that ended, for those who wait.
    landings: Landings,
    /// As far as the server's replicas have it, where it has any.
    confirmed: Confirmed,
}

/// A log, and how far it reaches.
#[derive(Default)]
struct Seen {
    epoch: String,
    last: u64,
    /// What the last record tells of; empty if it tells of nothing, or is gone.
    event: String,
}

impl From<RedisError> for StoreError {
    fn from(error: RedisError) -> Self {
        Self::Unavailable(error.to_string())
    }
}

impl Shared {
    /// Runs a script, on a store that is begun anew if it is not what was seen of it before.
    async fn run(&self, script: &Script, arguments: &Arguments) -> Result<Value, StoreError> {
        match self.send(script, &self.with_seen(arguments)).await {
            Err(error) if matches!(error.code(), Some("EMPTIED" | "LOST")) => {
                self.begin().await?;
                Ok(self.send(script, &self.with_seen(arguments)).await?)
            }
            answer => Ok(answer?),
        }
    }

    async fn send(&self, script: &Script, arguments: &Arguments) -> Result<Value, RedisError> {
        match self.link.call(&script.by_digest(&self.meta, arguments)).await {
            Err(error) if error.kind() == ErrorKind::Server(ServerErrorKind::NoScript) => {
                self.link.call(&script.in_full(&self.meta, arguments)).await
            }
            answer => answer,
        }
    }

    /// What every script is given besides: the log as it was seen.
    fn with_seen(&self, arguments: &Arguments) -> Arguments {
        let seen = self.seen();
        arguments.clone().with(&seen.event[..]).with(&seen.epoch[..]).number(seen.last)
    }

    fn seen(&self) -> RwLockReadGuard<'_, Seen> {
        self.seen.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes that the log, which is the one that was seen before, reaches as far as this.
    fn reaches(&self, last: u64, event: &str) {
        let mut seen = self.seen.write().unwrap_or_else(PoisonError::into_inner);
        if last > seen.last {
            (seen.last, seen.event) = (last, event.to_owned());
            self.tip.send_replace(last);
        }
    }
}

impl Redis {
    /// Connects, and begins a store if there is none. Belongs into a runtime, where it leaves tasks: one follows the log, one says that
    /// this replica is there.
    ///
    /// # Errors
    /// When it cannot be used: it cannot be reached, refuses the password, is too old, or holds another program's or a newer
    /// program's data. The text never holds the password.
    pub async fn open(address: Address, clock: Clock) -> Result<Self, OpenError> {
        let shared = Arc::new(open::open(address, clock).await?);
        let stop = CancellationToken::new();
        let tasks = TaskTracker::new();
        tasks.spawn(follow::follow(shared.clone(), stop.clone()));
        tasks.spawn(attend::attend(shared.clone(), stop.clone()));
        Ok(Self { shared, is_open: tokio::sync::RwLock::new(true), stop: stop.drop_guard(), tasks })
    }

    async fn run(&self, script: impl FnOnce(&Scripts) -> &Script, with: Arguments) -> Result<Value, StoreError> {
        let is_open = self.is_open.read().await;
        if !*is_open {
            return Err(StoreError::Unavailable("it is closed".into()));
        }
        self.shared.run(script(&self.shared.scripts), &with).await
    }

    /// The highest token that was seen here.
    fn token(&self) -> u64 {
        self.shared.tokens.load(Ordering::Relaxed)
    }

    fn saw(&self, token: u64) -> Token {
        self.shared.tokens.fetch_max(token, Ordering::Relaxed);
        Token(token)
    }
}

fn of_key(key: &Key) -> Arguments {
    of_subject(&key.subject).with(key.variant.to_bits())
}

fn of_subject(subject: &Subject) -> Arguments {
    Arguments::default().with(subject.device.as_str()).with(subject.jid.to_string())
}

/// The last argument of scripts that are about one device or, without it, all.
fn or_all(arguments: Arguments, device: Option<&Device>) -> Arguments {
    match device {
        Some(device) => arguments.with(device.as_str()),
        None => arguments,
    }
}

#[async_trait]
impl Store for Redis {
    async fn find(&self, key: &Key) -> Result<Held, StoreError> {
        rows::held(Fields::of(self.run(|scripts| &scripts.find, of_key(key)).await?)?)
    }

    async fn claim(&self, key: &Key) -> Result<Claim, StoreError> {
        let mut claim = Fields::of(self.run(|scripts| &scripts.claim, of_key(key).number(self.token())).await?)?;
        let start = self.saw(claim.number()?);
        Ok(Claim { start, held: rows::held(claim.list()?)? })
    }

    /// After an error it may have been written all the same: the answer may have been lost on its way. Then the next look finds it.
    /// For the same reason it may meet itself, when it was sent once more: no two looks leave the same behind.
    async fn apply(&self, write: Write) -> Result<Applied, StoreError> {
        let mut applied = Fields::of(
            self.run(|scripts| &scripts.apply, rows::write(&write, self.token(), &self.shared.clock)).await?,
        )?;
        match applied.text()?.as_str() {
            "done" => {
                let token = self.saw(applied.number()?);
                let event = write.change.as_ref().map_or("", |change| &change.event_id);
                self.shared.reaches(applied.number()?, event);
                Ok(Applied::Done(token))
            }
            "conflict" => {
                let held = rows::held(applied.list()?)?;
                let is_ours = held.entry.as_ref() == Some(&write.entry) && held.state == write.state;
                Ok(if is_ours { Applied::Done(held.revision) } else { Applied::Conflict(Box::new(held)) })
            }
            "late" => Ok(Applied::Late),
            _ => Ok(Applied::Forgotten),
        }
    }

    async fn forget_idle(&self, before: Timestamp, limit: usize) -> Result<Vec<Subject>, StoreError> {
        let (mut gone, mut left) = (vec![], limit);
        loop {
            let arguments = Arguments::default().time(before).limit(left);
            let arguments = arguments.time(self.shared.clock.now() - rows::LONGEST_LOOK).limit(BATCH);
            let mut answer = Fields::of(self.run(|scripts| &scripts.forget_idle, arguments).await?)?;
            let (dropped, looked_through) = (answer.number::<usize>()?, answer.number::<usize>()?);
            let subjects = answer.list()?.map(|subject| Fields::of(subject)?.subject());
            // A name that cannot be read is in nobody's memory either.
            gone.extend(subjects.filter_map(Result::ok));
            left = left.saturating_sub(dropped);
            if left == 0 || looked_through < BATCH {
                return Ok(gone);
            }
        }
    }

    async fn forget(&self, jid: &Jid, device: Option<&Device>, at: Timestamp) -> Result<bool, StoreError> {
        let arguments = Arguments::default().with(jid.to_string()).time(at).number(self.token());
        let arguments = or_all(arguments, device);
        let sequence: u64 = number(self.run(|scripts| &scripts.forget, arguments).await?)?;
        self.shared.reaches(sequence, "");
        Ok(sequence > 0)
    }

    async fn watch(&self, watch: Watch, recheck_at: Timestamp, limit: u64) -> Result<Watched, StoreError> {
        let interval = u64::try_from(watch.interval.as_millis()).unwrap_or(u64::MAX);
        let arguments = of_subject(&watch.subject).number(interval).time(recheck_at).number(limit);
        let arguments = arguments.with(State::default().encode());
        let done: u64 = number(self.run(|scripts| &scripts.watch, arguments).await?)?;
        Ok(if done > 0 { Watched::Done } else { Watched::TooMany })
    }

    async fn unwatch(&self, jid: &Jid, device: Option<&Device>) -> Result<bool, StoreError> {
        let arguments = or_all(Arguments::default().with(jid.to_string()), device);
        Ok(number::<u64>(self.run(|scripts| &scripts.unwatch, arguments).await?)? > 0)
    }

    async fn watches(
        &self,
        device: Option<&Device>,
        after: Option<&Subject>,
        limit: usize,
    ) -> Result<Vec<Watch>, StoreError> {
        let arguments = rows::watched_after(device, after).limit(limit);
        rows::watches(self.run(|scripts| &scripts.watches, arguments).await?)
    }

    async fn device(&self, device: &Device) -> Result<Option<DeviceRecord>, StoreError> {
        match self.run(|scripts| &scripts.device, Arguments::default().with(device.as_str())).await? {
            Value::Nil => Ok(None),
            record => Ok(unless_damaged(DeviceRecord::decode(&reply::bytes(record)?))?),
        }
    }

    async fn put_device(&self, device: &Device, record: DeviceRecord) -> Result<(), StoreError> {
        let arguments = Arguments::default().with(device.as_str()).with(record.encode());
        self.run(|scripts| &scripts.put_device, arguments).await.map(drop)
    }

    async fn size(&self, now: Timestamp) -> Result<Size, StoreError> {
        rows::size(self.run(|scripts| &scripts.size, Arguments::default().time(now)).await?)
    }

    async fn check(&self) -> Result<(), StoreError> {
        self.run(|scripts| &scripts.check, Arguments::default()).await.map(drop)
    }

    fn shared(&self) -> Option<&dyn super::Shared> {
        Some(self)
    }

    async fn close(&self) {
        *self.is_open.write().await = false;
        self.stop.token().cancel();
        self.tasks.close();
        self.tasks.wait().await;
        self.shared.link.close();
    }
}
