//! The systemd unit as systemd judges it, the system calls it forbids against those the program makes, and the Kubernetes example
//! against the published schemas.

use std::collections::BTreeSet;
use std::process::Command;

use http::Method;

use super::program::python;
use crate::dashboards::path;
use crate::support::app::World;
use crate::support::process::Process;

const UNIT: &str = "deploy/avatar-proxy.service";

fn run(command: &mut Command) -> String {
    let output = command.current_dir(path("")).output().expect("the tool is there: `make e2e` installs it");
    let said = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    said
}

#[test]
#[ignore = "needs systemd-analyze: make e2e"]
fn systemd_finds_no_fault_with_the_unit_and_little_exposure() {
    let said = run(Command::new("systemd-analyze").args(["security", "--offline=true", "--no-pager", UNIT]));
    let (_, level) = said.split_once("Overall exposure level for avatar-proxy.service: ").expect("a level");
    let level: f64 = level.split(' ').next().unwrap().parse().unwrap();
    assert!(level < 2.0, "{said}");
    println!("exposure {level}");

    // Where it will be installed there is nothing yet.
    let unit = std::fs::read_to_string(path(UNIT)).unwrap();
    let unit = unit.replace("/usr/local/bin/avatar-proxy", env!("CARGO_BIN_EXE_avatar-proxy"));
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("avatar-proxy.service");
    std::fs::write(&file, unit).unwrap();
    let said = run(Command::new("systemd-analyze").arg("verify").arg(&file));
    assert!(!said.contains("avatar-proxy"), "{said}");
}

/// The system calls of a set, and of those within it.
fn calls(set: &str) -> BTreeSet<String> {
    let said = run(Command::new("systemd-analyze").args(["syscall-filter", "--no-pager", set]));
    let names = said.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#')).skip(1);
    names.flat_map(|name| if name.starts_with('@') { calls(name) } else { [name.to_owned()].into() }).collect()
}

/// The system calls that the unit lets through: what its filters allow, without what they take back.
fn allowed() -> BTreeSet<String> {
    let unit = std::fs::read_to_string(path(UNIT)).unwrap();
    // Beside the filters' own, whatever they say.
    let mut allowed = calls("@default");
    for filter in unit.lines().filter_map(|line| line.strip_prefix("SystemCallFilter=")) {
        let taken_back = filter.strip_prefix('~');
        for set in taken_back.unwrap_or(filter).split(' ') {
            let named = calls(set);
            if taken_back.is_some() { allowed.retain(|call| !named.contains(call)) } else { allowed.extend(named) }
        }
    }
    assert!(allowed.len() > 100 && !allowed.contains("setpriority"), "{allowed:?}");
    allowed
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs systemd-analyze and strace: make e2e"]
async fn the_program_makes_no_system_call_that_the_unit_forbids() {
    let world = World::new().await.flag("--recheck-interval=100ms").flag("--webhook=http://localhost:9/");
    let ada = world.gateway.person("999001").picture("17");
    let folder = tempfile::tempdir().unwrap();
    let trace = folder.path().join("trace");
    let process = Process::start_after(&format!("exec strace -D -f -o '{}'", trace.display()), &world);
    process.client.avatar("999001").await.expect(200, "fwd=miss");
    ada.picture("18");
    crate::support::eventually::eventually("it is noticed", async || process.client.change_log().await.len() == 1)
        .await;
    process.client.get("/metrics").await;
    process.client.send(Method::DELETE, "/avatars/999001", &[]).await.unwrap();
    let (status, _) = tokio::task::spawn_blocking(|| process.terminate()).await.unwrap();
    assert!(status.success());

    let trace = std::fs::read_to_string(&trace).unwrap();
    let name = |line: &str| {
        let call = line.split_once(' ')?.1.trim_start().split_once('(')?.0.to_owned();
        call.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_').then_some(call)
    };
    let mut made: BTreeSet<String> = trace.lines().filter_map(name).collect();
    assert!(made.contains("accept4") && made.contains("fsync"), "{made:?}");
    // SQLite gives its files to the folder's owner when it runs as root, as it does not there.
    made.remove("fchown");
    let allowed = allowed();
    let forbidden: Vec<_> = made.difference(&allowed).collect();
    assert!(forbidden.is_empty(), "the unit forbids {forbidden:?}");
    println!("{} system calls, all of them allowed", made.len());
}

#[test]
#[ignore = "needs Python and its kubernetes-validate: make e2e"]
fn kubernetes_knows_everything_in_the_example() {
    let files = ["deploy/kubernetes/avatar-proxy.yaml", "deploy/kubernetes/redis.yaml"];
    let said = run(python().args(["-m", "kubernetes_validate", "--strict", "--no-warn"]).args(files));
    assert_eq!(said.matches(" passed for resource ").count(), 7, "{said}");
}
