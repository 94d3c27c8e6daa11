//! What lies in the store: how fast it is found and recorded, and how a process starts and idles on it.
//!
//! The store is filled once, by this process, through [`Store::apply`], as lookups fill it. The file's pages stay in the system's
//! cache: what is measured is the program, not a disk. Its flushes are the disk's, though.

use std::fmt::Write as _;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use avatar_proxy::change::{self, Circumstances, State};
use avatar_proxy::clock::Timestamp;
use avatar_proxy::demo::SimulatedGateway;
use avatar_proxy::entry::{Entry, Jitter};
use avatar_proxy::jid::{Device, Jid, Key};
use avatar_proxy::outcome::{Observation, Outcome as Seen, Picture, Rules, Token};
use avatar_proxy::recheck::Lessons;
use avatar_proxy::store::sqlite::Sqlite;
use avatar_proxy::store::{Applied, Question, Store, Told, Write};
use tempfile::TempDir;
use tokio::task::JoinHandle;

use crate::load::{Ask, drive};
use crate::machine::{Machine, quantile, report};
use crate::options::Options;
use crate::server::{Server, folder};
use crate::wire::{DEVICE, Request, exchange, metric};
use crate::{Outcome, origin};

/// Entries in the store unless told otherwise.
pub(crate) const ENTRIES: u64 = 1_000_000;

/// How many record at once, and for how long each.
const CALLERS: [u64; 4] = [1, 16, 64, 512];
const RECORDING: Duration = Duration::from_secs(3);

/// How long a look may take.
const LEASE: Duration = Duration::from_secs(30);

/// Who fills the store.
const FILLERS: u64 = 512;

/// Lookups in a second, whether the last ones are answered or not.
const RATE: u64 = 2_000;
const LOOKING: Duration = Duration::from_secs(15);
const CONNECTIONS: u32 = 64;

/// How long a process idles.
const IDLE: Duration = Duration::from_secs(30);

pub(crate) fn run(options: &Options) -> Outcome {
    let machine = Machine::new()?;
    let entries = options.entries.unwrap_or(ENTRIES);
    let folder = folder()?;
    let mut text = String::new();
    recording(&machine, &folder.path().join(origin::STORE), entries, &mut text)?;
    let gateway = origin::start(&machine)?;
    let mut folder = folder;
    if options.stored.store {
        finding(&machine, &folder.path().join(origin::STORE), entries, &mut text)?;
        folder = answering(&machine, &gateway, folder, entries, &mut text)?;
    }
    if options.stored.start {
        folder = starting(&machine, &gateway, folder, entries, &mut text)?;
    }
    drop(folder);
    println!("\n{text}");
    report("stored.md", &text)
}

/// Records by more and more callers, then the rest.
fn recording(machine: &Machine, path: &Path, entries: u64, text: &mut String) -> Outcome {
    let store: Arc<dyn Store> = Arc::new(Sqlite::open(path)?);
    record_all(machine, std::slice::from_ref(&store), entries, text)?;
    machine.runtime.block_on(store.close());
    let bytes = path.metadata()?.len();
    writeln!(text, "\n{entries} entries are {} MiB, {} bytes each.", bytes >> 20, bytes / entries)?;
    Ok(())
}

/// Records by more and more callers until there are `entries`, in a store that is empty. Where replicas share it, each call is one of
/// another's.
pub(crate) fn record_all(machine: &Machine, stores: &[Arc<dyn Store>], entries: u64, text: &mut String) -> Outcome {
    let next = Arc::new(AtomicU64::new(0));
    println!("Recording {entries} entries ...");
    writeln!(text, "| callers that record at once | acknowledged per second |\n| --- | --- |")?;
    for callers in CALLERS {
        let first = next.load(Ordering::SeqCst);
        let began = Instant::now();
        record(machine, stores, callers, &next, entries, Some(RECORDING))?;
        let records = next.load(Ordering::SeqCst).min(entries) - first;
        writeln!(text, "| {callers} | {} |", per_second(records, began.elapsed()))?;
    }
    let (began, first) = (Instant::now(), next.load(Ordering::SeqCst).min(entries));
    record(machine, stores, FILLERS, &next, entries, None)?;
    if first < entries {
        let rate = per_second(entries - first, began.elapsed());
        writeln!(text, "| {FILLERS}, until there are {entries} | {rate} |")?;
    }
    Ok(())
}

/// Records entries from `next` on, with so many callers, until there are `entries` or the time is over.
fn record(
    machine: &Machine,
    stores: &[Arc<dyn Store>],
    callers: u64,
    next: &Arc<AtomicU64>,
    entries: u64,
    time: Option<Duration>,
) -> Outcome {
    machine.interrupted()?;
    let until = time.map(|time| Instant::now() + time);
    let callers = (0..callers).zip(stores.iter().cycle()).map(|(_, store)| {
        let (store, next) = (store.clone(), next.clone());
        machine.runtime.spawn(async move {
            while until.is_none_or(|until| Instant::now() < until) {
                let number = next.fetch_add(1, Ordering::SeqCst);
                if number >= entries {
                    break;
                }
                match store.apply(looked_up(&*store, number).await?).await? {
                    Applied::Done(_) => {}
                    Applied::Conflict(_) | Applied::Forgotten | Applied::Late => {
                        return Err("an entry was there already".into());
                    }
                }
            }
            Outcome::Ok(())
        })
    });
    let callers: Vec<_> = callers.collect();
    callers.into_iter().try_for_each(|caller| machine.runtime.block_on(caller)?)
}

/// What a lookup writes, which has asked the store before if replicas share it.
async fn looked_up(store: &dyn Store, number: u64) -> Outcome<Write> {
    let Some(shared) = store.shared() else { return Ok(look(number, Token(1))) };
    let now = Timestamp::from_millis(jiff::Timestamp::now().as_millisecond());
    let question = Question { key: key(number), alive_at: now, checked: None, start: Some(LEASE), draft: None };
    match shared.ask(question).await? {
        Told::Started { claim, .. } => Ok(Write { flown: true, ..look(number, claim.start) }),
        told => Err(format!("a look should start: {told:?}").into()),
    }
}

fn per_second(count: u64, time: Duration) -> u64 {
    u64::try_from(u128::from(count) * 1_000_000 / time.as_micros().max(1)).unwrap_or(u64::MAX)
}

/// The key that the load asks for by this number.
fn key(number: u64) -> Key {
    let device = Device::new(DEVICE).expect("it is short");
    Key::new(device, Jid::parse(&Request::phone(number)).expect("digits"), true, false)
}

/// What the first look at a person writes.
pub(crate) fn look(number: u64, start: Token) -> Write {
    let now = Timestamp::from_millis(jiff::Timestamp::now().as_millisecond());
    let (key, rules) = (key(number), Rules::default());
    let expiry = (now + Duration::from_secs(10 * 86_400)).as_millis() / 1000;
    let url = format!(
        "https://pps.whatsapp.net/v/t61.24694-24/{number:09}_{number:015}_{number:019}_n.jpg?stp=dst-jpg_s96x96_tt6&ccb=11-4&\
         oh=01_Q5Aa1gF{number:0>73}&oe={expiry:X}&_nc_sid=5e03e0&_nc_cat=100"
    );
    let seen = Observation {
        variant: key.variant,
        outcome: Seen::Present(Picture::new(&url, &format!("{}", 1_600_000_000 + number), "preview")),
        start,
        started_at: now,
        ended_at: now,
    };
    let around = Circumstances {
        applied: Token::default(),
        device_succeeded_at: None,
        entropy: u128::from(number),
        rules: &rules,
    };
    let verdict = change::observe(&State::default(), &seen, around);
    let jitter = Jitter(fastrand::f64());
    let outlook = Lessons::default().met(0.0, now, 1.0, fastrand::f64());
    Write {
        key,
        start,
        expected: Token::default(),
        state: verdict.state,
        entry: Entry::after(None, &seen, verdict.standing, &rules, jitter),
        outlook,
        recheck_at: now + rules.recheck_interval,
        change: None,
        requested_at: Some(now),
        also_due: None,
        siblings_due: None,
        flown: false,
    }
}

/// [`Store::find`] alone.
fn finding(machine: &Machine, path: &Path, entries: u64, text: &mut String) -> Outcome {
    println!("Finding in this process ...");
    let store: Arc<dyn Store> = Arc::new(Sqlite::open(path)?);
    find_some(machine, &store, entries, text)?;
    machine.runtime.block_on(store.close());
    Ok(())
}

/// Finds at a steady rate what is in a store of so many entries.
pub(crate) fn find_some(machine: &Machine, store: &Arc<dyn Store>, entries: u64, text: &mut String) -> Outcome {
    let (finds, began) = (RATE * LOOKING.as_secs(), Instant::now());
    let mut found: Vec<JoinHandle<Outcome<Duration>>> = Vec::new();
    for number in 0..finds {
        // From the moment that was planned, so that a queue counts for all who stand in it. This thread sleeps to the
        // microsecond; the runtime's timers only know milliseconds.
        let planned = began + Duration::from_nanos(number * 1_000_000_000 / RATE);
        std::thread::sleep(planned.saturating_duration_since(Instant::now()));
        let store = store.clone();
        found.push(machine.runtime.spawn(async move {
            let held = store.find(&key(fastrand::u64(0..entries))).await?;
            let took = planned.elapsed();
            held.entry.map(|_| took).ok_or_else(|| "an entry is not there".into())
        }));
    }
    let all: Outcome<Vec<Duration>> = machine.runtime.block_on(async {
        let mut all = Vec::new();
        for found in found {
            all.push(found.await??);
        }
        Ok(all)
    });
    let mut all = all?;
    all.sort_unstable();
    writeln!(
        text,
        "\n| at {RATE} per second, over {entries} entries | p50 us | p99 us |\n| --- | --- | --- |\n| found in the store, in one \
         process | {} | {} |",
        quantile(&all, 50).as_micros(),
        quantile(&all, 99).as_micros()
    )?;
    Ok(())
}

/// The same from outside: each key is asked for once, so none is in memory.
fn answering(
    machine: &Machine,
    gateway: &SimulatedGateway,
    folder: TempDir,
    entries: u64,
    text: &mut String,
) -> Outcome<TempDir> {
    println!("Asking over HTTP ...");
    let command = machine.on_server_core(origin::PROGRAM);
    let server = origin::avatar_proxy(machine, command, gateway, "256MiB", Some(folder))?;
    let ask = Ask::Paced { rate: RATE, time: LOOKING };
    let answers = drive(machine, server.address, CONNECTIONS, 0..entries, ask, None)?;
    let from_store = metric(server.address, "avatar_proxy_lookups_total{met=\"store\"}")?;
    let (p50, p99) = (answers.p50.as_micros(), answers.p99.as_micros());
    writeln!(text, "| answered over HTTP, {from_store} of {} from the store | {p50} | {p99} |", answers.requests)?;
    server.stop()
}

/// From the start of the process to its first answer, and what it does when nobody asks.
fn starting(
    machine: &Machine,
    gateway: &SimulatedGateway,
    folder: TempDir,
    entries: u64,
    text: &mut String,
) -> Outcome<TempDir> {
    println!("Starting, and idling for {} s ...", IDLE.as_secs());
    let began = Instant::now();
    let command = machine.on_server_core(origin::PROGRAM);
    let server = origin::avatar_proxy(machine, command, gateway, "256MiB", Some(folder))?;
    let mut request = Request::new(server.address);
    let (head, _) = exchange(server.address, request.of(entries / 2))?;
    let first = began.elapsed();
    if head.status != 200 || metric(server.address, "avatar_proxy_lookups_total{met=\"store\"}")? != 1 {
        return Err(format!("the first answer, {}, is not from the store; {}", head.status, server.log()).into());
    }
    let resident = server.resident()?;
    let idle = idle(machine, &server)?;
    writeln!(
        text,
        "\nOn {entries} entries, the first answer came {} ms after the start; then, for {} s without a request, the process took \
         {:.2} % of one core. Resident: {} MiB.",
        first.as_millis(),
        IDLE.as_secs(),
        idle * 100.0,
        resident >> 20,
    )?;
    server.stop()
}

/// The share of one core.
fn idle(machine: &Machine, server: &Server) -> Outcome<f64> {
    let (cpu, began) = (server.cpu(), Instant::now());
    while began.elapsed() < IDLE {
        machine.interrupted()?;
        std::thread::sleep(Duration::from_millis(200));
    }
    Ok(server.cpu().since(&cpu).as_secs_f64() / began.elapsed().as_secs_f64())
}
