//! What is written of subjects, and what is read of them.
//!
//! Nothing here looks into a record. One that is damaged counts as absent, so that the next look writes it anew; one of a newer
//! program fails the calls about its key and no others.

use std::time::Duration;

use redis::Value;

use super::of_key;
use super::reply::{Fields, subject};
use super::scripts::{Arguments, millis};
use crate::change::State;
use crate::clock::Clock;
use crate::entry::Entry;
use crate::jid::{Device, Key, Subject, Variant};
use crate::outcome::{Reason, Token};
use crate::record::unless_damaged;
use crate::store::{Due, Held, Size, StoreError, Taken, Watch, Write};

/// For how long a look may be under way at the most, with a wide margin: for that long it is remembered who was forgotten.
pub(super) const LONGEST_LOOK: Duration = Duration::from_secs(600);

/// What is held for a key: nothing, or revision, state, watch, when it was asked for, record.
pub(super) fn held(mut fields: Fields) -> Result<Held, StoreError> {
    if fields.is_empty() {
        return Ok(Held::default());
    }
    let revision = Token(fields.number()?);
    let state = unless_damaged(State::decode(&fields.bytes()?))?;
    let (watch, requested_at) = (interval(&mut fields)?, fields.optional_time()?);
    let entry = fields.optional_bytes()?.map(|record| unless_damaged(Entry::decode(&record))).transpose()?;
    Ok(Held {
        revision,
        requested_at,
        watch,
        damaged: state.is_none() || matches!(entry, Some(None)),
        state: state.unwrap_or_default(),
        entry: entry.flatten(),
    })
}

fn interval(fields: &mut Fields) -> Result<Option<Duration>, StoreError> {
    Ok(fields.optional_number()?.map(Duration::from_millis))
}

/// The arguments of `apply`; `seen` is the highest token that was.
pub(super) fn write(write: &Write, seen: u64, clock: &Clock) -> Arguments {
    let arguments = of_key(&write.key)
        .number(write.start.0)
        .number(write.expected.0)
        .with(write.state.encode())
        .with(write.entry.encode())
        .time(write.entry.due_at)
        .or_empty(write.requested_at.map(millis))
        .or_empty(write.also_due.as_ref().map(|(key, _)| key.variant.to_bits()))
        .or_empty(write.also_due.as_ref().map(|(_, due)| millis(*due)))
        .or_empty(write.siblings_due.map(millis))
        .number(seen)
        .time(write.entry.dead_at)
        .time(write.entry.checked_at)
        .or_empty(write.flown.then_some(1))
        .clock(clock);
    let Some(change) = &write.change else { return arguments };
    arguments
        .with(change.kind.as_str())
        .time(change.noticed_at)
        .with(&change.event_id)
        .or_empty(change.reason.map(Reason::as_str))
        .or_empty(change.old_id.as_ref())
        .or_empty(change.new_id.as_ref())
        .number(change.version)
        .time(change.not_before)
}

/// What was taken, and the arguments that take off the schedule what of it cannot be read.
pub(super) fn taken(answer: Value) -> Result<(Taken, Option<Arguments>), StoreError> {
    let mut answer = Fields::of(answer)?;
    let mut taken = Taken { next: answer.optional_time()?, due: Vec::new() };
    let mut unreadable: Option<Arguments> = None;
    for row in answer.list()? {
        let mut row = Fields::of(row)?;
        let (device, jid) = (row.optional_bytes()?.unwrap_or_default(), row.bytes()?);
        let bits = row.number()?;
        match due(&device, &jid, bits, row) {
            Ok(due) => taken.due.push(due),
            Err(error) => {
                tracing::warn!(%error, "a due entry is passed over from now on");
                unreadable = Some(unreadable.unwrap_or_default().with(device).with(jid).with(bits).with(""));
            }
        }
    }
    Ok((taken, unreadable))
}

fn due(device: &[u8], jid: &[u8], bits: u8, mut row: Fields) -> Result<Due, StoreError> {
    Ok(Due {
        key: Key { subject: subject(device, jid)?, variant: Variant::from_bits(bits) },
        due_at: row.time()?,
        requested_at: row.optional_time()?,
        watch: interval(&mut row)?,
        entry: row.optional_bytes()?.map(|record| unless_damaged(Entry::decode(&record))).transpose()?.flatten(),
    })
}

/// From where to where watches are read: their names are device and jid with a zero byte between them, in the order of bytes.
pub(super) fn watched_after(device: Option<&Device>, after: Option<&Subject>) -> Arguments {
    let after_jid = after.map(|after| after.jid.to_string()).unwrap_or_default();
    match (device, after) {
        (Some(device), _) => {
            let device = device.as_str();
            Arguments::default().with(format!("({device}\0{after_jid}")).with(format!("({device}\x01"))
        }
        (None, Some(after)) => Arguments::default().with(format!("({}\0{after_jid}", after.device.as_str())).with("+"),
        (None, None) => Arguments::default().with("-").with("+"),
    }
}

pub(super) fn watches(answer: Value) -> Result<Vec<Watch>, StoreError> {
    let mut watches = Vec::new();
    for row in Fields::of(answer)? {
        let mut row = Fields::of(row)?;
        let subject = row.subject()?;
        if let Some(interval) = interval(&mut row)? {
            watches.push(Watch { subject, interval });
        }
    }
    Ok(watches)
}

pub(super) fn size(answer: Value) -> Result<Size, StoreError> {
    let mut size = Fields::of(answer)?;
    Ok(Size {
        entries: size.number()?,
        subjects: size.number()?,
        backlog: size.number()?,
        watches: size.number()?,
        logged: size.number()?,
        logged_since: size.optional_time()?,
        bytes: size.number()?,
    })
}
