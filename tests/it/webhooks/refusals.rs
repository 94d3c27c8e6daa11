//! Wishes that are refused: 4xx in the gateway's envelope, and nothing changed.

use http::Method;
use serde_json::{Value, json};

use super::{ADA, JSON, all_have, ask, at_home, endpoint, gets, lines, made, world};
use crate::support::app::TestApp;
use crate::support::client::Answer;
use crate::support::eventually::eventually;
use crate::support::hand::{self, change};
use crate::support::receiver::Receiver;

#[track_caller]
fn assert_refused(answer: &Answer, status: u16, code: &str, message: &str) {
    let told = answer.json();
    assert_eq!(
        (answer.status.as_u16(), &told["code"], &told["results"]),
        (status, &json!(code), &Value::Null),
        "{answer:?}"
    );
    assert!(answer.message().starts_with(message), "{:?}, not {message:?}", answer.message());
}

async fn endpoints(app: &TestApp) -> Value {
    app.get("/webhooks").await.json()["webhooks"].clone()
}

const URL: &str = "https://hooks.example/";

#[tokio::test]
async fn an_address_must_be_plain_and_public() {
    let world = hand::world(avatar_proxy::demo::Options::default()).await;
    let app = world.start().await;
    let long = format!("https://hooks.example/{}", "a".repeat(2048));
    let own = format!("http://{}/", app.app().address());
    let not_public = "url: leads to an address that is not public";
    for (url, message) in [
        ("", "url: is not a URL"),
        ("hooks.example", "url: must begin with http:// or https://"),
        ("ftp://hooks.example/", "url: must begin with"),
        ("file:///etc/passwd", "url: "),
        ("javascript:alert(1)", "url: "),
        ("https://ada:s3cret@hooks.example/", "url: must not hold a user or a password"),
        ("https://ada@hooks.example/", "url: must not hold a user"),
        ("https://hooks.example/#s3cret", "url: must not hold a fragment"),
        ("https://hooks.example:0/", "url: is not a URL"),
        ("https:///", "url: is not a URL"),
        ("https://h\u{f6}oks.example/", "url: is not a URL"),
        ("https://hooks.example/a b", "url: is not a URL"),
        (&long, "url: is longer than 2048 bytes"),
        // This machine.
        (&own, "url: leads to an address that is not public (loopback)"),
        ("http://127.0.0.1/", "url: leads to an address that is not public (loopback)"),
        ("http://127.9.9.9/", "url: leads to an address that is not public (loopback)"),
        ("http://localhost/", "url: leads to an address that is not public (loopback)"),
        ("http://LocalHost.:8080/", "url: leads to an address that is not public (loopback)"),
        ("http://hooks.localhost/", "url: leads to an address that is not public (loopback)"),
        ("http://[::1]/", "url: leads to an address that is not public (loopback)"),
        ("http://[0:0:0:0:0:0:0:1]/", "url: leads to an address that is not public (loopback)"),
        ("http://[::ffff:127.0.0.1]/", "url: leads to an address that is not public (loopback)"),
        ("http://[::ffff:7f00:1]/", "url: leads to an address that is not public (loopback)"),
        ("http://0.0.0.0/", "url: leads to an address that is not public (unspecified)"),
        ("http://[::]/", "url: leads to an address that is not public (unspecified)"),
        // The same in spellings that only some resolvers know.
        ("http://127.1/", "url: is not a URL"),
        ("http://2130706433/", "url: is not a URL"),
        ("http://0x7f000001/", "url: is not a URL"),
        ("http://0177.0.0.1/", "url: is not a URL"),
        ("http://127.0.0.1./", "url: is not a URL"),
        ("http://127%2e0.0.1/", "url: is not a URL"),
        ("http://[fe80::1%25eth0]/", "url: is not a URL"),
        // Networks of one's own, a platform's answers, the link, groups, translators and tunnels.
        ("http://10.0.0.1/", "url: leads to an address that is not public (private)"),
        ("http://172.16.0.1/", "url: leads to an address that is not public (private)"),
        ("http://192.168.1.1/", "url: leads to an address that is not public (private)"),
        ("http://100.64.0.1/", "url: leads to an address that is not public (private)"),
        ("http://[fd00::1]/", "url: leads to an address that is not public (private)"),
        ("http://[::ffff:10.0.0.1]/", "url: leads to an address that is not public (private)"),
        ("http://[64:ff9b::10.0.0.1]/", "url: leads to an address that is not public (private)"),
        ("http://[64:ff9b:1::1]/", "url: leads to an address that is not public (private)"),
        ("http://[2002:a00:1::]/", "url: leads to an address that is not public (private)"),
        ("http://169.254.169.254/latest/meta-data/", "url: leads to an address that is not public (metadata)"),
        ("http://[::ffff:169.254.169.254]/", "url: leads to an address that is not public (metadata)"),
        ("http://[64:ff9b::a9fe:a9fe]/", "url: leads to an address that is not public (metadata)"),
        ("http://[fd00:ec2::254]/", "url: leads to an address that is not public (metadata)"),
        ("http://168.63.129.16/", "url: leads to an address that is not public (metadata)"),
        ("http://100.100.100.200/", "url: leads to an address that is not public (metadata)"),
        ("http://169.254.1.1/", "url: leads to an address that is not public (link-local)"),
        ("http://[fe80::1]/", "url: leads to an address that is not public (link-local)"),
        ("http://224.0.0.1/", not_public),
        ("http://[ff02::1]/", not_public),
        ("http://255.255.255.255/", not_public),
        ("http://198.18.0.1/", not_public),
        ("http://[2001:db8::1]/", not_public),
        ("http://[100::1]/", not_public),
    ] {
        let answer = ask(&app, Method::POST, "/webhooks", &json!({"url": url})).await;
        assert_refused(&answer, 400, "VALIDATION_ERROR", message);
        assert!(!answer.text().contains("s3cret"), "{answer:?}");
    }
    assert_eq!(endpoints(&app).await, json!([]));
    app.stop().await;
}

#[tokio::test]
async fn a_wish_that_cannot_be_is_named_and_nothing_is_made() {
    let world = world().await;
    let app = world.start().await;
    let many: Vec<String> = (0..1001).map(|person| format!("{}", 999_000_000 + person)).collect();
    for (wish, message) in [
        (json!({}), "the body: missing field `url`"),
        (json!([]), "the body: "),
        (json!("https://hooks.example/"), "the body: "),
        (json!({"url": 17}), "the body: invalid type: integer"),
        (json!({"url": URL, "secrets": "x"}), "the body: unknown field `secrets`"),
        (json!({"url": URL, "enabled": true}), "the body: unknown field `enabled`"),
        (json!({"url": URL, "id": "17"}), "the body: unknown field `id`"),
        (json!({"url": URL, "secret": ""}), "secret: must be 1 to 256"),
        (json!({"url": URL, "secret": "two words"}), "secret: must be"),
        (json!({"url": URL, "secret": "whsec_"}), "secret: must be"),
        (json!({"url": URL, "secret": "whsec_!"}), "secret: must be"),
        (json!({"url": URL, "secret": "s".repeat(257)}), "secret: must be"),
        (json!({"url": URL, "secret": 17}), "the body: invalid type"),
        (json!({"url": URL, "events": "avatar.set"}), "the body: invalid type"),
        (json!({"url": URL, "events": ["set"]}), "events: there are avatar.set, avatar.changed"),
        (json!({"url": URL, "events": ["avatar.set", ""]}), "events: there are"),
        (json!({"url": URL, "events": ["avatar.test"]}), "events: there are"),
        (json!({"url": URL, "jids": ["x@y"]}), "jids: "),
        (json!({"url": URL, "jids": [""]}), "jids: cannot be blank"),
        (json!({"url": URL, "jids": many}), "jids: must be 1000 at most"),
        (json!({"url": URL, "from": "yesterday"}), "from: must be now or earliest"),
        (json!({"url": URL, "from": ""}), "from: must be"),
    ] {
        let answer = ask(&app, Method::POST, "/webhooks", &wish).await;
        assert_refused(&answer, 400, "VALIDATION_ERROR", message);
    }
    for body in ["", "{", "{\"url\":", "url=https://hooks.example/", "{\"url\":\"https://hooks.example/\"} and more"] {
        let answer = app.send_body(Method::POST, "/webhooks", &[JSON], body).await;
        assert_refused(&answer, 400, "VALIDATION_ERROR", "the body: ");
    }
    let long = format!("{{\"url\":\"{}\"}}", "a".repeat(65 * 1024));
    let answer = app.send_body(Method::POST, "/webhooks", &[JSON], &long).await;
    assert_refused(&answer, 413, "PAYLOAD_TOO_LARGE", "the body is longer");
    let wish = json!({"url": URL}).to_string();
    for headers in
        [&[][..], &[("content-type", "text/plain")], &[("content-type", "application/x-www-form-urlencoded")]]
    {
        let answer = app.send_body(Method::POST, "/webhooks", headers, &wish).await;
        assert_refused(&answer, 415, "UNSUPPORTED_MEDIA_TYPE", "");
    }
    for header in [("origin", "https://evil.example"), ("origin", "null"), ("sec-fetch-site", "cross-site")] {
        let answer = app.send_body(Method::POST, "/webhooks", &[JSON, header], &wish).await;
        assert_refused(&answer, 403, "FORBIDDEN", "");
    }
    assert_eq!(endpoints(&app).await, json!([]));
    app.stop().await;
}

#[tokio::test]
async fn a_change_that_cannot_be_leaves_an_endpoint_as_it_was_and_at_work() {
    let (world, receiver) = (world().await, Receiver::new().await);
    let app = world.start().await;
    all_have(&app, &world, &[ADA], "1").await;
    let endpoint = endpoint(&app, &receiver).await;
    change(&app, &world, ADA, "2").await;
    let delivered = gets(&receiver, 1).await;
    let mut before = Value::Null;
    eventually("what was delivered is written down", async || {
        before = endpoint.shown(&app).await;
        before["lag"]["events"] == 0 && before["last_result"]["result"] == "200"
    })
    .await;
    let (bare, test) = (format!("/webhooks/{}", endpoint.id), format!("/webhooks/{}/test", endpoint.id));
    let replay = format!("/webhooks/{}/replay", endpoint.id);
    for (change, message) in [
        (json!({}), "give enabled, secret, rotate, events or jids"),
        (json!({"rotate": false}), "give enabled"),
        (json!({"enabled": "yes"}), "the body: invalid type"),
        (json!({"url": URL}), "the body: unknown field `url`"),
        (json!({"secret": ""}), "secret: must be"),
        (json!({"secret": "a b", "enabled": false}), "secret: must be"),
        (json!({"enabled": false, "events": ["avatar.gone"]}), "events: there are"),
        (json!({"enabled": false, "jids": ["x"]}), "jids: "),
    ] {
        assert_refused(&ask(&app, Method::PATCH, &bare, &change).await, 400, "VALIDATION_ERROR", message);
    }
    let cursor = super::event(&delivered[0])["payload"]["cursor"].as_str().unwrap().to_owned();
    let (epoch, _) = cursor.split_once('.').unwrap();
    for (wish, message) in [
        (json!({}), "give either after, a cursor, or dead_letters, true"),
        (json!({"dead_letters": false}), "give either"),
        (json!({"after": cursor, "dead_letters": true}), "give either"),
        (json!({"after": "17"}), "after: is not a cursor"),
        (json!({"after": "0123456789abcdef.1"}), "after: is no place in this log"),
        (json!({"after": format!("{epoch}.2")}), "after: is no place in this log"),
        (json!({"before": cursor}), "the body: unknown field"),
    ] {
        assert_refused(&ask(&app, Method::POST, &replay, &wish).await, 400, "VALIDATION_ERROR", message);
    }
    for id in ["0", "0123456789abcdef", "..", "%2e%2e", "a%20b", "%zz", &"a".repeat(2000)] {
        let unknown = |method, below| {
            let target = format!("/webhooks/{id}{below}");
            let client = crate::support::client::Client::clone(&app);
            async move { ask(&client, method, &target, &json!({"enabled": true, "dead_letters": true})).await }
        };
        assert_eq!(unknown(Method::GET, "").await.status, 404, "{id}");
        assert_eq!(unknown(Method::DELETE, "").await.status, 404, "{id}");
        assert_eq!(unknown(Method::POST, "/test").await.status, 404, "{id}");
        let patched = ask(&app, Method::PATCH, &format!("/webhooks/{id}"), &json!({"enabled": true})).await;
        assert_refused(&patched, 404, "NOT_FOUND", "");
        let replayed = ask(&app, Method::POST, &format!("/webhooks/{id}/replay"), &json!({"dead_letters": true})).await;
        assert_refused(&replayed, 404, "NOT_FOUND", "");
    }
    for (method, target) in
        [(Method::PATCH, &bare), (Method::DELETE, &bare), (Method::POST, &test), (Method::POST, &replay)]
    {
        let cross = [JSON, ("origin", "https://evil.example")];
        let answer = app.send_body(method, target, &cross, "{\"enabled\":false,\"dead_letters\":true}").await;
        assert_refused(&answer, 403, "FORBIDDEN", "");
    }
    for (method, target) in [(Method::PATCH, &bare), (Method::POST, &replay)] {
        let answer = app.send_body(method, target, &[], "{\"enabled\":false}").await;
        assert_refused(&answer, 415, "UNSUPPORTED_MEDIA_TYPE", "");
    }
    assert_eq!(endpoint.shown(&app).await, before);
    change(&app, &world, ADA, "3").await;
    let requests = gets(&receiver, 2).await;
    app.stop().await;
    assert_eq!(lines(&requests), ["avatar.changed 999001 2", "avatar.changed 999001 3"]);
}

#[tokio::test]
async fn there_are_as_many_endpoints_as_the_operator_allows() {
    let receiver = Receiver::new().await;
    let world = world().await.flag("--webhook-limit=2").flag(&format!("--webhook={}", receiver.url("/given")));
    let app = world.start().await;
    let wish = json!({"url": receiver.url("/")});
    let first = made(&app, &wish).await;
    made(&app, &wish).await;
    assert_refused(
        &ask(&app, Method::POST, "/webhooks", &wish).await,
        409,
        "TOO_MANY_WEBHOOKS",
        "there are 2 webhooks",
    );
    assert_eq!(endpoints(&app).await.as_array().unwrap().len(), 3, "those of flags do not count");
    let dropped = app.send(Method::DELETE, &format!("/webhooks/{}", first.id), &[]).await.unwrap();
    assert_eq!(dropped.status, 204);
    made(&app, &wish).await;
    assert_refused(
        &ask(&app, Method::POST, "/webhooks", &wish).await,
        409,
        "TOO_MANY_WEBHOOKS",
        "there are 2 webhooks",
    );
    app.stop().await;
}

#[tokio::test]
async fn another_method_is_told_which_there_are() {
    let world = world().await;
    let app = world.start().await;
    for (target, allowed, others) in [
        ("/webhooks", "GET, HEAD, POST", &["PUT", "PATCH", "DELETE"][..]),
        ("/webhooks/", "GET, HEAD, POST", &["PUT", "PATCH", "DELETE"]),
        ("/webhooks/17", "GET, HEAD, PATCH, DELETE", &["PUT", "POST"]),
        ("/webhooks/17/test", "POST", &["GET", "HEAD", "PUT", "DELETE"]),
        ("/webhooks/17/replay", "POST", &["GET", "PATCH"]),
    ] {
        for method in others {
            let answer = app.send(method.parse().unwrap(), target, &[]).await.unwrap();
            assert_eq!((answer.status.as_u16(), answer.header("allow")), (405, allowed), "{method} {target}");
        }
    }
    assert_eq!(app.get("/webhooks/17/others").await.status, 404);
    app.stop().await;
}

#[tokio::test]
async fn nobody_without_credentials_sees_or_changes_an_endpoint() {
    let world = at_home(hand::world(avatar_proxy::demo::Options::default()).await).flag("--auth=ada:s3cret");
    let app = world.start().await;
    let basic = ("authorization", "Basic YWRhOnMzY3JldA==");
    let wish = json!({"url": "http://127.0.0.1:9/"}).to_string();
    let answer = app.send_body(Method::POST, "/webhooks", &[JSON, basic], &wish).await;
    let id = answer.json()["id"].as_str().unwrap().to_owned();
    let before = app.get_with("/webhooks", &[basic]).await.json();
    for (method, target) in [
        (Method::GET, "/webhooks".to_owned()),
        (Method::POST, "/webhooks".to_owned()),
        (Method::GET, format!("/webhooks/{id}")),
        (Method::PATCH, format!("/webhooks/{id}")),
        (Method::DELETE, format!("/webhooks/{id}")),
        (Method::POST, format!("/webhooks/{id}/test")),
        (Method::POST, format!("/webhooks/{id}/replay")),
        (Method::GET, "/webhooks/0".to_owned()),
    ] {
        let answer = app.send_body(method.clone(), &target, &[JSON], "{\"enabled\":false}").await;
        assert_eq!((answer.status.as_u16(), answer.text()), (401, "Unauthorized"), "{method} {target}");
    }
    assert_eq!(app.get_with("/webhooks", &[basic]).await.json(), before);
    app.stop().await;
}
