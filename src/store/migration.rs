//! What a store holds, as it is carried from one engine to another.
//!
//! The rules kept here:
//! * Records are carried as they are, byte for byte, and not interpreted. What an engine knows of them besides is carried in plain
//!   numbers, so that both can be compared.
//! * It comes in [`Part`]s, one after the other, and each in an order of its own: from any [`Place`] on it can be gone on with.
//! * Nobody has anything in hand: what was under lease is as it was before.
//! * Who cannot be named cannot be asked for: such rows stay behind, and are counted.

use sha2::{Digest as _, Sha256};

use crate::cursor::Epoch;

/// The furthest instant that all engines tell from its neighbours (ms since 1970), and the furthest in the past when negative.
const FURTHEST: i64 = 1 << 53;

/// What there is one of.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Head {
    /// Which log it is.
    pub epoch: Epoch,
    /// Up to here records of the log were dropped for their age.
    pub trimmed: u64,
    /// The last sequence given.
    pub last: u64,
    /// What was learnt of all people together.
    pub lessons: Option<Vec<u8>>,
}

/// What all items are of.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Part {
    /// What is known of devices.
    Devices,
    /// People, with their entries, watches and schedule.
    Subjects,
    /// The virtual times of devices.
    Lanes,
    /// The change log.
    Log,
    /// Webhooks.
    Endpoints,
    /// What could not be delivered to them yet.
    Deliveries,
}

impl Part {
    /// In the order in which they are carried.
    pub const ALL: [Self; 6] =
        [Self::Devices, Self::Subjects, Self::Lanes, Self::Log, Self::Endpoints, Self::Deliveries];

    /// In a word.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Devices => "devices",
            Self::Subjects => "subjects",
            Self::Lanes => "lanes",
            Self::Log => "log",
            Self::Endpoints => "endpoints",
            Self::Deliveries => "deliveries",
        }
    }
}

/// How far a store was read.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Place {
    /// Of which part the next items are; `None` when there are none any more.
    pub part: Option<Part>,
    /// Behind what they are, in the words of the engine that reads them; empty at a part's beginning.
    pub after: String,
}

impl Place {
    /// Where everything begins.
    pub const START: Self = Self { part: Some(Part::ALL[0]), after: String::new() };

    /// Where the part after this one begins.
    pub(super) fn behind(part: Part) -> Self {
        let next = Part::ALL.into_iter().skip_while(|other| *other != part).nth(1);
        Self { part: next, after: String::new() }
    }

    /// As it is written down.
    pub(super) fn encode(&self) -> String {
        format!("{} {}", self.part.map_or("end", Part::as_str), self.after)
    }

    /// Reads what was written down.
    pub(super) fn decode(text: &str) -> Option<Self> {
        let (word, after) = text.split_once(' ')?;
        let part = Part::ALL.into_iter().find(|part| part.as_str() == word);
        (part.is_some() || word == "end").then(|| Self { part, after: after.to_owned() })
    }
}

/// Items of one part.
#[derive(Debug)]
pub struct Page {
    /// From where on they were read.
    pub from: Place,
    /// In their order.
    pub items: Vec<Item>,
    /// From where on to go on.
    pub next: Place,
    /// Rows that stay behind.
    pub passed_over: u64,
}

/// One thing that a store holds.
#[derive(Clone, PartialEq, Debug)]
pub enum Item {
    /// A device's record.
    Device {
        /// Its name.
        device: String,
        /// Its record.
        record: Vec<u8>,
    },
    /// A person.
    Subject(Box<Subject>),
    /// A device's rechecks.
    Lane {
        /// Its name.
        device: String,
        /// Its virtual time.
        virtual_now: f64,
    },
    /// A record of the log.
    Logged {
        /// Its place.
        sequence: u64,
        /// Its fields in the order of [`FIELDS`], empty where there is nothing to say.
        fields: [String; FIELDS],
    },
    /// A webhook.
    Endpoint {
        /// Its name.
        id: String,
        /// What it is.
        record: Vec<u8>,
        /// How it stands.
        standing: Vec<u8>,
    },
    /// What is still to be delivered, or is dead.
    Delivery(Box<Delivery>),
}

/// The fields of a record of the log: kind, at, device, jid, event id, reason, old id, new id, version, not before.
pub const FIELDS: usize = 10;

/// A person as a device sees them. Instants are milliseconds since 1970.
#[derive(Clone, PartialEq, Debug)]
pub struct Subject {
    /// The device's name.
    pub device: String,
    /// Their address.
    pub jid: String,
    /// The end token of the last observation.
    pub revision: u64,
    /// Its record.
    pub state: Vec<u8>,
    /// How often they are looked at though nobody asks (ms).
    pub watch: Option<u64>,
    /// Where they stand among those who are rechecked.
    pub rank: f64,
    /// What is known of them, as far as rechecks go.
    pub outlook: Option<Vec<u8>>,
    /// Whether they are rechecked.
    pub recheck: Recheck,
    /// Their pictures, by variant.
    pub held: Vec<Held>,
}

/// When somebody is rechecked.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Recheck {
    /// Not until somebody asks.
    Never,
    /// From then on.
    From(i64),
    /// The time has come, and the rank says when.
    Ready,
}

/// What is held of one picture.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Held {
    /// Which, as bits.
    pub variant: u8,
    /// Its deadline.
    pub due: Option<i64>,
    /// When somebody last asked for it.
    pub requested: Option<i64>,
    /// The entry.
    pub record: Option<Vec<u8>>,
    /// From when on the entry is never served; zero if there is none, or nobody can read it.
    pub dead_at: i64,
    /// When it was looked at; zero as well.
    pub checked_at: i64,
}

/// What is still to be delivered, or is dead. Instants are milliseconds since 1970.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Delivery {
    /// To which webhook.
    pub endpoint: String,
    /// Its place in the log.
    pub sequence: u64,
    /// By which receivers recognise it.
    pub event_id: String,
    /// Whose: device and jid.
    pub subject: Option<(String, String)>,
    /// Attempts made.
    pub attempts: u64,
    /// When the first of them was made.
    pub first_at: Option<i64>,
    /// When the next one is due.
    pub due_at: i64,
    /// Given up.
    pub dead: bool,
    /// What is sent.
    pub json: Vec<u8>,
    /// When what it tells of was noticed.
    pub noticed_at: i64,
}

/// An instant as every engine can keep it.
pub(super) fn instant(millis: i64) -> i64 {
    millis.clamp(-FURTHEST, FURTHEST)
}

/// How much there is of each kind.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Tally {
    /// Devices that something is known of.
    pub devices: u64,
    /// People.
    pub subjects: u64,
    /// Entries.
    pub entries: u64,
    /// Those who are watched.
    pub watches: u64,
    /// Records in the change log.
    pub logged: u64,
    /// Webhooks.
    pub endpoints: u64,
    /// What is still to be delivered to them, or is dead.
    pub deliveries: u64,
}

impl Tally {
    /// One more.
    pub fn count(&mut self, item: &Item) {
        match item {
            Item::Device { .. } => self.devices += 1,
            Item::Subject(subject) => {
                self.subjects += 1;
                self.entries += subject.held.iter().filter(|held| held.record.is_some()).count() as u64;
                self.watches += u64::from(subject.watch.is_some());
            }
            Item::Lane { .. } => {}
            Item::Logged { .. } => self.logged += 1,
            Item::Endpoint { .. } => self.endpoints += 1,
            Item::Delivery(_) => self.deliveries += 1,
        }
    }
}

/// A SHA-256 over all that was carried, in the order in which it was. Every field goes in with its length, or as eight bytes behind
/// one that says that it is there, so that no two stores have one text.
#[derive(Clone, Default)]
pub struct Digest(Sha256);

impl Digest {
    /// In hexadecimal.
    #[must_use]
    pub fn text(self) -> String {
        hex::encode(self.0.finalize())
    }

    fn bytes(&mut self, bytes: &[u8]) -> &mut Self {
        self.number(bytes.len() as u64);
        self.0.update(bytes);
        self
    }

    fn number(&mut self, number: u64) -> &mut Self {
        self.0.update(number.to_le_bytes());
        self
    }

    fn instant(&mut self, at: i64) -> &mut Self {
        self.number(at.cast_unsigned())
    }

    fn optional<T>(&mut self, value: Option<T>, feed: impl FnOnce(&mut Self, T) -> &mut Self) -> &mut Self {
        self.0.update([u8::from(value.is_some())]);
        if let Some(value) = value {
            feed(self, value);
        }
        self
    }

    /// Takes in what there is one of.
    pub fn head(&mut self, head: &Head) {
        self.bytes(head.epoch.to_string().as_bytes()).number(head.trimmed).number(head.last);
        self.optional(head.lessons.as_deref(), |digest, lessons| digest.bytes(lessons));
    }

    /// Takes in an item.
    pub fn item(&mut self, item: &Item) {
        match item {
            Item::Device { device, record } => self.bytes(b"device").bytes(device.as_bytes()).bytes(record),
            Item::Subject(subject) => self.subject(subject),
            Item::Lane { device, virtual_now } => {
                self.bytes(b"lane").bytes(device.as_bytes()).number(virtual_now.to_bits())
            }
            Item::Logged { sequence, fields } => {
                self.bytes(b"logged").number(*sequence);
                fields.iter().fold(self, |digest, field| digest.bytes(field.as_bytes()))
            }
            Item::Endpoint { id, record, standing } => {
                self.bytes(b"endpoint").bytes(id.as_bytes()).bytes(record).bytes(standing)
            }
            Item::Delivery(delivery) => self.delivery(delivery),
        };
    }

    fn subject(&mut self, subject: &Subject) -> &mut Self {
        self.bytes(b"subject").bytes(subject.device.as_bytes()).bytes(subject.jid.as_bytes());
        self.number(subject.revision).bytes(&subject.state).number(subject.rank.to_bits());
        self.optional(subject.watch, |digest, watch| digest.number(watch));
        self.optional(subject.outlook.as_deref(), |digest, outlook| digest.bytes(outlook));
        match subject.recheck {
            Recheck::Never => self.number(0),
            Recheck::From(at) => self.number(1).instant(at),
            Recheck::Ready => self.number(2),
        };
        self.number(subject.held.len() as u64);
        for held in &subject.held {
            self.number(held.variant.into()).instant(held.dead_at).instant(held.checked_at);
            for at in [held.due, held.requested] {
                self.optional(at, |digest, at| digest.instant(at));
            }
            self.optional(held.record.as_deref(), |digest, record| digest.bytes(record));
        }
        self
    }

    fn delivery(&mut self, delivery: &Delivery) -> &mut Self {
        self.bytes(b"delivery").bytes(delivery.endpoint.as_bytes()).number(delivery.sequence);
        self.bytes(delivery.event_id.as_bytes()).bytes(&delivery.json).number(delivery.attempts);
        self.instant(delivery.due_at).instant(delivery.noticed_at).number(delivery.dead.into());
        self.optional(delivery.first_at, |digest, at| digest.instant(at));
        self.optional(delivery.subject.as_ref(), |digest, (device, jid)| {
            digest.bytes(device.as_bytes()).bytes(jid.as_bytes())
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_read_as_it_was_written() {
        let mut at = Place::START;
        for part in Part::ALL {
            assert_eq!(at, Place { part: Some(part), after: String::new() });
            for after in ["", "7", "a b\0", "7 \u{e9} \n"] {
                let place = Place { part: Some(part), after: after.to_owned() };
                assert_eq!(Place::decode(&place.encode()), Some(place));
            }
            at = Place::behind(part);
        }
        assert_eq!((at.part, Place::decode(&at.encode())), (None, Some(at.clone())));
        assert_eq!((Place::decode("nowhere 7"), Place::decode("log")), (None, None));
    }

    fn digest(items: &[Item]) -> String {
        let mut digest = Digest::default();
        for item in items {
            digest.item(item);
        }
        digest.text()
    }

    #[test]
    fn whatever_is_different_has_another_digest() {
        let held = Held { variant: 0, due: None, requested: None, record: None, dead_at: 0, checked_at: 0 };
        let subject = Subject {
            device: "d".into(),
            jid: "1@s.whatsapp.net".into(),
            revision: 7,
            state: vec![1],
            watch: None,
            rank: 1.5,
            outlook: None,
            recheck: Recheck::Never,
            held: vec![held.clone()],
        };
        let delivery = Delivery {
            endpoint: "e".into(),
            sequence: 1,
            event_id: "i".into(),
            subject: None,
            attempts: 0,
            first_at: None,
            due_at: 1,
            dead: false,
            json: b"{}".to_vec(),
            noticed_at: 1,
        };
        let of = |change: fn(&mut Subject)| {
            let mut subject = subject.clone();
            change(&mut subject);
            Item::Subject(Box::new(subject))
        };
        let to = |change: fn(&mut Delivery)| {
            let mut delivery = delivery.clone();
            change(&mut delivery);
            Item::Delivery(Box::new(delivery))
        };
        let all = [
            of(|_| {}),
            of(|subject| subject.device = "e".into()),
            of(|subject| subject.jid = "2@s.whatsapp.net".into()),
            of(|subject| subject.revision = 8),
            of(|subject| subject.state = vec![1, 1]),
            of(|subject| subject.watch = Some(0)),
            of(|subject| subject.rank = 1.25),
            of(|subject| subject.outlook = Some(vec![])),
            of(|subject| subject.recheck = Recheck::From(0)),
            of(|subject| subject.recheck = Recheck::Ready),
            of(|subject| subject.held.clear()),
            of(|subject| subject.held[0].variant = 1),
            of(|subject| subject.held[0].due = Some(0)),
            of(|subject| subject.held[0].requested = Some(0)),
            of(|subject| subject.held[0].record = Some(vec![])),
            of(|subject| subject.held[0].dead_at = 1),
            of(|subject| subject.held[0].checked_at = 1),
            to(|_| {}),
            to(|delivery| delivery.endpoint = "f".into()),
            to(|delivery| delivery.sequence = 2),
            to(|delivery| delivery.event_id = "j".into()),
            to(|delivery| delivery.subject = Some((String::new(), String::new()))),
            to(|delivery| delivery.attempts = 1),
            to(|delivery| delivery.first_at = Some(0)),
            to(|delivery| delivery.due_at = 2),
            to(|delivery| delivery.dead = true),
            to(|delivery| delivery.json = vec![]),
            to(|delivery| delivery.noticed_at = 2),
            Item::Device { device: "d".into(), record: vec![1] },
            Item::Device { device: "d".into(), record: vec![] },
            Item::Device { device: String::new(), record: vec![b'd'] },
            Item::Lane { device: "d".into(), virtual_now: 1.0 },
            Item::Lane { device: "d".into(), virtual_now: 2.0 },
            Item::Logged { sequence: 1, fields: Default::default() },
            Item::Logged { sequence: 2, fields: Default::default() },
            Item::Endpoint { id: "d".into(), record: vec![1], standing: vec![] },
            Item::Endpoint { id: "d".into(), record: vec![], standing: vec![1] },
        ];
        let mut digests: Vec<String> = all.iter().map(|item| digest(std::slice::from_ref(item))).collect();
        digests.push(digest(&all[..2]));
        digests.push(digest(&[all[1].clone(), all[0].clone()]));
        let count = digests.len();
        digests.sort_unstable();
        digests.dedup();
        assert_eq!(digests.len(), count);
    }
}
