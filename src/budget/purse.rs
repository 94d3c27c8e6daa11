//! The budget of replicas that share a store.
//!
//! The store has the buckets (`store::Purse`), and the ledger here is a mirror of them that is never less: it decides who of this
//! replica is next, and whether it is worth asking. Who is let through draws from the store, in the question that starts its look or
//! in a step of its own, and whoever finds nothing goes back to where it stood. What others learnt of a device comes back instead
//! of a token, so that a cool-down which one replica recorded stops all before their next look.
//!
//! Without the store there is the replica's share of the reserve; its looks that are under way then count here alone.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::sync::{Notify, oneshot};

use super::ledger::{Ledger, Returning};
use super::reserve::Share;
use super::{Budget, Leave, Permit, Place, Refusal, Shared};
use crate::jid::Device;
use crate::store::{Draft, Drawn, Marked, RESERVED, ShareWish, Taught};

/// How often a share of the reserve is renewed, and so how soon it is noticed that the store has lost something.
const RENEW: Duration = Duration::from_secs(1);

/// How often a lesson is made again because somebody else taught another.
const TEACH_TRIES: usize = 8;

/// What a replica holds of the shared budget.
pub(super) struct Holding {
    holder: u64,
    turn: AtomicU64,
    /// Places that nobody uses any more.
    returned: std::sync::Mutex<Vec<Draft>>,
    has_returned: Notify,
    /// What the store was when it was last heard of.
    mark: tokio::sync::Mutex<Option<Marked>>,
}

impl Default for Holding {
    fn default() -> Self {
        Self {
            // Exact in a double.
            holder: fastrand::u64(1..1 << 53),
            turn: AtomicU64::default(),
            returned: std::sync::Mutex::default(),
            has_returned: Notify::new(),
            mark: tokio::sync::Mutex::default(),
        }
    }
}

impl Holding {
    pub(super) fn give_back(&self, draft: Draft) {
        self.lock().push(draft);
        self.has_returned.notify_one();
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<Draft>> {
        self.returned.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

impl Permit {
    /// What its look draws from the shared budget, with a place for so long at most.
    #[must_use]
    pub fn draft(&mut self, lease: Duration) -> Draft {
        let (place, now) = (fastrand::u64(..), self.shared.now());
        self.drawn_at = now.steady;
        self.shared.lock().draft(&self.device, place, lease, now)
    }

    /// When it drew what it has, by the steady clock, or rather earlier: its look is to start soon after, because others draw
    /// what has come since.
    #[must_use]
    pub fn drawn_at(&self) -> Duration {
        self.drawn_at
    }

    /// It has drawn this, or may have: the place is given back when the permit is.
    pub fn booked(&mut self, draft: Draft) {
        self.booked = Some(draft);
    }
}

impl Budget {
    /// Goes on with a permit for which this came of its draft: it may be drawn for again when it is returned.
    ///
    /// # Errors
    /// Why it may not start, or not within `patience` of its arrival.
    pub async fn again(
        &self,
        permit: Permit,
        drawn: Drawn,
        patience: Duration,
        seated: impl FnOnce(Place) + Send,
    ) -> Result<Permit, Refusal> {
        match drawn {
            Drawn::Booked => Ok(permit),
            Drawn::Changed(known) => {
                let is_news = self.0.lock().hear(&permit.device, &known, self.0.now());
                if is_news {
                    self.0.teach(&permit.device).await;
                }
                let objection = self.0.lock().objection(&permit.device, permit.probes, self.0.now());
                objection.map_or(Ok(permit), Err)
            }
            Drawn::Later(wait) => self.wait_again(permit, wait, wait, patience, seated).await,
        }
    }

    /// Without the store: the permit may start if it comes back at once, and otherwise asks the store again first.
    ///
    /// # Errors
    /// When its turn does not come within `patience` of its arrival.
    pub async fn without_store(
        &self,
        mut permit: Permit,
        patience: Duration,
        seated: impl FnOnce(Place) + Send,
    ) -> Result<(Permit, bool), Refusal> {
        permit.drawn_at = self.0.clock.elapsed();
        let drawn = self.0.lock().draw_from_reserve(&permit.device, self.0.now());
        match drawn {
            Drawn::Later(wait) => {
                let pause = Ledger::wait_for_reserve(wait);
                Ok((self.wait_again(permit, wait, pause, patience, seated).await?, false))
            }
            _ => Ok((permit, true)),
        }
    }

    /// Draws for a permit, where the budget is shared, until it may start.
    ///
    /// # Errors
    /// Why it may not, or not within `patience` of its arrival.
    pub async fn draw(
        &self,
        mut permit: Permit,
        lease: Duration,
        patience: Duration,
        seated: impl Fn(Place) + Send + Sync,
    ) -> Result<Permit, Refusal> {
        let Some(shared) = self.0.store.shared() else { return Ok(permit) };
        loop {
            let draft = permit.draft(lease);
            match shared.draw(draft.clone()).await {
                Ok(Drawn::Booked) => {
                    permit.booked(draft);
                    return Ok(permit);
                }
                Ok(drawn) => permit = self.again(permit, drawn, patience, &seated).await?,
                Err(_) => {
                    permit.booked(draft);
                    match self.without_store(permit, patience, &seated).await? {
                        (permit, true) => return Ok(permit),
                        (waited, false) => permit = waited,
                    }
                }
            }
        }
    }

    /// Waits where it stood, for `pause`; the token comes after `wait`.
    async fn wait_again(
        &self,
        mut permit: Permit,
        wait: Duration,
        pause: Duration,
        patience: Duration,
        seated: impl FnOnce(Place) + Send,
    ) -> Result<Permit, Refusal> {
        let now = self.0.now();
        let waited = now.steady.saturating_sub(permit.stood.arrived);
        if wait > patience.saturating_sub(waited) {
            let (device, priority) = (permit.device.clone(), permit.priority);
            drop(permit);
            // The token that came back with it is not there. The store may be back long before the reserve has one.
            self.0.lock().expect(&device, pause, self.0.now());
            return Err(self.0.refused(priority, Refusal::Spent { retry_after: wait }));
        }
        let (answer, answered) = oneshot::channel();
        let returning = permit.take_back();
        let place = self.0.lock().put_back(returning, pause, answer, now);
        self.0.changed.notify_one();
        seated(place.clone());
        let _leave = Leave { shared: &self.0, place: &place };
        let result = answered.await.unwrap_or(Err(Refusal::Spent { retry_after: Duration::from_secs(1) }));
        result.map_err(|refusal| self.0.refused(permit.priority, refusal))
    }

    /// Gives back what this replica holds of a shared budget.
    pub async fn close(&self) {
        if let Some(shared) = self.0.store.shared() {
            self.0.lock().set_share(Share::default(), self.0.now());
            self.0.give_back().await;
            // Otherwise it ends by itself.
            let _ = shared.reserve(self.0.wish(true)).await;
        }
    }
}

impl Shared {
    /// Gives places back as they come free, and keeps a share of the reserve. Never ends by itself.
    pub(super) async fn hold(&self) {
        if self.store.shared().is_none() {
            return std::future::pending().await;
        }
        self.renew().await;
        let mut renewed_at = self.clock.elapsed();
        loop {
            let left = (renewed_at + RENEW).saturating_sub(self.clock.elapsed());
            tokio::select! {
                () = self.holding.has_returned.notified() => self.give_back().await,
                () = self.clock.sleep(left) => {
                    renewed_at = self.clock.elapsed();
                    self.give_back().await;
                    self.renew().await;
                }
            }
        }
    }

    async fn give_back(&self) {
        let returned = std::mem::take(&mut *self.holding.lock());
        if let Some(shared) = self.store.shared()
            && !returned.is_empty()
            && let Err(error) = shared.give_back(&returned).await
        {
            tracing::debug!(%error, "places in the budget are given back later");
            self.holding.lock().extend(returned);
        }
    }

    fn wish(&self, is_over: bool) -> ShareWish {
        ShareWish {
            holder: self.holding.holder,
            turn: self.holding.turn.fetch_add(1, Ordering::Relaxed) + 1,
            using: self.lock().share(self.now()),
            holders_max: self.config.burst / 2,
            is_over,
        }
    }

    async fn renew(&self) {
        let Some(shared) = self.store.shared() else { return };
        let mut mark = self.holding.mark.lock().await;
        let asked_at = self.now().steady;
        let Ok(granted) = shared.reserve(self.wish(false)).await else { return };
        self.lock().set_share(Share::new(granted.share, asked_at + RESERVED), self.now());
        if mark.as_ref().is_some_and(|mark| *mark != granted.mark) {
            let cooling = self.lock().forget_versions(self.now());
            for device in cooling {
                self.teach(&device).await;
            }
        }
        *mark = Some(granted.mark);
    }

    /// Makes what is known of a device here known to all.
    pub(super) async fn teach(&self, device: &Device) {
        let Some(shared) = self.store.shared() else { return };
        let _turn = self.writing.lock().await;
        for _ in 0..TEACH_TRIES {
            let Some(lesson) = self.lock().lesson(device, self.now()) else { return };
            match shared.teach(lesson).await {
                Ok(Taught::Done(version)) => {
                    self.lock().set_version(device, Some(version));
                    return;
                }
                Ok(Taught::Changed(known)) => {
                    if !self.lock().hear(device, &known, self.now()) {
                        return;
                    }
                }
                Err(error) => {
                    tracing::warn!(?device, %error, "what was learnt of a device is not stored");
                    // So the next draft brings up what the store knows.
                    self.lock().set_version(device, None);
                    return;
                }
            }
        }
    }
}

impl Permit {
    /// Takes out of it what is to be put back into the queue: nothing is left to give back.
    fn take_back(&mut self) -> Returning {
        self.is_over = true;
        if let Some(draft) = self.booked.take() {
            self.shared.holding.give_back(draft);
        }
        Returning {
            device: self.device.clone(),
            priority: self.priority,
            probes: std::mem::take(&mut self.probes),
            stood: self.stood,
        }
    }
}
