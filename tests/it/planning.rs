//! Lookups are spent where they are worth most: what is foreseen, who is looked at, and who holds up whom.

use std::collections::BTreeMap;
use std::time::Duration;

use avatar_proxy::demo::{Address, Options};
use avatar_proxy::store::Schedule as _;
use avatar_proxy::store::sqlite::Sqlite;

use crate::support::app::{TestApp, World};
use crate::support::background::background_work;
use crate::support::eventually::eventually;
use crate::support::hand;

const MINUTE: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(3600);
const DAY: Duration = Duration::from_secs(86_400);

fn phone(person: u32) -> String {
    format!("999{person:06}")
}

async fn world() -> World {
    hand::world(Options::default()).await.flag("--warm-for=60d")
}

/// Makes so many people known, whose URLs live so long, with a budget that suffices for that.
async fn known(world: World, people: u32, life: Duration) -> World {
    let until = world.clock.now() + life;
    let app = world.start().await;
    for person in 0..people {
        world.gateway.person(&phone(person)).picture("1").address(Address::Until(until));
        app.avatar(&phone(person)).await.expect(200, "fwd=miss; stored");
    }
    app.stop().await;
    world
}

async fn needed(app: &TestApp, work: &str) -> f64 {
    app.metric(&format!("avatar_proxy_budget_needed_per_second{{device=\"{}\",work=\"{work}\"}}", label(app).await))
        .await
}

/// The only device's.
async fn label(app: &TestApp) -> String {
    let page = app.get("/metrics").await;
    let line =
        page.text().lines().find(|line| line.starts_with("avatar_proxy_budget_needed_per_second{")).map(str::to_owned);
    line.and_then(|line| Some(line.split('"').nth(1)?.to_owned())).unwrap_or_default()
}

#[tokio::test]
async fn a_preview_and_a_full_picture_share_one_recheck() {
    let world = world().await.flag("--recheck-interval=6h");
    let ada = world.gateway.person("999001").picture("17");
    let app = world.start().await;
    app.avatar("999001").await.expect(200, "fwd=miss; stored");
    let preview = "/user/avatar?phone=999001&is_preview=true";
    app.get(preview).await.expect(200, "fwd=miss; stored");
    for round in 1..=4 {
        world.clock.advance(6 * HOUR);
        ada.arrived(2 + round).await;
        background_work(&app, &world.clock).await;
        assert_eq!(ada.lookups(), 2 + round, "one look for both");
    }
    // A change is told of once, and seen in both.
    ada.picture("18");
    world.clock.advance(6 * HOUR);
    ada.arrived(8).await;
    background_work(&app, &world.clock).await;
    assert_eq!(ada.lookups(), 8, "and one for the other, whose URL is of the picture before");
    assert_eq!(app.get("/changes").await.json()["changes"].as_array().unwrap().len(), 1);
    for target in ["/user/avatar?phone=999001", preview] {
        assert_eq!(app.get(target).await.expect(200, "hit").picture_id(), "18");
    }
    app.stop().await;
}

#[tokio::test]
async fn with_too_little_budget_it_goes_where_change_is_likeliest_and_nobody_is_left_out() {
    const PEOPLE: u32 = 15;
    const OFTEN: u32 = 3;
    const DAYS: u32 = 5;
    let world = known(world().await, PEOPLE, 40 * DAY).await;
    for person in 0..OFTEN {
        world.gateway.person(&phone(person)).picture_turns(5 * HOUR);
    }
    let world = world.flag("--recheck-interval=1h").flag("--gateway-rate=3/h").flag("--gateway-burst=1");
    let app = world.start().await;
    for _ in 0..DAYS * 24 * 3 {
        let before = world.gateway.lookups();
        // Bit by bit: time that passes while a look is under way would count as its.
        eventually("a token's worth of looking", async || {
            world.clock.advance(4 * MINUTE);
            world.gateway.lookups() > before
        })
        .await;
    }
    let mut looks: BTreeMap<String, u32> = BTreeMap::new();
    for lookup in world.gateway.log() {
        *looks.entry(lookup.jid.map(|jid| jid.to_string()).unwrap_or_default()).or_default() += 1;
    }
    let of = |person: u32| f64::from(looks[&format!("{}@s.whatsapp.net", phone(person))]);
    let mean = |from, to| (from..to).map(of).sum::<f64>() / f64::from(to - from);
    let (often, seldom) = (mean(0, OFTEN), mean(OFTEN, PEOPLE));
    assert!(often > seldom * 2.0, "{often} looks at those who change, {seldom} at all others");
    let least = (0..PEOPLE).map(of).fold(f64::INFINITY, f64::min);
    let uniform = f64::from(DAYS * 24 * 3) / f64::from(PEOPLE);
    assert!(least > uniform / 6.0, "{least} looks at somebody, where {uniform} were everybody's share");
    assert!(needed(&app, "recheck").await > app.metric(&allowed(&app).await).await * 4.0);
    app.stop().await;
    let store = Sqlite::open(&world.store_path()).unwrap();
    let lessons = store.lessons().await.unwrap().expect("what was learnt outlasts the process");
    assert_ne!(lessons, avatar_proxy::recheck::Lessons::default());
}

async fn allowed(app: &TestApp) -> String {
    format!("avatar_proxy_budget_allowed_per_second{{device=\"{}\"}}", label(app).await)
}

#[tokio::test]
async fn a_backlog_is_foreseen_shown_and_begun_with_in_time() {
    const PEOPLE: u32 = 300;
    // All die in the same instant, two hours from now; the budget suffices only if they are begun with long before they are due.
    let world = known(world().await.flag("--recheck-interval=30d"), PEOPLE, 2 * HOUR).await;
    let later = world.clock.now() + 30 * DAY;
    for person in 0..PEOPLE {
        world.gateway.person(&phone(person)).address(Address::Until(later));
    }
    let world = world.flag("--gateway-rate=170/h").flag("--gateway-burst=5");
    let (app, begun) = (world.start().await, world.clock.now());
    eventually("it is foreseen", async || {
        world.clock.advance(Duration::from_secs(5));
        needed(&app, "expiring").await > 2.4 / 60.0
    })
    .await;
    assert!((app.metric(&allowed(&app).await).await - 170.0 / 3600.0).abs() < 1e-6);
    let rounds = async || app.metric("avatar_proxy_store_seconds_count{operation=\"agenda\"}").await;
    let mut early = None;
    while world.clock.now() < begun + 2 * HOUR {
        let before = rounds().await;
        world.clock.advance(Duration::from_secs(20));
        eventually("the background work goes round", async || rounds().await > before + 0.5).await;
        if world.gateway.lookups() > u64::from(PEOPLE) {
            early = early.or(Some(world.clock.now()));
        }
    }
    assert!(early.unwrap() < begun + HOUR, "long before the first is due");
    for person in 0..PEOPLE {
        app.avatar_asking(&phone(person), "only-if-cached").await.expect(200, "hit; ttl=2");
    }
    app.stop().await;
}

#[tokio::test]
async fn a_crowded_device_holds_up_no_other() {
    let world = world().await.flag("--recheck-interval=6h").flag("--gateway-concurrency=2");
    let app = world.start().await;
    let asked = async |device: &str, phone: &str| {
        app.get_with(&format!("/user/avatar?phone={phone}"), &[("x-device-id", device)]).await.expect(200, "fwd=miss");
    };
    let mut held = vec![];
    for person in 0..300 {
        let person = phone(person);
        asked("crowded", &person).await;
        held.push(world.gateway.person(&person).hold());
    }
    let ada = world.gateway.person("999777001");
    asked("calm", "999777001").await;
    world.clock.advance(6 * HOUR);
    ada.arrived(2).await;
    eventually("no more are under way than may be", async || world.gateway.in_flight() == 2).await;
    drop(held);
    app.stop().await;
}
