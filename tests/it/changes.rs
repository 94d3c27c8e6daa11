//! Changes: recorded once, read by any subscriber from where it left off.

use std::time::Duration;

use avatar_proxy::demo::{Options, PersonHandle};

use crate::support::app::{TestApp, World};
use crate::support::hand::{self, change, look};

mod forget;
mod kills;
mod listing;
mod stream;
mod watches;

const ADA: &str = "999001";
const BOB: &str = "999002";
const HOUR: Duration = Duration::from_secs(3600);

/// A world whose clock the test moves, with one person who has picture 17.
async fn world() -> (World, PersonHandle) {
    let world = hand::world(Options::default()).await;
    let ada = world.gateway.person(ADA).picture("17");
    (world, ada)
}

/// What a listing of changes says: each new id, and where to go on.
async fn listed(app: &TestApp, target: &str) -> (Vec<String>, String) {
    let answer = app.get(target).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    let json = answer.json();
    let event = |event: &serde_json::Value| match &event["payload"]["new_id"] {
        serde_json::Value::String(id) => id.clone(),
        _ => event["event"].as_str().expect("every event has a name").to_owned(),
    };
    let changes = json["changes"].as_array().expect("a list").iter().map(event).collect();
    (changes, json["next"].as_str().unwrap_or_default().to_owned())
}
