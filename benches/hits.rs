//! What a hit costs: `avatar-proxy serve` beside a bare hyper server and the caches that people would use otherwise.
//!
//! `cargo bench --bench hits` runs the release binary over loopback and prints a table; `-- --help` says what else it can do.
//!
//! * Every part is a process of its own: the servers, pinned to one core, and the load, pinned to another, which is this program
//!   in another role. The origin is the simulated gateway, in this process, and is asked for each key once, beforehand.
//! * CPU time of a server is what the kernel's scheduler says of all its threads, so user and system time together, in
//!   nanoseconds; it is divided by the answers counted. It drifts with whatever else the machine does: servers take turns over
//!   several rounds, and only figures of one run are to be compared. Instructions do not drift.

#[path = "hits/bare.rs"]
mod bare;
#[path = "hits/compare.rs"]
mod compare;
#[path = "hits/instructions.rs"]
mod instructions;
#[path = "hits/load.rs"]
mod load;
#[path = "hits/machine.rs"]
mod machine;
#[path = "hits/memory.rs"]
mod memory;
#[path = "hits/options.rs"]
mod options;
#[path = "hits/origin.rs"]
mod origin;
#[path = "hits/others.rs"]
mod others;
#[path = "hits/replicated.rs"]
mod replicated;
#[path = "hits/server.rs"]
mod server;
#[path = "hits/stored.rs"]
mod stored;
#[path = "hits/subscribers.rs"]
mod subscribers;
#[path = "hits/webhooks.rs"]
mod webhooks;
#[path = "hits/wire.rs"]
mod wire;

use std::error::Error;
use std::process::ExitCode;

use clap::Parser as _;

use options::{Options, Role};

/// A result whose error is a sentence for whoever runs this.
type Outcome<T = ()> = Result<T, Box<dyn Error + Send + Sync>>;

fn main() -> ExitCode {
    let options = Options::parse();
    let result = match &options.role {
        Some(Role::Load(load)) => load::run(load),
        Some(Role::Bare(bare)) => bare::run(bare),
        // `cargo test --all-targets` runs benchmarks too, without `--bench`.
        None if !options.bench => {
            println!("this measures only when asked to: cargo bench --bench hits");
            Ok(())
        }
        None if options.subscribers.is_some() => subscribers::run(options.subscribers.unwrap_or_default()),
        None if options.webhooks.is_some() => webhooks::run(options.webhooks.unwrap_or_default()),
        None if options.memory => memory::run(&options),
        None if options.stored.redis => replicated::run(&options),
        None if options.stored.store || options.stored.start => stored::run(&options),
        None => match options.instructions {
            Some(counts) => instructions::run(&options, counts),
            None => compare::run(&options),
        },
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("hits: {error}");
            ExitCode::FAILURE
        }
    }
}
