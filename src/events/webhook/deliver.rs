//! The task of one endpoint: does what its desk plans, and writes down what became of it.
//!
//! The rules kept here:
//! * **The store first, then the log.** What was kept is taken up again before anything new is, so that order holds over a kill.
//! * **Sent, then written down.** A kill in between sends it again, under the same id. Failures are written down at once, and
//!   what got through within [`GROUP`], many at a time.
//! * **Under a lease**: nothing is sent while it may be another replica's to send, and who is fenced off stops.
//! * **Somebody was forgotten**: nothing that is held in memory is trusted. What is under way ends, and everything else is taken
//!   anew from the store and the log, where that person is no more.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::{HeaderMap, HeaderValue, StatusCode, Uri};
use tokio::sync::watch;
use tokio::task::{self, JoinError, JoinSet};
use tokio::time::{Instant, sleep_until, timeout};
use tokio_util::sync::CancellationToken;

use super::board::Row;
use super::desk::{After, Desk, Ending};
use super::lease::Held;
use super::sign;
use super::view::State;
use crate::clock::{Clock, Timestamp};
use crate::events::{BATCH_MAX, Event, Events, Filter, PACE, Reader, Start};
use crate::metrics::Metrics;
use crate::outbound::{Answer, Failure, Outbound, Reach};
use crate::store::{Delivery, Endpoint, Endpoints, LastResult, Progress, Standing, StoreError};

#[cfg(test)]
pub(super) mod tests;

/// How long what got through may wait for the write that it shares with others.
const GROUP: Duration = Duration::from_millis(100);

/// How long the cursor may lag behind while nothing is wanted of what passes.
const IDLE_GROUP: Duration = Duration::from_secs(5);

/// The longest sleep: whatever becomes of the clock, the plan is looked at again.
const LONGEST_SLEEP: Duration = Duration::from_secs(60);

/// How long what is under way may take to end when the program stops.
const LAST_WORDS: Duration = Duration::from_secs(5);

/// How many dead deliveries are read at once.
const DEAD_PAGE: usize = 100;

/// Whoever sends; in tests, whoever says what came of it.
#[async_trait]
pub trait Post: Send + Sync {
    /// Sends a body, once.
    ///
    /// # Errors
    /// When there was no answer.
    async fn post(&self, url: &Uri, headers: HeaderMap, body: Bytes, reach: Reach) -> Result<Answer, Failure>;
}

#[async_trait]
impl Post for Outbound {
    async fn post(&self, url: &Uri, headers: HeaderMap, body: Bytes, reach: Reach) -> Result<Answer, Failure> {
        Outbound::post(self, url, headers, body, reach).await
    }
}

/// What all endpoints' tasks share.
#[derive(Clone)]
pub(super) struct Shared {
    pub(super) clock: Clock,
    pub(super) store: Arc<dyn Endpoints>,
    pub(super) events: Events,
    pub(super) post: Arc<dyn Post>,
    pub(super) metrics: Arc<Metrics>,
}

impl Shared {
    /// The headers of one attempt to deliver `body` under `id`.
    pub(super) fn headers(&self, to: &Endpoint, id: &str, body: &[u8]) -> HeaderMap {
        let mut headers = sign::headers(&to.secrets, id, self.clock.now(), body);
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(self.events.media_type()));
        headers
    }
}

/// One endpoint's task.
pub(super) struct Deliver {
    pub(super) endpoint: Endpoint,
    pub(super) url: Uri,
    pub(super) reach: Reach,
    pub(super) shared: Shared,
    /// How it stands, for whoever wants to know: as it was last written down.
    pub(super) standing: watch::Sender<Standing>,
    /// The right to do it.
    pub(super) held: Held,
    /// What is told of it.
    pub(super) row: Arc<Row>,
    pub(super) stop: CancellationToken,
}

/// Why a round of deliveries is over.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Over {
    /// Everything is to be taken anew.
    Anew,
    /// For good.
    Stopped,
}

/// When an attempt ended, and how.
type Ended = (Timestamp, Result<Answer, Failure>);

/// From one taking up of what is kept to the next.
struct Round {
    desk: Desk,
    reader: Reader,
    /// What the store keeps is taken up to here; `None`: all of it.
    restored: Option<u64>,
    /// How many are kept that are not taken yet.
    unrestored: u64,
    under_way: JoinSet<Ended>,
    /// The sequence of what each attempt sends.
    attempts: HashMap<task::Id, u64>,
    last: Option<LastResult>,
    save_at: Option<Instant>,
}

impl Deliver {
    /// Delivers until it is stopped or the endpoint is disabled.
    pub(super) async fn run(self) {
        loop {
            // Asked for first, so that nobody is forgotten between what is read and what is heard.
            let forgettings = self.shared.events.forgettings();
            let over = match self.begin().await {
                Ok(round) => self.deliver(round, forgettings).await,
                Err(error) => {
                    tracing::debug!(%error, "webhook deliveries wait for the store");
                    tokio::select! {
                        () = tokio::time::sleep(PACE) => Over::Anew,
                        () = self.stop.cancelled() => Over::Stopped,
                    }
                }
            };
            if over == Over::Stopped {
                return;
            }
        }
    }

    async fn begin(&self) -> Result<Round, StoreError> {
        let Shared { clock, store, events, .. } = &self.shared;
        let standing = self.standing.borrow().clone();
        let low_water = standing.cursor.sequence;
        let mut desk = Desk::new(low_water, standing.failing_since, standing.disabled, clock.now());
        let mut after = low_water;
        loop {
            let dead = store.deliveries(&self.endpoint.id, true, after, DEAD_PAGE).await?;
            for delivery in &dead {
                desk.know(delivery.sequence);
                after = delivery.sequence;
            }
            if dead.len() < DEAD_PAGE {
                break;
            }
        }
        let jids = &self.endpoint.jids;
        let filter = Filter { device: None, jids: (!jids.is_empty()).then(|| jids.iter().copied().collect()) };
        let reader = events.read_uncounted(Start::After(standing.cursor), filter).await?;
        let kept = store.kept(&self.endpoint.id).await?;
        self.row.set(|figures| (figures.kept, figures.read) = (kept, reader.place()));
        Ok(Round {
            desk,
            reader,
            restored: Some(0),
            unrestored: kept.pending,
            under_way: JoinSet::new(),
            attempts: HashMap::new(),
            last: standing.last,
            save_at: None,
        })
    }

    async fn deliver(&self, mut round: Round, mut forgettings: watch::Receiver<u64>) -> Over {
        let (clock, mut held) = (&self.shared.clock, self.held.clone());
        loop {
            if let Err(error) = self.restore(&mut round).await {
                tracing::debug!(%error, "webhook deliveries wait for the store");
                round.save_at = Some(Instant::now() + PACE);
            }
            let now = clock.now();
            while self.may_send()
                && let Some(delivery) = round.desk.next(now)
            {
                self.send(&mut round, delivery);
            }
            self.row.set(|figures| {
                figures.kept.pending = round.desk.pending() as u64 + round.unrestored;
                figures.oldest = round.desk.oldest();
            });
            let nap = round.desk.wake_at().map_or(LONGEST_SLEEP, |at| at.since(now)).min(LONGEST_SLEEP);
            let has_room = round.restored.is_none() && round.desk.room() >= BATCH_MAX;
            let save_at = round.save_at;
            tokio::select! {
                () = self.stop.cancelled() => {
                    self.finish(&mut round, LAST_WORDS).await;
                    return Over::Stopped;
                }
                _ = forgettings.changed() => {
                    self.finish(&mut round, Duration::MAX).await;
                    return Over::Anew;
                }
                found = round.reader.next(), if has_room => self.take(&mut round, found),
                Some(ended) = round.under_way.join_next_with_id() => self.ended(&mut round, ended),
                () = sleep_until(save_at.unwrap_or_else(Instant::now)), if save_at.is_some() => {
                    if self.save(&mut round).await.is_some_and(|standing| standing.disabled.is_some()) {
                        self.finish(&mut round, LAST_WORDS).await;
                        return Over::Stopped;
                    }
                }
                () = held.kept() => {}
                () = clock.sleep(nap) => {}
            }
            if round.restored.is_none() && has_room {
                round.desk.passed(round.reader.cursor().sequence);
                if round.reader.cursor() != self.standing.borrow().cursor {
                    round.save_at.get_or_insert_with(|| Instant::now() + IDLE_GROUP);
                }
            }
        }
    }

    /// Takes up what the store keeps, as far as there is room.
    async fn restore(&self, round: &mut Round) -> Result<(), StoreError> {
        while let (Some(after), room @ BATCH_MAX..) = (round.restored, round.desk.room()) {
            let kept = self.shared.store.deliveries(&self.endpoint.id, false, after, room).await?;
            round.restored = kept.last().filter(|_| kept.len() == room).map(|last| last.sequence);
            round.unrestored = round.restored.map_or(0, |_| round.unrestored.saturating_sub(kept.len() as u64));
            for delivery in kept {
                round.desk.restore(delivery);
            }
            if round.restored.is_none() && round.desk.restored() {
                round.save_at = Some(Instant::now());
            }
        }
        Ok(())
    }

    /// Not while it may be somebody else's to do.
    fn may_send(&self) -> bool {
        self.held.is_good() && !self.stop.is_cancelled()
    }

    fn send(&self, round: &mut Round, delivery: Delivery) {
        let headers = self.shared.headers(&self.endpoint, &delivery.event_id, &delivery.json);
        let (shared, url, reach) = (self.shared.clone(), self.url.clone(), self.reach);
        let attempt = round.under_way.spawn(async move {
            let answer = shared.post.post(&url, headers, delivery.json, reach).await;
            (shared.clock.now(), answer)
        });
        round.attempts.insert(attempt.id(), delivery.sequence);
    }

    fn take(&self, round: &mut Round, found: Vec<Arc<Event>>) {
        let now = self.shared.clock.now();
        for event in found {
            let wanted = event.kind.is_none_or(|kind| {
                let name = |name: &String| name.strip_prefix("avatar.") == Some(kind.as_str());
                self.endpoint.events.is_empty() || self.endpoint.events.iter().any(name)
            });
            // The news of a gap stands right behind what was read before it, where nothing else is left.
            let sequence = if event.kind.is_some() { event.sequence } else { round.desk.read() + 1 };
            if wanted {
                round.desk.take(Delivery {
                    sequence,
                    event_id: event.id.clone(),
                    subject: event.subject.clone(),
                    noticed_at: event.at,
                    attempts: 0,
                    first_at: None,
                    due_at: now,
                    dead: false,
                    json: event.json.clone(),
                });
            }
            round.desk.passed(event.sequence);
        }
    }

    fn ended(&self, round: &mut Round, ended: Result<(task::Id, Ended), JoinError>) {
        let (attempt, at, (ending, text)) = match ended {
            Ok((attempt, (at, answer))) => (attempt, at, judge(&answer)),
            // A mistake of ours is a failure like any other: nobody waits for ever.
            Err(panicked) => {
                let failed = Ending::Failed { retry_after: None, slow: false };
                (panicked.id(), self.shared.clock.now(), (failed, "panicked".to_owned()))
            }
        };
        let Some(sequence) = round.attempts.remove(&attempt) else { return };
        round.last = Some(LastResult { at, text });
        let after = round.desk.ended(sequence, ending, at, fastrand::f64());
        let patience = if after == Some(After::Delivered) { GROUP } else { Duration::ZERO };
        let save_at = Instant::now() + patience;
        round.save_at = Some(round.save_at.map_or(save_at, |earlier| earlier.min(save_at)));
        let result = match after {
            Some(After::Delivered) => "delivered",
            Some(After::Dead) => "dead",
            _ => "failed",
        };
        self.shared.metrics.webhook_deliveries.with_label_values(&[&self.endpoint.id, result]).inc();
        match after {
            Some(After::Dead) => tracing::warn!(endpoint = self.endpoint.id, "a webhook delivery is given up"),
            Some(After::Disabled) => tracing::warn!(endpoint = self.endpoint.id, "a webhook endpoint is disabled"),
            _ => {}
        }
    }

    /// Lets what is under way end, and writes everything down.
    async fn finish(&self, round: &mut Round, within: Duration) {
        let ends = async {
            while let Some(ended) = round.under_way.join_next_with_id().await {
                self.ended(round, ended);
            }
        };
        // What has not ended by then is sent again some day.
        let _ = timeout(within, ends).await;
        self.save(round).await;
    }

    /// Writes down what there is to write down; returns how the endpoint stands then. What cannot be written is tried again.
    async fn save(&self, round: &mut Round) -> Option<Standing> {
        round.save_at = None;
        let saving = round.desk.saving();
        let cursor = crate::cursor::Cursor { sequence: saving.low_water, ..round.reader.cursor() };
        let standing = Standing {
            cursor,
            disabled: saving.disabled.clone(),
            failing_since: saving.failing_since,
            last: round.last.clone(),
        };
        if *self.standing.borrow() == standing && saving.kept.is_empty() && saving.ended.is_empty() {
            return None;
        }
        let progress = Progress {
            endpoint: self.endpoint.id.clone(),
            lease: self.held.token,
            becomes: None,
            standing: standing.clone(),
            kept: saving.kept.clone(),
            ended: saving.ended.clone(),
        };
        if let Err(error) = self.shared.store.progress(progress).await {
            if let StoreError::Fenced = error {
                tracing::info!(endpoint = self.endpoint.id, "somebody else delivers to a webhook endpoint by now");
                self.stop.cancel();
                return None;
            }
            tracing::debug!(%error, "what was delivered cannot be written down");
            round.save_at = Some(Instant::now() + PACE);
            return None;
        }
        round.desk.saved(&saving);
        self.row.set(|figures| figures.state = State::of(&standing, None));
        if saving.kept.iter().any(|kept| kept.dead) {
            // Counted anew, since others are dropped meanwhile for their age; where that fails, it is by the next one.
            if let Ok(kept) = self.shared.store.kept(&self.endpoint.id).await {
                self.row.set(|figures| figures.kept.dead = kept.dead);
            }
        }
        self.standing.send_replace(standing.clone());
        Some(standing)
    }
}

/// What an answer, or none, means for the delivery, and how it is told.
pub(super) fn judge(answer: &Result<Answer, Failure>) -> (Ending, String) {
    let answer = match answer {
        Ok(answer) => answer,
        Err(failure) => return (Ending::Failed { retry_after: None, slow: false }, failure.as_str().to_owned()),
    };
    let ending = match answer.status {
        status if status.is_success() => Ending::Delivered,
        StatusCode::GONE => Ending::Gone,
        status => {
            let slow =
                matches!(status, StatusCode::TOO_MANY_REQUESTS | StatusCode::BAD_GATEWAY | StatusCode::GATEWAY_TIMEOUT);
            Ending::Failed { retry_after: answer.retry_after, slow }
        }
    };
    (ending, answer.status.as_u16().to_string())
}
