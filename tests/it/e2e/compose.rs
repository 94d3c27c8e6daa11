//! What the compose file describes, as plain processes: the same commands, variables and files, with ports of this machine in the
//! place of the containers' names.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use http::Method;
use tokio::time::Instant;

use super::program::Program;
use crate::compose::{Service, services};
use crate::dashboards::{path, read};
use crate::support::client::Client;
use crate::support::eventually::eventually;
use crate::support::port;

/// Where each service's ports are on this machine, by the names that others call it.
struct Places(BTreeMap<String, SocketAddr>);

impl Places {
    fn new(services: &[Service]) -> Self {
        // All are taken at once, so that they are different ones.
        let mut taken = vec![];
        let mut places = BTreeMap::new();
        for service in services {
            for port in service.ports() {
                let listener = port::take();
                for name in service.names() {
                    places.insert(format!("{name}:{port}"), listener.local_addr().unwrap());
                }
                taken.push(listener);
            }
        }
        Self(places)
    }

    fn of(&self, name: &str) -> SocketAddr {
        *self.0.get(name).unwrap_or_else(|| panic!("nobody is called {name}"))
    }

    /// A text with addresses of this machine in the place of names, as `service` reads it.
    fn write(&self, service: &Service, text: &str) -> String {
        let mut text = text.to_owned();
        for port in service.ports() {
            let own = self.of(&format!("{}:{port}", service.name));
            for everywhere in ["0.0.0.0", "*"] {
                text = text.replace(&format!("{everywhere}:{port}"), &own.to_string());
            }
        }
        for (name, place) in &self.0 {
            text = text.replace(name.as_str(), &place.to_string());
        }
        text
    }

    /// The proxy's program, in this service's place.
    fn proxy(&self, service: &Service, arguments: &[String]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_avatar-proxy"));
        let variables = service.variables().into_iter().map(|(name, value)| (name, self.write(service, &value)));
        command.env_clear().envs(variables).args(arguments).stderr(Stdio::null());
        command
    }

    fn start(&self, service: &Service, folder: &Path) -> Program {
        if service.is_proxy() {
            return Program::start(&mut self.proxy(service, &service.arguments()));
        }
        match service.name.as_str() {
            "redis" => {
                let arguments = service.arguments();
                let port = self.of("redis:6379").port().to_string();
                let mut command = Command::new(&arguments[0]);
                command.args(&arguments[1..]).args(["--bind", "127.0.0.1", "--port", &port]).current_dir(folder);
                Program::start(&mut command)
            }
            "balancer" => {
                let config = std::fs::read_to_string(path("deploy/haproxy.cfg")).unwrap();
                let file = folder.join("haproxy.cfg");
                std::fs::write(&file, self.write(service, &config)).unwrap();
                Program::start(Command::new("haproxy").arg("-db").arg("-f").arg(&file).stderr(Stdio::null()))
            }
            other => panic!("{other} is none of those that answer lookups"),
        }
    }

    /// Waits until the image's own check says that it lives.
    async fn lives(&self, service: &Service) {
        eventually(&format!("{} is healthy", service.name), async || {
            self.proxy(service, &["health".to_owned()]).status().unwrap().success()
        })
        .await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs HAProxy: make e2e"]
async fn what_the_compose_file_describes_answers_lookups_through_its_balancer() {
    let services = services("demo");
    let places = Places::new(&services);
    let folder = tempfile::tempdir().unwrap();
    let mut running = BTreeMap::new();
    let named = |name: &str| services.iter().find(|service| service.name == name).expect("there is such a service");
    for name in ["demo-gateway", "redis"] {
        running.insert(name, places.start(named(name), folder.path()));
    }
    places.lives(named("demo-gateway")).await;
    running["redis"].says("Ready to accept connections").await;
    for name in ["demo-1", "demo-2", "balancer"] {
        running.insert(name, places.start(named(name), folder.path()));
    }
    for name in ["demo-1", "demo-2"] {
        places.lives(named(name)).await;
    }

    let client = Client::new(places.of("balancer:8080"));
    eventually("the balancer listens, and has found a replica", async || {
        client.send(Method::GET, "/ready", &[]).await.is_ok_and(|answer| answer.status == 200)
    })
    .await;
    let answer = client.avatar("99900000001").await;
    assert_eq!(answer.status, 200, "{answer:?}");
    assert!(answer.text().contains(r#""code":"SUCCESS""#), "{answer:?}");
    for _ in 0..10 {
        assert!(client.avatar("99900000001").await.how().contains("hit"), "each has it of the shared store");
    }
    for target in
        read("dashboards/prometheus.yml")["scrape_configs"][0]["static_configs"][0]["targets"].as_array().unwrap()
    {
        let metrics = Client::new(places.of(target.as_str().unwrap())).get("/metrics").await;
        assert!(metrics.text().contains("avatar_proxy_store_up 1"), "{target}");
    }

    // One replica is enough, also for those who ask while the other one dies.
    let asking: Vec<_> = (0..8)
        .map(|_| {
            let client = client.clone();
            tokio::spawn(async move {
                let until = Instant::now() + Duration::from_secs(2);
                while Instant::now() < until {
                    assert_eq!(client.avatar("99900000001").await.status, 200);
                }
            })
        })
        .collect();
    tokio::time::sleep(Duration::from_millis(500)).await;
    running.remove("demo-1");
    for asking in asking {
        asking.await.expect("everybody has an answer each time");
    }
}

#[test]
#[ignore = "needs docker-compose: make e2e"]
fn the_compose_file_keeps_to_the_schema() {
    for profile in crate::compose::PROFILES {
        let output = Command::new("docker-compose")
            .args([
                "--project-directory",
                ".",
                "--file",
                "docker-compose.yml",
                "--profile",
                profile,
                "config",
                "--quiet",
            ])
            .current_dir(path(""))
            .output()
            .expect("docker-compose is there: `make e2e` installs it");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }
}
