//! What lies in a Redis server, which has a core of its own: how fast it is recorded and found, what it costs the server, and what
//! it takes of its memory. And whether hits in memory are as fast as with a store in a file.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::Arc;
use std::time::{Duration, Instant};

use avatar_proxy::change::{Change, Kind};
use avatar_proxy::clock::{Clock, Timestamp};
use avatar_proxy::outcome::Token;
use avatar_proxy::store::redis::{Address, Redis};
use avatar_proxy::store::{Log as _, Store, Write};

use crate::compare::{spread, turn};
use crate::load::{Ask, drive};
use crate::machine::{Machine, quantile, report};
use crate::options::Options;
use crate::server::{Server, folder, free_address};
use crate::stored::{ENTRIES, find_some, look, record_all};
use crate::wire::metric;
use crate::{Outcome, origin};

/// How many replicas record.
const REPLICAS: usize = 8;

/// How many changes are told.
const CHANGES: u64 = 2000;

pub(crate) fn run(options: &Options) -> Outcome {
    let machine = Machine::new()?;
    let entries = options.entries.unwrap_or(ENTRIES);
    let address = free_address()?;
    let folder = folder()?;
    let mut command = machine.on_server_core("redis-server");
    command
        .args(["--bind", "127.0.0.1", "--port", &address.port().to_string(), "--save", "", "--dir"])
        .arg(folder.path());
    let server = Server::start(&machine, "redis-server", command, address, folder)?;
    let mut text = String::new();
    measure(&machine, &server, entries, &mut text)?;
    remembering(&machine, &server, options, &mut text)?;
    server.stop()?;
    println!("\n{text}");
    report("replicated.md", &text)
}

fn measure(machine: &Machine, server: &Server, entries: u64, text: &mut String) -> Outcome {
    let address = Address::parse(&format!("redis://{}", server.address))?;
    let mut stores: Vec<Arc<dyn Store>> = vec![];
    for _ in 0..REPLICAS {
        stores.push(Arc::new(machine.runtime.block_on(Redis::open(address.clone(), Clock::system()))?));
    }
    let store = stores[0].clone();
    let bytes = || machine.runtime.block_on(store.size(Timestamp::from_seconds(0))).map(|size| size.bytes);
    let (empty, idle) = (bytes()?, server.cpu());
    record_all(machine, &stores, entries, text)?;
    let (taken, cpu) = (bytes()? - empty, server.cpu().since(&idle));
    writeln!(
        text,
        "\n{entries} entries take {} MiB of the server's memory, {} bytes each, and took {:.1} us of its time each.",
        taken >> 20,
        taken / entries,
        cpu.as_secs_f64() * 1e6 / f64::from(u32::try_from(entries)?),
    )?;
    accounts(machine, server, (entries, taken), text)?;
    find_some(machine, &store, entries, text)?;
    hearing(machine, server, text)?;
    for store in stores {
        machine.runtime.block_on(store.close());
    }
    Ok(())
}

/// What all keys of a kind take of what was taken, as the server counts it.
fn accounts(machine: &Machine, server: &Server, (entries, taken): (u64, u64), text: &mut String) -> Outcome {
    println!("Asking what each key takes ...");
    let mut raw = redis::Client::open(format!("redis://{}", server.address))?.get_connection()?;
    let (mut kinds, mut cursor) = (BTreeMap::<String, u64>::new(), 0_u64);
    loop {
        machine.interrupted()?;
        let (next, keys): (u64, Vec<String>) = redis::cmd("SCAN").arg(cursor).arg("COUNT").arg(1000).query(&mut raw)?;
        let mut usage = redis::pipe();
        for key in &keys {
            usage.cmd("MEMORY").arg("USAGE").arg(key).arg("SAMPLES").arg(1000);
        }
        let all: Vec<Option<u64>> = usage.query(&mut raw)?;
        for (key, bytes) in keys.iter().zip(all) {
            let name = key.rsplit_once('}').map_or(&key[..], |(_, name)| name).trim_start_matches(':');
            let kind = if name.contains('/') { "subjects" } else { name.split(':').next().unwrap_or_default() };
            *kinds.entry(kind.to_owned()).or_default() += bytes.unwrap_or_default();
        }
        cursor = next;
        if cursor == 0 {
            break;
        }
    }
    kinds.retain(|_, bytes| *bytes >= entries);
    let rest = taken.saturating_sub(kinds.values().sum());
    writeln!(text, "\n| keys | bytes per entry |\n| --- | --- |")?;
    for (kind, bytes) in kinds {
        writeln!(text, "| `{kind}` | {} |", bytes / entries)?;
    }
    writeln!(text, "| the table of all keys, and what the allocator rounds up | {} |", rest / entries)?;
    Ok(())
}

/// Hits in memory, beside a process that has its store in a file: they take turns.
fn remembering(machine: &Machine, server: &Server, options: &Options, text: &mut String) -> Outcome {
    println!("Asking two processes for what is in their memory ...");
    let gateway = origin::start(machine)?;
    let command = || machine.on_server_core(origin::PROGRAM);
    let url = format!("redis://{}?prefix=hits", server.address);
    let replicated = origin::on_store(machine, command(), &gateway, "1GiB", (&url, folder()?))?;
    let alone = origin::avatar_proxy(machine, command(), &gateway, "1GiB", None)?;
    let (mut turns, mut length) = ([vec![], vec![]], None);
    let processes = [&replicated, &alone];
    for process in processes {
        let filled = drive(machine, process.address, options.connections, 0..options.keys, Ask::Each, length)?;
        length = Some(filled.length);
    }
    for round in 0..=options.rounds {
        for (process, turns) in processes.into_iter().zip(&mut turns) {
            let turn = turn(machine, process, options, Ask::For(options.turn()), length.unwrap_or_default())?;
            // The first is to get warm.
            turns.extend((round > 0).then_some(turn));
        }
    }
    for (process, turns) in processes.into_iter().zip(&turns) {
        let (hits, asked) = (
            metric(process.address, "avatar_proxy_lookups_total{met=\"memory\"}")?,
            turns.iter().map(|turn| turn.report.requests).sum::<u64>(),
        );
        if hits < asked {
            return Err(format!("only {hits} of {asked} answers came from memory").into());
        }
    }
    let (_, cost, _) = spread(turns[0].iter().map(|turn| turn.cost).collect());
    let (least, ratio, most) =
        spread(turns[0].iter().zip(&turns[1]).map(|(one, other)| one.cost / other.cost).collect());
    writeln!(
        text,
        "\nA hit in memory takes {cost:.1} us of the process's time, {ratio:.2} times as long as with a store in a file ({least:.2} to \
         {most:.2})."
    )?;
    replicated.stop()?;
    alone.stop().map(drop)
}

/// How soon one replica hears of what another has appended: from before it is written until it can be read.
fn hearing(machine: &Machine, server: &Server, text: &mut String) -> Outcome {
    println!("Hearing of changes ...");
    let address = Address::parse(&format!("redis://{}?prefix=hearing", server.address))?;
    let all: Outcome<Vec<Duration>> = machine.runtime.block_on(async {
        let told = Redis::open(address.clone(), Clock::system()).await?;
        let (teller, mut tip) = (Redis::open(address, Clock::system()).await?, told.tip());
        let mut all = vec![];
        for number in 0..CHANGES {
            let began = Instant::now();
            teller.apply(Write { change: Some(change(number)), ..look(number, Token(1)) }).await?;
            tip.changed().await?;
            all.push(began.elapsed());
        }
        teller.close().await;
        told.close().await;
        Ok(all)
    });
    let mut all = all?;
    all.sort_unstable();
    writeln!(
        text,
        "\nOf {CHANGES} changes another replica heard within {} us (p50) and {} us (p99).",
        quantile(&all, 50).as_micros(),
        quantile(&all, 99).as_micros()
    )?;
    Ok(())
}

fn change(number: u64) -> Change {
    let at = Timestamp::from_seconds(1_700_000_000);
    Change {
        event_id: number.to_string(),
        kind: Kind::Changed,
        reason: None,
        old_id: Some("1".to_owned()),
        new_id: Some("2".to_owned()),
        version: number,
        noticed_at: at,
        not_before: at,
    }
}
