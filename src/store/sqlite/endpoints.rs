//! Webhook endpoints and their deliveries.

use bytes::Bytes;
use rusqlite::{Connection, Row, params};

use super::rows::{rows_at_most, subject};
use crate::clock::Timestamp;
use crate::store::{Delivery, Endpoint, Kept, Known, Progress, Put, Standing, StoreError};

/// There are few of them, and no id is empty.
const LIST: &str = "SELECT id, record, standing FROM endpoints WHERE id > '' ORDER BY id";

const KEPT: &str = "SELECT count(*) FROM deliveries WHERE endpoint = ?1 AND dead = ?2";

const COUNT: &str = "SELECT count(*) FROM endpoints WHERE id > ''";

const CHANGE: &str = "UPDATE endpoints SET record = ?2 WHERE id = ?1";

const MAKE: &str = "INSERT INTO endpoints VALUES (?1, ?2, ?3)";

const DROP: &str = "DELETE FROM endpoints WHERE id = ?1";

const DROP_DELIVERIES: &str = "DELETE FROM deliveries WHERE endpoint = ?1";

const DELIVERIES: &str =
    "SELECT sequence, event_id, device, jid, attempts, first_at, due_at, dead, json, noticed_at FROM deliveries
    WHERE endpoint = ?1 AND dead = ?2 AND sequence > ?3 ORDER BY sequence LIMIT ?4";

const STAND: &str = "UPDATE endpoints SET standing = ?2 WHERE id = ?1";

/// What is in neither the log nor here was forgotten meanwhile; the news of a gap is nobody's.
const KEEP: &str =
    "INSERT INTO deliveries (endpoint, sequence, event_id, device, jid, attempts, first_at, due_at, dead, json, noticed_at)
    SELECT ?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11
    WHERE ?4 IS NULL OR EXISTS (SELECT 1 FROM log WHERE event_id = ?3)
        OR EXISTS (SELECT 1 FROM deliveries WHERE endpoint = ?1 AND sequence = ?2)
    ON CONFLICT (endpoint, sequence) DO UPDATE SET attempts = excluded.attempts, first_at = excluded.first_at,
        due_at = excluded.due_at, dead = excluded.dead";

const END: &str = "DELETE FROM deliveries WHERE endpoint = ?1 AND sequence = ?2";

const REVIVE: &str = "UPDATE deliveries SET dead = 0, attempts = 0, first_at = NULL, due_at = ?3
    WHERE endpoint = ?1 AND dead = 1 AND sequence > ?2";

const TRIM_DEAD: &str = "DELETE FROM deliveries WHERE (endpoint, sequence) IN
        (SELECT endpoint, sequence FROM deliveries WHERE dead = 1 AND noticed_at < ?1 ORDER BY noticed_at LIMIT ?2)
    RETURNING endpoint";

const ERASE: &str = "DELETE FROM deliveries WHERE device = ?1 AND jid = ?2";

/// Every device that deliveries are about: one step in the index for each, however many deliveries there are.
const DEVICES: &str = "WITH RECURSIVE step (device) AS (
        SELECT min(device) FROM deliveries WHERE device IS NOT NULL
        UNION ALL
        SELECT (SELECT min(device) FROM deliveries WHERE device > step.device) FROM step WHERE step.device IS NOT NULL)
    SELECT device FROM step WHERE device IS NOT NULL";

#[cfg(test)]
pub(super) const STATEMENTS: [&str; 15] = [
    LIST,
    KEPT,
    COUNT,
    CHANGE,
    MAKE,
    DROP,
    DROP_DELIVERIES,
    DELIVERIES,
    STAND,
    KEEP,
    END,
    REVIVE,
    TRIM_DEAD,
    ERASE,
    DEVICES,
];

/// Runs in one transaction, so that what is counted fits what is listed.
pub(super) fn list(connection: &Connection) -> Result<Vec<Known>, StoreError> {
    let snapshot = connection.unchecked_transaction()?;
    let mut statement = snapshot.prepare_cached(LIST)?;
    let mut rows = statement.query([])?;
    let mut known = vec![];
    while let Some(row) = rows.next()? {
        let id: String = row.get(0)?;
        let kept = kept(&snapshot, &id)?;
        match read(id, row) {
            Ok((endpoint, standing)) => known.push(Known { endpoint, standing, kept }),
            // One that cannot be read is left as it is, and spoils nothing else.
            Err(error) => tracing::warn!(%error, "a webhook endpoint is passed over"),
        }
    }
    Ok(known)
}

/// Outside of a transaction the two may be of different moments; whoever shows them does not mind.
pub(super) fn kept(connection: &Connection, id: &str) -> Result<Kept, StoreError> {
    let mut statement = connection.prepare_cached(KEPT)?;
    let mut count = |dead| statement.query_row(params![id, dead], |row| row.get(0));
    Ok(Kept { pending: count(false)?, dead: count(true)? })
}

fn read(id: String, row: &Row<'_>) -> Result<(Endpoint, Standing), StoreError> {
    let blob = |column| row.get_ref(column)?.as_blob().map_err(rusqlite::Error::from);
    Ok((Endpoint::decode(id, blob(1)?)?, Standing::decode(blob(2)?)?))
}

pub(super) fn put(connection: &Connection, endpoint: &Endpoint, new: &Standing, limit: u64) -> Result<Put, StoreError> {
    let record = endpoint.encode();
    if connection.prepare_cached(CHANGE)?.execute(params![endpoint.id, record])? > 0 {
        return Ok(Put::Done);
    }
    if connection.prepare_cached(COUNT)?.query_row([], |row| row.get::<_, u64>(0))? >= limit {
        return Ok(Put::TooMany);
    }
    connection.prepare_cached(MAKE)?.execute(params![endpoint.id, record, new.encode()])?;
    Ok(Put::Done)
}

pub(super) fn drop(connection: &Connection, id: &str) -> Result<bool, StoreError> {
    connection.prepare_cached(DROP_DELIVERIES)?.execute([id])?;
    Ok(connection.prepare_cached(DROP)?.execute([id])? > 0)
}

pub(super) fn deliveries(
    connection: &Connection,
    id: &str,
    dead: bool,
    after: u64,
    limit: usize,
) -> Result<Vec<Delivery>, StoreError> {
    let mut statement = connection.prepare_cached(DELIVERIES)?;
    let mut rows = statement.query(params![id, dead, after, rows_at_most(limit)])?;
    let mut deliveries = vec![];
    while let Some(row) = rows.next()? {
        deliveries.push(delivery(row)?);
    }
    Ok(deliveries)
}

fn delivery(row: &Row<'_>) -> Result<Delivery, StoreError> {
    let is_somebodys = row.get_ref(2)?.as_str_or_null().map_err(rusqlite::Error::from)?.is_some();
    Ok(Delivery {
        sequence: row.get(0)?,
        event_id: row.get(1)?,
        subject: is_somebodys.then(|| subject(row, 2)).transpose()?,
        attempts: row.get(4)?,
        first_at: row.get(5)?,
        due_at: row.get(6)?,
        dead: row.get(7)?,
        json: Bytes::from(row.get::<_, Vec<u8>>(8)?),
        noticed_at: row.get(9)?,
    })
}

pub(super) fn progress(connection: &Connection, progress: &Progress) -> Result<(), StoreError> {
    let id = &progress.endpoint;
    if connection.prepare_cached(STAND)?.execute(params![id, progress.standing.encode()])? == 0 {
        return Ok(());
    }
    if let Some(becomes) = &progress.becomes {
        connection.prepare_cached(CHANGE)?.execute(params![id, becomes.encode()])?;
    }
    let mut statement = connection.prepare_cached(KEEP)?;
    for delivery in &progress.kept {
        let subject = delivery.subject.as_ref();
        statement.execute(params![
            id,
            delivery.sequence,
            delivery.event_id,
            subject.map(|subject| subject.device.as_str()),
            subject.map(|subject| subject.jid.to_string()),
            delivery.attempts,
            delivery.first_at,
            delivery.due_at,
            delivery.dead,
            &delivery.json[..],
            delivery.noticed_at,
        ])?;
    }
    let mut statement = connection.prepare_cached(END)?;
    for sequence in &progress.ended {
        statement.execute(params![id, sequence])?;
    }
    Ok(())
}

pub(super) fn revive(connection: &Connection, id: &str, after: u64, due: Timestamp) -> Result<u64, StoreError> {
    Ok(connection.prepare_cached(REVIVE)?.execute(params![id, after, due])? as u64)
}

pub(super) fn trim_dead(connection: &Connection, before: Timestamp, limit: usize) -> Result<Vec<String>, StoreError> {
    let mut statement = connection.prepare_cached(TRIM_DEAD)?;
    let endpoints = statement.query_map(params![before, rows_at_most(limit)], |row| row.get(0))?;
    Ok(endpoints.collect::<rusqlite::Result<_>>()?)
}

/// Takes out what would be delivered about somebody. Returns whether there was anything.
pub(super) fn erase(connection: &Connection, device: &str, jid: &str) -> rusqlite::Result<bool> {
    Ok(connection.prepare_cached(ERASE)?.execute([device, jid])? > 0)
}

/// Every device that deliveries are about.
pub(super) fn devices(connection: &Connection) -> Result<Vec<String>, StoreError> {
    let mut statement = connection.prepare_cached(DEVICES)?;
    Ok(statement.query_map([], |row| row.get(0))?.collect::<rusqlite::Result<_>>()?)
}
