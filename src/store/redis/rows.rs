//! What is written of subjects, and what is read of them.
//!
//! Nothing here looks into a record. One that is damaged counts as absent, so that the next look writes it anew; one of a newer
//! program fails the calls about its key and no others.

use std::time::Duration;

use redis::Value;

use super::of_key;
use super::reply::{Fields, subject, unreadable};
use super::scripts::{Arguments, millis};
use crate::change::State;
use crate::clock::Clock;
use crate::entry::Entry;
use crate::jid::{Device, Key, Subject, Variant};
use crate::outcome::{Reason, Token};
use crate::recheck::Outlook;
use crate::record::unless_damaged;
use crate::store::{Agenda, Candidate, Deadline, Due, Held, Outlay, Picture, Size, StoreError, Watch, Write};

/// For how long a look may be under way at the most, with a wide margin: for that long it is remembered who was forgotten.
pub(super) const LONGEST_LOOK: Duration = Duration::from_secs(600);

/// How many may become ready at once: a bound on how long one call keeps the server from everybody else.
pub(super) const PROMOTED_MAX: usize = 200;

/// What is held for a key: its device's virtual time, and if anything is held, revision, state, watch, outlook, when it was asked
/// for, record.
pub(super) fn held(mut fields: Fields) -> Result<Held, StoreError> {
    let virtual_now = fields.text()?.parse().map_err(|_| unreadable("virtual time"))?;
    if fields.is_empty() {
        return Ok(Held { virtual_now, ..Held::default() });
    }
    let revision = Token(fields.number()?);
    let state = unless_damaged(State::decode(&fields.bytes()?))?;
    let watch = interval(&mut fields)?;
    // Where one is damaged it begins anew, and nobody need know.
    let outlook =
        fields.optional_bytes()?.map(|record| unless_damaged(Outlook::decode(&record))).transpose()?.flatten();
    let requested_at = fields.optional_time()?;
    let entry = fields.optional_bytes()?.map(|record| unless_damaged(Entry::decode(&record))).transpose()?;
    Ok(Held {
        revision,
        requested_at,
        watch,
        outlook,
        virtual_now,
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
        .or_empty(write.entry.deadline().map(millis))
        .or_empty(write.requested_at.map(millis))
        .or_empty(write.also_due.as_ref().map(|(key, _)| key.variant.to_bits()))
        .or_empty(write.also_due.as_ref().map(|(_, due)| millis(*due)))
        .or_empty(write.siblings_due.map(millis))
        .number(seen)
        .with(write.outlook.encode())
        .with(write.outlook.turn.rank)
        .time(write.recheck_at)
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

/// The keys that were taken, and the arguments that take off the schedule what of them cannot be read.
pub(super) fn taken(answer: Value) -> Result<(Vec<Due>, Option<Arguments>), StoreError> {
    let mut taken = Vec::new();
    let mut unreadable: Option<Arguments> = None;
    for row in Fields::of(answer)? {
        let mut row = Fields::of(row)?;
        let (device, jid) = (row.optional_bytes()?.unwrap_or_default(), row.bytes()?);
        let bits = row.number()?;
        match due(&device, &jid, bits, row) {
            Ok(due) => taken.push(due),
            Err(error) => {
                tracing::warn!(%error, "a due entry is passed over from now on");
                unreadable = Some(unreadable.unwrap_or_default().with(device).with(jid).with(bits).with(""));
            }
        }
    }
    Ok((taken, unreadable))
}

/// The subjects that were taken, and the arguments that take off the schedule what of them cannot be read.
pub(super) fn candidates(answer: Value) -> Result<(Vec<Candidate>, Option<Arguments>), StoreError> {
    let mut taken = Vec::new();
    let mut unreadable: Option<Arguments> = None;
    for row in Fields::of(answer)? {
        let mut row = Fields::of(row)?;
        let (device, jid) = (row.optional_bytes()?.unwrap_or_default(), row.bytes()?);
        match candidate(&device, &jid, row) {
            Ok(candidate) => taken.push(candidate),
            Err(error) => {
                tracing::warn!(%error, "a subject is not rechecked from now on");
                unreadable = Some(unreadable.unwrap_or_default().with(device).with(jid).with(""));
            }
        }
    }
    Ok((taken, unreadable))
}

fn candidate(device: &[u8], jid: &[u8], mut row: Fields) -> Result<Candidate, StoreError> {
    let watch = interval(&mut row)?;
    let picture = |held: Value| {
        let mut held = Fields::of(held)?;
        let variant = Variant::from_bits(held.number()?);
        Ok(Picture { variant, requested_at: held.optional_time()?, entry: entry(&mut held)? })
    };
    let pictures = row.list()?.map(picture).collect::<Result<_, StoreError>>()?;
    Ok(Candidate { subject: subject(device, jid)?, watch, pictures })
}

fn entry(row: &mut Fields) -> Result<Option<Entry>, StoreError> {
    Ok(row.optional_bytes()?.map(|record| unless_damaged(Entry::decode(&record))).transpose()?.flatten())
}

pub(super) fn agenda(answer: Value) -> Result<Vec<Agenda>, StoreError> {
    let agenda = |row| {
        let mut row = Fields::of(row)?;
        let device = Device::new(&row.text()?).map_err(|_| unreadable("device"))?;
        Ok(Agenda { device, due_at: row.optional_time()?, recheck_at: row.optional_time()? })
    };
    Fields::of(answer)?.map(agenda).collect()
}

/// What was asked for, and what of it there is.
pub(super) fn outlay(answer: Value, counts: &[usize]) -> Result<Outlay, StoreError> {
    let mut answer = Fields::of(answer)?;
    let mut outlay = Outlay { rechecks: answer.number()?, deadlines: Vec::new() };
    for (count, deadline) in counts.iter().zip(answer.list()?) {
        let mut deadline = Fields::of(deadline)?;
        let (due_at, requested_at) = (deadline.time()?, deadline.optional_time()?);
        outlay.deadlines.push(Deadline { count: *count, due_at, requested_at });
    }
    Ok(outlay)
}

fn due(device: &[u8], jid: &[u8], bits: u8, mut row: Fields) -> Result<Due, StoreError> {
    Ok(Due {
        key: Key { subject: subject(device, jid)?, variant: Variant::from_bits(bits) },
        due_at: row.time()?,
        requested_at: row.optional_time()?,
        watch: interval(&mut row)?,
        entry: entry(&mut row)?,
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
