//! The change log's statements.

use std::str::FromStr as _;

use rusqlite::{Connection, OptionalExtension as _, Row, params};

use super::rows::{rows_at_most, subject};
use crate::change::{Change, Kind};
use crate::clock::Timestamp;
use crate::cursor::Epoch;
use crate::jid::{Device, Jid};
use crate::outcome::Reason;
use crate::store::{Extent, Page, Record, StoreError, What};

const APPEND: &str = "INSERT INTO log
    (kind, appended_at, device, jid, event_id, reason, old_id, new_id, version, not_before)
    VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10) ON CONFLICT (event_id) DO NOTHING";

const APPEND_FORGOTTEN: &str = "INSERT INTO log (kind, appended_at) VALUES ('forgotten', ?1)";

const EXTENT: &str =
    "SELECT epoch, trimmed, coalesce((SELECT seq FROM sqlite_sequence WHERE name = 'log'), 0) FROM meta";

const LAST: &str = "SELECT seq FROM sqlite_sequence WHERE name = 'log'";

const READ: &str =
    "SELECT sequence, kind, appended_at, device, jid, event_id, reason, old_id, new_id, version, not_before
    FROM log WHERE sequence > ?1 ORDER BY sequence LIMIT ?2";

const HISTORY: &str =
    "SELECT sequence, kind, appended_at, device, jid, event_id, reason, old_id, new_id, version, not_before
    FROM log WHERE device = ?1 AND jid = ?2 AND sequence < ?3 ORDER BY sequence DESC LIMIT ?4";

/// Every device in the log: one step in the index for each, however many records there are.
const DEVICES: &str = "WITH RECURSIVE step (device) AS (
        SELECT min(device) FROM log WHERE device IS NOT NULL
        UNION ALL
        SELECT (SELECT min(device) FROM log WHERE device > step.device) FROM step WHERE step.device IS NOT NULL)
    SELECT device FROM step WHERE device IS NOT NULL";

const OLDEST: &str = "SELECT sequence, appended_at FROM log WHERE sequence > 0 ORDER BY sequence LIMIT ?1";

const TRIM: &str = "DELETE FROM log WHERE sequence <= ?1";

const SET_TRIMMED: &str = "UPDATE meta SET trimmed = ?1";

const ERASE: &str = "DELETE FROM log WHERE device = ?1 AND jid = ?2";

#[cfg(test)]
pub(super) const STATEMENTS: [&str; 10] =
    [APPEND, APPEND_FORGOTTEN, EXTENT, LAST, READ, HISTORY, DEVICES, OLDEST, TRIM, ERASE];

pub(super) fn append(connection: &Connection, device: &str, jid: &str, change: &Change) -> rusqlite::Result<()> {
    connection.prepare_cached(APPEND)?.execute(params![
        change.kind.as_str(),
        change.noticed_at,
        device,
        jid,
        change.event_id,
        change.reason.map(Reason::as_str),
        change.old_id,
        change.new_id,
        change.version,
        change.not_before,
    ])?;
    Ok(())
}

pub(super) fn append_forgotten(connection: &Connection, at: Timestamp) -> rusqlite::Result<()> {
    connection.prepare_cached(APPEND_FORGOTTEN)?.execute([at]).map(drop)
}

/// The last sequence given; 0 when there was none.
pub(super) fn last(connection: &Connection) -> rusqlite::Result<u64> {
    Ok(connection.prepare_cached(LAST)?.query_row([], |row| row.get(0)).optional()?.unwrap_or_default())
}

fn extent(connection: &Connection) -> Result<Extent, StoreError> {
    let (epoch, trimmed, last): (String, u64, u64) =
        connection.prepare_cached(EXTENT)?.query_row([], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))?;
    let epoch = Epoch::from_str(&epoch).map_err(|_| unreadable("epoch"))?;
    Ok(Extent { epoch, trimmed, last, former: None })
}

/// Runs in one transaction, so that what is read fits the extent.
pub(super) fn read(connection: &Connection, after: u64, limit: usize) -> Result<Page, StoreError> {
    let snapshot = connection.unchecked_transaction()?;
    let extent = extent(&snapshot)?;
    let records = records(&snapshot, READ, params![after, rows_at_most(limit)])?;
    Ok(Page { extent, records })
}

pub(super) fn history(
    connection: &Connection,
    jid: &Jid,
    device: Option<&Device>,
    before: u64,
    limit: usize,
) -> Result<Page, StoreError> {
    let snapshot = connection.unchecked_transaction()?;
    let (extent, jid) = (extent(&snapshot)?, jid.to_string());
    // What SQLite counts with.
    let before = before.min(i64::MAX as u64);
    let mut all = Vec::new();
    for device in device.map_or_else(|| devices(&snapshot), |device| Ok(vec![device.as_str().to_owned()]))? {
        all.extend(records(&snapshot, HISTORY, params![device, jid, before, rows_at_most(limit)])?);
    }
    all.sort_by_key(|record| std::cmp::Reverse(record.sequence));
    all.truncate(limit);
    Ok(Page { extent, records: all })
}

pub(super) fn trim(connection: &Connection, before: Timestamp, limit: usize) -> Result<usize, StoreError> {
    let mut statement = connection.prepare_cached(OLDEST)?;
    let mut rows = statement.query([rows_at_most(limit)])?;
    let mut last = None;
    while let Some(row) = rows.next()? {
        if row.get::<_, Timestamp>(1)? >= before {
            break;
        }
        last = Some(row.get::<_, i64>(0)?);
    }
    drop(rows);
    let Some(last) = last else { return Ok(0) };
    let trimmed = connection.prepare_cached(TRIM)?.execute([last])?;
    connection.prepare_cached(SET_TRIMMED)?.execute([last])?;
    Ok(trimmed)
}

/// Takes a subject's records out. Returns whether there were any.
pub(super) fn erase(connection: &Connection, device: &str, jid: &str) -> rusqlite::Result<bool> {
    Ok(connection.prepare_cached(ERASE)?.execute([device, jid])? > 0)
}

/// Every device that the log tells of.
pub(super) fn devices(connection: &Connection) -> Result<Vec<String>, StoreError> {
    let mut statement = connection.prepare_cached(DEVICES)?;
    Ok(statement.query_map([], |row| row.get(0))?.collect::<rusqlite::Result<_>>()?)
}

fn records(connection: &Connection, statement: &str, bounds: impl rusqlite::Params) -> Result<Vec<Record>, StoreError> {
    let mut statement = connection.prepare_cached(statement)?;
    let mut rows = statement.query(bounds)?;
    let mut records = Vec::new();
    while let Some(row) = rows.next()? {
        let sequence = row.get(0)?;
        match what(row) {
            Ok(what) => records.push(Record { sequence, at: row.get(2)?, what }),
            // Whoever follows the log must get past it.
            Err(error) => tracing::warn!(sequence, %error, "a record of the change log is passed over"),
        }
    }
    Ok(records)
}

fn what(row: &Row<'_>) -> Result<What, StoreError> {
    let text = |column| row.get_ref(column).ok().and_then(|value| value.as_str().ok()).unwrap_or_default();
    let kind = match text(1) {
        "forgotten" => return Ok(What::Forgotten),
        word => Kind::ALL.into_iter().find(|kind| kind.as_str() == word).ok_or_else(|| unreadable("kind of change"))?,
    };
    let change = Change {
        kind,
        noticed_at: row.get(2)?,
        event_id: row.get(5)?,
        reason: Reason::ALL.into_iter().find(|reason| reason.as_str() == text(6)),
        old_id: row.get(7)?,
        new_id: row.get(8)?,
        version: row.get(9)?,
        not_before: row.get(10)?,
    };
    Ok(What::Change(Box::new((subject(row, 3)?, change))))
}

fn unreadable(what: &str) -> StoreError {
    StoreError::Unavailable(format!("a stored {what} cannot be read"))
}
