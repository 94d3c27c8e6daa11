//! Ten thousand clients that keep their connections.

use std::time::{Duration, Instant};

use tokio::task::JoinSet;

use crate::support::app::World;
use crate::support::client::Client;
use crate::support::process::Process;
use crate::support::wire::Wire;

const CONNECTIONS: u16 = 10_000;

/// What both sides need for these, and for the tests that run beside this one.
const FILES: u64 = 12_000;

#[tokio::test]
async fn ten_thousand_idle_connections_are_held_while_others_are_answered() {
    let limit = rlimit::increase_nofile_limit(u64::MAX).expect("a limit");
    if limit < FILES {
        eprintln!("skipped: {CONNECTIONS} connections need {FILES} open files, and the hard limit is {limit}");
        return;
    }
    let world = World::new().await;
    world.gateway.person("999001").picture("17");
    // The process starts with less than it needs, and helps itself.
    let process = Process::start_limited(&world, "-Sn 256");
    process.client.avatar("999001").await.expect(200, "fwd=miss");

    let address = process.address();
    let mut opening = JoinSet::new();
    let mut held = Vec::with_capacity(CONNECTIONS.into());
    for _ in 0..CONNECTIONS {
        // Not more at once than wait to be accepted.
        if opening.len() == 100 {
            held.extend(opening.join_next().await.map(Result::unwrap));
        }
        opening.spawn(async move {
            let mut wire = Wire::open(address).await;
            wire.send("GET /health HTTP/1.1\r\nhost: localhost\r\n\r\n").await;
            assert_eq!(wire.answer().await.expect("an answer").status, 200);
            wire
        });
    }
    held.extend(opening.join_all().await);

    let fresh = Client::new(address);
    let open = fresh.metric("avatar_proxy_http_connections").await;
    let started = Instant::now();
    fresh.avatar("999001").await.expect(200, "hit; ttl=");
    let took = started.elapsed();
    assert!(open > f64::from(CONNECTIONS), "{open} connections are open");
    assert!(took < Duration::from_secs(1), "an answer beside {open} connections took {took:?}");
    drop(held);
    let (status, _) = process.terminate();
    assert!(status.success(), "{status}");
}

#[tokio::test]
async fn a_process_that_may_open_few_files_says_so_and_survives_running_out() {
    let world = World::new().await;
    world.gateway.person("999001").picture("17");
    let process = Process::start_limited(&world, "-n 128");
    process.client.avatar("999001").await.expect(200, "fwd=miss");
    let mut wires = vec![];
    for _ in 0..200 {
        wires.push(Wire::open(process.address()).await);
    }
    process.client.avatar("999001").await.expect(200, "hit; ttl=");
    drop(wires);
    let fresh = Client::new(process.address());
    fresh.avatar("999001").await.expect(200, "hit; ttl=");
    let (status, log) = process.terminate();
    assert!(status.success(), "{status}");
    assert!(log.iter().any(|line| line.contains("few files may be open") && line.contains("128")), "{log:?}");
}
