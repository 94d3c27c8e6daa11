//! How a flight gets to its start: what suffices without the gateway, whose turn it is, and who else is under way.
//!
//! With a store that no other process shares, these are three steps: what the store holds, how the last flight ended, the budget.
//! With a shared one they are one question ([`Question`]), which also starts the look, if this process's queue is empty
//! and the budget of all replicas has a token: a hit costs one round trip. Otherwise the question is asked once more when the budget's queue has let the flight through. So no
//! replica holds a key while it waits for its budget, and of those that wait the first to be let through looks for all.
//!
//! While a shared store is away each replica is alone, as with a store of its own that is away: it looks as far as its reserve of
//! the budget goes, and records nothing.

use std::sync::Arc;
use std::time::Duration;

use super::flight::Pilot;
use super::slot::Slot;
use super::{BACKGROUND_PATIENCE, Inner, Need};
use crate::budget::{Permit, Refusal};
use crate::jid::Key;
use crate::outcome::{Failure, Token};
use crate::store::{Claim, Draft, Drawn, Ending, Held, Landing, Question, Shared, Told};

/// What a look's lease has beyond the gateway's timeout: to start in, and to write down what it brought.
const LEASE_MARGIN: Duration = Duration::from_secs(10);

/// A look that was let start is made only so soon after it was asked for, so that its lease covers it.
const START_WITHIN: Duration = Duration::from_secs(2);

/// Whoever waits for another replica's flight asks after this time, whatever it heard.
const ASK_AGAIN: Duration = Duration::from_secs(1);

/// Whether a flight has to ask the gateway.
pub(super) enum Departure {
    /// No: the store has it.
    Kept(Slot),
    /// No: the last one failed a moment ago.
    Resting(Arc<Failure>, Duration),
    /// It has, and may not.
    Refused(Refusal),
    /// It may now.
    Started(Box<Takeoff>),
}

/// What a look begins with.
pub(super) struct Takeoff {
    pub(super) permit: Permit,
    /// What the store said; `None` while it is away.
    pub(super) claim: Option<Claim>,
    /// The name by which other replicas know of it, if they do.
    pub(super) flight: Option<Token>,
    /// How the last look at the key failed, as far as the store knows.
    pub(super) last: Option<Ending>,
    /// Whether something was held that is dead, or not fresh enough.
    pub(super) stale: bool,
}

/// How it goes on while a shared store is away.
enum Unrecorded {
    Departed(Departure),
    /// There was no budget for it: its turn has come again, and the store may be back.
    Waited(Permit),
}

impl Inner {
    /// Everything up to the start.
    pub(super) async fn depart(&self, key: &Key, pilot: &Pilot, need: Need) -> Departure {
        let departed = match self.store.shared() {
            Some(shared) => self.depart_with_others(shared, key, pilot, need).await,
            None => self.depart_alone(key, pilot, need).await,
        };
        departed.unwrap_or_else(Departure::Refused)
    }

    async fn depart_alone(&self, key: &Key, pilot: &Pilot, need: Need) -> Result<Departure, Refusal> {
        let held = self.store.find(key).await.unwrap_or_default();
        let stale = held.entry.is_some();
        if let Some(slot) = self.adopt(key, held, need) {
            return Ok(Departure::Kept(slot));
        }
        if let Some((failure, left)) = self.endings.of(key) {
            return Ok(Departure::Resting(failure, left));
        }
        let permit = self.queue(key, pilot).await?;
        pilot.asking();
        let claim = self.store.claim(key).await.ok();
        Ok(Departure::Started(Box::new(Takeoff { permit, claim, flight: None, last: None, stale })))
    }

    async fn depart_with_others(
        &self,
        shared: &dyn Shared,
        key: &Key,
        pilot: &Pilot,
        need: Need,
    ) -> Result<Departure, Refusal> {
        let mut permit = self.budget.at_once(&key.subject.device, pilot.priority()).await;
        loop {
            let draft = permit.as_mut().map(|permit| permit.draft(self.lease()));
            let Ok(told) = shared.ask(self.question(key, need, draft.clone())).await else {
                if let (Some(permit), Some(draft)) = (&mut permit, draft) {
                    permit.booked(draft);
                }
                match self.depart_unrecorded(key, pilot, permit).await? {
                    Unrecorded::Departed(departure) => return Ok(departure),
                    Unrecorded::Waited(waited) => permit = Some(waited),
                }
                continue;
            };
            match told {
                Told::Failed(ending, left) => return Ok(Departure::Resting(Arc::new(ending.failure), left)),
                Told::Held(held) => {
                    if let Some(slot) = self.adopt(key, *held, need) {
                        return Ok(Departure::Kept(slot));
                    }
                    if permit.is_none() {
                        permit = Some(self.queue(key, pilot).await?);
                    }
                }
                Told::NotYet(drawn) => {
                    if let Some(waits) = permit.take() {
                        permit = Some(self.wait_again(waits, drawn, pilot).await?);
                    }
                }
                Told::UnderWay { flight, left } => {
                    // The gateway is being asked, and nothing of this replica's budget is spent.
                    drop(permit.take());
                    pilot.asking();
                    tokio::select! {
                        () = shared.landed(flight) => {}
                        () = self.clock.sleep(left.min(ASK_AGAIN)) => {}
                        () = pilot.abandoned() => return Err(abandoned()),
                    }
                    permit = self.budget.at_once(&key.subject.device, pilot.priority()).await;
                }
                Told::Started { claim, last } => {
                    let (flight, stale) = (claim.start, claim.held.entry.is_some());
                    let booked = permit.take().zip(draft).map(|(mut permit, draft)| {
                        permit.booked(draft);
                        permit
                    });
                    if let Some(permit) =
                        booked.filter(|permit| self.clock.elapsed().saturating_sub(permit.drawn_at()) <= START_WITHIN)
                    {
                        pilot.asking();
                        let (claim, flight, last) = (Some(*claim), Some(flight), last.map(|last| *last));
                        return Ok(Departure::Started(Box::new(Takeoff { permit, claim, flight, last, stale })));
                    }
                    // It was asked for too long ago: the lease may not last, and its token was of then.
                    self.land(key, flight, None).await;
                }
            }
        }
    }

    /// While a shared store is away.
    async fn depart_unrecorded(&self, key: &Key, pilot: &Pilot, permit: Option<Permit>) -> Result<Unrecorded, Refusal> {
        if let Some((failure, left)) = self.endings.of(key) {
            return Ok(Unrecorded::Departed(Departure::Resting(failure, left)));
        }
        let permit = match permit {
            Some(permit) => permit,
            None => self.queue(key, pilot).await?,
        };
        let priority = pilot.priority();
        let seated = |place| pilot.seated(place, &self.budget, priority);
        let drawing = self.budget.without_store(permit, self.patience(pilot), seated);
        let (permit, starts) = unless_abandoned(pilot, drawing).await?;
        if !starts {
            return Ok(Unrecorded::Waited(permit));
        }
        pilot.asking();
        let takeoff = Takeoff { permit, claim: None, flight: None, last: None, stale: false };
        Ok(Unrecorded::Departed(Departure::Started(Box::new(takeoff))))
    }

    /// Who was let through, and for whom the budget of all had nothing, waits where it stood.
    async fn wait_again(&self, permit: Permit, drawn: Drawn, pilot: &Pilot) -> Result<Permit, Refusal> {
        let priority = pilot.priority();
        let seated = |place| pilot.seated(place, &self.budget, priority);
        unless_abandoned(pilot, self.budget.again(permit, drawn, self.patience(pilot), seated)).await
    }

    /// How long a look may take and be written down.
    pub(super) fn lease(&self) -> Duration {
        self.config.gateway_timeout + LEASE_MARGIN
    }

    fn patience(&self, pilot: &Pilot) -> Duration {
        if pilot.is_wanted() { self.budget.config().max_wait } else { BACKGROUND_PATIENCE }
    }

    fn question(&self, key: &Key, need: Need, draft: Option<Draft>) -> Question {
        let now = self.clock.now();
        Question {
            key: key.clone(),
            alive_at: now,
            checked: need.checked(now),
            start: draft.is_some().then(|| self.lease()),
            draft,
        }
    }

    /// Waits for the budget, and no longer than anybody waits for this.
    async fn queue(&self, key: &Key, pilot: &Pilot) -> Result<Permit, Refusal> {
        unless_abandoned(pilot, self.admit(key, pilot, self.patience(pilot))).await
    }

    /// Ends a flight that other replicas may wait for, if it did not end with its write.
    pub(super) async fn land(&self, key: &Key, flight: Token, ending: Option<Ending>) {
        if let Some(shared) = self.store.shared()
            && let Err(error) = shared.land(Landing { key: key.clone(), flight, ending }).await
        {
            tracing::debug!(?key, %error, "the end of a lookup is not told to other replicas, who wait until its lease ends");
        }
    }

    /// Takes what the store holds into memory, if it meets the need.
    pub(super) fn adopt(&self, key: &Key, held: Held, need: Need) -> Option<Slot> {
        let now = self.clock.now();
        let entry = held.entry.filter(|entry| need.is_met_by(entry, now))?;
        let slot = Slot::new(&entry, super::History::from(&held.state), held.requested_at);
        Some(self.memory.adopt(key, slot, now))
    }
}

/// Waits no longer than anybody waits for the flight.
async fn unless_abandoned<T>(pilot: &Pilot, waiting: impl Future<Output = Result<T, Refusal>>) -> Result<T, Refusal> {
    tokio::select! {
        result = waiting => result,
        () = pilot.abandoned() => Err(abandoned()),
    }
}

fn abandoned() -> Refusal {
    Refusal::Spent { retry_after: Duration::from_secs(1) }
}
