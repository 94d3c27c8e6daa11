//! The gateway in its various states.

use std::time::Duration;

use avatar_proxy::clock::{Clock, Timestamp};
use avatar_proxy::demo::{DeviceState, Devices, Mode, Reply};

use super::check;
use crate::support::app::World;
use crate::support::authority::Authority;
use crate::support::receiver::{self, Receiver};

#[tokio::test]
async fn each_state_of_a_device_has_its_remedy() {
    let world = World::new().await;
    for (state, verdict, text) in [
        (DeviceState::LoggedOut, "wrong", "is not logged in: log the account in"),
        (DeviceState::Offline, "wrong", "not connected to WhatsApp"),
        (DeviceState::WithoutSession, "wrong", "is not logged in"),
        (DeviceState::Connected, "ok", "logged in and connected"),
    ] {
        world.gateway.set_device_state("", state);
        let all = check(&world, &[]).await;
        all.says("device", verdict, text);
        all.says("credentials", "ok", "asks for none");
        all.ends(i32::from(verdict == "wrong"));
    }
    assert_eq!(world.gateway.lookups(), 0);
}

#[tokio::test]
async fn of_several_devices_one_must_be_named_by_somebody() {
    let world = World::new().await;
    world.gateway.set_devices(Devices::Known(vec!["sales".into(), "support".into()]));
    let none = check(&world, &[]).await;
    none.says("device", "warning", "give --default-device, unless every client names one");
    none.ends(0);
    check(&world, &["--default-device=sales"]).await.says("device", "ok", "");
    let other = check(&world, &["--default-device=lost"]).await;
    other.says("device", "wrong", "does not know the one that is named");
    assert!(!other.lines.concat().contains("lost"));
}

#[tokio::test]
async fn credentials_are_right_wrong_or_missing() {
    let world = World::new().await.flag("--allow-anonymous");
    check(&world, &["--gateway-auth=ada:s3cret"]).await.says("credentials", "ok", "accepts them");
    world.gateway.set_credentials(&[("ada", "s3cret")]);
    check(&world, &["--gateway-auth=ada:s3cret"]).await.says("credentials", "ok", "accepts them");
    let wrong = check(&world, &["--gateway-auth=ada:guess"]).await;
    wrong.says("credentials", "wrong", "refuses this user and password");
    wrong.says("gateway", "ok", "it answers in");
    assert!(!wrong.has("device") && !wrong.lines.concat().contains("guess"));
    check(&world, &[]).await.says("credentials", "wrong", "none are given: give them with --gateway-auth");
}

#[tokio::test]
async fn whoever_is_no_gateway_is_told_from_one() {
    let world = World::new().await;
    for (reply, verdict, text) in [
        (Reply::Page(502), "wrong", "does not speak as a GoWA gateway does (status 502)"),
        (Reply::Redirect("http://127.0.0.1:9/".into()), "wrong", "leads elsewhere"),
        (Reply::Garbage("SSH-2.0-OpenSSH\r\n".into()), "wrong", "is not HTTP"),
        (Reply::Reset, "wrong", "breaks it off"),
        (Reply::Starting, "wrong", "still starting: try again soon"),
        (
            Reply::json(500, r#"{"code":"INTERNAL_SERVER_ERROR","message":"m"}"#),
            "wrong",
            "it answers that it failed (status 500)",
        ),
        (Reply::json(429, "slow down"), "warning", "but not to /app/status (status 429)"),
        (Reply::json(404, "Cannot GET /app/status"), "warning", "but not to /app/status (status 404)"),
    ] {
        world.gateway.set_mode(Mode::Everybody(reply));
        let all = check(&world, &[]).await;
        all.says("gateway", verdict, text);
        assert!(!text.contains("does not speak") || !all.has("gateway's clock"), "{text}");
    }
    world.gateway.set_mode(Mode::Everybody(Reply::Hang));
    let late = check(&world, &["--gateway-timeout=1s"]).await;
    late.says("gateway", "wrong", "does not answer in time");
    late.ends(1);
}

#[tokio::test]
async fn a_connection_that_cannot_be_trusted_is_told_from_one_that_fails() {
    let world = World::new().await;
    let ours = Authority::new("ours");
    let gateway = Receiver::with_tls(&ours, &["localhost"]).await;
    let status =
        r#"{"code":"SUCCESS","message":"m","results":{"is_connected":true,"is_logged_in":true,"device_id":""}}"#;
    gateway.always(receiver::Reply::new(200, &[], status));
    let url = format!("--gateway-url=https://localhost:{}", gateway.address().port());
    let world = world.flag(&url);
    let unknown = check(&world, &[]).await;
    unknown.says(
        "gateway",
        "wrong",
        "authority that this machine does not know: name a private authority with --gateway-ca",
    );
    let path = world.store_path().with_file_name("ca.pem");
    std::fs::write(&path, ours.pem()).unwrap();
    let known = format!("--gateway-ca={}", path.display());
    check(&world, &[&known]).await.says("gateway", "ok", "");
    for (url, text) in [
        (format!("https://127.0.0.1:{}", gateway.address().port()), "certificate is for another name"),
        (format!("https://{}", world.gateway.address()), "no secure connection can be made: see that it speaks https"),
    ] {
        check(&world, &[&known, &format!("--gateway-url={url}")]).await.says("gateway", "wrong", text);
    }
}

#[tokio::test]
async fn a_clock_that_is_off_is_said() {
    let gateway = Receiver::new().await;
    let status =
        r#"{"code":"SUCCESS","message":"m","results":{"is_connected":true,"is_logged_in":true,"device_id":""}}"#;
    let world = World::new().await.flag(&format!("--gateway-url={}", gateway.url("")));
    let seconds = Duration::from_secs;
    let now: Timestamp = Clock::system().now();
    for (date, verdict, text) in [
        (now + seconds(3600), "wrong", "ahead of this machine's: URLs die by the clock"),
        (now - seconds(30), "warning", "behind this machine's"),
        (now, "ok", "agrees"),
    ] {
        let date = httpdate(date);
        gateway.always(receiver::Reply::new(200, &[("date", &date)], status));
        check(&world, &[]).await.says("gateway's clock", verdict, text);
    }
}

fn httpdate(at: Timestamp) -> String {
    let seconds = u64::try_from(at.as_millis() / 1000).unwrap();
    httpdate::fmt_http_date(std::time::UNIX_EPOCH + Duration::from_secs(seconds))
}

#[tokio::test]
async fn who_is_named_is_looked_up_once_and_not_shown() {
    let world = World::new().await;
    let person = world.gateway.person("99900000001");
    person.picture("17");
    for (reply, verdict, text) in [
        (Reply::Present, "ok", "a picture was found"),
        (Reply::Hidden, "ok", "hides the picture"),
        (Reply::RateLimited, "wrong", "let the account rest"),
        (Reply::LoggedOut, "wrong", "log it in at the gateway"),
        (Reply::Truncated, "wrong", "is not one of a gateway"),
    ] {
        let before = world.gateway.lookups();
        person.replies_once(reply);
        let all = check(&world, &["--lookup=99900000001"]).await;
        all.says("lookup", verdict, text);
        assert_eq!(world.gateway.lookups(), before + 1);
        assert!(!all.lines.concat().contains("99900000001"));
    }
}
