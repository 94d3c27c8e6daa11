//! A device is logged out, offline or unknown: it rests, is probed by one lookup at a time, and nobody else's device is touched.

use avatar_proxy::demo::{DeviceState, Devices, Options};

use super::ask;
use crate::support::hand::{self, SECOND};

#[tokio::test]
async fn everybody_hears_what_the_device_said_last_and_other_devices_go_on() {
    let world = hand::world(Options::default()).await;
    world.gateway.set_device_state("sales", DeviceState::LoggedOut);
    let app = world.start().await;
    let first = ask(&app, "999001", "sales").await.expect(401, "fwd=miss; detail=device");
    assert!(first.header("www-authenticate").is_empty(), "it is not about the client's password");
    for phone in ["999001", "999002"] {
        let again = ask(&app, phone, "sales").await.expect(401, "hit; ttl=5; detail=device");
        assert_eq!((&again.body, again.retry_after()), (&first.body, 5));
    }
    assert_eq!(world.gateway.lookups(), 1);
    ask(&app, "999001", "support").await.expect(200, "fwd=miss; stored");
    assert_eq!(app.get("/ready").await.status, 200);
    app.stop().await;
}

#[tokio::test]
async fn it_is_probed_by_one_lookup_and_then_works_again() {
    let world = hand::world(Options::default()).await;
    world.gateway.set_device_state("sales", DeviceState::Offline);
    let app = world.start().await;
    ask(&app, "999001", "sales").await.expect(401, "fwd=miss");
    world.gateway.set_device_state("sales", DeviceState::Connected);
    world.clock.advance(5 * SECOND);

    let probe = world.gateway.hold();
    let client = (*app).clone();
    let probing = tokio::spawn(async move { ask(&client, "999001", "sales").await });
    world.gateway.arrived(2).await;
    ask(&app, "999002", "sales").await.expect(401, "hit; ttl=1; detail=device");
    assert_eq!(world.gateway.lookups(), 2, "one probe at a time");
    drop(probe);
    probing.await.unwrap().expect(200, "fwd=miss; stored");
    ask(&app, "999002", "sales").await.expect(200, "fwd=miss; stored");
    app.stop().await;
}

#[tokio::test]
async fn probes_that_fail_come_at_doubling_times() {
    let world = hand::world(Options::default()).await;
    world.gateway.set_device_state("sales", DeviceState::WithoutSession);
    let app = world.start().await;
    for (lookups, rests) in (1..).zip([5, 10, 20, 40, 80, 160, 300, 300]) {
        let answer = ask(&app, "999001", "sales").await.expect(500, "fwd=miss; detail=device");
        assert_eq!((answer.code().as_str(), answer.retry_after()), ("INVALID_WA_CLI", rests));
        world.clock.advance((u32::try_from(rests).unwrap() - 1) * SECOND);
        ask(&app, "999002", "sales").await.expect(500, "hit; ttl=1; detail=device");
        assert_eq!(world.gateway.lookups(), lookups);
        world.clock.advance(SECOND);
    }
    app.stop().await;
}

#[tokio::test]
async fn a_device_that_does_not_exist_is_named_in_the_answer_and_costs_one_lookup() {
    let devices = Devices::Known(vec!["sales".into(), "support".into()]);
    let world = hand::world(Options { devices, ..Options::default() }).await;
    let app = world.start().await;
    for _ in 0..2 {
        let answer = ask(&app, "999001", "gh%C3%B6st").await.expect(404, "");
        assert_eq!(
            (answer.code().as_str(), answer.json()["results"]["device_id"].as_str()),
            ("DEVICE_NOT_FOUND", Some("gh\u{f6}st"))
        );
        let answer = app.avatar("999001").await.expect(400, "");
        assert_eq!(answer.code(), "DEVICE_ID_REQUIRED");
    }
    assert_eq!(world.gateway.lookups(), 2);
    ask(&app, "999001", "sales").await.expect(200, "fwd=miss; stored");
    app.stop().await;
}
