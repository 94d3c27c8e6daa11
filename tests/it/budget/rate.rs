//! How many lookups start.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use avatar_proxy::clock::Clock;
use avatar_proxy::demo::{Devices, Lookup, Reply, Trouble};

use super::*;

/// How much later a lookup may arrive at the gateway than the proxy let it start, on a busy machine.
const LATE: Duration = Duration::from_millis(200);

/// The most lookups in any stretch of time beyond `rate * t + burst`, over all devices; negative is good.
fn excess(log: &[Lookup], rate: f64, burst: f64) -> f64 {
    let mut starts: HashMap<&str, Vec<Duration>> = HashMap::new();
    for lookup in log {
        starts.entry(lookup.device.as_str()).or_default().push(lookup.elapsed);
    }
    let mut worst = f64::MIN;
    for times in starts.values() {
        for (index, from) in times.iter().enumerate() {
            let mut made = 0.0;
            for to in &times[index..] {
                made += 1.0;
                worst = worst.max(made - burst - (to.saturating_sub(*from) + LATE).as_secs_f64() * rate);
            }
        }
    }
    worst
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn in_any_time_no_more_start_than_the_rate_and_the_burst_allow_retries_included() {
    let options = Options {
        latency: Duration::ZERO..=Duration::from_millis(4),
        troubles: vec![Trouble { one_in: 3, reply: Reply::internal("websocket not connected") }],
        ..Options::default()
    };
    let world = World::with(options, Clock::system()).await;
    let world = world.flag("--gateway-rate=100/s").flag("--gateway-burst=10").flag("--gateway-concurrency=4");
    let world = world.flag("--max-wait=1s");
    let app = world.start().await;
    let began = Instant::now();
    let next = Arc::new(AtomicU64::new(999_100_000));
    let hammers: Vec<_> = (0..40)
        .map(|hammer| {
            let (client, next) = ((*app).clone(), next.clone());
            tokio::spawn(async move {
                let device = ["sales", "support"][hammer % 2];
                while began.elapsed() < Duration::from_millis(2500) {
                    let answer = ask(&client, device, next.fetch_add(1, Ordering::SeqCst)).await;
                    assert!([200, 429, 500].contains(&answer.status.as_u16()), "{answer:?}");
                }
            })
        })
        .collect();
    for hammer in hammers {
        hammer.await.unwrap();
    }
    let log = world.gateway.log();
    let passed = began.elapsed().as_secs_f64();
    assert!(excess(&log, 100.0, 10.0) <= 0.0, "{} too many of {}", excess(&log, 100.0, 10.0), log.len());
    assert!(world.gateway.max_in_flight() <= 2 * 4 + 2, "{} at once", world.gateway.max_in_flight());
    #[allow(clippy::cast_precision_loss)]
    let (made, allowed) = (log.len() as f64, 2.0 * (passed * 100.0 + 10.0));
    assert!(made > allowed / 3.0, "a budget that is not used is no budget: {made} of {allowed}");
    app.stop().await;
}

#[tokio::test]
async fn no_more_than_the_concurrency_are_under_way_for_a_device() {
    let world = world(Options::default()).await.flag("--max-wait=60s");
    let app = world.start().await;
    for device in ["sales", "support"] {
        save_up(&world, &app, device).await;
    }
    let before = world.gateway.lookups();
    let hold = world.gateway.hold();
    let asked: Vec<_> = (1..=12)
        .map(|number| asking(&app, if number % 2 == 0 { "sales" } else { "support" }, 999_000 + number))
        .collect();
    until_waiting(&app, 8).await;
    world.gateway.arrived(before + 4).await;
    assert_eq!(world.gateway.in_flight(), 4, "two for each device");
    hold.release();
    for answer in asked {
        answer.await.unwrap().expect(200, "fwd=miss");
    }
    app.stop().await;
}

#[tokio::test]
async fn a_restart_is_not_a_second_burst() {
    let world = world(Options::default()).await.flag("--gateway-concurrency=20").flag("--max-wait=60s");
    let app = world.start().await;
    save_up(&world, &app, "sales").await;
    let burst: Vec<_> = (1..=20).map(|number| asking(&app, "sales", 999_000 + number)).collect();
    for answer in burst {
        answer.await.unwrap().expect(200, "fwd=miss");
    }
    app.stop().await;

    let app = world.start().await;
    let before = world.gateway.lookups();
    let asked = [asking(&app, "sales", 999_101), asking(&app, "sales", 999_102)];
    until_waiting(&app, 2).await;
    world.clock.advance(secs(1));
    until_waiting(&app, 1).await;
    world.gateway.arrived(before + 1).await;
    world.clock.advance(secs(1));
    for answer in asked {
        answer.await.unwrap().expect(200, "fwd=miss");
    }
    assert_eq!(world.gateway.lookups(), before + 2);
    app.stop().await;
}

#[tokio::test]
async fn a_retry_is_paid_for() {
    let world = world(Options::default()).await.flag("--gateway-burst=1");
    let app = world.start().await;
    save_up(&world, &app, "sales").await;
    let ada = world.gateway.person("999001").replies_in_turn([Reply::internal("a closed websocket")], Reply::Present);
    let answer = asking(&app, "sales", 999_001);
    ada.arrived(1).await;
    world.gateway.idle().await;
    // The pause before a retry; then it waits for a token of its own, behind nobody.
    eventually("the retry waits", async || {
        world.clock.advance(Duration::from_millis(10));
        app.metric("avatar_proxy_budget_waiting").await > 0.0
    })
    .await;
    assert_eq!(ada.lookups(), 1);
    passing(&world, answer).await.unwrap().expect(200, "fwd=miss");
    assert_eq!(ada.lookups(), 2);
    app.stop().await;
}

#[tokio::test]
async fn invented_devices_share_one_budget_and_cost_a_real_one_nothing() {
    let options =
        Options { devices: Devices::Known(vec!["sales".to_owned(), "support".to_owned()]), ..Options::default() };
    let world = world(options).await;
    let app = world.start().await;
    save_up(&world, &app, "sales").await;
    let before = world.gateway.lookups();
    // What the real device left in the bucket that all new ones share is nothing; what comes in a minute is the burst.
    let invented: Vec<_> = (0..100)
        .map(|number| {
            let client = (*app).clone();
            tokio::spawn(async move {
                let device = format!("invented-{number}");
                client.get_with(&target(999_001), &[("x-device-id", device.as_str())]).await
            })
        })
        .collect();
    let mut statuses: HashMap<u16, u32> = HashMap::new();
    for answer in invented {
        let answer = passing(&world, answer).await.unwrap();
        *statuses.entry(answer.status.as_u16()).or_default() += 1;
    }
    let asked = world.gateway.lookups() - before;
    assert!((20..=32).contains(&asked), "{asked} lookups: the burst, and what came while they waited");
    assert_eq!(u64::from(statuses[&404]), asked, "{statuses:?}");
    assert_eq!(statuses[&404] + statuses[&429], 100, "{statuses:?}");
    ask(&app, "sales", 999_002).await.expect(200, "fwd=miss");
    app.stop().await;
}
