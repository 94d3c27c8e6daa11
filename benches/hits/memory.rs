//! What an entry in memory weighs, and whether the process stays where its limit says.

use std::fmt::Write as _;
use std::time::{Duration, Instant};

use tempfile::TempDir;

use avatar_proxy::demo::SimulatedGateway;

use crate::load::{Ask, drive};
use crate::machine::{Machine, report};
use crate::options::Options;
use crate::server::Server;
use crate::wire::metric;
use crate::{Outcome, origin};

const CONNECTIONS: u32 = 256;

/// Entries that are there before anything is weighed, so that connections, caches and pools have their size.
const BEFORE: u64 = 2_000;

/// Entries unless told otherwise.
const ENTRIES: u64 = 200_000;

/// Limits that do not suffice (MiB).
const LIMITS_MIB: [u64; 2] = [64, 256];

const MIB: u64 = 1024 * 1024;

/// What was found of one server.
struct Weight {
    /// How long it took to ask for all entries once.
    took: Duration,
    /// Resident bytes before, and after each quarter.
    resident: [u64; 5],
    most: u64,
    entries: u64,
    counted: u64,
}

pub(crate) fn run(options: &Options) -> Outcome {
    let machine = Machine::new()?;
    let entries = options.entries.unwrap_or(ENTRIES);
    let gateway = origin::start(&machine)?;
    let mut text = String::new();
    let large = format!("{}MiB", (entries / 256).max(1024));

    println!("{entries} entries from the gateway ...");
    let (weight, store) = weigh(&machine, &gateway, entries, &large, None)?;
    let rate = entries.saturating_sub(BEFORE).saturating_mul(1000) / u64::try_from(weight.took.as_millis())?.max(1);
    writeln!(
        text,
        "| | entries | resident bytes per entry | of the second half | avatar_proxy_memory_bytes per entry |"
    )?;
    writeln!(text, "| --- | --- | --- | --- | --- |")?;
    weight.row(&mut text, "each from the gateway")?;
    println!("... took {:.1} s, {rate}/s; resident {} MiB", weight.took.as_secs_f64(), weight.steps());
    println!("The same from the store ...");
    let lookups = gateway.lookups();
    if lookups != entries {
        println!("The gateway was asked {lookups} times for {entries} entries.");
    }
    let (weight, store) = weigh(&machine, &gateway, entries, &large, Some(store))?;
    weight.row(&mut text, "each from the store")?;
    println!("... took {:.1} s; resident {} MiB", weight.took.as_secs_f64(), weight.steps());
    let per_entry = weight.resident[4].saturating_sub(weight.resident[0]) / weight.entries.max(1);
    writeln!(text, "\n| --memory-limit | entries asked for | kept | growth, MiB | of the limit | most ever, MiB |")?;
    writeln!(text, "| --- | --- | --- | --- | --- | --- |")?;
    let mut store = store;
    for limit in LIMITS_MIB {
        // Three times as many as fit, where there are so many.
        let asked = (3 * limit * MIB / per_entry.max(1)).clamp(BEFORE, entries);
        println!("{asked} of them with a limit of {limit} MiB ...");
        let weighed = weigh(&machine, &gateway, asked, &format!("{limit}MiB"), Some(store))?;
        let weight = weighed.0;
        store = weighed.1;
        println!("... took {:.1} s; resident {} MiB", weight.took.as_secs_f64(), weight.steps());
        let growth = weight.resident[4].saturating_sub(weight.resident[0]);
        let share = growth * 100 / (limit * MIB);
        writeln!(
            text,
            "| {limit} MiB | {asked} | {} | {} | {share} % | {} |",
            weight.entries,
            growth / MIB,
            weight.most / MIB
        )?;
    }
    if gateway.lookups() != lookups {
        println!("The gateway was asked {} times for what is in the store.", gateway.lookups() - lookups);
    }
    writeln!(text, "\nOne by one, the gateway was asked at {rate}/s.")?;
    println!("\n{text}");
    report("memory.md", &text)
}

/// Starts avatar-proxy, asks for `entries` and weighs it; with its store.
fn weigh(
    machine: &Machine,
    gateway: &SimulatedGateway,
    entries: u64,
    limit: &str,
    store: Option<TempDir>,
) -> Outcome<(Weight, TempDir)> {
    let server = origin::avatar_proxy(machine, machine.anywhere(origin::PROGRAM), gateway, limit, store)?;
    let fill = |keys| {
        let filled = drive(machine, server.address, CONNECTIONS, keys, Ask::Each, None);
        filled.map_err(|error| format!("{error}; {}", server.log()))
    };
    fill(0..BEFORE)?;
    let mut resident = [settled(machine, &server)?; 5];
    let mut took = Duration::ZERO;
    for quarter in 1..=4 {
        let keys = entries * (quarter - 1) / 4..entries * quarter / 4;
        took += fill(keys.start.max(BEFORE)..keys.end)?.took;
        resident[usize::try_from(quarter)?] = settled(machine, &server)?;
    }
    let weight = Weight {
        took,
        resident,
        most: server.most_resident()?,
        entries: metric(server.address, "avatar_proxy_memory_entries")?,
        counted: metric(server.address, "avatar_proxy_memory_bytes")?,
    };
    Ok((weight, server.stop()?))
}

/// Resident memory once what goes on in the background is done.
fn settled(machine: &Machine, server: &Server) -> Outcome<u64> {
    let deadline = Instant::now() + Duration::from_secs(20);
    let mut before = server.cpu();
    loop {
        std::thread::sleep(Duration::from_millis(500));
        machine.interrupted()?;
        let now = server.cpu();
        if now.since(&before) < Duration::from_millis(10) || Instant::now() > deadline {
            return server.resident();
        }
        before = now;
    }
}

impl Weight {
    fn row(&self, text: &mut String, name: &str) -> Outcome {
        let [began, _, half, _, whole] = self.resident;
        let all = whole.saturating_sub(began) / self.entries.saturating_sub(BEFORE).max(1);
        let second_half = whole.saturating_sub(half) / (self.entries / 2).max(1);
        let counted = self.counted / self.entries.max(1);
        writeln!(text, "| {name} | {} | {all} | {second_half} | {counted} |", self.entries)?;
        Ok(())
    }

    /// Resident memory before, and after each quarter.
    fn steps(&self) -> String {
        self.resident.map(|bytes| (bytes / MIB).to_string()).join(", ")
    }
}
