//! Deadlines and rechecks: two queues for each device, which has a row of its own, its lane.
//!
//! Nothing is read beyond the first rows of an index, however many there are.

use rusqlite::{Connection, OptionalExtension as _, Row, params};

use super::rows::{self, interval, subject};
use crate::clock::Timestamp;
use crate::entry::Entry;
use crate::jid::{Device, Key, Subject};
use crate::outcome::Token;
use crate::recheck::{Lessons, Outlook};
use crate::record::unless_damaged;
use crate::store::{Agenda, Candidate, Deadline, Due, Outlay, Picture, StoreError, Touch};

const AGENDA: &str = "SELECT device,
    (SELECT due FROM entries WHERE lane = lanes.id AND due IS NOT NULL ORDER BY due LIMIT 1),
    coalesce(
        (SELECT recheck_at FROM subjects WHERE lane = lanes.id AND ready = 1 ORDER BY rank LIMIT 1),
        (SELECT recheck_at FROM subjects WHERE lane = lanes.id AND recheck_at IS NOT NULL AND ready = 0
            ORDER BY recheck_at LIMIT 1))
    FROM lanes";

const LANE: &str = "SELECT id, rechecks FROM lanes WHERE device = ?1";

const MAKE_LANE: &str = "INSERT INTO lanes (device) VALUES (?1) ON CONFLICT (device) DO NOTHING";

const DUE: &str = "SELECT entries.id, due, requested, record, device, jid, watch
    FROM entries LEFT JOIN subjects ON subjects.id = entries.id >> 2
    WHERE entries.lane = ?1 AND due <= ?2 ORDER BY due LIMIT ?3";

const LEASE: &str =
    "UPDATE entries SET due = ?2, due_before = iif(?2 IS NULL, NULL, coalesce(due_before, due)) WHERE id = ?1";

const END_LEASES: &str = "UPDATE entries SET due = due_before, due_before = NULL WHERE due_before IS NOT NULL";

const PROMOTE: &str = "UPDATE subjects SET ready = 1 WHERE id IN
    (SELECT id FROM subjects WHERE lane = ?1 AND ready = 0 AND recheck_at <= ?2 ORDER BY recheck_at LIMIT ?3)";

const READY: &str =
    "SELECT id, device, jid, watch, rank FROM subjects WHERE lane = ?1 AND ready = 1 ORDER BY rank LIMIT ?2";

const PICTURES: &str = "SELECT id, requested, record FROM entries WHERE id BETWEEN ?1 * 4 AND ?1 * 4 + 3";

const LEASE_SUBJECT: &str = "UPDATE subjects
    SET recheck_at = ?2, ready = 0, recheck_before = iif(?2 IS NULL, NULL, coalesce(recheck_before, recheck_at))
    WHERE id = ?1";

const END_SUBJECTS_LEASES: &str =
    "UPDATE subjects SET recheck_at = recheck_before, recheck_before = NULL WHERE recheck_before IS NOT NULL";

const MOVE_ON: &str = "UPDATE lanes SET virtual = max(virtual, ?2) WHERE id = ?1";

const DEADLINES: &str = "SELECT due, id FROM entries WHERE lane = ?1 AND due IS NOT NULL ORDER BY due LIMIT ?2";

const REQUESTED: &str = "SELECT requested FROM entries WHERE id = ?1";

const RESCHEDULE: &str = "UPDATE entries SET due = ?4, due_before = NULL
    WHERE id = (SELECT id * 4 + ?3 FROM subjects WHERE device = ?1 AND jid = ?2)";

const DEFER: &str = "UPDATE subjects SET recheck_at = ?3, ready = 0, recheck_before = NULL
    WHERE device = ?1 AND jid = ?2";

const ADVANCE: &str = "UPDATE subjects SET rank = ?4, outlook = ?5, recheck_at = min(recheck_at, ?6)
    WHERE device = ?1 AND jid = ?2 AND revision = ?3";

const TOUCH: &str =
    "UPDATE entries SET requested = max(coalesce(requested, ?2), ?2), due = coalesce(due, ?3) WHERE id = ?1";

const WAKE: &str = "UPDATE subjects SET recheck_at = ?2 WHERE id = ?1 AND recheck_at IS NULL";

const LESSONS: &str = "SELECT lessons FROM meta";

const PUT_LESSONS: &str = "UPDATE meta SET lessons = ?1";

#[cfg(test)]
pub(super) const STATEMENTS: [&str; 21] = [
    AGENDA,
    LANE,
    MAKE_LANE,
    DUE,
    LEASE,
    END_LEASES,
    PROMOTE,
    READY,
    PICTURES,
    LEASE_SUBJECT,
    END_SUBJECTS_LEASES,
    MOVE_ON,
    DEADLINES,
    REQUESTED,
    RESCHEDULE,
    DEFER,
    ADVANCE,
    TOUCH,
    WAKE,
    LESSONS,
    PUT_LESSONS,
];

/// How many may become ready at once: a bound on how long one call keeps everybody else waiting. There are only so many where
/// nobody was looked at for long, and who waited longest is among them.
const PROMOTED_MAX: i64 = 1000;

/// Gives back what the process before this one had in hand.
pub(super) fn end_leases(connection: &Connection) -> rusqlite::Result<()> {
    connection.execute(END_LEASES, [])?;
    connection.execute(END_SUBJECTS_LEASES, []).map(drop)
}

pub(super) fn agenda(connection: &Connection) -> Result<Vec<Agenda>, StoreError> {
    let mut statement = connection.prepare_cached(AGENDA)?;
    let mut rows = statement.query([])?;
    let mut agenda = Vec::new();
    while let Some(row) = rows.next()? {
        let device = rows::device_name(row, 0)?;
        let (due_at, recheck_at): (Option<Timestamp>, Option<Timestamp>) = (row.get(1)?, row.get(2)?);
        if due_at.is_some() || recheck_at.is_some() {
            agenda.push(Agenda { device, due_at, recheck_at });
        }
    }
    Ok(agenda)
}

/// A device's lane and how many subjects it rechecks, if it has one.
fn lane(connection: &Connection, device: &Device) -> Result<Option<(i64, u64)>, StoreError> {
    let mut statement = connection.prepare_cached(LANE)?;
    Ok(statement.query_row([device.as_str()], |row| Ok((row.get(0)?, row.get(1)?))).optional()?)
}

/// A device's lane; makes it if there is none.
pub(super) fn make_lane(connection: &Connection, device: &str) -> Result<i64, StoreError> {
    connection.prepare_cached(MAKE_LANE)?.execute([device])?;
    Ok(connection.prepare_cached(LANE)?.query_row([device], |row| row.get(0))?)
}

pub(super) fn take_due(
    connection: &Connection,
    device: &Device,
    until: Timestamp,
    lease: Timestamp,
    limit: usize,
) -> Result<Vec<Due>, StoreError> {
    let Some((lane, _)) = lane(connection, device)? else { return Ok(Vec::new()) };
    let mut taken = Vec::new();
    let mut leases: Vec<(i64, Option<Timestamp>)> = Vec::new();
    let mut statement = connection.prepare_cached(DUE)?;
    let mut rows = statement.query(params![lane, until, rows::rows_at_most(limit)])?;
    while let Some(row) = rows.next()? {
        let id = row.get(0)?;
        match due(id, row) {
            Ok(due) => {
                leases.push((id, Some(lease)));
                taken.push(due);
            }
            // Nobody could look at it; left in the schedule, it would come up for ever.
            Err(error) => {
                tracing::warn!(%error, "a due entry is passed over from now on");
                leases.push((id, None));
            }
        }
    }
    let mut statement = connection.prepare_cached(LEASE)?;
    for lease in leases {
        statement.execute(lease)?;
    }
    Ok(taken)
}

fn due(id: i64, row: &Row<'_>) -> Result<Due, StoreError> {
    Ok(Due {
        key: Key { subject: subject(row, 4)?, variant: rows::variant(id) },
        entry: entry(row, 3)?,
        due_at: row.get(1)?,
        requested_at: row.get(2)?,
        watch: interval(row, 6)?,
    })
}

fn entry(row: &Row<'_>, column: usize) -> Result<Option<Entry>, StoreError> {
    let record = row.get_ref(column)?.as_blob_or_null().map_err(rusqlite::Error::from)?;
    Ok(record.map(Entry::decode).map(unless_damaged).transpose()?.flatten())
}

pub(super) fn take_rechecks(
    connection: &Connection,
    device: &Device,
    now: Timestamp,
    lease: Timestamp,
    limit: usize,
) -> Result<Vec<Candidate>, StoreError> {
    let Some((lane, _)) = lane(connection, device)? else { return Ok(Vec::new()) };
    connection.prepare_cached(PROMOTE)?.execute(params![lane, now, PROMOTED_MAX])?;
    let mut taken = Vec::new();
    let mut leases: Vec<(i64, Option<Timestamp>)> = Vec::new();
    let mut greatest: Option<f64> = None;
    let mut statement = connection.prepare_cached(READY)?;
    let mut rows = statement.query(params![lane, rows::rows_at_most(limit)])?;
    while let Some(row) = rows.next()? {
        let (id, rank) = (row.get(0)?, row.get(4)?);
        match candidate(connection, id, row) {
            Ok(candidate) => {
                leases.push((id, Some(lease)));
                taken.push(candidate);
            }
            Err(error) => {
                tracing::warn!(%error, "a subject is not rechecked from now on");
                leases.push((id, None));
            }
        }
        greatest = Some(greatest.map_or(rank, |greatest| greatest.max(rank)));
    }
    let mut statement = connection.prepare_cached(LEASE_SUBJECT)?;
    for lease in leases {
        statement.execute(lease)?;
    }
    if let Some(rank) = greatest {
        connection.prepare_cached(MOVE_ON)?.execute(params![lane, rank])?;
    }
    Ok(taken)
}

fn candidate(connection: &Connection, id: i64, row: &Row<'_>) -> Result<Candidate, StoreError> {
    let mut pictures = Vec::new();
    let mut statement = connection.prepare_cached(PICTURES)?;
    let mut rows = statement.query([id])?;
    while let Some(row) = rows.next()? {
        pictures.push(Picture {
            variant: rows::variant(row.get(0)?),
            requested_at: row.get(1)?,
            entry: entry(row, 2)?,
        });
    }
    Ok(Candidate { subject: subject(row, 1)?, watch: interval(row, 3)?, pictures })
}

pub(super) fn outlay(connection: &Connection, device: &Device, counts: &[usize]) -> Result<Outlay, StoreError> {
    let Some((lane, rechecks)) = lane(connection, device)? else { return Ok(Outlay::default()) };
    let mut outlay = Outlay { rechecks, deadlines: Vec::new() };
    // The index alone is read, but for the few that are asked for.
    let mut statement = connection.prepare_cached(DEADLINES)?;
    let mut requested = connection.prepare_cached(REQUESTED)?;
    let furthest = counts.iter().copied().max().unwrap_or_default();
    let mut rows = statement.query(params![lane, rows::rows_at_most(furthest)])?;
    let (mut passed, mut counts) = (0, counts.iter().copied().peekable());
    while let Some(row) = rows.next()? {
        passed += 1;
        if let Some(count) = counts.next_if_eq(&passed) {
            let requested_at = requested.query_row([row.get::<_, i64>(1)?], |row| row.get(0))?;
            outlay.deadlines.push(Deadline { count, due_at: row.get(0)?, requested_at });
        }
    }
    Ok(outlay)
}

pub(super) fn reschedule(connection: &Connection, keys: &[(Key, Option<Timestamp>)]) -> Result<(), StoreError> {
    let mut statement = connection.prepare_cached(RESCHEDULE)?;
    for (Key { subject, variant }, due) in keys {
        statement.execute(params![subject.device.as_str(), subject.jid.to_string(), variant.to_bits(), due])?;
    }
    Ok(())
}

pub(super) fn defer(connection: &Connection, subjects: &[(Subject, Option<Timestamp>)]) -> Result<(), StoreError> {
    let mut statement = connection.prepare_cached(DEFER)?;
    for (subject, recheck_at) in subjects {
        statement.execute(params![subject.device.as_str(), subject.jid.to_string(), recheck_at])?;
    }
    Ok(())
}

pub(super) fn advance(
    connection: &Connection,
    subject: &Subject,
    expected: Token,
    outlook: &Outlook,
    recheck_at: Timestamp,
) -> Result<(), StoreError> {
    let (device, jid) = (subject.device.as_str(), subject.jid.to_string());
    let values = params![device, jid, expected, outlook.turn.rank, outlook.encode(), recheck_at];
    connection.prepare_cached(ADVANCE)?.execute(values)?;
    Ok(())
}

pub(super) fn touch(connection: &Connection, touches: &[Touch]) -> Result<(), StoreError> {
    let mut whose = connection.prepare_cached(rows::SUBJECT)?;
    let (mut touch, mut wake) = (connection.prepare_cached(TOUCH)?, connection.prepare_cached(WAKE)?);
    for Touch { key: Key { subject, variant }, at, due_at, recheck_at } in touches {
        let values = params![subject.device.as_str(), subject.jid.to_string()];
        let Some(id) = whose.query_row(values, |row| row.get::<_, i64>(0)).optional()? else { continue };
        if touch.execute(params![rows::entry_id(id, *variant), at, due_at])? > 0 {
            wake.execute(params![id, recheck_at])?;
        }
    }
    Ok(())
}

pub(super) fn lessons(connection: &Connection) -> Result<Option<Lessons>, StoreError> {
    let record: Option<Vec<u8>> = connection.prepare_cached(LESSONS)?.query_row([], |row| row.get(0))?;
    Ok(record.as_deref().map(Lessons::decode).map(unless_damaged).transpose()?.flatten())
}

pub(super) fn put_lessons(connection: &Connection, lessons: &[u8]) -> Result<(), StoreError> {
    connection.prepare_cached(PUT_LESSONS)?.execute([lessons])?;
    Ok(())
}
