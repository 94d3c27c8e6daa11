//! What may be done to endpoints: made, changed, sent something once more, dropped.
//!
//! The rules kept here:
//! * **Whoever changes an endpoint stops its task first**, wherever it runs, so that what is written down is never older than what was
//!   done: another replica's is fenced off by its lease.
//! * **What was begun is done**, also if whoever wished for it has gone by then: an endpoint never stays without its task.

use std::time::Duration;

use super::{Change, New, Replay, Trouble, View, Webhooks, random, replace, sign};
use crate::change::Kind;
use crate::clock::Timestamp;
use crate::events::Start;
use crate::outbound::parse_url;
use crate::outcome::Token;
use crate::store::{Disabled, Endpoint, Kept, Known, Progress, Put, Secret, Standing, StoreError};

/// How many deliveries are made due in one write.
const HASTENED_AT_ONCE: usize = 500;

/// How often somebody may be overtaken by a change that is made on another replica.
const TRIES_MAX: usize = 20;

/// How long is waited at the most before the next attempt: several times what one takes.
const LONGEST_PAUSE: Duration = Duration::from_millis(100);

/// What is to become of an endpoint.
#[derive(Clone)]
enum Alteration {
    Change(Change),
    Replay(Replay),
}

impl Webhooks {
    /// Makes an endpoint, and tells its secret.
    ///
    /// # Errors
    /// When it may not be, or the store fails; nothing has changed then.
    pub async fn create(&self, new: New) -> Result<View, Trouble> {
        let New { url, secret, events, jids, from } = new;
        parse_url(&url, self.reach(false))?;
        check_events(&events)?;
        let secret = Secret { text: chosen(secret)?, until: None };
        let (id, secrets) = (hex::encode(random::<8>()), vec![secret.clone()]);
        let created_at = self.0.shared.clock.now();
        let endpoint = Endpoint { id, url, secrets, events, jids, from_flag: false, created_at };
        let standing = Standing::at(self.0.shared.events.place(from).await?);
        let webhooks = self.clone();
        let view = to_its_end(async move { webhooks.add(endpoint, standing).await }).await?;
        Ok(View { secret: Some(secret), ..view })
    }

    async fn add(self, endpoint: Endpoint, standing: Standing) -> Result<View, Trouble> {
        let limit = self.0.config.limit.saturating_add(self.0.config.given.len() as u64);
        let mut tasks = self.0.tasks.lock().await;
        if self.0.shared.store.put_endpoint(endpoint.clone(), standing.clone(), limit).await? == Put::TooMany {
            return Err(Trouble::TooMany(self.0.config.limit));
        }
        // Where that fails it is found like one that was made on another replica.
        if let Ok(held) = self.seize(&endpoint.id).await {
            let known = Known { endpoint: endpoint.clone(), standing: standing.clone(), kept: Kept::default() };
            self.start(&mut tasks, known, held);
        }
        Ok(self.view(Known { endpoint, standing, kept: Kept::default() }))
    }

    /// Changes an endpoint. Tells its secret if that is another.
    ///
    /// # Errors
    /// When it may not be like that, there is no such endpoint, a flag gives it, or the store fails.
    pub async fn change(&self, id: &str, mut change: Change) -> Result<View, Trouble> {
        let secret = change.secret.take().map(chosen).transpose()?;
        check_events(change.events.as_deref().unwrap_or_default())?;
        change.secret = secret.clone().map(Some);
        let view = self.alter(id, Alteration::Change(change)).await?;
        Ok(View { secret: secret.map(|text| Secret { text, until: None }), ..view })
    }

    /// Sends an endpoint something once more.
    ///
    /// # Errors
    /// When the place is in no log of ours, there is no such endpoint, or the store fails.
    pub async fn replay(&self, id: &str, replay: Replay) -> Result<View, Trouble> {
        self.alter(id, Alteration::Replay(replay)).await
    }

    async fn alter(&self, id: &str, alteration: Alteration) -> Result<View, Trouble> {
        let (webhooks, id) = (self.clone(), id.to_owned());
        to_its_end(async move {
            let known = webhooks.alter_now(&id, alteration).await?;
            Ok(webhooks.view(known))
        })
        .await
    }

    /// Stops an endpoint's task, alters the endpoint, writes it down, and starts the task again, whatever became of that.
    async fn alter_now(&self, id: &str, alteration: Alteration) -> Result<Known, Trouble> {
        let mut tasks = self.0.tasks.lock().await;
        let mut before = self.known(id).await?;
        let mut tries = 0;
        loop {
            tries += 1;
            if let Some(task) = tasks.remove(id) {
                task.stop().await;
            }
            let held = self.seize(id).await?;
            match self.known(id).await {
                // As the task has left it.
                Ok(after) => before = after,
                // What was read before is from before another replica's task was stopped: it is started again, and nothing changed.
                Err(error) if self.is_shared() => return Err(error),
                // What was read before says less and nothing wrong.
                Err(_) => {}
            }
            let altered = self.altered(before.clone(), alteration.clone(), held.token).await;
            // Somebody changes it on another replica: what is found then is changed.
            if matches!(altered, Err(Trouble::Store(StoreError::Fenced))) && tries < TRIES_MAX {
                // Not in step with it.
                tokio::time::sleep(LONGEST_PAUSE.mul_f64(fastrand::f64())).await;
                continue;
            }
            self.start(&mut tasks, altered.as_ref().map_or(before, Known::clone), held);
            return altered;
        }
    }

    /// The endpoint as it is to be, written down.
    async fn altered(&self, mut known: Known, alteration: Alteration, lease: Token) -> Result<Known, Trouble> {
        let store = &self.0.shared.store;
        match alteration {
            Alteration::Change(change) => {
                let (now, mended) = (self.0.shared.clock.now(), change.enabled == Some(true));
                apply(change, &mut known, now)?;
                if mended {
                    self.hasten(&known, lease, now).await?;
                }
            }
            Alteration::Replay(replay) => self.wind_back(&mut known, replay).await?,
        }
        let Known { endpoint, standing, .. } = known.clone();
        let (id, becomes) = (endpoint.id.clone(), Some(endpoint));
        store.progress(Progress { endpoint: id, lease, becomes, standing, kept: vec![], ended: vec![] }).await?;
        Ok(known)
    }

    /// Makes everything due that waits for its next attempt: whoever enables an endpoint has mended it.
    async fn hasten(&self, known: &Known, lease: Token, now: Timestamp) -> Result<(), StoreError> {
        let (store, id) = (&self.0.shared.store, &known.endpoint.id);
        let mut after = 0;
        loop {
            let mut kept = store.deliveries(id, false, after, HASTENED_AT_ONCE).await?;
            let Some(last) = kept.last() else { return Ok(()) };
            after = last.sequence;
            for delivery in &mut kept {
                delivery.due_at = delivery.due_at.min(now);
            }
            let standing = known.standing.clone();
            store
                .progress(Progress { endpoint: id.clone(), lease, becomes: None, standing, kept, ended: vec![] })
                .await?;
        }
    }

    async fn wind_back(&self, known: &mut Known, replay: Replay) -> Result<(), Trouble> {
        let (store, events) = (&self.0.shared.store, &self.0.shared.events);
        let last = events.place(Start::Now).await?;
        let after = match replay {
            Replay::DeadLetters => None,
            Replay::Earliest => Some(events.place(Start::Earliest).await?),
            Replay::After(cursor) if cursor.epoch != last.epoch || cursor.sequence > last.sequence => {
                return Err(Trouble::Cursor);
            }
            Replay::After(cursor) => Some(cursor),
        };
        if let Some(after) = after {
            known.standing.cursor = after;
        }
        let behind = after.map_or(0, |cursor| cursor.sequence);
        let revived = store.revive(&known.endpoint.id, behind, self.0.shared.clock.now()).await?;
        known.kept.dead = known.kept.dead.saturating_sub(revived);
        known.kept.pending += revived;
        Ok(())
    }

    /// Drops an endpoint and all that was still to be delivered to it.
    ///
    /// # Errors
    /// When there is none, a flag gives it, or the store fails.
    pub async fn remove(&self, id: &str) -> Result<(), Trouble> {
        let (webhooks, id) = (self.clone(), id.to_owned());
        to_its_end(async move {
            let mut tasks = webhooks.0.tasks.lock().await;
            if webhooks.known(&id).await?.endpoint.from_flag {
                return Err(Trouble::Given("--webhook"));
            }
            webhooks.0.shared.store.drop_endpoint(&id).await?;
            if let Some(task) = tasks.remove(&id) {
                task.abandon().await;
            }
            webhooks.leases().forget(&id);
            webhooks.0.board.remove(&id);
            Ok(())
        })
        .await
    }
}

/// Does it all, also if nobody waits for it any more.
async fn to_its_end<T: Send + 'static>(
    work: impl Future<Output = Result<T, Trouble>> + Send + 'static,
) -> Result<T, Trouble> {
    match tokio::spawn(work).await {
        Ok(result) => result,
        Err(broken) => std::panic::resume_unwind(broken.into_panic()),
    }
}

fn apply(change: Change, known: &mut Known, now: Timestamp) -> Result<(), Trouble> {
    let Change { enabled, secret, events, jids } = change;
    if known.endpoint.from_flag && (secret.is_some() || events.is_some() || jids.is_some()) {
        return Err(Trouble::Given(if secret.is_some() { "--webhook-secret" } else { "--webhook" }));
    }
    match enabled {
        Some(true) => (known.standing.disabled, known.standing.failing_since) = (None, None),
        Some(false) => {
            known.standing.disabled.get_or_insert_with(|| Disabled { why: "asked".to_owned(), since: now });
        }
        None => {}
    }
    if let Some(secret) = secret {
        replace(&mut known.endpoint.secrets, secret, now);
    }
    known.endpoint.events = events.unwrap_or(std::mem::take(&mut known.endpoint.events));
    known.endpoint.jids = jids.unwrap_or(std::mem::take(&mut known.endpoint.jids));
    Ok(())
}

/// News of a gap come to everybody, and may be named all the same.
fn check_events(names: &[String]) -> Result<(), Trouble> {
    let is_event = |name: &String| {
        let name = name.strip_prefix("avatar.");
        name == Some("gap") || Kind::ALL.iter().any(|kind| name == Some(kind.as_str()))
    };
    if names.iter().all(is_event) { Ok(()) } else { Err(Trouble::Event) }
}

/// The secret that somebody chose, or a new one.
fn chosen(secret: Option<String>) -> Result<String, sign::BadSecret> {
    let Some(secret) = secret else { return Ok(sign::make(random())) };
    sign::check(&secret).map(|()| secret)
}
