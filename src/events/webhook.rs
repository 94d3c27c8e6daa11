//! Webhooks: events delivered to addresses that others chose, each from where it left off.
//!
//! The rules kept here:
//! * **One task for one endpoint**, on all replicas together (`share.rs`), and whoever changes an endpoint stops its task first: what
//!   is written down is never older than what was done.
//! * **An endpoint that was given by a flag** is there as long as the flag is, under an id that its URL gives it, so that it goes
//!   on over a restart from where it was. It may lead anywhere; those that were made over the API may not, unless the operator
//!   says so.
//! * **A secret is shown once**, to who made the endpoint or had it made anew.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::{HeaderMap, HeaderValue, Uri};
use sha2::{Digest as _, Sha256};
use tokio::sync::{Mutex, Notify, watch};
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use self::board::{Board, Figures};
use self::deliver::{Deliver, Shared, judge};
use self::desk::Ending;
use self::lease::{Held, Leases};
use super::{Event, Events, Format, PACE, Start, TRIM_BATCH};
use crate::clock::{Clock, Timestamp};
use crate::cursor::Cursor;
use crate::metrics::Metrics;
use crate::outbound::{Reach, parse_url};
use crate::outcome::Token;
use crate::store::{Endpoint, Endpoints, Known, Secret, Standing, StoreError};

mod board;
mod change;
mod deliver;
mod desk;
mod lease;
mod schedule;
mod share;
mod sign;
#[cfg(test)]
mod tests;
mod view;
mod wish;

pub use deliver::Post;
pub use sign::{BadSecret, check};
pub use view::{Lag, State, Tested, View};
pub use wish::{Change, New, Replay, Trouble};

/// How long a secret holds beside the one that replaces it.
const ROTATION: Duration = Duration::from_secs(24 * 3600);

/// Who is to be told.
#[derive(Clone, Debug, Default)]
pub struct Config {
    /// Endpoints that are always there.
    pub given: Vec<Given>,
    /// Whether endpoints that are made over the API may lead anywhere.
    pub allow_private: bool,
    /// How many endpoints there may be besides those given.
    pub limit: u64,
}

/// An endpoint that a flag gives.
#[derive(Clone, Debug)]
pub struct Given {
    /// Its address.
    pub url: String,
    /// What deliveries are signed with; `None`: they are not signed.
    pub secret: Option<String>,
}

/// What webhooks are made of.
pub struct Parts {
    /// Who is to be told.
    pub config: Config,
    /// Time.
    pub clock: Clock,
    /// Where endpoints are kept.
    pub store: Arc<dyn Endpoints>,
    /// What is told.
    pub events: Events,
    /// What sends it.
    pub post: Arc<dyn Post>,
    /// The figures.
    pub metrics: Arc<Metrics>,
    /// Ends every task.
    pub stop: CancellationToken,
}

/// The endpoints. Cheap to clone.
#[derive(Clone)]
pub struct Webhooks(Arc<Inner>);

struct Inner {
    config: Config,
    shared: Shared,
    board: Board,
    /// Since when addresses that may not be used any more are not.
    began: Timestamp,
    stop: CancellationToken,
    /// By their id. Locked as long as one of them is being changed.
    tasks: Mutex<HashMap<String, Running>>,
    /// Whose they are, where they are shared.
    leases: std::sync::Mutex<Leases>,
    /// A lease has come or gone.
    moved: Notify,
    /// The last place of the log at which what the flags give was in the store.
    given_at: std::sync::Mutex<Option<Cursor>>,
}

/// An endpoint's task.
struct Running {
    /// What it was started with.
    endpoint: Endpoint,
    /// By which right.
    lease: Token,
    stop: CancellationToken,
    /// None where nothing is to be sent.
    ends: Option<JoinHandle<()>>,
}

impl Running {
    async fn stop(self) {
        self.stop.cancel();
        if let Some(ends) = self.ends {
            // One that panicked has ended as well.
            let _ = ends.await;
        }
    }

    /// Ends it without waiting for what is under way, of which nothing is to be written down any more.
    async fn abandon(self) {
        if let Some(ends) = self.ends {
            ends.abort();
            let _ = ends.await;
        }
    }
}

impl Webhooks {
    /// Webhooks that deliver nothing yet.
    #[must_use]
    pub fn new(parts: Parts) -> Self {
        let Parts { config, clock, store, events, post, metrics, stop } = parts;
        let (began, board) = (clock.now(), Board::new(metrics.clone()));
        let shared = Shared { clock, store, events, post, metrics };
        let leases = std::sync::Mutex::new(Leases::new(hex::encode(random::<8>())));
        let (tasks, moved, given_at) = (Mutex::default(), Notify::new(), std::sync::Mutex::default());
        Self(Arc::new(Inner { config, shared, board, began, stop, tasks, leases, moved, given_at }))
    }

    /// Delivers to all endpoints until it is stopped. Waits for the store where it fails.
    pub async fn run(self) {
        while let Err(error) = self.begin().await {
            tracing::debug!(%error, "webhooks wait for the store");
            tokio::select! {
                () = tokio::time::sleep(PACE) => {}
                () = self.0.stop.cancelled() => return,
            }
        }
        tokio::join!(self.keep(), self.go_on());
        for (_, task) in self.0.tasks.lock().await.drain() {
            task.stop().await;
        }
        self.give_up().await;
    }

    /// Looks after everything until it is stopped.
    async fn go_on(&self) {
        let mut trim_at = Duration::ZERO;
        while !self.0.stop.is_cancelled() {
            let Shared { clock, events, .. } = &self.0.shared;
            let is_time = clock.elapsed() >= trim_at;
            if is_time {
                trim_at = clock.elapsed() + events.trim_pace();
            }
            if let Err(error) = self.tend(is_time).await {
                tracing::debug!(%error, "webhooks cannot be tended");
            }
            if self.is_shared()
                && let Err(error) = self.share().await
            {
                tracing::debug!(%error, "webhooks cannot be shared");
            }
            tokio::select! {
                () = tokio::time::sleep(PACE) => {}
                () = self.0.moved.notified() => {}
                () = self.0.stop.cancelled() => {}
            }
        }
    }

    /// Makes what is kept fit what the flags give, and starts every task that does not run.
    async fn begin(&self) -> Result<(), Trouble> {
        let store = &self.0.shared.store;
        let known = store.endpoints().await?;
        let given = &self.0.config.given;
        for Known { endpoint, .. } in known.iter().filter(|known| known.endpoint.from_flag) {
            if !given.iter().any(|given| id_of(&given.url) == endpoint.id) {
                store.drop_endpoint(&endpoint.id).await?;
            }
        }
        let place = self.0.shared.events.place(Start::Now).await?;
        self.put_given(&known, place).await?;
        if self.is_shared() {
            return self.share().await;
        }
        let mut tasks = self.0.tasks.lock().await;
        for known in store.endpoints().await? {
            if !tasks.contains_key(&known.endpoint.id) {
                self.start(&mut tasks, known, Held::for_good());
            }
        }
        Ok(())
    }

    /// Puts what the flags give beside what is known; what is new begins at `place`.
    async fn put_given(&self, known: &[Known], place: Cursor) -> Result<(), Trouble> {
        let (store, now) = (&self.0.shared.store, self.0.shared.clock.now());
        for Given { url, secret } in &self.0.config.given {
            if secret.is_none() {
                tracing::warn!(endpoint = id_of(url), "deliveries are not signed: there is no --webhook-secret");
            }
            let id = id_of(url);
            let before = known.iter().map(|known| &known.endpoint).find(|endpoint| endpoint.id == id);
            let mut secrets = before.map_or(vec![], |before| before.secrets.clone());
            replace(&mut secrets, secret.clone(), now);
            let (url, created_at) = (url.clone(), before.map_or(now, |before| before.created_at));
            let endpoint = Endpoint { id, url, secrets, events: vec![], jids: vec![], from_flag: true, created_at };
            store.put_endpoint(endpoint, Standing::at(place), u64::MAX).await?;
        }
        Ok(())
    }

    /// Looks after the figures that no task does, and, if it is time, drops dead deliveries that are too old.
    async fn tend(&self, trims: bool) -> Result<(), StoreError> {
        let Shared { clock, store, events, .. } = &self.0.shared;
        let mut changed = HashSet::new();
        if trims {
            loop {
                let dropped = store.trim_dead(events.too_old(), TRIM_BATCH).await?;
                let is_last = dropped.len() < TRIM_BATCH;
                changed.extend(dropped);
                if is_last {
                    break;
                }
            }
        }
        let (end, now) = (events.end(), clock.now());
        changed.extend(
            self.0.board.untended(|figures| trims || (figures.oldest.is_none() && figures.lag(end, now).events > 0)),
        );
        for id in changed {
            self.recount(&id).await?;
        }
        Ok(())
    }

    /// Counts anew what is kept for an endpoint.
    async fn recount(&self, id: &str) -> Result<(), StoreError> {
        let Some(row) = self.0.board.get(id) else { return Ok(()) };
        let Shared { store, events, .. } = &self.0.shared;
        let kept = store.kept(id).await?;
        if !row.get().is_untended() {
            row.set(|figures| figures.kept.dead = kept.dead);
            return Ok(());
        }
        let first = store.deliveries(id, false, 0, 1).await?.pop().map(|first| first.noticed_at);
        let (read, end) = (row.get().read, events.end());
        let unread = events.oldest_behind(read.load(Ordering::Relaxed)).await?;
        if unread.is_none() {
            // All of it was of somebody who is forgotten.
            read.fetch_max(end, Ordering::Relaxed);
        }
        let oldest = first.into_iter().chain(unread).min();
        row.set(|figures| (figures.kept, figures.oldest) = (kept, oldest));
        Ok(())
    }

    /// Brings the metrics of all endpoints up to date; for whoever shows them. Asks the store nothing.
    pub fn measure(&self) {
        self.0.board.measure(self.0.shared.events.end(), self.0.shared.clock.now());
    }

    fn reach(&self, from_flag: bool) -> Reach {
        if from_flag || self.0.config.allow_private { Reach::Anywhere } else { Reach::Public }
    }

    fn state(&self, known: &Known) -> State {
        let is_barred = parse_url(&known.endpoint.url, self.reach(known.endpoint.from_flag)).is_err();
        State::of(&known.standing, is_barred.then_some(self.0.began))
    }

    fn start(&self, tasks: &mut HashMap<String, Running>, known: Known, held: Held) {
        let reach = self.reach(known.endpoint.from_flag);
        let url = parse_url(&known.endpoint.url, reach);
        let row = self.0.board.put(&known.endpoint.id, Figures::of(&known, self.state(&known)));
        let Known { endpoint, standing, .. } = known;
        if let Err(error) = &url {
            tracing::warn!(endpoint = endpoint.id, %error, "a webhook endpoint's address may not be used any more");
        }
        let (stop, lease, standing) = (self.0.stop.child_token(), held.token, watch::Sender::new(standing));
        let url: Option<Uri> = url.ok().filter(|_| !row.get().is_disabled());
        let ends = url.map(|url| {
            let (endpoint, shared, stop) = (endpoint.clone(), self.0.shared.clone(), stop.clone());
            tokio::spawn(Deliver { endpoint, url, reach, shared, standing, held, row, stop }.run())
        });
        tasks.insert(endpoint.id.clone(), Running { endpoint, lease, stop, ends });
    }

    /// All endpoints, by id.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn list(&self) -> Result<Vec<View>, Trouble> {
        let known = self.0.shared.store.endpoints().await?;
        Ok(known.into_iter().map(|known| self.view(known)).collect())
    }

    /// One endpoint.
    ///
    /// # Errors
    /// When there is none, or the store fails.
    pub async fn show(&self, id: &str) -> Result<View, Trouble> {
        Ok(self.view(self.known(id).await?))
    }

    async fn known(&self, id: &str) -> Result<Known, Trouble> {
        let mut all = self.0.shared.store.endpoints().await?.into_iter();
        all.find(|known| known.endpoint.id == id).ok_or(Trouble::Unknown)
    }

    fn view(&self, known: Known) -> View {
        let Shared { clock, events, .. } = &self.0.shared;
        // Whatever is in the store is on the board as well, but for what is being made or removed just now.
        let row = self.0.board.get(&known.endpoint.id);
        let figures = row.map_or_else(|| Figures::of(&known, State::of(&known.standing, None)), |row| row.get());
        let lag = figures.lag(events.end(), clock.now());
        View::new(known, &figures, lag)
    }

    /// Sends an endpoint an event that says that it is a test, at once and once, disabled or not, and waits for the answer. It is
    /// written down nowhere, and says nothing about how the endpoint stands.
    ///
    /// # Errors
    /// When there is none, or the store fails.
    pub async fn test(&self, id: &str) -> Result<Tested, Trouble> {
        let Known { endpoint, .. } = self.known(id).await?;
        let reach = self.reach(endpoint.from_flag);
        let Ok(url) = parse_url(&endpoint.url, reach) else {
            return Ok(Tested { delivered: false, result: "address".to_owned(), took: Duration::ZERO });
        };
        let Shared { events, post, .. } = &self.0.shared;
        let event = events.test(test_id());
        let (headers, began) = (self.0.shared.headers(&endpoint, &event.id, &event.json), Instant::now());
        let (ending, result) = judge(&post.post(&url, headers, event.json, reach).await);
        Ok(Tested { delivered: ending == Ending::Delivered, result, took: began.elapsed() })
    }
}

/// The headers and the body of a test of an endpoint that a flag gives, for whoever sends it without a store.
#[must_use]
pub fn test_of(given: &Given, format: Format, now: Timestamp) -> (HeaderMap, Bytes) {
    let event = Event::test(test_id(), now, format);
    let secrets: Vec<_> = given.secret.iter().map(|text| Secret { text: text.clone(), until: None }).collect();
    let mut headers = sign::headers(&secrets, &event.id, now, &event.json);
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(format.media_type()));
    (headers, event.json)
}

fn test_id() -> String {
    format!("test-{}", hex::encode(random::<16>()))
}

/// Has `new` sign from now on; the one before holds beside it for a while. Without a new one nothing is signed.
fn replace(secrets: &mut Vec<Secret>, new: Option<String>, now: Timestamp) {
    let Some(new) = new else { return secrets.clear() };
    if secrets.first().is_none_or(|newest| newest.text != new) {
        secrets.truncate(1);
        for before in secrets.iter_mut() {
            before.until = Some(now + ROTATION);
        }
        secrets.insert(0, Secret { text: new, until: None });
    }
}

/// The id of an endpoint that a flag gives.
fn id_of(url: &str) -> String {
    hex::encode(&Sha256::digest(url)[..8])
}

fn random<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).expect("the system has random numbers");
    bytes
}
