//! Command line and environment in, exit code out.

use std::process::ExitCode;

use avatar_proxy::config::{self, Command};
use avatar_proxy::telemetry;

fn main() -> ExitCode {
    let command = match config::parse(std::env::args_os(), std::env::vars_os()) {
        Ok(command) => command,
        Err(stop) => return stop.report(),
    };
    telemetry::start(command.log());
    let result = tokio::runtime::Runtime::new().and_then(|runtime| runtime.block_on(run(command)));
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!(%error, "stopped");
            ExitCode::FAILURE
        }
    }
}

/// The one place from which the program is run. Not wired yet: it says where it would answer.
// `avatar_proxy::run` takes its place; the signature is what `main` expects of it.
#[expect(clippy::unused_async)]
async fn run(command: Command) -> std::io::Result<()> {
    tracing::info!(listen = %command.listen(), "nothing is served yet");
    Ok(())
}
