//! Opening: can it be reached, does it let us in, is it new enough, and whose is what it holds.
//!
//! Everything that can be wrong is found here, before anything is written, and said in a sentence that names the server and what
//! to do. What is not ours is never touched.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{PoisonError, RwLock};

use redis::{ErrorKind, RedisError, ServerErrorKind, Value};
use tokio::sync::watch;

use super::address::{Address, Shape};
use super::confirm::Confirmed;
use super::link::Link;
use super::reply::Fields;
use super::scripts::{Arguments, Scripts};
use super::together::Landings;
use super::{Seen, Shared};
use crate::clock::Clock;
use crate::store::{OpenError, StoreError};

/// How keys and values are laid out; see `ARCHITECTURE.md`. A program that changes it raises the number, and reads or converts what
/// was released with an older one. None was: 1 is refused.
pub(super) const FORMAT: u8 = 2;

/// What a server is that takes no writes.
pub(super) const READ_ONLY: &str = "is a read-only replica: name its primary, or the Sentinels that know it";

/// What the server must be.
const OLDEST: &str = "7.0";

/// What was found.
pub(super) enum Found {
    /// A store.
    Open(Seen, Begun),
    /// What another program made, and in which format.
    Other(u64),
    /// A key of ours that is something else.
    Foreign,
    /// What a migration has not finished.
    Unfinished,
}

/// Whether a log was begun now.
pub(super) enum Begun {
    No,
    /// There was nothing.
    Empty,
    /// There was less than there had been.
    Behind,
}

pub(super) async fn open(address: Address, clock: Clock) -> Result<Shared, OpenError> {
    let said = address.to_string();
    let shared = connect(address, clock).await?;
    match shared.find_or_make().await.map_err(|error| explain(&shared.link.address, &error))? {
        Ok(Found::Open(seen, _)) => {
            shared.sees(seen);
            Ok(shared)
        }
        Ok(found) => Err(OpenError(refused(&said, &shared.meta, &found))),
        Err(error) => Err(OpenError(format!("the store {said} cannot be used: {error}"))),
    }
}

/// Connects to a server that is new enough, and writes nothing.
pub(super) async fn connect(address: Address, clock: Clock) -> Result<Shared, OpenError> {
    let said = address.to_string();
    let meta = address.meta();
    let link = link(address)?;
    let (tip, _) = watch::channel(0);
    let (tokens, seen) = (AtomicU64::new(0), RwLock::default());
    let (scripts, landings, confirmed) = (Scripts::new(), Landings::default(), Confirmed::default());
    let replica = fastrand::u64(..);
    let shared = Shared { link, scripts, clock, replica, meta, tokens, seen, tip, landings, confirmed };
    let failed = |error: RedisError| explain(&shared.link.address, &error);
    let version = shared.send(&shared.scripts.version, &Arguments::default()).await.map_err(failed)?;
    check_version(&said, &text(version))?;
    Ok(shared)
}

/// The way to a server, which is not gone yet.
pub(super) fn link(address: Address) -> Result<Link, OpenError> {
    let said = address.to_string();
    Link::new(address).map_err(|error| {
        OpenError(format!("the authorities for the store {said} cannot be read: {error}; name a file that can"))
    })
}

impl Shared {
    async fn find_or_make(&self) -> Result<Result<Found, StoreError>, RedisError> {
        let token = self.tokens.load(Ordering::Relaxed);
        let tokens = first_token(&self.clock).max(token + 1);
        let epoch = format!("{:016x}", fastrand::u64(..));
        let arguments = self.with_seen(&Arguments::default().with(FORMAT).with(epoch).number(tokens));
        self.send(&self.scripts.open, &arguments).await.map(found)
    }

    /// Goes on with what is there now, which is not what was seen before.
    pub(super) async fn begin(&self) -> Result<(), StoreError> {
        let (seen, begun) = match self.find_or_make().await?? {
            Found::Open(seen, begun) => (seen, begun),
            found => return Err(StoreError::Unavailable(refused(&self.link.address.to_string(), &self.meta, &found))),
        };
        match begun {
            Begun::No => {}
            Begun::Empty => {
                tracing::warn!("nothing is left of the store: it begins anew, and subscribers are told of a gap");
            }
            Begun::Behind => {
                tracing::warn!(
                    "the store has lost what was written last: it goes on, and subscribers who were told of it are told of a gap"
                );
            }
        }
        self.sees(seen);
        Ok(())
    }

    fn sees(&self, found: Seen) {
        let mut seen = self.seen.write().unwrap_or_else(PoisonError::into_inner);
        // Of what was seen of one log meanwhile nothing is forgotten.
        if found.epoch != seen.epoch || found.last > seen.last {
            self.tip.send_replace(found.last);
            *seen = found;
        }
    }
}

/// Where the tokens of a new store begin. Nobody hands out a million a second, so that the clock is ahead of every token.
pub(super) fn first_token(clock: &Clock) -> u64 {
    u64::try_from(clock.now().as_millis()).unwrap_or_default().saturating_mul(1000)
}

fn found(answer: Value) -> Result<Found, StoreError> {
    let mut answer = Fields::of(answer)?;
    Ok(match answer.text()?.as_str() {
        "open" => {
            let seen = Seen { epoch: answer.text()?, last: answer.number()?, event: answer.text()? };
            let begun = match answer.number::<u8>()? {
                0 => Begun::No,
                1 => Begun::Empty,
                _ => Begun::Behind,
            };
            Found::Open(seen, begun)
        }
        "other" => Found::Other(answer.number()?),
        "unfinished" => Found::Unfinished,
        _ => Found::Foreign,
    })
}

pub(super) fn refused(said: &str, meta: &str, found: &Found) -> String {
    match found {
        Found::Other(format) => other(said, *format),
        Found::Unfinished => format!(
            "the store {said} is being filled by `avatar-proxy migrate`, which has not finished: run that again to its end, or \
             give this one a ?prefix= of its own"
        ),
        _ => foreign(said, meta),
    }
}

pub(super) fn other(said: &str, format: u64) -> String {
    format!(
        "the store {said} has format {format}, and this program knows format {FORMAT}: start the program that made it, or \
         give this one a ?prefix= of its own"
    )
}

pub(super) fn foreign(said: &str, meta: &str) -> String {
    format!("the key {meta} at {said} is another program's: give this one a ?prefix= of its own")
}

pub(super) fn text(version: Value) -> String {
    match version {
        Value::BulkString(bytes) => String::from_utf8_lossy(&bytes).into_owned(),
        Value::VerbatimString { text, .. } | Value::SimpleString(text) => text,
        _ => String::new(),
    }
}

/// Valkey, too, says which Redis it speaks like.
pub(super) fn check_version(said: &str, info: &str) -> Result<(), OpenError> {
    let version = info.lines().find_map(|line| line.strip_prefix("redis_version:")).unwrap_or_default().trim();
    let major = version.split('.').next().and_then(|major| major.parse::<u32>().ok());
    match major {
        Some(7..) => Ok(()),
        Some(_) => Err(OpenError(format!(
            "the server at {said} is Redis {version}, and the store needs {OLDEST} or newer, or Valkey"
        ))),
        None => {
            Err(OpenError(format!("the server at {said} does not tell its version: is it Redis {OLDEST} or newer?")))
        }
    }
}

pub(super) fn explain(address: &Address, error: &RedisError) -> OpenError {
    let sentence = match (error.kind(), error.code()) {
        (ErrorKind::AuthenticationFailed, _) | (_, Some("WRONGPASS" | "NOAUTH")) => {
            "does not accept this user and password: give them in the URL, as in redis://user:password@host".to_owned()
        }
        (ErrorKind::Server(ServerErrorKind::NoPerm), _) => lacks_rights(error),
        _ if error.detail().is_some_and(within_script) => lacks_rights(error),
        (ErrorKind::Server(ServerErrorKind::Moved | ServerErrorKind::CrossSlot), _)
            if address.shape != Shape::Cluster =>
        {
            "is a node of a cluster: write redis+cluster://".to_owned()
        }
        _ if address.shape == Shape::Cluster && error.to_string().contains("cluster support disabled") => {
            "is no cluster: write redis:// or rediss://".to_owned()
        }
        (ErrorKind::InvalidClientConfig, _) if error.to_string().contains("not point to a sentinel") => {
            "is no Sentinel: name the Sentinels and not what they watch over, or write redis://".to_owned()
        }
        (ErrorKind::Server(ServerErrorKind::ReadOnly), _) => READ_ONLY.to_owned(),
        (_, Some("OOM")) => "has no room left: give it more (maxmemory)".to_owned(),
        (ErrorKind::Server(ServerErrorKind::BusyLoading), _) => "is still loading its data: try again soon".to_owned(),
        (ErrorKind::MasterNameNotFoundBySentinel, _) => "are Sentinels that know no primary of this service".to_owned(),
        (ErrorKind::Parse, _) => {
            "does not speak as a Redis does: correct the host, the port, or rediss:// for TLS".to_owned()
        }
        _ if error.is_connection_refusal() => format!("cannot be reached: {error}; start it, or name another"),
        _ if error.to_string().contains("failed to lookup address") => {
            "cannot be found: its name has no address; correct it, or what this machine knows of names (DNS)".to_owned()
        }
        _ if error.is_timeout() && address.tls => {
            format!("cannot be reached: {error}; start it, see that it speaks TLS, or name another")
        }
        _ if error.is_timeout() => format!("cannot be reached: {error}; start it, or name another"),
        _ if error.is_io_error() && address.tls => format!(
            "makes no secure connection: {error}; see that it speaks TLS, that its certificate is for this name and has not \
             expired, and name a private authority with ?ca=FILE"
        ),
        _ if error.is_io_error() => {
            format!("breaks the connection off: {error}; see that it is a Redis, and whether it wants TLS (rediss://)")
        }
        _ => format!("cannot be used: {error}"),
    };
    OpenError(format!("the Redis at {address} {sentence}"))
}

fn lacks_rights(error: &RedisError) -> String {
    let said = error.detail().unwrap_or("it does not say what");
    format!(
        "does not let this user do what the store needs ({said}): allow scripts (EVAL, EVALSHA), INFO, and all commands on \
         its keys"
    )
}

/// Whether it was a script that met what its user may not do. Redis and Valkey have no code for that.
fn within_script(said: &str) -> bool {
    said.contains("The user executing the script can't") || said.contains("ACL failure in script")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn servers_that_are_too_old_are_named() {
        for (info, refused) in [
            ("# Server\r\nredis_version:7.0.15\r\nredis_mode:standalone\r\n", None),
            ("redis_version:7.2.4\r\nserver_name:valkey\r\nvalkey_version:8.1.0\r\n", None),
            ("redis_version:10.0.0\r\n", None),
            ("redis_version:6.2.14\r\n", Some("is Redis 6.2.14, and the store needs 7.0 or newer, or Valkey")),
            ("redis_version:x\r\n", Some("does not tell its version")),
            ("", Some("does not tell its version")),
        ] {
            let said = check_version("redis://h:1", info).err().map(|error| error.0);
            assert_eq!(said.is_some(), refused.is_some(), "{info}: {said:?}");
            assert!(said.unwrap_or_default().contains(refused.unwrap_or_default()), "{info}");
        }
    }
}
