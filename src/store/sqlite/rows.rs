//! Statements: what each call of the interface means in SQL.
//!
//! Every function runs on one of the engine's threads; those that write run inside the writer's transaction. No statement
//! scans a table: each finds its rows through a primary key or an index. Nothing here looks into a record. One that is damaged
//! counts as absent, so that the next look writes it anew; one of a newer program fails the calls about its key and no others.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use rusqlite::types::{FromSql, FromSqlResult, ToSqlOutput, ValueRef};
use rusqlite::{Connection, OptionalExtension, Row, ToSql, params};

use super::forget::Forgotten;
use super::{log, schedule};
use crate::change::State;
use crate::clock::Timestamp;
use crate::entry::Entry;
use crate::jid::{Device, Jid, Key, Subject, Variant};
use crate::outcome::Token;
use crate::recheck::Outlook;
use crate::record::unless_damaged;
use crate::store::{Applied, DeviceRecord, Held, Size, StoreError, Write};

const FIND: &str = "SELECT revision, state, requested, record, watch, outlook, virtual
    FROM lanes LEFT JOIN subjects ON subjects.device = lanes.device AND jid = ?2
        LEFT JOIN entries ON entries.id = subjects.id * 4 + ?3 WHERE lanes.device = ?1";

pub(super) const SUBJECT: &str = "SELECT id, revision, lane FROM subjects WHERE device = ?1 AND jid = ?2";

const MAKE_SUBJECT: &str = "INSERT INTO subjects (device, jid, lane, revision, state) VALUES (?1, ?2, ?3, ?4, ?5)";

const SET_SUBJECT: &str = "UPDATE subjects
    SET revision = ?2, state = ?3, outlook = ?4, rank = ?5, recheck_at = ?6, ready = 0, recheck_before = NULL WHERE id = ?1";

const PUT_ENTRY: &str = "INSERT INTO entries (id, lane, due, requested, record) VALUES (?1, ?2, ?3, ?4, ?5)
    ON CONFLICT (id) DO UPDATE SET due = excluded.due, due_before = NULL, record = excluded.record,
        requested = coalesce(max(requested, excluded.requested), requested, excluded.requested)";

const SIBLINGS_DUE: &str = "UPDATE entries SET due = min(coalesce(due, ?2), ?2)
    WHERE id BETWEEN (?1 & ~3) AND (?1 | 3) AND id <> ?1 AND record IS NOT NULL";

const ALSO_DUE: &str = "INSERT INTO entries (id, lane, due) VALUES (?1, ?2, ?3)
    ON CONFLICT (id) DO UPDATE SET due = min(coalesce(due, excluded.due), excluded.due)";

const IDLE: &str = "SELECT id FROM entries WHERE watched = 0 AND idle_since < ?1 ORDER BY idle_since LIMIT ?2";

const DROP_ENTRY: &str = "DELETE FROM entries WHERE id = ?1";

pub(super) const DROP_SUBJECT: &str = "DELETE FROM subjects
    WHERE id = ?1 AND watch IS NULL AND NOT EXISTS (SELECT 1 FROM entries WHERE entries.id BETWEEN ?1 * 4 AND ?1 * 4 + 3)
    RETURNING device, jid";

const DEVICE: &str = "SELECT record FROM devices WHERE device = ?1";

const PUT_DEVICE: &str =
    "INSERT INTO devices VALUES (?1, ?2) ON CONFLICT (device) DO UPDATE SET record = excluded.record";

/// Takes new pages in the file as well as in its log. The table is there only while the disk is tried, or after a kill in that
/// moment, until it is tried again.
const FILL_ROOM: &str = "CREATE TABLE IF NOT EXISTS room (load BLOB);
    DELETE FROM room; INSERT INTO room VALUES (zeroblob(262144));";

const CLEAR_ROOM: &str = "DROP TABLE IF EXISTS room;";

const SIZE: &str = "SELECT entries, subjects, watches, logged,
    (SELECT coalesce(sum((SELECT count(*) FROM entries WHERE lane = lanes.id AND due <= ?1)), 0) FROM lanes),
    (SELECT appended_at FROM log WHERE sequence > trimmed ORDER BY sequence LIMIT 1) FROM meta";

impl From<rusqlite::Error> for StoreError {
    fn from(error: rusqlite::Error) -> Self {
        Self::Unavailable(error.to_string())
    }
}

impl ToSql for Timestamp {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        Ok(self.as_millis().into())
    }
}

impl FromSql for Timestamp {
    fn column_result(value: ValueRef<'_>) -> FromSqlResult<Self> {
        i64::column_result(value).map(Self::from_millis)
    }
}

impl ToSql for Token {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        self.0.to_sql()
    }
}

impl FromSql for Token {
    fn column_result(value: ValueRef<'_>) -> FromSqlResult<Self> {
        u64::column_result(value).map(Self)
    }
}

/// The next token: greater than every one handed out before.
pub(super) fn next(tokens: &AtomicU64) -> Token {
    Token(tokens.fetch_add(1, Ordering::SeqCst) + 1)
}

/// One statement, and so one snapshot.
pub(super) fn find(connection: &Connection, key: &Key) -> Result<Held, StoreError> {
    let Key { subject, variant } = key;
    let mut statement = connection.prepare_cached(FIND)?;
    let mut rows = statement.query(params![subject.device.as_str(), subject.jid.to_string(), variant.to_bits()])?;
    let Some(row) = rows.next()? else { return Ok(Held::default()) };
    let blob = |column| Ok::<_, StoreError>(row.get_ref(column)?.as_blob_or_null().map_err(rusqlite::Error::from)?);
    let virtual_now = row.get(6)?;
    let Some(state) = blob(1)? else { return Ok(Held { virtual_now, ..Held::default() }) };
    let state = unless_damaged(State::decode(state))?;
    let entry = blob(3)?.map(Entry::decode).map(unless_damaged).transpose()?;
    // Where one is damaged it begins anew, and nobody need know.
    let outlook = blob(5)?.map(Outlook::decode).map(unless_damaged).transpose()?.flatten();
    Ok(Held {
        revision: row.get(0)?,
        requested_at: row.get(2)?,
        watch: interval(row, 4)?,
        outlook,
        virtual_now,
        damaged: state.is_none() || matches!(entry, Some(None)),
        state: state.unwrap_or_default(),
        entry: entry.flatten(),
    })
}

/// A write with its records encoded, so that the writer's one thread need not do it.
pub(super) struct Prepared {
    write: Write,
    jid: String,
    state: Vec<u8>,
    entry: Vec<u8>,
    outlook: Vec<u8>,
}

impl Prepared {
    pub(super) fn new(write: Write) -> Self {
        Self {
            jid: write.key.subject.jid.to_string(),
            state: write.state.encode(),
            entry: write.entry.encode(),
            outlook: write.outlook.encode(),
            write,
        }
    }
}

pub(super) fn apply(
    connection: &Connection,
    new: &Prepared,
    tokens: &AtomicU64,
    forgotten: &Forgotten,
) -> Result<Applied, StoreError> {
    let Prepared { write, jid, state, entry, outlook } = new;
    let device = write.key.subject.device.as_str();
    if forgotten.since(&write.key.subject, write.start) {
        return Ok(Applied::Forgotten);
    }
    let present: Option<(i64, Token, i64)> = connection
        .prepare_cached(SUBJECT)?
        .query_row(params![device, jid], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))
        .optional()?;
    if present.map_or(Token::default(), |(_, revision, _)| revision) != write.expected {
        return Ok(Applied::Conflict(Box::new(find(connection, &write.key)?)));
    }
    let end = next(tokens);
    let (subject, lane) = match present {
        Some((id, _, lane)) => (id, lane),
        None => make_subject(connection, device, jid, state)?,
    };
    let values = params![subject, end, state, outlook, write.outlook.turn.rank, write.recheck_at];
    connection.prepare_cached(SET_SUBJECT)?.execute(values)?;
    let key = entry_id(subject, write.key.variant);
    let values = params![key, lane, write.entry.deadline(), write.requested_at, entry];
    connection.prepare_cached(PUT_ENTRY)?.execute(values)?;
    if let Some(due) = write.siblings_due {
        connection.prepare_cached(SIBLINGS_DUE)?.execute(params![key, due])?;
    }
    if let Some((other, due)) = &write.also_due {
        connection.prepare_cached(ALSO_DUE)?.execute(params![entry_id(subject, other.variant), lane, due])?;
    }
    if let Some(change) = &write.change {
        log::append(connection, device, jid, change)?;
    }
    Ok(Applied::Done(end))
}

/// Makes a subject that was never looked at, and says which it is and in which lane.
pub(super) fn make_subject(
    connection: &Connection,
    device: &str,
    jid: &str,
    state: &[u8],
) -> Result<(i64, i64), StoreError> {
    let lane = schedule::make_lane(connection, device)?;
    let values = params![device, jid, lane, Token::default(), state];
    Ok((connection.prepare_cached(MAKE_SUBJECT)?.insert(values)?, lane))
}

/// Reads a watch's interval.
pub(super) fn interval(row: &Row<'_>, column: usize) -> Result<Option<Duration>, StoreError> {
    Ok(row.get::<_, Option<u64>>(column)?.map(Duration::from_millis))
}

pub(super) fn forget_idle(
    connection: &Connection,
    before: Timestamp,
    limit: usize,
) -> Result<Vec<Subject>, StoreError> {
    let idle = connection
        .prepare_cached(IDLE)?
        .query_map(params![before, rows_at_most(limit)], |row| row.get(0))?
        .collect::<rusqlite::Result<Vec<i64>>>()?;
    let mut statement = connection.prepare_cached(DROP_ENTRY)?;
    for id in &idle {
        statement.execute([id])?;
    }
    let mut gone = Vec::new();
    let mut statement = connection.prepare_cached(DROP_SUBJECT)?;
    for id in idle.iter().map(|id| id >> 2).collect::<BTreeSet<_>>() {
        // A name that cannot be read is in nobody's memory either.
        for subject in statement.query_map([id], |row| Ok(subject(row, 0)))? {
            gone.extend(subject?);
        }
    }
    Ok(gone)
}

pub(super) fn device(connection: &Connection, device: &Device) -> Result<Option<DeviceRecord>, StoreError> {
    let record: Option<Vec<u8>> =
        connection.prepare_cached(DEVICE)?.query_row([device.as_str()], |row| row.get(0)).optional()?;
    Ok(record.as_deref().map(DeviceRecord::decode).map(unless_damaged).transpose()?.flatten())
}

pub(super) fn put_device(connection: &Connection, device: &Device, record: DeviceRecord) -> Result<(), StoreError> {
    connection.prepare_cached(PUT_DEVICE)?.execute(params![device.as_str(), record.encode()])?;
    Ok(())
}

/// Sizes, but for the bytes.
pub(super) fn size(connection: &Connection, now: Timestamp) -> Result<Size, StoreError> {
    let size = connection.prepare_cached(SIZE)?.query_row([now], |row| {
        Ok(Size {
            entries: row.get(0)?,
            subjects: row.get(1)?,
            watches: row.get(2)?,
            logged: row.get(3)?,
            backlog: row.get(4)?,
            logged_since: row.get(5)?,
            bytes: 0,
        })
    })?;
    Ok(size)
}

pub(super) fn entry_id(subject: i64, variant: Variant) -> i64 {
    subject << 2 | i64::from(variant.to_bits())
}

pub(super) fn variant(entry: i64) -> Variant {
    Variant::from_bits(u8::try_from(entry & 3).unwrap_or_default())
}

fn unreadable(what: &str) -> StoreError {
    StoreError::Unavailable(format!("a stored {what} cannot be read"))
}

/// Reads a device's name.
pub(super) fn device_name(row: &Row<'_>, column: usize) -> Result<Device, StoreError> {
    let name = row.get_ref(column)?.as_str().map_err(|_| unreadable("device"))?;
    Device::new(name).map_err(|_| unreadable("device"))
}

/// Reads a subject from two columns, `device` and `jid`.
pub(super) fn subject(row: &Row<'_>, first: usize) -> Result<Subject, StoreError> {
    let jid = row.get_ref(first + 1)?.as_str().map_err(|_| unreadable("address"))?;
    Ok(Subject { device: device_name(row, first)?, jid: Jid::parse(jid).map_err(|_| unreadable("address"))? })
}

/// Writes what needs room on the disk; [`clear_room`] takes it back, in a transaction of its own: what is written and removed in
/// one never gets as far as the disk.
pub(super) fn fill_room(connection: &Connection) -> Result<(), StoreError> {
    Ok(connection.execute_batch(FILL_ROOM)?)
}

pub(super) fn clear_room(connection: &Connection) -> Result<(), StoreError> {
    Ok(connection.execute_batch(CLEAR_ROOM)?)
}

pub(super) fn rows_at_most(limit: usize) -> i64 {
    i64::try_from(limit).unwrap_or(i64::MAX)
}

#[cfg(test)]
pub(super) const STATEMENTS: [&str; 13] = [
    FIND,
    SUBJECT,
    MAKE_SUBJECT,
    SET_SUBJECT,
    PUT_ENTRY,
    SIBLINGS_DUE,
    ALSO_DUE,
    IDLE,
    DROP_ENTRY,
    DROP_SUBJECT,
    DEVICE,
    PUT_DEVICE,
    SIZE,
];
