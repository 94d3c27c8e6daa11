//! Receivers that fail in every way: each call ends, in time, with the truth, and leaves nothing behind.

use std::time::Duration;

use avatar_proxy::outbound::{BODY_LIMIT, Config, Failure, HEADER_LIMIT, Outbound, Reach, parse_url};
use bytes::Bytes;
use http::header::{HeaderMap, HeaderValue};

use super::{impatient, post, status, with};
use crate::support::receiver::{Receiver, Reply};

const DRIP: Duration = Duration::from_millis(20);

async fn anywhere(outbound: &Outbound, receiver: &Receiver) -> Result<u16, Failure> {
    status(outbound, &receiver.url("/hook"), Reach::Anywhere).await
}

#[tokio::test]
async fn what_is_sent_arrives_as_it_was_given() {
    let receiver = Receiver::new().await;
    let outbound = with(Config::default());
    let url = parse_url(&receiver.url("/hook/a%20b?key=1"), Reach::Anywhere).unwrap();
    let mut headers = HeaderMap::new();
    headers.insert("webhook-id", HeaderValue::from_static("17"));
    let body = Bytes::from_static(b"{\"event\":\"avatar.changed\"}");
    let answer = outbound.post(&url, headers, body.clone(), Reach::Anywhere).await.unwrap();
    assert!(answer.status.is_success() && answer.retry_after.is_none());
    let request = receiver.requests().pop().unwrap();
    assert_eq!((request.method.as_str(), request.path.as_str()), ("POST", "/hook/a%20b?key=1"));
    assert_eq!(request.header("host"), receiver.address().to_string());
    assert_eq!(request.header("webhook-id"), "17");
    assert!(request.header("user-agent").starts_with("avatar-proxy/"));
    assert_eq!(request.body, body);
}

#[tokio::test]
async fn every_status_is_the_receivers_word() {
    let receiver = Receiver::new().await;
    let outbound = with(Config::default());
    for code in [200, 202, 204, 304, 400, 401, 404, 410, 429, 500, 502, 503, 504] {
        receiver.next([Reply::status(code)]);
        assert_eq!(anywhere(&outbound, &receiver).await, Ok(code));
    }
    receiver.next([Reply::new(429, &[("retry-after", "7")], "slow down")]);
    let answer = post(&outbound, &receiver.url("/"), Reach::Anywhere).await.unwrap();
    assert_eq!(answer.retry_after, Some(Duration::from_secs(7)));
}

#[tokio::test]
async fn a_redirect_is_an_answer_and_leads_nowhere() {
    let (receiver, elsewhere) = (Receiver::new().await, Receiver::new().await);
    let outbound = with(Config::default());
    for code in [301, 302, 303, 307, 308] {
        receiver.next([Reply::new(code, &[("location", &elsewhere.url("/"))], "")]);
        assert_eq!(anywhere(&outbound, &receiver).await, Ok(code));
    }
    assert_eq!((elsewhere.connections(), receiver.requests().len()), (0, 5));
}

#[tokio::test]
async fn a_whole_head_counts_whatever_becomes_of_the_body() {
    let outbound = with(Config::default());
    for code in [200, 500] {
        for reply in [
            Reply::cut_off(code),
            Reply::overlong(code),
            Reply::endless(code),
            Reply::slow_body(code, DRIP),
            Reply::status(code).and_close(),
        ] {
            let receiver = Receiver::new().await;
            receiver.always(reply.clone());
            assert_eq!(anywhere(&outbound, &receiver).await, Ok(code), "{reply:?}");
            receiver.is_left_alone().await;
            assert_eq!(receiver.requests().len(), 1, "{reply:?}");
        }
    }
}

#[tokio::test]
async fn whoever_gives_no_answer_was_asked_once_and_is_left_alone() {
    let outbound = impatient();
    let long_head = format!("HTTP/1.1 200 OK\r\nx-long: {}\r\n\r\n", "x".repeat(4 * HEADER_LIMIT));
    for (reply, failure) in [
        (Reply::half_a_head(), Failure::Broken),
        (Reply::close(), Failure::Broken),
        (Reply::reset(), Failure::Broken),
        (Reply::raw("SSH-2.0-OpenSSH_9.6\r\n\r\n"), Failure::Broken),
        (Reply::raw("HTTP/1.1 200 OK\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\nab"), Failure::Broken),
        (Reply::raw(long_head), Failure::Broken),
        (Reply::forever("x-more: and more\r\n"), Failure::Broken),
        (Reply::forever("HTTP/1.1 100 Continue\r\n\r\n"), Failure::Late),
        (Reply::slow_head(200, DRIP), Failure::Late),
        (Reply::hang(), Failure::Late),
    ] {
        let receiver = Receiver::new().await;
        receiver.always(reply.clone());
        assert_eq!(anywhere(&outbound, &receiver).await, Err(failure), "{reply:?}");
        receiver.is_left_alone().await;
        assert_eq!(receiver.requests().len(), 1, "{reply:?}");
    }
}

#[tokio::test]
async fn whoever_refuses_is_unreachable_until_it_is_back() {
    let mut receiver = Receiver::new().await;
    let outbound = with(Config::default());
    assert_eq!(anywhere(&outbound, &receiver).await, Ok(200));
    receiver.leave().await;
    // The connection that was kept may break first; a new one cannot come about.
    let ended = anywhere(&outbound, &receiver).await;
    assert!(matches!(ended, Err(Failure::Broken | Failure::Unreachable)), "{ended:?}");
    assert_eq!(anywhere(&outbound, &receiver).await, Err(Failure::Unreachable));
    receiver.come_back();
    assert_eq!(anywhere(&outbound, &receiver).await, Ok(200));
}

#[tokio::test]
async fn an_answer_that_nobody_asked_for_is_nobodys_answer() {
    let receiver = Receiver::new().await;
    let outbound = with(Config::default());
    receiver.next([Reply::status(200).and(b"HTTP/1.1 410 Gone\r\ncontent-length: 0\r\n\r\n"), Reply::status(202)]);
    assert_eq!(anywhere(&outbound, &receiver).await, Ok(200));
    assert_eq!(anywhere(&outbound, &receiver).await, Ok(202));
    let connections: Vec<usize> = receiver.requests().iter().map(|request| request.connection).collect();
    assert_eq!(connections, [1, 2]);
}

#[tokio::test]
async fn connections_are_used_again_after_short_answers_only() {
    const CALLS: usize = 30;
    let outbound = with(Config::default());
    for (length, again) in [(1, true), (BODY_LIMIT, true), (4 * BODY_LIMIT, false)] {
        let body = "x".repeat(length);
        for reply in [Reply::new(200, &[], &body), Reply::chunked(200, &body)] {
            let receiver = Receiver::new().await;
            receiver.always(reply.clone());
            for _ in 0..CALLS {
                assert_eq!(anywhere(&outbound, &receiver).await, Ok(200));
            }
            assert_eq!(receiver.requests().len(), CALLS);
            let connections = receiver.connections();
            // Now and then one is not back yet when the next call begins.
            let expected = if again { connections < CALLS / 2 } else { connections >= CALLS };
            assert!(expected, "{connections} connections for {length} bytes in {reply:?}");
        }
    }
}

#[tokio::test]
async fn a_call_that_is_dropped_ends_its_connection() {
    let receiver = Receiver::new().await;
    receiver.always(Reply::hang());
    let outbound = with(Config::default());
    let url = receiver.url("/");
    let call = tokio::spawn({
        let outbound = outbound.clone();
        async move { status(&outbound, &url, Reach::Anywhere).await }
    });
    crate::support::eventually::eventually("it is called", async || receiver.requests().len() == 1).await;
    call.abort();
    receiver.is_left_alone().await;
}
