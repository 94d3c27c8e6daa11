//! Moving a store from a file to a Redis: all of it or none.
//!
//! The rules kept here:
//! * The file is only read, and nobody else may use it meanwhile. The Redis is no store until all that was carried over has been read
//!   back and compared, and is one from then on.
//! * A page at a time: how much there is does not count in memory.
//! * How far it has come is written with what is written. Whatever ends it, the next run goes on from there.
//!
//! Two passes: one copies, one reads both sides again, item by item, and takes a digest of each. What an interrupted run has copied
//! is compared too.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::clock::Clock;
use crate::store::migration::{Digest, Head, Page, Place, Tally};
use crate::store::redis::Address;
use crate::store::redis::migration::Target;
use crate::store::sqlite::migration::Source;
use crate::store::{OpenError, StoreError};

mod progress;

use progress::Progress;
pub use progress::Telling;

/// From where to where.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Config {
    /// The file.
    pub from: PathBuf,
    /// The server.
    pub to: Address,
}

/// Why a migration ended before its end: a sentence for the person who started it.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The source or the target cannot be used.
    #[error("{0}; nothing was changed")]
    Open(#[from] OpenError),
    /// The source cannot be read to its end.
    #[error("the file cannot be read: {0}; {GO_ON}")]
    Source(StoreError),
    /// The target cannot be written or read.
    #[error("{0}; {GO_ON}")]
    Target(StoreError),
    /// What was read back is something else.
    #[error(
        "what arrived is not what was sent ({0}): the Redis was written to by others, or the file was used between two runs; \
         remove all keys of this prefix, and begin anew"
    )]
    Different(&'static str),
    /// Somebody said stop.
    #[error("stopped; {GO_ON}")]
    Stopped,
}

const GO_ON: &str = "what was carried over stays there, and the same command goes on with the rest";

/// What was moved.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Summary {
    /// How much of each kind.
    pub tally: Tally,
    /// Rows that nobody could ask for, and that stayed behind.
    pub passed_over: u64,
    /// The log that goes on, and where.
    pub head: Head,
    /// The digest of both sides.
    pub digest: String,
    /// How long this run took.
    pub took: Duration,
}

/// Pages that are read while others are written.
const AHEAD: usize = 2;

/// Moves everything.
///
/// # Errors
/// Why it ended before its end.
pub async fn run(config: Config, clock: Clock, stop: &CancellationToken, telling: Telling) -> Result<Summary, Error> {
    let started = Instant::now();
    let Config { from, to } = config;
    let source = tokio::task::spawn_blocking(move || Source::open(&from)).await;
    let source = source.map_err(|error| OpenError(error.to_string()))??;
    let (head, rows) = (source.head().clone(), source.rows());
    let (target, begun) = Target::open(to, clock, &head, source.tokens(), source.state()).await?;
    let source = Arc::new(Mutex::new(source));

    let progress = telling.pass("copied", rows, begun.rows);
    let mut reader = Reader::start(&source, begun.at);
    let copied = copy(&mut reader, &target, &progress, stop).await;
    reader.end().await;
    copied?;
    progress.end();
    let progress = telling.pass("compared", rows, 0);
    let mut reader = Reader::start(&source, Place::START);
    let compared = compare(&mut reader, &target, &head, &progress, stop).await;
    reader.end().await;
    let (tally, passed_over, digest) = compared?;
    progress.end();
    target.finish().await.map_err(Error::Target)?;
    Ok(Summary { tally, passed_over, head, digest, took: started.elapsed() })
}

/// Reads the file on a thread of its own, as far ahead as there is room, until nobody takes what it reads.
struct Reader {
    pages: mpsc::Receiver<Result<Page, StoreError>>,
    thread: JoinHandle<()>,
}

impl Reader {
    fn start(source: &Arc<Mutex<Source>>, from: Place) -> Self {
        let (sender, pages) = mpsc::channel(AHEAD);
        let source = source.clone();
        let thread = tokio::task::spawn_blocking(move || {
            let source = source.lock().unwrap_or_else(PoisonError::into_inner);
            let mut at = from;
            while let Some(page) = source.page(&at).transpose() {
                let next = page.as_ref().map(|page| page.next.clone()).ok();
                if sender.blocking_send(page).is_err() {
                    return;
                }
                // Where one cannot be read there is no next one.
                let Some(next) = next else { return };
                at = next;
            }
        });
        Self { pages, thread }
    }

    async fn next(&mut self, stop: &CancellationToken) -> Result<Option<Page>, Error> {
        if stop.is_cancelled() {
            return Err(Error::Stopped);
        }
        self.pages.recv().await.transpose().map_err(Error::Source)
    }

    /// Has the thread let go of the file.
    async fn end(self) {
        drop(self.pages);
        // One that panicked has ended as well; the place that it has not come to is missed at the end.
        drop(self.thread.await);
    }
}

async fn copy(
    reader: &mut Reader,
    target: &Target,
    progress: &Progress,
    stop: &CancellationToken,
) -> Result<(), Error> {
    while let Some(page) = reader.next(stop).await? {
        target.put(&page).await.map_err(Error::Target)?;
        progress.advance(page.items.len());
    }
    Ok(())
}

/// Reads both sides again. Returns how much there is, how much stays behind, and the digest.
async fn compare(
    reader: &mut Reader,
    target: &Target,
    head: &Head,
    progress: &Progress,
    stop: &CancellationToken,
) -> Result<(Tally, u64, String), Error> {
    let (their_head, their_sum) = target.sum().await.map_err(Error::Target)?;
    let (mut ours, mut theirs) = (Digest::default(), Digest::default());
    ours.head(head);
    theirs.head(&their_head);
    let (mut tally, mut passed_over) = (Tally::default(), 0);
    while let Some(page) = reader.next(stop).await? {
        passed_over += page.passed_over;
        let Some(part) = page.from.part else { continue };
        let told = target.tell(part, &page.items).await.map_err(Error::Target)?;
        if told.len() != page.items.len() {
            return Err(Error::Different(part.as_str()));
        }
        for (item, told) in page.items.iter().zip(told) {
            let told = told.ok_or(Error::Different(part.as_str()))?;
            ours.item(item);
            theirs.item(&told);
            tally.count(item);
            if told != *item {
                return Err(Error::Different(part.as_str()));
            }
        }
        progress.advance(page.items.len());
    }
    let (ours, theirs) = (ours.text(), theirs.text());
    if tally != their_sum {
        return Err(Error::Different("how much there is"));
    } else if ours != theirs {
        return Err(Error::Different("the digest"));
    }
    Ok((tally, passed_over, ours))
}

impl std::fmt::Display for Summary {
    /// Some lines for a person.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Tally { devices, subjects, entries, watches, logged, endpoints, deliveries } = self.tally;
        for (what, count) in [
            ("people", subjects),
            ("entries", entries),
            ("watches", watches),
            ("changes", logged),
            ("webhooks", endpoints),
            ("deliveries", deliveries),
            ("devices", devices),
        ] {
            writeln!(f, "{what:<12}{count}")?;
        }
        if self.passed_over > 0 {
            writeln!(f, "{:<12}{} damaged rows, which nobody could ask for", "left behind", self.passed_over)?;
        }
        writeln!(f, "{:<12}goes on behind {}.{}", "log", self.head.epoch, self.head.last)?;
        writeln!(f, "{:<12}sha256:{}, the same on both sides", "digest", self.digest)?;
        write!(f, "{:<12}{:.1} s", "took", self.took.as_secs_f64())
    }
}
