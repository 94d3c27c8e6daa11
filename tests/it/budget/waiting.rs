//! Who has to wait, for how long, and who does not.

use super::*;

#[tokio::test]
async fn whoever_cannot_be_served_within_max_wait_is_told_at_once_when_to_come_back() {
    let world = world(Options::default()).await.flag("--max-wait=3s").flag("--gateway-burst=1");
    let app = world.start().await;
    save_up(&world, &app, "sales").await;
    ask(&app, "sales", 999_001).await.expect(200, "fwd=miss");
    let before = world.gateway.lookups();
    let in_time: Vec<_> = (2..=4).map(|number| asking(&app, "sales", 999_000 + number)).collect();
    until_waiting(&app, 3).await;

    let refused = ask(&app, "sales", 999_005).await.expect(429, "detail=budget");
    assert_eq!((refused.code().as_str(), refused.retry_after()), ("RATE_LIMITED", 4));
    assert_eq!(refused.header("cache-control"), "no-store");
    assert_eq!(world.gateway.lookups(), before);

    for number in 1..=3 {
        world.clock.advance(secs(1));
        world.gateway.arrived(before + number).await;
        until_waiting(&app, 3 - u32::try_from(number).unwrap()).await;
        assert_eq!(world.gateway.lookups(), before + number);
    }
    for answer in in_time {
        answer.await.unwrap().expect(200, "fwd=miss");
    }
    world.clock.advance(secs(refused.retry_after() - 3));
    ask(&app, "sales", 999_005).await.expect(200, "fwd=miss");
    assert!(app.metric(r#"avatar_proxy_budget_refusals_total{priority="miss",reason="spent"}"#).await > 0.0);
    app.stop().await;
}

#[tokio::test]
async fn waiting_ends_after_max_wait_when_lookups_under_way_take_too_long() {
    let world = world(Options::default()).await.flag("--gateway-concurrency=1");
    let app = world.start().await;
    save_up(&world, &app, "sales").await;
    let slow = world.gateway.person("999001");
    let hold = slow.hold();
    let first = asking(&app, "sales", 999_001);
    slow.arrived(1).await;
    let second = asking(&app, "sales", 999_002);
    until_waiting(&app, 1).await;
    world.clock.advance(secs(10) + Duration::from_millis(500));
    let refused = second.await.unwrap().expect(429, "detail=budget");
    assert!(refused.retry_after() >= 1, "{refused:?}");
    until_waiting(&app, 0).await;
    hold.release();
    first.await.unwrap().expect(200, "fwd=miss");
    ask(&app, "sales", 999_002).await.expect(200, "fwd=miss");
    app.stop().await;
}

#[tokio::test]
async fn a_flood_of_one_device_delays_neither_hits_nor_other_devices() {
    let world = world(Options::default()).await.flag("--max-wait=60s");
    let app = world.start().await;
    for device in ["sales", "support"] {
        save_up(&world, &app, device).await;
    }
    ask(&app, "sales", 999_001).await.expect(200, "fwd=miss");
    let flood: Vec<_> = (0..200).map(|number| asking(&app, "sales", 999_100 + number)).collect();
    // 19 tokens are left, 60 come within the patience, and the others are sent away.
    until_waiting(&app, 60).await;

    // Time stands still: nobody of these waits for a token.
    ask(&app, "sales", 999_001).await.expect(200, "hit");
    for number in 0..10 {
        ask(&app, "support", 999_500 + number).await.expect(200, "fwd=miss");
    }
    assert!(app.metric(r#"avatar_proxy_budget_refusals_total{priority="miss",reason="spent"}"#).await > 100.0);
    let mut served = 0;
    for answer in flood {
        served += u32::from(passing(&world, answer).await.unwrap().status == 200);
    }
    assert_eq!(served, 79);
    app.stop().await;
}

#[tokio::test]
async fn clients_that_hang_up_while_they_wait_cost_nothing() {
    let world = world(Options::default()).await.flag("--gateway-burst=1");
    let app = world.start().await;
    save_up(&world, &app, "sales").await;
    ask(&app, "sales", 999_001).await.expect(200, "fwd=miss");
    let before = world.gateway.lookups();
    let gone = asking(&app, "sales", 999_002);
    until_waiting(&app, 1).await;
    gone.abort();
    until_waiting(&app, 0).await;
    world.clock.advance(secs(1));
    ask(&app, "sales", 999_003).await.expect(200, "fwd=miss");
    assert_eq!(world.gateway.lookups(), before + 1);
    app.stop().await;
}
