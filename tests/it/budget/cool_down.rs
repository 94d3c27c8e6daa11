//! WhatsApp says: slow down. Nothing starts until the cool-down ends, over restarts and kills, and what lives is served.

use avatar_proxy::clock::Clock;
use avatar_proxy::demo::Reply;
use avatar_proxy::jid::Device;

use super::*;
use crate::support::hand::NO_LONGER_RECENT;
use crate::support::process::Process;

const LIMITED: u64 = 999_900;

/// A device that has just been told to slow down, with one live entry (of 999001) that is not recent.
async fn cooling(world: &World, app: &TestApp) {
    save_up(world, app, "sales").await;
    ask(app, "sales", 999_001).await.expect(200, "fwd=miss");
    world.clock.advance(NO_LONGER_RECENT);
    limit(world, app).await;
}

async fn limit(world: &World, app: &TestApp) {
    let limited = world.gateway.person(&LIMITED.to_string()).replies_once(Reply::RateLimited);
    passing(world, ask(app, "sales", LIMITED)).await.expect(429, "fwd=miss; detail=rate-limit");
    assert!(limited.lookups() > 0);
}

#[tokio::test]
async fn nothing_starts_until_it_ends_and_what_lives_is_served() {
    let world = world(Options::default()).await;
    let app = world.start().await;
    save_up(&world, &app, "support").await;
    cooling(&world, &app).await;
    let before = world.gateway.lookups();
    let mut left = ask(&app, "sales", 999_002).await.expect(429, "detail=rate-limit").retry_after();
    assert!((50..=60).contains(&left), "{left}");
    while left > 1 {
        let cold = ask(&app, "sales", 999_100 + left).await.expect(429, "detail=rate-limit");
        assert_eq!((cold.code().as_str(), cold.retry_after()), ("RATE_LIMITED", left));
        ask(&app, "sales", 999_001).await.expect(200, "hit");
        let pressed = app.get_with(&target(999_001), &[("x-device-id", "sales"), ("cache-control", "no-cache")]).await;
        let pressed = pressed.expect(200, "hit; ttl=");
        assert!(pressed.how().ends_with("; detail=rate-limit"), "{pressed:?}");
        let step = 7.min(left - 1);
        world.clock.advance(secs(step));
        left -= step;
    }
    assert_eq!(world.gateway.lookups(), before);
    ask(&app, "support", 999_002).await.expect(200, "fwd=miss");

    world.clock.advance(secs(1));
    passing(&world, ask(&app, "sales", 999_002)).await.expect(200, "fwd=miss");
    app.stop().await;
}

#[tokio::test]
async fn answers_say_what_is_left_of_the_budget_and_when_it_comes_back() {
    let world = world(Options::default()).await;
    let app = world.start().await;
    save_up(&world, &app, "sales").await;
    let said = |answer: &Answer| [answer.header("ratelimit").to_owned(), answer.header("ratelimit-policy").to_owned()];
    let first = ask(&app, "sales", 999_001).await.expect(200, "fwd=miss");
    assert_eq!(said(&first), [r#""device";r=19;t=1"#, r#""device";q=20;w=20"#]);
    let hit = ask(&app, "sales", 999_001).await.expect(200, "hit");
    assert_eq!(said(&hit), ["", ""], "a hit in memory touches no budget");
    limit(&world, &app).await;
    let cold = ask(&app, "sales", 999_002).await.expect(429, "detail=rate-limit");
    let left = cold.retry_after();
    assert_eq!(said(&cold), [format!(r#""device";r=0;t={left}"#), r#""device";q=20;w=40"#.to_owned()]);
    let label = Device::new("sales").unwrap().label();
    let allowed = async || app.metric(&format!("avatar_proxy_budget_allowed_per_second{{device=\"{label}\"}}")).await;
    assert!(allowed().await.abs() < 1e-9);
    world.clock.advance(secs(left));
    assert!((allowed().await - 0.5).abs() < 0.01);
    world.clock.advance(secs(2 * 3600));
    assert!((allowed().await - 1.0).abs() < 1e-9);
    app.stop().await;
}

#[tokio::test]
async fn those_who_waited_are_told_and_do_not_start() {
    let world = world(Options::default()).await.flag("--gateway-concurrency=1");
    let app = world.start().await;
    save_up(&world, &app, "sales").await;
    let limited = world.gateway.person("999001").replies_once(Reply::RateLimited);
    let hold = limited.hold();
    let first = asking(&app, "sales", 999_001);
    limited.arrived(1).await;
    let before = world.gateway.lookups();
    let waiting: Vec<_> = (2..=6).map(|number| asking(&app, "sales", 999_000 + number)).collect();
    until_waiting(&app, 5).await;
    hold.release();
    first.await.unwrap().expect(429, "fwd=miss; detail=rate-limit");
    for answer in waiting {
        let answer = answer.await.unwrap().expect(429, "detail=rate-limit");
        assert_eq!(answer.retry_after(), 60);
    }
    assert_eq!(world.gateway.lookups(), before);
    app.stop().await;
}

#[tokio::test]
async fn it_doubles_while_it_recurs_and_the_rate_is_halved_afterwards() {
    let world = world(Options::default()).await;
    let app = world.start().await;
    cooling(&world, &app).await;
    for expected in [120, 240, 480] {
        let left = ask(&app, "sales", 999_002).await.expect(429, "detail=rate-limit").retry_after();
        world.clock.advance(secs(left));
        limit(&world, &app).await;
        let told = ask(&app, "sales", 999_002).await.expect(429, "detail=rate-limit").retry_after();
        assert!((expected - 10..=expected).contains(&told), "{told} of {expected}");
    }
    app.stop().await;
}

#[tokio::test]
async fn half_the_rate_is_left_after_the_first() {
    let world = world(Options::default()).await;
    let app = world.start().await;
    cooling(&world, &app).await;
    let left = ask(&app, "sales", 999_002).await.expect(429, "detail=rate-limit").retry_after();
    world.clock.advance(secs(left));
    let before = world.gateway.lookups();
    let asked = [asking(&app, "sales", 999_003), asking(&app, "sales", 999_004)];
    until_waiting(&app, 2).await;
    for expected in 1..=2 {
        world.clock.advance(Duration::from_millis(1900));
        assert_eq!(world.gateway.lookups(), before + expected - 1);
        world.clock.advance(Duration::from_millis(100));
        world.gateway.arrived(before + expected).await;
    }
    for answer in asked {
        answer.await.unwrap().expect(200, "fwd=miss");
    }
    app.stop().await;
}

#[tokio::test]
async fn it_outlives_a_restart_with_what_is_left_of_it() {
    let world = world(Options::default()).await;
    let app = world.start().await;
    cooling(&world, &app).await;
    world.clock.advance(secs(20));
    let left = ask(&app, "sales", 999_002).await.expect(429, "detail=rate-limit").retry_after();
    app.stop().await;
    let before = world.gateway.lookups();
    let app = world.start().await;
    let refused = ask(&app, "sales", 999_002).await.expect(429, "detail=rate-limit");
    assert_eq!(refused.retry_after(), left);
    ask(&app, "sales", 999_001).await.expect(200, "hit");
    assert_eq!(world.gateway.lookups(), before);
    world.clock.advance(secs(left));
    limit(&world, &app).await;
    let refused = ask(&app, "sales", 999_002).await.expect(429, "detail=rate-limit");
    assert!((110..=120).contains(&refused.retry_after()), "it recurs, over the restart: {refused:?}");
    app.stop().await;
}

#[tokio::test]
async fn it_outlives_a_kill_the_moment_a_client_was_told() {
    let world = World::with(Options::default(), Clock::system()).await.flag("--rate-limit-cooldown=1h");
    let _ = world.gateway.person("999001").replies(Reply::RateLimited);
    let first = Process::start(&world);
    let told = first.client.avatar("999001").await.expect(429, "fwd=miss; detail=rate-limit");
    assert_eq!(told.retry_after(), 3600);
    first.kill();

    let second = Process::start(&world);
    for phone in ["999001", "999002"] {
        let refused = second.client.avatar(phone).await.expect(429, "detail=rate-limit");
        assert!((3000..=3600).contains(&refused.retry_after()), "{refused:?}");
    }
    assert_eq!(world.gateway.lookups(), 1);
}
