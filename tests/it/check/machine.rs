//! Addresses, certificates, files, and who runs here already; and the webhooks.

use std::process::Command;
use std::time::Duration;

use super::{check, checked};
use crate::support::app::World;
use crate::support::authority::Authority;
use crate::support::process::Process;
use crate::support::receiver::{Receiver, Reply};

#[tokio::test]
async fn an_address_is_free_taken_or_a_proxys() {
    let world = World::new().await;
    let other = Receiver::new().await;
    other.always(Reply::status(404));
    let taken = check(&world, &[&format!("--metrics-listen={}", other.address())]).await;
    taken.says("metrics-listen", "wrong", "is taken by something that does not answer as a proxy does");
    taken.ends(1);
    check(&world, &["--listen=192.0.2.1:80", "--allow-anonymous"]).await.says(
        "listen",
        "wrong",
        "is no address of this machine",
    );
}

#[tokio::test]
async fn beside_a_running_proxy_everything_is_tried_and_nothing_disturbed() {
    let world = World::new().await;
    world.gateway.person("99900000001").picture("17");
    let process = Process::start(&world);
    process.client.avatar("99900000001").await.expect(200, "fwd=miss");
    let listen = format!("--listen={}", process.address());
    let world = world.flag(&listen);
    let beside = check(&world, &[]).await;
    beside.ends(0);
    beside.says("listen", "ok", "a proxy answers");
    beside.says("store", "ok", &format!("is in use by process {}, as the proxy", process.id()));
    process.client.avatar("99900000002").await.expect(200, "fwd=miss; stored");
    // The same store under a proxy that would listen elsewhere.
    let elsewhere = check(&world, &["--listen=127.0.0.1:0"]).await;
    elsewhere.says("store", "wrong", "stop that one, or give this one a file of its own");
    elsewhere.ends(1);
    process.client.avatar("99900000003").await.expect(200, "fwd=miss; stored");
    let (status, lines) = process.terminate();
    assert!(status.success() && !lines.iter().any(|line| line.contains("the store fails")), "{lines:#?}");
}

#[tokio::test]
async fn a_certificate_is_known_by_its_end() {
    let world = World::new().await;
    let ours = Authority::new("ours");
    let day = Duration::from_secs(24 * 3600);
    for (left, verdict, text) in [
        (Some(day * 90), "ok", "fits its key, and is good until"),
        (Some(day * 10), "warning", "expires at"),
        (None, "wrong", "expired at"),
    ] {
        let signed = ours.signs_for(&["avatars.example.com"], left);
        let file = |name: &str| world.store_path().with_file_name(name);
        std::fs::write(file("cert.pem"), &signed.certificate_pem).unwrap();
        std::fs::write(file("key.pem"), &signed.key_pem).unwrap();
        let flags = [file("cert.pem"), file("key.pem")].map(|path| path.display().to_string());
        let flags = [format!("--tls-cert={}", flags[0]), format!("--tls-key={}", flags[1])];
        check(&world, &[&flags[0], &flags[1]]).await.says("certificate", verdict, text);
    }
}

#[tokio::test]
async fn few_open_files_are_a_warning() {
    let world = World::new().await;
    let mut arguments = world.arguments();
    "check".clone_into(&mut arguments[0]);
    let mut shell = Command::new("sh");
    shell.args(["-c", "ulimit -n 512 && exec \"$0\" \"$@\"", env!("CARGO_BIN_EXE_avatar-proxy")]).args(arguments);
    let output = tokio::task::spawn_blocking(move || shell.output().unwrap()).await.unwrap();
    let few = checked(&output);
    few.says("open files", "warning", "512 may be open here");
    few.ends(0);
}

#[tokio::test]
async fn webhooks_are_connected_to_and_sent_something_only_if_that_is_asked_for() {
    let world = World::new().await;
    let (good, bad) = (Receiver::new().await, Receiver::new().await);
    good.always(Reply::status(204));
    bad.always(Reply::status(401));
    let urls = format!("--webhook={},{}", good.url("/a?key=hidden"), bad.url("/b"));
    let quiet = check(&world, &[&urls, "--webhook-secret=made-up"]).await;
    quiet.says("webhook 1", "ok", "takes connections");
    quiet.says("webhook 2", "ok", "nothing was sent");
    assert_eq!((good.requests().len(), bad.requests().len()), (0, 0));
    let loud = check(&world, &[&urls, "--webhook-secret=made-up", "--test-webhooks"]).await;
    loud.says("webhook 1", "ok", "took the test");
    loud.says("webhook 2", "wrong", "answers the test with 401: see whether it checks the signature");
    let sent = &good.requests()[0];
    assert!(String::from_utf8_lossy(&sent.body).contains("avatar.test"));
    assert!(!sent.header("webhook-signature").is_empty() && sent.header("content-type") == "application/json");
    assert!(!loud.lines.concat().contains("hidden") && !loud.lines.concat().contains("made-up"));
    for (status, text) in [
        (308, "redirects are not followed"),
        (404, "correct the path in --webhook"),
        (410, "is sent nothing more (disabled)"),
        (413, "counts with a 2xx alone"),
        (429, "it is sent too much"),
        (503, "its log says why"),
    ] {
        bad.always(Reply::status(status));
        check(&world, &[&urls, "--test-webhooks"]).await.says("webhook 2", "wrong", text);
    }
    check(&world, &["--test-webhooks"]).await.says("webhooks", "warning", "there is none to test");
}
