//! Subscribers, at whichever replica: every cursor is a place in the one log.

use avatar_proxy::demo::Options;

use super::ADA;
use crate::support::app::TestApp;
use crate::support::hand::{self, change, look};
use crate::support::redis::Redis;
use crate::support::subscriber::Subscriber;

async fn subscribe(app: &TestApp, from: &str) -> Subscriber {
    let subscriber = Subscriber::new(app.app().address(), "/events", &[("last-event-id", from)]).await;
    assert_eq!(subscriber.status, 200);
    subscriber
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_subscriber_that_moves_from_replica_to_replica_misses_nothing_and_gets_nothing_twice() {
    const CHANGES: usize = 24;
    let server = Redis::start();
    let world = hand::world(Options::default()).await.on(&server).flag("--recheck-interval=365d");
    let apps = world.start_many(3).await;
    world.gateway.person(ADA).picture("0");
    look(&apps[0], &world, ADA).await;
    let (mut seen, mut from) = (vec![], "earliest".to_owned());
    for at in 1..=CHANGES {
        // Noticed by one, told by another, to somebody who comes from a third.
        change(&apps[at % 3], &world, ADA, &at.to_string()).await;
        if at % 2 == 0 {
            let mut subscriber = subscribe(&apps[(at + at / 3) % 3], &from).await;
            while seen.len() < at {
                let event = subscriber.next().await.expect("the stream goes on");
                assert_eq!(event.name, "", "no gap: {event:?}");
                seen.push(event.new_id());
                from = event.id;
            }
        }
    }
    assert_eq!(seen, (1..=CHANGES).map(|id| id.to_string()).collect::<Vec<_>>());
    let listed = apps[2].get(&format!("/changes?after={from}")).await.json();
    assert_eq!(listed["changes"], serde_json::json!([]), "a listing takes the same cursor");
    for app in apps {
        app.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_replica_tells_its_subscribers_what_any_of_them_notices() {
    let server = Redis::start();
    let world = hand::world(Options::default()).await.on(&server).flag("--recheck-interval=365d");
    let apps = world.start_many(3).await;
    world.gateway.person(ADA).picture("0");
    look(&apps[0], &world, ADA).await;
    let mut subscribers = vec![];
    for app in &apps {
        subscribers.push(Subscriber::new(app.app().address(), "/events", &[]).await);
    }
    for at in 1..=9 {
        change(&apps[at % 3], &world, ADA, &at.to_string()).await;
        let mut ids = vec![];
        for subscriber in &mut subscribers {
            let event = subscriber.next().await.expect("the stream goes on");
            assert_eq!(event.new_id(), at.to_string());
            ids.push(event.id);
        }
        ids.dedup();
        assert_eq!(ids.len(), 1, "the same place everywhere");
    }
    drop(subscribers);
    for app in apps {
        app.stop().await;
    }
}
