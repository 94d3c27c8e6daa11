//! The store in its various states, and that nothing of the check is left in it.

use std::collections::BTreeMap;
use std::path::Path;

use super::check;
use crate::support::app::World;
use crate::support::authority::Authority;
use crate::support::eventually::eventually;
use crate::support::port;
use crate::support::process::Process;
use crate::support::receiver::Receiver;
use crate::support::redis::Redis;
use crate::support::relay::Relay;

/// Every file of a folder, with what it holds.
fn contents(folder: &Path) -> BTreeMap<String, Vec<u8>> {
    let read = |entry: std::io::Result<std::fs::DirEntry>| {
        let path = entry.unwrap().path();
        (path.file_name().unwrap().to_string_lossy().into_owned(), std::fs::read(&path).unwrap())
    };
    std::fs::read_dir(folder).unwrap().map(read).collect()
}

#[tokio::test]
async fn a_file_is_found_out_about_and_left_as_it_was() {
    let world = World::new().await;
    let path = world.store_path();
    let folder = path.parent().unwrap();
    let untouched = async |verdict: &str, text: &str| {
        let before = contents(folder);
        check(&world, &[]).await.says("store", verdict, text);
        assert!(contents(folder) == before, "a trace of it is left: {:?}", contents(folder).keys());
    };
    untouched("ok", "is not there yet, and can be made").await;
    let process = Process::start(&world);
    process.client.avatar("99900000001").await.expect(200, "fwd=miss");
    assert!(process.terminate().0.success());
    untouched("ok", "can be opened").await;
    std::fs::write(&path, "a diary, and no database at all").unwrap();
    untouched("wrong", "is not a SQLite database: name another file").await;
    rusqlite_file(&path, "PRAGMA application_id = 0x61767078; PRAGMA user_version = 99; CREATE TABLE a (b);");
    untouched("wrong", "has version 99, and this program knows version").await;
    rusqlite_file(&path, "CREATE TABLE a (b);");
    untouched("wrong", "is a database of another program").await;
    let first = concat!(
        include_str!("../../../src/store/sqlite/schema_1.sql"),
        "PRAGMA application_id = 0x61767078; PRAGMA user_version = 1;"
    );
    rusqlite_file(&path, first);
    untouched("warning", "has the older version 1, which is brought up to date then: back it up first").await;
}

fn rusqlite_file(path: &Path, statements: &str) {
    std::fs::remove_file(path).unwrap();
    rusqlite::Connection::open(path).unwrap().execute_batch(statements).unwrap();
}

#[tokio::test]
async fn what_a_kill_has_left_is_a_store() {
    let world = World::new().await;
    let process = Process::start(&world);
    process.client.avatar("99900000001").await.expect(200, "fwd=miss");
    process.kill();
    check(&world, &[]).await.says("store", "ok", "can be opened");
    let process = Process::start(&world);
    process.client.avatar("99900000001").await.expect(200, "hit");
}

#[tokio::test]
async fn folders_that_are_not_there_or_cannot_be_written_to_are_said() {
    let world = World::new().await;
    check(&world, &["--store=sqlite:/nowhere/at/all.db"]).await.says("store", "wrong", "make it, or name another");
    check(&world, &["--store=sqlite:/proc/a.db"]).await.says("store", "wrong", "cannot be written");
}

#[tokio::test]
async fn a_server_that_is_set_up_well_is_ok_and_nothing_is_written_there() {
    let server = Redis::with(&["--appendonly yes"]);
    let world = World::new().await.on(&server);
    let all = check(&world, &[]).await;
    all.ends(0);
    all.says("store", "ok", "holds no store yet");
    for name in ["store's room", "store's disk", "store's replicas", "store's clock"] {
        assert!(all.of(name).starts_with("ok "), "{}", all.of(name));
    }
    assert_eq!(server.ask("DBSIZE"), redis::Value::Int(0));
    let app = world.start().await;
    app.avatar("99900000001").await.expect(200, "fwd=miss");
    check(&world, &[]).await.says("store", "ok", "holds a store, and answers in");
    app.stop().await;
}

#[tokio::test]
async fn how_a_server_would_lose_things_is_said() {
    let server = Redis::start();
    let world = World::new().await.on(&server);
    for (setting, check_name, verdict, text) in [
        ("appendonly no", "store's disk", "warning", "keeps nothing on its disk"),
        ("save 60 1000", "store's disk", "warning", "now and then"),
        ("maxmemory-policy allkeys-lru", "store's room", "warning", "if it had a limit"),
        ("maxmemory 100mb", "store's room", "wrong", "set maxmemory-policy noeviction"),
        ("maxmemory-policy noeviction", "store's room", "ok", "drops nothing by itself, and holds"),
        ("maxmemory 1mb", "store's room", "wrong", "it is full: it holds"),
        ("min-replicas-to-write 1", "store's replicas", "wrong", "it has 0, and takes no writes"),
    ] {
        let (name, value) = setting.split_once(' ').unwrap();
        redis::cmd("CONFIG").arg("SET").arg(name).arg(value).exec(&mut server.raw()).unwrap();
        let all = check(&world, &[]).await;
        all.says(check_name, verdict, text);
        all.ends(i32::from(all.lines.iter().any(|line| line.starts_with("wrong"))));
    }
}

#[tokio::test]
async fn what_a_server_does_not_tell_is_not_made_up() {
    let server = Redis::with(&["--appendonly yes"]);
    server.ask("ACL SETUSER ada on >s3cret ~* &* +@all -config");
    let world = World::new().await;
    let url = server.url().replace("redis://", "--store=redis://ada:s3cret@");
    check(&world, &[&url]).await.says("store's disk", "ok", "does not tell how soon");
    server.ask("CONFIG SET appendonly no");
    check(&world, &[&url]).await.says("store's disk", "warning", "it does not write everything down");
}

#[tokio::test]
async fn rights_that_a_store_needs_are_tried_and_nothing_is_left_of_that() {
    let server = Redis::start();
    let world = World::new().await;
    let url = server.url().replace("redis://", "--store=redis://ada:s3cret@");
    for (rights, text) in [
        ("~* +@all -info", "no permissions to run the 'info' command"),
        ("~* +@all -evalsha", "no permissions to run the 'evalsha' command"),
        ("~* +@all -eval", "no permissions to run the 'eval' command"),
        ("~* +@all -wait", "no permissions to run the 'wait' command"),
        ("~crm:* +@all", "no permissions to access"),
        ("%R~* +@all", "no permissions to access"),
    ] {
        server.ask(&format!("ACL SETUSER ada reset on >s3cret {rights}"));
        let all = check(&world, &[&url]).await;
        all.says("store", "wrong", "does not let this user do what the store needs");
        let said = all.of("store").to_lowercase();
        assert!(said.contains(text) && said.contains("allow scripts"), "{rights}: {said}");
        all.ends(1);
    }
    server.ask("ACL SETUSER ada reset on >s3cret ~{avatar-proxy}:* +@all -@admin +config|get");
    let enough = check(&world, &[&url]).await;
    enough.says("store", "ok", "holds no store yet");
    enough.says("store's disk", "warning", "it keeps nothing on its disk");
    assert_eq!(server.ask("DBSIZE"), redis::Value::Int(0));
    let memory = server.text("INFO memory");
    assert!(memory.contains("number_of_cached_scripts:0"), "{memory}");
}

#[tokio::test]
async fn servers_that_are_no_place_for_a_store_are_said() {
    let mut server = Redis::with(&["--requirepass s3cret"]);
    let world = World::new().await;
    let at = |login: &str| server.url().replace("redis://", &format!("--store=redis://{login}"));
    let wrong = check(&world, &[&at(":guess@")]).await;
    wrong.says("store", "wrong", "does not accept this user and password");
    assert!(!wrong.lines.concat().contains("guess"));
    let right = check(&world, &[&at(":s3cret@")]).await;
    right.says("store", "ok", "");
    assert!(!right.lines.concat().contains("s3cret"));
    server.pause();
    let stuck = check(&world, &[&at(":s3cret@")]).await;
    assert!(stuck.of("store").starts_with("wrong"), "{}", stuck.of("store"));
    stuck.says("device", "ok", "");
    server.resume();
    server.kill();
    check(&world, &[&format!("--store={}", server.url())]).await.says("store", "wrong", "cannot be reached");
    let primary = Redis::start();
    for (command, text) in [
        ("HSET {avatar-proxy}:meta format 9", "has format 9, and this program knows format 2"),
        ("SET {avatar-proxy}:meta diary", "is another program's"),
    ] {
        primary.ask("FLUSHALL");
        primary.ask(command);
        check(&world, &[&format!("--store={}", primary.url())]).await.says("store", "wrong", text);
    }
    let replica = Redis::with(&[&format!("--replicaof 127.0.0.1 {}", primary.port())]);
    check(&world, &[&format!("--store={}", replica.url())]).await.says("store", "wrong", "read-only replica");
    primary.ask("FLUSHALL");
    eventually("the replica is there", async || primary.text("INFO replication").contains("connected_slaves:1")).await;
    check(&world, &[&format!("--store={}", primary.url())]).await.says("store's replicas", "ok", "it has 1");
}

#[tokio::test]
async fn what_answers_in_another_way_is_no_server() {
    let world = World::new().await;
    let secure = Receiver::with_tls(&Authority::new("ours"), &["localhost"]).await;
    let nobody = Relay::to(port::free().port()).await;
    let server = Redis::start();
    for (url, text) in [
        (format!("redis://{}", world.gateway.address()), "does not speak as a Redis does"),
        (format!("rediss://{}", world.gateway.address()), "makes no secure connection"),
        (format!("redis://localhost:{}", secure.address().port()), "or rediss:// for TLS"),
        (format!("rediss://localhost:{}", secure.address().port()), "name a private authority with ?ca=FILE"),
        (format!("redis://127.0.0.1:{}", nobody.port()), "breaks the connection off"),
        (format!("redis+cluster://127.0.0.1:{}", server.port()), "is no cluster: write redis://"),
        (format!("redis+sentinel://127.0.0.1:{}/crm", server.port()), "is no Sentinel: name the Sentinels"),
        ("redis://nobody.invalid".to_owned(), "its name has no address"),
    ] {
        let all = check(&world, &[&format!("--store={url}")]).await;
        all.says("store", "wrong", text);
        all.ends(1);
    }
}
