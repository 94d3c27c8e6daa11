//! Watches: a column of their subject, so that whoever reads a subject knows.

use rusqlite::{Connection, OptionalExtension as _, params};

use super::{forget, rows};
use crate::change::State;
use crate::clock::Timestamp;
use crate::jid::{Device, Jid, Subject};
use crate::store::{StoreError, Watch, Watched};

const COUNT: &str = "SELECT watches FROM meta";

const IS_WATCHED: &str = "SELECT id, watch IS NOT NULL FROM subjects WHERE device = ?1 AND jid = ?2";

const SET: &str = "UPDATE subjects SET watch = ?2, recheck_at = min(coalesce(recheck_at, ?3), ?3) WHERE id = ?1";

/// Who was never looked at comes after all whose turn has come.
const JOIN: &str = "UPDATE subjects SET rank = (SELECT virtual FROM lanes WHERE lanes.id = lane) WHERE id = ?1";

const END: &str = "UPDATE subjects SET watch = NULL WHERE device = ?1 AND jid = ?2 AND watch IS NOT NULL RETURNING id";

const LIST: &str = "SELECT device, jid, watch FROM subjects
    WHERE watch IS NOT NULL AND (device, jid) > (?1, ?2) ORDER BY device, jid LIMIT ?3";

const LIST_OF_DEVICE: &str = "SELECT device, jid, watch FROM subjects
    WHERE watch IS NOT NULL AND device = ?1 AND jid > ?2 ORDER BY jid LIMIT ?3";

#[cfg(test)]
pub(super) const STATEMENTS: [&str; 7] = [COUNT, IS_WATCHED, SET, JOIN, END, LIST, LIST_OF_DEVICE];

pub(super) fn watch(
    connection: &Connection,
    watch: &Watch,
    recheck_at: Timestamp,
    limit: u64,
) -> Result<Watched, StoreError> {
    let (device, jid) = (watch.subject.device.as_str(), watch.subject.jid.to_string());
    let held: Option<(i64, bool)> = connection
        .prepare_cached(IS_WATCHED)?
        .query_row(params![device, jid], |row| Ok((row.get(0)?, row.get(1)?)))
        .optional()?;
    if !held.is_some_and(|(_, watched)| watched)
        && connection.prepare_cached(COUNT)?.query_row([], |row| row.get::<_, u64>(0))? >= limit
    {
        return Ok(Watched::TooMany);
    }
    let id = if let Some((id, _)) = held {
        id
    } else {
        let (id, _) = rows::make_subject(connection, device, &jid, &State::default().encode())?;
        connection.prepare_cached(JOIN)?.execute([id])?;
        id
    };
    let interval = u64::try_from(watch.interval.as_millis()).unwrap_or(u64::MAX).min(i64::MAX as u64);
    connection.prepare_cached(SET)?.execute(params![id, interval, recheck_at])?;
    Ok(Watched::Done)
}

pub(super) fn unwatch(connection: &Connection, jid: &Jid, device: Option<&Device>) -> Result<bool, StoreError> {
    let devices = match device {
        Some(device) => vec![device.as_str().to_owned()],
        None => forget::with_subjects(connection)?,
    };
    let jid = jid.to_string();
    let mut ended = false;
    for device in devices {
        let id =
            connection.prepare_cached(END)?.query_row(params![device, jid], |row| row.get::<_, i64>(0)).optional()?;
        if let Some(id) = id {
            ended = true;
            // Who was never looked at has nothing to stay for.
            connection.prepare_cached(rows::DROP_SUBJECT)?.query([id])?.next()?;
        }
    }
    Ok(ended)
}

pub(super) fn watches(
    connection: &Connection,
    device: Option<&Device>,
    after: Option<&Subject>,
    limit: usize,
) -> Result<Vec<Watch>, StoreError> {
    // Nothing sorts before an empty device and an empty address, and neither belongs to anybody.
    let (after_device, after_jid) =
        after.map_or_else(Default::default, |after| (after.device.as_str(), after.jid.to_string()));
    let limit = rows::rows_at_most(limit);
    let mut statement = connection.prepare_cached(if device.is_some() { LIST_OF_DEVICE } else { LIST })?;
    let mut rows = statement.query(params![device.map_or(after_device, Device::as_str), after_jid, limit])?;
    let mut watches = Vec::new();
    while let Some(row) = rows.next()? {
        if let (subject, Some(interval)) = (rows::subject(row, 0)?, rows::interval(row, 2)?) {
            watches.push(Watch { subject, interval });
        }
    }
    Ok(watches)
}
