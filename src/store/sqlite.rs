//! The engine for one machine: a SQLite file.
//!
//! The rules kept here:
//! * What is acknowledged is on the disk: every write is answered after a commit with `synchronous=FULL`, and many share one.
//! * A lookup never waits for a write: readers have connections of their own and see what was last committed.
//! * No task of the runtime is blocked: all of SQLite happens on the engine's own threads.
//! * The file has one process. A second one is refused, because tokens and leases are handed out from this one's memory.
//! * Tokens only grow, also over a crash: the highest is saved in the same transaction as the records that hold it.
//!
//! `open` looks at the file, `probe` does so without opening it, `threads` runs the group commit, `rows`, `schedule`, `log`,
//! `watches`, `endpoints` and `forget` hold the statements; `migration` reads all of it for another engine; this file joins them.

mod endpoints;
mod forget;
mod log;
pub mod migration;
mod open;
pub mod probe;
mod rows;
mod schedule;
mod threads;
mod watches;

use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, PoisonError, RwLock};

use async_trait::async_trait;
use rusqlite::Connection;
use tokio::sync::watch;

use self::forget::Forgotten;
use self::threads::{Answer, Channels};
use super::{
    Agenda, Applied, Candidate, Claim, Delivery, DeviceRecord, Due, Endpoint, Endpoints, Held, Kept, Known, Log,
    OpenError, Outlay, Page, Progress, Put, Schedule, Size, Standing, Store, StoreError, Touch, Watch, Watched, Write,
};
use crate::clock::Timestamp;
use crate::jid::{Device, Jid, Key, Subject};
use crate::outcome::Token;
use crate::recheck::{Lessons, Outlook};

/// A store in one file.
///
/// Dropping it without [`Store::close`] ends its threads as well, a moment later; nothing that was acknowledged is lost by
/// either, nor by a kill.
pub struct Sqlite {
    /// `None` once closed.
    channels: RwLock<Option<Channels>>,
    /// Ends when the file is closed.
    closed: watch::Receiver<()>,
    /// The highest token handed out.
    tokens: Arc<AtomicU64>,
    forgotten: Arc<Forgotten>,
    /// The log's last sequence.
    tip: watch::Receiver<u64>,
    file: PathBuf,
}

impl Sqlite {
    /// Opens the file, and makes it if there is none. Blocks for some milliseconds, so it is called before serving starts.
    ///
    /// Beside the file there will be `<file>.lock`, which is never removed, and while it is open `<file>-wal` and
    /// `<file>-shm`, which belong to it. How to back it up and put it back stands in the README.
    ///
    /// # Errors
    /// When the file cannot be used: it is held by another process, is not a database, is another program's or a newer
    /// program's, is damaged or cannot be written, or its directory does not exist.
    pub fn open(path: &Path) -> Result<Self, OpenError> {
        let opened = open::open(path)?;
        let tokens = Arc::new(AtomicU64::new(opened.tokens));
        let file = opened.file.clone();
        let (tip, tip_seen) = watch::channel(opened.tip);
        let (channels, closed) = threads::start(opened, tokens.clone(), tip)
            .map_err(|error| OpenError(format!("a thread for the store cannot be started: {error}")))?;
        let channels = RwLock::new(Some(channels));
        Ok(Self { channels, closed, tokens, forgotten: Arc::default(), tip: tip_seen, file })
    }

    /// Runs something on a reader.
    async fn read<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Connection) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let (query, answer) = threads::query(work);
        self.send(|channels| channels.readers.send(query).is_ok())?;
        wait(answer).await
    }

    /// Runs something on the writer, in a transaction. When this returns it is durable, or undone.
    async fn write<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Connection) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let (command, answer) = threads::command(work);
        self.send(|channels| channels.writer.send(command).is_ok())?;
        wait(answer).await
    }

    fn send(&self, send: impl FnOnce(&Channels) -> bool) -> Result<(), StoreError> {
        let channels = self.channels.read().unwrap_or_else(PoisonError::into_inner);
        match channels.as_ref() {
            Some(channels) if send(channels) => Ok(()),
            _ => Err(StoreError::Unavailable("it is closed".into())),
        }
    }
}

async fn wait<T>(answer: Answer<T>) -> Result<T, StoreError> {
    answer.await.unwrap_or_else(|_| Err(StoreError::Unavailable("the call was given up with its group".into())))
}

#[async_trait]
impl Store for Sqlite {
    async fn find(&self, key: &Key) -> Result<Held, StoreError> {
        let key = key.clone();
        self.read(move |connection| rows::find(connection, &key)).await
    }

    /// Writes nothing. The token is taken after the reading, so it is greater than the revision that was read.
    async fn claim(&self, key: &Key) -> Result<Claim, StoreError> {
        let held = self.find(key).await?;
        Ok(Claim { start: rows::next(&self.tokens), held })
    }

    async fn apply(&self, write: Write) -> Result<Applied, StoreError> {
        let (prepared, tokens, forgotten) = (rows::Prepared::new(write), self.tokens.clone(), self.forgotten.clone());
        self.write(move |connection| rows::apply(connection, &prepared, &tokens, &forgotten)).await
    }

    async fn forget_idle(&self, before: Timestamp, limit: usize) -> Result<Vec<Subject>, StoreError> {
        self.write(move |connection| rows::forget_idle(connection, before, limit)).await
    }

    async fn forget(&self, jid: &Jid, device: Option<&Device>, at: Timestamp) -> Result<bool, StoreError> {
        let (jid, device) = (*jid, device.cloned());
        let (tokens, forgotten) = (self.tokens.clone(), self.forgotten.clone());
        self.write(move |connection| {
            forget::forget(connection, &jid, device.as_ref(), rows::next(&tokens), at, &forgotten)
        })
        .await
    }

    async fn watch(&self, watch: Watch, recheck_at: Timestamp, limit: u64) -> Result<Watched, StoreError> {
        self.write(move |connection| watches::watch(connection, &watch, recheck_at, limit)).await
    }

    async fn unwatch(&self, jid: &Jid, device: Option<&Device>) -> Result<bool, StoreError> {
        let (jid, device) = (*jid, device.cloned());
        self.write(move |connection| watches::unwatch(connection, &jid, device.as_ref())).await
    }

    async fn watches(
        &self,
        device: Option<&Device>,
        after: Option<&Subject>,
        limit: usize,
    ) -> Result<Vec<Watch>, StoreError> {
        let (device, after) = (device.cloned(), after.cloned());
        self.read(move |connection| watches::watches(connection, device.as_ref(), after.as_ref(), limit)).await
    }

    async fn device(&self, device: &Device) -> Result<Option<DeviceRecord>, StoreError> {
        let device = device.clone();
        self.read(move |connection| rows::device(connection, &device)).await
    }

    async fn put_device(&self, device: &Device, record: DeviceRecord) -> Result<(), StoreError> {
        let device = device.clone();
        self.write(move |connection| rows::put_device(connection, &device, record)).await
    }

    async fn size(&self, now: Timestamp) -> Result<Size, StoreError> {
        let file = self.file.clone();
        self.read(move |connection| Ok(Size { bytes: bytes(&file), ..rows::size(connection, now)? })).await
    }

    async fn check(&self) -> Result<(), StoreError> {
        self.write(rows::fill_room).await?;
        self.write(rows::clear_room).await
    }

    async fn close(&self) {
        let channels = self.channels.write().unwrap_or_else(PoisonError::into_inner).take();
        drop(channels);
        // The writer's thread drops the other end when all is done. Nothing is ever sent.
        let mut closed = self.closed.clone();
        while closed.changed().await.is_ok() {}
    }
}

#[async_trait]
impl Schedule for Sqlite {
    async fn agenda(&self) -> Result<Vec<Agenda>, StoreError> {
        self.read(schedule::agenda).await
    }

    async fn take_due(
        &self,
        device: &Device,
        until: Timestamp,
        lease: Timestamp,
        limit: usize,
    ) -> Result<Vec<Due>, StoreError> {
        let device = device.clone();
        self.write(move |connection| schedule::take_due(connection, &device, until, lease, limit)).await
    }

    async fn take_rechecks(
        &self,
        device: &Device,
        now: Timestamp,
        lease: Timestamp,
        limit: usize,
    ) -> Result<Vec<Candidate>, StoreError> {
        let device = device.clone();
        self.write(move |connection| schedule::take_rechecks(connection, &device, now, lease, limit)).await
    }

    async fn outlay(&self, device: &Device, counts: &[usize]) -> Result<Outlay, StoreError> {
        let (device, counts) = (device.clone(), counts.to_vec());
        self.read(move |connection| schedule::outlay(connection, &device, &counts)).await
    }

    async fn reschedule(&self, keys: Vec<(Key, Option<Timestamp>)>) -> Result<(), StoreError> {
        self.write(move |connection| schedule::reschedule(connection, &keys)).await
    }

    async fn defer(&self, subjects: Vec<(Subject, Option<Timestamp>)>) -> Result<(), StoreError> {
        self.write(move |connection| schedule::defer(connection, &subjects)).await
    }

    async fn advance(
        &self,
        subject: &Subject,
        expected: Token,
        outlook: Outlook,
        recheck_at: Timestamp,
    ) -> Result<(), StoreError> {
        let subject = subject.clone();
        self.write(move |connection| schedule::advance(connection, &subject, expected, &outlook, recheck_at)).await
    }

    async fn touch(&self, touches: Vec<Touch>) -> Result<(), StoreError> {
        self.write(move |connection| schedule::touch(connection, &touches)).await
    }

    async fn lessons(&self) -> Result<Option<Lessons>, StoreError> {
        self.read(schedule::lessons).await
    }

    async fn put_lessons(&self, lessons: &Lessons) -> Result<(), StoreError> {
        let lessons = lessons.encode();
        self.write(move |connection| schedule::put_lessons(connection, &lessons)).await
    }
}

#[async_trait]
impl Log for Sqlite {
    async fn read_log(&self, after: u64, limit: usize) -> Result<Page, StoreError> {
        self.read(move |connection| log::read(connection, after, limit)).await
    }

    async fn history(&self, jid: &Jid, device: Option<&Device>, before: u64, limit: usize) -> Result<Page, StoreError> {
        let (jid, device) = (*jid, device.cloned());
        self.read(move |connection| log::history(connection, &jid, device.as_ref(), before, limit)).await
    }

    async fn trim_log(&self, before: Timestamp, limit: usize) -> Result<usize, StoreError> {
        self.write(move |connection| log::trim(connection, before, limit)).await
    }

    fn tip(&self) -> watch::Receiver<u64> {
        self.tip.clone()
    }
}

#[async_trait]
impl Endpoints for Sqlite {
    async fn endpoints(&self) -> Result<Vec<Known>, StoreError> {
        self.read(endpoints::list).await
    }

    async fn put_endpoint(&self, endpoint: Endpoint, new: Standing, limit: u64) -> Result<Put, StoreError> {
        self.write(move |connection| endpoints::put(connection, &endpoint, &new, limit)).await
    }

    async fn drop_endpoint(&self, id: &str) -> Result<bool, StoreError> {
        let id = id.to_owned();
        self.write(move |connection| endpoints::drop(connection, &id)).await
    }

    async fn deliveries(&self, id: &str, dead: bool, after: u64, limit: usize) -> Result<Vec<Delivery>, StoreError> {
        let id = id.to_owned();
        self.read(move |connection| endpoints::deliveries(connection, &id, dead, after, limit)).await
    }

    async fn kept(&self, id: &str) -> Result<Kept, StoreError> {
        let id = id.to_owned();
        self.read(move |connection| endpoints::kept(connection, &id)).await
    }

    async fn progress(&self, progress: Progress) -> Result<(), StoreError> {
        self.write(move |connection| endpoints::progress(connection, &progress)).await
    }

    async fn revive(&self, id: &str, after: u64, due: Timestamp) -> Result<u64, StoreError> {
        let id = id.to_owned();
        self.write(move |connection| endpoints::revive(connection, &id, after, due)).await
    }

    async fn trim_dead(&self, before: Timestamp, limit: usize) -> Result<Vec<String>, StoreError> {
        self.write(move |connection| endpoints::trim_dead(connection, before, limit)).await
    }
}

/// On the disk: the file and its write-ahead log.
fn bytes(file: &Path) -> u64 {
    let mut log = file.as_os_str().to_owned();
    log.push("-wal");
    let size = |path: &Path| path.metadata().map_or(0, |metadata| metadata.len());
    size(file) + size(Path::new(&log))
}

#[cfg(test)]
mod tests;
