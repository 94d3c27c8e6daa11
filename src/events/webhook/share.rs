//! Endpoints of a store that several replicas share: each is delivered to by whoever has its lease.
//!
//! The rules kept here:
//! * Leases are kept by a loop of their own, which waits for no task and no change.
//! * A task is started under a lease, with the endpoint as it stands by then, and ends with the lease at the latest.
//! * What is done to endpoints on other replicas is found by looking: those that are new, changed, or gone.

use std::collections::{HashMap, HashSet};
use std::sync::{MutexGuard, PoisonError};

use tokio::time::Instant;

use super::board::Figures;
use super::lease::{Held, Leases};
use super::{Running, Trouble, Webhooks, id_of};
use crate::cursor::Cursor;
use crate::events::{PACE, Start};
use crate::store::{Known, StoreError, Wish};

impl Webhooks {
    pub(super) fn is_shared(&self) -> bool {
        self.0.shared.events.is_shared()
    }

    pub(super) fn leases(&self) -> MutexGuard<'_, Leases> {
        self.0.leases.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Asks for what is wished of leases, and notes how they stand.
    async fn ask(&self, wishes: Vec<(String, Wish)>) -> Result<(), StoreError> {
        let (me, asked) = (self.leases().me.clone(), Instant::now());
        let stand = self.0.shared.store.lease(&me, &wishes).await?;
        let (mut leases, now) = (self.leases(), Instant::now());
        let mut moved = false;
        for ((id, _), lease) in wishes.iter().zip(stand) {
            moved |= leases.note(id, lease, asked, now);
        }
        if moved {
            self.0.moved.notify_one();
        }
        Ok(())
    }

    /// Keeps the leases that this replica has, and takes over what others do not keep, until the program stops.
    pub(super) async fn keep(&self) {
        while self.is_shared() && !self.0.stop.is_cancelled() {
            let wishes = self.leases().wishes(self.0.board.ids(), Instant::now());
            if !wishes.is_empty()
                && let Err(error) = self.ask(wishes).await
            {
                tracing::debug!(%error, "leases of webhook endpoints cannot be kept");
            }
            tokio::select! {
                () = tokio::time::sleep(PACE) => {}
                () = self.0.stop.cancelled() => {}
            }
        }
    }

    /// Has an endpoint be this replica's to deliver for, whosever it was: who changes one stops its task first, wherever it runs.
    pub(super) async fn seize(&self, id: &str) -> Result<Held, Trouble> {
        if !self.is_shared() {
            return Ok(Held::for_good());
        }
        self.ask(vec![(id.to_owned(), Wish::Seize)]).await?;
        self.leases().held(id).ok_or(Trouble::Unknown)
    }

    /// Leaves all endpoints to others.
    pub(super) async fn give_up(&self) {
        let (me, wishes) = {
            let mut leases = self.leases();
            (leases.me.clone(), leases.give_up())
        };
        if self.is_shared()
            && let Err(error) = self.0.shared.store.lease(&me, &wishes).await
        {
            // They are inherited some seconds later then.
            tracing::debug!(%error, "leases of webhook endpoints cannot be given up");
        }
    }

    /// Starts what has become this replica's, ends what is another's, and brings the rows of the others up to date.
    pub(super) async fn share(&self) -> Result<(), Trouble> {
        let store = &self.0.shared.store;
        let mut tasks = self.0.tasks.lock().await;
        // Before the endpoints, so that it is never later than they are.
        let read_upto = self.0.shared.events.read_upto();
        let mut all = store.endpoints().await?;
        let is_there = |id: &String| all.iter().any(|known| known.endpoint.id == *id);
        if self.0.config.given.iter().all(|given| is_there(&id_of(&given.url))) {
            if read_upto.is_some() {
                *self.given_at() = read_upto;
            }
        } else if let Some(before) = self.is_emptied().await? {
            // From a place in the old log, so that they are told of a gap.
            self.put_given(&all, before).await?;
            all = store.endpoints().await?;
        }
        let ids: HashSet<_> = all.iter().map(|known| known.endpoint.id.clone()).collect();
        for gone in self.0.board.ids().into_iter().filter(|id| !ids.contains(id)) {
            if let Some(task) = tasks.remove(&gone) {
                task.abandon().await;
            }
            self.leases().forget(&gone);
            self.0.board.remove(&gone);
        }
        for known in all {
            let held = self.leases().held(&known.endpoint.id);
            match held {
                Some(held) => self.take_over(&mut tasks, known, held).await?,
                None => self.leave(&mut tasks, &known).await,
            }
        }
        Ok(())
    }

    /// Where the log stood when what the flags give was there, if the store was emptied since. If it was not, a replica that was
    /// started later, with other flags, has dropped it.
    async fn is_emptied(&self) -> Result<Option<Cursor>, StoreError> {
        let epoch = self.0.shared.events.place(Start::Now).await?.epoch;
        Ok(self.given_at().filter(|place| place.epoch != epoch))
    }

    fn given_at(&self) -> MutexGuard<'_, Option<Cursor>> {
        self.0.given_at.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sees to it that a task runs under this lease, for the endpoint as it is.
    async fn take_over(&self, tasks: &mut HashMap<String, Running>, known: Known, held: Held) -> Result<(), Trouble> {
        let id = known.endpoint.id.clone();
        if tasks.get(&id).is_some_and(|task| task.lease == held.token && task.endpoint == known.endpoint) {
            return Ok(());
        }
        if let Some(task) = tasks.remove(&id) {
            task.stop().await;
        }
        // Read again: whoever had it before may have written until the lease came here.
        let known = self.known(&id).await?;
        self.start(tasks, known, held);
        Ok(())
    }

    /// Sees to it that no task runs, because another replica delivers.
    async fn leave(&self, tasks: &mut HashMap<String, Running>, known: &Known) {
        let id = &known.endpoint.id;
        if let Some(task) = tasks.remove(id) {
            tracing::info!(endpoint = id, "another replica delivers to a webhook endpoint from now on");
            task.abandon().await;
        }
        let figures = Figures { elsewhere: true, ..Figures::of(known, self.state(known)) };
        match self.0.board.get(id) {
            Some(row) => row.set(|row| row.follow(figures)),
            None => _ = self.0.board.put(id, figures),
        }
    }
}
