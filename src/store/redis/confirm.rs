//! Confirmed before announced: where the server has replicas, what is read of the log is handed out only when one of them has it.
//!
//! Otherwise a primary that dies could take along what subscribers were told already. A heartbeat is written behind what was read,
//! on a connection of its own, and waited for there (`WAIT` counts for all that came before it). The heartbeat also sees that what
//! was read is still there: it may have been read from a primary that another has replaced since. Of several replicas one is enough:
//! Sentinels and clusters promote the one that has the most.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use redis::Value;
use tokio::time::Instant;

use super::Shared;
use super::link::{ANSWER, Wire};
use super::reply::number;
use super::scripts::Arguments;
use crate::cursor::{Cursor, Epoch};
use crate::store::{Page, StoreError, What};

/// For how long a replica is waited for at a time.
const WAIT: Duration = Duration::from_millis(WAIT_MILLIS);

/// The same, as it is asked for.
const WAIT_MILLIS: u64 = 1000;

/// What replicas have confirmed.
#[derive(Default)]
pub(super) struct Confirmed {
    upto: Mutex<Option<Cursor>>,
    /// Held while somebody waits: the connection for it, and when waiting was in vain.
    waiting: tokio::sync::Mutex<(Option<Wire>, Option<Instant>)>,
}

impl Confirmed {
    fn reaches(&self, epoch: Epoch, sequence: u64) -> bool {
        let upto = *self.upto.lock().unwrap_or_else(PoisonError::into_inner);
        upto.is_some_and(|upto| upto.epoch == epoch && upto.sequence >= sequence)
    }
}

impl Shared {
    /// Waits until what was read from a server with so many replicas is on one of them.
    pub(super) async fn confirm(&self, page: &Page, replicas: u64) -> Result<(), StoreError> {
        let Some(last) = page.records.iter().max_by_key(|record| record.sequence) else { return Ok(()) };
        let (epoch, is_confirmed) = (page.extent.epoch, |at| self.confirmed.reaches(page.extent.epoch, at));
        if replicas == 0 || is_confirmed(last.sequence) {
            return Ok(());
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
            Ok(None) => {}
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
