//! The machine: its cores, which of them serves and which drives, and where reports go.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::runtime::Runtime;
use tokio::signal::unix::{SignalKind, signal};

use crate::Outcome;

pub(crate) struct Machine {
    /// The servers' core and the load's, where processes can be pinned.
    cores: Option<(usize, usize)>,
    interrupted: Arc<AtomicBool>,
    pub(crate) runtime: Runtime,
}

impl Machine {
    /// Moves this process to the load's core, and says what is what.
    pub(crate) fn new() -> Outcome<Self> {
        if !Path::new("/proc/self/schedstat").exists() {
            return Err("CPU time is read from Linux's /proc/<pid>/task/*/schedstat, and there is none here".into());
        }
        let allowed = allowed_cores(&std::fs::read_to_string("/proc/self/status")?);
        let cores = match allowed[..] {
            _ if which("taskset").is_none() => Err("taskset (apt-get install util-linux) is not there"),
            [server, load, ..] => Ok((server, load)),
            _ => Err("there is only one core"),
        };
        match cores {
            Ok((server, load)) => {
                let moved = Command::new("taskset")
                    .args(["--all-tasks", "--cpu-list", "--pid", &load.to_string(), &std::process::id().to_string()])
                    .stdout(Stdio::null())
                    .status()?;
                if !moved.success() {
                    return Err("taskset failed".into());
                }
                println!("Servers on core {server}, load on core {load}.");
            }
            Err(why) => println!("Nothing is pinned, because {why}: figures say less."),
        }
        // After the move, so that its threads are on that core too.
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
        let interrupted = Arc::new(AtomicBool::new(false));
        runtime.block_on(async {
            for kind in [SignalKind::interrupt(), SignalKind::terminate()] {
                let (mut signal, interrupted) = (signal(kind)?, Arc::clone(&interrupted));
                tokio::spawn(async move {
                    while signal.recv().await.is_some() {
                        interrupted.store(true, Ordering::Relaxed);
                    }
                });
            }
            Ok::<_, std::io::Error>(())
        })?;
        Ok(Self { cores: cores.ok(), interrupted, runtime })
    }

    /// An error once somebody wants this to end: servers and folders are cleared away on the way out.
    pub(crate) fn interrupted(&self) -> Outcome {
        if self.interrupted.load(Ordering::Relaxed) { Err("interrupted".into()) } else { Ok(()) }
    }

    pub(crate) fn on_server_core(&self, program: impl AsRef<OsStr>) -> Command {
        pinned(self.cores.map(|(server, _)| server), program)
    }

    pub(crate) fn on_load_core(&self, program: impl AsRef<OsStr>) -> Command {
        pinned(self.cores.map(|(_, load)| load), program)
    }

    /// On any core.
    pub(crate) fn anywhere(&self, program: impl AsRef<OsStr>) -> Command {
        match self.cores {
            Some((server, load)) => on(&format!("{server},{load}"), program),
            None => Command::new(program),
        }
    }

    /// One line about the machine.
    pub(crate) fn describe(&self) -> String {
        let read = |path| std::fs::read_to_string(path).unwrap_or_default();
        let cpu = read("/proc/cpuinfo");
        let cpu = cpu.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": ").map(|(_, name)| name));
        let kernel = read("/proc/sys/kernel/osrelease");
        let pinned = if self.cores.is_some() { "server and load on a core each" } else { "nothing pinned" };
        format!("{}, Linux {}, {pinned}", cpu.unwrap_or("unknown CPU"), kernel.trim())
    }
}

fn pinned(core: Option<usize>, program: impl AsRef<OsStr>) -> Command {
    match core {
        Some(core) => on(&core.to_string(), program),
        None => Command::new(program),
    }
}

/// taskset becomes the program, so the process that is started is the program's.
fn on(cores: &str, program: impl AsRef<OsStr>) -> Command {
    let mut command = Command::new("taskset");
    command.args(["--cpu-list", cores]).arg(program);
    command
}

fn allowed_cores(status: &str) -> Vec<usize> {
    let allowed = status.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:")).unwrap_or_default();
    let ranges = allowed.trim().split(',').filter_map(|range| {
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        Some(first.parse().ok()?..=last.parse().ok()?)
    });
    ranges.flatten().collect()
}

/// Where a program is; daemons are often not on the path of those who may start them.
pub(crate) fn which(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let daemons = ["/usr/local/sbin", "/usr/sbin", "/sbin"].map(PathBuf::from);
    std::env::split_paths(&path).chain(daemons).map(|folder| folder.join(name)).find(|file| file.is_file())
}

/// Which of these times, sorted, so many percent of them do not exceed; none of them all is an error of whoever measured.
pub(crate) fn quantile(sorted: &[Duration], percent: usize) -> Duration {
    sorted[(sorted.len() * percent / 100).min(sorted.len() - 1)]
}

/// Writes a report below cargo's target folder, and says where.
pub(crate) fn report(name: &str, text: &str) -> Outcome {
    let path = reports()?.join(name);
    std::fs::write(&path, text)?;
    println!("\nWritten to {}", path.display());
    Ok(())
}

/// The folder that reports are in.
pub(crate) fn reports() -> Outcome<PathBuf> {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).with_file_name("bench");
    std::fs::create_dir_all(&folder)?;
    Ok(folder)
}
