//! `avatar-proxy migrate`: a process that is killed, refused or cut off, and goes on.

use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

use avatar_proxy::demo::Reply;
use avatar_proxy::outcome::Token;
use avatar_proxy::store::sqlite::Sqlite;
use avatar_proxy::store::{Log as _, Store as _};
use rusqlite::Connection;
use tempfile::TempDir;

use crate::store::{change, full, write};
use crate::support::app::World;
use crate::support::authority::Authority;
use crate::support::redis::Redis as Server;

const PEOPLE: i64 = 24_000;

/// A file with many people, all of whom hold what one does.
struct File {
    folder: TempDir,
}

impl File {
    async fn with_people(people: i64) -> Self {
        let file = Self { folder: tempfile::tempdir().unwrap() };
        let store = Sqlite::open(&file.path()).unwrap();
        let first = avatar_proxy::store::Write { change: Some(change("e0", 1)), ..write(&full("1"), Token(0), 1, 60) };
        store.apply(first).await.unwrap();
        store.close().await;
        file.raw()
            .execute_batch(&format!(
                "BEGIN;
                CREATE TEMP TABLE numbers AS WITH RECURSIVE n (n) AS (VALUES (2) UNION ALL SELECT n + 1 FROM n WHERE n < {people})
                    SELECT n FROM n;
                INSERT INTO subjects (id, device, jid, revision, state, lane, recheck_at, rank, outlook)
                    SELECT n, device, (999000000 + n) || '@s.whatsapp.net', revision, state, lane, recheck_at + n, rank + n, outlook
                    FROM numbers, subjects WHERE id = 1;
                INSERT INTO entries (id, lane, due, record) SELECT n * 4, lane, due + n, record FROM numbers, entries WHERE id = 4;
                INSERT INTO log (kind, appended_at, device, jid, event_id, version, not_before)
                    SELECT kind, appended_at + n, device, (999000000 + n) || '@s.whatsapp.net', 'e' || n, 1, not_before
                    FROM numbers, log WHERE sequence = 1 AND n % 4 = 0;
                COMMIT;"
            ))
            .unwrap();
        file
    }

    fn path(&self) -> PathBuf {
        self.folder.path().join("store.db")
    }

    fn raw(&self) -> Connection {
        Connection::open(self.path()).unwrap()
    }

    fn migration(&self, to: &str) -> Command {
        migration(&self.path(), to)
    }

    fn migrate(&self, to: &str) -> Output {
        self.migration(to).output().expect("the program starts")
    }

    /// Why it ends with a failure: one line.
    fn refusal(&self, to: &str) -> String {
        let output = self.migrate(to);
        assert_eq!(output.status.code(), Some(1), "{output:?}");
        assert!(output.stdout.is_empty());
        let said = String::from_utf8(output.stderr).unwrap();
        let said: Vec<&str> =
            said.lines().filter(|line| !line.starts_with("copied ") && !line.starts_with("compared ")).collect();
        assert!(said.len() == 1 && said[0].starts_with("avatar-proxy: "), "{said:?}");
        said[0].to_owned()
    }
}

fn migration(from: &Path, to: &str) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_avatar-proxy"));
    command.args(["migrate", "--from", &format!("sqlite:{}", from.display()), "--to", to]);
    command
}

/// What a migration that came to its end says behind a word.
fn said(output: &Output, word: &str) -> String {
    assert!(output.status.success(), "{output:?}");
    let text = String::from_utf8(output.stdout.clone()).unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix(word));
    line.unwrap_or_else(|| panic!("no {word} in {text}")).trim().to_owned()
}

fn rows(server: &Server) -> i64 {
    let rows = redis::cmd("HGET").arg("{avatar-proxy}:meta").arg("rows").query::<Option<i64>>(&mut server.raw());
    rows.unwrap().unwrap_or_default()
}

/// Starts it, and waits until more has been carried over than before.
fn under_way(file: &File, server: &Server, beyond: i64) -> Child {
    let mut child = file.migration(&server.url()).stderr(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
    while rows(server) <= beyond {
        assert!(child.try_wait().unwrap().is_none(), "it has ended");
    }
    child
}

#[tokio::test]
async fn whatever_ends_a_migration_it_goes_on_and_ends_the_same() {
    let (file, server, whole) = (File::with_people(PEOPLE).await, Server::start(), Server::start());
    let at_once = file.migrate(&whole.url());
    let (people, changes) = (PEOPLE.to_string(), (PEOPLE / 4 + 1).to_string());
    assert_eq!(
        [said(&at_once, "people"), said(&at_once, "entries"), said(&at_once, "changes")],
        [&people[..], &people, &changes]
    );
    for (turn, signal) in ["-KILL", "-TERM", "-KILL", "-INT"].into_iter().enumerate() {
        let before = rows(&server);
        let child = under_way(&file, &server, before + 400);
        let killed = Command::new("kill").args([signal, &child.id().to_string()]).status().unwrap();
        assert!(killed.success());
        let ended = child.wait_with_output().unwrap();
        assert!(!ended.status.success());
        let stderr = String::from_utf8(ended.stderr).unwrap();
        assert_eq!(stderr.contains("stopped; what was carried over stays there"), signal != "-KILL", "{stderr}");
        assert!(stderr.starts_with(&format!("copied {before} of ")), "turn {turn} began at {before}: {stderr}");
    }
    let at_last = file.migrate(&server.url());
    assert_eq!(said(&at_last, "digest"), said(&at_once, "digest"));
    assert_eq!(said(&at_last, "log"), said(&at_once, "log"));
    let keys =
        ["DBSIZE", "XLEN {avatar-proxy}:log", "ZCARD {avatar-proxy}:wait:1", "HGET {avatar-proxy}:meta subjects"];
    for key in keys {
        assert_eq!(server.ask(key), whole.ask(key), "{key}");
    }
}

#[tokio::test]
async fn a_server_that_dies_or_is_full_ends_it_with_a_sentence_and_it_goes_on_later() {
    let file = File::with_people(PEOPLE).await;
    let mut server = Server::with(&["--appendonly yes"]);
    let child = under_way(&file, &server, 1000);
    server.kill();
    let ended = child.wait_with_output().unwrap();
    assert_eq!(ended.status.code(), Some(1));
    let stderr = String::from_utf8(ended.stderr).unwrap();
    let last = stderr.lines().last().unwrap_or_default();
    assert!(last.contains(&server.url()) && last.contains("the same command goes on with the rest"), "{stderr}");
    assert!(file.refusal(&server.url()).contains("cannot be reached"));

    server.restart();
    let room = server.text("INFO memory");
    let used = room.lines().find_map(|line| line.strip_prefix("used_memory:")).unwrap().trim().parse::<u64>().unwrap();
    server.ask(&format!("CONFIG SET maxmemory {}", used + 1_000_000));
    let full = file.refusal(&server.url());
    assert!(full.contains("has no room left") && full.contains("the same command goes on with the rest"), "{full}");
    server.ask("CONFIG SET maxmemory 0");
    assert_eq!(said(&file.migrate(&server.url()), "people"), PEOPLE.to_string());
}

#[tokio::test]
async fn what_cannot_be_moved_is_said_before_anything_is_touched() {
    let (file, server) = (File::with_people(9).await, Server::start());
    let in_use = Sqlite::open(&file.path()).unwrap();
    assert!(file.refusal(&server.url()).contains("is in use by another process"));
    let extent = in_use.read_log(0, 0).await.unwrap().extent;
    in_use.close().await;

    let locked = Server::with(&["--requirepass secret"]);
    let said_of = |to: &str| file.refusal(to);
    assert!(said_of(&locked.url()).contains("does not accept this user and password"));
    let wrong = said_of(&locked.url().replace("redis://", "redis://:wrong-one@"));
    assert!(wrong.contains("does not accept this user and password") && !wrong.contains("wrong-one"), "{wrong}");

    server.ask("SET {avatar-proxy}:meta x");
    assert!(said_of(&server.url()).contains("is another program's"));
    server.ask("SET {left}:names x");
    assert!(said_of(&format!("{}?prefix=left", server.url())).contains("holds the key {left}:names although no store"));
    server.ask("HSET {newer}:meta format 99");
    assert!(said_of(&format!("{}?prefix=newer", server.url())).contains("has format 99"));
    server.ask("HSET {other}:meta format 2 epoch 00000000000000aa last 7 tokens 7 entries 0 subjects 0");
    assert!(said_of(&format!("{}?prefix=other", server.url())).contains("holds a store already"));
    assert_eq!(server.ask("DBSIZE"), redis::Value::Int(4));

    let nowhere = File { folder: tempfile::tempdir().unwrap() };
    assert!(nowhere.refusal(&server.url()).contains("there is no store"));
    assert_eq!(std::fs::read_dir(nowhere.folder.path()).unwrap().count(), 0);
    std::fs::write(nowhere.path(), "").unwrap();
    assert!(nowhere.refusal(&server.url()).contains("holds no store"));
    std::fs::write(nowhere.path(), "no database, but long enough to be taken for one at first sight").unwrap();
    assert!(nowhere.refusal(&server.url()).contains("is not a SQLite database"));
    file.raw().execute_batch("PRAGMA user_version = 3").unwrap();
    assert!(file.refusal(&server.url()).contains("has version 3, and only version 4 is read"));
    file.raw().execute_batch("PRAGMA user_version = 4").unwrap();

    let to = format!("{}?prefix=free", server.url());
    let moved = file.migrate(&to);
    assert_eq!(said(&moved, "log"), format!("goes on behind {}.{}", extent.epoch, extent.last));
    assert!(file.refusal(&to).contains("holds this store already"));
}

#[tokio::test]
async fn a_file_that_cannot_be_read_to_its_end_leaves_no_store() {
    let (file, server) = (File::with_people(PEOPLE).await, Server::start());
    file.raw().execute_batch("PRAGMA wal_checkpoint(TRUNCATE)").unwrap();
    let mut bytes = std::fs::read(file.path()).unwrap();
    let sound = bytes.clone();
    let (half, quarter) = (bytes.len() / 2, bytes.len() / 4);
    bytes[half..half + quarter].fill(0xa5);
    std::fs::write(file.path(), &bytes).unwrap();
    let refused = file.refusal(&server.url());
    assert!(refused.contains("the file cannot be read") || refused.contains("is damaged"), "{refused}");
    std::fs::write(file.path(), &sound).unwrap();
    assert_eq!(said(&file.migrate(&server.url()), "people"), PEOPLE.to_string());
}

#[tokio::test]
async fn it_finds_its_way_into_a_cluster() {
    let file = File::with_people(500).await;
    let server = Server::with(&["--cluster-enabled yes"]);
    server.ask("CLUSTER ADDSLOTSRANGE 0 16383");
    while !server.text("CLUSTER INFO").contains("cluster_state:ok") {
        tokio::task::yield_now().await;
    }
    let moved = file.migrate(&format!("redis+cluster://127.0.0.1:{}", server.port()));
    assert_eq!(said(&moved, "people"), "500");
}

#[tokio::test]
async fn it_finds_the_primary_that_sentinels_know() {
    let file = File::with_people(500).await;
    let primary = Server::start();
    let folder = tempfile::tempdir().unwrap();
    let watched = format!("sentinel monitor main 127.0.0.1 {} 1\n", primary.port());
    std::fs::write(folder.path().join("redis.conf"), watched).unwrap();
    let sentinel = Server::in_folder(folder, &["--sentinel"]);
    let moved = file.migrate(&format!("redis+sentinel://127.0.0.1:{}/main", sentinel.port()));
    assert_eq!(said(&moved, "people"), "500");
    assert_eq!(primary.text("HGET {avatar-proxy}:meta subjects"), "500");
}

#[tokio::test]
async fn it_checks_the_certificate_of_a_server_with_tls() {
    let file = File::with_people(500).await;
    let (authority, folder) = (Authority::new("Somebody"), tempfile::tempdir().unwrap());
    let ours = authority.signs(&["127.0.0.1"]);
    let written = |name: &str, text: &str| {
        let path = folder.path().join(name);
        std::fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let trusted = written("ca.pem", &authority.pem());
    let server = Server::with(&[
        &format!("--tls-cert-file {}", written("server.pem", &ours.certificate_pem)),
        &format!("--tls-key-file {}", written("server.key", &ours.key_pem)),
        &format!("--tls-ca-cert-file {trusted}"),
        "--tls-auth-clients no",
    ]);
    let url = server.url().replace("redis://", "rediss://");
    assert!(file.refusal(&url).contains("certificate"));
    assert_eq!(said(&file.migrate(&format!("{url}?ca={trusted}")), "people"), "500");
}

#[test]
fn its_two_flags_are_its_own_and_no_password_is_shown() {
    let run = |arguments: &[&str]| {
        let output = Command::new(env!("CARGO_BIN_EXE_avatar-proxy")).args(arguments).output().unwrap();
        (output.status.code(), String::from_utf8(output.stderr).unwrap(), String::from_utf8(output.stdout).unwrap())
    };
    let (code, said, _) = run(&["migrate"]);
    assert!(code == Some(2) && said.contains("--from: is required") && said.contains("--to: is required"), "{said}");
    let (_, said, _) = run(&["migrate", "--from=redis://:secret@h", "--to=sqlite:a.db"]);
    assert!(said.contains("only a file can be moved from") && said.contains("only a Redis can be moved to"), "{said}");
    assert!(!said.contains("secret"), "{said}");
    let (_, said, _) = run(&["migrate", "--from=sqlite:a.db", "--to=redis://h:secret", "--listen=127.0.0.1:1"]);
    assert!(said.contains("--listen: has no effect with `migrate`") && !said.contains("secret"), "{said}");
    let (_, said, _) = run(&["serve", "--gateway-url=http://h", "--from=sqlite:a.db"]);
    assert!(said.contains("--from: is for `migrate` alone"), "{said}");
    let (code, _, help) = run(&["migrate", "--help"]);
    assert!(
        code == Some(0) && help.contains("--from") && help.contains("--to") && !help.contains("--gateway-url"),
        "{help}"
    );
}

#[tokio::test]
async fn progress_goes_on_in_lines_where_nobody_looks_on() {
    let (file, server) = (File::with_people(900).await, Server::start());
    let mut child = file.migration(&server.url()).stderr(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
    let lines: Vec<String> = BufReader::new(child.stderr.take().unwrap()).lines().map_while(Result::ok).collect();
    assert!(child.wait().unwrap().success());
    assert_eq!(lines, ["copied 0 of 1126", "copied 1126 of 1126", "compared 0 of 1126", "compared 1126 of 1126"]);
}

#[tokio::test]
async fn a_proxy_goes_on_with_the_redis_where_it_ended_with_the_file() {
    let (world, server) = (World::new().await, Server::start());
    let app = world.start().await;
    app.avatar("999001").await.expect(200, "fwd=miss; stored");
    let _ = world.gateway.person("999002").replies(Reply::RateLimited);
    app.avatar("999002").await.expect(429, "fwd=miss; detail=rate-limit");
    app.stop().await;
    let (gateway, before) = (world.gateway.clone(), world.gateway.lookups());
    said(&migration(&world.store_path(), &server.url()).output().unwrap(), "people");
    let app = world.on(&server).start().await;
    app.avatar("999001").await.expect(200, "hit");
    // It cools down all the same.
    app.avatar("999003").await.expect(429, "detail=rate-limit");
    assert_eq!(gateway.lookups(), before);
    app.stop().await;
}
