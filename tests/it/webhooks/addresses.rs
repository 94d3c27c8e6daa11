//! Where endpoints may lead that somebody added over the API: the public internet, whatever names resolve to, and when.

use std::sync::Arc;

use avatar_proxy::demo::Options;
use avatar_proxy::outbound::Config;
use http::Method;
use serde_json::{Value, json};

use super::{ADA, BOB, HOUR, MINUTE, all_have, at_home, gets, in_time, lines, made};
use crate::support::app::{TestApp, World};
use crate::support::eventually::eventually;
use crate::support::hand::{self, change};
use crate::support::network::Map;
use crate::support::receiver::{Receiver, Reply};

const PUBLIC: &str = "9.10.11.12";

/// A world in which endpoints must be public, and a test says which places are.
async fn world(map: &Arc<Map>) -> World {
    let world = at_home(hand::world(Options::default()).await).flag("--webhook-allow-private=false");
    world.outbound(Config { network: map.clone(), ..Config::default() })
}

async fn tested(app: &TestApp, id: &str) -> Value {
    app.send(Method::POST, &format!("/webhooks/{id}/test"), &[]).await.unwrap().json()
}

#[tokio::test]
async fn a_name_that_turns_private_is_refused_at_the_connection_and_what_it_missed_comes_when_it_is_public_again() {
    let (map, receiver) = (Map::new(), Receiver::new().await);
    map.name("hooks.example", &[&[PUBLIC], &["127.0.0.1"]]);
    map.place(PUBLIC, receiver.address());
    map.place("127.0.0.1", receiver.address());
    let world = world(&map).await;
    let app = world.start().await;
    all_have(&app, &world, &[ADA], "1").await;
    receiver.always(Reply::status(200).and_close());
    let endpoint = made(&app, &json!({"url": receiver.url_by("hooks.example", "/hook")})).await;
    change(&app, &world, ADA, "2").await;
    gets(&receiver, 1).await;
    receiver.is_left_alone().await;
    change(&app, &world, ADA, "3").await;
    eventually("it is refused", async || endpoint.last(&app).await == "refused").await;
    assert_eq!(tested(&app, &endpoint.id).await["result"], "refused");
    assert_eq!((map.tried(), receiver.connections()), (vec![PUBLIC.to_owned()], 1), "nothing was connected to");

    map.name("hooks.example", &[&[PUBLIC]]);
    in_time(&world, MINUTE, "what it missed comes", async || receiver.requests().len() >= 2).await;
    assert_eq!(lines(&receiver.requests()), ["avatar.changed 999001 2", "avatar.changed 999001 3"]);
    app.stop().await;
}

#[tokio::test]
async fn over_a_connection_that_is_kept_nothing_reaches_another_place_than_the_one_that_was_checked() {
    let (map, public, private) = (Map::new(), Receiver::new().await, Receiver::new().await);
    // The same authority, so that only the address tells them apart.
    map.name("hooks.example", &[&[PUBLIC], &["10.0.0.1"]]);
    map.place(PUBLIC, public.address());
    map.place("10.0.0.1", private.address());
    let world = world(&map).await;
    let app = world.start().await;
    all_have(&app, &world, &[ADA], "1").await;
    made(&app, &json!({"url": "http://hooks.example/hook"})).await;
    for picture in 2..12 {
        change(&app, &world, ADA, &picture.to_string()).await;
    }
    gets(&public, 1).await;
    assert!(map.tried().iter().all(|address| address == PUBLIC), "{:?}", map.tried());
    assert_eq!((public.connections(), private.connections()), (1, 0));
    app.stop().await;
}

#[tokio::test]
async fn a_connection_of_the_operators_endpoint_carries_nothing_for_one_that_must_be_public() {
    let (map, receiver) = (Map::new(), Receiver::new().await);
    map.name("hooks.example", &[&["127.0.0.1"]]);
    map.place("127.0.0.1", receiver.address());
    let world = world(&map).await.flag(&format!("--webhook={}", receiver.url_by("hooks.example", "/given")));
    let app = world.start().await;
    all_have(&app, &world, &[ADA, BOB], "1").await;
    let added = made(&app, &json!({"url": receiver.url_by("hooks.example", "/added")})).await;
    for picture in ["2", "3"] {
        all_have(&app, &world, &[ADA, BOB], picture).await;
    }
    gets(&receiver, 4).await;
    eventually("the other is refused", async || added.last(&app).await == "refused").await;
    assert_eq!(tested(&app, &added.id).await["result"], "refused");
    assert!(receiver.requests().iter().all(|request| request.path == "/given"));
    app.stop().await;
}

#[tokio::test]
async fn nobody_is_led_elsewhere_by_a_redirect() {
    let (map, receiver, inside) = (Map::new(), Receiver::new().await, Receiver::new().await);
    map.place(PUBLIC, receiver.address());
    map.place("127.0.0.1", inside.address());
    let world = world(&map).await;
    let app = world.start().await;
    let endpoint = made(&app, &json!({"url": format!("http://{PUBLIC}/")})).await;
    for status in [301, 302, 303, 307, 308] {
        receiver.next([Reply::new(status, &[("location", &inside.url("/admin"))], "")]);
        assert_eq!(tested(&app, &endpoint.id).await["result"], status.to_string());
    }
    assert_eq!((receiver.requests().len(), inside.connections()), (5, 0));
    app.stop().await;
}

#[tokio::test]
async fn the_proxy_itself_is_no_endpoint_by_whatever_address() {
    let map = Map::new();
    map.own(PUBLIC);
    map.name("proxy.example", &[&[PUBLIC]]);
    map.name("hooks.example", &[&["127.0.0.1"]]);
    let world = world(&map).await;
    let app = world.start().await;
    let port = app.app().address().port();
    for host in ["127.0.0.1", "localhost", "[::1]", "[::ffff:127.0.0.1]"] {
        let wish = json!({"url": format!("http://{host}:{port}/webhooks")});
        let answer = super::ask(&app, Method::POST, "/webhooks", &wish).await;
        assert_eq!((answer.status.as_u16(), answer.code().as_str()), (400, "VALIDATION_ERROR"), "{host}");
    }
    // What only the machine knows, or a name, is found out at the connection.
    for host in [PUBLIC, "proxy.example", "hooks.example", "[::ffff:9.10.11.12]", "[64:ff9b::9.10.11.12]"] {
        let endpoint = made(&app, &json!({"url": format!("http://{host}:{port}/webhooks")})).await;
        assert_eq!(tested(&app, &endpoint.id).await["result"], "refused", "{host}");
    }
    assert_eq!(map.tried(), [""; 0]);
    app.stop().await;
}

#[tokio::test]
async fn whoever_was_let_in_is_disabled_when_private_addresses_are_no_longer_allowed() {
    let receiver = Receiver::new().await;
    let world = super::world().await;
    let app = world.start().await;
    all_have(&app, &world, &[ADA], "1").await;
    let endpoint = super::endpoint(&app, &receiver).await;
    app.stop().await;

    let world = world.flag("--webhook-allow-private=false");
    let app = world.start().await;
    change(&app, &world, ADA, "2").await;
    let shown = endpoint.patch(&app, &json!({"enabled": true})).await;
    assert_eq!((&shown["state"], &shown["reason"]), (&json!("disabled"), &json!("address")), "{shown}");
    assert_eq!(tested(&app, &endpoint.id).await["result"], "address");
    world.clock.advance(HOUR);
    app.stop().await;
    assert_eq!(receiver.connections(), 0);

    let world = world.flag("--webhook-allow-private=true");
    let app = world.start().await;
    assert_eq!(lines(&gets(&receiver, 1).await), ["avatar.changed 999001 2"], "nothing is missed");
    app.stop().await;
}
