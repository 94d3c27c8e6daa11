//! Subscribers in other languages: the README's readers, word for word, and what people have at hand.

use std::path::Path;
use std::process::Command;

use avatar_proxy::clock::Clock;
use avatar_proxy::demo::{Options, PersonHandle};

use super::program::{Program, from_readme, python};
use crate::support::app::World;
use crate::support::eventually::eventually;
use crate::support::port;
use crate::support::process::Process;

const ADA: &str = "999001";

async fn world() -> (World, PersonHandle) {
    let world = World::with(Options::default(), Clock::system()).await.flag("--recheck-interval=100ms");
    let ada = world.gateway.person(ADA).picture("17");
    (world, ada)
}

/// A reader that is killed, and a proxy that is: it hears of every change.
async fn goes_on_after_any_crash(reader: impl Fn(&Path) -> Command) {
    let (world, ada) = world().await;
    // On the same address again after its kill.
    let free = port::free();
    let world = world.flag(&format!("--listen={free}"));
    let folder = tempfile::tempdir().unwrap();
    let base = format!("http://{free}");
    let proxy = Process::start(&world);
    proxy.client.avatar(ADA).await;
    let reading = Program::start(reader(folder.path()).env("AVATAR_PROXY", &base));
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
    let reading = Program::start(reader(folder.path()).env("AVATAR_PROXY", &base));
    reading.says("18 -> 19").await;

    drop(proxy);
    ada.picture("20");
    let proxy = Process::start(&world);
    // Somebody asks, so that a look that the kill has cut off is not waited for until its lease runs out.
    eventually("it is noticed", async || {
        proxy.client.avatar(ADA).await;
        changes(&proxy).await == 3
    })
    .await;
    reading.says("19 -> 20").await;
    drop((reading, proxy));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs Python and its httpx-sse: make e2e"]
async fn the_readmes_reader_in_python_goes_on_after_any_crash() {
    goes_on_after_any_crash(|folder| from_readme("Subscribers", "python", python(), folder)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs Node.js: make e2e"]
async fn the_readmes_reader_in_javascript_goes_on_after_any_crash() {
    goes_on_after_any_crash(|folder| from_readme("Subscribers", "js", Command::new("node"), folder)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs curl: make e2e"]
async fn curl_shows_events_as_they_come() {
    let (world, ada) = world().await;
    let proxy = Process::start(&world);
    proxy.client.avatar(ADA).await;
    let target = format!("http://{}/events", proxy.address());
    let curl = Program::start(Command::new("curl").args(["--silent", "--no-buffer", &target]));
    curl.says("retry: 3000").await;
    ada.picture("18");
    curl.says("data: {\"event\":\"avatar.changed\"").await;
}
