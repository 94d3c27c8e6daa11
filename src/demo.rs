//! A simulated gateway, for a first look at the product and for every test of it.
//!
//! It answers `GET /user/avatar` over real sockets as the gateway does, byte for byte: spellings, envelopes, devices,
//! credentials, signed URLs that die, and a host that serves the pictures until they do. What it answers is scripted, person by
//! person ([`SimulatedGateway::person`]); a lookup is counted the moment it arrives, so tests never sleep to be safe.
//!
//! * Expiries, changing pictures and the allowance follow the [`Clock`] it is given, so a manual clock moves them. Latencies
//!   are real time.
//! * What it remembers is bounded ([`Options::remember`]).
//! * It knows nothing of the proxy: of this crate it uses only the words (`clock`, `jid`).

pub mod people;
mod person;
mod picture;
mod reply;
mod script;
mod server;
mod sign;
mod wire;
mod world;

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpListener;

pub use people::Population;
pub use person::{Hold, PersonHandle};
pub use script::{Address, Form, Reply, Shape};

use crate::clock::{Clock, Timestamp};
use crate::jid::{Device, Jid};
use server::Ends;
use world::{World, device};

/// How the gateway is set up.
#[derive(Clone, Debug)]
pub struct Options {
    /// Path before `/user/avatar`, such as `/gowa`; empty by default.
    pub base_path: String,
    /// Users and passwords; with none, anybody may ask.
    pub credentials: Vec<(String, String)>,
    /// The accounts that can ask WhatsApp.
    pub devices: Devices,
    /// How long a lookup takes, picked anew for each (real time).
    pub latency: RangeInclusive<Duration>,
    /// How long URLs live; everybody has one lifetime in this range.
    pub url_lifetime: RangeInclusive<Duration>,
    /// `oe` is rounded up to a multiple of this, in whole seconds.
    pub expiry_step: Duration,
    /// Parameters of the signed addresses.
    pub shape: Shape,
    /// What is said of people who were never scripted.
    pub strangers: Reply,
    /// How often WhatsApp lets a device ask; `None` is without limit.
    pub allowance: Option<Allowance>,
    /// What goes wrong by chance, whoever is asked about.
    pub troubles: Vec<Trouble>,
    /// Failures say `"results":null`, as the published documentation has it, instead of leaving it out.
    pub null_results: bool,
    /// How many lookups are kept in the log, and how many strangers and unscripted devices are counted one by one.
    pub remember: usize,
    /// Dice and signatures come from this number.
    pub seed: u64,
    /// Scheme and authority of the pictures' host as others reach it; by default the address that is listened on.
    pub public_url: Option<String>,
}

impl Default for Options {
    /// One quick gateway for anybody, at which everybody has a picture and URLs live ten days.
    fn default() -> Self {
        const LIFETIME: Duration = Duration::from_secs(10 * 86_400);
        Self {
            base_path: String::new(),
            credentials: Vec::new(),
            devices: Devices::Any,
            latency: Duration::ZERO..=Duration::ZERO,
            url_lifetime: LIFETIME..=LIFETIME,
            expiry_step: Duration::from_secs(1),
            shape: Shape::Long,
            strangers: Reply::Present,
            allowance: None,
            troubles: Vec::new(),
            null_results: false,
            remember: 100_000,
            seed: 0,
            public_url: None,
        }
    }
}

/// The accounts that can ask WhatsApp.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Devices {
    /// Whatever is named is a device of its own, and so is no name at all.
    Any,
    /// These, as at a real gateway: an only one need not be named, one of several must be, others are not found.
    Known(Vec<String>),
}

/// Whether a device can ask.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DeviceState {
    /// It can.
    Connected,
    /// 401 `you are not logged in`.
    LoggedOut,
    /// 401 `you are not connect to services server, please reconnect`.
    Offline,
    /// 500 `INVALID_WA_CLI`.
    WithoutSession,
}

/// A rolling allowance: in any stretch of `per` (of the steady clock), a device gets at most `lookups` answers; the others are
/// [`Reply::RateLimited`] and cost nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Allowance {
    /// How many.
    pub lookups: usize,
    /// In how long.
    pub per: Duration,
}

/// One lookup in `one_in` is answered so, whoever it is about, unless they are spared.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trouble {
    /// How rare it is.
    pub one_in: u32,
    /// What is said.
    pub reply: Reply,
}

/// What holds for everybody.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Mode {
    /// Everybody is answered by their own script.
    #[default]
    Normal,
    /// Every lookup is answered so, whatever it asks and whoever asks.
    Everybody(Reply),
    /// Connections are reset as soon as they are made or used.
    Unreachable,
}

/// A lookup that arrived, whatever became of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lookup {
    /// The wall clock.
    pub at: Timestamp,
    /// The steady clock.
    pub elapsed: Duration,
    /// The device named, or the only one there is.
    pub device: Device,
    /// The person; `None` when `phone` could not be read.
    pub jid: Option<Jid>,
    /// `is_preview`.
    pub preview: bool,
    /// `is_community`.
    pub community: bool,
}

/// A running gateway. Clones are handles of the same one, which stops when it is told to or when the last handle is dropped.
#[derive(Clone)]
pub struct SimulatedGateway {
    running: Arc<Running>,
}

struct Running {
    world: Arc<World>,
    address: SocketAddr,
    ends: Ends,
}

impl Drop for Running {
    fn drop(&mut self) {
        self.ends.stop.cancel();
    }
}

impl SimulatedGateway {
    /// Serves at `listener`. Needs a tokio runtime around it.
    ///
    /// # Errors
    /// When the listener has no address.
    pub fn start(listener: TcpListener, options: Options, clock: Clock) -> io::Result<Self> {
        let mut address = listener.local_addr()?;
        match address {
            SocketAddr::V4(v4) if v4.ip().is_unspecified() => address.set_ip(Ipv4Addr::LOCALHOST.into()),
            SocketAddr::V6(v6) if v6.ip().is_unspecified() => address.set_ip(Ipv6Addr::LOCALHOST.into()),
            _ => {}
        }
        let world = Arc::new(World::new(options, &address.to_string(), clock));
        let ends = Ends::default();
        ends.tasks.spawn(server::accept(listener, Arc::clone(&world), ends.clone()));
        ends.tasks.close();
        Ok(Self { running: Arc::new(Running { world, address, ends }) })
    }

    /// Serves at a free port of loopback.
    ///
    /// # Errors
    /// When there is none.
    pub async fn on_a_free_port(options: Options, clock: Clock) -> io::Result<Self> {
        Self::start(TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?, options, clock)
    }

    /// Base URL, with the base path and no slash at its end: `http://127.0.0.1:40123/gowa`.
    #[must_use]
    pub fn url(&self) -> String {
        format!("http://{}{}", self.running.address, self.world().options.base_path)
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.running.address
    }

    /// Stops at once: connections are cut, whatever is under way. The address is free afterwards.
    pub async fn stop(&self) {
        self.running.ends.stop.cancel();
        self.running.ends.tasks.wait().await;
    }

    /// Takes no more connections, gives answers under way this long (real time), then stops.
    pub async fn drain(&self, patience: Duration) {
        self.running.ends.closing.cancel();
        let _ = tokio::time::timeout(patience, self.running.ends.tasks.wait()).await;
        self.stop().await;
    }

    /// One person, by any spelling the gateway reads.
    ///
    /// # Panics
    /// When it cannot be read.
    #[must_use]
    pub fn person(&self, phone: &str) -> PersonHandle {
        let jid = Jid::parse(phone).unwrap_or_else(|error| panic!("no address of a person: {error}"));
        PersonHandle::new(Arc::clone(self.world()), jid)
    }

    /// Something that holds for everybody, or no longer does.
    pub fn set_mode(&self, mode: Mode) {
        self.world().state().mode = mode;
    }

    /// Other devices from now on.
    pub fn set_devices(&self, devices: Devices) {
        self.world().state().devices = devices;
    }

    /// A device is logged out, or back again.
    pub fn set_device_state(&self, name: &str, condition: DeviceState) {
        self.world().state().conditions.insert(device(name), condition);
    }

    /// Other users and passwords from now on.
    pub fn set_credentials(&self, credentials: &[(&str, &str)]) {
        let owned = credentials.iter().map(|(user, password)| ((*user).to_owned(), (*password).to_owned()));
        self.world().state().credentials = owned.collect();
    }

    /// Another allowance from now on; what was spent counts.
    pub fn set_allowance(&self, allowance: Option<Allowance>) {
        self.world().state().allowance = allowance;
    }

    /// What is said of people who were never scripted.
    pub fn set_strangers(&self, reply: Reply) {
        self.world().state().strangers = reply;
    }

    /// Keeps every lookup that arrives from now on waiting, its answer already settled, until the guard is dropped.
    #[must_use = "a hold ends when its guard is dropped"]
    pub fn hold(&self) -> Hold {
        Hold::new(self.world().state().gate.clone())
    }

    /// Lookups that have arrived, refused ones included.
    #[must_use]
    pub fn lookups(&self) -> u64 {
        self.world().state().lookups
    }

    /// The last lookups, oldest first, as many as are remembered.
    #[must_use]
    pub fn log(&self) -> Vec<Lookup> {
        self.world().state().log.iter().cloned().collect()
    }

    /// Lookups that have arrived and are not answered.
    #[must_use]
    pub fn in_flight(&self) -> usize {
        self.world().state().in_flight
    }

    /// The most lookups that were under way at one time.
    #[must_use]
    pub fn max_in_flight(&self) -> usize {
        self.world().state().max_in_flight
    }

    /// TCP connections that have been accepted.
    #[must_use]
    pub fn connections(&self) -> u64 {
        self.world().state().connections
    }

    /// TCP connections that are open.
    #[must_use]
    pub fn open_connections(&self) -> usize {
        self.world().state().open_connections
    }

    /// Pictures that have been asked for, refused ones included.
    #[must_use]
    pub fn picture_requests(&self) -> u64 {
        self.world().state().picture_requests
    }

    /// Waits until `n` lookups have arrived, counted from the start; they need not have been answered.
    ///
    /// # Panics
    /// When they do not arrive within 30 s.
    pub async fn arrived(&self, n: u64) {
        let arrived = self.world().until(|state| state.lookups >= n);
        let timely = tokio::time::timeout(person::PATIENCE, arrived).await.is_ok();
        assert!(timely, "{} of {n} expected lookups arrived", self.lookups());
    }

    /// Waits until no lookup is under way.
    ///
    /// # Panics
    /// When that takes longer than 30 s.
    pub async fn idle(&self) {
        let idle = self.world().until(|state| state.in_flight == 0);
        let timely = tokio::time::timeout(person::PATIENCE, idle).await.is_ok();
        assert!(timely, "{} lookups are still under way", self.in_flight());
    }

    fn world(&self) -> &Arc<World> {
        &self.running.world
    }
}

/// Serves these people at `listener` until `shutdown`, then lets answers under way be finished, for a few seconds at most.
///
/// # Errors
/// When the listener has no address.
pub async fn run(
    listener: TcpListener,
    options: Options,
    population: &Population,
    clock: Clock,
    shutdown: impl Future<Output = ()>,
) -> io::Result<()> {
    let gateway = SimulatedGateway::start(listener, options, clock)?;
    population.settle(&gateway);
    shutdown.await;
    gateway.drain(Duration::from_secs(5)).await;
    Ok(())
}
