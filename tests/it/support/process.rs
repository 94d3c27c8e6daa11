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
    pub(crate) client: Client,
    log: mpsc::Receiver<String>,
    seen: Vec<String>,
}

impl Process {
    /// Starts `avatar-proxy` in front of the world's gateway and waits until it listens.
    pub(crate) fn start(world: &World) -> Self {
        let mut child = Command::new(env!("CARGO_BIN_EXE_avatar-proxy"))
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
        let client = Client::new(address.expect("the log names the address"));
        Self { child, client, log, seen }
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
    pub(crate) fn terminate(mut self) -> (ExitStatus, Vec<String>) {
        let killed = Command::new("kill").arg(self.child.id().to_string()).status().expect("kill runs");
        assert!(killed.success());
        let status = self.child.wait().expect("it ends");
        (status, self.log_lines())
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
