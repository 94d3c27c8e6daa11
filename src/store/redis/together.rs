//! Flights of all replicas: asked for, ended, and heard of.
//!
//! Which flights ended is told on a capped stream beside the log, `landed`, by their names alone, and only of those that another
//! replica waits for. The connection that follows the log waits at both (`follow`), so that whoever waits hears of the end within
//! a round trip, without a connection more; a stream and no channel, because who was away for a moment reads on from where it was.

use std::collections::{HashMap, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::watch;

use super::reply::Fields;
use super::{Redis, of_key, purse, rows};
use crate::outcome::Token;
use crate::record::unless_damaged;
use crate::store::{Claim, Ending, Landing, Question, Shared, StoreError, Told};

/// How much longer than it counts an ending is kept, as what the next failure doubles the rest of. A rest is 5 minutes at most.
const KEPT: u32 = 3;

#[async_trait]
impl Shared for Redis {
    async fn ask(&self, question: Question) -> Result<Told, StoreError> {
        let millis = |lease: Duration| u64::try_from(lease.as_millis()).unwrap_or(u64::MAX);
        let (after, upto) = question.checked.unzip();
        let arguments = of_key(&question.key)
            .time(question.alive_at)
            .or_empty(after.map(super::millis))
            .or_empty(upto.map(super::millis))
            .or_empty(question.start.map(millis))
            .with(fastrand::u64(..))
            .with(self.shared.replica)
            .number(self.token())
            .clock(&self.shared.clock);
        let arguments = match &question.draft {
            Some(draft) => arguments.and(purse::draft(draft)),
            None => arguments,
        };
        let mut told = Fields::of(self.run(|scripts| &scripts.ask, arguments).await?)?;
        Ok(match told.text()?.as_str() {
            "failed" => {
                let ending = Ending::decode(&told.bytes()?)?;
                Told::Failed(Box::new(ending), Duration::from_millis(told.number()?))
            }
            "not yet" => Told::NotYet(purse::drawn(told.list()?)?.0),
            "under way" => {
                Told::UnderWay { flight: Token(told.number()?), left: Duration::from_millis(told.number()?) }
            }
            "started" => {
                let start = self.saw(told.number()?);
                let last = told.optional_bytes()?.map(|ending| unless_damaged(Ending::decode(&ending))).transpose()?;
                let claim = Box::new(Claim { start, held: rows::held(told.list()?)? });
                Told::Started { claim, last: last.flatten().map(Box::new) }
            }
            _ => Told::Held(Box::new(rows::held(told.list()?)?)),
        })
    }

    async fn land(&self, landing: Landing) -> Result<(), StoreError> {
        let arguments = of_key(&landing.key).number(landing.flight.0);
        let rest = landing.ending.as_ref().map_or(Duration::ZERO, |ending| ending.rest);
        let arguments = arguments
            .or_empty(landing.ending.map(|ending| ending.encode()))
            .with(rest.as_millis().to_string())
            .with((rest * KEPT).as_millis().to_string())
            .clock(&self.shared.clock);
        self.run(|scripts| &scripts.land, arguments).await.map(drop)
    }

    async fn landed(&self, flight: Token) {
        if let Some(mut awaited) = self.shared.landings.wait_for(flight) {
            // It never changes: it goes.
            let _ = awaited.changed().await;
        }
    }
}

/// How many of the last that ended are remembered for those who learn of a flight only now.
const REMEMBERED: usize = 1024;

/// The flights that ended, as far as it was heard of, and who waits for others.
#[derive(Default)]
pub(super) struct Landings(Mutex<Heard>);

#[derive(Default)]
struct Heard {
    ended: VecDeque<Token>,
    /// Those who wait learn it by the end of these.
    awaited: HashMap<Token, watch::Sender<()>>,
}

impl Landings {
    fn lock(&self) -> MutexGuard<'_, Heard> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// One ended.
    pub(super) fn ended(&self, flight: Token) {
        let mut heard = self.lock();
        heard.awaited.remove(&flight);
        heard.ended.push_back(flight);
        if heard.ended.len() > REMEMBERED {
            heard.ended.pop_front();
        }
    }

    /// What ends when the flight does; `None` if it has.
    fn wait_for(&self, flight: Token) -> Option<watch::Receiver<()>> {
        let mut heard = self.lock();
        if heard.ended.contains(&flight) {
            return None;
        }
        // Of some it is never heard, and whoever waited has left.
        heard.awaited.retain(|_, awaited| !awaited.is_closed());
        Some(heard.awaited.entry(flight).or_insert_with(|| watch::channel(()).0).subscribe())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn whoever_waits_for_a_flight_hears_of_its_end_also_if_it_was_heard_of_before() {
        let landings = Landings::default();
        let mut waiting = [landings.wait_for(Token(7)).unwrap(), landings.wait_for(Token(7)).unwrap()];
        landings.ended(Token(8));
        assert!(waiting.iter().all(|waiting| waiting.has_changed().is_ok()), "another one ended");
        landings.ended(Token(7));
        for waiting in &mut waiting {
            assert!(waiting.changed().await.is_err());
        }
        assert!(landings.wait_for(Token(7)).is_none());
        drop(landings.wait_for(Token(9)));
        let _ten = landings.wait_for(Token(10));
        assert_eq!(landings.lock().awaited.len(), 1, "nobody waits for the ninth any more");
    }
}
