//! One flight: from the store, through the budget, to the gateway, and back into store and memory.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use super::depart::{Departure, Takeoff};
use super::endings;
use super::flight::{Ending, Pilot, Source};
use super::slot::{History, Slot};
use super::{Inner, Need};
use crate::budget::{Permit, Refusal};
use crate::change::{self, Circumstances, Sight, Standing, Verdict};
use crate::clock::Timestamp;
use crate::entry::{Entry, Jitter};
use crate::gateway::failure;
use crate::jid::{Key, Variant};
use crate::outcome::{Failure, Observation, Outcome, Rules, Token};
use crate::recheck::pace::Wanted;
use crate::store::{Applied, Claim, Ending as Kept, Held, Write};

/// How often a write is computed again because somebody else was faster. Whoever loses that often has been overtaken by as many
/// newer looks.
const APPLY_TRIES: usize = 16;

/// How long before a failed lookup is tried once more.
const RETRY_PAUSE: Duration = Duration::from_millis(200);

/// A look that brought an outcome, as far as recording it goes.
struct Look {
    /// What the store said at its start; `None` while the store is away.
    claim: Option<Claim>,
    started_at: Timestamp,
    /// When the device last got a picture, at the look's start: a success while it was under way says nothing of its answer.
    succeeded_at: Option<Timestamp>,
}

impl Inner {
    /// One flight, from the store to the store; without an ending if it took so long that others may have flown meanwhile.
    pub(super) async fn fly(&self, key: &Key, pilot: &Pilot, need: Need) -> Option<Ending> {
        self.unless_forgotten(key, self.fly_on(key, pilot, need)).await
    }

    /// What the store holds and is live, taken into memory.
    pub(super) async fn stored(&self, key: &Key) -> Option<Slot> {
        let found = async { self.adopt(key, self.store.find(key).await.ok()?, Need::default()) };
        self.unless_forgotten(key, found).await
    }

    /// Does something that brings an answer into memory, and takes it out again if somebody was forgotten meanwhile, or another
    /// replica has noticed a change: it may be from before.
    async fn unless_forgotten<T>(&self, key: &Key, bring: impl Future<Output = T>) -> T {
        let forgets = self.forgets.load(Ordering::SeqCst);
        let brought = bring.await;
        if self.forgets.load(Ordering::SeqCst) != forgets {
            self.memory.remove(key);
            self.endings.succeeded(key);
        }
        self.passed.outdates(key, &self.memory);
        brought
    }

    async fn fly_on(&self, key: &Key, pilot: &Pilot, need: Need) -> Option<Ending> {
        let takeoff = match self.depart(key, pilot, need).await {
            Departure::Kept(slot) => return Some(Ending::Done(slot, Source::Kept)),
            Departure::Resting(failure, left) => return Some(Ending::Failed(failure, left, Source::Kept)),
            Departure::Refused(refusal) => return Some(Ending::GaveUp(refusal)),
            Departure::Started(takeoff) => takeoff,
        };
        let Takeoff { permit, claim, flight, last, stale } = *takeoff;
        match self.look(key, pilot, permit, claim).await {
            Err(refusal) => {
                if let Some(flight) = flight {
                    self.land(key, flight, None).await;
                }
                Some(Ending::GaveUp(refusal))
            }
            Ok(Ok((outcome, look))) => {
                self.endings.succeeded(key);
                let (slot, stored) = self.record(key, outcome, look, flight, pilot.is_wanted()).await?;
                Some(Ending::Done(slot, Source::Looked { stale, stored }))
            }
            Ok(Err(failure)) => {
                tracing::debug!(?key, class = failure.class.as_str(), detail = %failure.detail, "a lookup failed");
                let rest = self.failed(key, &failure, flight, last).await;
                Some(Ending::Failed(Arc::new(failure), rest, Source::Looked { stale, stored: false }))
            }
        }
    }

    /// Remembers how a lookup failed, here and for other replicas; returns after how long it is worth asking again.
    async fn failed(&self, key: &Key, failure: &Failure, flight: Option<Token>, last: Option<Kept>) -> Duration {
        let last = match flight {
            Some(_) => last.map(|last| (last.failure.class, last.rest)),
            None => self.endings.last(key),
        };
        let rest = endings::rest(failure.class, last);
        if let Some(rest) = rest {
            self.endings.failed(key, Arc::new(failure.clone()), rest);
        }
        if let Some(flight) = flight {
            // What concerns the device or the gateway is not this key's; but whoever waits for this flight is not to repeat it.
            let rest = rest.unwrap_or(endings::FIRST_REST);
            self.land(key, flight, Some(Kept { failure: failure.clone(), rest })).await;
        }
        rest.unwrap_or_else(|| {
            let blocked = self.budget.blocked(&key.subject.device);
            blocked.map_or(Duration::ZERO, |refusal| refusal.retry_after())
        })
    }

    /// Asks the gateway, and once more where that may help, all within the gateway's timeout.
    async fn look(
        &self,
        key: &Key,
        pilot: &Pilot,
        permit: Permit,
        claim: Option<Claim>,
    ) -> Result<Result<(Outcome, Look), Failure>, Refusal> {
        let began = self.clock.elapsed();
        let failure = match self.attempt(key, permit, claim.clone(), self.config.gateway_timeout).await? {
            Err(failure) if failure.retry => failure,
            ended => return Ok(ended),
        };
        let left =
            |from: Duration| self.config.gateway_timeout.saturating_sub(self.clock.elapsed().saturating_sub(from));
        if left(began) <= RETRY_PAUSE {
            return Ok(Err(failure));
        }
        self.clock.sleep(RETRY_PAUSE).await;
        let permit = tokio::select! {
            permit = self.admit_again(key, pilot, left(began)) => permit,
            () = self.clock.sleep(left(began)) => return Ok(Err(failure)),
        };
        let Ok(permit) = permit else { return Ok(Err(failure)) };
        // The flight that other replicas know of goes on, under its name.
        let claim = if self.store.shared().is_some() { claim } else { self.store.claim(key).await.ok() };
        Ok(self.attempt(key, permit, claim, left(began)).await.unwrap_or(Err(failure)))
    }

    /// For a second attempt, which its question has drawn nothing for.
    async fn admit_again(&self, key: &Key, pilot: &Pilot, patience: Duration) -> Result<Permit, Refusal> {
        let priority = pilot.priority();
        let seated = |place| pilot.seated(place, &self.budget, priority);
        let permit = self.admit(key, pilot, patience).await?;
        self.budget.draw(permit, self.lease(), patience, seated).await
    }

    pub(super) async fn admit(&self, key: &Key, pilot: &Pilot, patience: Duration) -> Result<Permit, Refusal> {
        let priority = pilot.priority();
        let seated = |place| pilot.seated(place, &self.budget, priority);
        self.budget.admit(&key.subject.device, priority, patience, seated).await
    }

    /// One question to the gateway, if it may still be asked.
    async fn attempt(
        &self,
        key: &Key,
        mut permit: Permit,
        claim: Option<Claim>,
        timeout: Duration,
    ) -> Result<Result<(Outcome, Look), Failure>, Refusal> {
        let succeeded_at = self.budget.succeeded_at(&key.subject.device);
        let look = Look { claim, started_at: self.clock.now(), succeeded_at };
        permit.start()?;
        self.metrics.gateway_in_flight.inc();
        let began = Instant::now();
        let answer = tokio::time::timeout(timeout, self.gateway.lookup(key)).await;
        let result = answer.unwrap_or_else(|_| Err(failure::late()));
        self.metrics.gateway_seconds.observe(began.elapsed().as_secs_f64());
        self.metrics.gateway_in_flight.dec();
        let class = match &result {
            Ok(Outcome::Present(_)) => "present",
            Ok(Outcome::Negative(negative)) => negative.reason.as_str(),
            Err(failure) => failure.class.as_str(),
        };
        self.metrics.gateway_lookups.with_label_values(&[class]).inc();
        self.budget.report(&mut permit, &result).await;
        Ok(result.map(|outcome| (outcome, look)))
    }

    /// Records what a look brought, and takes it into memory; false if it is held there alone. Nothing, if it came too late.
    async fn record(
        &self,
        key: &Key,
        outcome: Outcome,
        look: Look,
        flight: Option<Token>,
        wanted: bool,
    ) -> Option<(Slot, bool)> {
        let now = self.clock.now();
        let mut seen = Observation {
            variant: key.variant,
            outcome,
            start: Token::default(),
            started_at: look.started_at,
            ended_at: now,
        };
        if let Some(Claim { start, mut held }) = look.claim {
            seen.start = start;
            let entropy = entropy();
            let rules = &self.config.rules;
            let forecast = self.learning.forecast(&key.subject.device);
            let renewal = Rules { renew_late: forecast.is_scarce(), ..rules.clone() };
            for _ in 0..APPLY_TRIES {
                let around =
                    Circumstances { applied: held.revision, device_succeeded_at: look.succeeded_at, entropy, rules };
                let state = match self.unrecorded(key, held.entry.as_ref(), now) {
                    // It has no token of the store's, and counts as a look that overlapped: it makes no change, and ends a doubt.
                    Some(unrecorded) => change::observe(&held.state, &unrecorded, around).state,
                    None => held.state.clone(),
                };
                let verdict = change::observe(&state, &seen, around);
                let previous = self.last_known(key, held.entry.as_ref(), &seen);
                let asked_ago = held.requested_at.map(|asked| now.since(asked));
                let jitter = Jitter::by_demand(fastrand::f64(), asked_ago, self.config.warm_for);
                let entry = Entry::after(previous.as_ref(), &seen, verdict.standing, &renewal, jitter);
                let asked_for = Wanted { warm: wanted || held.is_warm(now, self.config.warm_for), watch: held.watch };
                let next = self.learning.next(&held, &seen, &verdict, asked_for, rules, &forecast);
                let write = Write {
                    key: key.clone(),
                    start,
                    expected: held.revision,
                    state: verdict.state.clone(),
                    entry: entry.clone(),
                    outlook: next.outlook,
                    recheck_at: next.recheck_at,
                    change: verdict.change.clone(),
                    requested_at: wanted.then_some(now),
                    also_due: verdict.look_at.map(|sight| (other(key, sight), now)),
                    siblings_due: verdict.change.is_some().then_some(now),
                    flown: flight.is_some(),
                };
                match self.store.apply(write).await {
                    Ok(Applied::Done(_)) => {
                        self.learning.learn(&next);
                        return Some((self.applied(key, &held, &verdict, &entry, wanted.then_some(now)), true));
                    }
                    Ok(Applied::Conflict(present)) => held = *present,
                    // Whoever waits is answered; nothing is kept.
                    Ok(Applied::Forgotten) => return Some((Slot::new(&entry, History::default(), None), false)),
                    Ok(Applied::Late) => {
                        tracing::debug!(?key, "a look took longer than its lease: nothing of it is kept");
                        return None;
                    }
                    Err(error) => {
                        tracing::debug!(?key, %error, "a look is not recorded");
                        break;
                    }
                }
            }
        }
        if let Some(flight) = flight {
            self.land(key, flight, None).await;
        }
        Some((self.keep_in_memory(key, seen), false))
    }

    /// The look at a picture that lives and is known in memory alone, because the store was away when it was seen.
    fn unrecorded(&self, key: &Key, held: Option<&Entry>, now: Timestamp) -> Option<Observation> {
        let slot = self.memory.get(key).filter(|slot| slot.is_good(now))?;
        let at = slot.entry.checked_at;
        let outcome = slot.to_entry().outcome;
        held.is_none_or(|held| held.checked_at < at).then_some(Observation {
            variant: key.variant,
            outcome,
            start: Token::default(),
            started_at: at,
            ended_at: at,
        })
    }

    /// What was known before a look: what the store holds, unless only memory knows of a picture that lives, because the store
    /// was away when it was seen. One odd answer must not take that one's place either.
    fn last_known(&self, key: &Key, held: Option<&Entry>, seen: &Observation) -> Option<Entry> {
        if held.is_some_and(|held| held.start() >= seen.start || held.is_good(seen.ended_at)) {
            return held.cloned();
        }
        let slot = self.memory.get(key).filter(|slot| slot.is_good(seen.ended_at));
        slot.map(|slot| slot.to_entry().known_before(seen.start)).or_else(|| held.cloned())
    }

    /// What was written is known in memory, too.
    fn applied(
        &self,
        key: &Key,
        before: &Held,
        verdict: &Verdict,
        entry: &Entry,
        requested_at: Option<Timestamp>,
    ) -> Slot {
        if let Some(change) = &verdict.change {
            self.metrics.changes.with_label_values(&[change.kind.as_str()]).inc();
            self.metrics.detection_seconds.observe(change.noticed_at.since(change.not_before).as_secs_f64());
            self.memory.forget_others(&key.subject, Some(key.variant));
        }
        if let Some(Entry { outcome: Outcome::Present(_), dead_at, .. }) = &before.entry
            && requested_at.is_none()
        {
            self.metrics.refresh_lead_seconds.observe(dead_at.since(entry.checked_at).as_secs_f64());
        }
        let slot = Slot::new(entry, History::from(&verdict.state), requested_at.or(before.requested_at));
        self.memory.insert(key, slot.clone());
        slot
    }

    /// While the store is away: the look is served and kept in memory, and records nothing.
    fn keep_in_memory(&self, key: &Key, mut seen: Observation) -> Slot {
        let rules = &self.config.rules;
        let previous = self.memory.get(key);
        let standing = match seen.outcome {
            Outcome::Present(_) => Standing::Believed { repeats: 0 },
            Outcome::Negative(_) => Standing::Doubted { look_at: seen.ended_at + rules.confirm_after, looks: 1 },
        };
        // One flight per key: what is in memory is from an earlier look, whatever its token.
        seen.start = Token(previous.as_ref().map_or(1, |slot| slot.entry.start().0.saturating_add(1)));
        let held = previous.as_ref().map(Slot::to_entry);
        let entry = Entry::after(held.as_ref(), &seen, standing, rules, Jitter(fastrand::f64()));
        let history = previous.map_or_else(History::default, |slot| slot.history());
        let slot = Slot::new(&entry, history, Some(seen.ended_at));
        self.memory.insert(key, slot.clone());
        slot
    }
}

/// The other picture of the same subject.
fn other(key: &Key, sight: Sight) -> Key {
    let variant = Variant { preview: sight == Sight::Preview, ..key.variant };
    Key { subject: key.subject.clone(), variant }
}

pub(super) fn entropy() -> u128 {
    let mut bytes = [0; 16];
    if getrandom::fill(&mut bytes).is_err() {
        return fastrand::u128(..);
    }
    u128::from_be_bytes(bytes)
}
