//! The threads that talk to SQLite, and the group commit.
//!
//! SQLite blocks, so no task of the runtime ever calls it: work is sent to a thread of its own and the answer comes back
//! through a one-shot channel. The rules:
//! * **One writer.** It takes all the commands that wait, and those that come meanwhile, runs them in one transaction, each
//!   under a savepoint of its own, and answers only after the commit: one disk flush serves them all, and no answer is ever
//!   ahead of the disk. A command that fails undoes itself and nobody else; when the commit fails, all of its commands fail.
//! * **Readers beside it.** Each has its own connection and sees what was last committed, never a half of it.
//! * Closing is dropping the senders: what was accepted is still done, the readers end, then the writer folds the write-ahead
//!   log into the file, and only then is the file's lock released.

use std::fs::File;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::{Builder, JoinHandle};

use crossbeam_channel::{Receiver, Sender, unbounded};
use rusqlite::Connection;
use tokio::sync::{oneshot, watch};

use super::log;
use super::open::Opened;
use crate::store::StoreError;

/// Commands in one transaction at most: bounds how long the first of them waits for the last.
const GROUP: usize = 512;

/// Work for a reader.
pub(super) type Query = Box<dyn FnOnce(&Connection) + Send>;

/// Work for the writer, to be run inside the group's transaction.
pub(super) type Command = Box<dyn FnOnce(&Connection) -> Done + Send>;

/// What became of a group: committed, or why not.
type Ending = Result<(), String>;

/// A command that has run and waits for its group's commit.
pub(super) struct Done {
    /// Why it must be undone.
    failure: Option<String>,
    /// Tells who asked, given what became of the group.
    answer: Box<dyn FnOnce(&Ending) + Send>,
}

/// Where the answer to a query or a command arrives. It fails when the thread ended without one.
pub(super) type Answer<T> = oneshot::Receiver<Result<T, StoreError>>;

/// Packs work for a reader.
pub(super) fn query<T: Send + 'static>(
    work: impl FnOnce(&Connection) -> Result<T, StoreError> + Send + 'static,
) -> (Query, Answer<T>) {
    let (sender, answer) = oneshot::channel();
    // Who asked may have gone away meanwhile.
    let query = move |connection: &Connection| drop(sender.send(work(connection)));
    (Box::new(query), answer)
}

/// Packs work for the writer.
pub(super) fn command<T: Send + 'static>(
    work: impl FnOnce(&Connection) -> Result<T, StoreError> + Send + 'static,
) -> (Command, Answer<T>) {
    let (sender, answer) = oneshot::channel();
    let command = move |connection: &Connection| {
        let result = work(connection);
        let failure = match &result {
            Ok(_) => None,
            Err(StoreError::Unavailable(reason)) => Some(reason.clone()),
            Err(error @ (StoreError::Unreadable(_) | StoreError::Fenced | StoreError::Unconfirmed)) => {
                Some(error.to_string())
            }
        };
        let answer = Box::new(move |group: &Ending| {
            let group = group.clone().map_err(StoreError::Unavailable);
            drop(sender.send(result.and_then(|value| group.map(|()| value))));
        });
        Done { failure, answer }
    };
    (Box::new(command), answer)
}

/// The ways in. Dropping them ends the threads.
pub(super) struct Channels {
    pub(super) writer: Sender<Command>,
    pub(super) readers: Sender<Query>,
}

/// Starts the threads. What is returned ends when the file is closed and its lock released; `tip` is told when the log has grown.
pub(super) fn start(
    opened: Opened,
    tokens: Arc<AtomicU64>,
    tip: watch::Sender<u64>,
) -> io::Result<(Channels, watch::Receiver<()>)> {
    let (readers, queries) = unbounded();
    let (writer, commands) = unbounded();
    let (ended, closed) = watch::channel(());
    let mut threads = Vec::new();
    for connection in opened.readers {
        let queries = queries.clone();
        threads.push(Builder::new().name("store-reader".into()).spawn(move || read(&connection, &queries))?);
    }
    let writer_thread = Writer { connection: opened.writer, tokens, tip, readers: threads, lock: opened.lock, ended };
    Builder::new().name("store-writer".into()).spawn(move || writer_thread.run(&commands))?;
    Ok((Channels { writer, readers }, closed))
}

fn read(connection: &Connection, queries: &Receiver<Query>) {
    for query in queries {
        query(connection);
    }
}

struct Writer {
    connection: Connection,
    tokens: Arc<AtomicU64>,
    tip: watch::Sender<u64>,
    readers: Vec<JoinHandle<()>>,
    lock: File,
    ended: watch::Sender<()>,
}

impl Writer {
    fn run(self, commands: &Receiver<Command>) {
        while let Ok(first) = commands.recv() {
            let group = std::iter::once(first).chain(commands.try_iter().take(GROUP - 1));
            let mut done = Vec::new();
            let ending = self.transact(group, &mut done);
            if let Err(error) = &ending {
                // Who asked is told; that the store fails is said once, by whoever measures it.
                tracing::debug!(%error, commands = done.len(), "a group of writes failed");
            } else {
                self.tell_tip();
            }
            for command in done {
                (command.answer)(&ending);
            }
        }
        self.end();
    }

    /// Runs the commands and commits. On an error nothing of them is left, and those that did not run are dropped.
    fn transact(&self, commands: impl Iterator<Item = Command>, done: &mut Vec<Done>) -> Ending {
        let ending = self.attempt(commands, done);
        if ending.is_err() && !self.connection.is_autocommit() {
            self.execute("ROLLBACK")?;
        }
        ending
    }

    fn attempt(&self, commands: impl Iterator<Item = Command>, done: &mut Vec<Done>) -> Ending {
        self.execute("BEGIN IMMEDIATE")?;
        let before = self.connection.total_changes();
        for command in commands {
            self.execute("SAVEPOINT command")?;
            let ran = command(&self.connection);
            let failure = ran.failure.clone();
            done.push(ran);
            if let Some(failure) = failure {
                // A full disk, for one, may end the transaction by itself, and with it everything before.
                if self.connection.is_autocommit() {
                    return Err(failure);
                }
                self.execute("ROLLBACK TO command")?;
            }
            self.execute("RELEASE command")?;
        }
        if self.connection.total_changes() != before {
            self.save_tokens().map_err(|error| error.to_string())?;
        }
        self.execute("COMMIT")
    }

    fn execute(&self, statement: &str) -> Result<(), String> {
        let execute = || self.connection.prepare_cached(statement)?.execute([]);
        execute().map(drop).map_err(|error| error.to_string())
    }

    /// Every token in a record was handed out before this, so none is greater than what is saved with it.
    fn save_tokens(&self) -> rusqlite::Result<()> {
        let tokens = self.tokens.load(Ordering::SeqCst);
        self.connection.prepare_cached("UPDATE meta SET tokens = ?1")?.execute([tokens]).map(drop)
    }

    /// Tells the log's readers how far it reaches. A tip that cannot be read now is told after the next group.
    fn tell_tip(&self) {
        if let Ok(last) = log::last(&self.connection) {
            self.tip.send_if_modified(|tip| std::mem::replace(tip, last) != last);
        }
    }

    fn end(mut self) {
        for reader in self.readers.drain(..) {
            // A reader that panicked has ended as well.
            drop(reader.join());
        }
        if let Err(error) = self.save_tokens() {
            tracing::warn!(%error, "the store could not save its last token");
        }
        // The last connection to close folds the write-ahead log into the file; what cannot be folded now is at the next start.
        if let Err((_, error)) = self.connection.close() {
            tracing::warn!(%error, "the store was not closed cleanly");
        }
        // Unlocked, not only closed: a process that is just being started holds a copy of the descriptor for a moment.
        if let Err(error) = self.lock.unlock() {
            tracing::warn!(%error, "the store's lock file was not unlocked");
        }
        drop(self.lock);
        drop(self.ended);
    }
}
