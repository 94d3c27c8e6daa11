//! The command line and the environment, as a person meets them.

use std::ffi::OsString;
use std::io::Write as _;
use std::os::unix::ffi::OsStringExt as _;
use std::path::PathBuf;
use std::process;
use std::time::Duration;

use avatar_proxy::config::{self, Command, Config, Preset, Stop, StoreLocation, flags};
use avatar_proxy::telemetry::Format;
use proptest::prelude::*;

use crate::support::authority::Authority;

const URL: &str = "--gateway-url=http://localhost:3000/wa";
const HOUR: Duration = Duration::from_secs(3600);
const SECOND: Duration = Duration::from_secs(1);

/// A command line and an environment; each test adds what it is about.
#[derive(Clone, Default)]
struct Given {
    arguments: Vec<OsString>,
    variables: Vec<(OsString, OsString)>,
}

fn given<'a>(arguments: impl IntoIterator<Item = &'a str>) -> Given {
    let arguments = ["avatar-proxy"].into_iter().chain(arguments).map(OsString::from).collect();
    Given { arguments, variables: Vec::new() }
}

impl Given {
    fn with(mut self, variable: &str, value: impl Into<OsString>) -> Self {
        self.variables.push((variable.into(), value.into()));
        self
    }

    fn parse(self) -> Result<Command, Stop> {
        config::parse(self.arguments, self.variables)
    }

    fn config(self) -> Config {
        match self.parse() {
            Ok(Command::Serve(config)) => *config,
            Ok(Command::Demo(demo)) => demo.against("http://127.0.0.1:1".parse().unwrap()),
            Ok(Command::Gateway(_) | Command::Health(_) | Command::Check(_) | Command::Migrate(_)) => {
                panic!("a proxy was expected")
            }
            Err(Stop::Mistakes(mistakes)) => panic!("{mistakes}"),
            Err(Stop::CommandLine(error)) => panic!("{error}"),
        }
    }

    /// One line for each mistake.
    fn mistakes(self) -> Vec<String> {
        match self.parse() {
            Ok(_) => Vec::new(),
            Err(Stop::Mistakes(mistakes)) => mistakes.iter().map(ToString::to_string).collect(),
            Err(Stop::CommandLine(error)) => panic!("{error}"),
        }
    }

    /// The only mistake.
    #[track_caller]
    fn mistake(self) -> String {
        let mut mistakes = self.mistakes();
        assert_eq!(mistakes.len(), 1, "{mistakes:?}");
        mistakes.remove(0)
    }

    fn refusal(self) -> String {
        match self.parse() {
            Err(Stop::CommandLine(error)) => error.to_string(),
            Err(Stop::Mistakes(mistakes)) => panic!("{mistakes}"),
            Ok(_) => panic!("a refusal was expected"),
        }
    }
}

fn file_with(content: &[u8]) -> tempfile::TempPath {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(content).unwrap();
    file.into_temp_path()
}

#[test]
fn serve_needs_only_the_gateway() {
    let config = given(["serve", URL]).config();
    assert_eq!(config.listen, "127.0.0.1:8080".parse().unwrap());
    assert_eq!(config.metrics_listen, None);
    assert_eq!(config.gateway.url, "http://localhost:3000/wa");
    assert_eq!(config.gateway.timeout, 20 * SECOND);
    assert!(config.gateway.auth.is_none() && config.http.auth.is_empty() && !config.http.allow_anonymous);
    assert_eq!((config.http.default_device.as_str(), &*config.http.cors_origins), ("", &["*".to_owned()][..]));
    assert_eq!((config.budget.rate, config.budget.burst, config.budget.concurrency), (1.0, 20, 2));
    assert_eq!((config.budget.cool_down, config.budget.max_wait), (60 * SECOND, 10 * SECOND));
    assert_eq!((config.avatars.warm_for, config.refresh.warm_for), (7 * 24 * HOUR, 7 * 24 * HOUR));
    assert_eq!((config.refresh.forget_after, config.avatars.memory_limit), (180 * 24 * HOUR, 256 << 20));
    assert_eq!(config.store, StoreLocation::Sqlite("avatar-proxy.db".into()));
    assert_eq!((config.log.format, config.log.filter.as_str()), (Format::Text, "info"));
    let documented = avatar_proxy::outcome::Rules::default();
    assert_eq!(format!("{:?}", config.avatars.rules), format!("{documented:?}"));
}

#[test]
fn demo_needs_nothing_and_suits_urls_that_live_for_minutes() {
    let config = given(["demo"]).config();
    assert_eq!(config.gateway.url, "http://127.0.0.1:1");
    assert_eq!(config.store, StoreLocation::Temporary);
    assert_eq!((config.budget.rate, config.budget.burst, config.budget.concurrency), (20.0, 40, 8));
    assert_eq!(config.avatars.rules.recheck_interval, 30 * SECOND);
    let config = given(["demo", "--gateway-rate", "30/m", "--confirm-after", "1s"]).config();
    assert_eq!((config.budget.rate, config.avatars.rules.confirm_after), (0.5, SECOND));
}

#[test]
fn the_simulated_gateway_runs_alone() {
    let command = given(["demo", "--gateway-only", "--listen", "0.0.0.0:3000"]).parse();
    assert!(matches!(command, Ok(Command::Gateway(gateway)) if gateway.listen == "0.0.0.0:3000".parse().unwrap()));
    let said = given(["demo", "--gateway-only", "--max-wait=1s"]).mistake();
    assert_eq!(said, "--max-wait: has no effect with --gateway-only, which goes with --listen and --log-format alone");
}

#[test]
fn every_flag_is_read_by_the_commands_that_have_it() {
    for flag in flags() {
        for (command, preset) in [("serve", flag.default), ("demo", flag.demo_default)] {
            // No flag takes a line break, except a device's name.
            let value = if flag.name == "--default-device" { "\n".repeat(257) } else { "\n".to_owned() };
            let said = given([command, &format!("{}={value}", flag.name)]).mistakes();
            let said = said.iter().find(|said| said.starts_with(flag.name)).expect(flag.name);
            assert_eq!(said.contains("alone"), preset == Preset::Elsewhere, "{said}");
        }
    }
}

#[test]
fn all_mistakes_are_told_at_once_in_the_order_of_the_flags() {
    let said = given(["serve", "--listen=0.0.0.0:80", "--hidden-ttl=60", "--store=redis://h:x", "--cors-origin=x"])
        .with("AVATAR_PROXY_GATEWAY_AUTH", "ada:hunter2")
        .with("AVATAR_PROXY_GATEWAY_RATE", "0/s")
        .with("AVATAR_PROXY_HIDEN_TTL", "1m")
        .mistakes();
    let subjects: Vec<_> = said.iter().map(|said| said.split(": ").next().unwrap()).collect();
    assert_eq!(
        subjects,
        [
            "--listen",
            "--cors-origin",
            "--gateway-url",
            "--gateway-auth (AVATAR_PROXY_GATEWAY_AUTH)",
            "--gateway-rate (AVATAR_PROXY_GATEWAY_RATE)",
            "--hidden-ttl",
            "--store",
            "AVATAR_PROXY_HIDEN_TTL",
        ]
    );
}

#[test]
fn mistakes_name_their_flag_and_what_would_be_right() {
    for (argument, said) in [
        ("--gateway-timeout=20", "cannot use \"20\": a number needs its unit, as in 90s, 15m, 6h or 7d"),
        ("--gateway-timeout=0s", "cannot use \"0s\": must be more than nothing, as in 90s, 15m, 6h or 7d"),
        ("--forget-after=200000d", "cannot use \"200000d\": the longest is 100 years (36525d)"),
        ("--memory-limit=1", "cannot use \"1\": a number needs its unit, bytes included: write a number and its unit"),
        ("--gateway-rate=1", "cannot use \"1\": write a number per second, minute or hour, as in 1/s"),
        ("--refresh-ahead=1", "cannot use \"1\": write a share of at least 0 and less than 1, as in 0.2"),
        ("--gateway-burst=0", "cannot use \"0\": write a whole number between 1 and 1000000"),
        ("--gateway-concurrency=two", "cannot use \"two\": write a whole number between 1 and 1000000"),
        ("--log-format=xml", "cannot use \"xml\": write text or json"),
        ("--allow-anonymous=yes", "cannot use \"yes\": write true or false"),
        ("--store=redis://ada:hunter2", "cannot use the value (not shown here): its ports must be numbers"),
        ("--store=redis+sentinel://h", "cannot use the value (not shown here): names no service behind the Sentinels"),
        ("--store=sqlite:", "cannot use \"sqlite:\": names no file; write sqlite:PATH"),
        ("--gateway-only", "is for `demo` alone"),
    ] {
        let name = argument.split('=').next().unwrap();
        let line = given(["serve", URL, argument]).mistake();
        assert!(line.starts_with(&format!("{name}: {said}")), "{line}");
    }
    assert_eq!(given(["serve"]).mistake(), "--gateway-url: is required");
    let said = given(["demo", "--store=sqlite:a.db"]).mistake();
    assert!(said.starts_with("--store: is for `serve` alone"), "{said}");
    let said = given(["serve", URL, &format!("--default-device={}", "d".repeat(257))]).mistake();
    assert!(said.ends_with("at most 256 bytes, this one 257") && said.len() < 200, "{said}");
}

#[test]
fn a_certificate_and_its_key_are_read_before_anything_starts() {
    let (ours, other) = (Authority::new("ours"), Authority::new("other").signs(&["localhost"]));
    let signed = ours.signs(&["localhost"]);
    let (chain, key) = (signed.certificate_pem + &ours.pem(), signed.key_pem);
    let encrypted = key.replace("PRIVATE KEY", "ENCRYPTED PRIVATE KEY");
    let old = "-----BEGIN RSA PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\n\nAAAA\n-----END RSA PRIVATE KEY-----\n";
    for (chain, key, said) in [
        (&*chain, &*key, &[][..]),
        ("", &key, &["--tls-cert: it holds no certificate (PEM)"]),
        (&key, &key, &["--tls-cert: it holds no certificate (PEM)"]),
        (&chain[..200], &key, &["--tls-cert: it is not whole (PEM)"]),
        (&chain, "", &["--tls-key: it holds no private key (PEM)"]),
        (&chain, &key[..100], &["--tls-key: it is not whole (PEM)"]),
        (&chain, &encrypted, &["--tls-key: its key is encrypted"]),
        (&chain, old, &["--tls-key: its key is encrypted"]),
        (&chain, &other.key_pem, &["--tls-key: it is not the key of the certificate in --tls-cert"]),
        ("", "", &["--tls-cert: it holds no certificate (PEM)", "--tls-key: it holds no private key (PEM)"]),
    ] {
        let [chain, key] = [chain, key].map(|text| file_with(text.as_bytes()));
        let flags = [format!("--tls-cert={}", chain.display()), format!("--tls-key={}", key.display())];
        let mistakes = given(["serve", URL, &flags[0], &flags[1], "--gateway-rate=1"]).mistakes();
        assert_eq!(mistakes.len(), said.len() + 1, "told with all others: {mistakes:?}");
        for said in said {
            let (flag, why) = said.split_once(": ").unwrap();
            assert!(mistakes.iter().any(|line| line.starts_with(flag) && line.contains(why)), "{said}: {mistakes:?}");
        }
        assert!(!mistakes.concat().contains("BEGIN"), "{mistakes:?}");
    }
    let nowhere = given(["serve", URL, "--tls-cert=nowhere/cert.pem", "--tls-key=nowhere/key.pem"]).mistakes();
    assert!(
        nowhere[0].contains("nowhere/cert.pem: No such file") && nowhere[1].contains("nowhere/key.pem: No such file")
    );
    assert_eq!(given(["serve", URL, "--tls-cert=a.pem"]).mistake(), "--tls-key: is required beside --tls-cert");
    assert_eq!(given(["serve", URL, "--tls-key=a.pem"]).mistake(), "--tls-cert: is required beside --tls-key");
    // As whoever takes `_FILE` for the file's own name will do.
    let path = file_with(key.as_bytes());
    let said = given(["serve", URL]).with("AVATAR_PROXY_TLS_KEY_FILE", &*path).mistake();
    assert!(said.contains("write the path of a file, not what it holds") && !said.contains("BEGIN"), "{said}");
}

#[test]
fn an_authority_for_a_gateway_without_certificates_is_a_mistake() {
    let said = given(["serve", URL, "--gateway-ca=ca.pem"]).mistake();
    assert!(said.starts_with("--gateway-ca: has no effect beside an http: gateway"), "{said}");
    assert!(given(["serve", "--gateway-url=https://h", "--gateway-ca=ca.pem"]).mistakes().is_empty());
}

#[test]
fn a_flag_beats_its_variable_which_is_as_good_as_the_flag() {
    let variable = given(["serve"])
        .with("AVATAR_PROXY_GATEWAY_URL", "http://variable")
        .with("AVATAR_PROXY_ALLOW_ANONYMOUS", "true")
        .with("AVATAR_PROXY_LISTEN", "0.0.0.0:1")
        .with("PATH", "/bin");
    assert_eq!(variable.clone().config().gateway.url, "http://variable/");
    let mut both = variable;
    both.arguments.extend(["--gateway-url".into(), "http://flag".into(), "--allow-anonymous=false".into()]);
    assert!(both.clone().mistake().starts_with("--listen (AVATAR_PROXY_LISTEN): 0.0.0.0:1 can be reached"));
    both.arguments.extend(["--listen".into(), "[::1]:0".into()]);
    assert_eq!(both.config().gateway.url, "http://flag/");
}

#[test]
fn a_file_holds_a_value() {
    let file = file_with(b"ada:secret \n");
    let config = given(["serve", URL]).with("AVATAR_PROXY_AUTH_FILE", &*file).config();
    assert_eq!(config.http.auth[0].password, "secret ");

    let serve = || given(["serve", URL]);
    let both = serve().with("AVATAR_PROXY_AUTH", "ada:1").with("AVATAR_PROXY_AUTH_FILE", &*file);
    assert_eq!(both.mistake(), "--auth: both AVATAR_PROXY_AUTH and AVATAR_PROXY_AUTH_FILE are set; keep one of them");
    let said = serve().with("AVATAR_PROXY_AUTH_FILE", "/no/such/file").mistake();
    assert!(
        said.starts_with("--auth (AVATAR_PROXY_AUTH_FILE, file \"/no/such/file\"): the file cannot be read"),
        "{said}"
    );
    let said = serve().with("AVATAR_PROXY_AUTH_FILE", &*file_with(b"ada:1\nbob:2\n")).mistake();
    assert!(said.contains("line break"), "{said}");
    let said = serve().with("AVATAR_PROXY_AUTH_FILE", &*file_with(b"ada:\xFF")).mistake();
    assert!(said.ends_with("the file is not UTF-8"), "{said}");
    let said = serve().with("AVATAR_PROXY_AUTH_FILE", &*file_with(&vec![b'a'; 65 * 1024])).mistake();
    assert!(said.ends_with("the file is larger than 64 KiB"), "{said}");
    let said = serve().with("AVATAR_PROXY_AUTH_FILE", "").mistake();
    assert!(said.ends_with("names no file"), "{said}");
}

#[test]
fn a_misspelt_variable_is_a_mistake() {
    let said = |name: &str| given(["serve", URL]).with(name, "1").mistake();
    assert_eq!(said("AVATAR_PROXY_ATUH"), "AVATAR_PROXY_ATUH: no such setting; is it AVATAR_PROXY_AUTH?");
    assert!(said("AVATAR_PROXY_GATEWAYURL_FILE").ends_with("is it AVATAR_PROXY_GATEWAY_URL_FILE?"));
}

#[test]
fn variables_that_are_for_somebody_else_are_let_be() {
    for name in ["AVATAR_PROXY_BINARY", "AVATAR_PROXY_", "AVATAR_PROXY_HOME", "AVATAR_PROXY_GATEWAY_ONLY"] {
        assert_eq!(given(["serve", URL]).with(name, "1").mistakes(), [""; 0], "{name}");
    }
    let demo = given(["demo"]).with("AVATAR_PROXY_GATEWAY_URL", "http://h").with("AVATAR_PROXY_STORE", "sqlite:a.db");
    assert_eq!(demo.mistakes(), [""; 0], "they may be meant for `serve` in the same environment");
}

#[test]
fn what_is_forgotten_is_not_warm() {
    let config = given(["serve", URL, "--forget-after=1h"]).config();
    assert_eq!(config.refresh.warm_for, HOUR);
}

#[test]
fn what_kubernetes_sets_for_a_service_of_our_name_is_let_be() {
    let mut pod = given(["serve", URL]);
    for (name, value) in [
        ("AVATAR_PROXY_SERVICE_HOST", "10.0.0.1"),
        ("AVATAR_PROXY_SERVICE_PORT", "8080"),
        ("AVATAR_PROXY_SERVICE_PORT_HTTP", "8080"),
        ("AVATAR_PROXY_PORT", "tcp://10.0.0.1:8080"),
        ("AVATAR_PROXY_PORT_8080_TCP", "tcp://10.0.0.1:8080"),
        ("AVATAR_PROXY_PORT_8080_TCP_ADDR", "10.0.0.1"),
        ("AVATAR_PROXY_METRICS_PORT_9090_TCP_PROTO", "tcp"),
    ] {
        pod = pod.with(name, value);
    }
    assert_eq!(pod.mistakes(), [""; 0]);
}

#[test]
fn what_is_not_utf8_is_a_mistake_of_its_variable() {
    let bytes = || OsString::from_vec(vec![b'h', 0xFF]);
    let said = given(["serve", URL]).with("AVATAR_PROXY_AUTH", bytes()).mistake();
    assert_eq!(said, "--auth (AVATAR_PROXY_AUTH): the value is not UTF-8");
    let said = given(["serve", URL]).with("AVATAR_PROXY_LOG", bytes()).mistake();
    assert_eq!(said, "AVATAR_PROXY_LOG: is not UTF-8");
    let mut arguments = given(["serve", "--gateway-url"]);
    arguments.arguments.push(bytes());
    assert_eq!(arguments.mistake(), "--gateway-url: the value is not UTF-8");
}

#[test]
fn nobody_can_use_the_account_by_accident() {
    for address in ["0.0.0.0:8080", "[::]:8080", "192.168.1.2:8080"] {
        let said = given(["serve", URL, "--listen", address]).mistake();
        assert!(said.starts_with("--listen: ") && said.contains("could read avatars through your account"), "{said}");
        assert!(said.contains("--auth") && said.contains("--allow-anonymous"), "{said}");
        given(["serve", URL, "--listen", address, "--auth=ada:1"]).config();
        assert!(given(["serve", URL, "--listen", address, "--allow-anonymous"]).config().http.allow_anonymous);
        assert!(given(["demo", "--listen", address]).mistake().starts_with("--listen: "));
    }
    for address in ["127.0.0.2:8080", "[::1]:8080", "[::ffff:127.0.0.1]:8080", "localhost:0"] {
        given(["serve", URL, "--listen", address]).config();
    }
    let said = given(["serve", URL, "--gateway-auth=ada:1"]).mistake();
    assert!(said.starts_with("--gateway-auth: ") && said.contains("could read avatars"), "{said}");
    given(["serve", URL, "--gateway-auth=ada:1", "--auth=bob:2"]).config();
    given(["serve", URL, "--gateway-auth=ada:1", "--allow-anonymous"]).config();
    // A password that was meant, though mistaken, is not called missing.
    assert_eq!(given(["serve", URL, "--listen=0.0.0.0:1", "--auth=ada"]).mistakes().len(), 1);
    // Mending the gateway's would not be the end of it.
    assert_eq!(given(["serve", URL, "--listen=0.0.0.0:1", "--gateway-auth=ada"]).mistakes().len(), 3);
}

#[test]
fn listeners_and_gateway_have_addresses_of_their_own() {
    for (listen, metrics) in
        [("127.0.0.1:8080", "127.0.0.1:8080"), ("127.0.0.1:8080", "0.0.0.0:8080"), ("127.0.0.1:8080", "[::]:8080")]
    {
        let said = given(["serve", URL, "--listen", listen, "--metrics-listen", metrics]).mistake();
        assert!(said.starts_with("--metrics-listen: ") && said.contains("is taken by --listen"), "{said}");
    }
    for (listen, metrics) in
        [("127.0.0.1:0", "127.0.0.1:0"), ("127.0.0.1:8080", "[::1]:8080"), ("127.0.0.1:8080", "0.0.0.0:9090")]
    {
        let config = given(["serve", URL, "--listen", listen, "--metrics-listen", metrics]).config();
        assert_eq!(config.metrics_listen, Some(metrics.parse().unwrap()));
    }
    let said = given(["serve", "--gateway-url=http://localhost:8080"]).mistake();
    assert!(said.starts_with("--gateway-url: is this proxy's own address"), "{said}");
}

#[test]
fn no_secret_is_shown() {
    let shown = given(["serve", "--auth=ada:hunter2,hunter2", "--gateway-url=http://ada:hunter2@h"])
        .with("AVATAR_PROXY_GATEWAY_AUTH", "hunter2")
        .with("AVATAR_PROXY_STORE", "redis://hunter2@h")
        .with("AVATAR_PROXY_WEBHOOK", "http://h/hunter2,ftp://h/hunter2")
        .with("AVATAR_PROXY_WEBHOOK_SECRET", "hunter2,hunter2 hunter2")
        .with("AVATAR_PROXY_GATEWAY_WEBHOOK_SECRET", "hunter2\n")
        .mistakes();
    assert_eq!(shown.len(), 7);
    let shown = shown.join("\n");
    assert!(!shown.contains("hunter2"), "{shown}");
    for arguments in [["serve", "--auth=ada:", "hunter2"], ["serve", "--outh=ada:hunter2", URL]] {
        let shown = given(arguments).refusal();
        assert!(!shown.contains("hunter2"), "{shown}");
    }
}

#[test]
fn origins_may_be_listed_or_repeated() {
    let listed = given(["serve", URL, "--cors-origin=https://a,https://b"]).config();
    let repeated = given(["serve", URL, "--cors-origin=https://a", "--cors-origin=https://b"]).config();
    assert_eq!(listed.http.cors_origins, ["https://a", "https://b"]);
    assert_eq!(repeated.http.cors_origins, listed.http.cors_origins);
}

#[test]
fn webhooks_may_be_listed_or_repeated_with_one_secret_or_one_for_each() {
    let webhooks = |more: &[&str]| {
        let urls = ["serve", URL, "--webhook=https://a/x", "--webhook=http://127.0.0.1:9/y"];
        let config = given(urls.iter().chain(more).copied()).config().webhooks;
        assert_eq!((config.allow_private, config.limit), (false, 100));
        config.given.into_iter().map(|given| (given.url, given.secret)).collect::<Vec<_>>()
    };
    let pairs = |secrets: [Option<&str>; 2]| {
        let urls = ["https://a/x", "http://127.0.0.1:9/y"];
        urls.into_iter().zip(secrets).map(|(url, secret)| (url.into(), secret.map(Into::into))).collect::<Vec<_>>()
    };
    assert_eq!(webhooks(&[]), pairs([None, None]));
    assert_eq!(webhooks(&["--webhook-secret=s"]), pairs([Some("s"), Some("s")]));
    assert_eq!(webhooks(&["--webhook-secret=s,t"]), pairs([Some("s"), Some("t")]));
    let said = given(["serve", URL, "--webhook-secret=s"]).mistake();
    assert_eq!(said, "--webhook-secret: has no effect without --webhook");
    let said = given(["serve", URL, "--discover"]).mistake();
    assert_eq!(said, "--discover: has no effect without --gateway-webhook-secret");
}

#[test]
fn the_log_is_filtered_by_a_variable() {
    let log = |filter: &str| given(["serve", URL, "--log-format=json"]).with("AVATAR_PROXY_LOG", filter);
    let config = log("warn,avatar_proxy=debug").config();
    assert_eq!((config.log.format, config.log.filter.as_str()), (Format::Json, "warn,avatar_proxy=debug"));
    let said = log("avatar_proxy=loud").mistake();
    assert!(said.starts_with("AVATAR_PROXY_LOG: ") && said.contains("debug"), "{said}");
    assert!(log("").mistake().starts_with("AVATAR_PROXY_LOG: is empty"));
}

#[test]
fn help_tells_every_flag_of_its_command_and_no_other() {
    for (command, preset) in
        [("serve", (|flag| flag.default) as fn(&config::Flag) -> Preset), ("demo", |flag| flag.demo_default)]
    {
        let help = given([command, "--help"]).refusal();
        for flag in flags() {
            let has = preset(flag) != Preset::Elsewhere;
            assert_eq!(help.contains(&format!("      {}", flag.name)), has, "{command} {}", flag.name);
            assert!(preset(flag).value().is_none_or(|value| help.contains(value)), "{command} {}", flag.name);
            assert!(!has || help.contains(&format!("{}:\n", flag.heading.as_str())), "{command} {}", flag.name);
        }
    }
}

#[test]
fn the_program_ends_with_what_scripts_expect() {
    let run = |arguments: &[&str]| {
        let mut program = process::Command::new(PathBuf::from(env!("CARGO_BIN_EXE_avatar-proxy")));
        let output = program.env_clear().args(arguments).output().unwrap();
        (output.status.code(), String::from_utf8(output.stdout).unwrap(), String::from_utf8(output.stderr).unwrap())
    };
    let (code, stdout, stderr) = run(&["serve", "--listen=8080"]);
    assert_eq!((code, stdout.as_str()), (Some(2), ""));
    assert!(stderr.starts_with("avatar-proxy: 2 mistakes in the configuration; nothing was started\n\n  --listen: "));
    assert!(stderr.ends_with("\nSee `avatar-proxy serve --help`.\n"), "{stderr}");
    let (code, stdout, _) = run(&["--version"]);
    assert_eq!((code, stdout.trim_end()), (Some(0), concat!("avatar-proxy ", env!("CARGO_PKG_VERSION"))));
    for (arguments, code) in [(&["--help"][..], 0), (&["demo", "--help"], 0), (&[], 2), (&["serve", "--no-such"], 2)] {
        assert_eq!(run(arguments).0, Some(code), "{arguments:?}");
    }
}

proptest! {
    #[test]
    fn no_value_panics(place in 0..flags().len(), demo: bool, value in any::<Vec<u8>>(), text in "[0-9a-z:/.@*,]{0,20}") {
        let flag = &flags()[place];
        let command = if demo { "demo" } else { "serve" };
        for value in [OsString::from_vec(value), text.into()] {
            let _ = given([command]).with(&flag.variable(), value.clone()).parse();
            let mut argument = OsString::from(format!("{}=", flag.name));
            argument.push(value);
            let mut line = given([command, URL]);
            line.arguments.push(argument);
            let _ = line.parse();
        }
    }

    #[test]
    fn no_variable_panics(name in any::<Vec<u8>>(), value in any::<Vec<u8>>()) {
        let mut environment = given(["serve", URL]);
        let name = [b"AVATAR_PROXY_", &*name].concat();
        environment.variables.push((OsString::from_vec(name), OsString::from_vec(value)));
        let _ = environment.parse();
    }
}
