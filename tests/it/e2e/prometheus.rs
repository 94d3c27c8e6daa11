//! What operators load into Prometheus is tried in one: Debian's `promtool` reads the rules, tries each alert on made-up series, and a
//! real Prometheus scrapes two replicas on one Redis until every panel of the dashboard shows something. Grafana's own model of
//! dashboards reads it.

use std::net::SocketAddr;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use avatar_proxy::clock::Clock;
use avatar_proxy::demo::{Options, Population, Reply};
use avatar_proxy::duration;
use http::Method;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::{Value, json};
use tokio::time::Instant;

use super::program::{Program, python};
use crate::dashboards::{self, path, queries, rules};
use crate::support::app::World;
use crate::support::client::Client;
use crate::support::eventually::eventually;
use crate::support::port;
use crate::support::process::Process;
use crate::support::receiver::Receiver;
use crate::support::redis::Redis;
use crate::support::subscriber::Subscriber;

/// How soon everything must be seen, at a scrape per second.
const PATIENCE: Duration = Duration::from_secs(45);

fn promtool(arguments: &[&str], input: &[u8]) -> Output {
    let mut command = Command::new("promtool");
    command.args(arguments).current_dir(path("")).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().expect("promtool is there: `make e2e` installs it");
    let mut stdin = child.stdin.take().unwrap();
    std::io::Write::write_all(&mut stdin, input).unwrap();
    drop(stdin);
    child.wait_with_output().unwrap()
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}

#[test]
#[ignore = "needs promtool: make e2e"]
fn promtool_takes_the_configuration_and_the_rules() {
    for arguments in [
        ["check", "config", "--lint=all", "--lint-fatal", "dashboards/prometheus.yml"].as_slice(),
        &[
            "check",
            "rules",
            "--lint=all",
            "--lint-fatal",
            "dashboards/recording-rules.yml",
            "dashboards/alert-rules.yml",
        ],
    ] {
        let output = promtool(arguments, b"");
        assert!(output.status.success(), "{}", said(&output));
    }
}

#[test]
#[ignore = "needs promtool: make e2e"]
fn every_alert_fires_when_it_should_and_only_then() {
    let output = promtool(&["test", "rules", "tests/e2e/alerts.yml"], b"");
    assert!(output.status.success(), "{}", said(&output));
}

#[test]
#[ignore = "needs promtool: make e2e"]
fn an_alert_that_waited_half_as_long_would_fire_where_it_must_not() {
    let folder = tempfile::tempdir().unwrap();
    let mut cases = dashboards::read("tests/e2e/alerts.yml");
    cases["rule_files"] = json!([path("dashboards/recording-rules.yml"), "alert-rules.yml"]);
    let mut file = dashboards::read("dashboards/alert-rules.yml");
    let mut patient = vec![];
    for rule in file["groups"][0]["rules"].as_array_mut().unwrap() {
        let Some(wait) = rule["for"].as_str() else { continue };
        let wait = duration::parse(wait).unwrap() / 2;
        patient.push(rule["alert"].as_str().unwrap().to_owned());
        rule["for"] = json!(format!("{}s", wait.as_secs()));
    }
    assert!(patient.len() > 10, "{patient:?}");
    std::fs::write(folder.path().join("alert-rules.yml"), file.to_string()).unwrap();
    let cases_file = folder.path().join("alerts.yml");
    std::fs::write(&cases_file, cases.to_string()).unwrap();
    let said = said(&promtool(&["test", "rules", cases_file.to_str().unwrap()], b""));
    let unheld: Vec<_> = patient.iter().filter(|name| !said.contains(&format!("alertname: {name},"))).collect();
    assert!(unheld.is_empty(), "no silent case lasts longer than half of what these wait: {unheld:?}");
}

#[test]
#[ignore = "needs Python and Grafana's model of dashboards: make e2e"]
fn grafana_knows_every_field_of_the_dashboard() {
    let mut command = python();
    command.arg("tests/e2e/grafana.py").arg("dashboards/avatar-proxy.json").current_dir(path(""));
    let output = command.output().expect("Python is there");
    assert!(output.status.success() && output.stdout.is_empty(), "{}", said(&output));
}

/// A Prometheus with the project's own configuration, but for the targets and the pace.
struct Prometheus {
    _program: Program,
    client: Client,
}

impl Prometheus {
    async fn start(folder: &Path, targets: &[SocketAddr]) -> Self {
        let mut config = dashboards::read("dashboards/prometheus.yml");
        config["global"] = json!({"scrape_interval": "1s", "scrape_timeout": "1s", "evaluation_interval": "1s"});
        for file in config["rule_files"].as_array_mut().unwrap() {
            *file = json!(path("dashboards").join(file.as_str().unwrap()));
        }
        let targets: Vec<String> = targets.iter().map(ToString::to_string).collect();
        config["scrape_configs"][0]["static_configs"] = json!([{"targets": targets}]);
        let file = folder.join("prometheus.yml");
        std::fs::write(&file, config.to_string()).unwrap();
        let address = port::free();
        let mut command = Command::new("prometheus");
        command.arg(format!("--config.file={}", file.display()));
        command.arg(format!("--storage.tsdb.path={}", folder.join("data").display()));
        command.arg(format!("--web.listen-address={address}")).stderr(Stdio::null());
        let program = Program::start(&mut command);
        let client = Client::new(address);
        eventually("Prometheus is ready", async || {
            client.send(Method::GET, "/-/ready", &[]).await.is_ok_and(|answer| answer.status == 200)
        })
        .await;
        Self { _program: program, client }
    }

    /// The series that an expression leads to, with their labels, without those that are no number.
    async fn query(&self, expr: &str) -> Vec<Value> {
        let query = utf8_percent_encode(expr, NON_ALPHANUMERIC);
        let answer = self.client.get(&format!("/api/v1/query?query={query}")).await.json();
        assert_eq!(answer["status"], "success", "{expr}: {answer}");
        let series = answer["data"]["result"].as_array().expect("series").iter();
        let is_number = |series: &&Value| series["value"][1].as_str().is_some_and(|value| value != "NaN");
        series.filter(is_number).map(|series| series["metric"].clone()).collect()
    }
}

/// An expression of the dashboard as Grafana sends it.
fn substituted(expr: &str) -> String {
    let expr = expr.replace("$__rate_interval", "15s").replace("$job", "avatar-proxy").replace("$instance", ".*");
    assert!(!expr.contains('$'), "{expr}");
    expr
}

/// The labels that a legend writes.
fn labels(legend: &str) -> Vec<String> {
    legend.split("{{").skip(1).map(|rest| rest.split("}}").next().unwrap().to_owned()).collect()
}

/// What happens in a day of any operator, all the time: everybody is asked for, pictures change, the gateway's webhooks are forged, an
/// account is limited and more is asked for than the budget allows.
async fn life(world: &World, replicas: &[Process]) {
    world.gateway.person("999700").replies(Reply::RateLimited);
    let restless = world.gateway.person("999701");
    let mut round: u64 = 0;
    loop {
        round += 1;
        restless.picture(&format!("{round}"));
        for replica in replicas {
            let client = &replica.client;
            client.avatar("999701").await;
            client.get(&format!("/avatars/{}", 99_900_000_010 + round % 50)).await;
            client.get_with("/user/avatar?phone=999700", &[("x-device-id", "limited")]).await;
            client.send_body(Method::POST, "/hooks/gateway", &[], "{}").await;
            let cold = (0..20).map(|number| {
                let client = client.clone();
                tokio::spawn(async move { client.avatar(&format!("99980{round:05}{number:02}")).await })
            });
            for lookup in cold.collect::<Vec<_>>() {
                lookup.await.unwrap();
            }
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs Prometheus: make e2e"]
async fn every_panel_and_every_recorded_series_has_data_from_a_real_prometheus() {
    let redis = Redis::start();
    let (receiver, mut absent) = (Receiver::new().await, Receiver::new().await);
    absent.leave().await;
    let world = World::with(Options::demo(7), Clock::system()).await.on(&redis);
    Population::generate(7, 100).settle(&world.gateway);
    let world = world
        .flag("--gateway-rate=20/s")
        .flag("--gateway-burst=40")
        .flag("--gateway-concurrency=8")
        .flag("--max-wait=100ms")
        .flag("--rate-limit-cooldown=1s")
        .flag("--recheck-interval=1s")
        .flag("--confirm-after=1s")
        .flag("--gateway-webhook-secret=made-up-secret")
        .flag(&format!("--webhook={},{}", receiver.url("/"), absent.url("/")));
    let replicas = [Process::start(&world), Process::start(&world)];
    let mut streams = vec![];
    for replica in &replicas {
        streams.push(Subscriber::new(replica.address(), "/events", &[]).await);
    }
    let folder = tempfile::tempdir().unwrap();
    let prometheus = Prometheus::start(folder.path(), &[replicas[0].address(), replicas[1].address()]).await;

    let panels = queries().into_iter().map(|query| (query.panel, substituted(&query.expr), labels(&query.legend)));
    let recorded = rules("record").into_keys().map(|name| (name.clone(), name, vec![]));
    let mut wanted: Vec<_> = panels.chain(recorded).collect();
    let asked = wanted.len();
    let watch = async {
        let deadline = Instant::now() + PATIENCE;
        while !wanted.is_empty() {
            assert!(Instant::now() < deadline, "nothing is seen of {wanted:#?}");
            let mut missing = vec![];
            for (place, expr, labels) in wanted {
                let series = prometheus.query(&expr).await;
                let has_them = |series: &Value| labels.iter().all(|label| !series[label].is_null());
                if !series.iter().any(has_them) {
                    missing.push((place, expr, labels));
                }
            }
            wanted = missing;
            tokio::time::sleep(Duration::from_millis(500)).await;
        }
    };
    tokio::select! {
        () = watch => {}
        () = life(&world, &replicas) => unreachable!("it never ends"),
    }
    println!("{asked} expressions have data");

    for replica in &replicas {
        let page = replica.client.get("/metrics").await;
        let output = promtool(&["check", "metrics"], page.text().as_bytes());
        assert!(output.status.success() && said(&output).is_empty(), "{}", said(&output));
    }
}
