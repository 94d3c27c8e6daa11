//! Lookup paths of several replicas over one shared store, each with connections, a memory and a budget of its own.

use std::future::pending;
use std::sync::Arc;
use std::time::Duration;

use avatar_proxy::avatars::{self, Ask, Avatars, Found, Unmet};
use avatar_proxy::budget::{self, Budget};
use avatar_proxy::clock::Clock;
use avatar_proxy::demo::SimulatedGateway;
use avatar_proxy::gateway::{self, Gateway};
use avatar_proxy::jid::{Device, Jid, Key};
use avatar_proxy::metrics::Metrics;
use avatar_proxy::outcome::Rules;
use avatar_proxy::store::measured::Measured;
use avatar_proxy::store::redis::{Address, Redis};
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::TaskTracker;

/// How long a look may take at the gateway.
pub(crate) const GATEWAY_TIMEOUT: Duration = Duration::from_secs(20);

/// One replica, without its edge.
#[derive(Clone)]
pub(crate) struct Replica {
    avatars: Avatars,
    pub(crate) store: Arc<Measured>,
    metrics: Arc<Metrics>,
    _end: Arc<DropGuard>,
}

pub(crate) fn key(phone: &str) -> Key {
    Key::new(Device::default(), Jid::parse(phone).unwrap(), false, false)
}

impl Replica {
    /// With a budget that gets in nobody's way.
    pub(crate) async fn start(url: &str, gateway: &SimulatedGateway, clock: &Clock) -> Self {
        let metrics = Arc::new(Metrics::new());
        let redis = Redis::open(Address::parse(url).unwrap(), clock.clone()).await.unwrap();
        let store = Arc::new(Measured::new(Arc::new(redis), metrics.clone()));
        let config = budget::Config {
            rate: 1e9,
            burst: 1000,
            concurrency: 100,
            cool_down: Duration::from_secs(60),
            max_wait: Duration::from_secs(10),
        };
        let budget = Budget::new(config, clock.clone(), store.clone(), metrics.clone());
        let stop = CancellationToken::new();
        tokio::spawn({
            let (budget, store, stop) = (budget.clone(), store.clone(), stop.clone());
            async move {
                tokio::select! {
                    () = budget.run() => {}
                    () = store.heal() => {}
                    () = stop.cancelled() => {}
                }
            }
        });
        let url = gateway.url().parse().unwrap();
        let client = gateway::Config { url, auth: None, ca: None, timeout: GATEWAY_TIMEOUT };
        let avatars = Avatars::new(avatars::Parts {
            config: avatars::Config {
                rules: Rules::default(),
                memory_limit: 1 << 20,
                warm_for: Duration::from_secs(86_400),
                gateway_timeout: GATEWAY_TIMEOUT,
            },
            clock: clock.clone(),
            store: store.clone(),
            gateway: Arc::new(Gateway::new(client, clock.clone()).unwrap()),
            budget,
            metrics: metrics.clone(),
            tasks: TaskTracker::new(),
            stop: stop.clone(),
        });
        Self { avatars, store, metrics, _end: Arc::new(stop.drop_guard()) }
    }

    /// Asks as a client does.
    pub(crate) async fn look(&self, phone: &str) -> Result<Found, Unmet> {
        self.avatars.lookup(&key(phone), Ask::default(), pending()).await
    }

    /// How many calls of this kind the store has been sent.
    pub(crate) fn calls(&self, operation: &str) -> u64 {
        self.metrics.store_seconds.with_label_values(&[operation]).get_sample_count()
    }

    /// How many clients wait for a lookup.
    pub(crate) fn waiting(&self) -> i64 {
        self.metrics.lookups_waiting.get()
    }

    /// Whether the store is known to work.
    pub(crate) fn has_a_store(&self) -> bool {
        self.metrics.store_up.get() == 1
    }
}
