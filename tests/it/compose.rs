//! The image and the compose file, as far as they can be tried without a container engine: the program understands what it is told
//! there, everything that is mounted exists, whoever is called by a name listens at that port, and nothing has more rights than it
//! needs.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::fs;

use avatar_proxy::config::{self, Command, Stop};
use serde_json::Value;

use crate::dashboards::{list, path, read, text};

/// One service as the compose file describes it.
pub(crate) struct Service {
    pub(crate) name: String,
    pub(crate) spec: Value,
}

pub(crate) const PROFILES: [&str; 2] = ["demo", "real"];

/// The services of a profile.
pub(crate) fn services(profile: &str) -> Vec<Service> {
    let file = read("docker-compose.yml");
    let all = file["services"].as_object().expect("services").clone().into_iter();
    let all = all.map(|(name, spec)| Service { name, spec });
    let found: Vec<Service> = all.filter(|one| list(&one.spec["profiles"]).iter().any(|own| own == profile)).collect();
    assert!(found.len() > 5, "{profile} has {} services", found.len());
    found
}

impl Service {
    pub(crate) fn is_proxy(&self) -> bool {
        text(&self.spec["image"]).starts_with("avatar-proxy:")
    }

    /// What stands behind the program's name.
    pub(crate) fn arguments(&self) -> Vec<String> {
        let command: Vec<String> = list(&self.spec["command"]).iter().map(|word| text(word).to_owned()).collect();
        // As the image has it.
        if command.is_empty() && self.is_proxy() { vec!["serve".to_owned()] } else { command }
    }

    /// Variables, those of its file among them.
    pub(crate) fn variables(&self) -> BTreeMap<String, String> {
        let mut variables = BTreeMap::new();
        if let Some(file) = self.spec["env_file"].as_str() {
            let lines = fs::read_to_string(path(file)).unwrap_or_else(|error| panic!("{file}: {error}"));
            let lines = lines.lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
            variables.extend(lines.map(|line| {
                let (name, value) = line.split_once('=').unwrap_or_else(|| panic!("{file}: {line}"));
                (name.to_owned(), value.to_owned())
            }));
        }
        let own = self.spec["environment"].as_object().into_iter().flatten();
        variables.extend(own.map(|(name, value)| (name.clone(), text(value).to_owned())));
        variables
    }

    /// The names by which others call it, and where.
    fn networks(&self) -> BTreeMap<String, BTreeSet<String>> {
        if let Some(names) = self.spec["networks"].as_object() {
            let with_aliases = names.iter().map(|(network, own)| {
                let aliases = list(&own["aliases"]).iter().map(|alias| text(alias).to_owned());
                (network.clone(), aliases.chain([self.name.clone()]).collect())
            });
            return with_aliases.collect();
        }
        let names = list(&self.spec["networks"]).iter();
        names.map(|network| (text(network).to_owned(), [self.name.clone()].into())).collect()
    }

    /// Every name by which others call it.
    pub(crate) fn names(&self) -> BTreeSet<String> {
        self.networks().into_values().flatten().collect()
    }

    /// The ports at which it listens.
    pub(crate) fn ports(&self) -> Vec<u16> {
        let port = |address: &str| address.rsplit(':').next().unwrap().parse().unwrap();
        match self.name.as_str() {
            "redis" => vec![6379],
            "prometheus" => vec![9090],
            "grafana" => vec![3000],
            "balancer" => {
                let config = fs::read_to_string(path("deploy/haproxy.cfg")).unwrap();
                config.lines().filter_map(|line| line.trim().strip_prefix("bind ")).map(port).collect()
            }
            _ => {
                let variables = self.variables();
                let listens = ["AVATAR_PROXY_LISTEN", "AVATAR_PROXY_METRICS_LISTEN"];
                listens.iter().filter_map(|name| variables.get(*name)).map(|address| port(address)).collect()
            }
        }
    }

    /// Its own files and folders that are put into it, and where.
    fn mounts(&self) -> Vec<(String, String)> {
        let volumes = list(&self.spec["volumes"]).iter().map(|volume| text(volume).split(':').collect::<Vec<_>>());
        let own = volumes.filter(|parts| parts[0].starts_with('.'));
        own.map(|parts| {
            assert_eq!(parts.get(2), Some(&"ro"), "{parts:?} can be written to");
            (parts[0].trim_start_matches("./").to_owned(), parts[1].to_owned())
        })
        .collect()
    }
}

/// Each `host:port` in the files by which these services call others, with who calls.
fn calls(services: &[Service]) -> Vec<(String, String)> {
    let mut calls = vec![];
    for service in services {
        for name in ["AVATAR_PROXY_GATEWAY_URL", "AVATAR_PROXY_STORE"] {
            let url = service.variables().remove(name).unwrap_or_default();
            let host = url.split("://").nth(1).and_then(|rest| rest.split('/').next()).unwrap_or_default().to_owned();
            // What is elsewhere is not ours to check.
            if !host.is_empty() && !host.contains(".example.com:") {
                calls.push((service.name.clone(), host));
            }
        }
    }
    let config = fs::read_to_string(path("deploy/haproxy.cfg")).unwrap();
    let servers = config.lines().filter_map(|line| line.trim().strip_prefix("server ")?.split(' ').nth(1));
    calls.extend(servers.map(|server| ("balancer".to_owned(), server.to_owned())));
    let scraped = read("dashboards/prometheus.yml")["scrape_configs"][0]["static_configs"][0]["targets"].clone();
    calls.extend(list(&scraped).iter().map(|target| ("prometheus".to_owned(), text(target).to_owned())));
    let source = read("dashboards/provisioning/datasources/prometheus.yml")["datasources"][0]["url"].clone();
    calls.push(("grafana".to_owned(), text(&source).trim_start_matches("http://").to_owned()));
    calls
}

#[test]
fn the_program_understands_what_it_is_told() {
    let folder = tempfile::tempdir().unwrap();
    let secret = folder.path().join("secret");
    fs::write(&secret, "crm:a-long-password\n").unwrap();
    let declared = read("docker-compose.yml")["secrets"].clone();
    for service in PROFILES.iter().flat_map(|profile| services(profile)).filter(Service::is_proxy) {
        let variables = service.variables().into_iter().map(|(name, value)| {
            let value = value.strip_prefix("/run/secrets/").map_or(value.clone(), |file| {
                assert!(
                    list(&service.spec["secrets"]).iter().any(|own| own == file),
                    "{} is not given {file}",
                    service.name
                );
                assert!(declared[file]["file"].is_string(), "there is no secret {file}");
                secret.display().to_string()
            });
            (OsString::from(name), OsString::from(value))
        });
        let arguments = ["avatar-proxy".to_owned()].into_iter().chain(service.arguments()).map(OsString::from);
        let command = match config::parse(arguments, variables.collect::<Vec<_>>()) {
            Ok(command) => command,
            Err(Stop::Mistakes(mistakes)) => panic!("{}: {mistakes}", service.name),
            Err(Stop::CommandLine(error)) => panic!("{}: {error}", service.name),
        };
        let port = command.listen().map(|address| address.port());
        assert_eq!(port.as_ref(), service.ports().first(), "{}", service.name);
        match command {
            Command::Serve(config) => assert!(matches!(config.store, config::StoreLocation::Redis(_))),
            Command::Gateway(_) => assert_eq!(service.name, "demo-gateway"),
            _ => panic!("{} runs something else", service.name),
        }
    }
}

#[test]
fn whoever_is_called_by_a_name_listens_there() {
    for profile in PROFILES {
        let services = services(profile);
        let calls = calls(&services);
        assert!(calls.len() >= 7, "the calls are not found: {calls:?}");
        for (from, address) in calls {
            let (host, port) = address.split_once(':').unwrap_or_else(|| panic!("{address} has no port"));
            let port: u16 = port.parse().unwrap();
            let caller = services.iter().find(|service| service.name == from).unwrap();
            let reached = services.iter().find(|service| {
                let there = service.networks();
                let shared = caller.networks().into_keys().filter_map(|network| there.get(&network));
                shared.into_iter().any(|names| names.contains(host)) && service.ports().contains(&port)
            });
            assert!(reached.is_some(), "{profile}: {from} calls {address}, and nobody listens there");
        }
        for service in &services {
            for published in list(&service.spec["ports"]) {
                let parts: Vec<_> = text(published).split(':').collect();
                assert!(parts.len() == 3 && parts[0] == "127.0.0.1", "{published} can be reached from other machines");
                assert!(
                    service.ports().contains(&parts[2].parse().unwrap()),
                    "{} does not listen at {published}",
                    service.name
                );
            }
        }
    }
}

#[test]
fn everything_that_is_mounted_exists_where_it_is_looked_for() {
    let services = services("demo");
    let mounts = |name: &str| services.iter().find(|service| service.name == name).unwrap().mounts();
    for (file, _) in services.iter().flat_map(Service::mounts) {
        assert!(path(&file).exists(), "{file} is mounted, and not there");
    }
    let config = read("dashboards/prometheus.yml");
    for rules in list(&config["rule_files"]) {
        let place = ("dashboards/".to_owned() + text(rules), "/etc/prometheus/".to_owned() + text(rules));
        assert!(mounts("prometheus").contains(&place), "Prometheus does not find {rules}");
    }
    let provider = read("dashboards/provisioning/dashboards/avatar-proxy.yml")["providers"][0].clone();
    let folder = text(&provider["options"]["path"]).to_owned();
    let dashboard = ("dashboards/avatar-proxy.json".to_owned(), folder + "/avatar-proxy.json");
    assert!(mounts("grafana").contains(&dashboard), "Grafana does not find the dashboard");
}

#[test]
fn no_service_has_more_rights_than_it_needs() {
    for service in PROFILES.iter().flat_map(|profile| services(profile)) {
        let (name, spec) = (&service.name, &service.spec);
        assert_eq!(spec["read_only"], true, "{name}");
        assert_eq!(spec["cap_drop"][0], "ALL", "{name}");
        assert_eq!(spec["security_opt"][0], "no-new-privileges:true", "{name}");
        assert!(spec["privileged"].is_null() && spec["cap_add"].is_null(), "{name}");
        assert!(spec["pids_limit"].is_u64(), "{name} may start any number of processes");
        for limit in ["cpus", "memory"] {
            assert!(spec["deploy"]["resources"]["limits"][limit].is_string(), "{name} has no limit of {limit}");
        }
        // The proxy's image brings its own.
        assert!(service.is_proxy() || !list(&spec["healthcheck"]["test"]).is_empty(), "{name} has no health check");
        let (_, tag) = text(&spec["image"]).split_once(':').unwrap_or_else(|| panic!("{name}'s image is not pinned"));
        assert!(tag.matches('.').count() >= 2, "{name}'s image is pinned to {tag} only");
        for (variable, value) in service.variables() {
            let may_be_secret = ["PASSWORD", "SECRET", "AUTH", "TOKEN"].iter().any(|word| variable.contains(word));
            let is_said_openly =
                variable.ends_with("_FILE") || variable.starts_with("GF_") && !variable.contains("PASSWORD");
            assert!(!may_be_secret || is_said_openly, "{name}: {variable} may be a secret");
            assert!(!value.contains('@'), "{name}: {variable} holds a password");
        }
    }
}

#[test]
fn the_image_is_built_by_this_toolchain_and_runs_as_nobody() {
    let dockerfile = fs::read_to_string(path("Dockerfile")).unwrap();
    let line = |start: &str| {
        let found = dockerfile.lines().map(str::trim).find(|line| line.starts_with(start));
        found.unwrap_or_else(|| panic!("the Dockerfile has no {start}"))
    };
    let toolchain = fs::read_to_string(path("rust-toolchain.toml")).unwrap();
    let version = toolchain.lines().find_map(|line| line.strip_prefix("channel = ")).unwrap().trim_matches('"');
    assert!(line("FROM rust:").contains(&format!("rust:{version}-")), "another toolchain than {version}");
    assert!(line("cargo build").contains("--release --locked"));
    assert_eq!((line("FROM scratch"), line("USER")), ("FROM scratch", "USER 65532:65532"));
    assert!(line("HEALTHCHECK").ends_with(r#"CMD ["/avatar-proxy", "health"]"#));
    // What is copied is let through, and is there.
    let ignore = fs::read_to_string(path(".dockerignore")).unwrap();
    for file in dockerfile.lines().filter_map(|line| line.strip_prefix("COPY ")).filter(|line| !line.starts_with("--"))
    {
        let mut words: Vec<&str> = file.split(' ').collect();
        words.pop();
        for word in words {
            assert!(path(word).exists() && ignore.lines().any(|line| line == format!("!{word}")), "{word}");
        }
    }
    let version = env!("CARGO_PKG_VERSION");
    for service in services("demo").iter().filter(|service| service.is_proxy()) {
        assert_eq!(service.spec["image"], format!("avatar-proxy:{version}"));
    }
}
