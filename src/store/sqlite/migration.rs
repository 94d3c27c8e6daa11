//! Reading a whole file for another engine: the other end of [`crate::store::redis::migration`].
//!
//! The rules kept here:
//! * The file is only read, on a connection that cannot write, under the lock that keeps every other process out.
//! * A page at a time, each a step along a primary key: nothing is held that the next page does not need.
//! * What the process before had in hand is told as it was before, which is how opening the file would leave it.

use std::fs::File;
use std::path::Path;
use std::str::FromStr as _;

use rusqlite::{Connection, Row, params};

use super::{log, open, rows};
use crate::cursor::Epoch;
use crate::entry::Entry;
use crate::jid::{Device, Jid};
use crate::store::migration::{Delivery, FIELDS, Head, Held, Item, Page, Part, Place, Recheck, Subject, instant};
use crate::store::{OpenError, StoreError};

const HEAD: &str = "SELECT epoch, trimmed, lessons, tokens, subjects, entries, watches, logged FROM meta";

const DEVICES: &str = "SELECT device, record FROM devices WHERE device >= ?1 ORDER BY device LIMIT ?2";

const SUBJECTS: &str =
    "SELECT id, device, jid, revision, state, watch, rank, outlook, coalesce(recheck_before, recheck_at), ready
    FROM subjects WHERE id > ?1 ORDER BY id LIMIT ?2";

/// Of the subjects between two.
const ENTRIES: &str = "SELECT id, coalesce(due_before, due), requested, record FROM entries
    WHERE id BETWEEN ?1 * 4 AND ?2 * 4 + 3 ORDER BY id";

const LANES: &str = "SELECT id, device, virtual FROM lanes WHERE id > ?1 ORDER BY id LIMIT ?2";

const LOG: &str =
    "SELECT sequence, kind, appended_at, device, jid, event_id, reason, old_id, new_id, version, not_before
    FROM log WHERE sequence > ?1 ORDER BY sequence LIMIT ?2";

const ENDPOINTS: &str = "SELECT id, record, standing FROM endpoints WHERE id >= ?1 ORDER BY id LIMIT ?2";

const DELIVERIES: &str =
    "SELECT endpoint, sequence, event_id, device, jid, attempts, first_at, due_at, dead, json, noticed_at FROM deliveries
    WHERE (endpoint, sequence) > (?1, ?2) ORDER BY endpoint, sequence LIMIT ?3";

#[cfg(test)]
pub(super) const STATEMENTS: [&str; 8] = [HEAD, DEVICES, SUBJECTS, ENTRIES, LANES, LOG, ENDPOINTS, DELIVERIES];

/// Rows in a page at most.
const PAGE: i64 = 200;

/// A file that is read from one end to the other. While it is, nobody else may use it.
pub struct Source {
    connection: Connection,
    /// Keeps every other process out.
    lock: File,
    head: Head,
    /// The highest token that was saved.
    tokens: u64,
    /// Differs when the file was used since.
    state: String,
    /// How many subjects and records of the log there are.
    rows: u64,
}

impl Source {
    /// Opens a store that is there, and writes nothing.
    ///
    /// # Errors
    /// When it cannot be read, is not a store of this program's version, or another process uses it.
    pub fn open(path: &Path) -> Result<Self, OpenError> {
        let (connection, lock) = open::open_to_read(path)?;
        let unreadable = |error: StoreError| OpenError(format!("the store {} cannot be read: {error}", path.display()));
        let last = log::last(&connection).map_err(|error| unreadable(error.into()))?;
        let read = |row: &Row<'_>| {
            let head = (row.get::<_, String>(0)?, row.get(1)?, row.get(2)?);
            let counts: [u64; 5] = [row.get(3)?, row.get(4)?, row.get(5)?, row.get(6)?, row.get(7)?];
            Ok((head, counts))
        };
        let ((epoch, trimmed, lessons), counts) =
            connection.query_row(HEAD, [], read).map_err(|error| unreadable(error.into()))?;
        let [tokens, subjects, entries, watches, logged] = counts;
        let named = Epoch::from_str(&epoch);
        let named = named.map_err(|_| unreadable(StoreError::Unavailable("its log has no name".into())))?;
        Ok(Self {
            connection,
            lock,
            head: Head { epoch: named, trimmed, last, lessons },
            tokens,
            state: format!("{epoch} {trimmed} {last} {tokens} {subjects} {entries} {watches} {logged}"),
            rows: subjects + logged,
        })
    }

    /// What there is one of.
    #[must_use]
    pub fn head(&self) -> &Head {
        &self.head
    }

    /// No token in the file is greater.
    #[must_use]
    pub fn tokens(&self) -> u64 {
        self.tokens
    }

    /// Differs when the file was used since it was opened before.
    #[must_use]
    pub fn state(&self) -> &str {
        &self.state
    }

    /// How many people and records of the log there are: nearly all rows.
    #[must_use]
    pub fn rows(&self) -> u64 {
        self.rows
    }

    /// Some items of one part; `None` at the end.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn page(&self, from: &Place) -> Result<Option<Page>, StoreError> {
        let Some(part) = from.part else { return Ok(None) };
        let mut reading = Reading { from, part, read: 0, last: None, items: vec![], passed_over: 0 };
        match part {
            Part::Devices => self.each(DEVICES, params![from.after, PAGE], &mut reading, device)?,
            Part::Subjects => self.subjects(&mut reading)?,
            Part::Lanes => self.each(LANES, params![number(from)?, PAGE], &mut reading, lane)?,
            Part::Log => self.each(LOG, params![number(from)?, PAGE], &mut reading, logged)?,
            Part::Endpoints => self.each(ENDPOINTS, params![from.after, PAGE], &mut reading, endpoint)?,
            Part::Deliveries => {
                let (sequence, endpoint) = from.after.split_once(' ').unwrap_or(("0", ""));
                let sequence: i64 = sequence.parse().map_err(|_| unreadable())?;
                let bounds = params![endpoint, sequence, PAGE];
                self.each(DELIVERIES, bounds, &mut reading, delivery)?;
            }
        }
        Ok(Some(reading.page()))
    }

    fn each(
        &self,
        statement: &str,
        bounds: impl rusqlite::Params,
        reading: &mut Reading<'_>,
        read: impl Fn(&Row<'_>) -> Result<(String, Option<Item>), StoreError>,
    ) -> Result<(), StoreError> {
        let mut statement = self.connection.prepare_cached(statement)?;
        let mut rows = statement.query(bounds)?;
        while let Some(row) = rows.next()? {
            reading.take(read(row)?);
        }
        Ok(())
    }

    /// The people of a page, and then what is held of each.
    fn subjects(&self, reading: &mut Reading<'_>) -> Result<(), StoreError> {
        let mut statement = self.connection.prepare_cached(SUBJECTS)?;
        let mut rows = statement.query(params![number(reading.from)?, PAGE])?;
        let mut people: Vec<(i64, Option<Subject>)> = vec![];
        while let Some(row) = rows.next()? {
            people.push((row.get(0)?, subject(row)?));
        }
        let (Some(first), Some(last)) = (people.first(), people.last()) else { return Ok(()) };
        let mut statement = self.connection.prepare_cached(ENTRIES)?;
        let mut rows = statement.query(params![first.0, last.0])?;
        let mut whose = people.iter_mut().peekable();
        while let Some(row) = rows.next()? {
            let id: i64 = row.get(0)?;
            while whose.next_if(|(person, _)| *person < id >> 2).is_some() {}
            if let Some((person, Some(subject))) = whose.peek_mut()
                && *person == id >> 2
            {
                subject.held.push(held(rows::variant(id).to_bits(), row)?);
            }
        }
        for (id, subject) in people {
            reading.take((id.to_string(), subject.map(|subject| Item::Subject(Box::new(subject)))));
        }
        Ok(())
    }
}

impl Drop for Source {
    fn drop(&mut self) {
        // Unlocked, not only closed: a process that is just being started holds a copy of the descriptor for a moment.
        let _ = self.lock.unlock();
    }
}

/// A page while it is read.
struct Reading<'a> {
    from: &'a Place,
    part: Part,
    read: i64,
    last: Option<String>,
    items: Vec<Item>,
    passed_over: u64,
}

impl Reading<'_> {
    /// A row: the place behind it, and what it says, if anybody can read that.
    fn take(&mut self, (after, item): (String, Option<Item>)) {
        self.read += 1;
        self.last = Some(after);
        match item {
            // Where all begin, nothing need be said.
            Some(Item::Lane { virtual_now: 0.0, .. }) => {}
            Some(item) => self.items.push(item),
            None => self.passed_over += 1,
        }
    }

    fn page(self) -> Page {
        let next = match self.last {
            Some(after) if self.read == PAGE => Place { part: Some(self.part), after },
            _ => Place::behind(self.part),
        };
        Page { from: self.from.clone(), items: self.items, next, passed_over: self.passed_over }
    }
}

fn unreadable() -> StoreError {
    StoreError::Unavailable("a place in the file cannot be read".into())
}

/// A place among numbers. At the beginning of a part it is before all that are given.
fn number(from: &Place) -> Result<i64, StoreError> {
    if from.after.is_empty() { Ok(0) } else { from.after.parse().map_err(|_| unreadable()) }
}

/// The place behind a text: no other text is between it and this.
fn behind(text: &str) -> String {
    format!("{text}\0")
}

/// A text, if it is one. It is nothing where there is nothing to say.
fn text(row: &Row<'_>, column: usize) -> rusqlite::Result<Option<String>> {
    let text = row.get_ref(column)?.as_str_or_null();
    Ok(text.ok().map(|text| text.unwrap_or_default().to_owned()))
}

/// A record; an empty one is none.
fn record(row: &Row<'_>, column: usize) -> rusqlite::Result<Option<Vec<u8>>> {
    Ok(row.get::<_, Option<Vec<u8>>>(column)?.filter(|record| !record.is_empty()))
}

fn time(row: &Row<'_>, column: usize) -> rusqlite::Result<Option<i64>> {
    Ok(row.get::<_, Option<i64>>(column)?.map(instant))
}

fn name(row: &Row<'_>, column: usize) -> rusqlite::Result<Option<String>> {
    Ok(text(row, column)?.filter(|name| Device::new(name).is_ok()))
}

/// A subject's name, if it is one by which somebody may ask.
fn whose(row: &Row<'_>, first: usize) -> rusqlite::Result<Option<(String, String)>> {
    let jid = text(row, first + 1)?.filter(|text| Jid::parse(text).is_ok_and(|jid| jid.to_string() == *text));
    Ok(name(row, first)?.zip(jid))
}

fn device(row: &Row<'_>) -> Result<(String, Option<Item>), StoreError> {
    let Some(device) = text(row, 0)? else { return Err(unreadable()) };
    let place = behind(&device);
    Ok((
        place,
        name(row, 0)?.map(|device| Ok::<_, StoreError>(Item::Device { device, record: row.get(1)? })).transpose()?,
    ))
}

fn subject(row: &Row<'_>) -> Result<Option<Subject>, StoreError> {
    let Some((device, jid)) = whose(row, 1)? else { return Ok(None) };
    let recheck = match (time(row, 8)?, row.get(9)?) {
        (_, true) => Recheck::Ready,
        (Some(at), false) => Recheck::From(at),
        (None, false) => Recheck::Never,
    };
    Ok(Some(Subject {
        device,
        jid,
        revision: row.get(3)?,
        state: row.get(4)?,
        watch: time(row, 5)?.map(i64::unsigned_abs),
        rank: row.get::<_, f64>(6)? + 0.0,
        outlook: record(row, 7)?,
        recheck,
        held: vec![],
    }))
}

fn held(variant: u8, row: &Row<'_>) -> Result<Held, StoreError> {
    let record = record(row, 3)?;
    let entry = record.as_deref().and_then(|record| Entry::decode(record).ok());
    Ok(Held {
        variant,
        due: time(row, 1)?,
        requested: time(row, 2)?,
        dead_at: entry.as_ref().map_or(0, |entry| instant(entry.dead_at.as_millis())),
        checked_at: entry.as_ref().map_or(0, |entry| instant(entry.checked_at.as_millis())),
        record,
    })
}

fn lane(row: &Row<'_>) -> Result<(String, Option<Item>), StoreError> {
    let virtual_now = row.get::<_, f64>(2)? + 0.0;
    let lane = name(row, 1)?.map(|device| Item::Lane { device, virtual_now });
    Ok((row.get::<_, i64>(0)?.to_string(), lane))
}

fn logged(row: &Row<'_>) -> Result<(String, Option<Item>), StoreError> {
    let sequence: u64 = row.get(0)?;
    let mut fields: [String; FIELDS] = Default::default();
    let is_somebodys = row.get_ref(4)?.as_str_or_null().is_ok_and(|jid| jid.is_some());
    let mut readable = !is_somebodys || whose(row, 3)?.is_some();
    for (column, field) in (1..).zip(&mut fields) {
        match column {
            2 | 9 | 10 => {
                *field = row.get::<_, Option<i64>>(column)?.map(|at| instant(at).to_string()).unwrap_or_default();
            }
            _ => match text(row, column)? {
                Some(text) => *field = text,
                None => readable = false,
            },
        }
    }
    Ok((sequence.to_string(), readable.then_some(Item::Logged { sequence, fields })))
}

fn endpoint(row: &Row<'_>) -> Result<(String, Option<Item>), StoreError> {
    let Some(id) = text(row, 0)? else { return Err(unreadable()) };
    Ok((behind(&id), Some(Item::Endpoint { record: row.get(1)?, standing: row.get(2)?, id })))
}

fn delivery(row: &Row<'_>) -> Result<(String, Option<Item>), StoreError> {
    let (Some(endpoint), sequence) = (text(row, 0)?, row.get(1)?) else { return Err(unreadable()) };
    let place = format!("{sequence} {endpoint}");
    let subject = whose(row, 3)?;
    let is_somebodys = row.get_ref(3)?.as_str_or_null().map_or(true, |device| device.is_some());
    let (Some(event_id), true) = (text(row, 2)?, subject.is_some() == is_somebodys) else { return Ok((place, None)) };
    let delivery = Delivery {
        endpoint,
        sequence,
        event_id,
        subject,
        attempts: row.get(5)?,
        first_at: time(row, 6)?,
        due_at: instant(row.get(7)?),
        dead: row.get(8)?,
        json: row.get(9)?,
        noticed_at: instant(row.get(10)?),
    };
    Ok((place, Some(Item::Delivery(Box::new(delivery)))))
}
