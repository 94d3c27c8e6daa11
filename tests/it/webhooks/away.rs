//! Receivers that are away for days, or want to be left alone: the schedule, on a clock that the test moves.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use avatar_proxy::clock::{Clock, Timestamp};
use serde_json::json;

use super::{
    ADA, BOB, HOUR, MINUTE, all_have, endpoint, event, gets, ids, ids_of, in_order, in_time, lines, made, world,
};
use crate::support::eventually::eventually;
use crate::support::hand::change;
use crate::support::receiver::{Receiver, Reply};

const DAY: Duration = Duration::from_secs(86_400);

/// When each request came, by the clock.
type Times = Arc<Mutex<Vec<Timestamp>>>;

/// Has a receiver give these replies in turn, then 200, and note when each request came.
fn timed(receiver: &Receiver, clock: &Clock, replies: Vec<Reply>) -> Times {
    let (times, clock, mut replies) = (Times::default(), clock.clone(), replies.into_iter());
    let noted = times.clone();
    receiver.answers(move |_| {
        noted.lock().unwrap().push(clock.now());
        replies.next().unwrap_or(Reply::status(200))
    });
    times
}

/// The pauses between them.
fn pauses(times: &Times) -> Vec<Duration> {
    times.lock().unwrap().windows(2).map(|pair| pair[1].since(pair[0])).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_endpoint_that_was_away_for_three_days_gets_everything_within_ten_attempts_each() {
    let (world, receiver) = (world().await, Receiver::new().await);
    let app = world.start().await;
    let people: Vec<String> = (0..280).map(|person| format!("{}", 999_300 + person)).collect();
    let people: Vec<&str> = people.iter().map(String::as_str).collect();
    all_have(&app, &world, &people, "0").await;
    let endpoint = endpoint(&app, &receiver).await;
    receiver.always(Reply::status(503));
    // More at once than are held at once, and then somebody every hour.
    all_have(&app, &world, &people, "1").await;
    let began = world.clock.now();
    for hour in 1..72 {
        change(&app, &world, people[hour as usize % 10], &format!("{}", 100 + hour)).await;
        let next = began + hour * HOUR;
        in_time(&world, HOUR / 3, "an hour passes", async || world.clock.now() >= next).await;
    }
    let almost = began + 72 * HOUR - 20 * MINUTE;
    in_time(&world, MINUTE, "nearly three days have passed", async || world.clock.now() >= almost).await;
    let (all, away) = (app.change_log().await, receiver.requests());
    assert_eq!(all.len(), 280 + 71);
    assert_eq!(endpoint.state(&app).await, "failing");
    assert!(away.len() < 280 + 71, "{} attempts for nothing", away.len());

    let before = receiver.always(Reply::status(200));
    let since = || receiver.requests().split_off(before);
    in_time(&world, 10 * MINUTE, "everything arrives", async || ids(&since()).len() == all.len()).await;
    assert_eq!((since().len(), ids(&since())), (all.len(), ids_of(&all)), "each once");
    in_order(&since());
    let mut attempts: HashMap<String, u32> = HashMap::new();
    for request in receiver.requests() {
        *attempts.entry(request.header("webhook-id").to_owned()).or_default() += 1;
    }
    let most = attempts.values().max().copied().unwrap();
    assert!(most <= 10, "{most} attempts of one event");
    eventually("it is well again", async || {
        let shown = endpoint.shown(&app).await;
        (&shown["state"], &shown["pending"], &shown["dead_letters"]) == (&json!("active"), &json!(0), &json!(0))
    })
    .await;
    app.stop().await;
}

#[tokio::test]
async fn a_receiver_is_left_alone_for_as_long_as_it_asks() {
    let (world, receiver) = (world().await, Receiver::new().await);
    let app = world.start().await;
    all_have(&app, &world, &[ADA], "1").await;
    endpoint(&app, &receiver).await;
    let asks = |text: &str| Reply::new(503, &[("retry-after", text)], "");
    let date = httpdate::fmt_http_date(
        SystemTime::UNIX_EPOCH
            + Duration::from_millis(u64::try_from(world.clock.now().as_millis()).unwrap())
            + 2 * HOUR,
    );
    let until = world.clock.now() + 2 * HOUR;
    let times = timed(&receiver, &world.clock, vec![asks("600"), asks(&date), asks("1"), asks("soon")]);
    change(&app, &world, ADA, "2").await;
    in_time(&world, MINUTE, "it is tried five times", async || times.lock().unwrap().len() == 5).await;
    let pauses = pauses(&times);
    let times = times.lock().unwrap().clone();
    assert!(pauses[0] >= 10 * MINUTE && pauses[0] < HOUR, "600 seconds and not 5: {pauses:?}");
    assert!(times[2] >= until - Duration::from_secs(1), "until that date and not 5 minutes: {pauses:?}");
    assert!(pauses[2] >= 30 * MINUTE && pauses[2] < HOUR, "no sooner than the schedule says: {pauses:?}");
    assert!(pauses[3] >= 2 * HOUR && pauses[3] < 3 * HOUR, "what says nothing changes nothing: {pauses:?}");
    app.stop().await;
}

#[tokio::test]
async fn a_receiver_that_has_too_much_to_do_is_slowed_down_for_everybody() {
    for (status, slowed) in [(429, true), (502, true), (504, true), (500, false)] {
        let (world, receiver) = (world().await, Receiver::new().await);
        let app = world.start().await;
        all_have(&app, &world, &[ADA, BOB], "1").await;
        let endpoint = endpoint(&app, &receiver).await;
        let times = timed(&receiver, &world.clock, vec![Reply::status(status), Reply::status(status)]);
        change(&app, &world, ADA, "2").await;
        in_time(&world, MINUTE / 60, "it is tried again", async || times.lock().unwrap().len() == 2).await;
        let result = status.to_string();
        eventually("it is known", async || {
            let last = endpoint.shown(&app).await["last_result"].clone();
            last["result"] == result.as_str() && last["at"] == times.lock().unwrap()[1].rfc3339()
        })
        .await;
        change(&app, &world, BOB, "2").await;
        if slowed {
            in_time(&world, MINUTE / 6, "somebody's event is tried", async || times.lock().unwrap().len() >= 3).await;
            assert!(pauses(&times)[1] >= 5 * MINUTE, "{status}: {:?}", pauses(&times));
        } else {
            // The clock stands.
            let requests = gets(&receiver, 3).await;
            assert_eq!(lines(&requests)[2], "avatar.changed 999002 2", "{status}: it may be Ada's event alone");
        }
        in_time(&world, MINUTE, "everything arrives", async || receiver.requests().len() >= 4).await;
        app.stop().await;
    }
}

#[tokio::test]
async fn five_failing_days_disable_and_whoever_enables_again_gets_everything() {
    let (world, receiver) = (world().await, Receiver::new().await);
    let app = world.start().await;
    all_have(&app, &world, &[ADA, BOB], "0").await;
    let endpoint = endpoint(&app, &receiver).await;
    let times = timed(&receiver, &world.clock, vec![Reply::status(500); 1000]);
    let is_disabled = async || endpoint.state(&app).await == "disabled";
    for round in 1.. {
        let later = world.clock.now() + 6 * HOUR;
        all_have(&app, &world, &[ADA, BOB], &round.to_string()).await;
        in_time(&world, HOUR / 2, "hours pass", async || is_disabled().await || world.clock.now() >= later).await;
        if is_disabled().await {
            break;
        }
    }
    let began = times.lock().unwrap()[0];
    let lasted = world.clock.now().since(began);
    assert!(lasted >= 5 * DAY && lasted < 6 * DAY, "{lasted:?}");
    let shown = endpoint.shown(&app).await;
    assert_eq!((&shown["reason"], &shown["last_result"]["result"]), (&json!("failing"), &json!("500")), "{shown}");
    assert!(shown["since"].is_string() && shown["pending"].as_u64() > Some(0), "{shown}");
    let dead = shown["dead_letters"].as_u64().unwrap();
    assert!(dead > 0, "what failed for three days is given up: {shown}");

    // Days later somebody mends it.
    let before = receiver.always(Reply::status(200));
    world.clock.advance(2 * DAY);
    all_have(&app, &world, &[ADA, BOB], "last").await;
    let all = app.change_log().await;
    let shown = endpoint.patch(&app, &json!({"enabled": true})).await;
    assert_eq!((&shown["state"], &shown["reason"], &shown["since"]), (&json!("active"), &json!(null), &json!(null)));
    let since = || receiver.requests().split_off(before);
    let kept = all.len() - usize::try_from(dead).unwrap();
    in_time(&world, MINUTE, "what is kept arrives", async || since().len() >= kept).await;
    assert_eq!(ids(&since()).len(), kept, "each once");
    in_order(&since());
    let shown = endpoint.replay(&app, &json!({"dead_letters": true})).await;
    assert_eq!(shown["dead_letters"], 0);
    in_time(&world, MINUTE, "what was given up arrives", async || since().len() >= all.len()).await;
    assert_eq!((since().len(), ids(&since())), (all.len(), ids_of(&all)), "each once");
    app.stop().await;
}

#[tokio::test]
async fn whoever_is_away_for_longer_than_changes_are_kept_is_told_what_is_missed() {
    let (world, receiver) = (world().await.flag("--retention=2d"), Receiver::new().await);
    let mut app = world.start().await;
    all_have(&app, &world, &[ADA, BOB], "0").await;
    let endpoint =
        made(&app, &json!({"url": receiver.url("/hook"), "events": ["avatar.changed"], "jids": [BOB]})).await;
    change(&app, &world, BOB, "1").await;
    let first = gets(&receiver, 1).await;
    eventually("it is written down", async || endpoint.shown(&app).await["lag"]["events"] == 0).await;
    endpoint.patch(&app, &json!({"enabled": false})).await;
    for picture in ["2", "3"] {
        all_have(&app, &world, &[ADA, BOB], picture).await;
    }
    world.clock.advance(3 * DAY);
    all_have(&app, &world, &[ADA, BOB], "4").await;
    in_time(&world, MINUTE, "the oldest are dropped", async || app.change_log().await.len() == 2).await;

    // The news fails at first, and the proxy is stopped; it is the same news afterwards.
    let before = receiver.always(Reply::status(500));
    endpoint.patch(&app, &json!({"enabled": true})).await;
    gets(&receiver, before + 2).await;
    app.stop().await;
    let mended = receiver.always(Reply::status(200));
    app = world.start().await;
    in_time(&world, MINUTE / 6, "everything arrives", async || receiver.requests().len() >= mended + 2).await;
    let requests = receiver.requests().split_off(before);
    let gaps: Vec<_> = requests.iter().filter(|request| event(request)["event"] == "avatar.gap").collect();
    assert!(
        gaps.iter().all(|gap| gap.body == gaps[0].body && gap.header("webhook-id") == gaps[0].header("webhook-id"))
    );
    let mut told = lines(&receiver.requests().split_off(mended));
    told.sort_unstable();
    assert_eq!((told, gaps.len()), (vec!["avatar.changed 999002 4".to_owned(), "avatar.gap".to_owned()], 2));
    let payload = event(gaps[0])["payload"].clone();
    assert_eq!(payload["from"], event(&first[0])["payload"]["cursor"], "from where it was");
    let to = payload["to"].as_str().unwrap().to_owned();
    let kept = app.get(&format!("/changes?after={to}")).await.json()["changes"].clone();
    assert_eq!(kept.as_array().map(Vec::len), Some(2), "to where the log begins, and what is kept follows");
    app.stop().await;
}
