//! Webhooks: events delivered to addresses that others chose, each from where it left off.
//!
//! The rules kept here:
//! * **One task for one endpoint**, and whoever changes an endpoint stops its task first: what is written down is never older than
//!   what was done.
//! * **An endpoint that was given by a flag** is there as long as the flag is, under an id that its URL gives it, so that it goes
//!   on over a restart from where it was. It may lead anywhere; those that were made over the API may not, unless the operator
//!   says so.
//! * **A secret is shown once**, to who made the endpoint or had it made anew.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use http::Uri;
use sha2::{Digest as _, Sha256};
use tokio::sync::{Mutex, watch};
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use self::deliver::{Deliver, Shared, judge};
use self::desk::Ending;
use super::{Events, PACE, Start};
use crate::clock::{Clock, Timestamp};
use crate::cursor::Cursor;
use crate::jid::Jid;
use crate::metrics::Metrics;
use crate::outbound::{BadUrl, Reach, parse_url};
use crate::store::{Endpoint, Endpoints, Known, Secret, Standing, StoreError};

mod change;
mod deliver;
mod desk;
mod schedule;
mod sign;
#[cfg(test)]
mod tests;
mod view;

pub use deliver::Post;
pub use sign::{BadSecret, check};
pub use view::{Lag, State, Tested, View};

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

/// Why an endpoint is not as somebody wished.
#[derive(Debug, thiserror::Error)]
pub enum Trouble {
    /// There is none of that id.
    #[error("there is no such webhook")]
    Unknown,
    /// There are as many as there may be.
    #[error("there are {0} webhooks, and no more may be")]
    TooMany(u64),
    /// It was given by this flag, and only that can change it.
    #[error("this webhook was given by {0} when the program was started: change it there")]
    Given(&'static str),
    /// Not an address for an endpoint.
    #[error("url: {0}")]
    Url(#[from] BadUrl),
    /// Not a secret.
    #[error("secret: {0}")]
    Secret(#[from] BadSecret),
    /// Not an event.
    #[error("events: there are avatar.set, avatar.changed, avatar.removed and avatar.gap, which everybody gets")]
    Event,
    /// A place that is not in the log.
    #[error("after: is no place in this log")]
    Cursor,
    /// Nothing was done.
    #[error("{0}")]
    Store(#[from] StoreError),
}

/// An endpoint that somebody wishes for.
#[derive(Clone, Debug)]
pub struct New {
    /// Its address.
    pub url: String,
    /// What deliveries are signed with; `None`: one is made.
    pub secret: Option<String>,
    /// Which events, by name; all when empty.
    pub events: Vec<String>,
    /// Whose; everybody's when empty.
    pub jids: Vec<Jid>,
    /// Where in the log it begins.
    pub from: Start,
}

/// What is to be otherwise about an endpoint; `None` stays as it is.
#[derive(Clone, Debug, Default)]
pub struct Change {
    /// Whether it is sent events, from where it was.
    pub enabled: Option<bool>,
    /// What deliveries are signed with from now on; `Some(None)`: one is made. The one before holds for a while.
    pub secret: Option<Option<String>>,
    /// Which events, by name; all when empty.
    pub events: Option<Vec<String>>,
    /// Whose; everybody's when empty.
    pub jids: Option<Vec<Jid>>,
}

/// What is to be sent once more.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Replay {
    /// Everything behind this place.
    After(Cursor),
    /// Everything that is kept.
    Earliest,
    /// What was given up.
    DeadLetters,
}

/// The endpoints. Cheap to clone.
#[derive(Clone)]
pub struct Webhooks(Arc<Inner>);

struct Inner {
    config: Config,
    shared: Shared,
    /// Since when addresses that may not be used any more are not.
    began: Timestamp,
    stop: CancellationToken,
    /// By their id. Locked as long as one of them is being changed.
    tasks: Mutex<HashMap<String, Running>>,
}

/// An endpoint's task.
struct Running {
    stop: CancellationToken,
    ends: JoinHandle<()>,
}

impl Running {
    async fn stop(self) {
        self.stop.cancel();
        // One that panicked has ended as well.
        let _ = self.ends.await;
    }
}

impl Webhooks {
    /// Webhooks that deliver nothing yet.
    #[must_use]
    pub fn new(parts: Parts) -> Self {
        let Parts { config, clock, store, events, post, metrics, stop } = parts;
        let began = clock.now();
        let shared = Shared { clock, store, events, post, metrics };
        Self(Arc::new(Inner { config, shared, began, stop, tasks: Mutex::default() }))
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
        self.0.stop.cancelled().await;
        for (_, task) in self.0.tasks.lock().await.drain() {
            task.stop().await;
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
        let now = self.0.shared.clock.now();
        for Given { url, secret } in given {
            if secret.is_none() {
                tracing::warn!(endpoint = id_of(url), "deliveries are not signed: there is no --webhook-secret");
            }
            let id = id_of(url);
            let before = known.iter().map(|known| &known.endpoint).find(|endpoint| endpoint.id == id);
            let mut secrets = before.map_or(vec![], |before| before.secrets.clone());
            replace(&mut secrets, secret.clone(), now);
            let (url, created_at) = (url.clone(), before.map_or(now, |before| before.created_at));
            let endpoint = Endpoint { id, url, secrets, events: vec![], jids: vec![], from_flag: true, created_at };
            store.put_endpoint(endpoint, Standing::at(self.0.shared.events.place(Start::Now).await?), u64::MAX).await?;
        }
        let mut tasks = self.0.tasks.lock().await;
        for Known { endpoint, standing, .. } in store.endpoints().await? {
            if !tasks.contains_key(&endpoint.id) {
                self.start(&mut tasks, endpoint, standing);
            }
        }
        Ok(())
    }

    fn reach(&self, from_flag: bool) -> Reach {
        if from_flag || self.0.config.allow_private { Reach::Anywhere } else { Reach::Public }
    }

    fn start(&self, tasks: &mut HashMap<String, Running>, endpoint: Endpoint, standing: Standing) {
        let reach = self.reach(endpoint.from_flag);
        let url: Uri = match parse_url(&endpoint.url, reach) {
            Ok(url) => url,
            Err(error) => {
                tracing::warn!(endpoint = endpoint.id, %error, "a webhook endpoint's address may not be used any more");
                return;
            }
        };
        if standing.disabled.is_some() {
            return;
        }
        let (id, stop) = (endpoint.id.clone(), self.0.stop.child_token());
        let standing = watch::Sender::new(standing);
        let deliver = Deliver { endpoint, url, reach, shared: self.0.shared.clone(), standing, stop: stop.clone() };
        tasks.insert(id, Running { stop, ends: tokio::spawn(deliver.run()) });
    }

    /// All endpoints, by id.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn list(&self) -> Result<Vec<View>, Trouble> {
        let mut views = vec![];
        for known in self.0.shared.store.endpoints().await? {
            views.push(self.view(known).await?);
        }
        Ok(views)
    }

    /// One endpoint.
    ///
    /// # Errors
    /// When there is none, or the store fails.
    pub async fn show(&self, id: &str) -> Result<View, Trouble> {
        self.view(self.known(id).await?).await
    }

    async fn known(&self, id: &str) -> Result<Known, Trouble> {
        let mut all = self.0.shared.store.endpoints().await?.into_iter();
        all.find(|known| known.endpoint.id == id).ok_or(Trouble::Unknown)
    }

    async fn view(&self, known: Known) -> Result<View, Trouble> {
        let Shared { clock, events, .. } = &self.0.shared;
        let behind = events.behind(known.standing.cursor).await?;
        let time = behind.oldest.map_or(Duration::ZERO, |oldest| clock.now().since(oldest));
        let barred = parse_url(&known.endpoint.url, self.reach(known.endpoint.from_flag)).is_err();
        let lag = Lag { events: behind.records, time };
        Ok(View::new(known, barred.then_some(self.0.began), lag))
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
        let event = events.test(format!("test-{}", hex::encode(random::<16>())));
        let (headers, began) = (self.0.shared.headers(&endpoint, &event.id, &event.json), Instant::now());
        let (ending, result) = judge(&post.post(&url, headers, event.json, reach).await);
        Ok(Tested { delivered: ending == Ending::Delivered, result, took: began.elapsed() })
    }
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
