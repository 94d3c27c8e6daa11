//! Confirmed before announced: where the server has replicas, what is read of the log is handed out only when one of them has it.
//!
//! Otherwise a primary that dies could take along what subscribers were told already. A heartbeat is written behind what was read,
//! on a connection of its own, and waited for there (`WAIT` counts for all that came before it). The heartbeat also sees that what
//! was read is still there: it may have been read from a primary that another has replaced since. Of several replicas one is enough:
//! Sentinels and clusters promote the one that has the most.
//!
//! A primary whose replicas have all left may have been replaced without knowing it: Sentinels that are told to promote another one
//! move the replicas first, and tell the old primary some ten seconds later. So they are asked again, and nothing is announced
//! meanwhile.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use redis::Value;
use tokio::time::Instant;

use super::Shared;
use super::address::Shape;
use super::link::{ANSWER, Wire};
use super::reply::number;
use super::scripts::Arguments;
use crate::cursor::{Cursor, Epoch};
use crate::store::{Page, StoreError, What};

/// For how long a replica is waited for at a time.
const WAIT: Duration = Duration::from_millis(WAIT_MILLIS);

/// The same, as it is asked for.
const WAIT_MILLIS: u64 = 1000;

/// For how long it is doubted that a primary whose replicas have left is one still: longer than Sentinels take to tell it.
const DOUBT: Duration = Duration::from_secs(15);

/// How often Sentinels are asked meanwhile.
const ASK_PACE: Duration = Duration::from_secs(1);

/// The server that something was read from.
pub(super) struct Primary {
    /// How many replicas it has.
    pub(super) replicas: u64,
    /// What it calls the history that it shares with them. A replica that is promoted begins another.
    pub(super) history: String,
}

/// What replicas have confirmed.
#[derive(Default)]
pub(super) struct Confirmed {
    upto: Mutex<Option<Cursor>>,
    company: Mutex<Company>,
    /// Held while somebody waits: the connection for it, and when waiting was in vain.
    waiting: tokio::sync::Mutex<(Option<Wire>, Option<Instant>)>,
}

/// The last server that had replicas.
#[derive(Default)]
struct Company {
    history: String,
    /// When it last had any.
    seen_at: Option<Instant>,
    /// When Sentinels were last asked whether it is the primary still.
    asked_at: Option<Instant>,
}

/// Whether a server is the primary.
#[derive(PartialEq)]
enum Standing {
    /// As far as can be known.
    Certain,
    /// It had replicas a moment ago, and has none.
    Doubted,
    /// The same, and it is time to ask again who is.
    ToBeAsked,
}

impl Company {
    fn standing(&mut self, server: Primary, now: Instant) -> Standing {
        if server.replicas > 0 {
            *self = Self { history: server.history, seen_at: Some(now), asked_at: None };
            return Standing::Certain;
        }
        let is_past = |at: Option<Instant>, time| at.is_none_or(|at| now.duration_since(at) >= time);
        if server.history != self.history || is_past(self.seen_at, DOUBT) {
            Standing::Certain
        } else if is_past(self.asked_at, ASK_PACE) {
            self.asked_at = Some(now);
            Standing::ToBeAsked
        } else {
            Standing::Doubted
        }
    }
}

impl Confirmed {
    fn reaches(&self, epoch: Epoch, sequence: u64) -> bool {
        let upto = *self.upto.lock().unwrap_or_else(PoisonError::into_inner);
        upto.is_some_and(|upto| upto.epoch == epoch && upto.sequence >= sequence)
    }
}

impl Shared {
    /// Waits until what was read from a server is on one of its replicas, if it has any.
    pub(super) async fn confirm(&self, page: &Page, server: Primary) -> Result<(), StoreError> {
        let is_alone = server.replicas == 0;
        let standing = match self.link.address.shape {
            Shape::Sentinel(_) => {
                let mut company = self.confirmed.company.lock().unwrap_or_else(PoisonError::into_inner);
                company.standing(server, Instant::now())
            }
            Shape::Server | Shape::Cluster => Standing::Certain,
        };
        if standing == Standing::ToBeAsked {
            self.link.look_again().await;
        }
        let Some(last) = page.records.iter().max_by_key(|record| record.sequence) else { return Ok(()) };
        let (epoch, is_confirmed) = (page.extent.epoch, |at| self.confirmed.reaches(page.extent.epoch, at));
        if is_confirmed(last.sequence) || is_alone && standing == Standing::Certain {
            return Ok(());
        } else if is_alone {
            return Err(StoreError::Unconfirmed);
        }
        let event = match &last.what {
            What::Change(change) => &change.1.event_id,
            What::Forgotten => "",
        };
        let began = Instant::now();
        let mut waiting = self.confirmed.waiting.lock().await;
        let (wire, failed_at) = &mut *waiting;
        // Whoever was waited for meanwhile was waited for by all.
        if is_confirmed(last.sequence) {
            return Ok(());
        }
        if failed_at.is_some_and(|at| at >= began) {
            return Err(StoreError::Unconfirmed);
        }
        let beat = Arguments::default().with(epoch.to_string()).number(last.sequence).with(event);
        match self.wait(wire, &beat).await {
            Ok(Some(sequence)) => {
                let upto = Some(Cursor { epoch, sequence });
                *self.confirmed.upto.lock().unwrap_or_else(PoisonError::into_inner) = upto;
                return Ok(());
            }
            // It may lead to a server that was replaced.
            Ok(None) => *wire = None,
            Err(error) => {
                tracing::debug!(%error, "the server's replicas cannot be waited for");
                *wire = None;
            }
        }
        *failed_at = Some(Instant::now());
        Err(StoreError::Unconfirmed)
    }

    /// How far the log reaches that a replica has; `None`: it took too long, or what was read is not there.
    async fn wait(&self, wire: &mut Option<Wire>, beat: &Arguments) -> Result<Option<u64>, StoreError> {
        let wire = match wire {
            Some(wire) => wire,
            None => wire.insert(self.link.connect(WAIT + ANSWER).await?),
        };
        let before = wire.identity(&self.meta).await?;
        let beat = self.with_seen(beat);
        let sequence = match wire.send(&self.scripts.beat.by_digest(&self.meta, &beat)).await {
            Err(error) if error.code() == Some("NOSCRIPT") => {
                wire.send(&self.scripts.beat.in_full(&self.meta, &beat)).await?
            }
            answer => answer?,
        };
        let sequence: u64 = number(sequence)?;
        if sequence == 0 {
            return Ok(None);
        }
        let mut wait = redis::cmd("WAIT");
        wait.arg(1).arg(WAIT_MILLIS);
        let replicas: u64 = number(wire.send_to_node_of(&self.meta, wait).await?)?;
        let is_same = wire.identity(&self.meta).await? == before;
        Ok((replicas > 0 && is_same).then_some(sequence))
    }
}

impl Wire {
    /// What the server calls this connection. A cluster's may be replaced unnoticed, and a new one waits for nothing that came
    /// before it.
    async fn identity(&mut self, key: &str) -> Result<Value, StoreError> {
        if !self.is_replaced_unnoticed() {
            return Ok(Value::Nil);
        }
        let mut ask = redis::cmd("CLIENT");
        ask.arg("ID");
        Ok(self.send_to_node_of(key, ask).await?)
    }
}
