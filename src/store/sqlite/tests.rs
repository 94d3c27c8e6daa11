//! What cannot be seen from outside: groups, failing disks, query plans.

use std::sync::mpsc;

use rusqlite::params;
use tempfile::TempDir;

use super::*;

fn open() -> (TempDir, Sqlite) {
    let directory = tempfile::tempdir().unwrap();
    let store = Sqlite::open(&directory.path().join("store.db")).unwrap();
    (directory, store)
}

fn device(name: &str) -> Device {
    Device::new(name).unwrap()
}

/// Keeps the writer busy until told, so that what is sent meanwhile joins this command's group.
fn hold(store: &Arc<Sqlite>) -> (mpsc::Sender<()>, tokio::task::JoinHandle<Result<(), StoreError>>) {
    let (release, held) = mpsc::channel();
    let store = store.clone();
    let wait = move |_: &Connection| held.recv().map_err(|error| StoreError::Unavailable(error.to_string()));
    let held = tokio::spawn(async move { store.write(wait).await });
    (release, held)
}

fn put(store: &Arc<Sqlite>, name: &str) -> tokio::task::JoinHandle<Result<(), StoreError>> {
    let (store, device) = (store.clone(), device(name));
    tokio::spawn(async move { store.put_device(&device, DeviceRecord::default()).await })
}

async fn is_there(store: &Sqlite, name: &str) -> bool {
    store.device(&device(name)).await.unwrap().is_some()
}

#[tokio::test]
async fn a_failing_command_undoes_itself_and_nobody_else() {
    let (_directory, store) = open();
    let store = Arc::new(store);
    let (release, held) = hold(&store);
    let before = put(&store, "before");
    let failing = {
        let store = store.clone();
        tokio::spawn(async move {
            let work = |connection: &Connection| {
                rows::put_device(connection, &device("half"), DeviceRecord::default())?;
                connection.execute("INSERT INTO nowhere VALUES (1)", [])?;
                Ok(())
            };
            store.write(work).await
        })
    };
    let after = put(&store, "after");
    // One thread runs these tasks in turn: after this, all of them have been sent.
    tokio::task::yield_now().await;
    release.send(()).unwrap();
    assert!(held.await.unwrap().is_ok() && before.await.unwrap().is_ok() && after.await.unwrap().is_ok());
    let error = failing.await.unwrap().unwrap_err();
    assert!(error.to_string().contains("no such table: nowhere"), "{error}");
    assert!(is_there(&store, "before").await && is_there(&store, "after").await);
    assert!(!is_there(&store, "half").await);
}

#[tokio::test]
async fn when_the_commit_fails_all_of_the_group_fail() {
    let (_directory, store) = open();
    let store = Arc::new(store);
    // A deferred constraint is checked by the commit.
    let table = "CREATE TABLE late (id INTEGER PRIMARY KEY, parent REFERENCES late DEFERRABLE INITIALLY DEFERRED)";
    store.write(|connection| Ok(connection.execute_batch(table)?)).await.unwrap();
    let (release, held) = hold(&store);
    let before = put(&store, "before");
    let breaking = {
        let store = store.clone();
        tokio::spawn(async move {
            store.write(|connection| Ok(connection.execute("INSERT INTO late VALUES (1, 2)", [])?)).await
        })
    };
    tokio::task::yield_now().await;
    release.send(()).unwrap();
    let breaking = breaking.await.unwrap().unwrap_err().to_string();
    assert!(breaking.contains("FOREIGN KEY constraint failed"), "{breaking}");
    for other in [held, before] {
        assert_eq!(other.await.unwrap().unwrap_err().to_string(), breaking);
    }
    assert!(!is_there(&store, "before").await);
    put(&store, "later").await.unwrap().unwrap();
}

#[tokio::test]
async fn a_full_disk_fails_writes_until_there_is_room_again() {
    let (_directory, store) = open();
    leave_room(&store, 3).await;
    let name = |number: u32| device(&format!("{number:0>200}"));
    let mut written = 0;
    let error = loop {
        match store.put_device(&name(written), DeviceRecord::default()).await {
            Ok(()) => written += 1,
            Err(error) => break error,
        }
        assert!(written < 10_000, "the disk is not full");
    };
    assert!(matches!(&error, StoreError::Unavailable(reason) if reason.contains("full")), "{error}");
    assert!(store.put_device(&name(written), DeviceRecord::default()).await.is_err());
    assert!(store.device(&name(0)).await.unwrap().is_some(), "readers go on");
    leave_room(&store, 1000).await;
    for number in written..written + 100 {
        store.put_device(&name(number), DeviceRecord::default()).await.unwrap();
    }
    let count = |connection: &Connection| -> Result<(u32, String), StoreError> {
        let count = connection.query_row("SELECT count(*) FROM devices", [], |row| row.get(0))?;
        Ok((count, connection.query_row("PRAGMA integrity_check", [], |row| row.get(0))?))
    };
    assert_eq!(store.read(count).await.unwrap(), (written + 100, "ok".into()));
}

/// Leaves room for so many more pages, and no more.
async fn leave_room(store: &Sqlite, pages: i64) {
    let limit = move |connection: &Connection| {
        let now: i64 = connection.query_row("PRAGMA page_count", [], |row| row.get(0))?;
        let limit = format!("PRAGMA max_page_count = {}", now + pages);
        Ok(connection.query_row(&limit, [], |row| row.get::<_, i64>(0)).map(drop)?)
    };
    store.write(limit).await.unwrap();
}

#[tokio::test]
async fn a_check_fails_on_a_full_disk_where_reads_and_idle_writes_succeed() {
    let (_directory, store) = open();
    store.check().await.unwrap();
    // What a check took and gave back would be room for the next.
    store
        .write(|connection| Ok(connection.execute_batch("CREATE TABLE ballast AS SELECT zeroblob(262144)")?))
        .await
        .unwrap();
    leave_room(&store, 2).await;
    let now = Timestamp::from_seconds(1_700_000_000);
    for _ in 0..3 {
        assert!(store.check().await.unwrap_err().to_string().contains("full"));
        store.size(now).await.unwrap();
        store.take_due(&device(""), now, now, 10).await.unwrap();
    }
    leave_room(&store, 1000).await;
    store.check().await.unwrap();
    let left = |connection: &Connection| -> Result<(i64, String), StoreError> {
        let tables = "SELECT count(*) FROM sqlite_schema WHERE name = 'room'";
        let left = connection.query_row(tables, [], |row| row.get(0))?;
        Ok((left, connection.query_row("PRAGMA integrity_check", [], |row| row.get(0))?))
    };
    assert_eq!(store.read(left).await.unwrap(), (0, "ok".into()));
}

#[tokio::test]
async fn a_full_disk_in_the_middle_of_a_group_leaves_no_half_of_it() {
    let (_directory, store) = open();
    let store = Arc::new(store);
    store.write(|connection| Ok(connection.execute_batch("CREATE TABLE ballast (load BLOB)")?)).await.unwrap();
    let (release, held) = hold(&store);
    let before = put(&store, "before");
    let full = {
        let store = store.clone();
        tokio::spawn(async move {
            let work = |connection: &Connection| {
                let now: i64 = connection.query_row("PRAGMA page_count", [], |row| row.get(0))?;
                connection.query_row(&format!("PRAGMA max_page_count = {now}"), [], |_| Ok(()))?;
                connection.execute("INSERT INTO ballast VALUES (?1)", params![vec![0u8; 100_000]])?;
                Ok(())
            };
            store.write(work).await
        })
    };
    tokio::task::yield_now().await;
    release.send(()).unwrap();
    let full = full.await.unwrap().unwrap_err().to_string();
    assert!(full.contains("full"), "{full}");
    // SQLite ended the whole transaction: who was in it is told the same.
    for other in [held, before] {
        assert_eq!(other.await.unwrap().unwrap_err().to_string(), full);
    }
    assert!(!is_there(&store, "before").await);
    store.write(|connection| Ok(connection.query_row("PRAGMA max_page_count = 9999", [], |_| Ok(()))?)).await.unwrap();
    put(&store, "later").await.unwrap().unwrap();
}

#[tokio::test]
async fn no_statement_scans_a_table() {
    let (_directory, store) = open();
    let plans = |connection: &Connection| -> Result<Vec<(String, String)>, StoreError> {
        let mut plans = vec![];
        let statements = [
            &rows::STATEMENTS[..],
            &schedule::STATEMENTS,
            &log::STATEMENTS,
            &watches::STATEMENTS,
            &endpoints::STATEMENTS,
            &forget::STATEMENTS,
            &migration::STATEMENTS,
        ];
        for statement in statements.concat() {
            let mut plan = connection.prepare(&format!("EXPLAIN QUERY PLAN {statement}"))?;
            for detail in plan.raw_query().mapped(|row| row.get::<_, String>(3)) {
                plans.push((statement.to_owned(), detail?));
            }
        }
        Ok(plans)
    };
    for (statement, detail) in store.read(plans).await.unwrap() {
        // The one row of `meta` or of `sqlite_sequence`, the one that each device has, a recursion's own rows, and what needs no
        // table at all are no scans.
        const CHEAP: [&str; 5] = ["SCAN meta", "SCAN sqlite_sequence", "SCAN lanes", "SCAN step", "SCAN CONSTANT ROW"];
        // Of few rows, because the index has no others.
        const PARTIAL: [&str; 2] =
            ["SCAN entries USING INDEX entries_leased", "SCAN subjects USING INDEX subjects_leased"];
        let of_all = detail.split(" USING").next().unwrap_or_default();
        let cheap = CHEAP.contains(&of_all) || PARTIAL.contains(&detail.as_str());
        assert!(cheap || !detail.contains("SCAN"), "{statement}\n{detail}");
        assert!(!detail.contains("TEMP B-TREE"), "{statement}\n{detail}");
    }
}
