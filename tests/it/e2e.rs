//! What needs tools from outside; `make e2e` installs them and runs these.

mod compose;
mod deploy;
mod power_cut;
mod program;
mod prometheus;
mod readers;
mod receivers;
mod stream;
mod verifiers;

use std::process::Command;

#[test]
#[ignore = "needs curl: make e2e"]
fn the_readmes_commands_do_what_it_says() {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/e2e/readme.sh");
    let status = Command::new("timeout").args(["120", script, env!("CARGO_BIN_EXE_avatar-proxy")]).status();
    assert!(status.expect("the script starts").success());
}
