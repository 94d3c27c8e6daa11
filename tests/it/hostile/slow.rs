//! Clients that take their time, or go away.

use std::time::{Duration, Instant};

use avatar_proxy::http::Timeouts;
use tokio::time::sleep;

use super::Besieged;
use crate::support::app::World;
use crate::support::eventually::eventually;
use crate::support::wire::Wire;

const HEAD_TIMEOUT: Duration = Duration::from_millis(300);

const HEALTH: &str = "GET /health HTTP/1.1\r\nhost: localhost\r\n\r\n";

async fn impatient() -> Besieged {
    Besieged::of(World::new().await.head_timeout(HEAD_TIMEOUT)).await
}

#[tokio::test]
async fn a_head_that_trickles_in_ends_with_the_head_timeout() {
    let proxy = impatient().await;
    let started = Instant::now();
    let mut wire = proxy.wire().await;
    wire.send("GET /health HTTP/1.1\r\nhost: localhost\r\n").await;
    let trickle = async {
        loop {
            sleep(HEAD_TIMEOUT / 10).await;
            if started.elapsed() > Duration::from_secs(15) {
                break;
            }
        }
    };
    tokio::select! {
        said = wire.rest() => assert!(said.is_empty(), "{}", String::from_utf8_lossy(&said)),
        () = trickle => panic!("it is still open"),
    }
    assert!(started.elapsed() >= HEAD_TIMEOUT);
    proxy.survives().await;
}

#[tokio::test]
async fn many_slow_heads_are_all_given_up_while_others_are_answered() {
    let proxy = impatient().await;
    let mut wires = vec![];
    for index in 0..200 {
        let mut wire = proxy.wire().await;
        // In every stage of a head, the first byte not even sent, and of either HTTP.
        let whole = if index % 2 == 0 {
            &b"GET /health HTTP/1.1\r\nhost: localhost\r\n"[..]
        } else {
            b"PRI * HTTP/2.0\r\n\r\nSM"
        };
        wire.send(&whole[..index / 2 % whole.len()]).await;
        wires.push(wire);
    }
    proxy.avatar("999001").await.expect(200, "hit; ttl=");
    for mut wire in wires {
        wire.rest().await;
    }
    proxy.survives().await;
}

#[tokio::test]
async fn every_byte_renews_nothing() {
    let proxy = impatient().await;
    let mut wire = proxy.wire().await;
    let head = b"GET /health HTTP/1.1\r\nhost: localhost\r\nx: ".to_vec();
    let endless = head.into_iter().chain(std::iter::repeat(b'a'));
    let connections = &proxy.app.app().metrics().http_connections;
    let started = Instant::now();
    for byte in endless {
        wire.send([byte]).await;
        sleep(HEAD_TIMEOUT / 30).await;
        if connections.get() < 2 && started.elapsed() >= HEAD_TIMEOUT {
            break;
        }
        assert!(started.elapsed() < Duration::from_secs(20), "it is still read");
    }
    proxy.survives().await;
}

#[tokio::test]
async fn a_later_head_has_no_more_time_than_the_first() {
    let proxy = impatient().await;
    for (before, after) in [("", "G"), ("GET /health HTTP", "/1.1\r\n"), ("GET /health HTTP/1.1\r\n", "")] {
        let mut wire = proxy.wire().await;
        // What comes along with the request before has begun as well.
        wire.send(format!("{HEALTH}{before}")).await;
        assert_eq!(wire.answer().await.expect("an answer").status, 200);
        wire.send(after).await;
        wire.rest().await;
    }
    proxy.survives().await;
}

#[tokio::test]
async fn a_connection_may_rest_between_requests_for_much_longer_than_a_head_may_take() {
    let proxy = impatient().await;
    let mut wire = proxy.wire().await;
    for _ in 0..3 {
        wire.send(HEALTH).await;
        assert_eq!(wire.answer().await.expect("it is open").status, 200);
        sleep(HEAD_TIMEOUT * 2).await;
    }
    drop(wire);
    proxy.survives().await;
}

#[tokio::test]
async fn an_idle_connection_is_not_kept_for_ever() {
    let keep_alive = Duration::from_millis(300);
    let proxy = Besieged::of(World::new().await.timeouts(Timeouts { keep_alive, ..Timeouts::default() })).await;
    let started = Instant::now();
    let mut wire = proxy.wire().await;
    wire.send(HEALTH).await;
    assert_eq!(wire.answer().await.expect("an answer").status, 200);
    assert!(wire.answer().await.is_none());
    assert!(started.elapsed() >= keep_alive);
    proxy.survives().await;
}

#[tokio::test]
async fn whoever_reads_no_answers_is_answered_no_more_and_closed() {
    const ASKED: u16 = 20_000;
    let timeouts = Timeouts { write: Duration::from_millis(500), ..Timeouts::default() };
    let proxy = Besieged::of(World::new().await.timeouts(timeouts)).await;
    let mut wire = Wire::narrow(proxy.app().address()).await;
    wire.send("GET /metrics HTTP/1.1\r\nhost: localhost\r\n\r\n".repeat(ASKED.into())).await;
    proxy.is_unharmed().await;
    let answered = proxy.metric(r#"avatar_proxy_http_requests_total{route="/metrics",status="200"}"#).await;
    assert!(answered > 1.0, "some were answered before nothing went out any more");
    assert!(answered < f64::from(ASKED) / 2.0, "{answered} answers for somebody who reads none");
    drop(wire);
    proxy.survives().await;
}

#[tokio::test]
async fn a_client_that_has_said_all_it_wants_waits_for_the_gateway() {
    let proxy = Besieged::new().await;
    let slow = proxy.world.gateway.person("999002").picture("18");
    let hold = slow.hold();
    let mut wire = proxy.wire().await;
    wire.send("GET /user/avatar?phone=999002 HTTP/1.1\r\nhost: localhost\r\n\r\n").await;
    wire.finish_sending().await;
    slow.arrived(1).await;
    // Longer than it would be waited for in the budget's queue.
    sleep(Duration::from_secs(3)).await;
    hold.release();
    let answer = wire.answer().await.expect("an answer");
    assert!(answer.status == 200 && answer.body.contains(r#""id":"18""#), "{answer:?}");
    assert!(wire.answer().await.is_none(), "nothing more can be asked");
    proxy.survives().await;
}

#[tokio::test]
async fn a_client_that_has_said_all_it_wants_is_answered() {
    let proxy = Besieged::new().await;
    let mut wire = proxy.wire().await;
    wire.send("GET /user/avatar?phone=999001 HTTP/1.1\r\nhost: localhost\r\n\r\n").await;
    wire.finish_sending().await;
    assert_eq!(wire.answer().await.expect("an answer").status, 200);
    assert!(wire.answer().await.is_none());
    proxy.survives().await;
}

#[tokio::test]
async fn a_body_that_is_all_there_is_read_whatever_follows_and_one_that_is_cut_off_is_answered_at_once() {
    let proxy = Besieged::new().await;
    let json = r#"{"interval":"6h"}"#;
    for (body, chunked, status) in
        [(json, false, 200), (json, true, 200), (&json[..9], false, 400), (&json[..9], true, 400)]
    {
        let mut wire = proxy.wire().await;
        let framing =
            if chunked { "transfer-encoding: chunked".into() } else { format!("content-length: {}", json.len()) };
        let head = "PUT /avatars/999001/watch HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json";
        wire.send(format!("{head}\r\n{framing}\r\n\r\n")).await;
        let end = if body == json { "0\r\n\r\n" } else { "" };
        wire.send(if chunked { format!("{:x}\r\n{body}\r\n{end}", body.len()) } else { body.to_owned() }).await;
        wire.finish_sending().await;
        let answer = wire.answer().await.expect("an answer");
        assert_eq!(answer.status, status, "{answer:?}");
        assert_eq!(answer.body.contains("cut off"), status == 400, "{answer:?}");
    }
    proxy.survives().await;
}

#[tokio::test]
async fn a_client_that_goes_away_in_the_middle_leaves_nothing() {
    let proxy = Besieged::new().await;
    for bytes in [
        "",
        "G",
        "GET /health HTTP/1.1\r\nhost: loc",
        "GET /health HTTP/1.1\r\nhost: localhost\r\n\r\n",
        "POST /health HTTP/1.1\r\nhost: localhost\r\ncontent-length: 100\r\n\r\nabc",
        "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    ] {
        for _ in 0..20 {
            let mut wire = proxy.wire().await;
            wire.send(bytes).await;
        }
        let mut half = proxy.wire().await;
        half.send(bytes).await;
        half.finish_sending().await;
        half.rest().await;
    }
    proxy.survives().await;
}

#[tokio::test]
async fn a_client_that_does_not_wait_for_the_gateway_leaves_nothing() {
    let proxy = Besieged::new().await;
    let slow = proxy.world.gateway.person("999002").picture("18");
    let hold = slow.hold();
    let mut wires = vec![];
    for _ in 0..20 {
        let mut wire = proxy.wire().await;
        wire.send("GET /user/avatar?phone=999002 HTTP/1.1\r\nhost: localhost\r\n\r\n").await;
        wires.push(wire);
    }
    slow.arrived(1).await;
    // As far as TCP tells, they may be listening still.
    drop(wires);
    proxy.avatar("999001").await.expect(200, "hit; ttl=");
    hold.release();
    eventually("the look is over", async || proxy.avatar_asking("999002", "only-if-cached").await.status == 200).await;
    assert_eq!(slow.lookups(), 1);
    proxy.survives().await;
}
