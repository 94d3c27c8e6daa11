//! A disk without room: what is known is still answered, nothing is recorded by halves, and it heals by itself.

#![expect(clippy::float_cmp, reason = "what is counted comes in whole numbers")]

use std::collections::BTreeMap;
use std::process::Command;

use crate::support::app::World;
use crate::support::client::Client;
use crate::support::eventually::eventually;
use crate::support::process::Process;

/// No file may grow beyond this (KiB): the store's log of writes comes to it after some dozens of lookups.
const ROOM: u32 = 1024;

/// Gives a running process all the room there is.
fn gives_room(process: &Process) {
    let limit = Command::new("prlimit").args([&format!("--pid={}", process.id()), "--fsize=unlimited:"]).status();
    assert!(limit.expect("prlimit runs").success());
}

async fn is_ready(client: &Client) -> bool {
    client.get("/ready").await.status == 200
}

async fn value(client: &Client, name: &str) -> f64 {
    let page = client.get("/metrics").await;
    let line = page.text().lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')).map(str::to_owned);
    line.expect("the figure is there").parse().expect("a figure is a number")
}

/// Asks for one person after the other, for as long as `go_on` holds after each; returns whom, the URLs, and whether they were
/// said to be stored.
async fn ask_while(
    client: &Client,
    first: u32,
    go_on: impl AsyncFn(usize) -> bool,
) -> BTreeMap<String, (String, bool)> {
    let mut asked = BTreeMap::new();
    for number in first.. {
        let phone = number.to_string();
        let answer = client.avatar(&phone).await.expect(200, "fwd=miss; ");
        let stored = answer.how().contains("; stored; ttl=");
        assert_ne!(stored, answer.how().ends_with("; detail=store-away"), "{answer:?}");
        asked.insert(phone, (answer.url(), stored));
        if !go_on(asked.len()).await {
            break;
        }
    }
    asked
}

#[tokio::test]
async fn a_full_disk_degrades_to_memory_and_heals_by_itself() {
    let world = World::new().await;
    let process = Process::start_after(&format!("ulimit -S -f {ROOM}; exec"), &world);
    let client = process.client.clone();

    let first = ask_while(&client, 9_000_000, async |asked| {
        assert!(asked < 5000, "the disk does not fill");
        is_ready(&client).await
    })
    .await;
    assert_eq!(value(&client, "avatar_proxy_store_up").await, 0.0);
    assert!(value(&client, r#"avatar_proxy_store_errors_total{operation="apply"}"#).await >= 1.0);
    // Reads succeed all the time, and so does the taking of nothing that is due: nobody is fooled by them.
    let while_full = ask_while(&client, 9_100_000, async |asked| {
        assert!(!is_ready(&client).await);
        asked < 200
    })
    .await;
    for (phone, (url, _)) in first.iter().chain(&while_full) {
        assert_eq!(client.avatar(phone).await.expect(200, "hit; ttl=").url(), *url);
    }
    let checks = value(&client, r#"avatar_proxy_store_errors_total{operation="check"}"#).await;
    eventually("it is checked again and again", async || {
        value(&client, r#"avatar_proxy_store_errors_total{operation="check"}"#).await >= checks + 2.0
    })
    .await;
    assert!(!is_ready(&client).await);

    gives_room(&process);
    // Nobody asks for anyone meanwhile.
    eventually("it works again", async || is_ready(&client).await).await;
    assert_eq!(value(&client, "avatar_proxy_store_up").await, 1.0);
    let after = ask_while(&client, 9_200_000, async |asked| asked < 100).await;

    let lines = process.kill();
    let said = |message: &str| lines.iter().filter(|line| line.contains(message)).count();
    assert_eq!((said("the store fails"), said("the store works again")), (1, 1), "{lines:#?}");
    let loud = lines.iter().filter(|line| line.contains(r#""level":"WARN""#) || line.contains(r#""level":"ERROR""#));
    assert_eq!(loud.count(), 1);

    // What was said to be stored is there, and nothing else.
    let process = Process::start(&world);
    for (phone, (url, stored)) in first.iter().chain(&while_full).chain(&after) {
        let answer = process.client.avatar_asking(phone, "only-if-cached").await;
        assert_eq!((answer.status == 200, answer.url() == *url), (*stored, *stored), "{phone}: {answer:?}");
    }
    let said = |asked: &BTreeMap<String, (String, bool)>| asked.values().filter(|(_, stored)| *stored).count();
    assert_eq!((said(&first) + 1, said(&while_full), said(&after)), (first.len(), 0, after.len()));
}
