//! `avatar-proxy health` says whether the proxy on this machine lives, as it was told where that listens.

use std::net::SocketAddr;
use std::process::{Command, Output};

use avatar_proxy::config::{self, Stop};
use tokio::net::TcpListener;

use crate::support::app::World;
use crate::support::authority::Authority;
use crate::support::receiver::{Receiver, Reply};

/// Runs it with these variables, and nothing else.
async fn health(variables: &[(&str, String)], arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_avatar-proxy"));
    command.env_clear().envs(variables.iter().cloned()).arg("health").args(arguments);
    tokio::task::spawn_blocking(move || command.output().expect("the program starts")).await.unwrap()
}

fn listens(address: SocketAddr) -> (&'static str, String) {
    ("AVATAR_PROXY_LISTEN", address.to_string())
}

#[track_caller]
fn says(output: &Output, status: i32, text: &str) {
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(status), "{said}");
    assert!(said.contains(text) && output.stdout.is_empty(), "{said}");
}

#[tokio::test]
async fn a_proxy_that_runs_is_alive_though_it_wants_a_password() {
    let world = World::new().await.flag("--auth=crm:a-password");
    let app = world.start().await;
    let address = app.app().address();
    says(&health(&[listens(address)], &[]).await, 0, "");
    let everywhere = SocketAddr::new([0, 0, 0, 0].into(), address.port());
    says(&health(&[listens(everywhere)], &[]).await, 0, "");
    says(&health(&[], &["--listen", &address.to_string()]).await, 0, "");
    let others = ("AVATAR_PROXY_GATEWAY_URL", "http://127.0.0.1:1".to_owned());
    says(&health(&[listens(address), others], &[]).await, 0, "");
    app.stop().await;
    says(&health(&[listens(address)], &[]).await, 1, "cannot be asked");
}

#[tokio::test]
async fn it_asks_at_the_metrics_address_if_there_is_one() {
    let receiver = Receiver::new().await;
    let metrics = ("AVATAR_PROXY_METRICS_LISTEN", receiver.address().to_string());
    let nobody = listens("127.0.0.1:1".parse().unwrap());
    says(&health(&[nobody, metrics], &[]).await, 0, "");
    assert_eq!(receiver.requests()[0].path, "/health");
}

#[tokio::test]
async fn behind_https_any_certificate_will_do() {
    let world = World::new().await;
    let signed = Authority::new("ours").signs(&["avatars.example.com"]);
    let file = |name: &str| world.store_path().with_file_name(name);
    let (certificate, key) = (file("cert.pem"), file("key.pem"));
    std::fs::write(&certificate, &signed.certificate_pem).unwrap();
    std::fs::write(&key, &signed.key_pem).unwrap();
    let certificate = certificate.display().to_string();
    let world = world.flag(&format!("--tls-cert={certificate}")).flag(&format!("--tls-key={}", key.display()));
    let app = world.start().await;
    let variables = [listens(app.app().address()), ("AVATAR_PROXY_TLS_CERT", certificate)];
    says(&health(&variables, &[]).await, 0, "");
    says(&health(&variables[..1], &[]).await, 1, "");
    app.stop().await;
}

#[tokio::test]
async fn whoever_answers_otherwise_or_not_at_all_is_not_alive() {
    let receiver = Receiver::new().await;
    for (reply, text) in [
        (Reply::status(503), "answers /health with 503"),
        (Reply::raw("nonsense\r\n\r\n").and_close(), "cannot be asked"),
        (Reply::close(), "cannot be asked"),
    ] {
        receiver.always(reply);
        says(&health(&[listens(receiver.address())], &[]).await, 1, text);
    }
    // Takes the connection and says nothing.
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    says(&health(&[listens(silent.local_addr().unwrap())], &[]).await, 1, "does not answer within 5s");
}

#[test]
fn what_it_cannot_know_or_does_not_need_is_said() {
    let mistakes = |arguments: &[&str]| {
        let arguments = ["avatar-proxy", "health"].iter().chain(arguments).map(Into::into);
        match config::parse(arguments, []) {
            Err(Stop::Mistakes(mistakes)) => mistakes.to_string(),
            _ => panic!("no mistake"),
        }
    };
    assert!(mistakes(&["--listen=127.0.0.1:0"]).contains("--listen: port 0 is a free one"));
    assert!(mistakes(&["--store=sqlite:a.db"]).contains("--store: is nothing that `health` asks for"));
}
