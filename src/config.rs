//! Every option of the program: command line and environment in, one [`Command`] out, or all mistakes at once.
//!
//! Rules kept here:
//!
//! * Nothing starts before everything is read. [`parse`] opens no socket and changes nothing; it only reads the files that
//!   variables ending in `_FILE` name, and those of `--tls-cert` and `--tls-key`.
//! * Every mistake is found in one go, names its flag and where the value came from, and says what would be right.
//! * No secret is shown, in no message.
//! * Who can reach the proxy can see what the gateway's account can see. So it does not start unprotected by accident:
//!   `config/checks.rs`.
//! * Each module owns its `Config`; here they are only filled. Modules never read flags, and never import this one.

use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use ::http::Uri;

use crate::gateway::Credential;
use crate::jid::{Device, Jid};
use crate::outcome::Rules;
use crate::store::redis::Address;
use crate::{avatars, budget, duration, events, gateway, health, http, migrate, outbound, refresh, telemetry};

mod addresses;
mod checks;
mod command_line;
mod credentials;
mod flags;
mod mistakes;
mod quantities;
mod sources;
mod webhooks;

pub use flags::{Flag, Heading, Preset, flags};
pub use mistakes::{Mistake, Mistakes, Stop};

use command_line::Verb;
use sources::{Noted, Settings};

/// What the program was asked to do.
pub enum Command {
    /// Stand in front of a gateway.
    Serve(Box<Config>),
    /// The same in front of a simulated one.
    Demo(Box<Demo>),
    /// The simulated gateway alone.
    Gateway(SimulatedGateway),
    /// Ask a proxy that runs on this machine whether it lives.
    Health(Health),
    /// Move a store to another engine.
    Migrate(Migration),
    /// Try whether a proxy with these settings would work.
    Check(Box<Check>),
}

impl Command {
    /// What is to be logged, and how.
    #[must_use]
    pub fn log(&self) -> &telemetry::Config {
        match self {
            Self::Serve(config) => &config.log,
            Self::Demo(demo) => &demo.0.log,
            Self::Gateway(gateway) => &gateway.log,
            Self::Health(health) => &health.log,
            Self::Migrate(migration) => &migration.log,
            Self::Check(check) => &check.config.log,
        }
    }

    /// Where it answers, or what is asked does; nothing answers while a store is moved.
    #[must_use]
    pub fn listen(&self) -> Option<SocketAddr> {
        match self {
            Self::Serve(config) => Some(config.listen),
            Self::Demo(demo) => Some(demo.0.listen),
            Self::Gateway(gateway) => Some(gateway.listen),
            Self::Health(health) => Some(health.config.address),
            Self::Check(check) => Some(check.config.listen),
            Self::Migrate(_) => None,
        }
    }
}

/// Everything the proxy needs to know.
#[derive(Clone)]
pub struct Config {
    /// Where to answer; port 0 takes a free one.
    pub listen: SocketAddr,
    /// Where to answer `/metrics`, `/health` and `/ready` alone, without credentials.
    pub metrics_listen: Option<SocketAddr>,
    /// The edge's part.
    pub http: http::Config,
    /// The gateway client's part.
    pub gateway: gateway::Config,
    /// The budget's part.
    pub budget: budget::Config,
    /// The lookup's part.
    pub avatars: avatars::Config,
    /// The refresher's part.
    pub refresh: refresh::Config,
    /// The change log's readers' part.
    pub events: events::Config,
    /// The part of who tells them to webhooks.
    pub webhooks: events::webhook::Config,
    /// The part of the connections to them.
    pub outbound: outbound::Config,
    /// Where answers and changes are kept.
    pub store: StoreLocation,
    /// The log's part.
    pub log: telemetry::Config,
}

/// A configuration that lacks only its gateway, which has an address once it runs.
#[derive(Clone)]
pub struct Demo(Config);

impl Demo {
    /// The proxy's configuration, with the simulated gateway at `url`.
    #[must_use]
    pub fn against(mut self, url: Uri) -> Config {
        self.0.gateway.url = url;
        self.0
    }
}

/// What the simulated gateway needs to know when it runs alone.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SimulatedGateway {
    /// Where to answer; port 0 takes a free one.
    pub listen: SocketAddr,
    /// The log's part.
    pub log: telemetry::Config,
}

/// What asking a running proxy needs to know.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Health {
    /// Whom to ask.
    pub config: health::Config,
    /// The log's part.
    pub log: telemetry::Config,
}

/// What moving a store needs to know.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Migration {
    /// From where to where.
    pub stores: migrate::Config,
    /// The log's part.
    pub log: telemetry::Config,
}

/// What is to be tried.
pub struct Check {
    /// What the proxy would be told.
    pub config: Config,
    /// Whom to look up; nobody unless somebody is named.
    pub lookup: Option<Jid>,
    /// Whether webhooks are sent something.
    pub test_webhooks: bool,
}

/// Where answers and changes are kept.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum StoreLocation {
    /// A SQLite file; the path may be relative to the working directory.
    Sqlite(PathBuf),
    /// A Redis, which other replicas may use as well.
    Redis(Address),
    /// Wherever there is room, until the process ends.
    Temporary,
}

/// Reads a command line, program name first, and the environment.
///
/// # Errors
/// [`Stop`] when there is nothing to run: help was asked for, or something is wrong.
pub fn parse(
    arguments: impl IntoIterator<Item = OsString>,
    variables: impl IntoIterator<Item = (OsString, OsString)>,
) -> Result<Command, Stop> {
    let (verb, arguments) = command_line::read(arguments).map_err(Stop::CommandLine)?;
    let mut settings = Settings::gather(verb, arguments, variables);
    let command = match verb {
        Verb::Serve => proxy(&mut settings, verb).map(|config| Command::Serve(Box::new(config))),
        Verb::Migrate => migration(&mut settings).map(Command::Migrate),
        Verb::Demo => match settings.value("--gateway-only", quantities::switch) {
            Ok(true) => simulated_gateway(&mut settings).map(Command::Gateway),
            _ => proxy(&mut settings, verb).map(|config| Command::Demo(Box::new(Demo(config)))),
        },
        Verb::Health => health(&mut settings).map(Command::Health),
        Verb::Check => check(&mut settings).map(|check| Command::Check(Box::new(check))),
    };
    match (command, settings.into_mistakes()) {
        (Ok(command), mistakes) if mistakes.is_empty() => Ok(command),
        (_, mistakes) => Err(Stop::Mistakes(Mistakes::new(verb.name(), mistakes))),
    }
}

// The functions below read all of their flags first and only then give up on a mistake (`?`), so that none hides another.

fn proxy(settings: &mut Settings, verb: Verb) -> Result<Config, Noted> {
    let listen = settings.value("--listen", addresses::listen);
    let metrics_listen = settings.optional("--metrics-listen", addresses::listen);
    let access = access(settings, verb);
    let tls = identity(settings, verb);
    let requests = requests(settings);
    let url = if verb.is_in_earnest() {
        settings.value("--gateway-url", addresses::gateway_url)
    } else {
        // The simulated gateway has an address only once it runs: `Demo::against`.
        Ok(Uri::default())
    };
    let ca = if verb.is_in_earnest() { settings.optional("--gateway-ca", addresses::file) } else { Ok(None) };
    let timeout = settings.value("--gateway-timeout", duration::parse);
    let budget = budget(settings);
    let lifetimes = lifetimes(settings);
    let rules = rules(settings);
    let memory_limit = settings.value("--memory-limit", quantities::size);
    let events = events(settings);
    let webhooks = webhooks::read(settings);
    let watch_limit = settings.value("--watch-limit", quantities::count);
    let hooks = hooks(settings);
    let store =
        if verb.is_in_earnest() { settings.value("--store", addresses::store) } else { Ok(StoreLocation::Temporary) };
    let log = log(settings);

    checks::protection(settings, verb, listen, &access);
    if let (Ok(listen), Ok(Some(metrics_listen))) = (&listen, &metrics_listen) {
        checks::two_listeners(settings, *listen, *metrics_listen);
    }
    if let (Ok(listen), Ok(url)) = (&listen, &url) {
        checks::no_loop(settings, *listen, url);
    }
    if let (Ok(url), Ok(Some(_))) = (&url, &ca) {
        checks::authority_has_a_use(settings, url);
    }

    let ((default_device, cors_origins), (warm_for, forget_after)) = (requests?, lifetimes?);
    let (rules, gateway_timeout) = (rules?, timeout?);
    Ok(Config {
        listen: listen?,
        metrics_listen: metrics_listen?,
        http: http::Config {
            auth: access.auth?,
            allow_anonymous: access.allow_anonymous?,
            default_device,
            cors_origins,
            watch_limit: u64::from(watch_limit?),
            hooks: hooks?,
            timeouts: http::Timeouts::default(),
            tls: tls?,
        },
        gateway: gateway::Config { url: url?, auth: access.gateway_auth?, ca: ca?, timeout: gateway_timeout },
        budget: budget?,
        avatars: avatars::Config { rules: rules.clone(), memory_limit: memory_limit?, warm_for, gateway_timeout },
        refresh: refresh::Config { warm_for, forget_after, rules },
        events: events?,
        webhooks: webhooks?,
        outbound: outbound::Config::default(),
        store: store?,
        log: log?,
    })
}

fn simulated_gateway(settings: &mut Settings) -> Result<SimulatedGateway, Noted> {
    settings.only(
        &["--gateway-only", "--listen", "--log-format"],
        "has no effect with --gateway-only, which goes with --listen and --log-format alone",
    );
    let listen = settings.value("--listen", addresses::listen);
    let log = log(settings);
    Ok(SimulatedGateway { listen: listen?, log: log? })
}

/// Where a proxy with these settings answers `/health`: without credentials in either place.
fn health(settings: &mut Settings) -> Result<Health, Noted> {
    let listen = settings.value("--listen", addresses::listen);
    let metrics_listen = settings.optional("--metrics-listen", addresses::listen);
    let certificate = settings.optional("--tls-cert", addresses::file);
    let log = log(settings);
    let (address, tls, flag) = match metrics_listen? {
        Some(address) => (address, false, "--metrics-listen"),
        None => (listen?, certificate?.is_some(), "--listen"),
    };
    if address.port() == 0 {
        return Err(
            settings.object(flag, "port 0 is a free one, and only the proxy itself knows which; say which it took")
        );
    }
    Ok(Health { config: health::Config { address, tls }, log: log? })
}

fn migration(settings: &mut Settings) -> Result<Migration, Noted> {
    let from = settings.value("--from", |text| match addresses::store(text)? {
        StoreLocation::Sqlite(path) => Ok(path),
        _ => Err("only a file can be moved from, as in sqlite:avatar-proxy.db; the way back is the file itself, which stays as \
                  it was"
            .to_owned()),
    });
    let to = settings.value("--to", |text| match addresses::store(text)? {
        StoreLocation::Redis(address) => Ok(address),
        _ => Err("only a Redis can be moved to, as in redis://HOST; a file is copied".to_owned()),
    });
    let log = log(settings);
    Ok(Migration { stores: migrate::Config { from: from?, to: to? }, log: log? })
}

fn check(settings: &mut Settings) -> Result<Check, Noted> {
    let config = proxy(settings, Verb::Check);
    let lookup = settings.optional("--lookup", |phone| Jid::parse(phone).map_err(|wrong| wrong.to_string()));
    let test_webhooks = settings.value("--test-webhooks", quantities::switch);
    Ok(Check { config: config?, lookup: lookup?, test_webhooks: test_webhooks? })
}

/// Who may ask us, and as whom we ask the gateway; each as far as it could be read.
struct Access {
    auth: Result<Vec<Credential>, Noted>,
    allow_anonymous: Result<bool, Noted>,
    gateway_auth: Result<Option<Credential>, Noted>,
}

fn access(settings: &mut Settings, verb: Verb) -> Access {
    Access {
        auth: settings.optional("--auth", credentials::list).map(Option::unwrap_or_default),
        allow_anonymous: settings.value("--allow-anonymous", quantities::switch),
        gateway_auth: if verb.is_in_earnest() {
            settings.optional("--gateway-auth", credentials::one)
        } else {
            Ok(None)
        },
    }
}

/// Who we are for clients that speak `https`; its two files are read, so that what is wrong with them is told with the rest.
fn identity(settings: &mut Settings, verb: Verb) -> Result<Option<http::Identity>, Noted> {
    if !verb.is_in_earnest() {
        return Ok(None);
    }
    let certificate = settings.optional("--tls-cert", addresses::file);
    let key = settings.optional("--tls-key", addresses::file);
    match (certificate?, key?) {
        (None, None) => Ok(None),
        (Some(_), None) => Err(settings.object("--tls-key", "is required beside --tls-cert")),
        (None, Some(_)) => Err(settings.object("--tls-cert", "is required beside --tls-key")),
        (Some(certificate), Some(key)) => http::Identity::load(certificate, key).map(Some).map_err(|unusable| {
            for file in unusable {
                settings.object(file.flag, file.why);
            }
            Noted
        }),
    }
}

fn requests(settings: &mut Settings) -> Result<(Device, Vec<String>), Noted> {
    let default_device = settings.optional("--default-device", |name| {
        Device::new(name)
            .map_err(|_| format!("a device's name has at most {} bytes, this one {}", Device::MAX, name.len()))
    });
    let cors_origins = settings.value("--cors-origin", addresses::origins);
    Ok((default_device?.unwrap_or_default(), cors_origins?))
}

fn budget(settings: &mut Settings) -> Result<budget::Config, Noted> {
    let rate = settings.value("--gateway-rate", quantities::rate);
    let burst = settings.value("--gateway-burst", quantities::count);
    let concurrency = settings.value("--gateway-concurrency", quantities::count);
    let cool_down = settings.value("--rate-limit-cooldown", duration::parse);
    let max_wait = settings.value("--max-wait", duration::parse_or_zero);
    Ok(budget::Config {
        rate: rate?,
        burst: burst?,
        concurrency: concurrency?,
        cool_down: cool_down?,
        max_wait: max_wait?,
    })
}

fn lifetimes(settings: &mut Settings) -> Result<(Duration, Duration), Noted> {
    let warm_for = settings.value("--warm-for", duration::parse_or_zero);
    let forget_after = settings.value("--forget-after", duration::parse);
    let (warm_for, forget_after) = (warm_for?, forget_after?);
    // What is forgotten is not looked at again, so it is warm for no longer.
    Ok((warm_for.min(forget_after), forget_after))
}

fn rules(settings: &mut Settings) -> Result<Rules, Noted> {
    let refresh_ahead = settings.value("--refresh-ahead", quantities::share);
    let recheck_interval = settings.value("--recheck-interval", duration::parse);
    let fallback_ttl = settings.value("--fallback-ttl", duration::parse);
    let not_set_ttl = settings.value("--not-set-ttl", duration::parse);
    let hidden_ttl = settings.value("--hidden-ttl", duration::parse);
    let unregistered_ttl = settings.value("--unregistered-ttl", duration::parse);
    let confirm_after = settings.value("--confirm-after", duration::parse);
    Ok(Rules {
        refresh_ahead: refresh_ahead?,
        renew_late: false,
        recheck_interval: recheck_interval?,
        fallback_ttl: fallback_ttl?,
        not_set_ttl: not_set_ttl?,
        hidden_ttl: hidden_ttl?,
        unregistered_ttl: unregistered_ttl?,
        confirm_after: confirm_after?,
    })
}

/// How the gateway's own webhooks are taken.
fn hooks(settings: &mut Settings) -> Result<Option<http::Hooks>, Noted> {
    let secret = settings.optional("--gateway-webhook-secret", |secret| match secret {
        "" => Err("it is empty: anybody could sign with it".to_owned()),
        text if text.contains(char::is_control) => {
            Err("it contains a line break or another control character".to_owned())
        }
        secret => Ok(secret.to_owned()),
    });
    let discover = settings.value("--discover", quantities::switch);
    let (secret, discover) = (secret?, discover?);
    if secret.is_none() && discover {
        return Err(settings.object("--discover", "has no effect without --gateway-webhook-secret"));
    }
    Ok(secret.map(|secret| http::Hooks { secret, discover }))
}

fn events(settings: &mut Settings) -> Result<events::Config, Noted> {
    let retention = settings.value("--retention", duration::parse);
    let format = settings.value("--event-format", |text| match text {
        "gowa" => Ok(events::Format::Gowa),
        "cloudevents" => Ok(events::Format::CloudEvents),
        _ => Err("write gowa or cloudevents".to_owned()),
    });
    Ok(events::Config { retention: retention?, format: format? })
}

fn log(settings: &mut Settings) -> Result<telemetry::Config, Noted> {
    let filter = settings.log(|text| {
        const FORM: &str = "write warn, info, debug, or for instance info,avatar_proxy=debug";
        match telemetry::check_filter(text) {
            // Taken at its word, it would silence everything but errors.
            Ok(()) if text.trim().is_empty() => Err(format!("is empty; unset it, or {FORM}")),
            Ok(()) => Ok(()),
            Err(wrong) => Err(format!("{wrong}; {FORM}")),
        }
    });
    let format = settings.value("--log-format", |text| match text {
        "text" => Ok(telemetry::Format::Text),
        "json" => Ok(telemetry::Format::Json),
        _ => Err("write text or json".to_owned()),
    });
    Ok(telemetry::Config { format: format?, filter: filter.unwrap_or_else(|| "info".to_owned()) })
}
