//! A server under test: a process with all its children, ended with the value that stands for it.

use std::collections::HashMap;
use std::fs;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;

use crate::Outcome;
use crate::machine::Machine;

/// How long a server may take to stop before it is killed.
const STOPPING: Duration = Duration::from_secs(10);

pub(crate) struct Server {
    pub(crate) name: String,
    pub(crate) address: SocketAddr,
    child: Child,
    /// Its configuration, log and data.
    folder: TempDir,
}

/// A process, told from a later one of the same number by when it began.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Process {
    id: u32,
    parent: u32,
    began: u64,
}

impl Process {
    fn read(id: u32) -> Option<Self> {
        let stat = fs::read_to_string(format!("/proc/{id}/stat")).ok()?;
        // The name, in brackets, may contain anything.
        let mut fields = stat.rsplit_once(')')?.1.split_whitespace();
        let parent = fields.nth(1)?.parse().ok()?;
        Some(Self { id, parent, began: fields.nth(17)?.parse().ok()? })
    }

    fn all() -> Vec<Self> {
        let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
        entries.filter_map(|entry| Self::read(entry.file_name().to_str()?.parse().ok()?)).collect()
    }
}

/// A free port of loopback.
pub(crate) fn free_address() -> Outcome<SocketAddr> {
    Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?)
}

/// A folder for a server's files.
pub(crate) fn folder() -> Outcome<TempDir> {
    Ok(tempfile::Builder::new().prefix("avatar-proxy-bench-").tempdir()?)
}

impl Server {
    /// Starts it, and waits until it listens.
    pub(crate) fn start(
        machine: &Machine,
        name: &str,
        mut command: Command,
        address: SocketAddr,
        folder: TempDir,
    ) -> Outcome<Self> {
        let log = fs::File::create(folder.path().join("log"))?;
        for (variable, _) in std::env::vars_os() {
            if variable.as_encoded_bytes().starts_with(b"AVATAR_PROXY_") {
                command.env_remove(variable);
            }
        }
        command.stdin(Stdio::piped()).stdout(log.try_clone()?).stderr(log);
        let child = command.spawn().map_err(|error| format!("{name} cannot be started: {error}"))?;
        let mut server = Self { name: name.to_owned(), address, child, folder };
        let deadline = Instant::now() + Duration::from_secs(120);
        loop {
            machine.interrupted()?;
            let ended = server.child.try_wait()?.is_some();
            if ended || Instant::now() > deadline {
                return Err(format!("{name} does not start: {}", server.log()).into());
            }
            if TcpStream::connect(address).is_ok() {
                return Ok(server);
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// What it has said so far.
    pub(crate) fn log(&self) -> String {
        fs::read_to_string(self.folder.path().join("log")).unwrap_or_default()
    }

    /// The process with all its descendants.
    fn family(&self) -> Vec<Process> {
        let all = Process::all();
        let mut family: Vec<Process> = all.iter().copied().filter(|process| process.id == self.id()).collect();
        let mut at = 0;
        while let Some(parent) = family.get(at).copied() {
            family.extend(all.iter().filter(|process| process.parent == parent.id));
            at += 1;
        }
        family
    }

    /// CPU time of every thread so far.
    pub(crate) fn cpu(&self) -> CpuTimes {
        let tasks = self.family().into_iter().flat_map(|process| {
            let tasks = fs::read_dir(format!("/proc/{}/task", process.id));
            tasks.into_iter().flatten().flatten().map(|task| task.path())
        });
        CpuTimes(tasks.filter_map(|task| Some((task.to_string_lossy().into_owned(), scheduled(&task)?))).collect())
    }

    /// Memory of the process itself that is really there now (bytes).
    pub(crate) fn resident(&self) -> Outcome<u64> {
        self.status("VmRSS:")
    }

    /// The most there ever was.
    pub(crate) fn most_resident(&self) -> Outcome<u64> {
        self.status("VmHWM:")
    }

    fn status(&self, name: &str) -> Outcome<u64> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.id()))?;
        let kibibytes =
            status.lines().find_map(|line| line.strip_prefix(name)?.trim().strip_suffix(" kB")?.parse().ok());
        kibibytes.map(|kibibytes: u64| kibibytes * 1024).ok_or_else(|| format!("/proc says nothing of {name}").into())
    }

    /// Ends it in good order, and gives its folder back.
    pub(crate) fn stop(mut self) -> Outcome<TempDir> {
        let empty = folder()?;
        self.end();
        Ok(std::mem::replace(&mut self.folder, empty))
    }

    fn end(&mut self) {
        let family = self.family();
        if matches!(self.child.try_wait(), Ok(None)) {
            signal("TERM", self.id());
        }
        let deadline = Instant::now() + STOPPING;
        while matches!(self.child.try_wait(), Ok(None)) && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(5));
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
        for process in family.iter().filter(|process| process.id != self.child.id()) {
            let is_left = || Process::read(process.id).is_some_and(|now| now.began == process.began);
            while is_left() && Instant::now() < deadline {
                std::thread::sleep(Duration::from_millis(5));
            }
            if is_left() {
                signal("KILL", process.id);
            }
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.end();
    }
}

fn signal(signal: &str, id: u32) {
    let _ = Command::new("kill").args(["-s", signal, &id.to_string()]).stderr(Stdio::null()).status();
}

/// Time that a thread was on a CPU (ns).
fn scheduled(task: &Path) -> Option<u64> {
    fs::read_to_string(task.join("schedstat")).ok()?.split_whitespace().next()?.parse().ok()
}

/// CPU time by thread.
pub(crate) struct CpuTimes(HashMap<String, u64>);

impl CpuTimes {
    /// Time since `earlier`. What ended in between is not counted.
    pub(crate) fn since(&self, earlier: &Self) -> Duration {
        let spent = |(task, now): (&String, &u64)| now - earlier.0.get(task).unwrap_or(&0).min(now);
        Duration::from_nanos(self.0.iter().map(spent).sum())
    }
}
