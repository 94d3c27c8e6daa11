//! Subscribers in other languages: the README's readers, word for word, and what people have at hand.

use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;

use avatar_proxy::clock::Clock;
use avatar_proxy::demo::{Options, PersonHandle};

use crate::support::app::World;
use crate::support::eventually::eventually;
use crate::support::process::Process;

const ADA: &str = "999001";

/// The first block of a language in the README.
fn block(language: &str) -> String {
    let readme = concat!(env!("CARGO_MANIFEST_DIR"), "/README.md");
    let readme = std::fs::read_to_string(readme).expect("the README is here");
    let (_, behind) = readme.split_once(&format!("```{language}\n")).expect("the README has such a block");
    behind.split_once("```").expect("it ends").0.to_owned()
}

/// A program that prints what it hears of. Dropping it kills it, in the middle of whatever it does.
pub(super) struct Reader {
    child: Child,
    lines: mpsc::Receiver<String>,
}

impl Reader {
    pub(super) fn start(command: &mut Command) -> Self {
        let mut child = command.stdout(Stdio::piped()).spawn().expect("the reader starts");
        let out = child.stdout.take().expect("stdout is a pipe");
        let (sender, lines) = mpsc::channel();
        std::thread::spawn(move || {
            for line in BufReader::new(out).lines().map_while(Result::ok) {
                if sender.send(line).is_err() {
                    break;
                }
            }
        });
        Self { child, lines }
    }

    /// Waits for a line with this text: all that it said up to then.
    pub(super) async fn says(&self, text: &str) -> Vec<String> {
        let mut said = vec![];
        eventually(&format!("it says {text}"), async || {
            said.extend(self.lines.try_iter());
            said.iter().any(|line: &String| line.contains(text))
        })
        .await;
        said
    }

    /// Kills it: what it said since it was last listened to.
    pub(super) fn kill(mut self) -> Vec<String> {
        self.child.kill().expect("it can be killed");
        self.child.wait().expect("it ends");
        self.lines.iter().collect()
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

async fn world() -> (World, PersonHandle) {
    let world = World::with(Options::default(), Clock::system()).await.flag("--recheck-interval=100ms");
    let ada = world.gateway.person(ADA).picture("17");
    (world, ada)
}

/// A reader that is killed, and a proxy that is: it hears of every change.
async fn goes_on_after_any_crash(reader: impl Fn(&Path, &str) -> Command) {
    let (world, ada) = world().await;
    // On the same address again after its kill.
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let world = world.flag(&format!("--listen={free}"));
    let folder = tempfile::tempdir().unwrap();
    let base = format!("http://{free}");
    let proxy = Process::start(&world);
    proxy.client.avatar(ADA).await;
    let reading = Reader::start(&mut reader(folder.path(), &base));
    ada.picture("18");
    reading.says(&format!("{ADA}@s.whatsapp.net 17 -> 18")).await;
    eventually("it keeps its place", async || folder.path().join("cursor.txt").exists()).await;
    drop(reading);

    ada.picture("19");
    let changes = async |proxy: &Process| {
        let listed = proxy.client.get("/changes").await.json();
        listed["changes"].as_array().map_or(0, Vec::len)
    };
    eventually("it is noticed", async || changes(&proxy).await == 2).await;
    let reading = Reader::start(&mut reader(folder.path(), &base));
    reading.says("18 -> 19").await;

    drop(proxy);
    ada.picture("20");
    let proxy = Process::start(&world);
    reading.says("19 -> 20").await;
    drop((reading, proxy));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs Python and its httpx-sse: make e2e"]
async fn the_readmes_reader_in_python_goes_on_after_any_crash() {
    let python = std::env::var("E2E_PYTHON").unwrap_or_else(|_| "python3".to_owned());
    goes_on_after_any_crash(|folder, base| {
        let script = folder.join("reader.py");
        std::fs::write(&script, block("python")).unwrap();
        let mut command = Command::new(&python);
        command.arg(script).current_dir(folder).env("AVATAR_PROXY", base);
        command
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs Node.js: make e2e"]
async fn the_readmes_reader_in_javascript_goes_on_after_any_crash() {
    goes_on_after_any_crash(|folder, base| {
        let script = folder.join("reader.mjs");
        std::fs::write(&script, block("js")).unwrap();
        let mut command = Command::new("node");
        command.arg(script).current_dir(folder).env("AVATAR_PROXY", base);
        command
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs curl: make e2e"]
async fn curl_shows_events_as_they_come() {
    let (world, ada) = world().await;
    let proxy = Process::start(&world);
    proxy.client.avatar(ADA).await;
    let target = format!("http://{}/events", proxy.address());
    let curl = Reader::start(Command::new("curl").args(["--silent", "--no-buffer", &target]));
    curl.says("retry: 3000").await;
    ada.picture("18");
    curl.says("data: {\"event\":\"avatar.changed\"").await;
}
