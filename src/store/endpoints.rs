//! Webhook endpoints: what each is, how it stands, and what could not be delivered to it yet.
//!
//! Three things with three lives. An [`Endpoint`] changes when somebody changes it. Its [`Standing`] changes with every delivery,
//! and its first part is a cursor into the log: whatever lies behind it was delivered, or is written down as a [`Delivery`].
//! A delivery is an event that failed, or that waits behind one that did, with all that is needed to send it again: it does not
//! need the log any more. One that is dead is kept until somebody asks for it again, or until it is too old.

use std::fmt;

use async_trait::async_trait;
use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::{Lease, StoreError, Wish};
use crate::clock::Timestamp;
use crate::cursor::{Cursor, Epoch};
use crate::jid::{Jid, Subject};
use crate::outcome::Token;
use crate::record::{self, Unreadable};

/// Where events are delivered to.
#[derive(Clone, PartialEq, Debug)]
pub struct Endpoint {
    /// Names it.
    pub id: String,
    /// Its address.
    pub url: String,
    /// What deliveries are signed with, newest first.
    pub secrets: Vec<Secret>,
    /// Which events it gets, by name (`avatar.set`); all when empty.
    pub events: Vec<String>,
    /// Whose; everybody's when empty.
    pub jids: Vec<Jid>,
    /// It was given by a flag, and not over the API.
    pub from_flag: bool,
    /// When it was made.
    pub created_at: Timestamp,
}

/// What deliveries are signed with.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Secret {
    /// As it was given.
    pub text: String,
    /// Since another has taken its place: until when it holds beside that one.
    pub until: Option<Timestamp>,
}

impl fmt::Debug for Secret {
    /// Without the secret.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Secret").field("until", &self.until).finish_non_exhaustive()
    }
}

/// How an endpoint stands.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Standing {
    /// Whatever lies behind this place of the log was delivered, is dead, was not wanted, or is kept as a delivery.
    pub cursor: Cursor,
    /// Since when nothing is sent to it, and why.
    pub disabled: Option<Disabled>,
    /// When the first of the attempts was made that all have failed since.
    pub failing_since: Option<Timestamp>,
    /// How the last attempt ended.
    pub last: Option<LastResult>,
}

/// Nothing is sent until somebody enables it.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Disabled {
    /// In a word.
    pub why: String,
    /// Since when.
    pub since: Timestamp,
}

/// How an attempt ended.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct LastResult {
    /// When.
    pub at: Timestamp,
    /// In a word or two.
    pub text: String,
}

/// An event that is still to be delivered, or is dead.
#[derive(Clone, PartialEq, Eq)]
pub struct Delivery {
    /// Its place in the log; for the news of a gap, the place behind the last that was read.
    pub sequence: u64,
    /// By which receivers recognise it.
    pub event_id: String,
    /// Whose; nobody's for a gap.
    pub subject: Option<Subject>,
    /// When what it tells of was noticed.
    pub noticed_at: Timestamp,
    /// Attempts made, all of which failed.
    pub attempts: u32,
    /// When the first of them was made.
    pub first_at: Option<Timestamp>,
    /// When the next one is due.
    pub due_at: Timestamp,
    /// Given up.
    pub dead: bool,
    /// What is sent.
    pub json: Bytes,
}

impl fmt::Debug for Delivery {
    /// Without what it says of a person.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Delivery")
            .field("sequence", &self.sequence)
            .field("noticed_at", &self.noticed_at)
            .field("attempts", &self.attempts)
            .field("first_at", &self.first_at)
            .field("due_at", &self.due_at)
            .field("dead", &self.dead)
            .finish_non_exhaustive()
    }
}

/// An endpoint that is held, and how it stands.
#[derive(Clone, PartialEq, Debug)]
pub struct Known {
    /// What it is.
    pub endpoint: Endpoint,
    /// How it stands.
    pub standing: Standing,
    /// How many deliveries are kept for it.
    pub kept: Kept,
}

/// How many deliveries are kept.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Kept {
    /// Those that are still to be delivered.
    pub pending: u64,
    /// Those that are dead.
    pub dead: u64,
}

/// How the wish to have an endpoint ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Put {
    /// It is durable.
    Done,
    /// There are as many as there may be, and this is a new one: nothing was written.
    TooMany,
}

/// What has become of an endpoint's deliveries since it was last written down.
#[derive(Clone, PartialEq, Debug)]
pub struct Progress {
    /// Whose.
    pub endpoint: String,
    /// By which right this is said: the token of the endpoint's lease, 0 where nobody has it.
    pub lease: Token,
    /// What it is from now on, if that is something else.
    pub becomes: Option<Endpoint>,
    /// How it stands now.
    pub standing: Standing,
    /// Deliveries to keep, or to keep as they are now.
    pub kept: Vec<Delivery>,
    /// The sequences of those that need not be kept any more.
    pub ended: Vec<u64>,
}

/// The store's face towards webhooks.
#[async_trait]
pub trait Endpoints: Send + Sync {
    /// All of them, by id.
    ///
    /// # Errors
    /// When the store fails.
    async fn endpoints(&self) -> Result<Vec<Known>, StoreError>;

    /// Makes an endpoint that stands like this, or changes what one is that is there, and not how it stands. Beyond `limit` there
    /// are no more. Durable when it returns.
    ///
    /// # Errors
    /// When the store fails.
    async fn put_endpoint(&self, endpoint: Endpoint, new: Standing, limit: u64) -> Result<Put, StoreError>;

    /// Drops an endpoint with all its deliveries. True if there was one.
    ///
    /// # Errors
    /// When the store fails.
    async fn drop_endpoint(&self, id: &str) -> Result<bool, StoreError>;

    /// An endpoint's deliveries, those that are dead or those that are not: up to `limit` of those behind the sequence `after`, in
    /// their order.
    ///
    /// # Errors
    /// When the store fails.
    async fn deliveries(&self, id: &str, dead: bool, after: u64, limit: usize) -> Result<Vec<Delivery>, StoreError>;

    /// How many deliveries are kept for an endpoint.
    ///
    /// # Errors
    /// When the store fails.
    async fn kept(&self, id: &str) -> Result<Kept, StoreError>;

    /// Writes all of it or nothing. A delivery is kept only if the log still has its event or it was kept before: of somebody who
    /// was forgotten meanwhile nothing comes back. Of an endpoint that was dropped nothing is written. Durable when it returns.
    ///
    /// # Errors
    /// When the store fails, and when the endpoint's lease has gone to somebody else: [`StoreError::Fenced`].
    async fn progress(&self, progress: Progress) -> Result<(), StoreError>;

    /// Fulfils what somebody wishes of endpoints' leases, all in one step, and tells how each stands then; `None`: nobody has it, or
    /// there is no such endpoint. In a store that only one process can use, all wishes are granted, and nothing is written.
    ///
    /// # Errors
    /// When the store fails.
    async fn lease(&self, holder: &str, wishes: &[(String, Wish)]) -> Result<Vec<Option<Lease>>, StoreError> {
        let granted = |(_, wish): &(String, Wish)| (*wish != Wish::GiveUp).then(|| Lease::uncontested(holder));
        Ok(wishes.iter().map(granted).collect())
    }

    /// Makes an endpoint's dead deliveries behind the sequence `after` as good as new, due at `due`. Returns how many.
    ///
    /// # Errors
    /// When the store fails.
    async fn revive(&self, id: &str, after: u64, due: Timestamp) -> Result<u64, StoreError>;

    /// Drops up to `limit` of the oldest dead deliveries, as far as what they tell of was noticed before `before`. Returns whose
    /// they were, once for each.
    ///
    /// # Errors
    /// When the store fails.
    async fn trim_dead(&self, before: Timestamp, limit: usize) -> Result<Vec<String>, StoreError>;
}

/// The stored form of an endpoint but for its id. A later version appends fields and reads the older ones.
#[derive(Serialize, Deserialize)]
struct EndpointRecord {
    format: u8,
    url: String,
    secrets: Vec<Secret>,
    events: Vec<String>,
    jids: Vec<Jid>,
    from_flag: bool,
    created_at: Timestamp,
}

/// The stored form of a standing.
#[derive(Serialize, Deserialize)]
struct StandingRecord {
    format: u8,
    epoch: String,
    sequence: u64,
    disabled: Option<Disabled>,
    failing_since: Option<Timestamp>,
    last: Option<LastResult>,
}

const FORMAT: u8 = 1;

impl Endpoint {
    /// The stored form, but for the id.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        record::write(&EndpointRecord {
            format: FORMAT,
            url: self.url.clone(),
            secrets: self.secrets.clone(),
            events: self.events.clone(),
            jids: self.jids.clone(),
            from_flag: self.from_flag,
            created_at: self.created_at,
        })
    }

    /// Reads the stored form of the endpoint `id`.
    ///
    /// # Errors
    /// When it is not one, or a newer program wrote it.
    pub fn decode(id: String, bytes: &[u8]) -> Result<Self, Unreadable> {
        let record: EndpointRecord = record::read(bytes, FORMAT)?;
        Ok(Self {
            id,
            url: record.url,
            secrets: record.secrets,
            events: record.events,
            jids: record.jids,
            from_flag: record.from_flag,
            created_at: record.created_at,
        })
    }
}

impl Standing {
    /// One that begins behind `cursor`.
    #[must_use]
    pub fn at(cursor: Cursor) -> Self {
        Self { cursor, disabled: None, failing_since: None, last: None }
    }

    /// The stored form.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        record::write(&StandingRecord {
            format: FORMAT,
            epoch: self.cursor.epoch.to_string(),
            sequence: self.cursor.sequence,
            disabled: self.disabled.clone(),
            failing_since: self.failing_since,
            last: self.last.clone(),
        })
    }

    /// Reads a stored form.
    ///
    /// # Errors
    /// When it is not one, or a newer program wrote it.
    pub fn decode(bytes: &[u8]) -> Result<Self, Unreadable> {
        let record: StandingRecord = record::read(bytes, FORMAT)?;
        // Of a log whose name cannot be read nothing is left: what it missed is told as a gap.
        let epoch: Epoch = record.epoch.parse().unwrap_or_default();
        Ok(Self {
            cursor: Cursor { epoch, sequence: record.sequence },
            disabled: record.disabled,
            failing_since: record.failing_since,
            last: record.last,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Timestamp = Timestamp::from_seconds(1_700_000_000);

    fn endpoint() -> Endpoint {
        let secrets = vec![Secret { text: "new".into(), until: None }, Secret { text: "old".into(), until: Some(NOW) }];
        Endpoint {
            id: "e".into(),
            url: "https://h/".into(),
            secrets,
            events: vec!["avatar.set".into()],
            jids: vec![Jid::parse("628111").unwrap()],
            from_flag: true,
            created_at: NOW,
        }
    }

    fn standing() -> Standing {
        Standing {
            cursor: "00000000000000aa.7".parse().unwrap(),
            disabled: Some(Disabled { why: "gone".into(), since: NOW }),
            failing_since: Some(NOW),
            last: Some(LastResult { at: NOW, text: "410".into() }),
        }
    }

    #[test]
    fn the_first_format_stays_readable() {
        let stored = "9701aa68747470733a2f2f682f9292a36e6577c092a36f6c64cf0000018bcfe5680091aa6176617461722e73657491b536323831313140732e77686174736170702e6e6574c3cf0000018bcfe56800";
        assert_eq!(hex::encode(endpoint().encode()), stored);
        assert_eq!(Endpoint::decode("e".into(), &hex::decode(stored).unwrap()).unwrap(), endpoint());
        let stored = "9601b0303030303030303030303030303061610792a4676f6e65cf0000018bcfe56800cf0000018bcfe5680092cf0000018bcfe56800a3343130";
        assert_eq!(hex::encode(standing().encode()), stored);
        assert_eq!(Standing::decode(&hex::decode(stored).unwrap()).unwrap(), standing());
        let mut newer = standing().encode();
        newer[1] = FORMAT + 1;
        assert!(matches!(Standing::decode(&newer), Err(Unreadable::Newer(_))));
        assert!(matches!(Endpoint::decode("e".into(), &newer), Err(Unreadable::Newer(_))));
    }

    #[test]
    fn no_secret_is_printed() {
        assert!(!format!("{:?}", endpoint()).contains("old"));
    }
}
