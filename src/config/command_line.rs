//! The command line and its help, made from the table of flags.
//!
//! clap finds flags and their texts and prints help; what the texts mean is none of its business, so that every wrong one can
//! be told at once. Only a line that has no meaning at all (an unknown flag, a stray word) is clap's own error.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};

use clap::builder::ValueParser;
use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{Arg, ArgAction, ArgMatches, Command};

use super::flags::{Flag, Preset, SWITCH, flags};

/// What is to be run.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Verb {
    Serve,
    Demo,
    Health,
    Migrate,
    Check,
}

impl Verb {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Serve => "serve",
            Self::Demo => "demo",
            Self::Health => "health",
            Self::Migrate => "migrate",
            Self::Check => "check",
        }
    }

    pub(super) fn preset(self, flag: &Flag) -> Preset {
        match self {
            Self::Serve => flag.default,
            Self::Demo => flag.demo_default,
            // What a proxy was told, and says where it answers.
            Self::Health => match flag.name {
                "--listen" | "--metrics-listen" | "--tls-cert" | "--log-format" => flag.default,
                _ => Preset::Elsewhere,
            },
            // It has few flags, and two that nothing else has.
            Self::Migrate => match flag.name {
                "--from" | "--to" => Preset::Required,
                "--log-format" => flag.default,
                _ => Preset::Elsewhere,
            },
            // All that a proxy is told, and what is asked of the check itself.
            Self::Check => match flag.name {
                "--lookup" => Preset::Unset,
                "--test-webhooks" => Preset::Is("false"),
                _ => flag.default,
            },
        }
    }

    /// Whether it is about a gateway and a store of one's own.
    pub(super) fn is_in_earnest(self) -> bool {
        matches!(self, Self::Serve | Self::Check)
    }
}

const ABOUT: &str = "A caching proxy for the avatar lookups of a self-hosted WhatsApp gateway (GoWA)";

const LONG_ABOUT: &str = "\
A caching proxy for the avatar lookups of a self-hosted WhatsApp gateway (GoWA).

It answers the gateway's own GET /user/avatar from a cache, never with a URL that
has expired, and asks the gateway as rarely as it can, because lookups are what
gets accounts banned. Clients change their base URL and nothing else.";

const EXAMPLES: &str = "\
Examples:
  avatar-proxy demo
  avatar-proxy serve --gateway-url http://localhost:3000
  avatar-proxy check --gateway-url http://localhost:3000
  avatar-proxy health
  avatar-proxy serve --help";

const SERVE_EXAMPLES: &str = "\
Examples:
  # in front of a gateway on this machine, for this machine alone
  avatar-proxy serve --gateway-url http://localhost:3000
  # for other machines, with passwords that are read from files
  export AVATAR_PROXY_AUTH_FILE=auth.txt
  export AVATAR_PROXY_GATEWAY_AUTH_FILE=gateway-auth.txt
  avatar-proxy serve --listen 0.0.0.0:8080 --gateway-url https://wa.example.com";

const DEMO_EXAMPLES: &str = "\
Examples:
  # the proxy and a simulated gateway
  avatar-proxy demo
  # the simulated gateway alone, and a proxy in front of it
  avatar-proxy demo --gateway-only --listen 127.0.0.1:3000
  avatar-proxy serve --gateway-url http://127.0.0.1:3000";

const HEALTH_EXAMPLES: &str = "\
It ends with 0 if the proxy answers /health with 200, else with 1 and a sentence.
It reads the variables that the proxy reads; what the proxy was told by flags has
to be said again.

Examples:
  avatar-proxy health
  avatar-proxy health --listen 127.0.0.1:9090";

const MIGRATE_EXAMPLES: &str = "\
The file is only read, and no proxy may use it meanwhile. The Redis must hold no
store. It is none until everything has been read back and compared: no proxy
starts on it before. Whatever ends a migration, the same command goes on with it.
What was left out of the command line (a password) can be in a file that
AVATAR_PROXY_TO_FILE names.

Examples:
  avatar-proxy migrate --from sqlite:avatar-proxy.db --to redis://10.0.0.9
  avatar-proxy migrate --from sqlite:avatar-proxy.db \\
    --to redis+sentinel://10.0.0.7,10.0.0.8,10.0.0.9/main";

const CHECK_EXAMPLES: &str = "\
It says a line for each check, on stdout (--log-format=json: an object), and ends
with 0 if nothing is wrong (warnings are not), with 1 if something is, and with 2
if flags are mistaken, for then there is nothing to try. It looks nobody up and
writes nothing anywhere unless it is told to, and may run beside the proxy.

Examples:
  # with the variables that the proxy is started with
  avatar-proxy check
  # the whole way to WhatsApp and to the receivers
  avatar-proxy check --lookup 99900000001 --test-webhooks";

const FORMS: &str = "\
Forms:
  DURATION  90s, 15m, 6h, 7d, 1h30m
  RATE      lookups per second, minute or hour: 1/s, 30/m, 600/h
  SIZE      256MiB, 2GiB

Environment:
  Each flag can be a variable: --gateway-url is AVATAR_PROXY_GATEWAY_URL. The
  same with _FILE at its end, as AVATAR_PROXY_AUTH_FILE, names a file that holds
  the value, which keeps secrets out of command lines. A flag beats a variable.
  AVATAR_PROXY_LOG says what is logged: warn, info (the default), debug, or for
  instance info,avatar_proxy=debug.";

/// Reads a command line, program name first: the command, and the texts of the flags given.
///
/// # Errors
/// For help and the version too, as clap has it.
pub(super) fn read(
    arguments: impl IntoIterator<Item = OsString>,
) -> Result<(Verb, BTreeMap<&'static str, OsString>), clap::Error> {
    let matches = command().try_get_matches_from(arguments).map_err(without_values)?;
    let (verb, matches) = match matches.subcommand() {
        Some(("demo", matches)) => (Verb::Demo, matches),
        Some(("health", matches)) => (Verb::Health, matches),
        Some(("migrate", matches)) => (Verb::Migrate, matches),
        Some(("check", matches)) => (Verb::Check, matches),
        Some((_, matches)) => (Verb::Serve, matches),
        None => {
            return Err(command().error(ErrorKind::MissingSubcommand, "say serve, demo, health, check or migrate"));
        }
    };
    let given = flags().iter().filter_map(|flag| Some((flag.name, text(flag, matches)?))).collect();
    Ok((verb, given))
}

fn text(flag: &Flag, matches: &ArgMatches) -> Option<OsString> {
    let texts: Vec<&OsStr> = matches.get_many::<OsString>(flag.long())?.map(OsString::as_os_str).collect();
    Some(texts.join(OsStr::new(",")))
}

/// A stray word may be the rest of a password that was not quoted.
fn without_values(mut error: clap::Error) -> clap::Error {
    let is_stray = error.kind() == ErrorKind::UnknownArgument
        && matches!(error.get(ContextKind::InvalidArg), Some(ContextValue::String(word)) if !word.starts_with('-'));
    if is_stray {
        let _ = error.remove(ContextKind::Suggested);
        let _ = error.insert(ContextKind::InvalidArg, ContextValue::String("(a word that follows no flag)".to_owned()));
    }
    error
}

fn command() -> Command {
    Command::new("avatar-proxy")
        .version(env!("CARGO_PKG_VERSION"))
        .about(ABOUT)
        .long_about(LONG_ABOUT)
        .after_help(EXAMPLES)
        .subcommand_required(true)
        .arg_required_else_help(true)
        .max_term_width(120)
        .subcommand(
            subcommand(Verb::Serve)
                .about("Stand in front of a gateway and answer its avatar lookups")
                .override_usage("avatar-proxy serve --gateway-url <URL> [OPTIONS]")
                .after_help(format!("{FORMS}\n\n{SERVE_EXAMPLES}")),
        )
        .subcommand(
            subcommand(Verb::Demo)
                .about("Try it without a WhatsApp account: in front of a simulated gateway; nothing is kept")
                .after_help(format!("{FORMS}\n\n{DEMO_EXAMPLES}")),
        )
        .subcommand(
            subcommand(Verb::Health)
                .about("Ask a proxy that runs on this machine whether it lives: for container engines and scripts")
                .after_help(HEALTH_EXAMPLES),
        )
        .subcommand(
            subcommand(Verb::Migrate)
                .about("Move a store from a file to a Redis, which many replicas can share")
                .override_usage("avatar-proxy migrate --from sqlite:<PATH> --to redis://<HOST>")
                .after_help(MIGRATE_EXAMPLES),
        )
        .subcommand(
            subcommand(Verb::Check)
                .about("Try the settings of a proxy: gateway, store, webhooks, clocks, addresses; and say what to do")
                .override_usage("avatar-proxy check --gateway-url <URL> [OPTIONS]")
                .after_help(format!("{FORMS}\n\n{CHECK_EXAMPLES}")),
        )
}

fn subcommand(verb: Verb) -> Command {
    Command::new(verb.name()).max_term_width(120).args(flags().iter().map(|flag| argument(verb, flag)))
}

fn argument(verb: Verb, flag: &'static Flag) -> Arg {
    let preset = verb.preset(flag);
    let note = match preset {
        Preset::Required => " [required]".to_owned(),
        Preset::Is(default) if flag.form != SWITCH => format!(" [default: {default}]"),
        _ => String::new(),
    };
    let argument = Arg::new(flag.long())
        .long(flag.long())
        .value_name(flag.form)
        .value_parser(ValueParser::os_string())
        .help_heading(flag.heading.as_str())
        .help(format!("{}{note}", flag.help))
        // The other command's flags are known, so that a mistake can say whose they are.
        .hide(preset == Preset::Elsewhere);
    match flag.form {
        SWITCH => argument.num_args(0..=1).require_equals(true).default_missing_value("true"),
        _ if flag.is_list() => argument.action(ArgAction::Append),
        _ => argument,
    }
}
