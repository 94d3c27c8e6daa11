//! What takes long: `make soak-floods` runs these.

use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use avatar_proxy::clock::Clock;
use avatar_proxy::demo::{Options, Reply};
use tokio::task::JoinSet;

use crate::support::app::World;
use crate::support::client::Client;
use crate::support::process::Process;

const CLIENTS: usize = 128;

/// What the process holds (MiB).
fn resident(process: &Process) -> u64 {
    let status = fs::read_to_string(format!("/proc/{}/status", process.id())).expect("this is Linux");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("its size");
    line.trim().trim_end_matches(" kB").parse::<u64>().expect("a number") / 1024
}

/// Asks `questions` times, each time of a person nobody asked for before, as the device that `device` names for the number.
async fn flood(process: &Process, next: &Arc<AtomicU64>, questions: u64, device: fn(u64) -> String) -> u64 {
    let end = next.load(Ordering::Relaxed) + questions;
    let mut clients = JoinSet::new();
    for _ in 0..CLIENTS {
        let (client, next): (Client, _) = (process.client.clone(), next.clone());
        clients.spawn(async move {
            loop {
                let number = next.fetch_add(1, Ordering::Relaxed);
                if number >= end {
                    break;
                }
                let target = format!("/user/avatar?phone={}", 9_000_000_000 + number);
                let answer = client.get_with(&target, &[("x-device-id", &device(number))]).await;
                assert!(answer.how().starts_with("avatar-proxy; "), "{answer:?}");
            }
        });
    }
    while let Some(ended) = clients.join_next().await {
        ended.unwrap();
    }
    next.store(end, Ordering::Relaxed);
    resident(process)
}

/// What a process may hold (MiB) that has 16 MiB for its memory: SQLite's caches of pages are up to 8 MiB beside it.
const RESIDENT_MAX: u64 = 160;

/// Floods twice, and expects that it holds no more than it may after either.
async fn stays_small(what: &str, strangers: Reply, questions: u64, device: fn(u64) -> String) {
    let world = World::with(Options { strangers, remember: 100, ..Options::default() }, Clock::system()).await;
    let world = world.flag("--memory-limit=16MiB");
    let process = Process::start(&world);
    let next = Arc::new(AtomicU64::new(0));
    let first = flood(&process, &next, questions / 5, device).await;
    let then = flood(&process, &next, questions - questions / 5, device).await;
    println!("{what}: {first} MiB after {}, {then} MiB after {questions}", questions / 5);
    assert!(first.max(then) < RESIDENT_MAX, "{what}: {first} MiB, {then} MiB");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "takes minutes: make soak-floods"]
async fn cold_keys_invented_devices_and_failures_do_not_grow_memory() {
    let nobody = |_: u64| String::new();
    let invented = |number: u64| format!("{number:0>200}");
    stays_small("negative answers", Reply::Unregistered, 200_000, nobody).await;
    stays_small("invented devices", Reply::Present, 100_000, invented).await;
    stays_small("failing keys of invented devices", Reply::InvalidJid, 100_000, invented).await;
}
