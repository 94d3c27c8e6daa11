//! A gateway that dies in the middle of its answers, a thousand times.

use std::fs;
use std::time::{Duration, Instant};

use avatar_proxy::clock::Clock;
use avatar_proxy::demo::{Options, Reply};
use bytes::Bytes;

use super::{ask, at_once};
use crate::support::app::World;
use crate::support::eventually::eventually;
use crate::support::process::Process;

const DEATHS: usize = 1000;

/// How many ask at the same time.
const AT_ONCE: usize = 50;

/// No answer takes longer, though the gateway is asked twice for each.
const PATIENCE: Duration = Duration::from_secs(10);

/// What a thousand failed keys may weigh (KiB), whatever the allocator keeps for itself.
const GROWTH_MAX: u64 = 32 << 10;

/// Ways to die: in the body, in the head, in the status line, before it, and with a reset.
fn deaths() -> [Reply; 5] {
    let cut = |bytes: &'static str| Reply::Garbage(Bytes::from_static(bytes.as_bytes()));
    [
        Reply::Truncated,
        cut("HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Le"),
        cut("HTTP/1."),
        Reply::Close,
        Reply::Reset,
    ]
}

/// The files that the process has open.
fn open_files(process: &Process) -> usize {
    fs::read_dir(format!("/proc/{}/fd", process.id())).expect("this is Linux").count()
}

/// What the process holds (KiB).
fn resident(process: &Process) -> u64 {
    let status = fs::read_to_string(format!("/proc/{}/status", process.id())).expect("this is Linux");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("its size");
    line.trim().trim_end_matches(" kB").parse().expect("a number")
}

async fn figure(process: &Process, name: &str) -> String {
    let page = process.client.get("/metrics").await;
    let line = page.text().lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')).map(str::to_owned);
    line.expect("the figure is there")
}

/// Dies under `number` lookups, while somebody on another device is served all the time.
async fn dies(world: &World, process: &Process, first: usize, number: usize) {
    for batch in (first..first + number).step_by(AT_ONCE) {
        let reply = deaths()[batch / AT_ONCE % deaths().len()].clone();
        let numbers = batch..batch + AT_ONCE;
        for number in numbers.clone() {
            world.gateway.person(&format!("{}", 9_000_000 + number)).replies(reply.clone());
        }
        let healthy = ask(&process.client, "999001", "well").await.expect(200, "hit; ttl=");
        assert_eq!(healthy.picture_id(), "17");
        at_once(numbers, |number| {
            let (client, reply) = (process.client.clone(), reply.clone());
            async move {
                let began = Instant::now();
                let answer = ask(&client, &format!("{}", 9_000_000 + number), "").await;
                assert!(began.elapsed() < PATIENCE, "{reply:?} took {:?}", began.elapsed());
                let answer = answer.expect(502, "fwd=miss; detail=nonsense");
                assert_eq!((answer.code().as_str(), answer.retry_after()), ("BAD_GATEWAY", 2), "{reply:?}");
            }
        })
        .await;
        // Also whom nobody asked for before.
        ask(&process.client, &format!("{}", 8_000_000 + batch), "well").await.expect(200, "fwd=miss; stored");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_gateway_that_dies_in_mid_answer_a_thousand_times_harms_nobody_else_and_leaves_nothing_behind() {
    let world = World::with(Options::default(), Clock::system()).await;
    world.gateway.person("999001").picture("17");
    let process = Process::start_after("AVATAR_PROXY_LOG=info exec", &world);
    ask(&process.client, "999001", "well").await.expect(200, "fwd=miss; stored");

    // The first ones make what is made once: connections of clients, buffers, the pages of the allocator.
    dies(&world, &process, 0, DEATHS / 5).await;
    let quiet = async || {
        eventually("nothing is left under way", async || {
            let figures = ["flights", "gateway_in_flight", "lookups_waiting", "budget_waiting"];
            let mut still = true;
            for name in figures {
                still &= figure(&process, &format!("avatar_proxy_{name}")).await == "0";
            }
            // Those that died are closed on both sides; what stays are the ones that answered well.
            still && world.gateway.in_flight() == 0 && world.gateway.open_connections() <= AT_ONCE
        })
        .await;
    };
    quiet().await;
    let (files, memory) = (open_files(&process), resident(&process));
    let before = world.gateway.lookups();
    dies(&world, &process, DEATHS / 5, DEATHS * 4 / 5).await;
    quiet().await;
    let lookups = usize::try_from(world.gateway.lookups() - before).unwrap();
    let (dead, well) = (DEATHS * 4 / 5, DEATHS * 4 / 5 / AT_ONCE);
    assert_eq!(lookups, 2 * dead + well, "each is tried once more, and nobody else is");
    eventually("no file is left open", async || open_files(&process) <= files + 2).await;
    let grown = resident(&process).saturating_sub(memory);
    assert!(grown < GROWTH_MAX, "it grew by {grown} KiB");

    // It recovers: whom it failed is looked up as soon as the rest is over, everybody else at once.
    world.gateway.person("9000000").picture("18");
    world.gateway.person("9000000").replies(Reply::Present);
    ask(&process.client, "7000001", "").await.expect(200, "fwd=miss; stored");
    eventually("whom it failed is looked up again", async || ask(&process.client, "9000000", "").await.status == 200)
        .await;
    let (status, log) = process.terminate();
    assert!(status.success() && !log.iter().any(|line| line.contains("panic")), "{status}: {log:?}");
}
