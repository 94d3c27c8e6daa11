//! What is said, to whom, and how it is counted.

use std::fmt::Write;
use std::time::Duration;

use avatar_proxy::demo::{Address, Allowance, DeviceState, Devices, Form, Mode, Options, Reply};

use super::{NOW, World};

#[tokio::test]
async fn a_success_is_written_as_go_writes_it() {
    let world = World::new(Options::default()).await;
    world.gateway.person("6281234567890").picture("1635239861");
    let answer = world.avatar("phone=6281234567890").await;
    assert_eq!(answer.status, 200);
    assert_eq!(answer.header("content-type"), "application/json");
    let port = world.gateway.address().port();
    assert_eq!(
        answer.text(),
        format!(
            concat!(
                r#"{{"code":"SUCCESS","message":"Success get avatar","results":{{"url":"http://127.0.0.1:{}"#,
                r"/v/t61.24694-24/609077136_841642311570960_7505337475872359174_n.jpg?stp=dst-jpg_tt6\u0026ccb=11-4\u0026oh=58e42ff66727e70f6a2fe0d4638b842a\u0026oe=65612000\u0026_nc_sid=5e03e0\u0026_nc_cat=100",
                r#"","id":"1635239861","type":"image"}}}}"#
            ),
            port
        )
    );
    let preview = world.avatar("phone=6281234567890@s.whatsapp.net&is_preview=true").await;
    assert_eq!(preview.json()["results"]["id"], "1635239861");
    assert_eq!(preview.json()["results"]["type"], "preview");
}

/// Status and body of each of [`Reply::failures`], asked about `+1` by the device `Büro`.
const FAILURES: &str = r#"
500 {"code":"INTERNAL_SERVER_ERROR","message":"that user or group does not have a profile picture"}
500 {"code":"INTERNAL_SERVER_ERROR","message":"no avatar found"}
500 {"code":"INTERNAL_SERVER_ERROR","message":"the user has hidden their profile picture from you"}
400 {"code":"INVALID_JID","message":"Phone 1@s.whatsapp.net is not on whatsapp"}
400 {"code":"VALIDATION_ERROR","message":"phone: cannot be blank."}
500 {"code":"INTERNAL_SERVER_ERROR","message":"invalid JID 1@s.whatsapp.net: failed to parse"}
500 {"code":"INTERNAL_SERVER_ERROR","message":"info query returned status 429: rate-overlimit"}
500 {"code":"INTERNAL_SERVER_ERROR","message":"info query returned status 400: bad-request"}
500 {"code":"INTERNAL_SERVER_ERROR","message":"info query returned status 401: not-authorized"}
500 {"code":"INTERNAL_SERVER_ERROR","message":"info query returned status 403: forbidden"}
500 {"code":"INTERNAL_SERVER_ERROR","message":"info query returned status 404: item-not-found"}
500 {"code":"INTERNAL_SERVER_ERROR","message":"info query returned status 405: not-allowed"}
500 {"code":"INTERNAL_SERVER_ERROR","message":"info query returned status 406: not-acceptable"}
500 {"code":"INTERNAL_SERVER_ERROR","message":"info query returned status 410: gone"}
500 {"code":"INTERNAL_SERVER_ERROR","message":"info query returned status 419: resource-limit"}
500 {"code":"INTERNAL_SERVER_ERROR","message":"info query returned status 423: locked"}
500 {"code":"INTERNAL_SERVER_ERROR","message":"info query returned status 500: internal-server-error"}
500 {"code":"INTERNAL_SERVER_ERROR","message":"info query returned status 503: service-unavailable"}
500 {"code":"INTERNAL_SERVER_ERROR","message":"info query returned status 530: partial-server-error"}
500 {"code":"INTERNAL_SERVER_ERROR","message":"failed to get avatar: websocket not connected"}
408 {"code":"CONTEXT_ERROR","message":"Error timeout get avatar!"}
504 {"code":"GATEWAY_TIMEOUT","message":"Request timed out waiting for WhatsApp server response"}
401 {"code":"AUTHENTICATION_ERROR","message":"you are not logged in"}
401 {"code":"AUTHENTICATION_ERROR","message":"you are not connect to services server, please reconnect"}
401 Unauthorized
400 {"code":"DEVICE_ID_REQUIRED","message":"device_id is required via X-Device-Id header or device_id query"}
404 {"code":"DEVICE_NOT_FOUND","message":"device not found; create a device first from /api/devices or provide a valid X-Device-Id","results":{"device_id":"Büro"}}
500 {"code":"INVALID_WA_CLI","message":"your WhatsApp CLI is invalid or empty"}
503 {"code":"DEVICE_MANAGER_UNAVAILABLE","message":"Device manager is not initialized"}
"#;

#[tokio::test]
async fn every_failure_of_the_table_is_sent_byte_for_byte() {
    for null_results in [false, true] {
        let world = World::new(Options { null_results, ..Options::default() }).await;
        let mut sent = "\n".to_owned();
        for reply in Reply::failures() {
            world.gateway.person("1").replies(reply);
            let url = world.avatar_url("phone=%2B1");
            let answer = world.fetch(&url, &[("x-device-id", "B%C3%BCro")]).await.unwrap();
            writeln!(sent, "{} {}", answer.status.as_u16(), answer.text()).unwrap();
        }
        let expected =
            if null_results { FAILURES.replace("\"}\n", "\",\"results\":null}\n") } else { FAILURES.to_owned() };
        assert_eq!(sent, expected);
    }
}

#[tokio::test]
async fn held_lookups_wait_with_their_answer_settled_and_are_counted_when_they_arrive() {
    let world = World::new(Options::default()).await;
    let ada = world.gateway.person("1").picture("17");
    let held = ada.hold();
    let (one, two) = (world.ask("phone=1"), world.ask("phone=1"));
    ada.arrived(2).await;
    assert_eq!((world.gateway.in_flight(), ada.lookups()), (2, 2));
    ada.picture("18");
    assert!(!one.is_finished() && !two.is_finished());
    held.release();
    assert_eq!((one.await.unwrap().id(), two.await.unwrap().id()), ("17".to_owned(), "17".to_owned()));
    assert_eq!(world.avatar("phone=1").await.id(), "18");
    world.gateway.idle().await;
    assert_eq!((world.gateway.max_in_flight(), world.gateway.lookups()), (2, 3));
}

#[tokio::test]
async fn one_lookup_can_be_held_while_a_later_one_overtakes_it() {
    let world = World::new(Options::default()).await;
    let ada = world.gateway.person("1").picture("17");
    let held = ada.hold_next();
    let slow = world.ask("phone=1");
    ada.arrived(1).await;
    ada.picture("18");
    assert_eq!(world.avatar("phone=1").await.id(), "18");
    drop(held);
    assert_eq!(slow.await.unwrap().id(), "17");
    let everybody = world.gateway.hold();
    let bob = world.ask("phone=2");
    world.gateway.arrived(3).await;
    assert_eq!(world.gateway.in_flight(), 1);
    drop(everybody);
    assert_eq!(bob.await.unwrap().status, 200);
}

#[tokio::test]
async fn replies_come_in_turn_and_then_stay() {
    let world = World::new(Options::default()).await;
    let ada = world.gateway.person("1").replies_in_turn([Reply::NotSet, Reply::RateLimited], Reply::Present);
    ada.replies_once(Reply::Starting);
    let mut statuses = Vec::new();
    for _ in 0..5 {
        statuses.push(world.avatar("phone=1").await.status.as_u16());
    }
    assert_eq!(statuses, [500, 500, 503, 200, 200]);
}

#[tokio::test]
async fn each_device_sees_what_it_is_shown_and_is_counted_apart() {
    let world = World::new(Options::default()).await;
    let ada = world.gateway.person("1");
    ada.seen_by("stranger").replies(Reply::Hidden);
    assert_eq!(world.avatar("phone=1&device_id=stranger").await.status, 500);
    assert_eq!(world.avatar("phone=1&device_id=friend").await.status, 200);
    assert_eq!(world.avatar("phone=1").await.status, 200);
    assert_eq!((ada.seen_by("stranger").lookups(), ada.seen_by("friend").lookups(), ada.lookups()), (1, 1, 3));
    let log = world.gateway.log();
    assert_eq!(log.iter().map(|lookup| lookup.device.as_str()).collect::<Vec<_>>(), ["stranger", "friend", ""]);
    assert!(log.iter().all(|lookup| lookup.jid == Some(ada.jid()) && lookup.at == NOW && !lookup.preview));
}

#[tokio::test]
async fn devices_are_resolved_as_at_the_real_gateway() {
    let only = Devices::Known(vec!["main".to_owned()]);
    let world = World::new(Options { devices: only, ..Options::default() }).await;
    assert_eq!(world.avatar("phone=1").await.status, 200);
    assert_eq!(world.gateway.person("1").seen_by("main").lookups(), 1);
    assert_eq!(world.avatar("phone=1&device_id=other").await.code(), "DEVICE_NOT_FOUND");

    world.gateway.set_devices(Devices::Known(vec!["main".to_owned(), "büro".to_owned()]));
    assert_eq!(world.avatar("phone=1").await.code(), "DEVICE_ID_REQUIRED");
    let url = world.avatar_url("phone=1&device_id=other");
    let by_header = world.fetch(&url, &[("x-device-id", "b%C3%BCro")]).await.unwrap();
    assert_eq!(by_header.status, 200, "the header comes before the parameter");

    for (state, code) in [
        (DeviceState::LoggedOut, "AUTHENTICATION_ERROR"),
        (DeviceState::Offline, "AUTHENTICATION_ERROR"),
        (DeviceState::WithoutSession, "INVALID_WA_CLI"),
        (DeviceState::Connected, "SUCCESS"),
    ] {
        world.gateway.set_device_state("main", state);
        assert_eq!(world.avatar("phone=1&device_id=main").await.code(), code, "{state:?}");
    }
}

#[tokio::test]
async fn phone_and_booleans_are_read_in_every_spelling() {
    let world = World::new(Options::default()).await;
    let ada = world.gateway.person("6281234567890");
    for spelling in [
        "6281234567890",
        "%2B6281234567890",
        "+6281234567890",
        "6281234567890%40s.whatsapp.net",
        "6281234567890:12@s.whatsapp.net",
        "6281234567890@c.us",
    ] {
        assert_eq!(world.avatar(&format!("phone={spelling}")).await.status, 200, "{spelling}");
    }
    assert_eq!(ada.lookups(), 6);
    for (value, kind) in [("True", "preview"), ("1", "preview"), ("t", "preview"), ("F", "image"), ("", "image")] {
        let answer = world.avatar(&format!("phone=1&is_preview={value}")).await;
        assert_eq!(answer.json()["results"]["type"], kind, "{value:?}");
    }
    assert_eq!(world.avatar("phone=1&is_preview=yes").await.code(), "INTERNAL_SERVER_ERROR");
    assert_eq!(world.avatar("phone=").await.code(), "VALIDATION_ERROR");
    assert_eq!(world.avatar("phone=x@y").await.json()["message"], "invalid JID x@y: failed to parse");
}

#[tokio::test]
async fn base_path_and_password_guard_everything_but_health() {
    let credentials = vec![("ada".to_owned(), "pass:word".to_owned())];
    let world = World::new(Options { base_path: "/gowa/".to_owned(), credentials, ..Options::default() }).await;
    let root = format!("http://{}", world.gateway.address());
    assert_eq!(world.gateway.url(), format!("{root}/gowa"));
    assert_eq!(world.get(&format!("{root}/Health/")).await.text(), "OK");

    let refused = world.avatar("phone=1").await;
    assert_eq!((refused.status.as_u16(), refused.text()), (401, "Unauthorized"));
    assert_eq!(refused.header("www-authenticate"), "Basic realm=\"Restricted\"");
    let wrong = [("authorization", "Basic YWRhOndyb25n")];
    assert_eq!(world.fetch(&world.avatar_url("phone=1"), &wrong).await.unwrap().status, 401);
    assert_eq!(world.gateway.lookups(), 2, "refused lookups are lookups");

    let right = [("authorization", "Basic YWRhOnBhc3M6d29yZA==")];
    assert_eq!(world.fetch(&world.avatar_url("phone=1"), &right).await.unwrap().status, 200);
    assert_eq!(world.fetch(&format!("{root}/GOWA/User/Avatar/?phone=1"), &right).await.unwrap().status, 200);
    let elsewhere = world.fetch(&format!("{root}/user/avatar?phone=1"), &right).await.unwrap();
    assert_eq!((elsewhere.status.as_u16(), elsewhere.text()), (404, "Cannot GET /user/avatar"));
    world.gateway.set_credentials(&[]);
    assert_eq!(world.avatar("phone=1").await.status, 200);
}

#[tokio::test]
async fn the_allowance_rolls_with_the_clock_and_is_each_device_s_own() {
    let allowance = Some(Allowance { lookups: 2, per: Duration::from_secs(60) });
    let world = World::new(Options { allowance, ..Options::default() }).await;
    let status = async |device: &str| world.avatar(&format!("phone=1&device_id={device}")).await.status.as_u16();
    assert_eq!((status("a").await, status("a").await, status("a").await), (200, 200, 500));
    assert_eq!(status("b").await, 200);
    world.clock.advance(Duration::from_secs(59));
    assert_eq!(status("a").await, 500);
    world.clock.advance(Duration::from_secs(1));
    assert_eq!((status("a").await, status("a").await, status("a").await), (200, 200, 500));
    world.gateway.set_allowance(None);
    assert_eq!(status("a").await, 200);
}

#[tokio::test]
async fn everybody_can_be_told_the_same() {
    let world = World::new(Options { strangers: Reply::Unregistered, ..Options::default() }).await;
    world.gateway.person("1").replies(Reply::Present);
    assert_eq!(world.avatar("phone=2").await.json()["message"], "Phone 2@s.whatsapp.net is not on whatsapp");
    world.gateway.set_mode(Mode::Everybody(Reply::Starting));
    assert_eq!(world.avatar("phone=1").await.code(), "DEVICE_MANAGER_UNAVAILABLE");
    world.gateway.set_mode(Mode::Unreachable);
    assert!(world.fetch(&world.avatar_url("phone=1"), &[]).await.is_err());
    world.gateway.set_mode(Mode::Normal);
    assert_eq!(world.avatar("phone=1").await.status, 200);
}

#[tokio::test]
async fn a_success_can_be_written_otherwise() {
    let world = World::new(Options::default()).await;
    let ada = world.gateway.person("1").picture("17").address(Address::Text("https://h/p?a&oe=1".to_owned()));
    for (form, written) in [
        (
            Form::Reordered,
            r#"{"results":{"type":"image","id":"17","url":"https://h/p?a\u0026oe=1"},"message":"Success get avatar","code":"SUCCESS"}"#,
        ),
        (
            Form::NumericId,
            r#"{"code":"SUCCESS","message":"Success get avatar","results":{"url":"https://h/p?a\u0026oe=1","id":17,"type":"image"}}"#,
        ),
        (Form::NullResults, r#"{"code":"SUCCESS","message":"Success get avatar","results":null}"#),
        (Form::WithoutResults, r#"{"code":"SUCCESS","message":"Success get avatar"}"#),
        (Form::WithoutUrl, r#"{"code":"SUCCESS","message":"Success get avatar","results":{"id":"17","type":"image"}}"#),
    ] {
        ada.replies(Reply::PresentAs(form));
        assert_eq!(world.avatar("phone=1").await.text(), written);
    }
    ada.replies(Reply::Present).preview_picture(Some("16"));
    assert_eq!(world.avatar("phone=1&is_preview=true").await.id(), "16");
    assert_eq!(world.avatar("phone=1").await.id(), "17");
}
