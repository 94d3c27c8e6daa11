//! The store's stream as a public interface: a consumer in another language, which speaks to Redis and never to us.

use std::sync::Arc;

use avatar_proxy::clock::Clock;
use avatar_proxy::store::redis::{Address, Redis};
use avatar_proxy::store::{Applied, Store as _};

use super::program::{Program, python};
use crate::store::{change, full, write};
use crate::support::redis::Redis as Server;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs Python and its redis: make e2e"]
async fn a_consumer_group_in_python_hears_of_every_change_whatever_kills_it() {
    let server = Server::start();
    let store = Redis::open(Address::parse(&server.url()).unwrap(), Clock::system()).await.unwrap();
    let store = Arc::new(store);
    let changes = async |numbers: std::ops::Range<u64>| {
        for number in numbers {
            let expected = store.find(&full("1")).await.unwrap().revision;
            let mut write = write(&full("1"), expected, number, 10);
            write.change = Some(change(&format!("event {number}"), number));
            assert!(matches!(store.apply(write).await.unwrap(), Applied::Done(_)));
        }
    };
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/e2e/stream.py");
    let consumer = || Program::start(python().arg(script).env("STORE", server.url()));
    changes(1..6).await;
    let mut heard = vec![];
    for round in 0..10 {
        let reading = consumer();
        let first = 6 + round * 20;
        changes(first..first + 20).await;
        // It dies in the middle: what it had in hand is the next one's.
        heard.extend(reading.says("changed 1@s.whatsapp.net 1 2").await);
        heard.extend(reading.kill());
    }
    // The last one takes over what is left, be it nothing, and then hears of something new.
    let reading = consumer();
    changes(206..207).await;
    heard.extend(reading.says("206-0 changed").await);
    let mut places: Vec<u64> =
        heard.iter().map(|line: &String| line.split('-').next().unwrap().parse().unwrap()).collect();
    places.sort_unstable();
    places.dedup();
    assert_eq!(places, (1..=206).collect::<Vec<_>>());
}
