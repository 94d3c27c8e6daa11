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
use crate::change::Kind;
use crate::clock::{Clock, Timestamp};
use crate::cursor::Cursor;
use crate::jid::Jid;
use crate::metrics::Metrics;
use crate::outbound::{BadUrl, Reach, parse_url};
use crate::store::{Disabled, Endpoint, Endpoints, Known, Progress, Put, Secret, Standing, StoreError};

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
    /// What deliveries are signed with.
    pub secret: Secret,
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
    #[error("there are as many webhooks as there may be")]
    TooMany,
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
    #[error("events: there are avatar.set, avatar.changed and avatar.removed")]
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
    /// Whether it begins with the oldest event that is kept, and not with what comes from now on.
    pub from_earliest: bool,
}

/// What is to be sent once more.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Replay {
    /// Everything behind this place.
    After(Cursor),
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
        for Given { url, secret } in given {
            let id = id_of(url);
            let before = known.iter().find(|known| known.endpoint.id == id);
            let endpoint = Endpoint {
                id,
                url: url.clone(),
                secrets: vec![secret.clone()],
                events: vec![],
                jids: vec![],
                from_flag: true,
                created_at: before.map_or(self.0.shared.clock.now(), |known| known.endpoint.created_at),
            };
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

    /// Makes an endpoint, and tells its secret.
    ///
    /// # Errors
    /// When it may not be, or the store fails; nothing has changed then.
    pub async fn create(&self, new: New) -> Result<View, Trouble> {
        let New { url, secret, events, jids, from_earliest } = new;
        parse_url(&url, self.reach(false))?;
        let is_event = |name: &String| Kind::ALL.iter().any(|kind| name.strip_prefix("avatar.") == Some(kind.as_str()));
        if !events.iter().all(is_event) {
            return Err(Trouble::Event);
        }
        let secrets = vec![Secret { text: chosen(secret)?, until: None }];
        let created_at = self.0.shared.clock.now();
        let endpoint =
            Endpoint { id: hex::encode(random::<8>()), url, secrets, events, jids, from_flag: false, created_at };
        let place = self.0.shared.events.place(if from_earliest { Start::Earliest } else { Start::Now }).await?;
        let standing = Standing::at(place);
        let limit = self.0.config.limit.saturating_add(self.0.config.given.len() as u64);
        let mut tasks = self.0.tasks.lock().await;
        if self.0.shared.store.put_endpoint(endpoint.clone(), standing.clone(), limit).await? == Put::TooMany {
            return Err(Trouble::TooMany);
        }
        self.start(&mut tasks, endpoint.clone(), standing.clone());
        drop(tasks);
        let secret = endpoint.secrets.first().cloned();
        let view = self.view(Known { endpoint, standing, kept: 0, dead_letters: 0 }).await?;
        Ok(View { secret, ..view })
    }

    /// Has an endpoint sent events again, from where it was, or none any more.
    ///
    /// # Errors
    /// When there is none, or the store fails.
    pub async fn enable(&self, id: &str, enabled: bool) -> Result<View, Trouble> {
        let now = self.0.shared.clock.now();
        let altered = self.alter(id, async |known| {
            if enabled {
                (known.standing.disabled, known.standing.failing_since) = (None, None);
            } else {
                known.standing.disabled.get_or_insert_with(|| Disabled { why: "asked".to_owned(), since: now });
            }
            Ok(())
        });
        self.view(altered.await?).await
    }

    /// Gives an endpoint a new secret, or makes one, and tells it. The one before holds for a while.
    ///
    /// # Errors
    /// When it is no secret, there is no such endpoint, a flag gives it, or the store fails.
    pub async fn rotate(&self, id: &str, secret: Option<String>) -> Result<View, Trouble> {
        let new = Secret { text: chosen(secret)?, until: None };
        let (secret, until) = (new.clone(), Some(self.0.shared.clock.now() + ROTATION));
        let altered = self.alter(id, async |known| {
            if known.endpoint.from_flag {
                return Err(Trouble::Given("--webhook-secret"));
            }
            known.endpoint.secrets.truncate(1);
            known.endpoint.secrets.iter_mut().for_each(|before| before.until = until);
            known.endpoint.secrets.insert(0, new);
            Ok(())
        });
        let view = self.view(altered.await?).await?;
        Ok(View { secret: Some(secret), ..view })
    }

    /// Sends an endpoint something once more.
    ///
    /// # Errors
    /// When the place is in no log of ours, there is no such endpoint, or the store fails.
    pub async fn replay(&self, id: &str, replay: Replay) -> Result<View, Trouble> {
        let last = self.0.shared.events.place(Start::Now).await?;
        let altered = self.alter(id, async |known| {
            let after = match replay {
                Replay::DeadLetters => 0,
                Replay::After(cursor) if cursor.epoch != last.epoch || cursor.sequence > last.sequence => {
                    return Err(Trouble::Cursor);
                }
                Replay::After(cursor) => {
                    known.standing.cursor = cursor;
                    cursor.sequence
                }
            };
            let revived = self.0.shared.store.revive(id, after, self.0.shared.clock.now()).await?;
            known.dead_letters = known.dead_letters.saturating_sub(revived);
            known.kept += revived;
            Ok(())
        });
        self.view(altered.await?).await
    }

    /// Stops an endpoint's task, has it altered, writes it down, and starts the task again, whatever became of that.
    async fn alter(
        &self,
        id: &str,
        alter: impl AsyncFnOnce(&mut Known) -> Result<(), Trouble>,
    ) -> Result<Known, Trouble> {
        let store = &self.0.shared.store;
        let mut tasks = self.0.tasks.lock().await;
        let mut before = self.known(id).await?;
        if let Some(task) = tasks.remove(id) {
            task.stop().await;
        }
        // As the task has left it. Where that cannot be read, what was read before says less and nothing wrong.
        if let Ok(after) = self.known(id).await {
            before = after;
        }
        let mut known = before.clone();
        let altered = async {
            alter(&mut known).await?;
            let (endpoint, standing) = (known.endpoint.clone(), known.standing.clone());
            store.put_endpoint(endpoint, standing.clone(), u64::MAX).await?;
            store.progress(Progress { endpoint: id.to_owned(), standing, kept: vec![], ended: vec![] }).await?;
            Ok(())
        };
        let altered = altered.await;
        let now = if altered.is_ok() { known } else { before };
        self.start(&mut tasks, now.endpoint.clone(), now.standing.clone());
        altered.map(|()| now)
    }

    /// Drops an endpoint and all that was still to be delivered to it.
    ///
    /// # Errors
    /// When there is none, a flag gives it, or the store fails.
    pub async fn remove(&self, id: &str) -> Result<(), Trouble> {
        let mut tasks = self.0.tasks.lock().await;
        let known = self.known(id).await?;
        if known.endpoint.from_flag {
            return Err(Trouble::Given("--webhook"));
        }
        self.0.shared.store.drop_endpoint(id).await?;
        if let Some(task) = tasks.remove(id) {
            task.stop().await;
        }
        Ok(())
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

/// The secret that somebody chose, or a new one.
fn chosen(secret: Option<String>) -> Result<String, BadSecret> {
    let Some(secret) = secret else { return Ok(sign::make(random())) };
    check(&secret).map(|()| secret)
}
