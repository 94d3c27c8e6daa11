//! A caching proxy for the avatar lookups of a self-hosted WhatsApp gateway: the map of the program.
//!
//! # How a lookup flows
//!
//! ```text
//!  client ── http ── avatars ──┬─ memory (moka)                        hit: nothing else is touched
//!             │                └─ flight, one per key
//!             │                     ├─ store ─ sqlite or redis         found: into memory
//!             │                     ├─ budget                          who may ask now, who waits, who is refused
//!             │                     ├─ gateway                         one question, every reply classified
//!             │                     └─ change + entry ─ store.apply    computed purely, written atomically
//!             └─ reply: the only place that knows statuses
//!
//!  refresh ── store.take_due ── avatars.refresh                        before URLs die, to confirm doubts, to recheck
//!
//!  subscriber ── http ── events ── the store's log                     what store.apply appended, from any place on
//!  webhook ── outbound ── events.webhook ── the same log               signed, tried again, given up, sent again
//! ```
//!
//! # What stands where
//!
//! Imports go down this list only; a test reads the `use` lines.
//!
//! | floor | modules |
//! | --- | --- |
//! | entrance | this file, `config` (every option), `telemetry` (the log), `open_files` (their limit), `health` (asks whether it lives), [`check`] (tries its settings) |
//! | edge | [`http`]: connections, routes, replies |
//! | duties | [`refresh`]: what is due; [`events`]: the change log's readers, and webhooks; [`migrate`]: moving a store to another engine |
//! | core | [`avatars`]: the lookup; [`budget`]: who may ask the gateway now |
//! | ports | [`store`]: what is remembered; [`gateway`]: the client; [`outbound`](mod@outbound): connections to addresses that others chose; they do not know each other |
//! | vocabulary | [`jid`], [`activity`], [`outcome`], [`entry`], [`change`], [`recheck`], [`cursor`], [`duration`], [`record`], [`go_json`]: pure; [`clock`], [`deadline`], [`metrics`], [`trust`] |
//!
//! [`demo`] is the simulated gateway, for `avatar-proxy demo` and for the tests; it knows the vocabulary only.

use std::io::{self, Write as _};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

pub mod activity;
pub mod avatars;
pub mod budget;
pub mod change;
pub mod check;
pub mod clock;
pub mod config;
pub mod cursor;
pub mod deadline;
pub mod demo;
pub mod duration;
pub mod entry;
pub mod events;
pub mod gateway;
pub mod go_json;
pub mod health;
pub mod http;
pub mod jid;
pub mod metrics;
pub mod migrate;
pub mod open_files;
pub mod outbound;
pub mod outcome;
pub mod recheck;
pub mod record;
pub mod refresh;
pub mod store;
pub mod telemetry;
pub mod trust;

use avatars::Avatars;
use budget::Budget;
use clock::{Clock, Timestamp};
use config::{Command, Config, StoreLocation};
use events::Events;
use events::webhook::{self, Webhooks};
use gateway::Gateway;
use http::Edge;
use metrics::Metrics;
use migrate::Telling;
use outbound::Outbound;
use refresh::Refresh;
use store::measured::Measured;
use store::redis::Redis;
use store::sqlite::Sqlite;
use store::{Engine, Store};

/// The version, as `--version` and the metrics say it.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");

/// Why the program could not start or go on: a sentence for the person who started it.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// An address cannot be listened on.
    #[error("cannot listen on {address}: {error}")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// What the operating system says.
        error: io::Error,
    },
    /// The store cannot be opened.
    #[error("{0}")]
    Store(#[from] store::OpenError),
    /// The gateway's client cannot be set up.
    #[error("{0}")]
    Gateway(#[from] gateway::SetupError),
    /// The client for webhooks cannot be set up.
    #[error("{0}")]
    Outbound(#[from] outbound::SetupError),
    /// Something that was tried is wrong.
    #[error("{0}")]
    Check(#[from] check::Wrong),
    /// The proxy that was asked about does not live.
    #[error("{0}")]
    Unhealthy(#[from] health::Unhealthy),
    /// A migration ended before its end.
    #[error("{0}")]
    Migrate(#[from] migrate::Error),
    /// The operating system refused something else.
    #[error("{0}")]
    Io(#[from] io::Error),
}

/// Prints a line for a person. Whoever closes our standard output does not end the service.
macro_rules! say {
    ($($text:tt)*) => {{
        let _ = writeln!(io::stdout(), $($text)*);
    }};
}

/// Does what the command line says, until it is done or a signal (SIGINT, SIGTERM) ends it.
///
/// # Errors
/// Why it could not start.
pub async fn run(command: Command) -> Result<(), Error> {
    let stop = stop_on_signal()?;
    survive_the_limit_of_file_sizes()?;
    match command {
        Command::Serve(config) => {
            if let Some(identity) = &config.http.tls {
                reload_on_hangup(identity.clone())?;
            }
            let app = App::start(*config, Clock::system(), stop.clone()).await?;
            tracing::info!(address = %app.address(), version = VERSION, "listening");
            app.finish().await;
            Ok(())
        }
        Command::Demo(demo) => run_demo(*demo, stop).await,
        Command::Health(health) => Ok(health::ask(&health.config).await?),
        Command::Migrate(migration) => {
            let summary = migrate::run(migration.stores, Clock::system(), &stop, Telling::as_suits_stderr()).await?;
            say!("{summary}");
            Ok(())
        }
        Command::Check(check) => {
            let findings = Box::pin(check::run(to_check(*check))).await;
            for finding in &findings {
                say!("{}", finding.line);
            }
            Ok(check::Wrong::among(&findings)?)
        }
        Command::Gateway(simulated) => {
            let listener = listen(simulated.listen).await?;
            let address = listener.local_addr()?;
            say!("A simulated gateway listens on http://{address}");
            say!("  curl 'http://{address}/user/avatar?phone={}'", demo::people::PRESENT);
            let options = demo::Options::demo(fastrand::u64(..));
            let people = demo::Population::generate(options.seed, DEMO_PEOPLE);
            demo::run(listener, options, &people, Clock::system(), stop.cancelled_owned()).await?;
            Ok(())
        }
    }
}

/// The parts of a proxy that can be tried without starting it.
fn to_check(check: config::Check) -> check::Parts {
    let config::Check { config, lookup, test_webhooks } = check;
    check::Parts {
        clock: Clock::system(),
        listen: config.listen,
        metrics_listen: config.metrics_listen,
        identity: config.http.tls,
        gateway: config.gateway,
        device: config.http.default_device,
        lookup,
        store: match config.store {
            StoreLocation::Sqlite(path) => check::Place::Sqlite(path),
            StoreLocation::Redis(address) => check::Place::Redis(address),
            StoreLocation::Temporary => unreachable!("only `demo` has a store that nobody named"),
        },
        webhooks: config.webhooks.given,
        test_webhooks: test_webhooks.then_some(config.events.format),
        outbound: config.outbound,
        as_json: config.log.format == telemetry::Format::Json,
    }
}

/// How many people the simulated gateway knows.
const DEMO_PEOPLE: usize = 300;

/// The proxy in front of a simulated gateway, with a temporary store.
async fn run_demo(demo: config::Demo, stop: CancellationToken) -> Result<(), Error> {
    let options = demo::Options::demo(fastrand::u64(..));
    let people = demo::Population::generate(options.seed, DEMO_PEOPLE);
    let gateway = demo::SimulatedGateway::on_a_free_port(options, Clock::system()).await?;
    people.settle(&gateway);
    let url = gateway.url().parse().map_err(io::Error::other)?;
    let app = App::start(demo.against(url), Clock::system(), stop).await?;
    let base = format!("http://{}", app.address());
    say!("avatar-proxy listens on {base}, in front of a simulated gateway on {}", gateway.url());
    say!("Try, and try again within some seconds (the first answer comes from the gateway, the next from memory):");
    say!("  curl -i '{base}/user/avatar?phone={}'", demo::people::PRESENT);
    say!("  curl -i '{base}/user/avatar?phone={}'     # has no picture", demo::people::WITHOUT_PICTURE);
    say!("  curl -i '{base}/avatars/{}'               # slow: the gateway takes seconds", demo::people::SLOW);
    say!("  curl -N '{base}/events'                      # who changes pictures, of those that somebody asked for");
    say!("Figures: curl {base}/metrics      Stop: Ctrl-C");
    app.finish().await;
    gateway.drain(Duration::from_secs(1)).await;
    Ok(())
}

fn stop_on_signal() -> io::Result<CancellationToken> {
    use tokio::signal::unix::{SignalKind, signal};
    let (mut interrupt, mut terminate) = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
    let stop = CancellationToken::new();
    let stopper = stop.clone();
    tokio::spawn(async move {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
        tracing::info!("stopping: what runs is finished first; a second signal ends it at once");
        stopper.cancel();
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
        std::process::exit(130);
    });
    Ok(stop)
}

/// On SIGHUP, by which service managers say that files have changed, the certificate and its key are read again.
///
/// Without them the signal keeps its meaning: a terminal that is closed ends what was started in it.
fn reload_on_hangup(identity: http::Identity) -> io::Result<()> {
    use tokio::signal::unix::{SignalKind, signal};
    let mut hangups = signal(SignalKind::hangup())?;
    tokio::spawn(async move {
        while hangups.recv().await.is_some() {
            let identity = identity.clone();
            match tokio::task::spawn_blocking(move || identity.reload()).await {
                Ok(Ok(())) => tracing::info!("the certificate was read again"),
                Ok(Err(unusable)) => {
                    let why = unusable.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ");
                    tracing::warn!(why, "the certificate stays as it was");
                }
                Err(_) => break,
            }
        }
    });
    Ok(())
}

/// A file that reaches the limit of file sizes (`ulimit -f`) fails the write, like a full disk, and does not end the process:
/// the signal that would is listened to, for as long as the process lives, and nothing follows from it.
fn survive_the_limit_of_file_sizes() -> io::Result<()> {
    use tokio::signal::unix::{SignalKind, signal};
    signal(SignalKind::from_raw(libc::SIGXFSZ)).map(drop)
}

async fn listen(address: SocketAddr) -> Result<TcpListener, Error> {
    TcpListener::bind(address).await.map_err(|error| Error::Listen { address, error })
}

/// The running service.
pub struct App {
    address: SocketAddr,
    metrics_address: Option<SocketAddr>,
    metrics: Arc<Metrics>,
    stop: CancellationToken,
    /// ends the upkeep, when nobody is left who could wait for the budget
    done: CancellationToken,
    servers: Vec<JoinHandle<()>>,
    refresh: JoinHandle<()>,
    /// reads the change log for all who follow it
    events: JoinHandle<()>,
    /// delivers it to those who do not ask
    webhooks: JoinHandle<()>,
    /// the budget's turn, and the store's when it fails
    upkeep: JoinHandle<()>,
    tasks: TaskTracker,
    store: Arc<dyn Store>,
    /// A temporary store's folder, removed at the end.
    _folder: Option<tempfile::TempDir>,
}

impl App {
    /// Opens the store, listens, and starts every part. `stop` ends it: [`App::finish`].
    ///
    /// # Errors
    /// Why it cannot start; nothing is left running then.
    pub async fn start(config: Config, clock: Clock, stop: CancellationToken) -> Result<Self, Error> {
        let metrics = Arc::new(Metrics::new());
        metrics.build_info.with_label_values(&[VERSION]).set(1);
        metrics.start_time.set(clock.now().since(Timestamp::from_seconds(0)).as_secs_f64());
        metrics.open_files_limit.set(i64::try_from(open_files::limit()).unwrap_or(i64::MAX));
        let gateway = Gateway::new(config.gateway, clock.clone())?;
        let listener = listen(config.listen).await?;
        let metrics_listener = match config.metrics_listen {
            Some(address) => Some(listen(address).await?),
            None => None,
        };
        let (engine, folder) = open(config.store, &clock).await?;
        let measured = Arc::new(Measured::new(engine, metrics.clone()));
        let store: Arc<dyn Store> = measured.clone();

        let tasks = TaskTracker::new();
        let done = CancellationToken::new();
        let budget = Budget::new(config.budget, clock.clone(), store.clone(), metrics.clone());
        let avatars = Avatars::new(avatars::Parts {
            config: config.avatars,
            clock: clock.clone(),
            store: store.clone(),
            gateway: Arc::new(gateway),
            budget: budget.clone(),
            metrics: metrics.clone(),
            tasks: tasks.clone(),
            stop: stop.clone(),
        });
        tasks.spawn(avatars.clone().follow(measured.clone()));
        let refresh = Refresh::new(refresh::Parts {
            config: config.refresh,
            clock: clock.clone(),
            store: store.clone(),
            avatars: avatars.clone(),
            metrics: metrics.clone(),
            tasks: tasks.clone(),
            stop: stop.clone(),
        });

        let events = Events::new(events::Parts {
            config: config.events,
            clock: clock.clone(),
            log: measured.clone(),
            metrics: metrics.clone(),
            stop: stop.clone(),
        });

        let address = listener.local_addr()?;
        let webhooks = Webhooks::new(webhook::Parts {
            config: config.webhooks,
            clock: clock.clone(),
            store: measured.clone(),
            events: events.clone(),
            post: Arc::new(outbound(config.outbound, address, &clock)?),
            metrics: metrics.clone(),
            stop: stop.clone(),
        });

        let metrics_address = metrics_listener.as_ref().map(TcpListener::local_addr).transpose()?;
        let parts =
            http::Parts { avatars, events: events.clone(), webhooks: webhooks.clone(), metrics: metrics.clone() };
        let edge = Edge::new(&config.http, address, parts.clone());
        let mut servers = vec![tokio::spawn(edge.serve(listener, stop.clone().cancelled_owned()))];
        if let Some(listener) = metrics_listener {
            let edge = Edge::figures_only(&config.http, parts);
            servers.push(tokio::spawn(edge.serve(listener, stop.clone().cancelled_owned())));
        }
        let refresh = tokio::spawn(refresh.run());
        let events = tokio::spawn(events.run());
        let webhooks = tokio::spawn(webhooks.run());
        let until_done = done.clone();
        let upkeep = tokio::spawn(async move {
            tokio::select! {
                () = budget.run() => {}
                () = measured.heal() => {}
                () = until_done.cancelled() => {}
            }
            budget.close().await;
        });
        Ok(Self {
            address,
            metrics_address,
            metrics,
            stop,
            done,
            servers,
            refresh,
            events,
            webhooks,
            upkeep,
            tasks,
            store,
            _folder: folder,
        })
    }

    /// Where it answers.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Where it answers with figures alone, if it does.
    #[must_use]
    pub fn metrics_address(&self) -> Option<SocketAddr> {
        self.metrics_address
    }

    /// The figures.
    #[must_use]
    pub fn metrics(&self) -> &Metrics {
        &self.metrics
    }

    /// Waits for the stop, then lets everything finish in order: requests, lookups that ask the gateway, the store.
    pub async fn finish(self) {
        self.stop.cancelled().await;
        for server in self.servers {
            let _ = server.await;
        }
        let _ = self.refresh.await;
        let _ = self.events.await;
        let _ = self.webhooks.await;
        self.tasks.close();
        self.tasks.wait().await;
        self.done.cancel();
        let _ = self.upkeep.await;
        self.store.close().await;
        tracing::info!("stopped");
    }
}

/// The client for addresses that others chose. Where we listen is ours, whatever the machine says of its addresses.
fn outbound(
    mut config: outbound::Config,
    address: SocketAddr,
    clock: &Clock,
) -> Result<Outbound, outbound::SetupError> {
    config.own.extend((!address.ip().is_unspecified()).then_some(address.ip()));
    Outbound::new(config, clock.clone())
}

/// The engine that remembers, and the folder that goes with it if it is temporary.
async fn open(location: StoreLocation, clock: &Clock) -> Result<(Arc<dyn Engine>, Option<tempfile::TempDir>), Error> {
    let (path, folder) = match location {
        StoreLocation::Redis(address) => return Ok((Arc::new(Redis::open(address, clock.clone()).await?), None)),
        StoreLocation::Sqlite(path) => (path, None),
        StoreLocation::Temporary => {
            let folder = tempfile::Builder::new().prefix("avatar-proxy-").tempdir()?;
            (folder.path().join("avatar-proxy.db"), Some(folder))
        }
    };
    let opened = tokio::task::spawn_blocking(move || Sqlite::open(&path)).await.map_err(io::Error::other)??;
    Ok((Arc::new(opened), folder))
}
