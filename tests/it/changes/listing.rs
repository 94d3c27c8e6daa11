//! `GET /changes` and `GET /avatars/{jid}/changes`.

use avatar_proxy::demo::Reply;

use super::{ADA, BOB, HOUR, change, listed, look, world};
use crate::support::eventually::eventually;

#[tokio::test]
async fn a_change_is_told_with_all_that_is_known_of_it() {
    let (world, ada) = world().await;
    let app = world.start().await;
    look(&app, &world, ADA).await;
    assert_eq!(listed(&app, "/changes").await.0, [""; 0], "a baseline is no change");
    let seen_at = world.clock.now().rfc3339();
    change(&app, &world, ADA, "18").await;
    let noticed_at = world.clock.now().rfc3339();
    let event = app.get("/changes").await.json()["changes"][0].clone();
    let payload = &event["payload"];
    let (id, cursor) = (payload["id"].as_str().unwrap(), payload["cursor"].as_str().unwrap());
    assert_eq!(
        event,
        serde_json::json!({
            "event": "avatar.changed",
            "device_id": "",
            "payload": {
                "id": id, "cursor": cursor, "jid": format!("{ADA}@s.whatsapp.net"), "change": "changed", "reason": null,
                "old_id": "17", "new_id": "18", "version": 1, "timestamp": noticed_at, "not_before": seen_at,
                "href": format!("/avatars/{ADA}@s.whatsapp.net"),
            },
        })
    );
    assert!(id.len() == 32 && cursor.ends_with(".1"), "{event}");

    ada.replies(Reply::NotSet);
    look(&app, &world, ADA).await;
    world.clock.advance(HOUR / 60);
    look(&app, &world, ADA).await;
    let (_, next) = listed(&app, "/changes").await;
    let event = app.get("/changes").await.json()["changes"][1].clone();
    assert_eq!((&event["event"], &event["payload"]["reason"]), (&"avatar.removed".into(), &"not_set".into()));
    assert_eq!((&event["payload"]["old_id"], &event["payload"]["new_id"]), (&"18".into(), &serde_json::Value::Null));
    assert_eq!(listed(&app, &format!("/changes?after={next}")).await, (vec![], next.clone()), "the log always goes on");
    app.stop().await;

    let app = world.start().await;
    assert_eq!(listed(&app, &format!("/changes?after={next}")).await, (vec![], next), "also after a restart");
    app.stop().await;
}

#[tokio::test]
async fn the_log_is_read_in_pages_and_by_person_and_device() {
    let (world, _) = world().await;
    let app = world.start().await;
    for who in [ADA, BOB] {
        world.gateway.person(who).picture("1");
        look(&app, &world, who).await;
    }
    for (who, id) in [(ADA, "2"), (BOB, "3"), (ADA, "4"), (BOB, "5"), (ADA, "6")] {
        change(&app, &world, who, id).await;
    }
    let mut cursor = String::new();
    let mut seen = vec![];
    loop {
        let (ids, next) = listed(&app, &format!("/changes?limit=2&after={cursor}")).await;
        if ids.is_empty() {
            break;
        }
        seen.extend(ids);
        cursor = next;
    }
    assert_eq!(seen, ["2", "3", "4", "5", "6"]);
    assert_eq!(listed(&app, &format!("/changes?jid={ADA}")).await.0, ["2", "4", "6"]);
    assert_eq!(listed(&app, &format!("/changes?jid={ADA}&jid=%2B{BOB}")).await.0, seen);
    assert_eq!(listed(&app, "/changes?device_id=").await.0, seen);
    assert_eq!(listed(&app, "/changes?device_id=other").await, (vec![], cursor.clone()), "nothing, as far as the end");
    let (ids, next) = listed(&app, &format!("/changes?jid={BOB}&limit=1")).await;
    assert_eq!(ids, ["3"]);
    assert_eq!(listed(&app, &format!("/changes?jid={BOB}&limit=1&after={next}")).await.0, ["5"]);

    let (ids, next) = listed(&app, &format!("/avatars/{ADA}/changes?limit=2")).await;
    assert_eq!(ids, ["6", "4"], "newest first");
    let older = format!("/avatars/{ADA}/changes?before={next}");
    assert_eq!(listed(&app, &older).await, (vec!["2".to_owned()], String::new()), "and null at the end");
    assert_eq!(app.get(&older).await.json()["next"], serde_json::Value::Null);
    assert_eq!(listed(&app, &format!("/avatars/{ADA}/changes?device_id=other")).await.0, [""; 0]);
    app.stop().await;
}

#[tokio::test]
async fn what_is_missed_is_said() {
    let (world, _) = world().await;
    let world = world.flag("--retention=10h");
    let app = world.start().await;
    look(&app, &world, ADA).await;
    change(&app, &world, ADA, "18").await;
    let (_, early) = listed(&app, "/changes").await;
    let gaps = async || app.metric("avatar_proxy_gaps_total").await;
    let (epoch, _) = early.split_once('.').unwrap();
    for odd in ["0123456789abcdef.1".to_owned(), format!("{epoch}.2")] {
        let answer = app.get(&format!("/changes?after={odd}")).await.json();
        let gap = &answer["changes"][0];
        assert_eq!((&gap["event"], &gap["payload"]["from"]), (&"avatar.gap".into(), &odd.as_str().into()), "{odd}");
        assert_eq!(gap["payload"]["to"], format!("{epoch}.0"));
        assert_eq!(answer["changes"][1]["payload"]["new_id"], "18", "then the oldest that is kept");
    }
    change(&app, &world, ADA, "19").await;
    world.clock.advance(9 * HOUR);
    change(&app, &world, ADA, "20").await;
    world.clock.advance(2 * HOUR);
    eventually("the oldest are dropped", async || app.metric("avatar_proxy_log_trimmed_total").await > 1.5).await;
    let (ids, _) = listed(&app, &format!("/changes?after={early}")).await;
    assert_eq!(ids, ["avatar.gap", "20"], "a place before the oldest that is kept");
    assert_eq!(listed(&app, "/changes").await.0, ["20"], "whoever begins with the oldest missed nothing");
    assert!((gaps().await - 3.0).abs() < 0.1);
    app.stop().await;
}

#[tokio::test]
async fn nonsense_is_refused_by_name() {
    let (world, _) = world().await;
    let app = world.start().await;
    for (target, wrong) in [
        ("/changes?after=x", "after: is not a cursor"),
        ("/changes?after=0123456789abcdef.01", "after: is not a cursor"),
        ("/changes?limit=0", "limit: must be a whole number between 1 and 1000"),
        ("/changes?limit=1001", "limit: must be"),
        ("/changes?limit=ten", "limit: must be"),
        ("/changes?jid=", "jid: cannot be blank"),
        ("/changes?jid=x@y", "jid: "),
        ("/changes?after=&after=", "after: must be given once"),
        ("/changes?device_id=%zz", "device_id: is not valid"),
        ("/avatars/x@y/changes", "jid: "),
        ("/avatars/1/changes?before=x", "before: is not a cursor"),
        ("/avatars/1/changes?before=0123456789abcdef.1", "before: is a cursor of another log"),
        ("/watches?after=x", "after: is not what `next` said"),
        ("/watches?limit=-1", "limit: must be"),
        ("/events?last_event_id=x", "last_event_id: is not a cursor"),
        ("/events?jid=x@y", "jid: "),
    ] {
        let answer = app.get(target).await;
        assert_eq!((answer.status.as_u16(), answer.code().as_str()), (400, "VALIDATION_ERROR"), "{target}");
        assert!(answer.message().starts_with(wrong), "{target}: {answer:?}");
    }
    for target in ["/avatars/1/2/changes", "/avatars//changes", "/avatars/1/change", "/changes/1"] {
        assert_eq!(app.get(target).await.code(), "NOT_FOUND", "{target}");
    }
    app.stop().await;
}
