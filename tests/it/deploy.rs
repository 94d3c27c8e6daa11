//! The systemd unit and the Kubernetes example, as far as they can be tried without either: the program understands what it is told
//! there, names lead to what they mean, and no secret stands in them.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs;

use avatar_proxy::config::{self, Command, Config, Stop, StoreLocation};
use serde_json::Value;

use crate::dashboards::{list, path, text};

/// What the program makes of these, after `avatar-proxy`.
fn understood(arguments: &[String], variables: impl IntoIterator<Item = (String, String)>) -> Config {
    let arguments = ["avatar-proxy".to_owned()].iter().chain(arguments).map(OsString::from).collect::<Vec<_>>();
    let variables = variables.into_iter().map(|(name, value)| (OsString::from(name), OsString::from(value)));
    match config::parse(arguments, variables.collect::<Vec<_>>()) {
        Ok(Command::Serve(config)) => *config,
        Ok(_) => panic!("it does not serve"),
        Err(Stop::Mistakes(mistakes)) => panic!("{mistakes}"),
        Err(Stop::CommandLine(error)) => panic!("{error}"),
    }
}

#[test]
fn the_unit_starts_a_proxy_that_keeps_its_store_where_it_may_write() {
    let unit = fs::read_to_string(path("deploy/avatar-proxy.service")).unwrap();
    let setting = |name: &str| {
        let found = unit.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix('='));
        found.unwrap_or_else(|| panic!("the unit has no {name}"))
    };
    let words: Vec<String> = setting("ExecStart").split(' ').map(str::to_owned).collect();
    assert_eq!(words[0], "/usr/local/bin/avatar-proxy");
    let variables = fs::read_to_string(path("deploy/avatar-proxy.env")).unwrap();
    let variables = variables.lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
    let variables = variables.map(|line| line.split_once('=').unwrap());
    let config = understood(&words[1..], variables.map(|(name, value)| (name.to_owned(), value.to_owned())));
    // Beside the working directory nothing can be written to.
    assert!(matches!(config.store, StoreLocation::Sqlite(path) if path.is_relative()));
    assert_eq!(setting("WorkingDirectory"), format!("%S/{}", setting("StateDirectory")));
    assert_eq!(setting("RestartPreventExitStatus"), "2", "what mistakes end with");
    let again = [setting("Restart"), setting("StartLimitIntervalSec")];
    assert_eq!(again, ["always", "0"], "a store that comes later than the fifth try is still found");
}

/// Every object of the example, by its kind and name.
fn objects() -> BTreeMap<(String, String), Value> {
    let mut objects = BTreeMap::new();
    for file in ["avatar-proxy", "redis"] {
        let text_of = fs::read_to_string(path(&format!("deploy/kubernetes/{file}.yaml"))).unwrap();
        for object in serde_saphyr::from_multiple::<Value>(&text_of).expect("it is YAML") {
            let name = [&object["kind"], &object["metadata"]["name"]].map(|word| text(word).to_owned());
            assert!(objects.insert(name.into(), object).is_none(), "something comes twice in {file}");
        }
    }
    assert_eq!(objects.len(), 7);
    objects
}

/// What runs pods, with their one container.
fn workloads() -> Vec<(Value, Value)> {
    let found = objects().into_iter().filter(|((kind, _), _)| ["Deployment", "StatefulSet"].contains(&kind.as_str()));
    let found = found.map(|(_, object)| {
        let containers = list(&object["spec"]["template"]["spec"]["containers"]).to_vec();
        assert_eq!(containers.len(), 1);
        (object, containers[0].clone())
    });
    found.collect()
}

#[test]
fn the_pods_settings_are_understood_and_lead_to_the_store() {
    let objects = objects();
    let get = |kind: &str, name: &str| &objects[&(kind.to_owned(), name.to_owned())];
    let container = &list(&get("Deployment", "avatar-proxy")["spec"]["template"]["spec"]["containers"])[0];
    let folder = tempfile::tempdir().unwrap();
    let mounted = text(&container["volumeMounts"][0]["mountPath"]);
    let shared = get("ConfigMap", text(&container["envFrom"][0]["configMapRef"]["name"]))["data"].as_object().unwrap();
    let shared = shared.iter().map(|(name, value)| (name.clone(), text(value).to_owned()));
    let own = list(&container["env"]).iter().map(|one| (text(&one["name"]).to_owned(), text(&one["value"]).to_owned()));
    let variables = shared.chain(own).map(|(name, value)| {
        let Some(file) = value.strip_prefix(mounted) else { return (name, value) };
        let secret = folder.path().join(file.trim_start_matches('/'));
        fs::write(&secret, "crm:a-long-password\n").unwrap();
        (name, secret.display().to_string())
    });
    let arguments: Vec<String> = list(&container["args"]).iter().map(|word| text(word).to_owned()).collect();
    let config = understood(&arguments, variables);
    assert!(config.http.auth.len() == 1 && config.gateway.auth.is_some(), "others are asked for a password");
    let ports = list(&container["ports"]).iter().map(|port| port["containerPort"].as_u64().unwrap());
    let listens = [Some(config.listen), config.metrics_listen].map(|address| u64::from(address.unwrap().port()));
    assert_eq!(ports.collect::<Vec<_>>(), listens);

    let redis = get("Service", "avatar-proxy-redis");
    let url = format!("redis://avatar-proxy-redis:{}/0", redis["spec"]["ports"][0]["port"]);
    assert_eq!(get("ConfigMap", "avatar-proxy")["data"]["AVATAR_PROXY_STORE"], url);
}

#[test]
fn services_probes_and_budgets_mean_the_pods_there_are() {
    let objects = objects();
    let workloads = workloads();
    for (workload, container) in &workloads {
        let labels = &workload["spec"]["template"]["metadata"]["labels"];
        let name = text(&workload["metadata"]["name"]);
        assert_eq!(&workload["spec"]["selector"]["matchLabels"], labels, "{name}");
        let service = &objects[&("Service".to_owned(), name.to_owned())]["spec"];
        assert_eq!(&service["selector"], labels, "{name}");
        let ports: Vec<_> = list(&container["ports"]).iter().map(|port| &port["name"]).collect();
        assert!(ports.contains(&&service["ports"][0]["targetPort"]), "{name}");
        for probe in ["livenessProbe", "readinessProbe"] {
            let probe = &container[probe];
            assert!(probe["exec"].is_object() || ports.contains(&&probe["httpGet"]["port"]), "{name}");
        }
    }
    let (proxy, container) = &workloads[0];
    assert_eq!(container["livenessProbe"]["httpGet"]["path"], "/health", "no restart mends a store");
    assert_eq!(container["readinessProbe"]["httpGet"]["path"], "/ready");
    let budget = &objects[&("PodDisruptionBudget".to_owned(), "avatar-proxy".to_owned())]["spec"];
    assert_eq!(budget["selector"], proxy["spec"]["selector"]);
    assert!(budget["minAvailable"].as_u64() < proxy["spec"]["replicas"].as_u64(), "a node could never be emptied");
    let policy = &objects[&("NetworkPolicy".to_owned(), "avatar-proxy-redis".to_owned())]["spec"];
    assert_eq!(policy["podSelector"], workloads[1].0["spec"]["selector"]);
    assert_eq!(policy["ingress"][0]["from"][0]["podSelector"], proxy["spec"]["selector"]);
}

#[test]
fn no_pod_has_more_rights_than_it_needs() {
    for (workload, container) in workloads() {
        let name = text(&workload["metadata"]["name"]);
        let pod = &workload["spec"]["template"]["spec"];
        assert_eq!(pod["automountServiceAccountToken"], false, "{name}");
        assert_eq!(pod["securityContext"]["runAsNonRoot"], true, "{name}");
        assert_eq!(pod["securityContext"]["seccompProfile"]["type"], "RuntimeDefault", "{name}");
        let own = &container["securityContext"];
        assert_eq!((&own["readOnlyRootFilesystem"], &own["allowPrivilegeEscalation"]), (&true.into(), &false.into()));
        assert_eq!(own["capabilities"]["drop"][0], "ALL", "{name}");
        assert!(container["resources"]["limits"]["memory"].is_string(), "{name}");
        let (_, tag) = text(&container["image"]).split_once(':').unwrap();
        assert!(tag.matches('.').count() >= 2, "{name}'s image is pinned to {tag} only");
    }
    assert!(objects().keys().all(|(kind, _)| kind != "Secret"), "secrets are made beside it");
}
