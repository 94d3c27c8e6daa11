//! Every flag, once: its name, form, default and meaning.
//!
//! The command line, the help, the environment variables and the README's table all come from [`FLAGS`]. A flag that is not
//! there does not exist, and a default is written nowhere else. `demo` differs from `serve` only where the two columns do.

use Heading::{Budget, Changes, Checking, Freshness, Gateway, Listening, Logs, Store};
use Preset::{Elsewhere, Is, Required, Unset};

/// What all variables begin with.
pub(super) const PREFIX: &str = "AVATAR_PROXY_";

/// The form of a flag that may stand alone, meaning `true`.
pub(super) const SWITCH: &str = "true|false";

/// One option of the program.
#[derive(Clone, Copy, Debug)]
pub struct Flag {
    /// With its dashes: `--gateway-url`.
    pub name: &'static str,
    /// The shape of a value, as help shows it: `DURATION`.
    pub form: &'static str,
    /// What `serve` takes when nothing is given.
    pub default: Preset,
    /// What `demo` takes when nothing is given.
    pub demo_default: Preset,
    /// Under what help lists it.
    pub heading: Heading,
    /// What it means.
    pub help: &'static str,
}

/// What a flag is when nobody gives it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Preset {
    /// This.
    Is(&'static str),
    /// Nothing, which is a value too.
    Unset,
    /// It has to be given.
    Required,
    /// The command has no such flag.
    Elsewhere,
}

impl Preset {
    /// The default's text, where there is one.
    #[must_use]
    pub const fn value(self) -> Option<&'static str> {
        if let Is(value) = self { Some(value) } else { None }
    }
}

/// The parts of help.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Heading {
    /// Who may ask, and where.
    Listening,
    /// What is asked.
    Gateway,
    /// How much it is asked.
    Budget,
    /// How old an answer may get.
    Freshness,
    /// What is told.
    Changes,
    /// What is kept.
    Store,
    /// What operators see.
    Logs,
    /// What `check` may do besides.
    Checking,
}

impl Heading {
    /// As help prints it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Listening => "Listening",
            Gateway => "Gateway",
            Budget => "Budget",
            Freshness => "Freshness",
            Changes => "Changes",
            Store => "Store and memory",
            Logs => "Logs and metrics",
            Checking => "Checking",
        }
    }
}

impl Flag {
    /// The environment variable that stands for it: `AVATAR_PROXY_GATEWAY_URL`.
    ///
    /// The same with `_FILE` names a file that holds the value.
    #[must_use]
    pub fn variable(&self) -> String {
        format!("{PREFIX}{}", self.long().to_ascii_uppercase().replace('-', "_"))
    }

    /// The name without its dashes.
    pub(super) fn long(&self) -> &'static str {
        self.name.trim_start_matches('-')
    }

    /// Whether this value of it must never be shown.
    pub(super) fn is_secret(&self, value: &str) -> bool {
        // A password in a URL whose `@` was forgotten is one still. The key itself, where its path should be; an address of a webhook whose path is its password.
        matches!(
            self.name,
            "--auth"
                | "--gateway-auth"
                | "--tls-key"
                | "--webhook"
                | "--webhook-secret"
                | "--gateway-webhook-secret"
                | "--lookup"
        ) || matches!(self.name, "--store" | "--from" | "--to") && value.starts_with("redis")
    }

    /// Whether it may be given more than once, which is the same as once with commas in between.
    pub(super) fn is_list(&self) -> bool {
        matches!(self.name, "--cors-origin" | "--webhook" | "--webhook-secret")
    }
}

/// Every flag, in the order of help.
#[must_use]
pub fn flags() -> &'static [Flag] {
    FLAGS
}

const FLAGS: &[Flag] = &[
    Flag {
        name: "--listen",
        form: "ADDRESS:PORT",
        default: Is("127.0.0.1:8080"),
        demo_default: Is("127.0.0.1:8080"),
        heading: Listening,
        help: "Where to answer: an IP address or `localhost`, and a port; port 0 takes a free one. `0.0.0.0:8080` and \
               `[::]:8080` are every interface. Anything but loopback needs --auth or --allow-anonymous",
    },
    Flag {
        name: "--tls-cert",
        form: "PATH",
        default: Unset,
        demo_default: Elsewhere,
        heading: Listening,
        help: "A file with a certificate (PEM), and those between it and its authority behind it: --listen then speaks https, \
               and http no more. SIGHUP reads it and --tls-key again",
    },
    Flag {
        name: "--tls-key",
        form: "PATH",
        default: Unset,
        demo_default: Elsewhere,
        heading: Listening,
        help: "A file with the private key (PEM, without a passphrase) of the certificate in --tls-cert",
    },
    Flag {
        name: "--auth",
        form: "USER:PASS,...",
        default: Unset,
        demo_default: Unset,
        heading: Listening,
        help: "The user and password that clients must show (HTTP Basic); several are separated by commas. A password may \
               contain colons, but no comma. Unset, whoever reaches --listen may ask",
    },
    Flag {
        name: "--allow-anonymous",
        form: SWITCH,
        default: Is("false"),
        demo_default: Is("false"),
        heading: Listening,
        help: "Start without --auth even where that lets other machines, or whoever does not know the gateway's password, \
               use the account. Has no effect beside --auth",
    },
    Flag {
        name: "--default-device",
        form: "DEVICE",
        default: Unset,
        demo_default: Unset,
        heading: Listening,
        help: "The gateway's device (WhatsApp account) meant by a request that names none; at most 256 bytes. Unset leaves \
               the choice to the gateway",
    },
    Flag {
        name: "--cors-origin",
        form: "ORIGIN,...",
        default: Is("*"),
        demo_default: Is("*"),
        heading: Listening,
        help: "The origins whose pages may read answers: `*` for all, or for instance https://crm.example.com; several \
               are separated by commas, or the flag is repeated",
    },
    Flag {
        name: "--gateway-url",
        form: "URL",
        default: Required,
        demo_default: Elsewhere,
        heading: Gateway,
        help: "The gateway to ask: http or https, with the base path it is served under, if any",
    },
    Flag {
        name: "--gateway-auth",
        form: "USER:PASS",
        default: Unset,
        demo_default: Elsewhere,
        heading: Gateway,
        help: "The user and password this proxy shows the gateway. It then needs --auth or --allow-anonymous itself",
    },
    Flag {
        name: "--gateway-ca",
        form: "PATH",
        default: Unset,
        demo_default: Elsewhere,
        heading: Gateway,
        help: "A file with certificates (PEM) of authorities to trust besides the system's, for a gateway with https and a \
               certificate of your own",
    },
    Flag {
        name: "--gateway-timeout",
        form: "DURATION",
        default: Is("20s"),
        demo_default: Is("20s"),
        heading: Gateway,
        help: "The longest one lookup may take at the gateway, a retry included",
    },
    Flag {
        name: "--gateway-only",
        form: SWITCH,
        default: Elsewhere,
        demo_default: Is("false"),
        heading: Gateway,
        help: "Run only the simulated gateway, on --listen, and no proxy",
    },
    Flag {
        name: "--gateway-rate",
        form: "RATE",
        default: Is("1/s"),
        demo_default: Is("20/s"),
        heading: Budget,
        help: "How many lookups may start in a second, minute or hour, for each device; background looks and retries count",
    },
    Flag {
        name: "--gateway-burst",
        form: "COUNT",
        default: Is("20"),
        demo_default: Is("40"),
        heading: Budget,
        help: "How many lookups may start at once after a quiet time, for each device; at the start of the program none",
    },
    Flag {
        name: "--gateway-concurrency",
        form: "COUNT",
        default: Is("2"),
        demo_default: Is("8"),
        heading: Budget,
        help: "How many lookups may be under way at once, for each device",
    },
    Flag {
        name: "--rate-limit-cooldown",
        form: "DURATION",
        default: Is("60s"),
        demo_default: Is("5s"),
        heading: Budget,
        help: "How long a device is left alone after WhatsApp limited its rate; doubles up to 1h while that recurs",
    },
    Flag {
        name: "--max-wait",
        form: "DURATION",
        default: Is("10s"),
        demo_default: Is("10s"),
        heading: Budget,
        help: "How long a client's lookup may wait for the budget; one that would wait longer is answered 429 at once. 0s \
               never waits",
    },
    Flag {
        name: "--refresh-ahead",
        form: "SHARE",
        default: Is("0.2"),
        demo_default: Is("0.2"),
        heading: Freshness,
        help: "Look again when this share of a URL's lifetime is left: 0.2 is the last fifth, 0 the last 3 s",
    },
    Flag {
        name: "--recheck-interval",
        form: "DURATION",
        default: Is("6h"),
        demo_default: Is("30s"),
        heading: Freshness,
        help: "How old the last look at a warm person may get, if the budget allows. At 1/s and 6h it covers 21600 people",
    },
    Flag {
        name: "--gateway-webhook-secret",
        form: "SECRET",
        default: Unset,
        demo_default: Unset,
        heading: Freshness,
        help: "Take the gateway's own webhooks at /hooks/gateway, signed with this secret (its --webhook-secret): whoever writes is \
               looked at sooner",
    },
    Flag {
        name: "--discover",
        form: SWITCH,
        default: Is("false"),
        demo_default: Is("false"),
        heading: Freshness,
        help: "Watch whoever appears in the gateway's webhooks, up to --watch-limit. Needs --gateway-webhook-secret",
    },
    Flag {
        name: "--warm-for",
        form: "DURATION",
        default: Is("7d"),
        demo_default: Is("10m"),
        heading: Freshness,
        help: "How long after the last request a person is warm: looked at again though nobody asks; 0s is never",
    },
    Flag {
        name: "--forget-after",
        form: "DURATION",
        default: Is("180d"),
        demo_default: Is("180d"),
        heading: Freshness,
        help: "How long after the last request a person's answers and state are dropped. A longer --warm-for is cut to this",
    },
    Flag {
        name: "--fallback-ttl",
        form: "DURATION",
        default: Is("1h"),
        demo_default: Is("1m"),
        heading: Freshness,
        help: "The life of a URL that does not say when it expires, and of an answer without a URL",
    },
    Flag {
        name: "--not-set-ttl",
        form: "DURATION",
        default: Is("6h"),
        demo_default: Is("1m"),
        heading: Freshness,
        help: "The life of the answer that a person has no picture",
    },
    Flag {
        name: "--hidden-ttl",
        form: "DURATION",
        default: Is("1h"),
        demo_default: Is("1m"),
        heading: Freshness,
        help: "The life of the answer that a person hides the picture",
    },
    Flag {
        name: "--unregistered-ttl",
        form: "DURATION",
        default: Is("15m"),
        demo_default: Is("30s"),
        heading: Freshness,
        help: "The life of the answer that a number is not on WhatsApp",
    },
    Flag {
        name: "--confirm-after",
        form: "DURATION",
        default: Is("60s"),
        demo_default: Is("5s"),
        heading: Freshness,
        help: "A picture counts as gone when a second look, at least this much later, does not find it either",
    },
    Flag {
        name: "--retention",
        form: "DURATION",
        default: Is("30d"),
        demo_default: Is("30d"),
        heading: Changes,
        help: "How long changes stay in the log. A subscriber that was away for longer is told that it missed some",
    },
    Flag {
        name: "--watch-limit",
        form: "COUNT",
        default: Is("100000"),
        demo_default: Is("100000"),
        heading: Changes,
        help: "How many people and groups may be watched: looked at though nobody asks for them. Each costs one lookup per \
               interval",
    },
    Flag {
        name: "--event-format",
        form: "gowa|cloudevents",
        default: Is("gowa"),
        demo_default: Is("gowa"),
        heading: Changes,
        help: "How changes are told: in the envelope of the gateway's own webhooks, or as CloudEvents 1.0 (JSON)",
    },
    Flag {
        name: "--webhook",
        form: "URL,...",
        default: Unset,
        demo_default: Unset,
        heading: Changes,
        help: "An address that is told of every change, by POST, for as long as this is given; it may lead anywhere. Several are \
               separated by commas, or the flag is repeated. Others are added over /webhooks",
    },
    Flag {
        name: "--webhook-secret",
        form: "SECRET,...",
        default: Unset,
        demo_default: Unset,
        heading: Changes,
        help: "What deliveries to --webhook are signed with: one secret for all of them, or one for each in their order. 1 to 256 \
               printable characters without spaces and commas, or `whsec_` and base64. Unset, they are not signed",
    },
    Flag {
        name: "--webhook-allow-private",
        form: SWITCH,
        default: Is("false"),
        demo_default: Is("false"),
        heading: Changes,
        help: "Let addresses that are added over /webhooks lead to loopback, private and other addresses that are not public. \
               Whoever may ask this proxy can then have it send requests there",
    },
    Flag {
        name: "--webhook-limit",
        form: "COUNT",
        default: Is("100"),
        demo_default: Is("100"),
        heading: Changes,
        help: "How many addresses may be added over /webhooks",
    },
    Flag {
        name: "--store",
        form: "sqlite:PATH|redis://HOST",
        default: Is("sqlite:avatar-proxy.db"),
        demo_default: Elsewhere,
        heading: Store,
        help: "Where answers and changes are kept: a SQLite file, made if there is none, in a directory that exists; or, shared by \
               many replicas, a Redis (7.0 or newer, or Valkey): redis://, rediss:// (TLS), redis+sentinel://HOST,HOST/SERVICE \
               or redis+cluster://HOST,HOST",
    },
    Flag {
        name: "--from",
        form: "sqlite:PATH",
        default: Elsewhere,
        demo_default: Elsewhere,
        heading: Store,
        help: "For `migrate` alone: the file that is moved; it is only read, and no proxy may use it meanwhile",
    },
    Flag {
        name: "--to",
        form: "redis://HOST",
        default: Elsewhere,
        demo_default: Elsewhere,
        heading: Store,
        help: "For `migrate` alone: the Redis that it is moved to, written as for --store; it must hold no store",
    },
    Flag {
        name: "--memory-limit",
        form: "SIZE",
        default: Is("256MiB"),
        demo_default: Is("256MiB"),
        heading: Store,
        help: "How much the in-memory cache may hold; the rest is read from the store",
    },
    Flag {
        name: "--log-format",
        form: "text|json",
        default: Is("text"),
        demo_default: Is("text"),
        heading: Logs,
        help: "The log's form, on stderr. AVATAR_PROXY_LOG says what is logged",
    },
    Flag {
        name: "--metrics-listen",
        form: "ADDRESS:PORT",
        default: Unset,
        demo_default: Unset,
        heading: Logs,
        help: "A second address for /metrics, /health and /ready alone, open to whoever reaches it",
    },
    Flag {
        name: "--lookup",
        form: "PHONE",
        default: Elsewhere,
        demo_default: Elsewhere,
        heading: Checking,
        help: "For `check` alone: look this person up at the gateway, once and beside the budget. Unset, nobody is looked up",
    },
    Flag {
        name: "--test-webhooks",
        form: SWITCH,
        default: Elsewhere,
        demo_default: Elsewhere,
        heading: Checking,
        help: "For `check` alone: send each --webhook an `avatar.test`. Unset, they are connected to, and sent nothing",
    },
];

#[cfg(test)]
mod tests;
