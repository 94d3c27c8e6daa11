//! `/webhooks`: endpoints that come, change and go without a restart, and are kept over one.

use std::time::{Duration, Instant};

use http::Method;
use serde_json::json;

use super::{ADA, BOB, all_have, ask, endpoint, gets, lines, made, world};
use crate::support::app::TestApp;
use crate::support::eventually::eventually;
use crate::support::hand::change;
use crate::support::receiver::{Receiver, Reply};

#[tokio::test]
async fn an_endpoint_is_made_shown_listed_and_dropped() {
    let (world, receiver) = (world().await, Receiver::new().await);
    let app = world.start().await;
    let url = receiver.url("/hook?key=17");
    let wish = json!({"url": url, "events": ["avatar.set", "avatar.changed"], "jids": [ADA], "from": "now"});
    let answer = ask(&app, Method::POST, "/webhooks", &wish).await;
    assert_eq!(answer.status, 201, "{answer:?}");
    let mut told = answer.json();
    let id = told["id"].as_str().unwrap().to_owned();
    assert_eq!(answer.header("location"), format!("/webhooks/{id}"));
    let secret = told.as_object_mut().unwrap().remove("secret").expect("it is told once");
    assert!(secret.as_str().unwrap().starts_with("whsec_"));
    assert_eq!(
        told,
        json!({
            "id": id, "url": url, "events": ["avatar.set", "avatar.changed"], "jids": [format!("{ADA}@s.whatsapp.net")],
            "from_flag": false, "created_at": world.clock.now().rfc3339(), "state": "active", "reason": null,
            "since": null, "last_result": null, "lag": {"events": 0, "seconds": 0.0}, "pending": 0, "dead_letters": 0,
        })
    );
    assert_eq!(app.get(&format!("/webhooks/{id}")).await.json(), told, "the same without its secret");
    assert_eq!(app.get("/webhooks").await.json(), json!({"webhooks": [told], "next": null}));
    for target in [format!("/webhooks/{id}"), "/webhooks".to_owned()] {
        let head = app.send(Method::HEAD, &target, &[]).await.unwrap();
        assert_eq!((head.status.as_u16(), head.body.len()), (200, 0), "{target}");
    }
    let target = format!("/webhooks/{id}");
    let dropped = app.send(Method::DELETE, &target, &[]).await.unwrap();
    assert_eq!((dropped.status.as_u16(), dropped.body.len()), (204, 0));
    for method in [Method::GET, Method::DELETE] {
        assert_eq!(app.send(method, &target, &[]).await.unwrap().code(), "NOT_FOUND");
    }
    assert_eq!(app.get("/webhooks").await.json()["webhooks"], json!([]));
    all_have(&app, &world, &[ADA], "1").await;
    change(&app, &world, ADA, "2").await;
    app.stop().await;
    assert_eq!(receiver.connections(), 0, "whoever is dropped is sent nothing");
}

#[tokio::test]
async fn an_endpoint_is_dropped_without_waiting_for_what_it_does_not_answer() {
    let (world, receiver) = (world().await, Receiver::new().await);
    let app = world.start().await;
    all_have(&app, &world, &[ADA], "1").await;
    let endpoint = endpoint(&app, &receiver).await;
    receiver.always(Reply::hang());
    change(&app, &world, ADA, "2").await;
    gets(&receiver, 1).await;
    let began = Instant::now();
    let dropped = app.send(Method::DELETE, &format!("/webhooks/{}", endpoint.id), &[]).await.unwrap();
    assert_eq!(dropped.status, 204);
    assert!(began.elapsed() < Duration::from_secs(4), "{:?}", began.elapsed());
    eventually("its connection is closed", async || receiver.open() == 0).await;
    app.stop().await;
}

#[tokio::test]
async fn endpoints_go_on_after_a_restart_as_they_were() {
    let (world, receiver) = (world().await, Receiver::new().await);
    let app = world.start().await;
    all_have(&app, &world, &[ADA, BOB], "1").await;
    let active = endpoint(&app, &receiver).await;
    let disabled = made(&app, &json!({"url": receiver.url("/disabled"), "events": ["avatar.changed"]})).await;
    disabled.patch(&app, &json!({"enabled": false})).await;
    all_have(&app, &world, &[ADA, BOB], "2").await;
    gets(&receiver, 2).await;
    eventually("it is written down", async || active.last(&app).await == "200").await;
    let before = app.get("/webhooks").await.json();
    assert_eq!(disabled.shown(&app).await["lag"]["events"], 2);
    app.stop().await;

    let app = world.start().await;
    assert_eq!(app.get("/webhooks").await.json(), before);
    change(&app, &world, ADA, "3").await;
    gets(&receiver, 3).await;
    let shown = disabled.patch(&app, &json!({"enabled": true})).await;
    assert_eq!((&shown["state"], &shown["reason"]), (&json!("active"), &json!(null)));
    let requests = gets(&receiver, 6).await;
    app.stop().await;
    let to = |path: &str| {
        let requests: Vec<_> = requests.iter().filter(|request| request.path == path).cloned().collect();
        lines(&requests)
    };
    let all = ["avatar.changed 999001 2", "avatar.changed 999002 2", "avatar.changed 999001 3"];
    assert_eq!(to("/hook"), all, "each once");
    assert_eq!(to("/disabled"), all, "whoever is disabled misses nothing");
    assert!(requests.iter().all(|request| request.method == "POST"));
}

#[tokio::test]
async fn an_endpoint_gets_what_it_wants_and_may_want_something_else() {
    let (world, receiver) = (world().await, Receiver::new().await);
    let app = world.start().await;
    all_have(&app, &world, &[ADA, BOB], "1").await;
    change(&app, &world, ADA, "2").await;
    let url = receiver.url("/");
    let endpoint =
        made(&app, &json!({"url": url, "jids": [ADA], "events": ["avatar.changed"], "from": "earliest"})).await;
    gets(&receiver, 1).await;
    all_have(&app, &world, &[BOB, ADA], "3").await;
    gets(&receiver, 2).await;
    let shown = endpoint.patch(&app, &json!({"jids": [format!("+{BOB}")], "events": []})).await;
    assert_eq!((&shown["jids"], &shown["events"]), (&json!([format!("{BOB}@s.whatsapp.net")]), &json!([])));
    all_have(&app, &world, &[ADA, BOB], "4").await;
    gets(&receiver, 3).await;
    app.stop().await;
    let got = lines(&receiver.requests());
    assert_eq!(got, ["avatar.changed 999001 2", "avatar.changed 999001 3", "avatar.changed 999002 4"]);
}

#[tokio::test]
async fn a_test_says_at_once_what_came_of_it() {
    let (world, receiver) = (world().await, Receiver::new().await);
    let app = world.start().await;
    let endpoint = endpoint(&app, &receiver).await;
    endpoint.patch(&app, &json!({"enabled": false})).await;
    let before = endpoint.shown(&app).await;
    let target = format!("/webhooks/{}/test", endpoint.id);
    receiver.next([Reply::status(204), Reply::status(410), Reply::close()]);
    for (delivered, result) in [(true, "204"), (false, "410"), (false, "broken")] {
        let tested = app.send(Method::POST, &target, &[]).await.unwrap();
        let told = tested.json();
        assert_eq!(
            (tested.status.as_u16(), &told["delivered"], &told["result"]),
            (200, &json!(delivered), &json!(result))
        );
        assert!(told["seconds"].is_f64());
    }
    assert_eq!(endpoint.shown(&app).await, before, "it says nothing of how the endpoint stands");
    assert!(lines(&receiver.requests()).iter().all(|line| line == "avatar.test"));
    app.stop().await;
}

#[tokio::test]
async fn what_was_delivered_is_sent_again_on_demand_behind_a_cursor_or_from_the_earliest() {
    let (world, receiver) = (world().await, Receiver::new().await);
    let app = world.start().await;
    all_have(&app, &world, &[ADA], "1").await;
    let endpoint = endpoint(&app, &receiver).await;
    for id in ["2", "3", "4"] {
        change(&app, &world, ADA, id).await;
    }
    let requests = gets(&receiver, 3).await;
    let cursor = super::event(&requests[1])["payload"]["cursor"].clone();
    endpoint.replay(&app, &json!({"after": cursor})).await;
    gets(&receiver, 4).await;
    endpoint.replay(&app, &json!({"after": ""})).await;
    let requests = gets(&receiver, 7).await;
    app.stop().await;
    let all = ["avatar.changed 999001 2", "avatar.changed 999001 3", "avatar.changed 999001 4"];
    assert_eq!(lines(&requests), [&all[..], &all[2..], &all[..]].concat());
    assert_eq!(super::ids(&requests).len(), 3, "under the same ids");
    for (again, first) in [(3, 2), (4, 0), (5, 1), (6, 2)] {
        assert_eq!(requests[again].body, requests[first].body);
    }
}

#[tokio::test]
async fn an_endpoint_of_a_flag_goes_on_over_restarts_and_goes_with_its_flag() {
    let (receiver, other) = (Receiver::new().await, Receiver::new().await);
    let (url, also) = (receiver.url("/given"), other.url("/given"));
    // Those of flags may be anywhere.
    let world = world().await.flag("--webhook-allow-private=false").flag(&format!("--webhook={url},{also}"));
    let app = world.start().await;
    let list = async |app: &TestApp| app.get("/webhooks").await.json()["webhooks"].as_array().unwrap().clone();
    eventually("they are there", async || list(&app).await.len() == 2).await;
    let shown = list(&app).await.into_iter().find(|shown| shown["url"] == url).unwrap();
    assert_eq!(
        (&shown["from_flag"], &shown["state"], &shown["secret"]),
        (&json!(true), &json!("active"), &json!(null))
    );
    let target = format!("/webhooks/{}", shown["id"].as_str().unwrap());
    all_have(&app, &world, &[ADA], "1").await;
    change(&app, &world, ADA, "2").await;
    gets(&receiver, 1).await;
    for change in [json!({"secret": "s"}), json!({"rotate": true}), json!({"events": []}), json!({"jids": [ADA]})] {
        let answer = ask(&app, Method::PATCH, &target, &change).await;
        assert_eq!((answer.status.as_u16(), answer.code().as_str()), (409, "GIVEN_BY_FLAG"), "{answer:?}");
    }
    let answer = app.send(Method::DELETE, &target, &[]).await.unwrap();
    assert_eq!((answer.status.as_u16(), answer.code().as_str()), (409, "GIVEN_BY_FLAG"), "{answer:?}");
    assert_eq!(ask(&app, Method::PATCH, &target, &json!({"enabled": false})).await.json()["reason"], "asked");
    change(&app, &world, ADA, "3").await;
    gets(&other, 2).await;
    app.stop().await;

    let world = world.flag(&format!("--webhook={url}"));
    let app = world.start().await;
    eventually("the one that is not given any more is gone", async || list(&app).await.len() == 1).await;
    assert_eq!(list(&app).await[0]["reason"], "asked", "disabled over a restart");
    assert_eq!(ask(&app, Method::PATCH, &target, &json!({"enabled": true})).await.json()["state"], "active");
    change(&app, &world, ADA, "4").await;
    let requests = gets(&receiver, 3).await;
    app.stop().await;
    assert_eq!(lines(&requests), ["2", "3", "4"].map(|picture| format!("avatar.changed {ADA} {picture}")));
    assert_eq!(other.requests().len(), 2);
}
