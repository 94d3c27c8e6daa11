//! A power cut at any instant: what a client was told is stored is on the disk by then, whatever was not flushed is lost.
//!
//! strace writes down every write and every flush of the store's two files, with data and instants. From that the test puts
//! together what a disk is sure to hold at an instant: what was written before a flush that had ended by then. What was written
//! later is lost, or a part of it is there, in any order. It does not show what the operating system does with a flush, what a
//! disk does that lies about one, or whether a new file's name is on the disk.

use std::collections::HashMap;
use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use avatar_proxy::demo::Options;
use avatar_proxy::jid::{Device, Jid, Key};
use avatar_proxy::outcome::Outcome;
use avatar_proxy::store::Store as _;
use avatar_proxy::store::sqlite::Sqlite;
use tokio::task::JoinSet;

use crate::support::app::World;
use crate::support::client::Client;
use crate::support::eventually::eventually;
use crate::support::process::Process;

/// An answer that said that it is stored: when it had arrived (us since the epoch), whose, and the URL.
type Promise = (u64, String, String);

/// What was done to a file.
enum Act {
    Write(usize, Vec<u8>),
    Cut(usize),
    Flush,
}

/// When it began and when it had ended (us since the epoch), and to which file: the store's own, or its log.
struct Event {
    began: u64,
    ended: u64,
    log: bool,
    act: Act,
}

/// A file as a disk may hold it: what is sure, and what was done since the last flush.
#[derive(Default)]
struct Image<'a> {
    sure: Vec<u8>,
    unsure: Vec<&'a Act>,
}

fn unhex(text: &str) -> Vec<u8> {
    text.split("\\x").skip(1).map(|digits| u8::from_str_radix(digits, 16).expect("strace writes hexadecimal")).collect()
}

fn micros(seconds: &str) -> u64 {
    let (whole, rest) = seconds.split_once('.').expect("strace writes microseconds");
    whole.parse::<u64>().unwrap() * 1_000_000 + rest.parse::<u64>().unwrap()
}

/// One line: `1795363487.408346 pwrite64(13<path>, "data", 32, 0) = 32 <0.000012>`, with path and data in hexadecimal.
fn event(line: &str) -> Option<Event> {
    let (began, call) = line.split_once(' ')?;
    let (name, rest) = call.split_once('(')?;
    let (path, rest) = rest.split_once('<')?.1.split_once('>')?;
    let (rest, took) = rest.rsplit_once('<')?;
    let (arguments, result) = rest.rsplit_once(") = ")?;
    let arguments: Vec<&str> = arguments.split(", ").skip(1).collect();
    let result = result.trim();
    let act = match name {
        "pwrite64" => {
            let mut data = unhex(arguments[0].trim_matches('"'));
            data.truncate(result.parse().expect("no write fails"));
            Act::Write(arguments[2].parse().unwrap(), data)
        }
        "ftruncate" => Act::Cut(arguments[0].parse().unwrap()),
        "fsync" | "fdatasync" => {
            assert_eq!(result, "0", "{line}");
            Act::Flush
        }
        other => panic!("the store's files are written by {other}: this test does not see what"),
    };
    let began = micros(began);
    Some(Event { began, ended: began + micros(took.trim_end_matches('>')), log: unhex(path).ends_with(b"-wal"), act })
}

fn events(folder: &Path) -> Vec<Event> {
    let traces = fs::read_dir(folder).unwrap().map(|file| fs::read_to_string(file.unwrap().path()).unwrap());
    let mut events: Vec<Event> = traces.flat_map(|text| text.lines().filter_map(event).collect::<Vec<_>>()).collect();
    events.sort_by_key(|event| event.began);
    events
}

fn put(file: &mut Vec<u8>, act: &Act) {
    match act {
        Act::Write(at, data) => {
            file.resize(file.len().max(at + data.len()), 0);
            file[*at..at + data.len()].copy_from_slice(data);
        }
        Act::Cut(length) => file.resize(*length, 0),
        Act::Flush => {}
    }
}

impl<'a> Image<'a> {
    fn took(&mut self, act: &'a Act) {
        match act {
            Act::Flush => {
                for act in std::mem::take(&mut self.unsure) {
                    put(&mut self.sure, act);
                }
            }
            other => self.unsure.push(other),
        }
    }

    /// After the cut: each thing that was not flushed got there with this likelihood, or a part of it.
    fn after_the_cut(&self, likelihood: f64) -> Vec<u8> {
        let mut file = self.sure.clone();
        for act in &self.unsure {
            if fastrand::f64() >= likelihood {
                continue;
            }
            match act {
                Act::Write(at, data) if fastrand::bool() => {
                    let part = data.len() * fastrand::usize(0..8) / 8;
                    put(&mut file, &Act::Write(*at, data[..part].to_vec()));
                }
                other => put(&mut file, other),
            }
        }
        file
    }
}

fn now() -> u64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap();
    u64::try_from(since.as_micros()).unwrap()
}

/// Sixteen clients ask for one new person after the other until `enough`.
async fn ask(
    client: &Client,
    people: &Arc<AtomicU64>,
    enough: impl Fn(usize) -> bool + Clone + Send + 'static,
) -> Vec<Promise> {
    let promises = Arc::new(Mutex::new(vec![]));
    let mut clients = JoinSet::new();
    for _ in 0..16 {
        let (client, people, promises, enough) = (client.clone(), people.clone(), promises.clone(), enough.clone());
        clients.spawn(async move {
            while !enough(promises.lock().unwrap().len()) {
                let phone = people.fetch_add(1, Ordering::Relaxed).to_string();
                let answer = client.avatar(&phone).await.expect(200, "fwd=miss; stored");
                promises.lock().unwrap().push((now(), phone, answer.url()));
            }
        });
    }
    while let Some(ended) = clients.join_next().await {
        ended.unwrap();
    }
    Arc::into_inner(promises).unwrap().into_inner().unwrap()
}

/// Whether everything that was promised is in the files, and the files are sound.
async fn holds(files: [Vec<u8>; 2], promises: &HashMap<&str, &str>) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("store.db");
    for (name, data) in ["store.db", "store.db-wal"].into_iter().zip(files) {
        fs::write(folder.path().join(name), data).unwrap();
    }
    let store = Sqlite::open(&path).unwrap_or_else(|error| panic!("{error}"));
    for (phone, url) in promises {
        let key = Key::new(Device::default(), Jid::parse(phone).unwrap(), false, false);
        let Some(Outcome::Present(picture)) = store.find(&key).await.unwrap().entry.map(|entry| entry.outcome) else {
            panic!("{phone} was said to be stored and is not");
        };
        assert_eq!(picture.url(), *url);
    }
    store.close().await;
    let sound = rusqlite::Connection::open(&path).unwrap();
    let sound: String = sound.query_row("PRAGMA integrity_check", [], |row| row.get(0)).unwrap();
    assert_eq!(sound, "ok");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs strace: make e2e"]
async fn what_was_said_to_be_stored_survives_a_power_cut_at_any_instant() {
    let options = Options { latency: Duration::ZERO..=Duration::from_millis(5), ..Options::default() };
    let world = World::with(options, avatar_proxy::clock::Clock::system()).await;
    let (path, people) = (world.store_path(), Arc::new(AtomicU64::new(9_000_000)));
    let log = path.with_extension("db-wal");

    // The log is nearly full, so that it is folded into the file, and begun anew, before our eyes.
    let process = Process::start(&world);
    let length = {
        let log = log.clone();
        move || log.metadata().map_or(0, |log| log.len())
    };
    let before = ask(&process.client, &people, move |_| length() > 15 << 20).await;
    process.kill();
    let begun = [&path, &log].map(|file| fs::read(file).unwrap());

    let traces = tempfile::tempdir().unwrap();
    let strace = format!(
        "exec strace -D -f -ff -ttt -T -y -xx -s 1000000 -o '{0}/trace' -P '{1}' -P '{1}-wal' \
         -e trace=write,writev,pwrite64,pwritev,fsync,fdatasync,ftruncate",
        traces.path().display(),
        path.display()
    );
    let process = Process::start_after(&strace, &world);
    let mut promises = ask(&process.client, &people, |asked| asked >= 600).await;
    process.kill();
    let whole = |file: fs::DirEntry| fs::read_to_string(file.path()).unwrap().ends_with("+++\n");
    eventually("all is written down", async || fs::read_dir(traces.path()).unwrap().all(|file| whole(file.unwrap())))
        .await;

    let events = events(traces.path());
    let flushes = events.iter().filter(|event| matches!(event.act, Act::Flush));
    let folds = flushes.clone().filter(|event| !event.log).count();
    assert!(folds > 0, "the log was not folded into the file");
    let mut images = begun.map(|sure| Image { sure, unsure: vec![] });
    let mut left = events.iter().peekable();
    promises.sort();
    let mut kept: HashMap<&str, &str> = before.iter().map(|(_, phone, url)| (&**phone, &**url)).collect();
    let mut cuts = 0;
    for (index, (arrived, phone, url)) in promises.iter().enumerate() {
        kept.insert(phone, url);
        // A flush counts when it has ended, a write from when it began.
        while let Some(event) = left.next_if(|event| match event.act {
            Act::Flush => event.ended <= *arrived,
            _ => event.began <= *arrived,
        }) {
            images[usize::from(event.log)].took(&event.act);
        }
        if index % 20 == 0 {
            for likelihood in [0.0, 0.5, 1.0] {
                holds([images[0].after_the_cut(likelihood), images[1].after_the_cut(likelihood)], &kept).await;
                cuts += 1;
            }
        }
    }
    println!(
        "{cuts} power cuts in {} answers, {} flushes, {folds} of them of the file",
        promises.len(),
        flushes.count()
    );
}
