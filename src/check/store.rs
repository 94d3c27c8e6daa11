//! The store: could it be opened, how safe is what it is told, how much room is left, how quick is it.

use std::path::PathBuf;
use std::time::Duration;

use bytesize::ByteSize;

use super::machine::Proxy;
use super::{Finding, PATIENCE, Place, clocks, shown};
use crate::clock::Clock;
use crate::store::redis::Address;
use crate::store::{redis, sqlite};

const STORE: &str = "store";
const ROOM: &str = "store's room";
const DISK: &str = "store's disk";
const REPLICAS: &str = "store's replicas";

/// Less free space than this is a matter of days: a million entries take 622 MiB, and the log of writes up to 64 MiB beside them.
const LITTLE_ROOM: u64 = 1 << 30;

/// Less than this is a matter of hours.
const NO_ROOM: u64 = 64 << 20;

/// Each lookup that memory cannot meet waits for the store some times.
const SLOW: Duration = Duration::from_millis(50);

pub(super) async fn findings(place: Place, proxy: &Proxy, clock: &Clock) -> Vec<Finding> {
    let looked = async {
        match place {
            Place::Sqlite(path) => in_file(path, proxy).await,
            Place::Redis(address) => on_server(address, clock).await,
        }
    };
    let late = || vec![Finding::wrong(STORE, "it does not answer in time", "see whether its disk or server hangs")];
    tokio::time::timeout(PATIENCE, looked).await.unwrap_or_else(|_| late())
}

async fn in_file(path: PathBuf, proxy: &Proxy) -> Vec<Finding> {
    let seen = match tokio::task::spawn_blocking(move || sqlite::probe::probe(&path)).await {
        Ok(Ok(seen)) => seen,
        Ok(Err(error)) => return vec![Finding::refused(STORE, error)],
        Err(error) => return vec![Finding::refused(STORE, error)],
    };
    let (file, takes) = (seen.file.display(), ByteSize(seen.bytes));
    let state = match seen.state {
        sqlite::probe::State::Absent => Finding::ok(STORE, format!("{file} is not there yet, and can be made")),
        sqlite::probe::State::Sound => Finding::ok(STORE, format!("{file} can be opened; it takes {takes}")),
        sqlite::probe::State::Older(version) => Finding::warning(
            STORE,
            format!("{file} can be opened; it has the older version {version}, which is brought up to date then"),
            "back it up first: a program that knows only the older version refuses it from then on",
        ),
        sqlite::probe::State::Held(process) if proxy.runs().await => Finding::ok(
            STORE,
            format!("{file} is in use by process {process}, as the proxy that runs here has it; it takes {takes}"),
        ),
        sqlite::probe::State::Held(process) => Finding::wrong(
            STORE,
            format!("{file} is in use by process {process}"),
            "stop that one, or give this one a file of its own",
        ),
    };
    vec![state, free(seen.free)]
}

/// What so many bytes that are free amount to.
fn free(bytes: u64) -> Finding {
    let what = format!("{} are free beside the file", ByteSize(bytes));
    if bytes < NO_ROOM {
        Finding::wrong(ROOM, what, "make room: what cannot be written is known to memory alone")
    } else if bytes < LITTLE_ROOM {
        Finding::warning(
            ROOM,
            what,
            "make room: a million people take 622 MiB, and the log of writes 64 MiB beside them",
        )
    } else {
        Finding::ok(ROOM, what)
    }
}

async fn on_server(address: Address, clock: &Clock) -> Vec<Finding> {
    let said = address.to_string();
    let seen = match redis::probe::probe(address).await {
        Ok(seen) => seen,
        Err(error) => return vec![Finding::refused(STORE, error)],
    };
    let holds = if seen.begun { "holds a store" } else { "holds no store yet" };
    let what =
        format!("{said} is Redis {} or speaks like it, {holds}, and answers in {}", seen.version, shown(seen.latency));
    let state = if seen.latency > SLOW {
        Finding::warning(STORE, what, "bring it nearer: what memory cannot meet waits for it some times")
    } else {
        Finding::ok(STORE, what)
    };
    let clock = clocks("store's clock", "Redis's", seen.time, clock.now(), seen.latency);
    vec![state, room(&seen), disk(&seen), replicas(&seen), clock]
}

fn room(seen: &redis::probe::Seen) -> Finding {
    let (limit, used) = seen.memory;
    let held = format!("{} of {}", ByteSize(used), ByteSize(limit));
    match seen.eviction.as_deref() {
        None => Finding::warning(
            ROOM,
            "the server does not tell what it does when it is full",
            "see that it drops nothing (noeviction)",
        ),
        Some("noeviction") if limit == 0 => Finding::ok(ROOM, "it drops nothing by itself, and has no limit"),
        Some("noeviction") if used >= limit => Finding::wrong(
            ROOM,
            format!("it is full: it holds {held}"),
            "raise maxmemory: until then nothing is recorded",
        ),
        Some("noeviction") if used > limit / 5 * 4 => Finding::warning(
            ROOM,
            format!("it holds {held}"),
            "raise maxmemory: when it is full, nothing more is recorded",
        ),
        Some("noeviction") => Finding::ok(ROOM, format!("it drops nothing by itself, and holds {held}")),
        Some(policy) if limit == 0 => Finding::warning(
            ROOM,
            format!("it would drop keys if it had a limit (maxmemory-policy {policy})"),
            "set maxmemory-policy noeviction: the proxy drops what is too old itself",
        ),
        Some(policy) => Finding::wrong(
            ROOM,
            format!(
                "it drops keys when it is full (maxmemory-policy {policy}), and with them changes that nobody was told of"
            ),
            "set maxmemory-policy noeviction: the proxy drops what is too old itself",
        ),
    }
}

fn disk(seen: &redis::probe::Seen) -> Finding {
    if seen.disk_fails {
        return Finding::wrong(
            DISK,
            "writing to its disk failed",
            "see Redis's log: the disk is full, or may not be written to",
        );
    }
    match (seen.journal.as_deref(), seen.snapshots) {
        (Some("always"), _) => Finding::ok(DISK, "what it acknowledges is on its disk (appendfsync always)"),
        (Some("no"), _) => Finding::warning(
            DISK,
            "it writes everything down, some time (appendfsync no)",
            "set appendfsync everysec, to lose a second's at the most, or always",
        ),
        (Some(""), _) => Finding::ok(DISK, "it writes everything down (appendonly yes), and does not tell how soon"),
        (Some(_), _) => Finding::ok(DISK, "a power cut costs it a second's writes at the most (appendonly yes)"),
        (None, Some(false)) => Finding::warning(
            DISK,
            "it keeps nothing on its disk: when it is restarted, watches, webhooks and all that is known are gone",
            "set appendonly yes",
        ),
        (None, None) => {
            Finding::warning(DISK, "it does not write everything down (appendonly no)", "set appendonly yes")
        }
        (None, Some(true)) => Finding::warning(
            DISK,
            "it writes down what it holds now and then: when it is restarted, what came since is lost",
            "set appendonly yes",
        ),
    }
}

fn replicas(seen: &redis::probe::Seen) -> Finding {
    let redis::probe::Seen { replicas, replicas_wanted, .. } = *seen;
    if replicas < replicas_wanted {
        let what =
            format!("it has {replicas}, and takes no writes with less than {replicas_wanted} (min-replicas-to-write)");
        return Finding::wrong(REPLICAS, what, "bring its replicas back, or lower min-replicas-to-write");
    }
    match replicas {
        0 => Finding::ok(REPLICAS, "it has none: what it loses is lost"),
        _ => Finding::ok(REPLICAS, format!("it has {replicas}; a change is announced when one of them has it")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::Verdict;

    #[test]
    fn a_disk_is_judged_before_it_is_full() {
        let verdict = |bytes| free(bytes).verdict;
        assert_eq!((verdict(0), verdict(63 << 20)), (Verdict::Wrong, Verdict::Wrong));
        assert_eq!((verdict(64 << 20), verdict(1023 << 20)), (Verdict::Warning, Verdict::Warning));
        assert_eq!(verdict(1 << 30), Verdict::Ok);
    }
}
