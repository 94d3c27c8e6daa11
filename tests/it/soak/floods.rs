//! Floods of cold keys, invented devices and failures: `make soak-floods`.

use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use avatar_proxy::clock::Clock;
use avatar_proxy::demo::{Devices, Options, Reply};
use tokio::task::JoinSet;

use crate::support::app::World;
use crate::support::client::Client;
use crate::support::process::Process;

const CLIENTS: usize = 128;

/// What a process may hold (MiB) that has 16 MiB for its memory: SQLite's caches of pages are up to 8 MiB beside it.
const RESIDENT_MAX: u64 = 96;

/// How many lines of figures there may be, whoever asks for what: 101 devices with three each, and the fixed ones.
const FIGURES_MAX: usize = 1000;

/// How often a flood is looked at while it lasts.
const STAGES: u64 = 10;

/// Who asks, and for whom: for the number of a request.
struct Flood {
    what: &'static str,
    questions: u64,
    /// What the gateway says of everybody.
    strangers: Reply,
    /// Which devices it has.
    devices: Devices,
    device: fn(u64) -> String,
    flags: &'static [&'static str],
}

/// What the process holds (MiB).
fn resident(process: &Process) -> u64 {
    let status = fs::read_to_string(format!("/proc/{}/status", process.id())).expect("this is Linux");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("its size");
    line.trim().trim_end_matches(" kB").parse::<u64>().expect("a number") / 1024
}

/// Asks for as many people nobody asked for before, and says how many lookups were refused.
async fn ask(client: &Client, numbers: std::ops::Range<u64>, device: fn(u64) -> String) -> u64 {
    let (next, refused) = (Arc::new(AtomicU64::new(numbers.start)), Arc::new(AtomicU64::new(0)));
    let mut clients = JoinSet::new();
    for _ in 0..CLIENTS {
        let (client, next, refused) = (client.clone(), next.clone(), refused.clone());
        clients.spawn(async move {
            loop {
                let number = next.fetch_add(1, Ordering::Relaxed);
                if number >= numbers.end {
                    break;
                }
                let target = format!("/user/avatar?phone={}", 9_000_000_000 + number);
                let answer = client.get_with(&target, &[("x-device-id", &device(number))]).await;
                assert!(answer.how().starts_with("avatar-proxy; "), "{answer:?}");
                refused.fetch_add(u64::from(answer.status == 429), Ordering::Relaxed);
            }
        });
    }
    while let Some(ended) = clients.join_next().await {
        ended.unwrap();
    }
    refused.load(Ordering::Relaxed)
}

impl Flood {
    async fn stays_small(self) {
        let Self { what, questions, strangers, devices, device, flags } = self;
        let options = Options { strangers, devices, remember: 100, ..Options::default() };
        let world = World::with(options, Clock::system()).await.flag("--memory-limit=16MiB");
        let world = flags.iter().fold(world, |world, flag| world.flag(flag));
        // What it logs of each lookup would be half of the work.
        let process = Process::start_after("AVATAR_PROXY_LOG=info exec", &world);
        println!("{what}: {questions} requests");
        let (began, mut refused) = (Instant::now(), 0);
        for stage in 0..STAGES {
            let part = questions / STAGES;
            refused += ask(&process.client, stage * part..(stage + 1) * part, device).await;
            let page = process.client.get("/metrics").await;
            let lines = || page.text().lines().filter(|line| !line.starts_with('#'));
            let buckets = lines().filter(|line| line.starts_with("avatar_proxy_budget_tokens{")).count();
            let value = |name: &str| lines().find_map(|line| line.strip_prefix(name)).unwrap_or_default().to_owned();
            println!(
                "  after {:>7}: {:>3} MiB resident, {buckets} buckets, {} lines of figures, memory{} B, store{}; {refused} \
                 refused, {} lookups, {:.0} s",
                (stage + 1) * part,
                resident(&process),
                lines().count(),
                value("avatar_proxy_memory_bytes"),
                value("avatar_proxy_store_entries"),
                world.gateway.lookups(),
                began.elapsed().as_secs_f64(),
            );
            assert!(resident(&process) < RESIDENT_MAX, "{what}");
            assert!(buckets <= 101 && lines().count() < FIGURES_MAX, "{what}: {}", page.text());
        }
    }
}

/// Two hundred characters, of which no two devices have the same.
fn invented(number: u64) -> String {
    format!("{number:0>200}")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "takes minutes: make soak-floods"]
async fn cold_keys_invented_devices_and_failures_do_not_grow_memory() {
    let known = || Devices::Known(vec!["ward".to_owned()]);
    let floods = [
        Flood {
            what: "negative answers, looked up and stored",
            questions: 200_000,
            strangers: Reply::Unregistered,
            devices: known(),
            device: |_| String::new(),
            flags: &[],
        },
        Flood {
            what: "cold keys of devices that the gateway does not know, a thousand lookups a second",
            questions: 1_000_000,
            strangers: Reply::Present,
            devices: known(),
            device: invented,
            flags: &["--gateway-rate=1000/s", "--gateway-burst=100", "--max-wait=0s"],
        },
        Flood {
            what: "cold keys of as many devices, each with a picture",
            questions: 100_000,
            strangers: Reply::Present,
            devices: Devices::Any,
            device: invented,
            flags: &[],
        },
        Flood {
            what: "keys that fail",
            questions: 100_000,
            strangers: Reply::InvalidJid,
            devices: Devices::Any,
            device: invented,
            flags: &[],
        },
    ];
    for flood in floods {
        flood.stays_small().await;
    }
}
