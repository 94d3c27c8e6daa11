//! Short-lived URLs under steady traffic, in real time.

use std::collections::HashSet;
use std::time::{Duration, Instant};

use avatar_proxy::clock::Clock;
use avatar_proxy::demo::{Address, Reply};
use avatar_proxy::entry::MARGIN;
use avatar_proxy::outcome::signed_until;
use tokio::task::JoinSet;

use crate::support::app::{TestApp, World};
use crate::support::client::{Answer, Client};
use crate::support::eventually::eventually;

const ADA: &str = "999001";

/// An answer, and how long it took.
type Timed = (Answer, Duration);

/// Several clients ask over and over for so long; every URL served must have been alive when it was asked for.
async fn hammer(app: &TestApp, seconds: u64) -> Vec<Timed> {
    let until = Instant::now() + Duration::from_secs(seconds);
    let clients: JoinSet<Vec<Timed>> = (0..4).map(|_| ask_until(Client::clone(app), until)).collect();
    clients.join_all().await.into_iter().flatten().collect()
}

async fn ask_until(client: Client, until: Instant) -> Vec<Timed> {
    let mut answers = vec![];
    while Instant::now() < until {
        let (asked, began) = (Clock::system().now(), Instant::now());
        let answer = client.avatar(ADA).await;
        let took = began.elapsed();
        let expiry = signed_until(&answer.url()).unwrap_or_else(|| panic!("an answer without a URL: {answer:?}"));
        assert!(expiry > asked + MARGIN, "served a dead link at {asked:?}: {answer:?}");
        answers.push((answer, took));
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    answers
}

#[tokio::test]
async fn no_url_is_served_in_its_last_two_seconds() {
    let world = World::new().await;
    let ada = world.gateway.person(ADA).picture("17").address(Address::Lasting(Duration::from_secs(4)));
    let app = world.start().await;
    let answers = hammer(&app, 7).await;
    let urls: HashSet<String> = answers.iter().map(|(answer, _)| answer.url()).collect();
    assert!(urls.len() >= 4, "over several lifetimes, {} URLs", urls.len());
    assert!(ada.lookups() <= 12, "{} lookups for {} answers", ada.lookups(), answers.len());
    app.stop().await;
}

#[tokio::test]
async fn a_url_is_renewed_before_it_dies_and_no_client_waits_for_it() {
    const REPLY: Duration = Duration::from_secs(1);
    let world = World::new().await.flag("--refresh-ahead=0.5");
    let ada = world.gateway.person(ADA).picture("17").address(Address::Lasting(Duration::from_secs(8)));
    ada.replies(Reply::Present.after(REPLY));
    let app = world.start().await;
    app.avatar(ADA).await.expect(200, "fwd=miss; stored");
    for (answer, took) in hammer(&app, 8).await {
        assert!(took < REPLY, "{took:?} for {answer:?}");
        answer.expect(200, "hit; ttl=");
    }
    assert!((3..=8).contains(&ada.lookups()), "{} lookups", ada.lookups());
    assert!(app.metric("avatar_proxy_refreshes_total{result=\"done\"}").await > 1.5);
    app.stop().await;
}

#[tokio::test]
async fn the_same_expiry_over_and_over_is_not_a_loop() {
    let world = World::new().await;
    let expiry = Clock::system().now() + Duration::from_secs(7);
    let ada = world.gateway.person(ADA).picture("17").address(Address::Until(expiry));
    let app = world.start().await;
    app.avatar(ADA).await.expect(200, "fwd=miss; stored");
    for (answer, _) in hammer(&app, 3).await {
        answer.expect(200, "hit; ttl=");
    }
    assert!(ada.lookups() >= 2, "it was looked at again");
    // Once it is dead, the gateway goes on handing it out: dead on arrival, which rests the key.
    eventually("it dies", async || app.avatar(ADA).await.status == 502).await;
    assert!(ada.lookups() <= 8, "{} lookups in a life of 5 s", ada.lookups());
    app.stop().await;
}
