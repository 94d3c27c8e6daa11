//! What lies in a Redis server, which has a core of its own: how fast it is recorded and found, what it costs the server, and what
//! it takes of its memory.

use std::fmt::Write as _;
use std::sync::Arc;
use std::time::{Duration, Instant};

use avatar_proxy::change::{Change, Kind};
use avatar_proxy::clock::{Clock, Timestamp};
use avatar_proxy::store::redis::{Address, Redis};
use avatar_proxy::store::{Log as _, Store, Write};

use crate::Outcome;
use crate::machine::{Machine, quantile, report};
use crate::options::Options;
use crate::server::{Server, folder, free_address};
use crate::stored::{ENTRIES, find_some, look, record_all};

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
    server.stop()?;
    println!("\n{text}");
    report("replicated.md", &text)
}

fn measure(machine: &Machine, server: &Server, entries: u64, text: &mut String) -> Outcome {
    let address = Address::parse(&format!("redis://{}", server.address))?;
    let store: Arc<dyn Store> = Arc::new(machine.runtime.block_on(Redis::open(address, Clock::system()))?);
    let bytes = || machine.runtime.block_on(store.size(Timestamp::from_seconds(0))).map(|size| size.bytes);
    let (empty, idle) = (bytes()?, server.cpu());
    record_all(machine, &store, entries, text)?;
    let (taken, cpu) = (bytes()? - empty, server.cpu().since(&idle));
    writeln!(
        text,
        "\n{entries} entries take {} MiB of the server's memory, {} bytes each, and took {:.1} us of its time each.",
        taken >> 20,
        taken / entries,
        cpu.as_secs_f64() * 1e6 / f64::from(u32::try_from(entries)?),
    )?;
    find_some(machine, &store, entries, text)?;
    hearing(machine, server, text)?;
    machine.runtime.block_on(store.close());
    Ok(())
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
            teller.apply(Write { change: Some(change(number)), ..look(number) }).await?;
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
