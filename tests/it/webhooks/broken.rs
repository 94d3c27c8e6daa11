//! Receivers that fail in every way a receiver can: nothing is lost, and nobody else notices.

use std::collections::BTreeSet;
use std::time::Duration;

use avatar_proxy::outbound::Config;
use serde_json::json;

use super::{ADA, BOB, EVE, Endpoint, MINUTE, all_have, endpoint, gets, ids, ids_of, in_order, in_time, made, world};
use crate::support::app::World;
use crate::support::authority::Authority;
use crate::support::eventually::eventually;
use crate::support::receiver::{Receiver, Reply};

const PEOPLE: [&str; 3] = [ADA, BOB, EVE];

const DRIP: Duration = Duration::from_millis(20);

/// As real endpoints are called, with less patience.
async fn impatient_world(authority: &Authority) -> World {
    let (connect_timeout, timeout) = (Duration::from_millis(700), Duration::from_secs(1));
    let authorities = vec![authority.certificate()];
    world().await.outbound(Config { connect_timeout, timeout, authorities, ..Config::default() })
}

/// A receiver that fails, and what is told of its last attempt.
struct Broken {
    receiver: Receiver,
    endpoint: Endpoint,
    result: &'static str,
}

/// How a receiver fails that answers.
fn broken_replies(elsewhere: &Receiver) -> Vec<(Reply, &'static str)> {
    let to_elsewhere = [("location", &*elsewhere.url("/"))];
    let many_headers = format!("HTTP/1.1 200 OK\r\n{}\r\n", "x-more: and more\r\n".repeat(100_000));
    vec![
        (Reply::status(500), "500"),
        (Reply::status(404), "404"),
        (Reply::status(410), "410"),
        (Reply::status(429), "429"),
        (Reply::status(502), "502"),
        (Reply::status(504), "504"),
        (Reply::new(302, &to_elsewhere, ""), "302"),
        (Reply::new(307, &to_elsewhere, ""), "307"),
        (Reply::status(304), "304"),
        (Reply::slow_body(500, DRIP), "500"),
        (Reply::endless(500), "500"),
        (Reply::cut_off(500), "500"),
        (Reply::overlong(500), "500"),
        (Reply::hang(), "late"),
        (Reply::slow_head(200, DRIP), "late"),
        (Reply::forever("HTTP/1.1 100 Continue\r\n\r\n"), "late"),
        (Reply::close(), "broken"),
        (Reply::reset(), "broken"),
        (Reply::half_a_head(), "broken"),
        (Reply::raw("<html>It works!</html>\r\n"), "broken"),
        (Reply::raw("\x16\x03\x01\x02\x00\x01\x00\x01\u{7f}\r\n\r\n"), "broken"),
        (Reply::raw("HTTP/1.1 200 OK\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\nab"), "broken"),
        (Reply::raw(many_headers), "broken"),
    ]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn however_a_receiver_fails_nothing_is_lost_once_it_mends_and_nobody_else_waits() {
    let authority = Authority::new("ours");
    let world = impatient_world(&authority).await;
    let (healthy, elsewhere) = (Receiver::new().await, Receiver::new().await);
    let app = world.start().await;
    all_have(&app, &world, &PEOPLE, "1").await;
    endpoint(&app, &healthy).await;
    let mut broken = vec![];
    for (reply, result) in broken_replies(&elsewhere) {
        let receiver = Receiver::new().await;
        receiver.always(reply);
        broken.push(Broken { endpoint: endpoint(&app, &receiver).await, receiver, result });
    }
    let garbled = Receiver::with_tls(&authority, &["localhost"]).await;
    garbled.greets(Some(b"SSH-2.0-OpenSSH_9.6\r\n"));
    let url = garbled.url_by("localhost", "/hook");
    broken.push(Broken { endpoint: made(&app, &json!({"url": url})).await, receiver: garbled, result: "tls" });
    let mut away = Receiver::new().await;
    let endpoint = endpoint(&app, &away).await;
    away.leave().await;
    broken.push(Broken { endpoint, receiver: away, result: "unreachable" });

    all_have(&app, &world, &PEOPLE, "2").await;
    gets(&healthy, 3).await;
    for Broken { endpoint, result, .. } in &broken {
        let fails = format!("an endpoint fails: {result}");
        eventually(&fails, async || endpoint.last(&app).await == *result).await;
    }
    // Time passes, and with it come other changes and further attempts.
    all_have(&app, &world, &PEOPLE, "3").await;
    gets(&healthy, 6).await;
    assert_eq!(healthy.requests().len(), 6, "each once");
    for Broken { endpoint, result, .. } in &broken {
        let shown = endpoint.shown(&app).await;
        let reason = if *result == "410" { json!("gone") } else { json!(null) };
        assert_eq!((&shown["reason"], &shown["dead_letters"]), (&reason, &json!(0)), "{shown}");
        assert!(shown["since"].is_string(), "{shown}");
    }
    assert_eq!(elsewhere.connections(), 0, "nobody is led elsewhere");

    let all = ids_of(&app.change_log().await);
    let mut mended = vec![];
    for Broken { receiver, endpoint, result } in &mut broken {
        mended.push(receiver.always(Reply::status(200)));
        match *result {
            "unreachable" => receiver.come_back(),
            "tls" => receiver.greets(None),
            "410" => assert_eq!(endpoint.patch(&app, &json!({"enabled": true})).await["state"], "active"),
            _ => {}
        }
    }
    for (Broken { receiver, endpoint, result }, before) in broken.iter().zip(mended) {
        let since = || receiver.requests().split_off(before);
        let what = format!("everything arrives: {result}");
        in_time(&world, 10 * MINUTE, &what, async || ids(&since()).is_superset(&all)).await;
        assert!(in_order(&since()).values().all(|versions| *versions == [1, 2]), "{result}");
        eventually("it is well again", async || {
            let shown = endpoint.shown(&app).await;
            (&shown["state"], &shown["pending"], &shown["lag"]["events"]) == (&json!("active"), &json!(0), &json!(0))
        })
        .await;
    }
    app.stop().await;
}

#[tokio::test]
async fn a_receiver_that_says_yes_is_believed_however_it_goes_on() {
    let authority = Authority::new("ours");
    let world = impatient_world(&authority).await;
    let app = world.start().await;
    all_have(&app, &world, &PEOPLE, "1").await;
    let mut receivers = vec![];
    for reply in [
        Reply::status(204),
        Reply::new(202, &[], "accepted"),
        Reply::new(200, &[("retry-after", "86400")], ""),
        Reply::raw(
            "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\nHTTP/1.1 200 OK\r\n\r\n",
        ),
        Reply::raw("HTTP/1.0 200\r\n\r\nold and simple"),
        Reply::status(200).and_close(),
        Reply::cut_off(200),
        Reply::overlong(200),
        Reply::endless(200),
        Reply::slow_body(200, DRIP),
        Reply::status(200).and(b"HTTP/1.1 410 Gone\r\ncontent-length: 0\r\n\r\n"),
    ] {
        let receiver = Receiver::new().await;
        receiver.always(reply.clone());
        receivers.push((endpoint(&app, &receiver).await, receiver, reply));
    }
    for id in ["2", "3"] {
        all_have(&app, &world, &PEOPLE, id).await;
    }
    for (endpoint, receiver, reply) in &receivers {
        let what = format!("everything is delivered: {reply:?}");
        eventually(&what, async || endpoint.shown(&app).await["lag"]["events"] == 0).await;
        let requests = receiver.requests();
        assert_eq!((requests.len(), endpoint.state(&app).await.as_str()), (6, "active"), "each once: {reply:?}");
        assert_eq!(in_order(&requests).len(), 3);
    }
    app.stop().await;
}

#[tokio::test]
async fn a_receiver_that_hangs_holds_few_connections_then_one_and_in_the_end_none() {
    const UNDER_WAY_MAX: usize = 32;
    let world = impatient_world(&Authority::new("ours")).await;
    let (receiver, app) = (Receiver::new().await, world.start().await);
    let people: Vec<String> = (0..60).map(|person| format!("{}", 999_100 + person)).collect();
    let people: Vec<&str> = people.iter().map(String::as_str).collect();
    all_have(&app, &world, &people, "1").await;
    receiver.always(Reply::hang());
    let endpoint = endpoint(&app, &receiver).await;
    all_have(&app, &world, &people, "2").await;
    eventually("it fails", async || endpoint.state(&app).await == "failing").await;
    receiver.is_left_alone().await;
    let most = receiver.most_open();
    assert!((2..=UNDER_WAY_MAX).contains(&most), "{most} connections");
    let before = receiver.requests().len();
    let probes = before + 2;
    in_time(&world, MINUTE / 6, "it is probed", async || receiver.requests().len() >= probes).await;
    receiver.is_left_alone().await;
    assert_eq!(receiver.most_open(), 1, "one probe at a time");

    let before = receiver.always(Reply::status(200));
    let all = ids_of(&app.change_log().await);
    let since = || receiver.requests().split_off(before);
    in_time(&world, 10 * MINUTE, "everything arrives", async || ids(&since()).is_superset(&all)).await;
    assert_eq!(since().len(), all.len(), "each once");
    let people: BTreeSet<String> = in_order(&since()).into_keys().collect();
    assert_eq!(people.len(), 60);
    app.stop().await;
}
