//! What operators load into Prometheus and Grafana fits the program beside it: every metric that is named exists, every metric that
//! exists can be seen, and every alert leads to where the README says what to do.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::PathBuf;

use avatar_proxy::metrics::ALL;
use serde_json::Value;

/// Metrics that are not on the dashboard, and why.
const LEFT_OUT: &[(&str, &str)] = &[];

/// The dashboards' schema of the Grafana in `docker-compose.yml`.
const SCHEMA: u64 = 42;

/// Grafana's names of the units that are used.
const UNITS: [&str; 7] = ["bytes", "cps", "none", "percentunit", "reqps", "s", "short"];

/// A file of `dashboards/` or another one that this project has for operators.
pub(crate) fn path(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(name)
}

/// A file's text as data; JSON is YAML too.
pub(crate) fn read(name: &str) -> Value {
    let text = fs::read_to_string(path(name)).unwrap_or_else(|error| panic!("{name}: {error}"));
    serde_saphyr::from_str(&text).unwrap_or_else(|error| panic!("{name}: {error}"))
}

fn dashboard() -> Value {
    let text = fs::read_to_string(path("dashboards/avatar-proxy.json")).unwrap();
    serde_json::from_str(&text).expect("the dashboard is JSON")
}

pub(crate) fn list(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

#[track_caller]
pub(crate) fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_else(|| panic!("{value} is no text"))
}

/// What one line of a panel is asked for.
pub(crate) struct Query {
    /// The panel's title.
    pub(crate) panel: String,
    pub(crate) expr: String,
    pub(crate) legend: String,
}

/// Every query of the dashboard.
pub(crate) fn queries() -> Vec<Query> {
    let dashboard = dashboard();
    let panels = list(&dashboard["panels"]).iter();
    let queries = panels.flat_map(|panel| list(&panel["targets"]).iter().map(move |target| (panel, target)));
    let queries = queries.map(|(panel, target)| {
        let text = |value: &Value| text(value).to_owned();
        Query { panel: text(&panel["title"]), expr: text(&target["expr"]), legend: text(&target["legendFormat"]) }
    });
    queries.collect()
}

/// Every rule of one kind, by its name.
pub(crate) fn rules(kind: &str) -> BTreeMap<String, Value> {
    let file = if kind == "alert" { "alert-rules" } else { "recording-rules" };
    let file = read(&format!("dashboards/{file}.yml"));
    let mut found = BTreeMap::new();
    for rule in list(&file["groups"]).iter().flat_map(|group| list(&group["rules"])) {
        let name = text(&rule[kind]).to_owned();
        assert!(found.insert(name.clone(), rule.clone()).is_none(), "{name} comes twice");
    }
    assert!(found.len() > 10, "the rules are not found");
    found
}

/// The names in an expression that are this program's metrics or recorded from them, without histograms' endings.
fn names(expr: &str) -> BTreeSet<String> {
    let word = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == ':';
    let words = expr.split(|c| !word(c)).filter(|name| name.starts_with("avatar_proxy_") || name.contains(':'));
    let whole = |name: &str| {
        let bare = ["_bucket", "_sum", "_count"].iter().find_map(|end| name.strip_suffix(end));
        let histogram =
            bare.filter(|bare| ALL.iter().any(|(name, kind, _)| name == bare && kind.contains("Histogram")));
        histogram.unwrap_or(name).to_owned()
    };
    words.map(whole).collect()
}

#[test]
fn every_metric_that_the_dashboard_or_a_rule_names_exists() {
    let recorded = rules("record");
    let is_known = |name: &String| ALL.iter().any(|(known, ..)| known == name) || recorded.contains_key(name);
    let asked = queries().into_iter().map(|query| (query.panel, query.expr));
    let ruled = rules("alert").into_iter().chain(rules("record"));
    let ruled = ruled.map(|(name, rule)| (name, text(&rule["expr"]).to_owned()));
    for (place, expr) in asked.chain(ruled) {
        let unknown: Vec<String> = names(&expr).into_iter().filter(|name| !is_known(name)).collect();
        assert!(unknown.is_empty(), "{place} asks for {unknown:?}");
    }
}

#[test]
fn every_metric_is_on_the_dashboard_or_left_out_for_a_reason() {
    let shown: BTreeSet<String> = queries().iter().flat_map(|query| names(&query.expr)).collect();
    for (name, ..) in ALL {
        let left_out = LEFT_OUT.iter().any(|(other, reason)| other == name && reason.len() > 10);
        assert!(shown.contains(*name) != left_out, "{name}: on the dashboard, or in LEFT_OUT with a reason");
    }
}

#[test]
fn recorded_series_are_named_by_level_metric_and_operation() {
    for (name, rule) in rules("record") {
        let parts: Vec<&str> = name.split(':').collect();
        assert!(parts.len() == 3 && parts[1].starts_with("avatar_proxy_"), "{name}");
        // The level is the labels that are left.
        let level = format!("by ({}", parts[0].replace('_', ", "));
        assert!(text(&rule["expr"]).contains(&level), "{name} is not {level})");
    }
}

#[test]
fn every_alert_says_how_bad_it_is_and_leads_to_what_to_do() {
    let readme = fs::read_to_string(path("README.md")).unwrap();
    let (_, section) = readme.split_once("\n## Alerts\n").expect("the README speaks of alerts");
    let section = section.split("\n## ").next().unwrap();
    let told: BTreeSet<&str> = section.lines().filter_map(|line| line.strip_prefix("### ")).collect();
    let alerts = rules("alert");
    for (name, rule) in &alerts {
        assert!(["critical", "warning"].contains(&text(&rule["labels"]["severity"])), "{name}");
        let notes = &rule["annotations"];
        assert!(text(&notes["summary"]).ends_with('.') && text(&notes["description"]).len() > 20, "{name}");
        assert_eq!(text(&notes["runbook"]), format!("README.md#{}", name.to_lowercase()), "{name}");
        assert!(told.contains(name.as_str()), "the README has no ### {name} under ## Alerts");
    }
    let gone: Vec<_> = told.iter().filter(|name| !alerts.contains_key(**name)).collect();
    assert!(gone.is_empty(), "the README speaks of alerts that are not there: {gone:?}");
}

#[test]
fn every_alert_is_tried_once_firing_and_once_silent() {
    let cases = read("tests/e2e/alerts.yml");
    let mut tried: BTreeMap<&str, [bool; 2]> = BTreeMap::new();
    let cases = list(&cases["tests"]).iter().flat_map(|test| list(&test["alert_rule_test"]));
    for case in cases {
        let fires = !list(&case["exp_alerts"]).is_empty();
        tried.entry(text(&case["alertname"])).or_default()[usize::from(fires)] = true;
    }
    let cases: Vec<_> = tried.keys().copied().collect();
    assert_eq!(cases, rules("alert").keys().collect::<Vec<_>>());
    let half: Vec<_> = tried.iter().filter(|(_, both)| **both != [true; 2]).collect();
    assert!(half.is_empty(), "[stays silent, fires]: {half:?}");
}

#[test]
fn the_dashboard_keeps_grafanas_conventions() {
    let dashboard = dashboard();
    assert_eq!((&dashboard["schemaVersion"], &dashboard["id"]), (&SCHEMA.into(), &Value::Null));
    assert_eq!(dashboard["uid"], "avatar-proxy");
    let source = serde_json::json!({"type": "prometheus", "uid": "${datasource}"});
    let (mut ids, mut titles, mut taken) = (BTreeSet::new(), BTreeSet::new(), BTreeSet::new());
    for panel in list(&dashboard["panels"]) {
        let title = text(&panel["title"]);
        assert!(ids.insert(panel["id"].as_u64()), "{title}");
        let place = ["x", "y", "w", "h"].map(|side| panel["gridPos"][side].as_u64().unwrap());
        assert!(place[0] + place[2] <= 24, "{title} is too wide");
        for column in place[0]..place[0] + place[2] {
            for line in place[1]..place[1] + place[3] {
                assert!(taken.insert((column, line)), "{title} lies upon another panel");
            }
        }
        if panel["type"] == "row" {
            continue;
        }
        assert!(titles.insert(title), "there are two of {title}");
        assert!(text(&panel["description"]).ends_with('.'), "{title} does not say what it shows");
        let defaults = &panel["fieldConfig"]["defaults"];
        assert!(UNITS.contains(&text(&defaults["unit"])), "{title} has the unit {}", defaults["unit"]);
        let steps = list(&defaults["thresholds"]["steps"]);
        let bounds: Vec<_> = steps.iter().map(|step| step["value"].as_f64()).collect();
        assert!(bounds[0].is_none() && bounds.is_sorted(), "{title} has thresholds {bounds:?}");
        assert_eq!(panel["datasource"], source, "{title}");
        // A range ends in the last value there was: a replica that is gone would look well.
        let is_now = panel["type"] == "stat" || panel["type"] == "table";
        for (target, id) in list(&panel["targets"]).iter().zip('A'..) {
            assert_eq!((&target["datasource"], &target["refId"]), (&source, &id.to_string().into()), "{title}");
            assert!(text(&target["expr"]).contains(r#"{job=~"$job", instance=~"$instance""#), "{title}");
            assert_eq!((&target["instant"], &target["range"]), (&is_now.into(), &(!is_now).into()), "{title}");
            // Beside series with labels, a zero without any is one more line.
            let stands_beside = text(&target["expr"]).ends_with(") or vector(0)");
            assert!(!stands_beside, "{title}: or on() vector(0) stands in for what is not there");
        }
    }
    let written = dashboard.to_string();
    let variables: Vec<_> = list(&dashboard["templating"]["list"]).iter().map(|own| text(&own["name"])).collect();
    assert_eq!(variables, ["datasource", "job", "instance"]);
    let known = ["datasource", "job", "instance", "__rate_interval", "__all"];
    for (at, _) in written.match_indices('$') {
        let word = |c: &char| c.is_ascii_alphanumeric() || *c == '_';
        let name: String = written[at + 1..].trim_start_matches('{').chars().take_while(word).collect();
        assert!(known.contains(&name.as_str()), "${name} is nothing that the dashboard has");
    }
    for trace in ["__inputs", "__requires", "DS_PROMETHEUS", "TODO"] {
        assert!(!written.contains(trace), "the dashboard holds {trace}");
    }
}

#[test]
fn grafana_is_given_the_prometheus_that_reads_these_rules() {
    let config = read("dashboards/prometheus.yml");
    for file in list(&config["rule_files"]) {
        assert!(path("dashboards").join(text(file)).exists(), "{file}");
    }
    assert_eq!(config["scrape_configs"][0]["job_name"], "avatar-proxy", "as the rules call it");
    let source = read("dashboards/provisioning/datasources/prometheus.yml")["datasources"][0].clone();
    assert_eq!(source["type"], "prometheus");
    assert_eq!(source["jsonData"]["timeInterval"], config["global"]["scrape_interval"]);
}
