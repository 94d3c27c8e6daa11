//! The proxy in this process, over real sockets, in front of a simulated gateway.

use std::ffi::OsString;
use std::ops::Deref;
use std::path::PathBuf;
use std::time::Duration;

use avatar_proxy::clock::Clock;
use avatar_proxy::config::{self, Command, Config};
use avatar_proxy::demo::{Options, SimulatedGateway};
use avatar_proxy::http::Timeouts;
use avatar_proxy::outbound;
use tokio_util::sync::CancellationToken;

use super::client::Client;
use super::redis::Redis;

/// A gateway, a folder for the store, and the flags to start a proxy with; a proxy can be started from it again and again.
pub(crate) struct World {
    pub(crate) gateway: SimulatedGateway,
    pub(crate) clock: Clock,
    folder: tempfile::TempDir,
    flags: Vec<String>,
    timeouts: Timeouts,
    outbound: outbound::Config,
}

/// A running proxy and its client.
pub(crate) struct TestApp {
    app: avatar_proxy::App,
    stop: CancellationToken,
    client: Client,
}

impl World {
    /// With a budget that gets in nobody's way, and the system's clock.
    pub(crate) async fn new() -> Self {
        Self::with(Options::default(), Clock::system()).await
    }

    pub(crate) async fn with(options: Options, clock: Clock) -> Self {
        let gateway = SimulatedGateway::on_a_free_port(options, clock.clone()).await.expect("the gateway starts");
        let folder = tempfile::tempdir().expect("a folder");
        let flags = ["--gateway-rate=100000/s", "--gateway-burst=100000", "--gateway-concurrency=1000"];
        let flags = flags.map(str::to_owned).to_vec();
        let (timeouts, outbound) = (Timeouts::default(), outbound::Config::default());
        Self { gateway, clock, folder, flags, timeouts, outbound }
    }

    /// One more flag, `--name=value`; the last of a name counts.
    pub(crate) fn flag(mut self, flag: &str) -> Self {
        let name = |flag: &str| flag.split('=').next().unwrap_or_default().to_owned();
        self.flags.retain(|other| name(other) != name(flag));
        self.flags.push(flag.to_owned());
        self
    }

    /// With a store on this server, which replicas can share.
    pub(crate) fn on(self, server: &Redis) -> Self {
        let url = server.url();
        self.flag(&format!("--store={url}"))
    }

    /// With less patience for clients that take their time with a head than a real one has.
    pub(crate) fn head_timeout(self, head: Duration) -> Self {
        let others = self.timeouts;
        self.timeouts(Timeouts { head, ..others })
    }

    /// With another patience for clients than a real one has.
    pub(crate) fn timeouts(mut self, timeouts: Timeouts) -> Self {
        self.timeouts = timeouts;
        self
    }

    /// With another network, or another patience, for the addresses of webhooks.
    pub(crate) fn outbound(mut self, outbound: outbound::Config) -> Self {
        self.outbound = outbound;
        self
    }

    pub(crate) fn store_path(&self) -> PathBuf {
        self.folder.path().join("store.db")
    }

    /// The whole command line of `avatar-proxy serve`.
    pub(crate) fn arguments(&self) -> Vec<String> {
        let fixed = [
            "serve".to_owned(),
            format!("--gateway-url={}", self.gateway.url()),
            format!("--store=sqlite:{}", self.store_path().display()),
            "--listen=127.0.0.1:0".to_owned(),
        ];
        let name = |flag: &str| flag.split('=').next().unwrap_or_default().to_owned();
        let fixed = fixed.into_iter().filter(|flag| !self.flags.iter().any(|given| name(given) == name(flag)));
        fixed.chain(self.flags.iter().cloned()).collect()
    }

    pub(crate) fn config(&self) -> Config {
        let arguments = std::iter::once("avatar-proxy".to_owned()).chain(self.arguments()).map(OsString::from);
        match config::parse(arguments, []) {
            Ok(Command::Serve(mut config)) => {
                config.http.timeouts = self.timeouts;
                config.outbound = self.outbound.clone();
                *config
            }
            Ok(_) => panic!("not `serve`"),
            Err(config::Stop::Mistakes(mistakes)) => panic!("{mistakes}"),
            Err(config::Stop::CommandLine(error)) => panic!("{error}"),
        }
    }

    /// Starts so many proxies, which share a store that can be shared.
    pub(crate) async fn start_many(&self, replicas: usize) -> Vec<TestApp> {
        let mut apps = vec![];
        for _ in 0..replicas {
            apps.push(self.start().await);
        }
        apps
    }

    /// Starts a proxy.
    pub(crate) async fn start(&self) -> TestApp {
        let stop = CancellationToken::new();
        let app = avatar_proxy::App::start(self.config(), self.clock.clone(), stop.clone()).await.expect("it starts");
        let client = Client::new(app.address());
        TestApp { app, stop, client }
    }
}

impl TestApp {
    /// Stops it and waits until everything has ended in good order.
    pub(crate) async fn stop(self) {
        drop(self.client);
        self.stop.cancel();
        self.app.finish().await;
    }

    pub(crate) fn app(&self) -> &avatar_proxy::App {
        &self.app
    }
}

impl Deref for TestApp {
    type Target = Client;

    fn deref(&self) -> &Client {
        &self.client
    }
}
