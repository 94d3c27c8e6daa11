//! Order holds for each person, and nobody waits for somebody else.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Arc, Mutex};

use serde_json::json;

use super::{
    ADA, BOB, EVE, HOUR, MINUTE, all_have, endpoint, event, gets, ids, ids_of, in_order, in_time, is_about, lines,
    world,
};
use crate::support::eventually::eventually;
use crate::support::receiver::{Receiver, Reply};

#[tokio::test]
async fn one_persons_failing_event_holds_back_that_persons_later_ones_and_nobody_elses() {
    let (world, receiver) = (world().await, Receiver::new().await);
    let app = world.start().await;
    all_have(&app, &world, &[ADA, BOB, EVE], "1").await;
    let endpoint = endpoint(&app, &receiver).await;
    receiver.answers(|request| Reply::status(if is_about(request, ADA) { 500 } else { 200 }));
    let others = || receiver.requests().into_iter().filter(|request| !is_about(request, ADA)).collect::<Vec<_>>();
    for (round, picture) in (1..).zip(["2", "3", "4", "5", "6"]) {
        all_have(&app, &world, &[ADA, BOB, EVE], picture).await;
        // No time passes but what there is between the looks.
        eventually("the others' events arrive", async || others().len() == 2 * round).await;
    }
    let to_ada = || receiver.requests().into_iter().filter(|request| is_about(request, ADA)).collect::<Vec<_>>();
    assert_eq!(ids(&to_ada()).len(), 1, "the first one is tried again and again, and none overtakes it");
    // Three days later it is dead, and the next one has its turn; nobody else has noticed.
    in_time(&world, HOUR, "it is given up", async || endpoint.shown(&app).await["dead_letters"] == 1).await;
    all_have(&app, &world, &[BOB, EVE], "7").await;
    eventually("the others' events arrive", async || others().len() == 12).await;
    eventually("the endpoint does not fail", async || endpoint.state(&app).await == "active").await;
    let tried = to_ada();
    let first = tried[0].header("webhook-id");
    let attempts = tried.iter().filter(|request| request.header("webhook-id") == first).count();
    assert!((2..=11).contains(&attempts), "{attempts} attempts");

    let before = receiver.always(Reply::status(200));
    let since = || receiver.requests().split_off(before);
    in_time(&world, HOUR, "the rest arrives", async || since().len() >= 4).await;
    let rest = ["3", "4", "5", "6"].map(|picture| format!("avatar.changed {ADA} {picture}"));
    assert_eq!(lines(&since()), rest);
    let shown = endpoint.replay(&app, &json!({"dead_letters": true})).await;
    assert_eq!((&shown["dead_letters"], &shown["pending"]), (&json!(0), &json!(1)), "{shown}");
    let requests = gets(&receiver, before + 5).await;
    assert_eq!(requests.last().unwrap().header("webhook-id"), first, "what was given up, on demand");
    assert_eq!(ids(&requests), ids_of(&app.change_log().await));
    app.stop().await;
}

/// What one receiver has said yes to, by person.
#[derive(Default)]
struct Accepted {
    versions: BTreeMap<String, BTreeSet<u64>>,
    failures: HashMap<String, u32>,
    overtaken: Vec<String>,
}

/// Fails one attempt in three, and notes every event that comes before an earlier one of the same person was accepted.
fn moody(receiver: &Receiver) -> Arc<Mutex<Accepted>> {
    let accepted = Arc::new(Mutex::new(Accepted::default()));
    let shared = accepted.clone();
    receiver.answers(move |request| {
        let event = event(request);
        let (jid, version) = (event["payload"]["jid"].to_string(), event["payload"]["version"].as_u64().unwrap());
        let mut accepted = shared.lock().unwrap();
        let versions = accepted.versions.entry(jid).or_default();
        if (1..version).any(|earlier| !versions.contains(&earlier)) {
            let overtaken = request.header("webhook-id").to_owned();
            accepted.overtaken.push(overtaken);
            return Reply::status(200);
        }
        if fastrand::u8(..3) == 0 {
            *accepted.failures.entry(request.header("webhook-id").to_owned()).or_default() += 1;
            return [Reply::status(500), Reply::close(), Reply::reset(), Reply::half_a_head()][fastrand::usize(..4)]
                .clone();
        }
        versions.insert(version);
        Reply::status(200)
    });
    accepted
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn over_moody_receivers_and_restarts_everything_arrives_and_nothing_overtakes() {
    let (world, receivers) = (world().await, [Receiver::new().await, Receiver::new().await]);
    let people: Vec<String> = (0..20).map(|person| format!("{}", 999_200 + person)).collect();
    let people: Vec<&str> = people.iter().map(String::as_str).collect();
    let mut app = world.start().await;
    all_have(&app, &world, &people, "0").await;
    for receiver in &receivers {
        endpoint(&app, receiver).await;
    }
    let accepted = receivers.each_ref().map(moody);
    for round in 1..=12 {
        let some: Vec<&str> = people.iter().copied().filter(|_| fastrand::bool()).collect();
        all_have(&app, &world, &some, &round.to_string()).await;
        world.clock.advance(MINUTE * fastrand::u32(..30));
        if round % 4 == 0 {
            app.stop().await;
            app = world.start().await;
        }
    }
    let all = app.change_log().await;
    for (receiver, accepted) in receivers.iter().zip(&accepted) {
        in_time(&world, 5 * MINUTE, "everything is accepted", async || {
            let accepted = accepted.lock().unwrap();
            accepted.versions.values().map(BTreeSet::len).sum::<usize>() == all.len()
        })
        .await;
        let accepted = accepted.lock().unwrap();
        assert_eq!(accepted.overtaken, [""; 0], "of one person nothing is sent before what came before is accepted");
        assert!(!accepted.failures.is_empty());
        assert_eq!(ids(&receiver.requests()), ids_of(&all));
        in_order(&receiver.requests());
    }
    app.stop().await;
}
