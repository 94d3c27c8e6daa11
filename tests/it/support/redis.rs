//! Real Redis servers on free ports of their own, each with a folder of its own: killed, restarted, stopped and gone at the end.
//! `REDIS_SERVER` names another program to run instead, such as Valkey's.

use std::io::{BufRead as _, BufReader, Lines, Write as _};
use std::net::TcpStream;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::time::Duration;

use redis::{Connection, RedisResult, Value};
use tempfile::TempDir;

use super::port;

/// A running server, or one that was killed.
pub(crate) struct Redis {
    running: Option<Running>,
    port: u16,
    options: Vec<String>,
    pub(crate) folder: TempDir,
}

/// A process that ends with the value.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        // One that is stopped ends too.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// What a server is sent.
pub(crate) struct Heard<'a> {
    server: &'a Redis,
    lines: Lines<BufReader<TcpStream>>,
}

impl Heard<'_> {
    /// How many commands had this in them, up to now. What a script does is not a command.
    pub(crate) fn commands_with(self, text: &str) -> usize {
        self.server.ask("ECHO that-is-all");
        let lines = self.lines.map(Result::unwrap).take_while(|line| !line.contains("that-is-all"));
        lines.filter(|line| line.contains(text) && !line.contains(" lua]")).count()
    }
}

impl Redis {
    /// A server with the default configuration, which keeps nothing on disk.
    pub(crate) fn start() -> Self {
        Self::with(&[])
    }

    /// A server with options besides, as its command line takes them: `--appendonly yes`.
    pub(crate) fn with(options: &[&str]) -> Self {
        Self::in_folder(tempfile::tempdir().unwrap(), options)
    }

    /// The same in a folder that holds what it needs.
    pub(crate) fn in_folder(folder: TempDir, options: &[&str]) -> Self {
        let options = options.iter().flat_map(|option| option.split(' ')).map(str::to_owned).collect();
        let mut server = Self { running: None, port: 0, options, folder };
        while server.running.is_none() {
            server.port = port::any();
            server.running = server.run();
        }
        server
    }

    /// `None` if somebody else has the port.
    fn run(&self) -> Option<Running> {
        let with_tls = self.options.iter().any(|option| option.starts_with("--tls"));
        let (plain, tls) = if with_tls { (0, self.port) } else { (self.port, 0) };
        let program = std::env::var("REDIS_SERVER").unwrap_or_else(|_| "redis-server".to_owned());
        let mut command = Command::new(program);
        // A configuration file, because Sentinel wants one that it can write.
        let file = self.folder.path().join("redis.conf");
        if !file.exists() {
            std::fs::write(&file, "").unwrap();
        }
        command.arg(&file);
        command.args(["--bind", "127.0.0.1", "--port", &plain.to_string(), "--save", "", "--logfile", ""]);
        command.args(["--dir", self.folder.path().to_str().unwrap()]);
        if with_tls {
            command.args(["--tls-port", &tls.to_string()]);
        }
        let child = command
            .args(&self.options)
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("redis-server is there: `make check` installs it");
        let mut running = Running(child);
        let stdout = running.0.stdout.take().unwrap();
        let (sender, lines) = mpsc::channel();
        std::thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                // Reads on for nobody, so that the server can write on.
                let _ = sender.send(line);
            }
        });
        let mut seen = vec![];
        loop {
            let line = lines.recv_timeout(Duration::from_secs(20));
            let line = line.unwrap_or_else(|_| panic!("redis-server never was ready: {seen:?}"));
            if line.contains("Ready to accept connections") || line.contains("+monitor") {
                return Some(running);
            }
            if line.contains("Address already in use") {
                return None;
            }
            seen.push(line);
        }
    }

    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    pub(crate) fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    /// A plain connection, for what the interface does not show.
    pub(crate) fn raw(&self) -> Connection {
        redis::Client::open(self.url()).unwrap().get_connection().unwrap()
    }

    /// Runs a command, written as for redis-cli but without quotes.
    pub(crate) fn ask(&self, command: &str) -> Value {
        self.try_ask(command).unwrap()
    }

    /// The same of a server that may break it off, as one does that is made a replica.
    pub(crate) fn try_ask(&self, command: &str) -> RedisResult<Value> {
        let mut words = command.split(' ');
        let mut command = redis::cmd(words.next().unwrap());
        command.arg(words.collect::<Vec<_>>()).query(&mut redis::Client::open(self.url())?.get_connection()?)
    }

    /// The same, for commands that answer with a text.
    pub(crate) fn text(&self, command: &str) -> String {
        redis::from_redis_value(self.ask(command)).unwrap()
    }

    /// Hears every command that it is sent from now on.
    pub(crate) fn listen(&self) -> Heard<'_> {
        let mut stream = TcpStream::connect(("127.0.0.1", self.port)).unwrap();
        stream.write_all(b"MONITOR\r\n").unwrap();
        let mut lines = BufReader::new(stream).lines();
        assert_eq!(lines.next().unwrap().unwrap(), "+OK");
        Heard { server: self, lines }
    }

    /// Ends it as `kill -9` does.
    pub(crate) fn kill(&mut self) {
        self.running = None;
    }

    /// Starts it again after a kill, on the same port, with what is on its disk.
    pub(crate) fn restart(&mut self) {
        self.kill();
        self.running = self.run();
        assert!(self.running.is_some(), "the port was taken meanwhile");
    }

    /// Lets it stand still: connections stay open and nothing answers.
    pub(crate) fn pause(&self) {
        self.signal("-STOP");
    }

    pub(crate) fn resume(&self) {
        self.signal("-CONT");
    }

    fn signal(&self, signal: &str) {
        let id = self.running.as_ref().expect("it runs").0.id().to_string();
        assert!(Command::new("kill").args([signal, &id]).status().unwrap().success());
    }
}
