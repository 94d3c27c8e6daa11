//! Failure of the store is not failure of the whole: lookups go on from memory and the gateway, and record nothing.

use std::future::pending;
use std::sync::Arc;
use std::time::Duration;

use avatar_proxy::avatars::{self, Ask, Avatars, Found, Met, Why};
use avatar_proxy::budget::{self, Budget};
use avatar_proxy::clock::Clock;
use avatar_proxy::demo::{Options, Reply, SimulatedGateway};
use avatar_proxy::gateway::{self, Gateway};
use avatar_proxy::jid::{Device, Jid, Key};
use avatar_proxy::metrics::Metrics;
use avatar_proxy::outcome::{Outcome, Rules};
use avatar_proxy::store::Store;
use avatar_proxy::store::measured::Measured;
use avatar_proxy::store::sqlite::Sqlite;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::support::eventually::eventually;
use crate::support::failing::Failing;
use crate::support::hand::{NO_LONGER_RECENT, NOW};

/// The lookup path alone, over a store that can be made to fail.
struct Path {
    avatars: Avatars,
    gateway: SimulatedGateway,
    store: Arc<Failing>,
    clock: Clock,
    metrics: Arc<Metrics>,
    _folder: tempfile::TempDir,
}

const NO_CACHE: Ask = Ask { no_cache: true, only_if_cached: false };

fn key(phone: &str) -> Key {
    Key::new(Device::default(), Jid::parse(phone).unwrap(), false, false)
}

fn id(found: &Found) -> String {
    match &found.slot.to_entry().outcome {
        Outcome::Present(picture) => picture.id().to_owned(),
        Outcome::Negative(negative) => negative.reason.as_str().to_owned(),
    }
}

impl Path {
    async fn new() -> Self {
        let clock = Clock::manual(NOW);
        let simulated = SimulatedGateway::on_a_free_port(Options::default(), clock.clone()).await.unwrap();
        let folder = tempfile::tempdir().unwrap();
        let store = Failing::new(Arc::new(Sqlite::open(&folder.path().join("store.db")).unwrap()));
        let metrics = Arc::new(Metrics::new());
        let measured = Arc::new(Measured::new(store.clone(), metrics.clone()));
        let config = budget::Config {
            rate: 1e9,
            burst: 1000,
            concurrency: 100,
            cool_down: Duration::from_secs(60),
            max_wait: Duration::from_secs(10),
        };
        tokio::spawn({
            let measured = measured.clone();
            async move { measured.heal().await }
        });
        let budget = Budget::new(config, clock.clone(), measured.clone(), metrics.clone());
        tokio::spawn({
            let budget = budget.clone();
            async move { budget.run().await }
        });
        let timeout = Duration::from_secs(20);
        let url = simulated.url().parse().unwrap();
        let gateway = Gateway::new(gateway::Config { url, auth: None, ca: None, timeout }, clock.clone()).unwrap();
        let avatars = Avatars::new(avatars::Parts {
            config: avatars::Config {
                rules: Rules::default(),
                memory_limit: 1 << 20,
                warm_for: Duration::from_secs(86_400),
                gateway_timeout: timeout,
            },
            clock: clock.clone(),
            store: measured,
            gateway: Arc::new(gateway),
            budget,
            metrics: metrics.clone(),
            tasks: TaskTracker::new(),
            stop: CancellationToken::new(),
        });
        Self { avatars, gateway: simulated, store, clock, metrics, _folder: folder }
    }

    /// Waits until the store is known to work again, while nobody asks for anything.
    async fn heals(&self) {
        eventually("the store works again", async || self.metrics.store_up.get() == 1).await;
    }

    async fn look(&self, phone: &str, ask: Ask) -> Found {
        let key = key(phone);
        let lookup = self.avatars.lookup(&key, ask, pending());
        tokio::pin!(lookup);
        loop {
            tokio::select! {
                biased;
                found = &mut lookup => return found.unwrap(),
                () = tokio::time::sleep(Duration::from_millis(1)) => self.clock.advance(Duration::from_micros(10)),
            }
        }
    }
}

fn asked(why: Why, stored: bool) -> Met {
    Met::Asked { why, collapsed: false, stored }
}

#[tokio::test]
async fn lookups_go_on_and_record_nothing_while_the_store_is_away() {
    let path = Path::new().await;
    let ada = path.gateway.person("999001").picture("17");
    assert_eq!(path.look("999001", Ask::default()).await.met, asked(Why::Miss, true));
    let recorded = path.store.find(&key("999001")).await.unwrap();

    path.store.fail(true);
    assert_eq!(path.look("999001", Ask::default()).await.met, Met::Memory);
    // Cold: from the gateway, and from then on from memory.
    let cold = path.look("999002", Ask::default()).await;
    assert_eq!(
        (cold.met.clone(), path.look("999002", Ask::default()).await.met),
        (asked(Why::Miss, false), Met::Memory)
    );
    // Changed: shown, and not recorded.
    ada.picture("18");
    path.clock.advance(NO_LONGER_RECENT);
    let changed = path.look("999001", NO_CACHE).await;
    assert_eq!((changed.met.clone(), id(&changed).as_str()), (asked(Why::Request, false), "18"));
    assert_eq!(id(&path.look("999001", Ask::default()).await), "18");
    assert_eq!(path.metrics.store_up.get(), 0);
    assert!(path.metrics.store_errors.with_label_values(&["find"]).get() > 0);

    path.store.fail(false);
    path.heals().await;
    assert_eq!(path.store.find(&key("999001")).await.unwrap(), recorded);
    let unknown = path.store.find(&key("999002")).await.unwrap();
    assert!(unknown.entry.is_none() && unknown.state.recorded.is_none());
    assert_eq!(path.metrics.changes.with_label_values(&["changed"]).get(), 0);

    // The next look records the change, once.
    path.clock.advance(NO_LONGER_RECENT);
    assert_eq!(path.look("999001", NO_CACHE).await.slot.history().version, 1);
    assert_eq!(path.metrics.changes.with_label_values(&["changed"]).get(), 1);
}

#[tokio::test]
async fn a_negative_answer_while_the_store_is_away_is_shown_and_is_no_removal() {
    let path = Path::new().await;
    let ada = path.gateway.person("999001").picture("17");
    path.look("999001", Ask::default()).await;
    path.store.fail(true);
    ada.replies(Reply::NotSet);
    path.clock.advance(NO_LONGER_RECENT);
    let doubted = path.look("999001", NO_CACHE).await;
    assert_eq!(id(&doubted), "17", "one odd answer is not a removal");
    assert_eq!(id(&path.look("999002", Ask::default()).await).len(), 10, "somebody else has a picture");
    path.store.fail(false);
    let held = path.store.find(&key("999001")).await.unwrap();
    assert_eq!(held.state.recorded.unwrap().version, 0);
}

#[tokio::test]
async fn one_odd_answer_does_not_replace_what_was_seen_while_the_store_was_away() {
    let path = Path::new().await;
    let ada = path.gateway.person("999001").picture("17");
    path.store.fail(true);
    path.look("999001", Ask::default()).await;
    path.store.fail(false);
    ada.replies(Reply::NotSet);
    path.clock.advance(NO_LONGER_RECENT);
    assert_eq!(id(&path.look("999001", NO_CACHE).await), "17");
    path.clock.advance(Duration::from_secs(60));
    assert_eq!(id(&path.look("999001", NO_CACHE).await), "not_set", "the second look is believed");
}

#[tokio::test]
async fn what_was_seen_while_the_store_was_away_ends_a_doubt_from_before() {
    for first in [Reply::NotSet, Reply::Present] {
        let path = Path::new().await;
        let ada = path.gateway.person("999001").picture("17").replies(first);
        path.look("999001", Ask::default()).await;
        ada.replies(Reply::NotSet);
        path.clock.advance(Duration::from_secs(60));
        path.look("999001", NO_CACHE).await;
        path.store.fail(true);
        ada.replies(Reply::Present);
        path.clock.advance(NO_LONGER_RECENT);
        path.look("999001", NO_CACHE).await;
        path.store.fail(false);
        ada.replies(Reply::NotSet);
        path.clock.advance(Duration::from_secs(60));
        assert_eq!(id(&path.look("999001", NO_CACHE).await), "17", "one odd answer is not a removal");
    }
}

#[tokio::test]
async fn nothing_dead_is_served_without_the_store_either() {
    let path = Path::new().await;
    path.gateway.person("999001").picture("17");
    path.store.fail(true);
    let first = path.look("999001", Ask::default()).await;
    let dead_at = first.slot.entry.dead_at;
    path.clock.advance(dead_at.since(path.clock.now()));
    let again = path.look("999001", Ask::default()).await;
    assert!(matches!(again.met, Met::Asked { .. }) && again.slot.entry.dead_at > dead_at, "{:?}", again.met);
    assert_eq!(path.store.due(path.clock.now()).await.len(), 0);
}
