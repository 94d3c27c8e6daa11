//! Who is forgotten is told to nobody any more, whatever was still to be delivered.

use http::Method;
use serde_json::json;

use super::{ADA, BOB, HOUR, all_have, endpoint, gets, in_time, is_about, lines, world};
use crate::support::eventually::eventually;
use crate::support::receiver::{Receiver, Reply};

#[tokio::test]
async fn what_is_pending_and_what_was_given_up_goes_with_who_is_forgotten() {
    let (world, receiver) = (world().await, Receiver::new().await);
    let app = world.start().await;
    all_have(&app, &world, &[ADA, BOB], "1").await;
    let endpoint = endpoint(&app, &receiver).await;
    receiver.answers(|request| Reply::status(if is_about(request, ADA) { 500 } else { 200 }));
    for picture in ["2", "3"] {
        all_have(&app, &world, &[ADA, BOB], picture).await;
    }
    let stands = async || {
        let shown = endpoint.shown(&app).await;
        (shown["pending"].as_u64().unwrap(), shown["dead_letters"].as_u64().unwrap())
    };
    in_time(&world, HOUR, "the first one is given up, the other waits", async || stands().await == (1, 1)).await;
    let forgotten = app.send(Method::DELETE, &format!("/avatars/{ADA}"), &[]).await.unwrap();
    assert_eq!(forgotten.status, 204);
    eventually("they are gone", async || stands().await == (0, 0)).await;

    // What was under way may still have come.
    eventually("nothing is under way", async || endpoint.state(&app).await == "active").await;
    let before = receiver.always(Reply::status(200));
    endpoint.replay(&app, &json!({"dead_letters": true})).await;
    all_have(&app, &world, &[BOB], "4").await;
    gets(&receiver, before + 1).await;
    endpoint.replay(&app, &json!({"after": ""})).await;
    let told = lines(&gets(&receiver, before + 4).await.split_off(before));
    assert_eq!(told, ["4", "2", "3", "4"].map(|picture| format!("avatar.changed {BOB} {picture}")));
    app.stop().await;
    let file = std::fs::read(world.store_path()).unwrap();
    let held = |who: &str| file.windows(who.len()).any(|part| part == who.as_bytes());
    assert!(held(BOB) && !held(ADA), "what is deleted is overwritten");
}
