//! Looking at a server without opening a store there: is it one that a store could be on, how is it set up, how quick is it.
//!
//! Nothing is written, no script is left there, and what is read of the store is its format. Whether the user may do what a store
//! needs is asked with calls that a server refuses for another reason once it has seen that they are allowed. A setting that the
//! server does not tell (a provider may keep `CONFIG` to itself) is `None`.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use redis::{Cmd, ErrorKind, RedisError, ServerErrorKind, Value, cmd, from_redis_value};

use super::address::Address;
use super::link::{ANSWER, Wire};
use super::open::{FORMAT, Found, READ_ONLY, check_version, explain, link, refused, text};
use crate::clock::Timestamp;
use crate::store::OpenError;

/// How often it is asked how long it takes.
const ROUNDS: usize = 5;

/// A server that a store could be opened on.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Seen {
    /// The version that it says it speaks like.
    pub version: String,
    /// Whether a store is there already.
    pub begun: bool,
    /// What time it is there.
    pub time: Timestamp,
    /// How long it takes to answer: the median of some.
    pub latency: Duration,
    /// What is dropped when it is full.
    pub eviction: Option<String>,
    /// What it may hold, and what it holds (bytes). 0: as much as there is.
    pub memory: (u64, u64),
    /// Whether it writes everything down, and how soon: `appendfsync`.
    pub journal: Option<String>,
    /// Whether it writes down all that it holds now and then. `None`: it does not tell.
    pub snapshots: Option<bool>,
    /// Whether writing down failed when it was last tried.
    pub disk_fails: bool,
    /// Servers that copy it.
    pub replicas: u32,
    /// How many of them must be there for it to take writes.
    pub replicas_wanted: u32,
}

/// Looks. Every question has a deadline; after one that is not answered nothing more is asked.
///
/// # Errors
/// Why no store could be opened there, in the words in which opening would say it.
pub async fn probe(address: Address) -> Result<Seen, OpenError> {
    let said = address.to_string();
    let meta = address.meta();
    let link = link(address)?;
    let failed = |error: RedisError| explain(&link.address, &error);
    let mut asked = Asked { wire: link.connect(ANSWER).await.map_err(failed)?, meta };
    let info = asked.info().await.map_err(failed)?;
    let version = info.get("redis_version").cloned().unwrap_or_default();
    check_version(&said, &format!("redis_version:{version}"))?;
    if info.get("role").is_some_and(|role| role == "slave") {
        return Err(OpenError(format!("the Redis at {said} {READ_ONLY}")));
    }
    let begun = match asked.holds().await.map_err(failed)? {
        Holds::Nothing => false,
        Holds::Ours => true,
        Holds::Other(found) => return Err(OpenError(refused(&said, &asked.meta, &found))),
    };
    asked.rights().await.map_err(failed)?;
    let latency = asked.latency().await.map_err(failed)?;
    let time = asked.time().await.map_err(failed)?;
    let settings = asked.settings().await;
    let number = |name: &str| info.get(name).and_then(|text| text.parse::<u64>().ok()).unwrap_or_default();
    let small = |text: Option<&String>| text.and_then(|text| text.parse().ok()).unwrap_or_default();
    let fails = |name: &str| info.get(name).is_some_and(|status| status != "ok");
    let writes_all = info.get("aof_enabled").is_some_and(|enabled| enabled == "1");
    Ok(Seen {
        version,
        begun,
        time,
        latency,
        eviction: info.get("maxmemory_policy").cloned(),
        memory: (number("maxmemory"), number("used_memory")),
        journal: writes_all.then(|| settings.get("appendfsync").cloned().unwrap_or_default()),
        snapshots: settings.get("save").map(|when| !when.is_empty()),
        disk_fails: writes_all && fails("aof_last_write_status") || fails("rdb_last_bgsave_status"),
        replicas: small(info.get("connected_slaves")),
        replicas_wanted: small(settings.get("min-replicas-to-write")),
    })
}

/// What stands where a store would.
enum Holds {
    Nothing,
    Ours,
    Other(Found),
}

struct Asked {
    wire: Wire,
    meta: String,
}

impl Asked {
    async fn ask(&mut self, command: &Cmd) -> Result<Value, RedisError> {
        self.wire.send_to_node_of(&self.meta, command.clone()).await
    }

    async fn info(&mut self) -> Result<HashMap<String, String>, RedisError> {
        let info = text(self.ask(&cmd("INFO")).await?);
        let pairs = info.lines().filter_map(|line| line.split_once(':'));
        Ok(pairs.map(|(name, value)| (name.to_owned(), value.trim().to_owned())).collect())
    }

    async fn holds(&mut self) -> Result<Holds, RedisError> {
        let meta = self.meta.clone();
        match text(self.ask(cmd("TYPE").arg(&meta)).await?).as_str() {
            "none" => return Ok(Holds::Nothing),
            "hash" => {}
            _ => return Ok(Holds::Other(Found::Foreign)),
        }
        let fields = self.ask(cmd("HMGET").arg(&meta).arg(&["format", "migration"])).await?;
        let (format, migration): (Option<String>, Option<Value>) = from_redis_value(fields)?;
        Ok(match format.and_then(|format| format.parse::<u64>().ok()) {
            Some(format) if format != u64::from(FORMAT) => Holds::Other(Found::Other(format)),
            Some(_) if migration.is_some() => Holds::Other(Found::Unfinished),
            Some(_) => Holds::Ours,
            None => Holds::Other(Found::Foreign),
        })
    }

    /// Whether this user may run scripts on the store's keys, and wait for replicas. No script has the first digest, and none has less
    /// than no keys.
    async fn rights(&mut self) -> Result<(), RedisError> {
        let meta = self.meta.clone();
        for call in [
            cmd("EVALSHA").arg("0".repeat(40)).arg(1).arg(&meta),
            cmd("EVAL").arg("").arg(-1),
            cmd("WAIT").arg(0).arg(0),
        ] {
            match self.ask(call).await {
                Err(error) if error.kind() == ErrorKind::Server(ServerErrorKind::NoPerm) => return Err(error),
                Err(error) if error.is_io_error() => return Err(error),
                _ => {}
            }
        }
        Ok(())
    }

    async fn latency(&mut self) -> Result<Duration, RedisError> {
        let mut took = [Duration::ZERO; ROUNDS];
        for round in &mut took {
            let began = Instant::now();
            self.ask(&cmd("PING")).await?;
            *round = began.elapsed();
        }
        took.sort_unstable();
        Ok(took[ROUNDS / 2])
    }

    async fn time(&mut self) -> Result<Timestamp, RedisError> {
        let (seconds, micros): (i64, i64) = from_redis_value(self.ask(&cmd("TIME")).await?)?;
        Ok(Timestamp::from_millis(seconds.saturating_mul(1000).saturating_add(micros / 1000)))
    }

    /// Settings, as far as they are told.
    async fn settings(&mut self) -> HashMap<String, String> {
        let names = ["appendfsync", "save", "min-replicas-to-write"];
        let told = self.ask(cmd("CONFIG").arg("GET").arg(&names)).await;
        told.ok().and_then(|told| from_redis_value(told).ok()).unwrap_or_default()
    }
}
