//! What an operator sees in Prometheus: every figure is there, says what happened, and names nobody.

#![expect(clippy::float_cmp, reason = "what is counted comes in whole numbers")]

mod page;

use std::time::Duration;

use avatar_proxy::VERSION;
use avatar_proxy::demo::{DeviceState, Options, Reply};
use avatar_proxy::metrics::{ALL, DEVICES_MAX};
use http::Method;

use crate::support::app::{TestApp, World};
use crate::support::client::{Answer, Client};
use crate::support::eventually::eventually;
use crate::support::hand::{self, NO_LONGER_RECENT};
use page::Page;

async fn ask(client: &Client, device: &str, phone: u64, cache_control: &str) -> Answer {
    let target = format!("/user/avatar?phone={phone}");
    client.get_with(&target, &[("x-device-id", device), ("cache-control", cache_control)]).await
}

async fn page(app: &TestApp) -> Page {
    let answer = app.get("/metrics").await;
    assert_eq!((answer.status.as_u16(), answer.header("content-type")), (200, "text/plain; version=0.0.4"));
    Page::parse(answer.text())
}

/// Has a lookup met in every way there is, once each but for what follows from another.
async fn traffic(world: &World, app: &TestApp) {
    let person = |phone: u64| world.gateway.person(&phone.to_string());
    ask(app, "sales", 999_001, "").await.expect(200, "fwd=miss");
    ask(app, "sales", 999_001, "").await.expect(200, "hit");
    ask(app, "sales", 999_001, "no-cache").await.expect(200, "hit");
    ask(app, "limited", 999_013, "").await.expect(200, "fwd=miss");
    world.clock.advance(NO_LONGER_RECENT);
    ask(app, "sales", 999_001, "no-cache").await.expect(200, "fwd=request");
    ask(app, "sales", 999_003, "only-if-cached").await.expect(504, "detail=only-if-cached");

    let (ada, hold) = (person(999_002), person(999_002).hold());
    let both = [1, 2].map(|_| {
        let client = (*app).clone();
        tokio::spawn(async move { ask(&client, "sales", 999_002, "").await })
    });
    ada.arrived(1).await;
    // The second one shares the first one's lookup, or is still on its way to it.
    hold.release();
    for answer in both {
        assert_eq!(answer.await.unwrap().status, 200);
    }

    let hidden = person(999_005).replies(Reply::Hidden);
    person(999_004).replies(Reply::NotSet);
    person(999_006).replies(Reply::Unregistered);
    for phone in [999_004, 999_005, 999_006] {
        assert!(ask(app, "sales", phone, "").await.how().contains("fwd=miss"));
    }
    for (phone, reply) in [
        (999_007, Reply::Blank),
        (999_008, Reply::internal("a closed websocket")),
        (999_009, Reply::Page(502)),
        (999_010, Reply::Hang),
    ] {
        person(phone).replies(reply);
        assert!(ask(app, "sales", phone, "").await.how().contains("fwd=miss; detail="));
    }
    ask(app, "sales", 999_007, "").await.expect(400, "hit");

    person(999_001).replies_in_turn([Reply::internal("x"), Reply::internal("x")], Reply::Present);
    world.clock.advance(NO_LONGER_RECENT);
    ask(app, "sales", 999_001, "no-cache").await.expect(200, "fwd=stale");

    person(999_011).replies(Reply::RateLimited);
    ask(app, "limited", 999_011, "").await.expect(429, "fwd=miss; detail=rate-limit");
    ask(app, "limited", 999_012, "").await.expect(429, "detail=rate-limit");
    ask(app, "limited", 999_013, "no-cache").await.expect(200, "hit");

    world.gateway.set_device_state("gone", DeviceState::LoggedOut);
    ask(app, "gone", 999_001, "").await.expect(401, "fwd=miss");
    ask(app, "gone", 999_002, "").await.expect(401, "hit");

    // The second look at what was doubted; then nothing until the recheck, and meanwhile the answer runs out.
    world.clock.advance(Duration::from_secs(90));
    eventually("hidden is confirmed", async || hidden.lookups() == 2).await;
    world.gateway.idle().await;
    eventually("and recorded", async || app.metric("avatar_proxy_refreshes_running").await == 0.0).await;
    world.clock.advance(Duration::from_secs(3 * 3600));
    ask(app, "sales", 999_005, "").await.expect(500, "fwd=stale");

    person(999_001).picture("another");
    ask(app, "sales", 999_001, "no-cache").await.expect(200, "fwd=request");
}

#[tokio::test]
async fn every_figure_is_there_and_says_what_happened() {
    let world = hand::flowing(Options::default()).await.flag("--gateway-timeout=1s").flag("--memory-limit=1MiB");
    let world = world.flag("--webhook=http://127.0.0.1:1/").flag("--gateway-webhook-secret=x");
    let app = world.start().await;
    traffic(&world, &app).await;
    assert_eq!(app.send_body(Method::POST, "/hooks/gateway", &[], "{}").await.status, 401);

    // Background work: looked at again before it dies.
    world.clock.advance(Duration::from_secs(6 * 3600));
    eventually("a background look", async || {
        app.metric(r#"avatar_proxy_refreshes_total{result="done"}"#).await >= 1.0
            && app.metric("avatar_proxy_refresh_lead_seconds_count").await >= 1.0
    })
    .await;
    // Sizes of the store are read now and then, on this clock.
    eventually("the store's size is read", async || {
        world.clock.advance(Duration::from_secs(6));
        app.metric("avatar_proxy_store_entries").await >= 4.0
    })
    .await;

    let page = page(&app).await;
    for (name, kind, help) in ALL {
        let family = page.family(name);
        let kind = kind.trim_end_matches("Vec").trim_start_matches("Int").to_ascii_lowercase();
        assert_eq!((family.kind.as_str(), family.help.as_str()), (kind.as_str(), help.trim()), "{name}");
        assert!(!family.samples.is_empty(), "{name} has no value");
    }
    assert_eq!(page.value(&format!(r#"avatar_proxy_build_info{{version="{VERSION}"}}"#)), 1.0);

    let met = |met: &str| page.total("avatar_proxy_lookups_total", &format!(r#""{met}""#));
    for (how, times) in [
        ("memory", 1.0),
        ("recent", 1.0),
        ("request", 2.0),
        ("stale", 1.0),
        ("absent", 1.0),
        ("failed", 6.0),
        ("resting", 2.0),
        ("refused", 1.0),
        ("kept", 1.0),
        ("spared", 1.0),
    ] {
        assert_eq!(met(how), times, "{how}");
        assert_eq!(page.value(&format!(r#"avatar_proxy_lookup_seconds_count{{met="{how}"}}"#)), times, "{how}");
    }
    assert_eq!(met("miss") + met("collapsed") + met("store"), 7.0);
    let requests = page.total("avatar_proxy_http_requests_total", r#"route="/user/avatar""#);
    assert_eq!(requests, page.total("avatar_proxy_lookups_total", ""), "every request is a lookup");

    let class = |class: &str| page.value(&format!(r#"avatar_proxy_gateway_lookups_total{{class="{class}"}}"#));
    for (class, count) in [("request", 1.0), ("late", 1.0), ("rate-limit", 1.0), ("device", 1.0)] {
        assert_eq!(page.value(&format!(r#"avatar_proxy_gateway_lookups_total{{class="{class}"}}"#)), count, "{class}");
    }
    assert!(class("passing") >= 4.0 && class("nonsense") >= 2.0 && class("present") >= 5.0, "retries are lookups");
    assert!(class("not_set") >= 1.0 && class("hidden") >= 3.0 && class("unregistered") >= 1.0);
    let asked = page.total("avatar_proxy_gateway_lookups_total", "");
    #[allow(clippy::cast_precision_loss)]
    let arrived = world.gateway.lookups() as f64;
    assert!((asked - arrived).abs() <= 1.0, "{asked} of {arrived}");
    assert!(page.value("avatar_proxy_gateway_seconds_count") <= arrived);

    let limited = avatar_proxy::jid::Device::new("limited").unwrap().label();
    assert_eq!(page.value(&format!(r#"avatar_proxy_cool_downs_total{{device="{limited}"}}"#)), 1.0);
    assert_eq!(page.value(&format!(r#"avatar_proxy_cool_down_remaining_seconds{{device="{limited}"}}"#)), 0.0);
    assert_eq!(page.value(r#"avatar_proxy_budget_refusals_total{priority="miss",reason="cool-down"}"#), 2.0);
    assert_eq!(page.value(r#"avatar_proxy_budget_refusals_total{priority="miss",reason="held"}"#), 1.0);
    assert!(page.value(r#"avatar_proxy_budget_wait_seconds_count{priority="miss"}"#) >= 10.0);
    assert_eq!(page.value(r#"avatar_proxy_changes_total{change="changed"}"#), 1.0);
    assert_eq!(page.value("avatar_proxy_store_up"), 1.0);
    assert_eq!(page.total("avatar_proxy_store_errors_total", ""), 0.0);
    assert!(page.value(r#"avatar_proxy_store_seconds_count{operation="apply"}"#) >= 5.0);
    assert!(page.value("avatar_proxy_store_bytes") > 0.0 && page.value("avatar_proxy_store_subjects") >= 4.0);
    assert_eq!(page.value("avatar_proxy_memory_limit_bytes"), 1_048_576.0);
    let bytes = page.value("avatar_proxy_memory_bytes");
    assert!(0.0 < bytes && bytes <= 1_048_576.0 && page.value("avatar_proxy_memory_entries") >= 4.0);
    assert!(page.value("avatar_proxy_http_connections") >= 1.0);
    page.names_nobody(&["99900", "whatsapp", "http", "sales", "limited", "gone", "oe="]);
    app.stop().await;
}

#[tokio::test]
async fn a_start_is_seen_as_one() {
    let world = hand::world(Options::default()).await;
    let mut starts = vec![];
    for _ in 0..2 {
        let app = world.start().await;
        starts.push(app.metric("avatar_proxy_start_time_seconds").await);
        world.clock.advance(Duration::from_secs(10));
        assert_eq!(app.metric("avatar_proxy_start_time_seconds").await, starts[starts.len() - 1], "it stays");
        app.stop().await;
    }
    assert_eq!(starts[1] - starts[0], 10.0);
}

#[tokio::test]
async fn what_is_rare_is_counted_from_zero() {
    let world = World::new().await;
    let app = world.start().await;
    let page = page(&app).await;
    for series in [
        r#"avatar_proxy_changes_total{change="set"}"#,
        r#"avatar_proxy_changes_total{change="changed"}"#,
        r#"avatar_proxy_changes_total{change="removed"}"#,
        r#"avatar_proxy_cool_downs_total{device="new"}"#,
        r#"avatar_proxy_cool_down_remaining_seconds{device="new"}"#,
        r#"avatar_proxy_store_errors_total{operation="kept"}"#,
    ] {
        assert_eq!(page.value(series), 0.0);
    }
    app.stop().await;
}

#[tokio::test]
async fn what_is_found_in_the_store_after_a_restart_and_what_is_forgotten_is_counted() {
    let world = hand::world(Options::default()).await.flag("--forget-after=30d");
    let app = world.start().await;
    ask(&app, "sales", 999_001, "").await.expect(200, "fwd=miss");
    app.stop().await;

    let app = world.start().await;
    ask(&app, "sales", 999_001, "").await.expect(200, "hit");
    assert_eq!(app.metric(r#"avatar_proxy_lookups_total{met="store"}"#).await, 1.0);
    world.clock.advance(Duration::from_secs(31 * 86_400));
    eventually("it is forgotten", async || app.metric("avatar_proxy_forgotten_total").await == 1.0).await;
    app.stop().await;
}

#[tokio::test]
async fn memory_stays_within_its_limit_as_it_is_counted() {
    let world = World::new().await.flag("--memory-limit=1MiB");
    let app = world.start().await;
    let tasks: Vec<_> = (0..8)
        .map(|lane| {
            let client = (*app).clone();
            tokio::spawn(async move {
                for number in 0..300 {
                    ask(&client, "sales", 999_100_000 + lane * 1000 + number, "").await.expect(200, "fwd=miss");
                }
            })
        })
        .collect();
    for task in tasks {
        task.await.unwrap();
    }
    let page = page(&app).await;
    let (entries, bytes) = (page.value("avatar_proxy_memory_entries"), page.value("avatar_proxy_memory_bytes"));
    assert!(bytes <= page.value("avatar_proxy_memory_limit_bytes"), "{bytes}");
    assert!((500.0..2400.0).contains(&entries), "{entries} entries, the others made room");
    app.stop().await;
}

#[tokio::test]
async fn a_thousand_devices_are_a_hundred_labels() {
    let world = World::new().await;
    let app = world.start().await;
    for number in 0..1000 {
        ask(&app, &format!("device-{number}"), 999_001, "").await.expect(200, "fwd=miss");
        if number == 500 {
            page(&app).await;
        }
    }
    // All others together are shown as soon as there is something to say of them.
    let labels = |page: Page| page.labels("device").into_iter().filter(|label| label != "other").collect::<Vec<_>>();
    let first = labels(page(&app).await);
    assert_eq!(first.len(), DEVICES_MAX + 1, "a hundred, and the new ones together");
    for label in &first {
        let hex = label.len() == 8 && label.bytes().all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte));
        assert!(hex || label == "new", "{label}");
    }
    assert_eq!(first, labels(page(&app).await), "always the same ones");
    app.stop().await;
}
