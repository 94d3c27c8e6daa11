//! The lookup: memory, store, one flight per key, gateway, apply.
//!
//! A request is met by the first of these that has something live: the entry in memory, the entry in the store, the gateway.
//! Beyond memory everything happens in a flight (`flight.rs`), once for all who ask for the same key at the same time.
//!
//! What must stay true:
//! * Nothing dead is served, wherever it came from: every answer passes [`Entry::freshness`] at the moment it is given.
//! * While an entry lives, no failure of any part replaces it.
//! * A look that was made while the store was away is served and kept in memory, and records nothing.
//! * What is recorded is computed by `change.rs` and `entry.rs` from what the store holds, and computed again if somebody else
//!   was faster.
//!
//! Architecture invariant: this module knows nothing of HTTP and nothing of subscribers. They meet at the store's log, so that
//! an event exists only if its state was written.

use std::future::{Future, pending};
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::{Duration, Instant};

use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::budget::{Allowance, Budget, Priority, Refusal};
use crate::clock::{Clock, Timestamp};
use crate::entry::{self, Entry, Freshness};
use crate::gateway::Lookup;
use crate::jid::{Device, Key};
use crate::metrics::Metrics;
use crate::outcome::{Class, Rules};
use crate::store::{Store, Touch};

mod activity;
mod answer;
mod depart;
mod endings;
mod figures;
mod flight;
mod follow;
mod learning;
mod look;
mod memory;
mod put_back;
mod slot;
mod subjects;
mod touches;

pub use activity::Noticed;
pub use answer::{Ask, Found, Met, Unmet, Why};
use endings::Endings;
use figures::{Figures, Waiting};
use flight::{Ending, Flights, Source, Wait};
use follow::Passed;
use learning::Learning;
use memory::Memory;
use put_back::PutBack;
pub use slot::{Answer, Head, History, Kind, Shape, Slot, tag_of};
use touches::Touches;

/// How answers are kept.
#[derive(Clone, Debug)]
pub struct Config {
    /// Lifetimes and intervals.
    pub rules: Rules,
    /// Bound on the in-memory cache (bytes).
    pub memory_limit: u64,
    /// Since the last request: how long an entry goes on being refreshed.
    pub warm_for: Duration,
    /// The longest a lookup may take at the gateway, a retry included.
    pub gateway_timeout: Duration,
}

/// A `no-cache` within this time of the last look is answered from the cache.
const RECENT: Duration = Duration::from_secs(10);

/// How often a client boards a flight before it gives up.
const TRIES_MAX: usize = 3;

/// What a waiter grants a flight beyond its patience for the budget: to find out whether it may start, and to start in the last
/// moment, because whom the budget lets wait until then is served.
const START_GRACE: Duration = Duration::from_millis(500);

/// What a waiter grants a started flight beyond the gateway's own timeout: the store's calls and the budget for a retry.
const GRACE: Duration = Duration::from_secs(15);

/// A hit on an entry that was due this long ago asks for a refresh by itself: the schedule does not keep up.
const OVERDUE: Duration = Duration::from_secs(2);

/// A background lookup that the budget cannot start within this time is put off: longer than clients' misses may pass it over.
pub const BACKGROUND_PATIENCE: Duration = Duration::from_secs(90);

/// Longer than any flight.
const FOREVER: Duration = Duration::from_secs(86_400);

/// The lookup path. Cheap to clone.
#[derive(Clone)]
pub struct Avatars(Arc<Inner>);

struct Inner {
    config: Config,
    clock: Clock,
    memory: Memory,
    store: Arc<dyn Store>,
    gateway: Arc<dyn Lookup>,
    budget: Budget,
    flights: Arc<Flights>,
    endings: Endings,
    /// Counts how often it was not known what of it all is from before.
    forgets: AtomicU64,
    /// What other replicas have noticed lately.
    passed: Passed,
    put_back: PutBack,
    touches: Touches,
    learning: Learning,
    metrics: Arc<Metrics>,
    figures: Figures,
    tasks: TaskTracker,
    stop: CancellationToken,
}

/// What the lookup path is made of.
pub struct Parts {
    /// How answers are kept.
    pub config: Config,
    /// Time.
    pub clock: Clock,
    /// What is remembered beyond this process.
    pub store: Arc<dyn Store>,
    /// Who is asked.
    pub gateway: Arc<dyn Lookup>,
    /// Who may ask.
    pub budget: Budget,
    /// The figures.
    pub metrics: Arc<Metrics>,
    /// Where flights run; closing it and waiting for it ends them in good order.
    pub tasks: TaskTracker,
    /// Cancelled when the program stops: what only waits for its turn gives up, what asks the gateway finishes.
    pub stop: CancellationToken,
}

/// What an answer must be: live, and from a look that ended after some instant.
#[derive(Clone, Copy, Debug, Default)]
struct Need {
    after: Option<Timestamp>,
}

impl Need {
    fn of(ask: Ask, now: Timestamp) -> Self {
        Self { after: (ask.no_cache && !ask.only_if_cached).then(|| now - RECENT) }
    }

    /// Behind which instant a look must have ended, if so, and up to which one it can have.
    fn checked(self, now: Timestamp) -> Option<(Timestamp, Timestamp)> {
        self.after.map(|after| (after, entry::latest(now)))
    }

    fn is_met_by<O>(self, entry: &Entry<O>, now: Timestamp) -> bool {
        let later = |instant| entry.checked_at > instant && !entry.is_from_later(now);
        entry.freshness(now) != Freshness::Dead && self.after.is_none_or(later)
    }
}

/// How a background look ended.
#[derive(Clone, Debug)]
pub enum Refreshed {
    /// With an outcome; its next look is scheduled.
    Done,
    /// With a failure; it is not worth trying again before this much time has passed.
    Failed(Class, Duration),
    /// The gateway was not asked, because of the budget or because the program stops; likewise.
    NotMade(Duration),
}

/// The part of the memory limit that failed keys may take.
const ENDINGS_SHARE: u64 = 16;

impl Avatars {
    /// A lookup path with an empty memory.
    #[must_use]
    pub fn new(parts: Parts) -> Self {
        let Parts { config, clock, store, gateway, budget, metrics, tasks, stop } = parts;
        metrics.memory_limit_bytes.set(i64::try_from(config.memory_limit).unwrap_or(i64::MAX));
        Self(Arc::new(Inner {
            memory: Memory::new(config.memory_limit - config.memory_limit / ENDINGS_SHARE),
            flights: Arc::default(),
            endings: Endings::new(config.memory_limit / ENDINGS_SHARE, clock.clone()),
            forgets: AtomicU64::new(0),
            passed: Passed::default(),
            put_back: PutBack::default(),
            touches: Touches::new(config.warm_for),
            learning: Learning::default(),
            config,
            clock,
            store,
            gateway,
            budget,
            figures: Figures::new(&metrics),
            metrics,
            tasks,
            stop,
        }))
    }

    /// Answers a client from memory, if it can be: without waiting for anything.
    #[must_use]
    pub fn in_memory(&self, key: &Key, ask: Ask) -> Option<Found> {
        let began = Instant::now();
        let at = self.0.clock.now();
        let slot = self.0.memory.get(key).filter(|slot| slot.entry.freshness(at) != Freshness::Dead)?;
        self.touched(key, &slot, at);
        let need = Need::of(ask, at);
        if !need.is_met_by(&slot.entry, at) {
            return None;
        }
        let met = if need.after.is_some() { Met::Recent } else { Met::Memory };
        self.0.figures.count(met.as_str(), began);
        Some(Found { slot, met, at })
    }

    /// Answers a client, from wherever the answer may come.
    ///
    /// When `leaves` ends, the client is presumed gone: it no longer waits for the budget, and a lookup that the gateway has been
    /// asked for goes on as it would without it. A client that is known to be gone drops the whole.
    ///
    /// # Errors
    /// Why there is no outcome to answer with.
    pub async fn lookup(&self, key: &Key, ask: Ask, leaves: impl Future<Output = ()>) -> Result<Found, Unmet> {
        if let Some(found) = self.in_memory(key, ask) {
            return Ok(found);
        }
        let began = Instant::now();
        let result = if ask.only_if_cached { self.only_stored(key).await } else { self.ask(key, ask, leaves).await };
        self.0.figures.count(result.as_ref().map_or_else(Unmet::as_str, |found| found.met.as_str()), began);
        result
    }

    /// Looks a key up again in the background; a look that ended after `since` suffices. `started` is called when it no longer
    /// waits for the budget.
    pub async fn refresh(
        &self,
        key: &Key,
        priority: Priority,
        since: Timestamp,
        started: impl Fn() + Send,
    ) -> Refreshed {
        let need = Need { after: Some(since) };
        let mut tries = 0;
        loop {
            tries += 1;
            let (mut seat, _) = self.board(key, priority, need, false);
            // The budget's patience and the gateway's timeout bound a flight; nobody hurries at this end.
            let flown = async {
                seat.started().await;
                started();
                seat.wait(&self.0.clock, FOREVER, FOREVER, pending()).await
            };
            let wait = tokio::select! {
                wait = flown => wait,
                () = self.0.stop.cancelled() => Wait::NotStarted,
            };
            return match wait {
                // A flight that was under way may have been content with what the store held.
                Wait::Ended(Ending::Done(slot, Source::Kept)) if !need.is_met_by(&slot.entry, self.0.clock.now()) => {
                    if tries < TRIES_MAX {
                        continue;
                    }
                    Refreshed::NotMade(Duration::ZERO)
                }
                Wait::Ended(Ending::Done(..)) => Refreshed::Done,
                Wait::Ended(Ending::Failed(failure, retry_after, _)) => Refreshed::Failed(failure.class, retry_after),
                Wait::Ended(Ending::GaveUp(refusal)) => Refreshed::NotMade(refusal.retry_after()),
                Wait::OwnerGone | Wait::NotStarted | Wait::TooLong => Refreshed::NotMade(RECENT),
            };
        }
    }

    /// Why no lookup can start for a device before some time, if that is so.
    #[must_use]
    pub fn blocked(&self, device: &Device) -> Option<Refusal> {
        self.0.budget.blocked(device)
    }

    /// How much of its budget a key's device has left.
    #[must_use]
    pub fn allowance(&self, key: &Key) -> Allowance {
        self.0.budget.allowance(&key.subject.device)
    }

    /// How long a background look for a device would wait for the budget.
    #[must_use]
    pub fn wait_for_budget(&self, device: &Device, priority: Priority) -> Duration {
        self.0.budget.estimate(device, priority)
    }

    /// How many lookups of one device may be under way at once: one at the least.
    #[must_use]
    pub fn concurrency(&self) -> usize {
        usize::try_from(self.0.budget.config().concurrency.max(1)).unwrap_or(usize::MAX)
    }

    /// Lookups per second that a device's budget allows now.
    #[must_use]
    pub fn rate(&self, device: &Device) -> f64 {
        self.0.budget.rate(device)
    }

    /// The label under which a device is counted.
    #[must_use]
    pub fn label(&self, device: &Device) -> String {
        self.0.budget.label(device)
    }

    /// Whether the gateway can be asked at all: false while it refuses the proxy's own credentials and is not to be probed.
    #[must_use]
    pub fn gateway_answers(&self) -> bool {
        !self.0.budget.gateway_refuses()
    }

    /// Writes what clients asked for since the last time into the store.
    pub async fn flush_touches(&self) {
        let touches = self.0.touches.take();
        self.0.put_back.asked(&touches);
        if !touches.is_empty()
            && let Err(error) = self.0.store.touch(touches).await
        {
            tracing::debug!(%error, "requests are not remembered");
        }
    }

    /// Writes the present sizes into the metrics.
    pub fn measure(&self) {
        let (entries, bytes) = self.0.memory.size();
        self.0.metrics.memory_entries.set(i64::try_from(entries).unwrap_or(i64::MAX));
        self.0.metrics.memory_bytes.set(i64::try_from(bytes).unwrap_or(i64::MAX));
        self.0.metrics.flights.set(i64::try_from(self.0.flights.count()).unwrap_or(i64::MAX));
        self.0.budget.measure();
    }

    fn touched(&self, key: &Key, slot: &Slot, now: Timestamp) {
        if slot.touch(now, self.0.put_back.grain(self.0.touches.grain(), now)) {
            self.remember(key, slot, now);
        }
        if now.since(slot.entry.due_at) >= OVERDUE || slot.entry.is_from_later(now) {
            self.refresh_overdue(key, slot, now);
        }
    }

    /// Seldom beside hits, which are to stay small.
    #[cold]
    fn remember(&self, key: &Key, slot: &Slot, now: Timestamp) {
        self.0.touches.add(Touch {
            key: key.clone(),
            at: now,
            due_at: slot.entry.deadline(),
            recheck_at: slot.entry.checked_at + self.0.config.rules.recheck_interval,
        });
    }

    /// The schedule does not keep up with an entry that is asked for: whoever asks gets it looked at, once per second. What
    /// another replica has looked at since suffices.
    fn refresh_overdue(&self, key: &Key, slot: &Slot, now: Timestamp) {
        if slot.nudge(now) && self.0.endings.of(key).is_none() && self.blocked(&key.subject.device).is_none() {
            let need = Need { after: Some(slot.entry.checked_at) };
            let (seat, pilot) = self.board(key, Priority::Expiring, need, true);
            if pilot {
                // The flight lives as long as somebody waits for it.
                let (clock, stop) = (self.0.clock.clone(), self.0.stop.clone());
                self.0.tasks.spawn(async move {
                    tokio::select! {
                        _ = seat.wait(&clock, BACKGROUND_PATIENCE, FOREVER, pending()) => {}
                        () = stop.cancelled() => {}
                    }
                });
            }
        }
    }

    async fn only_stored(&self, key: &Key) -> Result<Found, Unmet> {
        let slot = self.0.stored(key).await.ok_or(Unmet::Absent)?;
        let at = self.0.clock.now();
        self.touched(key, &slot, at);
        Ok(Found { slot, met: Met::Store, at })
    }

    async fn ask(&self, key: &Key, ask: Ask, leaves: impl Future<Output = ()>) -> Result<Found, Unmet> {
        let need = Need::of(ask, self.0.clock.now());
        let patience = self.0.budget.config().max_wait + START_GRACE;
        let longest = self.0.config.gateway_timeout + GRACE;
        let why = |source| match source {
            _ if ask.no_cache => Why::Request,
            Source::Looked { stale: true, .. } => Why::Stale,
            Source::Looked { stale: false, .. } | Source::Kept => Why::Miss,
        };
        let _waiting = Waiting::new(&self.0.metrics.lookups_waiting);
        let mut leaves = pin!(leaves);
        let mut tries = 0;
        let unmet = loop {
            tries += 1;
            let (seat, _) = self.board(key, Priority::Miss, need, true);
            let collapsed = seat.collapsed;
            break match seat.wait(&self.0.clock, patience, longest, leaves.as_mut()).await {
                Wait::Ended(Ending::Done(slot, source)) => {
                    let now = self.0.clock.now();
                    // Whoever boarded a flight that was content with less than is needed here flies again.
                    if source == Source::Kept && !need.is_met_by(&slot.entry, now) && tries < TRIES_MAX {
                        continue;
                    }
                    if slot.entry.freshness(now) == Freshness::Dead {
                        break Unmet::TooLong;
                    }
                    self.touched(key, &slot, now);
                    let met = match source {
                        Source::Looked { stored, .. } => Met::Asked { why: why(source), collapsed, stored },
                        Source::Kept if ask.no_cache => Met::Recent,
                        Source::Kept => Met::Store,
                    };
                    return Ok(Found { slot, met, at: now });
                }
                Wait::Ended(
                    Ending::Failed(failure, retry_after, Source::Kept)
                    | Ending::GaveUp(Refusal::Held { failure, retry_after }),
                ) => Unmet::Resting { failure, retry_after },
                Wait::Ended(Ending::Failed(failure, retry_after, source)) => {
                    Unmet::Failed { failure, retry_after, why: why(source), collapsed }
                }
                Wait::Ended(Ending::GaveUp(refusal)) => Unmet::Refused(refusal),
                Wait::NotStarted => {
                    let retry_after =
                        self.0.budget.estimate(&key.subject.device, Priority::Miss).max(Duration::from_secs(1));
                    Unmet::Refused(Refusal::Spent { retry_after })
                }
                Wait::OwnerGone if tries < TRIES_MAX => continue,
                Wait::OwnerGone => Unmet::OwnerGone,
                Wait::TooLong => Unmet::TooLong,
            };
        };
        self.or_live(key, unmet).await
    }

    /// A live entry, where there is one, is served instead of any failure.
    async fn or_live(&self, key: &Key, unmet: Unmet) -> Result<Found, Unmet> {
        let now = self.0.clock.now();
        let live = |slot: &Slot| slot.entry.freshness(now) != Freshness::Dead;
        let slot = match self.0.memory.get(key).filter(live) {
            Some(slot) => Some(slot),
            None => self.0.stored(key).await,
        };
        let Some(slot) = slot else { return Err(unmet) };
        let met = match unmet {
            Unmet::Failed { failure, .. } | Unmet::Resting { failure, .. } => Met::Kept(failure),
            Unmet::Refused(refusal) => Met::Spared(refusal),
            Unmet::Absent | Unmet::OwnerGone | Unmet::TooLong => Met::Store,
        };
        Ok(Found { slot, met, at: now })
    }

    /// Boards the flight for `key`, and flies it if there was none; true if so.
    fn board(&self, key: &Key, priority: Priority, need: Need, wanted: bool) -> (flight::Seat, bool) {
        let (seat, pilot) = self.0.flights.board(key, priority, wanted, &self.0.budget);
        let flies = pilot.is_some();
        if let Some(pilot) = pilot {
            let inner = self.0.clone();
            let key = key.clone();
            self.0.tasks.spawn(async move {
                if let Some(ending) = inner.fly(&key, &pilot, need).await {
                    pilot.end(ending);
                }
            });
        }
        (seat, flies)
    }
}
