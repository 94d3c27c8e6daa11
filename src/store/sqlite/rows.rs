//! Statements: what each call of the interface means in SQL.
//!
//! Every function runs on one of the engine's threads; those that write run inside the writer's transaction. No statement
//! scans a table: each finds its rows through a primary key or an index. Nothing here looks into a record. One that is damaged
//! counts as absent, so that the next look writes it anew; one of a newer program fails the calls about its key and no others.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicU64, Ordering};

use rusqlite::types::{FromSql, FromSqlResult, ToSqlOutput, ValueRef};
use rusqlite::{Connection, OptionalExtension, Row, ToSql, params};

use crate::change::{Change, Kind, State};
use crate::clock::Timestamp;
use crate::entry::Entry;
use crate::jid::{Device, Jid, Key, Subject, Variant};
use crate::outcome::{Reason, Token};
use crate::record::unless_damaged;
use crate::store::{Applied, DeviceRecord, Due, Held, Size, StoreError, Taken, Touch, Write};

const FIND: &str = "SELECT revision, state, requested, record
    FROM subjects LEFT JOIN entries ON entries.id = subjects.id * 4 + ?3 WHERE device = ?1 AND jid = ?2";

const SUBJECT: &str = "SELECT id, revision FROM subjects WHERE device = ?1 AND jid = ?2";

const MAKE_SUBJECT: &str = "INSERT INTO subjects (device, jid, revision, state) VALUES (?1, ?2, ?3, ?4)";

const SET_SUBJECT: &str = "UPDATE subjects SET revision = ?2, state = ?3 WHERE id = ?1";

const PUT_ENTRY: &str = "INSERT INTO entries (id, due, requested, record) VALUES (?1, ?2, ?3, ?4)
    ON CONFLICT (id) DO UPDATE SET due = excluded.due, record = excluded.record,
        requested = coalesce(max(requested, excluded.requested), requested, excluded.requested)";

const SIBLINGS_DUE: &str = "UPDATE entries SET due = min(coalesce(due, ?2), ?2)
    WHERE id BETWEEN (?1 & ~3) AND (?1 | 3) AND id <> ?1 AND record IS NOT NULL";

const ALSO_DUE: &str = "INSERT INTO entries (id, due) VALUES (?1, ?2)
    ON CONFLICT (id) DO UPDATE SET due = min(coalesce(due, excluded.due), excluded.due)";

const APPEND: &str = "INSERT INTO changes
    (device, jid, event_id, kind, reason, old_id, new_id, version, noticed_at, not_before)
    VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10) ON CONFLICT (event_id) DO NOTHING";

const DUE: &str = "SELECT entries.id, due, requested, record, device, jid
    FROM entries LEFT JOIN subjects ON subjects.id = entries.id >> 2 WHERE due <= ?1 ORDER BY due LIMIT ?2";

const SET_DUE: &str = "UPDATE entries SET due = ?2 WHERE id = ?1";

const NEXT_DUE: &str = "SELECT due FROM entries WHERE due IS NOT NULL ORDER BY due LIMIT 1";

const RESCHEDULE: &str = "UPDATE entries SET due = ?4
    WHERE id = (SELECT id * 4 + ?3 FROM subjects WHERE device = ?1 AND jid = ?2)";

const TOUCH: &str = "UPDATE entries SET requested = max(coalesce(requested, ?4), ?4), due = coalesce(due, ?5)
    WHERE id = (SELECT id * 4 + ?3 FROM subjects WHERE device = ?1 AND jid = ?2)";

const IDLE: &str = "SELECT id FROM entries WHERE idle_since < ?1 ORDER BY idle_since LIMIT ?2";

const DROP_ENTRY: &str = "DELETE FROM entries WHERE id = ?1";

const DROP_SUBJECT: &str = "DELETE FROM subjects
    WHERE id = ?1 AND NOT EXISTS (SELECT 1 FROM entries WHERE entries.id BETWEEN ?1 * 4 AND ?1 * 4 + 3)
    RETURNING device, jid";

const DEVICE: &str = "SELECT record FROM devices WHERE device = ?1";

const PUT_DEVICE: &str =
    "INSERT INTO devices VALUES (?1, ?2) ON CONFLICT (device) DO UPDATE SET record = excluded.record";

/// Takes new pages in the file as well as in its log. The table is there only while the disk is tried, or after a kill in that
/// moment, until it is tried again.
const FILL_ROOM: &str = "CREATE TABLE IF NOT EXISTS room (load BLOB);
    DELETE FROM room; INSERT INTO room VALUES (zeroblob(262144));";

const CLEAR_ROOM: &str = "DROP TABLE IF EXISTS room;";

const SIZE: &str = "SELECT entries, subjects, (SELECT count(*) FROM entries WHERE due <= ?1) FROM meta";

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
    let record = row.get_ref(3)?.as_blob_or_null().map_err(rusqlite::Error::from)?;
    let state = unless_damaged(State::decode(row.get_ref(1)?.as_blob().map_err(rusqlite::Error::from)?))?;
    let entry = record.map(Entry::decode).map(unless_damaged).transpose()?;
    Ok(Held {
        revision: row.get(0)?,
        requested_at: row.get(2)?,
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
}

impl Prepared {
    pub(super) fn new(write: Write) -> Self {
        Self { jid: write.key.subject.jid.to_string(), state: write.state.encode(), entry: write.entry.encode(), write }
    }
}

pub(super) fn apply(connection: &Connection, new: &Prepared, tokens: &AtomicU64) -> Result<Applied, StoreError> {
    let Prepared { write, jid, state, entry } = new;
    let device = write.key.subject.device.as_str();
    let present: Option<(i64, Token)> = connection
        .prepare_cached(SUBJECT)?
        .query_row(params![device, jid], |row| Ok((row.get(0)?, row.get(1)?)))
        .optional()?;
    if present.map_or(Token::default(), |(_, revision)| revision) != write.expected {
        return Ok(Applied::Conflict(Box::new(find(connection, &write.key)?)));
    }
    let end = next(tokens);
    let subject = if let Some((id, _)) = present {
        connection.prepare_cached(SET_SUBJECT)?.execute(params![id, end, state])?;
        id
    } else {
        connection.prepare_cached(MAKE_SUBJECT)?.insert(params![device, jid, end, state])?
    };
    let key = entry_id(subject, write.key.variant);
    connection.prepare_cached(PUT_ENTRY)?.execute(params![key, write.entry.due_at, write.requested_at, entry])?;
    if let Some(due) = write.siblings_due {
        connection.prepare_cached(SIBLINGS_DUE)?.execute(params![key, due])?;
    }
    if let Some((other, due)) = &write.also_due {
        connection.prepare_cached(ALSO_DUE)?.execute(params![entry_id(subject, other.variant), due])?;
    }
    if let Some(change) = &write.change {
        append(connection, device, jid, change)?;
    }
    Ok(Applied::Done(end))
}

fn append(connection: &Connection, device: &str, jid: &str, change: &Change) -> rusqlite::Result<()> {
    let kind = match change.kind {
        Kind::Set => "set",
        Kind::Changed => "changed",
        Kind::Removed => "removed",
    };
    connection.prepare_cached(APPEND)?.execute(params![
        device,
        jid,
        change.event_id,
        kind,
        change.reason.map(Reason::as_str),
        change.old_id,
        change.new_id,
        change.version,
        change.noticed_at,
        change.not_before,
    ])?;
    Ok(())
}

pub(super) fn take_due(
    connection: &Connection,
    now: Timestamp,
    lease: Timestamp,
    limit: usize,
) -> Result<Taken, StoreError> {
    let mut taken = Taken::default();
    let mut leases: Vec<(i64, Option<Timestamp>)> = Vec::new();
    let mut statement = connection.prepare_cached(DUE)?;
    let mut rows = statement.query(params![now, rows_at_most(limit)])?;
    while let Some(row) = rows.next()? {
        let id = row.get(0)?;
        match due(id, row) {
            Ok(due) => {
                leases.push((id, Some(lease)));
                taken.due.push(due);
            }
            // Nobody could look at it; left in the schedule, it would come up for ever.
            Err(error) => {
                tracing::warn!(%error, "a due entry is passed over from now on");
                leases.push((id, None));
            }
        }
    }
    let mut statement = connection.prepare_cached(SET_DUE)?;
    for lease in leases {
        statement.execute(lease)?;
    }
    taken.next = connection.prepare_cached(NEXT_DUE)?.query_row([], |row| row.get(0)).optional()?;
    Ok(taken)
}

fn due(id: i64, row: &Row<'_>) -> Result<Due, StoreError> {
    let record = row.get_ref(3)?.as_blob_or_null().map_err(rusqlite::Error::from)?;
    Ok(Due {
        key: Key { subject: subject(row, 4)?, variant: variant(id) },
        entry: record.map(Entry::decode).map(unless_damaged).transpose()?.flatten(),
        due_at: row.get(1)?,
        requested_at: row.get(2)?,
    })
}

pub(super) fn reschedule(connection: &Connection, keys: &[(Key, Option<Timestamp>)]) -> Result<(), StoreError> {
    let mut statement = connection.prepare_cached(RESCHEDULE)?;
    for (Key { subject, variant }, due) in keys {
        statement.execute(params![subject.device.as_str(), subject.jid.to_string(), variant.to_bits(), due])?;
    }
    Ok(())
}

pub(super) fn touch(connection: &Connection, touches: &[Touch]) -> Result<(), StoreError> {
    let mut statement = connection.prepare_cached(TOUCH)?;
    for Touch { key: Key { subject, variant }, at, due_at } in touches {
        statement.execute(params![subject.device.as_str(), subject.jid.to_string(), variant.to_bits(), at, due_at])?;
    }
    Ok(())
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
        Ok(Size { entries: row.get(0)?, subjects: row.get(1)?, backlog: row.get(2)?, bytes: 0 })
    })?;
    Ok(size)
}

fn entry_id(subject: i64, variant: Variant) -> i64 {
    subject << 2 | i64::from(variant.to_bits())
}

fn variant(entry: i64) -> Variant {
    Variant::from_bits(u8::try_from(entry & 3).unwrap_or_default())
}

/// Reads a subject from two columns, `device` and `jid`.
fn subject(row: &Row<'_>, first: usize) -> Result<Subject, StoreError> {
    let unreadable = |what: &str| StoreError::Unavailable(format!("a stored {what} cannot be read"));
    Ok(Subject {
        device: Device::new(row.get_ref(first)?.as_str().map_err(|_| unreadable("device"))?)
            .map_err(|_| unreadable("device"))?,
        jid: Jid::parse(row.get_ref(first + 1)?.as_str().map_err(|_| unreadable("address"))?)
            .map_err(|_| unreadable("address"))?,
    })
}

/// Writes what needs room on the disk; [`clear_room`] takes it back, in a transaction of its own: what is written and removed in
/// one never gets as far as the disk.
pub(super) fn fill_room(connection: &Connection) -> Result<(), StoreError> {
    Ok(connection.execute_batch(FILL_ROOM)?)
}

pub(super) fn clear_room(connection: &Connection) -> Result<(), StoreError> {
    Ok(connection.execute_batch(CLEAR_ROOM)?)
}

fn rows_at_most(limit: usize) -> i64 {
    i64::try_from(limit).unwrap_or(i64::MAX)
}

#[cfg(test)]
pub(super) const STATEMENTS: [&str; 19] = [
    FIND,
    SUBJECT,
    MAKE_SUBJECT,
    SET_SUBJECT,
    PUT_ENTRY,
    SIBLINGS_DUE,
    ALSO_DUE,
    APPEND,
    DUE,
    SET_DUE,
    NEXT_DUE,
    RESCHEDULE,
    TOUCH,
    IDLE,
    DROP_ENTRY,
    DROP_SUBJECT,
    DEVICE,
    PUT_DEVICE,
    SIZE,
];
