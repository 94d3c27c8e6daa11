//! What outlives the process: entries, schedules and cool-downs, after a graceful stop and after `kill -9` alike.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use avatar_proxy::clock::Clock;
use avatar_proxy::demo::{Address, Options, Reply};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

use crate::support::app::World;
use crate::support::background::background_work;
use crate::support::client::Client;
use crate::support::eventually::eventually;
use crate::support::hand;
use crate::support::process::Process;

const ADA: &str = "999001";

const MINUTE: Duration = Duration::from_secs(60);

/// What clients were told is stored: phone and URL.
type Promised = Arc<Mutex<HashMap<String, String>>>;

/// Asks for one new person after the other until the proxy is gone.
async fn load(client: Client, people: Arc<AtomicU64>, promised: Promised) {
    loop {
        let phone = format!("{}", 9_000_000 + people.fetch_add(1, Ordering::Relaxed));
        let Ok(answer) = client.send(http::Method::GET, &format!("/user/avatar?phone={phone}"), &[]).await else {
            return;
        };
        if answer.how().starts_with("avatar-proxy; fwd=miss; stored") {
            promised.lock().unwrap().insert(phone, answer.url());
        }
    }
}

#[tokio::test]
async fn what_was_said_to_be_stored_is_there_after_any_kill() {
    let options = Options { latency: Duration::ZERO..=Duration::from_millis(5), ..Options::default() };
    let world = World::with(options, Clock::system()).await;
    let (people, promised) = (Arc::new(AtomicU64::new(0)), Promised::default());
    let mut process = Process::start(&world);
    for _ in 0..10 {
        let client = process.client.clone();
        let clients: JoinSet<()> = (0..16).map(|_| load(client.clone(), people.clone(), promised.clone())).collect();
        let moment = Duration::from_millis(fastrand::u64(5..150));
        tokio::time::sleep(moment).await;
        process.kill();
        clients.join_all().await;
        world.gateway.idle().await;

        process = Process::start(&world);
        let lookups = world.gateway.lookups();
        let kept = std::mem::take(&mut *promised.lock().unwrap());
        for (phone, url) in kept {
            let answer = process.client.avatar(&phone).await.expect(200, "hit; ttl=");
            assert_eq!(answer.url(), url, "killed after {moment:?}");
        }
        assert_eq!(world.gateway.lookups(), lookups);
    }
    assert!(people.load(Ordering::Relaxed) > 100, "there was some load");
}

#[tokio::test]
async fn after_a_graceful_restart_nothing_is_asked_again() {
    let world = World::new().await;
    let hidden = world.gateway.person("999002").replies(Reply::Hidden);
    let app = world.start().await;
    let before = app.avatar(ADA).await.expect(200, "fwd=miss; stored");
    let preview = app.get(&format!("/user/avatar?phone={ADA}&is_preview=true")).await.expect(200, "fwd=miss; stored");
    app.avatar("999002").await.expect(500, "fwd=miss; stored");
    app.stop().await;

    let app = world.start().await;
    let after = app.avatar(ADA).await.expect(200, "hit; ttl=");
    assert_eq!((after.body, after.headers["etag"].clone()), (before.body, before.headers["etag"].clone()));
    let after = app.get(&format!("/user/avatar?phone={ADA}&is_preview=true")).await.expect(200, "hit; ttl=");
    assert_eq!(after.body, preview.body);
    app.avatar("999002").await.expect(500, "hit; ttl=");
    assert_eq!((world.gateway.lookups(), hidden.lookups()), (3, 1));
    app.stop().await;
}

#[tokio::test]
async fn refreshing_goes_on_after_a_restart_though_nobody_asks() {
    let world = hand::world(Options::default()).await.flag("--recheck-interval=1h");
    let ada = world.gateway.person(ADA).picture("17");
    let app = world.start().await;
    app.avatar(ADA).await.expect(200, "fwd=miss; stored");
    app.stop().await;
    ada.picture("18");
    world.clock.advance(60 * MINUTE);
    let app = world.start().await;
    ada.arrived(2).await;
    background_work(&app, &world.clock).await;
    world.clock.advance(60 * MINUTE);
    ada.arrived(3).await;
    assert_eq!(app.avatar(ADA).await.expect(200, "hit; ttl=").picture_id(), "18");
    assert_eq!(app.get(&format!("/avatars/{ADA}")).await.json()["version"], 1);
    app.stop().await;
}

#[tokio::test]
async fn refreshing_goes_on_after_a_kill_though_nobody_asks() {
    let world = World::new().await;
    let ada = world.gateway.person(ADA).picture("17").address(Address::Lasting(Duration::from_secs(6)));
    let process = Process::start(&world);
    process.client.avatar(ADA).await.expect(200, "fwd=miss; stored");
    process.kill();
    let process = Process::start(&world);
    ada.arrived(3).await;
    process.client.avatar(ADA).await.expect(200, "hit; ttl=");
}

#[tokio::test]
async fn a_doubt_is_settled_after_a_restart() {
    let world = hand::world(Options::default()).await;
    let ada = world.gateway.person(ADA).picture("17");
    let app = world.start().await;
    app.avatar(ADA).await.expect(200, "fwd=miss; stored");
    ada.replies(Reply::Hidden);
    world.clock.advance(hand::NO_LONGER_RECENT);
    app.avatar_asking(ADA, "no-cache").await.expect(200, "fwd=request; stored");
    app.stop().await;
    let app = world.start().await;
    assert_eq!(app.avatar(ADA).await.expect(200, "hit; ttl=").picture_id(), "17");
    world.clock.advance(MINUTE);
    ada.arrived(3).await;
    eventually("it is believed", async || app.avatar(ADA).await.status == 500).await;
    app.stop().await;
}

#[tokio::test]
async fn who_is_not_asked_for_is_forgotten_and_the_store_shrinks() {
    let world = hand::world(Options::default()).await.flag("--warm-for=10m").flag("--forget-after=1h");
    let app = world.start().await;
    for n in 0..300 {
        for preview in [true, false] {
            app.get(&format!("/user/avatar?phone=9990{n:03}&is_preview={preview}")).await.expect(200, "fwd=miss");
        }
    }
    let entries = async || app.metric("avatar_proxy_store_entries").await;
    world.clock.advance(30 * MINUTE);
    eventually("all are counted", async || (entries().await - 600.0).abs() < 0.1).await;
    app.avatar("9990007").await.expect(200, "hit; ttl=");
    background_work(&app, &world.clock).await;
    world.clock.advance(35 * MINUTE);
    eventually("all but one are gone", async || (entries().await - 1.0).abs() < 0.1).await;
    assert!((app.metric("avatar_proxy_forgotten_total").await - 299.0).abs() < 0.1);
    app.avatar("9990007").await.expect(200, "hit; ttl=");
    app.avatar("9990008").await.expect(200, "fwd=miss; stored");
    app.stop().await;
}

#[tokio::test]
async fn a_graceful_stop_finishes_the_request_that_is_being_looked_up() {
    let world = World::new().await;
    let ada = world.gateway.person(ADA).picture("17");
    let held = ada.hold();
    let process = Process::start(&world);
    let client = process.client.clone();
    let asking = tokio::spawn(async move { client.avatar(ADA).await });
    ada.arrived(1).await;
    process.ask_to_stop();
    let address = process.address();
    eventually("it takes no more connections", async || TcpStream::connect(address).await.is_err()).await;
    held.release();
    assert_eq!(asking.await.unwrap().expect(200, "fwd=miss; stored").picture_id(), "17");
    let (status, log) = tokio::task::spawn_blocking(|| process.ended()).await.unwrap();
    assert!(status.success() && log.iter().any(|line| line.contains("\"stopped\"")), "{status}: {log:#?}");

    let process = Process::start(&world);
    process.client.avatar(ADA).await.expect(200, "hit; ttl=");
    assert_eq!(ada.lookups(), 1);
}

#[tokio::test]
async fn a_graceful_stop_finishes_a_lookup_whose_clients_have_gone() {
    let world = World::new().await;
    let ada = world.gateway.person(ADA).picture("17");
    let held = ada.hold();
    let process = Process::start(&world);
    let caller = crate::support::caller::Caller::asks(process.address(), ADA).await;
    ada.arrived(1).await;
    caller.hangs_up();
    process.ask_to_stop();
    let address = process.address();
    eventually("it takes no more connections", async || TcpStream::connect(address).await.is_err()).await;
    held.release();
    assert!(tokio::task::spawn_blocking(|| process.ended()).await.unwrap().0.success());
    Process::start(&world).client.avatar_asking(ADA, "only-if-cached").await.expect(200, "hit; ttl=");
}

#[tokio::test]
async fn a_second_process_on_the_same_store_is_refused() {
    let world = World::new().await;
    let process = Process::start(&world);
    let (status, said) = Process::refused(&world);
    assert_eq!(status.code(), Some(1));
    assert!(said.contains("store.db is in use by another process") && said.lines().count() == 1, "{said}");
    process.client.avatar(ADA).await.expect(200, "fwd=miss; stored");
    process.kill();
    Process::start(&world).client.avatar(ADA).await.expect(200, "hit; ttl=");
}

#[tokio::test]
async fn a_cool_down_is_remembered_over_a_restart() {
    let world = World::new().await;
    world.gateway.person(ADA).replies(Reply::RateLimited);
    let process = Process::start(&world);
    process.client.avatar(ADA).await.expect(429, "fwd=miss; detail=rate-limit");
    process.kill();
    let process = Process::start(&world);
    let answer = process.client.avatar("999002").await.expect(429, "detail=rate-limit");
    let wait: u64 = answer.header("retry-after").parse().unwrap();
    assert!((30..=60).contains(&wait), "{answer:?}");
    assert!(process.terminate().0.success());
    Process::start(&world).client.avatar("999002").await.expect(429, "detail=rate-limit");
    assert_eq!(world.gateway.lookups(), 1);
}
