//! Filling a store with what another engine holds: the other end of [`crate::store::sqlite::migration`].
//!
//! The rules kept here:
//! * A server with anything of ours is left alone, unless it is this very migration that was interrupted.
//! * Until it is finished it is no store: it has a mark, and no epoch, so that every other script refuses it.
//! * A page is one script: its items and the place behind them are written together, and once, however often it is sent.
//! * Whatever follows from what is written, such as places in queues, is written by the functions that all scripts share.

use redis::{RedisError, Value};

use super::address::Address;
use super::reply::{Fields, number, unreadable};
use super::scripts::{Arguments, Script};
use super::{Shared, open};
use crate::clock::Clock;
use crate::store::migration::{Delivery, FIELDS, Head, Held, Item, Page, Part, Place, Recheck, Subject, Tally};
use crate::store::{OpenError, StoreError};

macro_rules! script {
    ($flags:literal, $name:literal) => {
        Script::new(concat!(
            "#!lua",
            $flags,
            "\n",
            include_str!("common.lua"),
            include_str!(concat!("migration/", $name))
        ))
    };
}

/// A store that is being filled.
pub struct Target {
    shared: Shared,
    head: Head,
    put: Script,
    tell: Script,
    sum: Script,
    finish: Script,
}

/// How far a migration has come.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Begun {
    /// From where on to go on.
    pub at: Place,
    /// How many items are there already.
    pub rows: u64,
}

impl Target {
    /// Begins to fill a server that has nothing of ours, or goes on. `tokens` is the highest in the source, and `source` differs when
    /// that was used meanwhile.
    ///
    /// # Errors
    /// When the server cannot be used, or holds something else. Nothing is touched then.
    pub async fn open(
        address: Address,
        clock: Clock,
        head: &Head,
        tokens: u64,
        source: &str,
    ) -> Result<(Self, Begun), OpenError> {
        let shared = open::connect(address, clock).await?;
        let target = Self {
            shared,
            head: head.clone(),
            put: script!("", "put.lua"),
            tell: script!(" flags=no-writes", "tell.lua"),
            sum: script!(" flags=no-writes", "sum.lua"),
            finish: script!("", "finish.lua"),
        };
        let script = Script::new(concat!("#!lua\n", include_str!("migration/begin.lua")));
        let arguments = Arguments::default()
            .with(open::FORMAT)
            .with(target.mark())
            .with(source)
            .with(Place::START.encode())
            .number(tokens.max(open::first_token(&target.shared.clock)))
            .number(head.trimmed)
            .number(head.last)
            .or_empty(head.lessons.as_deref());
        let sent = target.shared.send(&script, &arguments).await;
        let answer = sent.map_err(|error| open::explain(&target.shared.link.address, &error))?;
        let found =
            target.begun(answer).map_err(|error| OpenError(target.refused(&format!("cannot be used: {error}"))))?;
        found.map(|begun| (target, begun)).map_err(OpenError)
    }

    /// What stands in the place of the epoch until the end.
    fn mark(&self) -> String {
        format!("from {}", self.head.epoch)
    }

    fn begun(&self, answer: Value) -> Result<Result<Begun, String>, StoreError> {
        let mut answer = Fields::of(answer)?;
        let said = self.shared.link.address.to_string();
        let refusal = match answer.text()?.as_str() {
            "begun" => {
                let at = Place::decode(&answer.text()?).ok_or_else(|| unreadable("place"))?;
                return Ok(Ok(Begun { at, rows: answer.number()? }));
            }
            "other" => open::other(&said, answer.number()?),
            "foreign" => open::foreign(&said, &self.shared.meta),
            "store" if answer.text()? == self.head.epoch.to_string() => {
                self.refused("holds this store already: it was migrated to the end before")
            }
            "store" => self.refused("holds a store already; name an empty one, or another ?prefix="),
            "remains" => self.refused(&format!(
                "holds the key {} although no store: name an empty one, or another ?prefix=",
                answer.text()?
            )),
            "another" => self.refused("is being filled from another store: name an empty one, or another ?prefix="),
            _ => self.refused(
                "was being filled from this file, which was used since: remove all its keys, or name another ?prefix=, and begin anew",
            ),
        };
        Ok(Err(refusal))
    }

    fn refused(&self, why: &str) -> String {
        format!("the Redis at {} {why}", self.shared.link.address)
    }

    async fn run(&self, script: &Script, arguments: &Arguments) -> Result<Value, StoreError> {
        // In the place of a log as it was seen there is the mark.
        let arguments = arguments.clone().with("").with(self.mark()).number(0);
        self.shared.send(script, &arguments).await.map_err(|error| self.explain(&error))
    }

    fn explain(&self, error: &RedisError) -> StoreError {
        StoreError::Unavailable(match error.code() {
            Some("EMPTIED") => self.refused("has lost what was carried over"),
            _ => open::explain(&self.shared.link.address, error).0,
        })
    }

    /// Writes a page, durably.
    ///
    /// # Errors
    /// When the server fails, or is not where this migration has left it. Then it may have been written all the same.
    pub async fn put(&self, page: &Page) -> Result<(), StoreError> {
        let part = page.from.part.map_or("", Part::as_str);
        let head =
            Arguments::default().with(page.from.encode()).with(page.next.encode()).with(part).with(page.items.len());
        let arguments = page.items.iter().fold(head, written);
        self.expect(self.run(&self.put, &arguments).await?)
    }

    fn expect(&self, answer: Value) -> Result<(), StoreError> {
        match number::<u64>(answer)? {
            0 => Err(StoreError::Unavailable(self.refused(
                "is not where this migration has left it: it has lost what was written last, or another migration fills it",
            ))),
            _ => Ok(()),
        }
    }

    /// What has become of items that were put; `None` for one that is not there.
    ///
    /// # Errors
    /// When the server fails.
    pub async fn tell(&self, part: Part, items: &[Item]) -> Result<Vec<Option<Item>>, StoreError> {
        let arguments = items.iter().fold(Arguments::default().with(part.as_str()), named);
        let told = Fields::of(self.run(&self.tell, &arguments).await?)?;
        items.iter().zip(told).map(|(item, told)| read(item, Fields::of(told)?)).collect()
    }

    /// What there is one of, and how much there is of all else.
    ///
    /// # Errors
    /// When the server fails.
    pub async fn sum(&self) -> Result<(Head, Tally), StoreError> {
        let mut sum = Fields::of(self.run(&self.sum, &Arguments::default()).await?)?;
        let mark = sum.text()?;
        let epoch = mark.strip_prefix("from ").and_then(|epoch| epoch.parse().ok());
        let head = Head {
            epoch: epoch.ok_or_else(|| unreadable("mark"))?,
            trimmed: sum.number()?,
            last: sum.number()?,
            lessons: sum.optional_bytes()?,
        };
        let tally = Tally {
            devices: sum.number()?,
            subjects: sum.number()?,
            entries: sum.number()?,
            watches: sum.number()?,
            logged: sum.number()?,
            endpoints: sum.number()?,
            deliveries: sum.number()?,
        };
        Ok((head, tally))
    }

    /// From here on it is a store.
    ///
    /// # Errors
    /// When the server fails, or is not where this migration has left it.
    pub async fn finish(&self) -> Result<(), StoreError> {
        let end = Place { part: None, after: String::new() };
        let arguments = Arguments::default().with(end.encode()).with(self.head.epoch.to_string());
        self.expect(self.run(&self.finish, &arguments).await?)
    }
}

/// An item, as `put` is given it.
fn written(arguments: Arguments, item: &Item) -> Arguments {
    let named = named(arguments, item);
    match item {
        Item::Device { record, .. } => named.with(&record[..]),
        Item::Subject(subject) => {
            let named = named
                .number(subject.revision)
                .with(&subject.state[..])
                .or_empty(subject.watch)
                .with(subject.rank)
                .or_empty(subject.outlook.as_deref());
            let named = match subject.recheck {
                Recheck::Never => named.with(""),
                Recheck::From(at) => named.with(at),
                Recheck::Ready => named.with("ready"),
            };
            subject.held.iter().fold(named.with(subject.held.len()), |arguments, held| {
                arguments
                    .with(held.variant)
                    .or_empty(held.due)
                    .or_empty(held.requested)
                    .or_empty(held.record.as_deref())
                    .with(held.dead_at)
                    .with(held.checked_at)
            })
        }
        Item::Lane { virtual_now, .. } => named.with(*virtual_now),
        Item::Logged { fields, .. } => fields.iter().fold(named, Arguments::with),
        Item::Endpoint { record, standing, .. } => named.with(&record[..]).with(&standing[..]),
        Item::Delivery(delivery) => {
            let (device, jid) = delivery.subject.clone().unwrap_or_default();
            named
                .with(&delivery.event_id)
                .with(device)
                .with(jid)
                .with(delivery.attempts)
                .or_empty(delivery.first_at)
                .with(delivery.due_at)
                .with(u8::from(delivery.dead))
                .with(&delivery.json[..])
                .with(delivery.noticed_at)
        }
    }
}

/// An item's name, which its other arguments follow.
fn named(arguments: Arguments, item: &Item) -> Arguments {
    match item {
        Item::Device { device, .. } | Item::Lane { device, .. } => arguments.with(device),
        Item::Subject(subject) => arguments.with(&subject.device).with(&subject.jid),
        Item::Logged { sequence, .. } => arguments.with(*sequence),
        Item::Endpoint { id, .. } => arguments.with(id),
        Item::Delivery(delivery) => arguments.with(&delivery.endpoint).with(delivery.sequence),
    }
}

/// What `tell` says of an item of this name.
fn read(named: &Item, mut told: Fields) -> Result<Option<Item>, StoreError> {
    if told.is_empty() {
        return Ok(None);
    }
    Ok(Some(match named {
        Item::Device { device, .. } => {
            let Some(record) = told.optional_bytes()? else { return Ok(None) };
            Item::Device { device: device.clone(), record }
        }
        Item::Subject(subject) => Item::Subject(Box::new(Subject {
            device: subject.device.clone(),
            jid: subject.jid.clone(),
            revision: told.number()?,
            state: told.bytes()?,
            watch: told.optional_number()?,
            rank: float(&mut told)?,
            outlook: told.optional_bytes()?,
            recheck: recheck(&mut told)?,
            held: told.list()?.map(held).collect::<Result<_, _>>()?,
        })),
        Item::Lane { device, .. } => {
            let Some(text) = told.optional_bytes()? else { return Ok(None) };
            let virtual_now = String::from_utf8(text).ok().and_then(|text| text.parse().ok());
            Item::Lane { device: device.clone(), virtual_now: virtual_now.ok_or_else(|| unreadable("virtual time"))? }
        }
        Item::Logged { sequence, .. } => {
            let mut fields: [String; FIELDS] = Default::default();
            for field in &mut fields {
                *field = told.text()?;
            }
            Item::Logged { sequence: *sequence, fields }
        }
        Item::Endpoint { id, .. } => {
            let (record, standing) = (told.optional_bytes()?, told.optional_bytes()?);
            let Some((record, standing)) = record.zip(standing) else { return Ok(None) };
            Item::Endpoint { id: id.clone(), record, standing }
        }
        Item::Delivery(delivery) => Item::Delivery(Box::new(Delivery {
            endpoint: delivery.endpoint.clone(),
            sequence: delivery.sequence,
            event_id: told.text()?,
            subject: told
                .optional_subject()?
                .map(|subject| (subject.device.as_str().to_owned(), subject.jid.to_string())),
            attempts: told.number()?,
            first_at: told.optional_number()?,
            due_at: told.number()?,
            dead: told.number::<u8>()? > 0,
            json: told.bytes()?,
            noticed_at: told.number()?,
        })),
    }))
}

fn float(told: &mut Fields) -> Result<f64, StoreError> {
    told.text()?.parse().map_err(|_| unreadable("rank"))
}

fn recheck(told: &mut Fields) -> Result<Recheck, StoreError> {
    let Some(text) = told.optional_bytes()? else { return Ok(Recheck::Never) };
    if text == b"ready" {
        return Ok(Recheck::Ready);
    }
    // A score, in the server's words.
    let at = String::from_utf8(text).ok().and_then(|text| text.parse::<f64>().ok());
    #[allow(clippy::cast_possible_truncation)] // written as a whole number that a score is exact for
    at.map(|at| Recheck::From(at as i64)).ok_or_else(|| unreadable("time"))
}

fn held(row: Value) -> Result<Held, StoreError> {
    let mut row = Fields::of(row)?;
    Ok(Held {
        variant: row.number()?,
        due: row.optional_number()?,
        requested: row.optional_number()?,
        record: row.optional_bytes()?,
        dead_at: row.number()?,
        checked_at: row.number()?,
    })
}
