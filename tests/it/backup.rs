//! Backups, made and put back as the README says: by the commands that stand there.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use avatar_proxy::demo::Options;

use crate::support::app::{TestApp, World};
use crate::support::eventually::eventually;
use crate::support::hand::{self, change, look};
use crate::support::receiver::{Receiver, Reply};
use crate::support::redis::Redis;
use crate::support::subscriber::Subscriber;

const ADA: &str = "999001";

/// The commands of the block of the README's part on backups that contains this.
fn commands(text: &str) -> Vec<String> {
    let readme = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("README.md")).unwrap();
    let part = readme.split("### Backup and restore").nth(1).and_then(|rest| rest.split("\n### ").next()).unwrap();
    let block = part.split("```sh\n").skip(1).find(|block| block.split("```").next().unwrap().contains(text));
    let block = block.unwrap_or_else(|| panic!("no block in the README has {text:?}"));
    block.split("```").next().unwrap().lines().map(str::to_owned).collect()
}

/// Does in a folder what a shell would with these commands; `sqlite3` is the library that the program has.
fn do_by_hand(folder: &Path, commands: Vec<String>) {
    for command in commands {
        if let Some((file, rest)) = command.strip_prefix("sqlite3 ").and_then(|rest| rest.split_once(" \"")) {
            // The working directory is not the folder.
            let statement = rest.trim_end_matches('"').replace("INTO '", &format!("INTO '{}/", folder.display()));
            rusqlite::Connection::open(folder.join(file)).unwrap().execute_batch(&statement).unwrap();
        } else {
            assert!(
                Command::new("sh").args(["-c", &command]).current_dir(folder).status().unwrap().success(),
                "{command}"
            );
        }
    }
}

async fn places(app: &TestApp) -> Vec<(String, String)> {
    let event = |event: serde_json::Value| {
        let text = |name: &str| event["payload"][name].as_str().unwrap_or_default().to_owned();
        (text("new_id"), text("cursor"))
    };
    app.change_log().await.into_iter().map(event).collect()
}

fn ids(places: &[(String, String)]) -> Vec<&str> {
    places.iter().map(|(id, _)| id.as_str()).collect()
}

/// What a subscriber that stood there is told, so many events of it: new ids, or the name of what is no change.
async fn told(app: &TestApp, cursor: &str, count: usize) -> Vec<String> {
    let mut subscriber = Subscriber::new(app.app().address(), "/events", &[("last-event-id", cursor)]).await;
    let mut told = vec![];
    for _ in 0..count {
        let next = tokio::time::timeout(Duration::from_secs(20), subscriber.next()).await;
        let event = next.unwrap_or_else(|_| panic!("nothing follows {told:?}")).expect("the stream goes on");
        told.push(if event.name.is_empty() { event.new_id() } else { event.name });
    }
    told
}

fn place_in(cursor: &str) -> (&str, &str) {
    cursor.split_once('.').expect("an epoch and a sequence")
}

#[tokio::test]
async fn a_backup_made_while_it_runs_is_whole_and_put_back_it_is_another_log() {
    let receiver = Receiver::new().await;
    receiver.always(Reply::status(204));
    let world = hand::world(Options::default()).await;
    let folder = world.store_path().parent().unwrap().to_owned();
    let world = world
        .flag(&format!("--store=sqlite:{}", folder.join("avatar-proxy.db").display()))
        .flag(&format!("--webhook={}", receiver.url("/hook")));
    world.gateway.person(ADA).picture("17");
    let app = world.start().await;
    look(&app, &world, ADA).await;
    let watch = format!("/avatars/{ADA}/watch");
    let json = [("content-type", "application/json")];
    assert_eq!(app.send_body(http::Method::PUT, &watch, &json, r#"{"interval":"6h"}"#).await.status, 200);
    change(&app, &world, ADA, "18").await;
    change(&app, &world, ADA, "19").await;
    do_by_hand(&folder, commands("VACUUM INTO"));
    let kept = places(&app).await;
    change(&app, &world, ADA, "20").await;
    let lost = places(&app).await.pop().unwrap();
    // What a kill leaves behind: a log of writes that belongs to what is put away.
    let log = fs::read(folder.join("avatar-proxy.db-wal")).unwrap();
    app.stop().await;
    fs::write(folder.join("avatar-proxy.db-wal"), log).unwrap();

    do_by_hand(&folder, commands("cp backup.db"));
    goes_on_as_another_log(&world, &folder, &receiver, &kept, &lost).await;

    // And in the other way, which nobody can tell from the file itself.
    let copy = folder.join("copy.db");
    fs::copy(folder.join("avatar-proxy.db"), &copy).unwrap();
    let app = world.start().await;
    let kept = places(&app).await;
    change(&app, &world, ADA, "22").await;
    let lost = places(&app).await.pop().unwrap();
    app.stop().await;
    fs::rename(&copy, folder.join("avatar-proxy.db")).unwrap();
    do_by_hand(&folder, commands("UPDATE meta"));
    let app = world.start().await;
    change(&app, &world, ADA, "23").await;
    assert_eq!(ids(&kept), ["18", "19", "21"]);
    assert_eq!(told(&app, &lost.1, 5).await, ["gap", "18", "19", "21", "23"]);
    app.stop().await;
}

/// Starts it on what was put back.
async fn goes_on_as_another_log(
    world: &World,
    folder: &Path,
    receiver: &Receiver,
    kept: &[(String, String)],
    lost: &(String, String),
) {
    let told_before = receiver.requests().len();
    let app = world.start().await;
    let there = places(&app).await;
    assert_eq!((ids(&there), ids(kept)), (vec!["18", "19"], vec!["18", "19"]));
    app.avatar_asking(ADA, "only-if-cached").await.expect(200, "hit");
    assert_eq!(app.get("/watches").await.json()["watches"][0]["interval"], "6h");
    change(&app, world, ADA, "21").await;
    let again = places(&app).await.pop().unwrap();
    let ((old_epoch, old_place), (new_epoch, new_place)) = (place_in(&lost.1), place_in(&again.1));
    assert!(old_place == new_place && old_epoch != new_epoch, "{lost:?} {again:?}");
    // Whoever stood beyond the backup, or behind it, is told, and gets what is kept.
    for cursor in [&lost.1, &kept[0].1] {
        assert_eq!(told(&app, cursor, 4).await, ["gap", "18", "19", "21"]);
    }
    assert_eq!(app.get(&format!("/avatars/{ADA}/changes")).await.json()["changes"][0]["payload"]["version"], 3);
    eventually("the webhook is told as well", async || {
        // What waits for a moment waits by this clock.
        world.clock.advance(Duration::from_secs(1));
        let bodies: Vec<String> = receiver.requests()[told_before..]
            .iter()
            .map(|request| String::from_utf8_lossy(&request.body).into_owned())
            .collect();
        bodies.iter().any(|body| body.contains("avatar.gap"))
            && bodies.iter().any(|body| body.contains(r#""new_id":"21""#))
    })
    .await;
    app.stop().await;
    let file = rusqlite::Connection::open(folder.join("avatar-proxy.db")).unwrap();
    let behind = "SELECT (SELECT tokens FROM meta) >= (SELECT max(revision) FROM subjects)";
    assert!(file.query_row(behind, [], |row| row.get::<_, bool>(0)).unwrap(), "no token is given twice");
}

#[tokio::test]
async fn a_backup_of_redis_is_whole_and_put_back_it_is_another_log() {
    let server = Redis::with(&["--appendonly yes"]);
    let of = |server: &Redis, folder: &Path, text: &str| {
        let to = format!("redis-cli -p {} ", server.port());
        for command in commands(text) {
            do_by_hand(folder, vec![command.replace("redis-cli ", &to)]);
        }
    };
    let world = hand::world(Options::default()).await.on(&server);
    world.gateway.person(ADA).picture("17");
    let app = world.start().await;
    look(&app, &world, ADA).await;
    change(&app, &world, ADA, "18").await;
    change(&app, &world, ADA, "19").await;
    of(&server, server.folder.path(), "--rdb");
    let kept = places(&app).await;
    change(&app, &world, ADA, "20").await;
    let lost = places(&app).await.pop().unwrap();
    app.stop().await;

    let folder = tempfile::tempdir().unwrap();
    fs::copy(server.folder.path().join("backup.rdb"), folder.path().join("dump.rdb")).unwrap();
    drop(server);
    let server = Redis::in_folder(folder, &["--appendonly no"]);
    of(&server, server.folder.path(), "HSET");
    let setting: Vec<String> = redis::from_redis_value(server.ask("CONFIG GET appendonly")).unwrap();
    assert_eq!(setting, ["appendonly", "yes"]);
    let world: World = world.on(&server);
    let app = world.start().await;
    assert_eq!(ids(&places(&app).await), ["18", "19"]);
    app.avatar_asking(ADA, "only-if-cached").await.expect(200, "hit");
    change(&app, &world, ADA, "21").await;
    let again = places(&app).await.pop().unwrap();
    assert_eq!(place_in(&lost.1).1, place_in(&again.1).1);
    for cursor in [&lost.1, &kept[0].1] {
        assert_eq!(told(&app, cursor, 4).await, ["gap", "18", "19", "21"]);
    }
    app.stop().await;
}
