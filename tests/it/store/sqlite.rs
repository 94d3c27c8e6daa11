//! What only the engine on a file promises: one process, a file that is its own, and what a kill leaves.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use avatar_proxy::jid::Key;
use avatar_proxy::outcome::{Reason, Token};
use avatar_proxy::record::Unreadable;
use avatar_proxy::store::sqlite::Sqlite;
use avatar_proxy::store::{Store, StoreError, What, Write};
use rusqlite::Connection;
use tempfile::TempDir;

use super::{Engine, Opened, at, change, conflict, done, full, key_of, look, preview, write};

/// A file in a directory of its own.
pub(super) struct File {
    directory: TempDir,
}

impl File {
    pub(super) fn path(&self) -> PathBuf {
        self.directory.path().join("store.db")
    }

    /// The file as SQLite sees it, for damage and for what the interface does not show yet.
    pub(super) fn raw(&self) -> Connection {
        Connection::open(self.path()).unwrap()
    }

    /// Why it cannot be opened.
    fn refusal(&self) -> String {
        refusal(&self.path())
    }
}

impl Engine for File {
    const REPLICAS: usize = 1;
    const LEASES_STAY: bool = false;

    fn new() -> Self {
        Self { directory: tempfile::tempdir().unwrap() }
    }

    /// A store that was dropped ends a moment later, so its file may be in use for that long.
    async fn open(&self) -> Opened {
        let started = Instant::now();
        loop {
            match Sqlite::open(&self.path()) {
                Ok(store) => return Arc::new(store),
                Err(error) if !error.0.contains("in use") || started.elapsed() > Duration::from_secs(20) => {
                    panic!("{error}")
                }
                Err(_) => tokio::task::yield_now().await,
            }
        }
    }
}

fn refusal(path: &Path) -> String {
    Sqlite::open(path).err().expect("it must not open").to_string()
}

#[tokio::test]
async fn a_file_is_opened_once() {
    let file = File::new();
    let store = file.open().await;
    done(&store, write(&full("1"), Token(0), 1, 10)).await;
    assert!(file.refusal().contains("is in use by another process"), "{}", file.refusal());
    let link = file.directory.path().join("link.db");
    std::os::unix::fs::symlink(file.path(), &link).unwrap();
    assert!(refusal(&link).contains("is in use"), "by any name");
    assert!(store.find(&full("1")).await.unwrap().entry.is_some(), "who has it does not notice");
    store.close().await;
    Sqlite::open(&file.path()).unwrap();
}

#[tokio::test]
async fn the_files_are_nobody_elses_to_read() {
    use std::os::unix::fs::PermissionsExt;
    let file = File::new();
    let store = file.open().await;
    done(&store, write(&full("1"), Token(0), 1, 10)).await;
    for found in file.directory.path().read_dir().unwrap() {
        let found = found.unwrap();
        assert_eq!(found.metadata().unwrap().permissions().mode() & 0o777, 0o600, "{found:?}");
    }
}

#[test]
fn what_is_no_database_is_left_alone() {
    let file = File::new();
    std::fs::write(file.path(), "Dear diary, ".repeat(1000)).unwrap();
    assert!(file.refusal().contains("is not a SQLite database"), "{}", file.refusal());
    assert!(std::fs::read_to_string(file.path()).unwrap().starts_with("Dear diary"));
}

#[test]
fn a_database_of_another_program_is_left_alone() {
    let file = File::new();
    file.raw().execute_batch("CREATE TABLE diary (day)").unwrap();
    let before = std::fs::read(file.path()).unwrap();
    assert!(file.refusal().contains("is a database of another program"), "{}", file.refusal());
    assert_eq!(std::fs::read(file.path()).unwrap(), before);
    let other = File::new();
    other.raw().execute_batch("PRAGMA application_id = 77").unwrap();
    assert!(other.refusal().contains("is a database of another program"), "{}", other.refusal());
}

#[tokio::test]
async fn a_file_of_a_newer_program_is_left_alone() {
    let file = File::new();
    file.open().await.close().await;
    file.raw().execute_batch("PRAGMA user_version = 9").unwrap();
    assert!(file.refusal().contains("has version 9, and this program knows version 4"), "{}", file.refusal());
}

#[tokio::test]
async fn a_file_of_an_older_program_is_brought_up_to_date() {
    let file = File::new();
    file.raw().execute_batch(include_str!("../../../src/store/sqlite/schema_1.sql")).unwrap();
    let older = "PRAGMA application_id = 0x61767078; PRAGMA user_version = 1;
        INSERT INTO changes VALUES (7, 'd', '1@s.whatsapp.net', 'e', 'removed', 'hidden', 'old', NULL, 3, 2000, 1000);";
    file.raw().execute_batch(older).unwrap();
    let store = file.open().await;
    let page = store.read_log(0, 9).await.unwrap();
    let What::Change(change) = &page.records[0].what else { panic!("{page:?}") };
    assert_eq!((page.records[0].sequence, page.extent.last, change.0.device.as_str()), (7, 7, "d"));
    assert_eq!((change.1.reason, change.1.noticed_at.as_millis(), change.1.version), (Some(Reason::Hidden), 2000, 3));
    assert_eq!(store.size(at(0)).await.unwrap().logged, 1);
    done(&store, write(&full("1"), Token(0), 1, 10)).await;
    store.close().await;
    file.open().await.close().await;
}

#[tokio::test]
async fn who_was_due_in_an_older_programs_file_is_looked_at_and_rechecked() {
    let file = File::new();
    for schema in [
        include_str!("../../../src/store/sqlite/schema_1.sql"),
        include_str!("../../../src/store/sqlite/schema_2.sql"),
        include_str!("../../../src/store/sqlite/schema_3.sql"),
    ] {
        file.raw().execute_batch(schema).unwrap();
    }
    let (plain, state) = look(1, Token(1), at(30));
    let raw = file.raw();
    raw.execute_batch("PRAGMA application_id = 0x61767078; PRAGMA user_version = 3;").unwrap();
    let people = [(1, "a", "1", Some(at(30))), (2, "b", "1", Some(at(40))), (3, "a", "2", None)];
    for (id, device, jid, due) in people {
        let jid = format!("{jid}@s.whatsapp.net");
        raw.execute("INSERT INTO subjects VALUES (?1, ?2, ?3, 9, ?4, NULL)", (id, device, jid, state.encode()))
            .unwrap();
        let due = due.map(avatar_proxy::clock::Timestamp::as_millis);
        let entry = "INSERT INTO entries (id, due, requested, record) VALUES (?1, ?2, 5, ?3)";
        raw.execute(entry, (id * 4, due, plain.encode())).unwrap();
    }
    drop(raw);
    let store = file.open().await;
    let mut agenda = store.agenda().await.unwrap();
    agenda.sort_by_key(|agenda| agenda.due_at);
    let told: Vec<_> = agenda.iter().map(|one| (one.device.as_str(), one.due_at, one.recheck_at)).collect();
    assert_eq!(told, [("a", Some(at(30)), Some(at(30))), ("b", Some(at(40)), Some(at(40)))]);
    let first = key_of("a", "1", false, false);
    let candidates = store.take_rechecks(&first.subject.device, at(60), at(90), 9).await.unwrap();
    assert_eq!(candidates.into_iter().map(|one| one.subject).collect::<Vec<_>>(), std::slice::from_ref(&first.subject));
    assert_eq!(store.take_due(&first.subject.device, at(60), at(90), 9).await.unwrap()[0].key, first);
    let resting = key_of("a", "2", false, false);
    let held = store.find(&resting).await.unwrap();
    assert_eq!((held.entry, held.outlook, held.revision), (Some(plain), None, Token(9)), "nothing is lost");
    store.touch(super::suite::touch(&resting, 50, 55)).await.unwrap();
    assert_eq!(
        store.take_rechecks(&first.subject.device, at(60), at(90), 9).await.unwrap()[0].subject,
        resting.subject
    );
    done(&store, write(&resting, Token(9), 2, 100)).await;
    store.close().await;
}

#[tokio::test]
async fn a_damaged_file_is_named() {
    let file = File::new();
    let store = file.open().await;
    for who in 1..200 {
        done(&store, write(&full(&format!("62{who}")), Token(0), 1, 10)).await;
    }
    store.close().await;
    let whole = std::fs::read(file.path()).unwrap();
    std::fs::write(file.path(), &whole[..whole.len() / 2]).unwrap();
    assert!(file.refusal().contains("is damaged: put a backup in its place"), "cut off: {}", file.refusal());
    let mut overwritten = whole.clone();
    overwritten[4096..].fill(0x55);
    std::fs::write(file.path(), overwritten).unwrap();
    assert!(file.refusal().contains("is damaged"), "overwritten: {}", file.refusal());
    std::fs::write(file.path(), whole).unwrap();
    assert!(Sqlite::open(&file.path()).is_ok());
}

#[test]
fn a_file_has_one_lock_whatever_it_is_called_also_before_it_is_made() {
    let file = File::new();
    let link = file.path().with_file_name("link.db");
    std::os::unix::fs::symlink("store.db", &link).unwrap();
    let _open = Sqlite::open(&link).unwrap();
    for name in [&link, &file.path()] {
        assert!(refusal(name).contains("is in use by another process"), "{}", refusal(name));
    }
}

#[test]
fn a_place_where_no_file_can_be_is_named() {
    let file = File::new();
    let directory = file.directory.path();
    assert!(refusal(directory).contains("is not a file"), "{}", refusal(directory));
    let missing = refusal(&directory.join("missing/store.db"));
    assert!(missing.contains("missing, cannot be used") && missing.contains("make it"), "{missing}");
    std::fs::write(directory.join("plain"), "").unwrap();
    let below = refusal(&directory.join("plain/store.db"));
    assert!(below.contains("cannot be reached") && below.contains("name another file"), "{below}");
    std::os::unix::fs::symlink("missing/store.db", directory.join("link")).unwrap();
    let astray = refusal(&directory.join("link"));
    assert!(astray.contains("missing, cannot be used") && astray.contains("make it"), "{astray}");
    std::fs::create_dir(directory.join("store.db.lock")).unwrap();
    assert!(file.refusal().contains("its lock file cannot be made"), "{}", file.refusal());
}

#[tokio::test]
async fn a_file_that_cannot_be_written_is_named() {
    use std::os::unix::fs::PermissionsExt;
    let file = File::new();
    file.open().await.close().await;
    let set = |mode| std::fs::set_permissions(file.path(), std::fs::Permissions::from_mode(mode)).unwrap();
    set(0o400);
    if std::fs::OpenOptions::new().append(true).open(file.path()).is_ok() {
        // The superuser may write whatever the mode says.
        return;
    }
    assert!(file.refusal().contains("it is read-only"), "{}", file.refusal());
}

#[tokio::test]
async fn one_damaged_record_counts_as_absent_and_spoils_nothing_else() {
    let file = File::new();
    let store = file.open().await;
    for (who, due) in [("1", 10), ("2", 20), ("3", 30)] {
        done(&store, Write { requested_at: Some(at(0)), ..write(&full(who), Token(0), 1, due) }).await;
    }
    store.close().await;
    let damage = "UPDATE entries SET record = x'00' WHERE due = (SELECT min(due) FROM entries);
        UPDATE subjects SET jid = '?' WHERE jid LIKE '2%'";
    file.raw().execute_batch(damage).unwrap();
    let store = file.open().await;
    for held in [store.find(&full("1")).await.unwrap(), store.claim(&full("1")).await.unwrap().held] {
        assert!(held.damaged && held.entry.is_none() && held.state.recorded.is_some(), "{held:?}");
    }
    let taken = store.take_due(&full("1").subject.device, at(40), at(100), 10).await.unwrap();
    let due: Vec<_> = taken.iter().map(|due| (due.key.clone(), due.entry.is_some())).collect();
    assert_eq!(due, [(full("1"), false), (full("3"), true)]);
    assert_eq!(store.size(at(900)).await.unwrap().backlog, 2, "whose name cannot be read does not come up again");
    store.close().await;
    let store = file.open().await;
    assert_eq!(store.size(at(900)).await.unwrap().backlog, 2, "nor after a restart");
    let gone = store.forget_idle(at(1), 10).await.unwrap();
    assert_eq!(gone, [full("1").subject, full("3").subject]);
    let size = store.size(at(0)).await.unwrap();
    assert_eq!((size.entries, size.subjects), (0, 0));
}

#[tokio::test]
async fn a_damaged_record_is_written_anew_and_one_of_a_newer_program_is_left_alone() {
    let file = File::new();
    let store = file.open().await;
    done(&store, write(&full("1"), Token(0), 1, 10)).await;
    let newer = done(&store, write(&full("2"), Token(0), 1, 20)).await;
    store.close().await;
    // An array whose first field, the format, is 99.
    let damage = "UPDATE entries SET record = x'00' WHERE due = (SELECT min(due) FROM entries);
        UPDATE subjects SET state = x'C1' WHERE jid LIKE '1%';
        UPDATE entries SET record = x'9163' WHERE due = (SELECT max(due) FROM entries)";
    file.raw().execute_batch(damage).unwrap();
    let store = file.open().await;
    let held = store.find(&full("1")).await.unwrap();
    assert!(held.damaged && held.entry.is_none() && held.state.recorded.is_none(), "{held:?}");
    let mended = write(&full("1"), held.revision, 2, 30);
    done(&store, mended.clone()).await;
    let held = store.find(&full("1")).await.unwrap();
    assert_eq!((held.damaged, held.entry, held.state), (false, Some(mended.entry), mended.state));
    let error = store.find(&full("2")).await.unwrap_err();
    assert!(matches!(error, StoreError::Unreadable(Unreadable::Newer(99))), "{error} at {newer:?}");
}

#[tokio::test]
async fn a_change_is_in_the_log_if_and_only_if_it_was_applied() {
    let file = File::new();
    let store = file.open().await;
    let with = |key: &Key, expected, event: &str, version| Write {
        change: Some(change(event, version)),
        ..write(key, expected, version, 10)
    };
    let revision = done(&store, with(&full("1"), Token(0), "first", 1)).await;
    conflict(&store, with(&full("1"), Token(0), "lost", 2)).await;
    done(&store, with(&preview("1"), revision, "second", 2)).await;
    store.forget_idle(at(900), 10).await.unwrap();
    store.close().await;
    let raw = file.raw();
    let mut log = raw
        .prepare("SELECT sequence, event_id, device || '/' || jid, kind, old_id || new_id, version FROM log ORDER BY 1")
        .unwrap();
    let log: Vec<(i64, String, String, String, String, i64)> = log
        .query_map([], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?, row.get(4)?, row.get(5)?)))
        .unwrap()
        .map(Result::unwrap)
        .collect();
    let row = |sequence, event: &str| {
        (sequence, event.into(), "/1@s.whatsapp.net".into(), "changed".into(), "12".into(), sequence)
    };
    assert_eq!(log, [row(1, "first"), row(2, "second")], "the log outlives who was forgotten");
    let epoch: String = raw.query_row("SELECT epoch FROM meta", [], |row| row.get(0)).unwrap();
    assert_eq!(epoch.len(), 16);
}

const CHILD: &str = "AVATAR_PROXY_TEST_STORE";

/// Not a test of its own: the process that the next one kills.
#[tokio::test]
#[ignore = "run by what_was_acknowledged_survives_a_kill, in a process of its own"]
async fn writes_until_killed() {
    let Some(path) = std::env::var_os(CHILD) else { return };
    let store: Opened = Arc::new(Sqlite::open(Path::new(&path)).unwrap());
    let mut revision = Token(0);
    for id in 1.. {
        let start = store.claim(&full("1")).await.unwrap().start;
        let (entry, _) = super::look(id, start, at(10));
        let write = Write { entry, change: Some(change(&id.to_string(), id)), ..write(&full("1"), revision, id, 10) };
        revision = done(&store, write).await;
        println!("\nacknowledged {} {}", id, revision.0);
    }
}

#[tokio::test]
async fn what_was_acknowledged_survives_a_kill() {
    let file = File::new();
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "store::sqlite::writes_until_killed", "--ignored", "--nocapture"])
        .env(CHILD, file.path())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let lines = BufReader::new(child.stdout.take().unwrap()).lines().map_while(Result::ok);
    let mut acknowledged = lines.filter_map(|line| {
        let (id, revision) = line.strip_prefix("acknowledged ")?.split_once(' ')?;
        Some((id.parse::<u64>().unwrap(), Token(revision.parse().unwrap())))
    });
    let early = acknowledged.nth(50).expect("it writes");
    assert!(file.refusal().contains("is in use by another process"), "{}", file.refusal());
    child.kill().unwrap();
    let (id, revision) = acknowledged.last().unwrap_or(early);
    child.wait().unwrap();

    let store = Arc::new(Sqlite::open(&file.path()).expect("the lock died with its holder"));
    let held = store.find(&full("1")).await.unwrap();
    assert!(held.revision >= revision);
    let entry = held.entry.unwrap();
    let seen: u64 = entry.outcome.id().unwrap().parse().unwrap();
    assert!(seen == id || seen == id + 1, "{seen}: the last acknowledged was {id}, and one more was under way");
    assert!(store.claim(&full("1")).await.unwrap().start > held.revision.max(entry.start()));
    store.close().await;
    let changes: u64 = file.raw().query_row("SELECT count(*) FROM log", [], |row| row.get(0)).unwrap();
    assert_eq!(changes, seen, "each write with its change, once");
}
