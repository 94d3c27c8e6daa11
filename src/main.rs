//! Command line and environment in, exit code out.

use std::process::ExitCode;

use avatar_proxy::{config, open_files, telemetry};
use mimalloc::MiMalloc;

/// Entries are made on one thread and dropped on another, at many sizes: the system's allocator holds nearly twice the memory
/// for that, and takes longer for every answer. `make bench` shows both.
#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

fn main() -> ExitCode {
    let command = match config::parse(std::env::args_os(), std::env::vars_os()) {
        Ok(command) => command,
        Err(stop) => return stop.report(),
    };
    telemetry::start(command.log());
    open_files::raise_limit();
    let result = match tokio::runtime::Runtime::new() {
        Ok(runtime) => runtime.block_on(avatar_proxy::run(command)),
        Err(error) => Err(error.into()),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("avatar-proxy: {error}");
            ExitCode::FAILURE
        }
    }
}
