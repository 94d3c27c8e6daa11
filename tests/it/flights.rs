//! Promise 3: any number of clients asking for one cold key cost one gateway lookup, whoever of them stays to the end.

use std::time::Duration;

use avatar_proxy::demo::{Options, Reply};
use tokio::task::{JoinHandle, JoinSet};

use crate::support::app::{TestApp, World};
use crate::support::caller::Caller;
use crate::support::client::{Answer, Client};
use crate::support::eventually::eventually;
use crate::support::hand::{self, SECOND};
use crate::support::wire::Wire;

const ADA: &str = "999001";
const BOB: &str = "999002";

const HOUR: Duration = Duration::from_secs(3600);

/// Asks, and lets the test go on.
fn asking(app: &TestApp, phone: &str, cache_control: &'static str) -> JoinHandle<Answer> {
    let (client, phone) = (Client::clone(app), phone.to_owned());
    tokio::spawn(async move { client.avatar_asking(&phone, cache_control).await })
}

/// Waits until so many clients wait for a lookup.
async fn waiting(app: &TestApp, clients: u32) {
    let what = format!("{clients} clients wait");
    eventually(&what, async || (app.metric("avatar_proxy_lookups_waiting").await - f64::from(clients)).abs() < 0.5)
        .await;
}

/// Waits until so many lookups stand in the budget's queue.
async fn queued(app: &TestApp, lookups: u32) {
    let what = format!("{lookups} lookups wait for the budget");
    eventually(&what, async || (app.metric("avatar_proxy_budget_waiting").await - f64::from(lookups)).abs() < 0.5)
        .await;
}

#[tokio::test]
async fn six_hundred_clients_at_once_cost_one_lookup() {
    let world = World::new().await;
    let ada = world.gateway.person(ADA).picture("17");
    let held = ada.hold();
    let app = world.start().await;
    let address = app.app().address();
    // Half of them have a connection each, half share a few, as browsers and back ends do.
    let clients = (0..300).map(|_| Client::new(address));
    let shared: Vec<_> = (0..4).map(|_| Client::over_http2(address)).collect();
    let clients = clients.chain((0..300).map(|index| shared[index % shared.len()].clone()));
    let mut asking: JoinSet<Answer> =
        clients.map(|client| async move { client.avatar_asking(ADA, "max-age=60").await }).collect();
    waiting(&app, 600).await;
    held.release();

    let (mut firsts, mut bodies) = (0, vec![]);
    while let Some(answer) = asking.join_next().await {
        let answer = answer.unwrap().expect(200, "fwd=miss; stored");
        firsts += u32::from(!answer.how().contains("; collapsed; "));
        bodies.push(answer.body);
    }
    bodies.dedup();
    assert_eq!((ada.lookups(), firsts, bodies.len()), (1, 1, 1));
    app.stop().await;
}

#[tokio::test]
async fn the_first_client_may_hang_up_half_way() {
    let world = World::new().await;
    let ada = world.gateway.person(ADA).picture("17");
    let held = ada.hold();
    let app = world.start().await;
    let first = Caller::asks(app.app().address(), ADA).await;
    ada.arrived(1).await;
    let others = [asking(&app, ADA, ""), asking(&app, ADA, "")];
    waiting(&app, 3).await;
    first.breaks_off();
    waiting(&app, 2).await;
    held.release();
    for other in others {
        let answer = other.await.unwrap().expect(200, "fwd=miss; stored; collapsed; ttl=");
        assert_eq!(answer.picture_id(), "17");
    }
    assert_eq!(ada.lookups(), 1);
    app.stop().await;
}

#[tokio::test]
async fn a_lookup_that_waits_for_the_budget_is_given_up_with_its_last_client_and_costs_nothing() {
    let world = hand::world(Options::default()).await.flag("--gateway-rate=1/h").flag("--max-wait=2h");
    let app = world.start().await;
    let callers = [Caller::asks(app.app().address(), ADA).await, Caller::asks(app.app().address(), ADA).await];
    waiting(&app, 2).await;
    queued(&app, 1).await;
    let [one, other] = callers;
    one.hangs_up();
    waiting(&app, 1).await;
    queued(&app, 1).await;
    other.hangs_up();
    queued(&app, 0).await;

    world.clock.advance(HOUR);
    app.avatar(BOB).await.expect(200, "fwd=miss; stored");
    assert_eq!(world.gateway.lookups(), 1, "the hour's only lookup was Bob's");
    app.stop().await;
}

#[tokio::test]
async fn a_client_that_closes_its_sending_side_is_told_to_come_back_if_it_has_to_wait_for_the_budget() {
    let world = hand::world(Options::default()).await.flag("--gateway-rate=1/h").flag("--max-wait=2h");
    let app = world.start().await;
    let mut wire = Wire::open(app.app().address()).await;
    wire.send(format!("GET /user/avatar?phone={ADA} HTTP/1.1\r\nhost: localhost\r\n\r\n")).await;
    queued(&app, 1).await;
    wire.finish_sending().await;
    let answer = wire.answer().await.expect("it may be listening");
    assert!(answer.status == 429 && answer.head.contains("retry-after: "), "{answer:?}");
    queued(&app, 0).await;
    app.stop().await;
}

#[tokio::test]
async fn a_lookup_that_has_been_asked_ends_in_the_cache_though_everybody_hung_up() {
    let world = World::new().await;
    let ada = world.gateway.person(ADA).picture("17");
    let held = ada.hold();
    let app = world.start().await;
    let callers = [Caller::asks(app.app().address(), ADA).await, Caller::asks(app.app().address(), ADA).await];
    waiting(&app, 2).await;
    ada.arrived(1).await;
    for caller in callers {
        caller.breaks_off();
    }
    waiting(&app, 0).await;
    held.release();
    eventually("it is kept", async || app.avatar_asking(ADA, "only-if-cached").await.status == 200).await;
    app.avatar(ADA).await.expect(200, "hit; ttl=");
    assert_eq!(ada.lookups(), 1);
    app.stop().await;
}

#[tokio::test]
async fn a_failure_is_shared_and_rests_its_key() {
    let world = World::new().await;
    let ada = world.gateway.person(ADA).replies(Reply::internal("failed to get avatar: websocket not connected"));
    let held = ada.hold();
    let app = world.start().await;
    let clients = [asking(&app, ADA, ""), asking(&app, ADA, "")];
    waiting(&app, 2).await;
    held.release();
    let mut how = vec![];
    for client in clients {
        let answer = client.await.unwrap().expect(500, "fwd=miss");
        assert_eq!((answer.code().as_str(), answer.header("retry-after")), ("INTERNAL_SERVER_ERROR", "2"));
        how.push(answer.how().to_owned());
    }
    how.sort();
    assert_eq!(how, ["avatar-proxy; fwd=miss; collapsed; detail=passing", "avatar-proxy; fwd=miss; detail=passing"]);
    let again = app.avatar(ADA).await.expect(500, "hit; ttl=");
    assert!(again.how().ends_with("; detail=passing"), "{again:?}");
    assert_eq!(ada.lookups(), 2, "one and its retry");
    app.stop().await;
}

#[tokio::test]
async fn what_the_budget_cannot_start_in_time_is_answered_at_once() {
    let world = World::new().await.flag("--gateway-rate=1/h").flag("--max-wait=10s");
    let app = world.start().await;
    for client in [asking(&app, ADA, ""), asking(&app, ADA, "")] {
        let answer = client.await.unwrap().expect(429, "detail=budget");
        let wait: u64 = answer.header("retry-after").parse().unwrap();
        assert!(answer.code() == "RATE_LIMITED" && (3590..=3600).contains(&wait), "{answer:?}");
    }
    assert_eq!(world.gateway.lookups(), 0);
    app.stop().await;
}

#[tokio::test]
async fn a_client_whose_turn_does_not_come_within_its_patience_is_told_to_come_back() {
    let world = hand::world(Options::default()).await.flag("--gateway-concurrency=1").flag("--max-wait=10s");
    let (ada, held) = (world.gateway.person(ADA), world.gateway.person(ADA).hold());
    let app = world.start().await;
    let first = asking(&app, ADA, "");
    ada.arrived(1).await;
    let second = asking(&app, BOB, "");
    queued(&app, 1).await;
    world.clock.advance(11 * SECOND);
    second.await.unwrap().expect(429, "detail=budget");
    queued(&app, 0).await;
    held.release();
    first.await.unwrap().expect(200, "fwd=miss; stored");
    assert_eq!(world.gateway.lookups(), 1);
    app.stop().await;
}

#[tokio::test]
async fn a_gateway_that_does_not_answer_in_time_is_late_for_everybody() {
    let world = World::new().await.flag("--gateway-timeout=200ms");
    let ada = world.gateway.person(ADA);
    let _held = ada.hold();
    let app = world.start().await;
    for client in [asking(&app, ADA, ""), asking(&app, ADA, "")] {
        let answer = client.await.unwrap().expect(504, "fwd=miss");
        assert!(answer.code() == "GATEWAY_TIMEOUT" && answer.how().ends_with("detail=late"), "{answer:?}");
        assert_eq!(answer.header("retry-after"), "2");
    }
    assert_eq!(ada.lookups(), 1);
    app.stop().await;
}

#[tokio::test]
async fn a_client_that_has_waited_too_long_is_sent_away_and_the_lookup_goes_on() {
    let world = hand::world(Options::default()).await;
    let ada = world.gateway.person(ADA).picture("17");
    let held = ada.hold();
    let app = world.start().await;
    let client = asking(&app, ADA, "");
    ada.arrived(1).await;
    // The gateway's timeout is real time; what a client grants beyond it is the clock's.
    world.clock.advance(60 * SECOND);
    let answer = client.await.unwrap().expect(504, "fwd=miss; detail=too-long");
    assert_eq!((answer.code().as_str(), answer.header("retry-after")), ("GATEWAY_TIMEOUT", "1"));
    held.release();
    eventually("it is kept", async || app.avatar_asking(ADA, "only-if-cached").await.status == 200).await;
    app.stop().await;
}

#[tokio::test]
async fn different_keys_do_not_wait_for_each_other() {
    let world = World::new().await;
    let ada = world.gateway.person(ADA).picture("17");
    let held = ada.hold_next();
    let app = world.start().await;
    let first = asking(&app, ADA, "");
    ada.arrived(1).await;
    app.avatar(BOB).await.expect(200, "fwd=miss; stored; ttl=");
    app.get(&format!("/user/avatar?phone={ADA}&is_preview=true")).await.expect(200, "fwd=miss; stored; ttl=");
    let other_device = [("x-device-id", "other")];
    app.get_with(&format!("/user/avatar?phone={ADA}"), &other_device).await.expect(200, "fwd=miss; stored; ttl=");
    assert!(!first.is_finished());
    held.release();
    first.await.unwrap().expect(200, "fwd=miss; stored; ttl=");
    app.stop().await;
}

#[tokio::test]
async fn a_client_that_joins_a_background_look_moves_it_ahead() {
    let world = hand::world(Options::default()).await.flag("--gateway-concurrency=1").flag("--recheck-interval=1h");
    let (ada, bob, busy) = (world.gateway.person(ADA), world.gateway.person(BOB), world.gateway.person("999003"));
    let app = world.start().await;
    app.avatar(ADA).await.expect(200, "fwd=miss; stored");

    let held = busy.hold();
    let caller = Caller::asks(app.app().address(), "999003").await;
    busy.arrived(1).await;
    caller.hangs_up();
    world.clock.advance(HOUR);
    queued(&app, 1).await;
    let joined = asking(&app, ADA, "no-cache");
    waiting(&app, 1).await;
    let later = asking(&app, BOB, "");
    queued(&app, 2).await;
    held.release();
    joined.await.unwrap().expect(200, "fwd=request; stored; collapsed; ttl=");
    later.await.unwrap().expect(200, "fwd=miss; stored; ttl=");

    let order: Vec<_> = world.gateway.log().into_iter().filter_map(|lookup| lookup.jid).collect();
    assert_eq!(order, [ada.jid(), busy.jid(), ada.jid(), bob.jid()], "a recheck alone comes after a miss");
    app.stop().await;
}
