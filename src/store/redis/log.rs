//! The log: a stream whose entries are a public interface.

use std::str::FromStr as _;

use async_trait::async_trait;
use redis::Value;
use tokio::sync::watch;

use super::confirm::Primary;
use super::reply::{Fields, bytes, number, subject, unreadable};
use super::scripts::Arguments;
use super::{Redis, or_all};
use crate::change::{Change, Kind};
use crate::clock::Timestamp;
use crate::cursor::Epoch;
use crate::jid::{Device, Jid};
use crate::outcome::Reason;
use crate::store::{Extent, Log, Page, Record, StoreError, What};

#[async_trait]
impl Log for Redis {
    async fn read_log(&self, after: u64, limit: usize) -> Result<Page, StoreError> {
        let arguments = Arguments::default().with(after.saturating_add(1)).limit(limit);
        self.confirmed(self.run(|scripts| &scripts.read_log, arguments).await?).await
    }

    async fn history(&self, jid: &Jid, device: Option<&Device>, before: u64, limit: usize) -> Result<Page, StoreError> {
        let arguments = Arguments::default().with(jid.to_string()).number(before).limit(limit);
        self.confirmed(self.run(|scripts| &scripts.history, or_all(arguments, device)).await?).await
    }

    async fn trim_log(&self, before: Timestamp, limit: usize) -> Result<usize, StoreError> {
        let arguments = Arguments::default().time(before).limit(limit);
        number(self.run(|scripts| &scripts.trim_log, arguments).await?)
    }

    fn is_shared(&self) -> bool {
        true
    }

    fn tip(&self) -> watch::Receiver<u64> {
        self.shared.tip.subscribe()
    }
}

impl Redis {
    /// What was read, once it is where it outlasts the server.
    async fn confirmed(&self, answer: Value) -> Result<Page, StoreError> {
        let (page, server) = page(answer)?;
        self.shared.confirm(&page, server).await?;
        Ok(page)
    }
}

/// An extent, entries of the stream, and what the server is.
fn page(answer: Value) -> Result<(Page, Primary), StoreError> {
    let mut answer = Fields::of(answer)?;
    let epoch = Epoch::from_str(&answer.text()?).map_err(|_| unreadable("epoch"))?;
    let (trimmed, last) = (answer.number()?, answer.number()?);
    // Not there, or nothing that anybody could stand at.
    let former = answer.text()?.parse().ok();
    let extent = Extent { epoch, trimmed, last, former };
    let mut records = Vec::new();
    for entry in answer.list()? {
        let mut entry = Fields::of(entry)?;
        let place = entry.text()?;
        let sequence = place.split('-').next().and_then(|sequence| sequence.parse().ok());
        let sequence = sequence.ok_or_else(|| unreadable("place in the log"))?;
        match record(sequence, entry.list()?) {
            Ok(record) => records.push(record),
            // Whoever follows the log must get past it.
            Err(error) => tracing::warn!(sequence, %error, "a record of the change log is passed over"),
        }
    }
    let server = Primary { replicas: answer.number()?, history: answer.text()? };
    Ok((Page { extent, records }, server))
}

/// The fields of an entry, in text; empty where there is nothing to say.
#[derive(Default)]
struct Texts {
    kind: String,
    at: String,
    device: String,
    jid: String,
    event_id: String,
    reason: String,
    old_id: String,
    new_id: String,
    version: String,
    not_before: String,
}

impl Texts {
    /// Reads names and values in turn. Names that are not known are a later program's.
    fn read(mut fields: Fields) -> Result<Self, StoreError> {
        let mut texts = Self::default();
        while let (Some(name), Some(value)) = (fields.next(), fields.next()) {
            let field = match &bytes(name)?[..] {
                b"kind" => &mut texts.kind,
                b"at" => &mut texts.at,
                b"device" => &mut texts.device,
                b"jid" => &mut texts.jid,
                b"event_id" => &mut texts.event_id,
                b"reason" => &mut texts.reason,
                b"old_id" => &mut texts.old_id,
                b"new_id" => &mut texts.new_id,
                b"version" => &mut texts.version,
                b"not_before" => &mut texts.not_before,
                _ => continue,
            };
            *field = String::from_utf8(bytes(value)?).map_err(|_| unreadable("text"))?;
        }
        Ok(texts)
    }
}

fn record(sequence: u64, fields: Fields) -> Result<Record, StoreError> {
    let texts = Texts::read(fields)?;
    let time = |text: &str| text.parse().map(Timestamp::from_millis).map_err(|_| unreadable("time"));
    let at = time(&texts.at)?;
    if texts.kind == "forgotten" {
        return Ok(Record { sequence, at, what: What::Forgotten });
    }
    let kind = Kind::ALL.into_iter().find(|kind| kind.as_str() == texts.kind);
    let unless_empty = |text: String| (!text.is_empty()).then_some(text);
    let change = Change {
        kind: kind.ok_or_else(|| unreadable("kind of change"))?,
        noticed_at: at,
        event_id: texts.event_id,
        reason: Reason::ALL.into_iter().find(|reason| reason.as_str() == texts.reason),
        old_id: unless_empty(texts.old_id),
        new_id: unless_empty(texts.new_id),
        version: texts.version.parse().map_err(|_| unreadable("version"))?,
        not_before: time(&texts.not_before)?,
    };
    let subject = subject(texts.device.as_bytes(), texts.jid.as_bytes())?;
    Ok(Record { sequence, at, what: What::Change(Box::new((subject, change))) })
}
