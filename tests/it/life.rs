//! The life of a process: it stops in good order, and begins where it was, however it ended.

use std::process::Command;

use crate::support::app::World;
use crate::support::client::Client;
use crate::support::eventually::eventually;
use crate::support::process::Process;

#[tokio::test]
async fn a_process_that_is_told_to_stop_ends_well_and_the_next_begins_where_it_was() {
    let world = World::new().await;
    let ada = world.gateway.person("999001").picture("17");
    let first = Process::start(&world);
    let answer = first.client.avatar("999001").await.expect(200, "fwd=miss; stored; ttl=");
    let (status, log) = first.terminate();
    assert!(status.success(), "{status}");
    assert!(log.iter().any(|line| line.contains("stopped")), "{log:?}");

    let second = Process::start(&world);
    let again = second.client.avatar_asking("999001", "only-if-cached").await.expect(200, "hit; ttl=");
    assert_eq!((answer.url(), ada.lookups()), (again.url(), 1));
}

#[tokio::test]
async fn what_a_client_was_answered_survives_a_kill() {
    let world = World::new().await;
    let ada = world.gateway.person("999001").picture("17");
    let first = Process::start(&world);
    let answer = first.client.avatar("999001").await.expect(200, "fwd=miss; stored; ttl=");
    first.kill();

    let second = Process::start(&world);
    let again = second.client.avatar("999001").await.expect(200, "hit; ttl=");
    assert_eq!((answer.body, ada.lookups()), (again.body, 1));
}

#[tokio::test]
async fn an_interrupt_ends_it_as_well() {
    let world = World::new().await;
    let process = Process::start(&world);
    let interrupted = Command::new("kill").args(["-INT", &process.id().to_string()]).status().expect("kill runs");
    assert!(interrupted.success());
    let (status, _) = process.terminate();
    assert!(status.success() || status.code() == Some(130), "the second signal may come first: {status}");
}

#[tokio::test]
async fn figures_have_an_address_of_their_own_where_nothing_else_is() {
    let world = World::new().await.flag("--metrics-listen=127.0.0.1:0").flag("--auth=ada:s3cret");
    let app = world.start().await;
    let figures = Client::new(app.app().metrics_address().expect("it listens twice"));
    assert_eq!(app.get("/metrics").await.status, 401);
    assert!(figures.get("/metrics").await.text().contains("avatar_proxy_build_info{version="));
    assert_eq!((figures.get("/ready").await.status.as_u16(), figures.get("/health").await.status.as_u16()), (200, 200));
    let elsewhere = figures.avatar("999001").await;
    assert_eq!((elsewhere.status.as_u16(), elsewhere.code().as_str()), (404, "NOT_FOUND"));
    app.stop().await;
}

#[tokio::test]
async fn what_is_held_is_counted() {
    let world = World::new().await;
    world.gateway.person("999001").picture("17");
    let app = world.start().await;
    app.avatar("999001").await.expect(200, "fwd=miss");
    app.avatar("999001").await.expect(200, "hit");
    eventually("the entry is in memory", async || app.metric("avatar_proxy_memory_entries").await > 0.0).await;
    assert!(app.metric("avatar_proxy_lookups_total{met=\"memory\"}").await > 0.0);
    app.stop().await;
}

#[tokio::test]
async fn what_is_live_is_served_with_the_gateway_gone() {
    let world = World::new().await;
    world.gateway.person("999001").picture("17");
    let app = world.start().await;
    let before = app.avatar("999001").await.expect(200, "fwd=miss; stored; ttl=");
    world.gateway.stop().await;
    let after = app.avatar("999001").await.expect(200, "hit; ttl=");
    let pressed = app.avatar_asking("999001", "no-cache").await.expect(200, "hit; ttl=");
    assert_eq!((&before.body, &before.body), (&after.body, &pressed.body));
    let other = app.avatar("999002").await.expect(502, "fwd=miss; detail=nonsense");
    assert_eq!(other.code(), "BAD_GATEWAY");
    app.stop().await;
}
