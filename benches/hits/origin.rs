//! The origin: the simulated gateway, and avatar-proxy in front of it.

use std::process::Command;

use avatar_proxy::clock::Clock;
use avatar_proxy::demo;

use crate::Outcome;
use crate::machine::Machine;
use crate::server::{Server, folder, free_address};
use crate::wire::{PASSWORD, USER};

/// Makes URLs about 250 characters long, as WhatsApp's are.
const IMAGE_HOST: &str = "https://media-lhr8-1.cdn.whatsapp.net.made-up-for-this-benchmark.example.org";

/// Starts the gateway.
pub(crate) fn start(machine: &Machine) -> Outcome<demo::SimulatedGateway> {
    let options =
        demo::Options { public_url: Some(IMAGE_HOST.to_owned()), remember: 1_000, ..demo::Options::default() };
    Ok(machine.runtime.block_on(demo::SimulatedGateway::on_a_free_port(options, Clock::system()))?)
}

/// The program under test, built by cargo as for release.
pub(crate) const PROGRAM: &str = env!("CARGO_BIN_EXE_avatar-proxy");

/// The store's file, in a server's folder.
pub(crate) const STORE: &str = "avatar-proxy.db";

/// Starts avatar-proxy; `command` is the program, however it is to be run, `store` an existing store.
pub(crate) fn avatar_proxy(
    machine: &Machine,
    command: Command,
    gateway: &demo::SimulatedGateway,
    memory_limit: &str,
    store: Option<tempfile::TempDir>,
) -> Outcome<Server> {
    let folder = store.map_or_else(folder, Ok)?;
    let file = format!("sqlite:{}", folder.path().join(STORE).display());
    on_store(machine, command, gateway, memory_limit, (&file, folder))
}

/// The same on any store; the folder is for its log.
pub(crate) fn on_store(
    machine: &Machine,
    mut command: Command,
    gateway: &demo::SimulatedGateway,
    memory_limit: &str,
    (store, folder): (&str, tempfile::TempDir),
) -> Outcome<Server> {
    let address = free_address()?;
    command
        .arg("serve")
        .arg(format!("--listen={address}"))
        .arg(format!("--auth={USER}:{PASSWORD}"))
        .arg(format!("--gateway-url={}", gateway.url()))
        .arg(format!("--store={store}"))
        .arg(format!("--memory-limit={memory_limit}"))
        .args(["--gateway-rate=1000000/s", "--gateway-burst=1000000", "--gateway-concurrency=512", "--max-wait=60s"]);
    Server::start(machine, "avatar-proxy", command, address, folder)
}
