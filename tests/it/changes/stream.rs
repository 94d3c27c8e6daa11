//! `GET /events`: Server-Sent Events.

use std::time::{Duration, Instant};

use avatar_proxy::http::Timeouts;

use super::{ADA, BOB, HOUR, change, look, world};
use crate::support::app::TestApp;
use crate::support::eventually::eventually;
use crate::support::subscriber::{Subscriber, parse};

async fn subscribe(app: &TestApp, query: &str, headers: &[(&str, &str)]) -> Subscriber {
    let subscriber = Subscriber::new(app.app().address(), &format!("/events{query}"), headers).await;
    assert_eq!(subscriber.status, 200);
    subscriber
}

async fn new_ids(subscriber: &mut Subscriber, count: usize) -> Vec<String> {
    let mut ids = vec![];
    while ids.len() < count {
        ids.push(subscriber.next().await.expect("the stream goes on").new_id());
    }
    ids
}

#[tokio::test]
async fn a_change_arrives_as_it_is_noticed() {
    let (world, _) = world().await;
    let app = world.start().await;
    look(&app, &world, ADA).await;
    change(&app, &world, ADA, "18").await;
    let mut subscriber = subscribe(&app, "", &[]).await;
    for (name, value) in
        [("content-type", "text/event-stream"), ("cache-control", "no-store"), ("x-accel-buffering", "no")]
    {
        assert_eq!(subscriber.headers[name], value);
    }
    change(&app, &world, ADA, "19").await;
    let event = subscriber.next().await.unwrap();
    assert_eq!(event.new_id(), "19", "not what was before");
    assert_eq!((event.name.as_str(), &event.json()["event"]), ("", &"avatar.changed".into()));
    assert_eq!(event.json()["payload"]["cursor"], event.id.as_str(), "the id is the cursor");
    assert_eq!(app.get("/changes?limit=2").await.json()["changes"][1], event.json(), "the same as in the log");
    assert!((app.metric("avatar_proxy_subscribers").await - 1.0).abs() < 0.1);
    drop(subscriber);
    eventually("it is gone", async || app.metric("avatar_proxy_subscribers").await < 0.5).await;
    app.stop().await;
}

#[tokio::test]
async fn a_subscriber_goes_on_where_it_left_off() {
    let (world, _) = world().await;
    let app = world.start().await;
    look(&app, &world, ADA).await;
    let begins_at = subscribe(&app, "", &[]).await.headers["last-event-id"].to_str().unwrap().to_owned();
    for id in ["18", "19", "20"] {
        change(&app, &world, ADA, id).await;
    }
    let mut all = subscribe(&app, "?last_event_id=earliest", &[]).await;
    let first = all.next().await.unwrap();
    assert_eq!(first.new_id(), "18");
    let from = [("last-event-id", first.id.as_str())];
    assert_eq!(new_ids(&mut subscribe(&app, "", &from).await, 2).await, ["19", "20"]);
    let both = subscribe(&app, "?last_event_id=earliest", &from).await;
    assert_eq!(new_ids(&mut { both }, 1).await, ["19"], "the header goes first");
    let query = format!("?last_event_id={}", first.id);
    assert_eq!(new_ids(&mut subscribe(&app, &query, &[]).await, 1).await, ["19"]);
    let query = format!("?last_event_id={begins_at}");
    assert_eq!(
        new_ids(&mut subscribe(&app, &query, &[]).await, 3).await,
        ["18", "19", "20"],
        "cut off before the first"
    );
    change(&app, &world, ADA, "21").await;
    assert_eq!(new_ids(&mut all, 3).await, ["19", "20", "21"], "from the log into the present");
    app.stop().await;
}

#[tokio::test]
async fn a_subscriber_gets_only_whom_it_wants() {
    let (world, _) = world().await;
    let app = world.start().await;
    for who in [ADA, BOB] {
        world.gateway.person(who).picture("1");
        look(&app, &world, who).await;
    }
    let mut of_bob = subscribe(&app, &format!("?jid={BOB}"), &[]).await;
    let mut of_both = subscribe(&app, &format!("?jid={BOB}&jid={ADA}&device_id="), &[]).await;
    let mut of_another_device = subscribe(&app, "?device_id=other", &[]).await;
    for (who, id) in [(ADA, "2"), (BOB, "3"), (ADA, "4"), (BOB, "5")] {
        change(&app, &world, who, id).await;
    }
    assert_eq!(new_ids(&mut of_both, 4).await, ["2", "3", "4", "5"]);
    assert_eq!(new_ids(&mut of_bob, 2).await, ["3", "5"]);
    let quiet = tokio::time::timeout(Duration::from_millis(200), of_another_device.next()).await;
    assert!(quiet.is_err(), "{quiet:?}");
    app.stop().await;
}

#[tokio::test]
async fn whoever_missed_something_is_told_once() {
    let (world, _) = world().await;
    let world = world.flag("--retention=10h");
    let app = world.start().await;
    look(&app, &world, ADA).await;
    change(&app, &world, ADA, "18").await;
    for odd in ["0123456789abcdef.1"] {
        let mut subscriber = subscribe(&app, "", &[("last-event-id", odd)]).await;
        let gap = subscriber.next().await.unwrap();
        assert_eq!((gap.name.as_str(), &gap.json()["event"]), ("gap", &"avatar.gap".into()));
        assert_eq!(
            (&gap.json()["payload"]["from"], &gap.json()["payload"]["to"]),
            (&odd.into(), &gap.id.as_str().into())
        );
        assert_eq!(new_ids(&mut subscriber, 1).await, ["18"], "then the oldest that is kept");
        let again = subscribe(&app, "", &[("last-event-id", gap.id.as_str())]).await;
        assert_eq!(new_ids(&mut { again }, 1).await, ["18"], "a gap's id is a place to go on from");
    }
    world.clock.advance(11 * HOUR);
    eventually("it is dropped", async || app.metric("avatar_proxy_log_trimmed_total").await > 0.5).await;
    change(&app, &world, ADA, "19").await;
    let mut subscriber = subscribe(&app, "?last_event_id=earliest", &[]).await;
    assert_eq!(subscriber.next().await.unwrap().new_id(), "19", "the oldest that is kept is no gap");
    app.stop().await;
}

#[tokio::test]
async fn cut_off_at_any_byte_and_back_again_nothing_is_missed() {
    const CHANGES: u64 = 40;
    let (world, _) = world().await;
    let app = world.start().await;
    look(&app, &world, ADA).await;
    let address = app.app().address();
    let reading = tokio::spawn(async move {
        let (mut seen, mut cursor, mut cuts) = (vec![], "earliest".to_owned(), 0);
        while seen.last() != Some(&(100 + CHANGES).to_string()) {
            let mut subscriber = Subscriber::new(address, &format!("/events?last_event_id={cursor}"), &[]).await;
            // An event has some 350 bytes: some connections bring none, some several.
            let patience = fastrand::usize(1..1500);
            let mut text = String::new();
            while subscriber.received < patience {
                let Ok(Some(bytes)) = tokio::time::timeout(Duration::from_millis(100), subscriber.chunk()).await else {
                    break;
                };
                text.push_str(std::str::from_utf8(&bytes).unwrap());
            }
            text.truncate(patience);
            while let Some((event, rest)) = parse(&text) {
                (cursor, text) = (event.id.clone(), rest);
                seen.push(event.new_id());
            }
            cuts += 1;
        }
        (seen, cuts)
    });
    for id in 101..=100 + CHANGES {
        change(&app, &world, ADA, &id.to_string()).await;
    }
    let (seen, cuts) = reading.await.unwrap();
    let all: Vec<_> = (101..=100 + CHANGES).map(|id| id.to_string()).collect();
    assert_eq!(seen, all, "each once, in order");
    assert!(cuts > 5, "{cuts}");
    app.stop().await;
}

#[tokio::test]
async fn a_quiet_stream_is_kept_alive_by_comments_that_are_no_events() {
    let (world, _) = world().await;
    let app = world.start().await;
    let mut subscriber = subscribe(&app, "", &[]).await;
    assert_eq!(subscriber.chunk().await.unwrap(), "retry: 3000\n");
    let began = Instant::now();
    assert_eq!(subscriber.chunk().await.unwrap(), ":\n");
    assert!((Duration::from_secs(10)..Duration::from_secs(30)).contains(&began.elapsed()), "{:?}", began.elapsed());
    app.stop().await;
}

#[tokio::test]
async fn a_stream_outlives_what_quiet_connections_are_closed_for() {
    let (world, _) = world().await;
    let short = Duration::from_millis(300);
    let world = world.timeouts(Timeouts { head: short, keep_alive: short, write: short });
    let app = world.start().await;
    look(&app, &world, ADA).await;
    let mut plain = subscribe(&app, "", &[]).await;
    let mut multiplexed = Subscriber::over_http2(app.app().address(), "/events").await;
    for subscriber in [&mut plain, &mut multiplexed] {
        assert_eq!(subscriber.chunk().await.unwrap(), "retry: 3000\n");
        let quiet = tokio::time::timeout(short * 5, subscriber.chunk()).await;
        assert!(quiet.is_err(), "nothing happens, and least of all an end: {quiet:?}");
    }
    change(&app, &world, ADA, "18").await;
    for subscriber in [&mut plain, &mut multiplexed] {
        assert_eq!(subscriber.next().await.unwrap().new_id(), "18");
    }
    app.stop().await;
}

#[tokio::test]
async fn a_browser_learns_where_it_begins() {
    let (world, _) = world().await;
    let app = world.start().await;
    let mut subscriber = subscribe(&app, "", &[("sec-fetch-mode", "cors")]).await;
    let cursor = subscriber.headers["last-event-id"].to_str().unwrap().to_owned();
    assert_eq!(subscriber.chunk().await.unwrap(), format!("retry: 3000\nid: {cursor}\n\n"));
    app.stop().await;
}

#[tokio::test]
async fn a_stop_ends_every_stream_as_it_should() {
    let (world, _) = world().await;
    let app = world.start().await;
    let mut subscribers = vec![];
    for _ in 0..50 {
        subscribers.push(subscribe(&app, "", &[]).await);
    }
    let began = Instant::now();
    let ended = tokio::spawn(async move {
        for mut subscriber in subscribers {
            assert_eq!(subscriber.next().await, None);
        }
    });
    app.stop().await;
    ended.await.unwrap();
    assert!(began.elapsed() < Duration::from_secs(10), "no stream holds up the stop: {:?}", began.elapsed());
}

#[tokio::test]
async fn a_head_and_other_methods_open_no_stream() {
    let (world, _) = world().await;
    let app = world.start().await;
    let head = app.send(http::Method::HEAD, "/events", &[]).await.unwrap();
    assert_eq!((head.status.as_u16(), head.header("content-type")), (200, "text/event-stream"));
    let post = app.send(http::Method::POST, "/events", &[]).await.unwrap();
    assert_eq!((post.status.as_u16(), post.header("allow")), (405, "GET, HEAD"));
    eventually("nobody subscribes", async || app.metric("avatar_proxy_subscribers").await < 0.5).await;
    app.stop().await;
}

#[tokio::test]
async fn subscribers_need_credentials() {
    let (world, _) = world().await;
    let world = world.flag("--auth=ada:secret");
    let app = world.start().await;
    for target in ["/events", "/changes", "/watches", "/avatars/1/changes"] {
        assert_eq!(app.get(target).await.status, 401, "{target}");
    }
    let subscriber = subscribe(&app, "", &[("authorization", "Basic YWRhOnNlY3JldA==")]).await;
    drop(subscriber);
    app.stop().await;
}
