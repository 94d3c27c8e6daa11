//! Forgetting: every row about somebody goes, and looks that were under way cannot bring any back.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use rusqlite::{Connection, OptionalExtension as _, params};

use super::{endpoints, log, rows};
use crate::clock::Timestamp;
use crate::jid::{Device, Jid, Subject};
use crate::outcome::Token;
use crate::store::StoreError;

const DROP_ENTRIES: &str = "DELETE FROM entries WHERE id BETWEEN ?1 * 4 AND ?1 * 4 + 3";

const DROP_STATE: &str = "DELETE FROM subjects WHERE id = ?1";

/// Every device with a subject: one step in the index for each, however many subjects there are.
const DEVICES: &str = "WITH RECURSIVE step (device) AS (
        SELECT min(device) FROM subjects
        UNION ALL
        SELECT (SELECT min(device) FROM subjects WHERE device > step.device) FROM step WHERE step.device IS NOT NULL)
    SELECT device FROM step WHERE device IS NOT NULL";

#[cfg(test)]
pub(super) const STATEMENTS: [&str; 3] = [DROP_ENTRIES, DROP_STATE, DEVICES];

/// For how long a look may be under way at the most, with a wide margin. A look does not outlive its process, so memory is the
/// place to remember this, and as short as possible.
const LONGEST_LOOK: Duration = Duration::from_secs(600);

/// Who was forgotten lately.
#[derive(Default)]
pub(super) struct Forgotten(Mutex<HashMap<Whom, (Token, Instant)>>);

/// Somebody as one device sees them, or (`None`) as all do.
type Whom = (Option<Device>, Jid);

impl Forgotten {
    fn note(&self, jid: &Jid, device: Option<&Device>, token: Token) {
        let mut noted = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        noted.retain(|_, (_, at)| at.elapsed() < LONGEST_LOOK);
        noted.insert((device.cloned(), *jid), (token, Instant::now()));
    }

    /// Whether a subject was forgotten after a look at it started.
    pub(super) fn since(&self, subject: &Subject, start: Token) -> bool {
        let noted = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if noted.is_empty() {
            return false;
        }
        let after = |device| noted.get(&(device, subject.jid)).is_some_and(|(token, _)| start < *token);
        after(None) || after(Some(subject.device.clone()))
    }
}

/// Forgets a person or group, as one device or all see them. `token` is later than that of every look under way.
pub(super) fn forget(
    connection: &Connection,
    jid: &Jid,
    device: Option<&Device>,
    token: Token,
    at: Timestamp,
    forgotten: &Forgotten,
) -> Result<bool, StoreError> {
    // Whatever becomes of the transaction: a look that is turned away for nothing is made again.
    forgotten.note(jid, device, token);
    let jid = jid.to_string();
    let mut held = false;
    for device in holders(connection, device)? {
        let id: Option<i64> =
            connection.prepare_cached(rows::SUBJECT)?.query_row(params![device, jid], |row| row.get(0)).optional()?;
        if let Some(id) = id {
            connection.prepare_cached(DROP_ENTRIES)?.execute([id])?;
            connection.prepare_cached(DROP_STATE)?.execute([id])?;
        }
        held |= log::erase(connection, &device, &jid)? | endpoints::erase(connection, &device, &jid)? | id.is_some();
    }
    if held {
        log::append_forgotten(connection, at)?;
    }
    Ok(held)
}

/// The devices that may hold something: this one, or every one with a subject, a record in the log or a delivery.
fn holders(connection: &Connection, device: Option<&Device>) -> Result<Vec<String>, StoreError> {
    if let Some(device) = device {
        return Ok(vec![device.as_str().to_owned()]);
    }
    let mut devices = with_subjects(connection)?;
    devices.extend(log::devices(connection)?);
    devices.extend(endpoints::devices(connection)?);
    devices.sort();
    devices.dedup();
    Ok(devices)
}

/// Every device with a subject.
pub(super) fn with_subjects(connection: &Connection) -> Result<Vec<String>, StoreError> {
    let mut statement = connection.prepare_cached(DEVICES)?;
    Ok(statement.query_map([], |row| row.get(0))?.collect::<rusqlite::Result<_>>()?)
}
