//! What lies in a Redis server, which has a core of its own: how fast it is recorded and found, what it costs the server, and what
//! it takes of its memory.

use std::fmt::Write as _;
use std::sync::Arc;

use avatar_proxy::clock::{Clock, Timestamp};
use avatar_proxy::store::Store;
use avatar_proxy::store::redis::{Address, Redis};

use crate::Outcome;
use crate::machine::{Machine, report};
use crate::options::Options;
use crate::server::{Server, folder, free_address};
use crate::stored::{ENTRIES, find_some, record_all};

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
    machine.runtime.block_on(store.close());
    Ok(())
}
