//! Who is believed over `https`, and who is not asked at all.

use std::process::Command;
use std::time::Duration;

use avatar_proxy::outbound::{Config, Failure, Reach};

use super::{status, with};
use crate::support::authority::Authority;
use crate::support::receiver::{Receiver, Reply};

#[tokio::test]
async fn a_receiver_is_believed_by_its_certificate() {
    let ours = Authority::new("ours");
    let receiver = Receiver::with_tls(&ours, &["localhost"]).await;
    let outbound = with(Config { authorities: vec![ours.certificate()], ..Config::default() });
    for _ in 0..3 {
        assert_eq!(status(&outbound, &receiver.url_by("localhost", "/"), Reach::Anywhere).await, Ok(200));
    }
    // For another name it says nothing.
    assert_eq!(status(&outbound, &receiver.url("/"), Reach::Anywhere).await, Err(Failure::Tls));
    let strangers = with(Config::default());
    assert_eq!(status(&strangers, &receiver.url_by("localhost", "/"), Reach::Anywhere).await, Err(Failure::Tls));
    assert_eq!(receiver.requests().len(), 3);
}

#[tokio::test]
async fn whoever_breaks_off_behind_tls_was_believed() {
    let ours = Authority::new("ours");
    let receiver = Receiver::with_tls(&ours, &["localhost"]).await;
    let outbound = with(Config { authorities: vec![ours.certificate()], ..Config::default() });
    for reply in [Reply::close(), Reply::reset(), Reply::half_a_head()] {
        receiver.next([reply.clone()]);
        let called = status(&outbound, &receiver.url_by("localhost", "/"), Reach::Anywhere).await;
        assert_eq!(called, Err(Failure::Broken), "{reply:?}");
    }
}

#[tokio::test]
async fn a_handshake_that_does_not_end_is_ended() {
    // It waits for a request, and gets a handshake.
    let receiver = Receiver::new().await;
    let outbound = with(Config { connect_timeout: Duration::from_millis(300), ..Config::default() });
    let url = format!("https://{}/", receiver.address());
    assert_eq!(status(&outbound, &url, Reach::Anywhere).await, Err(Failure::Unreachable));
    receiver.is_left_alone().await;
    assert_eq!((receiver.connections(), receiver.requests().len()), (1, 0));
}

/// Set for the process that is to run the test below among proxies.
const AMONG_PROXIES: &str = "AVATAR_PROXY_TEST_TARGET";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_proxy_of_the_environment_is_asked() {
    if let Ok(url) = std::env::var(AMONG_PROXIES) {
        assert_eq!(status(&with(Config::default()), &url, Reach::Anywhere).await, Ok(202));
        return;
    }
    let (receiver, proxy) = (Receiver::new().await, Receiver::new().await);
    receiver.always(Reply::status(202));
    let mut itself = Command::new(std::env::current_exe().unwrap());
    itself.args(["--exact", "outbound::trusted::no_proxy_of_the_environment_is_asked"]);
    itself.env(AMONG_PROXIES, receiver.url("/")).env_remove("NO_PROXY").env_remove("no_proxy");
    for name in ["HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"] {
        itself.env(name, proxy.url("")).env(name.to_lowercase(), proxy.url(""));
    }
    let output = tokio::task::spawn_blocking(move || itself.output().unwrap()).await.unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
    assert_eq!((receiver.requests().len(), proxy.connections()), (1, 0));
}
