//! User-space instructions per hit, counted by valgrind's callgrind. They hardly drift, so a change of code can be told from the
//! weather: the counts are compared with those in `recorded.txt`, and a hit that got dearer by more than a twentieth fails.
//!
//! With the same compiler and lock file, runs on a quiet machine differ by a few instructions. On a busy one a run takes longer, so
//! that more of the program's own rounds are in it, and the server goes to sleep more often between requests: up to 3 % more.
//!
//! Each server runs under callgrind and writes its counts after a few requests and after more; what the second has beyond the
//! first is the requests' alone: starting, connecting and writing counts cancel out.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use crate::compare::bare;
use crate::load::{Ask, drive};
use crate::machine::{Machine, reports, which};
use crate::options::{Counts, Options, Which};
use crate::server::Server;
use crate::{Outcome, origin};

/// So few that a server does not have something to do all the time, so many that it does most of the time.
const CONNECTIONS: u32 = 8;
/// A server is slow under callgrind.
const KEYS: u64 = 1_000;
const FEW: u64 = 2_000;
const MORE: u64 = 12_000;

/// What a hit is known to cost: one line per server. It stands in the repository, and a change that makes a hit cheaper or has
/// good reason to make it dearer changes it: `make bench ARGS=--instructions=record`.
const RECORDED: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/benches/hits/recorded.txt");

/// How much dearer than recorded a hit may be (per cent).
const TOLERANCE: i64 = 5;

pub(crate) fn run(options: &Options, then: Counts) -> Outcome {
    for (tool, package) in [("valgrind", "valgrind"), ("callgrind_control", "valgrind")] {
        which(tool).ok_or_else(|| format!("{tool} is not installed: apt-get install {package}"))?;
    }
    let machine = Machine::new()?;
    let folder = reports()?;
    let gateway = origin::start(&machine)?;
    let recorded = read(&fs::read_to_string(RECORDED)?);
    let mut counts = BTreeMap::new();
    let mut count = |name: &str, server: &Server| -> Outcome {
        let instructions = per_hit(&machine, server, &folder, name)?;
        let change = recorded.get(name).map(|recorded| format!(" ({:+} to what is recorded)", instructions - recorded));
        println!("{name}: {instructions} instructions per hit{}", change.unwrap_or_default());
        counts.insert(name.to_owned(), instructions);
        Ok(())
    };
    if options.wants(Which::Hyper) {
        // An answer of the real thing is needed first.
        let proxy = origin::avatar_proxy(&machine, machine.on_server_core(origin::PROGRAM), &gateway, "1GiB", None)?;
        let server = bare(&machine, &proxy, Some(callgrind(&machine, &folder, "hyper")))?;
        drop(proxy);
        count("hyper", &server)?;
    }
    if options.wants(Which::AvatarProxy) {
        let mut command = callgrind(&machine, &folder, "avatar-proxy");
        command.arg(origin::PROGRAM);
        let server = origin::avatar_proxy(&machine, command, &gateway, "1GiB", None)?;
        count("avatar-proxy", &server)?;
    }
    println!("Where they went: callgrind_annotate {}", folder.join("callgrind.avatar-proxy.3").display());
    if then == Counts::Record {
        // What is not counted this time stays as it was.
        let all = recorded.into_iter().chain(counts).collect::<BTreeMap<_, _>>();
        let lines: Vec<String> = all.iter().map(|(name, count)| format!("{name} {count}\n")).collect();
        fs::write(RECORDED, lines.concat())?;
        println!("Recorded in {RECORDED}");
        return Ok(());
    }
    counts.iter().try_for_each(|(name, &count)| compare(name, count, recorded.get(name).copied()))
}

/// An error if a count is too far above the one recorded.
fn compare(name: &str, count: i64, recorded: Option<i64>) -> Outcome {
    let Some(recorded) = recorded.filter(|recorded| (count - recorded) * 100 > recorded * TOLERANCE) else {
        return Ok(());
    };
    Err(format!(
        "a hit on {name} takes {count} instructions, more than {TOLERANCE} % above the {recorded} that are recorded; if there is \
         good reason for that, record it: make bench ARGS=--instructions=record"
    )
    .into())
}

fn read(text: &str) -> BTreeMap<String, i64> {
    let lines = text.lines().filter_map(|line| line.split_once(' '));
    lines.filter_map(|(name, count)| Some((name.to_owned(), count.parse().ok()?))).collect()
}

fn callgrind(machine: &Machine, folder: &Path, name: &str) -> Command {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        if entry.file_name().to_string_lossy().starts_with(&format!("callgrind.{name}")) {
            let _ = fs::remove_file(entry.path());
        }
    }
    let mut command = machine.on_server_core("valgrind");
    command.args(["--quiet", "--tool=callgrind"]);
    command.arg(format!("--callgrind-out-file={}", folder.join(format!("callgrind.{name}")).display()));
    command
}

/// Callgrind numbers the files that it is told to write.
fn per_hit(machine: &Machine, server: &Server, folder: &Path, name: &str) -> Outcome<i64> {
    let ask = |ask| drive(machine, server.address, CONNECTIONS, 0..KEYS, ask, None);
    ask(Ask::Each).map_err(|error| format!("{}: {error}; {}", server.name, server.log()))?;
    ask(Ask::Times(FEW))?;
    let mut counts = [0; 3];
    for (number, count) in counts.iter_mut().enumerate() {
        match number {
            0 => {}
            1 => drop(ask(Ask::Times(FEW))?),
            _ => drop(ask(Ask::Times(MORE))?),
        }
        let written = Command::new("callgrind_control")
            .arg("--dump")
            .arg(server.id().to_string())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status()?;
        if !written.success() {
            return Err("callgrind_control failed".into());
        }
        *count = total(&folder.join(format!("callgrind.{name}.{}", number + 1)))?;
    }
    let requests = i64::try_from(MORE - FEW)?;
    Ok((counts[2] - counts[1] + requests / 2) / requests)
}

fn total(file: &Path) -> Outcome<i64> {
    let text = fs::read_to_string(file).map_err(|error| format!("{}: {error}", file.display()))?;
    let total = text.lines().find_map(|line| line.strip_prefix("totals: ")?.trim().parse().ok());
    total.ok_or_else(|| format!("{} has no totals", file.display()).into())
}
