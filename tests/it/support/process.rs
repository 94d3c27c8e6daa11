//! The proxy as a process of its own: for what only a process can do, such as being killed.

use std::io::{BufRead as _, BufReader};
use std::net::SocketAddr;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc;
use std::time::Duration;

use super::app::World;
use super::client::Client;

/// A running process. Dropping it kills it.
pub(crate) struct Process {
    child: Child,
    address: SocketAddr,
    pub(crate) client: Client,
    log: mpsc::Receiver<String>,
    seen: Vec<String>,
}

impl Process {
    /// Starts `avatar-proxy` in front of the world's gateway and waits until it listens.
    pub(crate) fn start(world: &World) -> Self {
        Self::start_by(Command::new(env!("CARGO_BIN_EXE_avatar-proxy")), world)
    }

    /// The same, by a shell: `preparation` ends with the word by which the program takes the shell's place, such as `exec`.
    pub(crate) fn start_after(preparation: &str, world: &World) -> Self {
        let mut shell = Command::new("bash");
        let program = env!("CARGO_BIN_EXE_avatar-proxy");
        shell.args(["-c", &format!("{preparation} \"$0\" \"$@\""), program]);
        Self::start_by(shell, world)
    }

    /// The same with a limit of open files, as `ulimit` takes it: `-Sn 256`.
    pub(crate) fn start_limited(world: &World, limit: &str) -> Self {
        let mut shell = Command::new("sh");
        let script = format!("ulimit {limit} && exec \"$0\" \"$@\"");
        shell.args(["-c", &script, env!("CARGO_BIN_EXE_avatar-proxy")]);
        Self::start_by(shell, world)
    }

    fn start_by(mut command: Command, world: &World) -> Self {
        let mut child = command
            .args(world.arguments())
            .arg("--log-format=json")
            .env("AVATAR_PROXY_LOG", "debug")
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the program starts");
        let stderr = child.stderr.take().expect("stderr is a pipe");
        let (sender, log) = mpsc::channel();
        std::thread::spawn(move || {
            for line in BufReader::new(stderr).lines().map_while(Result::ok) {
                if sender.send(line).is_err() {
                    break;
                }
            }
        });
        let mut seen = vec![];
        let address = loop {
            let line =
                log.recv_timeout(Duration::from_secs(20)).unwrap_or_else(|_| panic!("it never listened: {seen:?}"));
            let parsed: serde_json::Value = serde_json::from_str(&line).unwrap_or_default();
            seen.push(line);
            if parsed["fields"]["message"] == "listening" {
                break parsed["fields"]["address"].as_str().and_then(|address| address.parse::<SocketAddr>().ok());
            }
        };
        let address = address.expect("the log names the address");
        Self { child, address, client: Client::new(address), log, seen }
    }

    /// Starts a process that will not: what it exits with, and what it says on stderr.
    pub(crate) fn refused(world: &World) -> (ExitStatus, String) {
        let output = Command::new(env!("CARGO_BIN_EXE_avatar-proxy"))
            .args(world.arguments())
            .output()
            .expect("the program starts");
        (output.status, String::from_utf8_lossy(&output.stderr).into_owned())
    }

    /// Where it answers.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// Ends it as `kill -9` does, in the middle of whatever it does.
    pub(crate) fn kill(mut self) -> Vec<String> {
        self.child.kill().expect("it can be killed");
        self.child.wait().expect("it ends");
        self.log_lines()
    }

    /// Ends it as a service manager does, and waits.
    pub(crate) fn terminate(self) -> (ExitStatus, Vec<String>) {
        self.ask_to_stop();
        self.ended()
    }

    /// Sends it the signal by which a service manager ends it.
    pub(crate) fn ask_to_stop(&self) {
        let killed = Command::new("kill").arg(self.id().to_string()).status().expect("kill runs");
        assert!(killed.success());
    }

    /// Lets it stand still: its connections stay open, and it does nothing.
    pub(crate) fn pause(&self) {
        self.signal("-STOP");
    }

    pub(crate) fn resume(&self) {
        self.signal("-CONT");
    }

    fn signal(&self, signal: &str) {
        assert!(Command::new("kill").args([signal, &self.id().to_string()]).status().expect("kill runs").success());
    }

    /// Waits until it has ended. Blocks, so that a gateway in the same runtime may have to be asked for from another thread.
    pub(crate) fn ended(mut self) -> (ExitStatus, Vec<String>) {
        let status = self.child.wait().expect("it ends");
        (status, self.log_lines())
    }

    /// Waits until it logs a line that contains this, and takes all up to it.
    pub(crate) fn logs(&mut self, text: &str) -> String {
        loop {
            let line = self.log.recv_timeout(Duration::from_secs(20));
            let line = line.unwrap_or_else(|_| panic!("it never logged {text:?}: {:?}", self.seen));
            self.seen.push(line.clone());
            if line.contains(text) {
                return line;
            }
        }
    }

    /// Everything that it has logged so far.
    fn log_lines(&mut self) -> Vec<String> {
        while let Ok(line) = self.log.recv_timeout(Duration::from_millis(500)) {
            self.seen.push(line);
        }
        std::mem::take(&mut self.seen)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
