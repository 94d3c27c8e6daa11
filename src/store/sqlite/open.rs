//! Opening the file: whose is it, is it sound, and is nobody else at it.
//!
//! Everything that can be wrong is found here, before anything is written, and said in a sentence that names the file and what
//! to do. A file that is not ours is never touched.

use std::ffi::OsString;
use std::fs::{File, OpenOptions, TryLockError};
use std::io;
use std::path::{Path, PathBuf};

use rusqlite::{Connection, ErrorCode, OpenFlags};

use super::{log, schedule};
use crate::store::OpenError;

/// Marks the file as ours: "avpx".
const APPLICATION: i64 = 0x6176_7078;

/// The schema, version by version: each text makes its version out of the one before. Texts that were released never change.
const SCHEMA: [(i64, &str); 4] = [
    (1, include_str!("schema_1.sql")),
    (2, include_str!("schema_2.sql")),
    (3, include_str!("schema_3.sql")),
    (4, include_str!("schema_4.sql")),
];

/// The version that this program makes and works on.
pub(super) const VERSION: i64 = SCHEMA[SCHEMA.len() - 1].0;

/// Two: one may count a backlog while the other answers lookups.
const READERS: usize = 2;

/// For the writer's connection. What is deleted is overwritten, because somebody may have asked to be forgotten. Its cache, and
/// the readers', hold the upper levels of the trees of a million entries and what a group of writes touches; beyond that the
/// system's cache of files serves as well, and is not this process's. All three together are 8 MiB, beside `--memory-limit`. The
/// log is folded into the file every 4,000 pages (16 MiB) and is cut back to 64 MiB after a surge.
const WRITER: &str = "
    PRAGMA synchronous = FULL;
    PRAGMA secure_delete = ON;
    PRAGMA cache_size = -4096;
    PRAGMA wal_autocheckpoint = 4000;
    PRAGMA journal_size_limit = 67108864;
    PRAGMA temp_store = MEMORY;";

const READER: &str = "PRAGMA query_only = ON; PRAGMA cache_size = -2048;";

/// Statements kept prepared on each connection: more than there are.
const STATEMENTS: usize = 64;

/// Everything that the threads need.
pub(super) struct Opened {
    /// The file, as an absolute path.
    pub(super) file: PathBuf,
    pub(super) lock: File,
    pub(super) writer: Connection,
    pub(super) readers: Vec<Connection>,
    /// No token in the file is greater.
    pub(super) tokens: u64,
    /// The log's last sequence.
    pub(super) tip: u64,
}

pub(super) fn open(path: &Path) -> Result<Opened, OpenError> {
    let file = resolve(path)?;
    let lock = lock(&file)?;
    create(&file)?;
    let failed = |error: rusqlite::Error| explain(&file, &error);
    let writer = connect(&file, OpenFlags::SQLITE_OPEN_READ_WRITE).map_err(failed)?;
    identify(&writer, &file)?;
    if writer.is_readonly("main").map_err(failed)? {
        return Err(unwritable(&file, "it is read-only"));
    }
    prepare(&writer).map_err(failed)?;
    let tokens = inspect(&writer).map_err(failed)?;
    let tip = log::last(&writer).map_err(failed)?;
    let reader = || {
        let reader = connect(&file, OpenFlags::SQLITE_OPEN_READ_ONLY)?;
        reader.execute_batch(READER)?;
        Ok(reader)
    };
    let readers = (0..READERS).map(|_| reader()).collect::<rusqlite::Result<_>>().map_err(failed)?;
    Ok(Opened { file, lock, writer, readers, tokens, tip })
}

/// Opens a store that is there for reading alone: its connection, and the lock that keeps every other process out.
pub(super) fn open_to_read(path: &Path) -> Result<(Connection, File), OpenError> {
    let file = resolve(path)?;
    if !file.exists() {
        return Err(OpenError(format!("there is no store {}: name the file that --store names", file.display())));
    }
    let lock = lock(&file)?;
    let failed = |error: rusqlite::Error| explain(&file, &error);
    let connection = connect(&file, OpenFlags::SQLITE_OPEN_READ_ONLY).map_err(failed)?;
    connection.execute_batch(READER).map_err(failed)?;
    identify(&connection, &file)?;
    match connection.query_row("PRAGMA user_version", [], |row| row.get(0)).map_err(failed)? {
        VERSION => {}
        0 => {
            return Err(OpenError(format!(
                "the file {} holds no store: name the file that --store names",
                file.display()
            )));
        }
        older => {
            return Err(OpenError(format!(
                "the store {} has version {older}, and only version {VERSION} is read: start `avatar-proxy serve` on it \
                 once, which brings it up to date, and stop it again",
                file.display()
            )));
        }
    }
    inspect(&connection).map_err(failed)?;
    Ok((connection, lock))
}

/// The absolute path without symbolic links, so that one file has one lock whatever it is called.
pub(super) fn resolve(path: &Path) -> Result<PathBuf, OpenError> {
    match path.canonicalize() {
        Ok(file) if file.is_file() => Ok(file),
        Ok(_) => Err(OpenError(format!("{} is not a file: name a file for the store", path.display()))),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let directory = match path.parent() {
                Some(parent) if !parent.as_os_str().is_empty() => parent,
                _ => Path::new("."),
            };
            if let Ok(target) = path.read_link() {
                return resolve(&directory.join(target));
            }
            let name = path.file_name().ok_or_else(|| OpenError(format!("{} names no file", path.display())))?;
            let found = directory.canonicalize().map_err(|error| {
                OpenError(format!(
                    "the directory of the store, {}, cannot be used: {error}; make it, or name another",
                    directory.display()
                ))
            })?;
            Ok(found.join(name))
        }
        Err(error) => Err(OpenError(format!(
            "the store {} cannot be reached: {error}; let the user that runs this program go there, or name another file",
            path.display()
        ))),
    }
}

/// What lies beside the file, under its name and an ending.
pub(super) fn beside(file: &Path, ending: &str) -> PathBuf {
    let mut path = OsString::from(file);
    path.push(ending);
    path.into()
}

/// Takes the lock that keeps a second process out. It is on a file of its own because SQLite's locks on the database end when
/// any descriptor of it is closed; the operating system releases this one when its holder is gone, however it went.
fn lock(file: &Path) -> Result<File, OpenError> {
    let path = beside(file, ".lock");
    let lock = private(OpenOptions::new().write(true).create(true).truncate(false))
        .open(&path)
        .map_err(|error| unwritable(file, &format!("its lock file cannot be made: {error}")))?;
    match lock.try_lock() {
        Ok(()) => Ok(lock),
        Err(TryLockError::WouldBlock) => Err(OpenError(format!(
            "the store {} is in use by another process: stop that one, or give this one a file of its own",
            file.display()
        ))),
        Err(TryLockError::Error(error)) => {
            Err(OpenError(format!("the store {} cannot be locked: {error}; keep it on a local disk", file.display())))
        }
    }
}

/// Makes the file, if there is none, before SQLite does: it holds phone numbers and is nobody else's to read. SQLite gives
/// its other files the same mode.
fn create(file: &Path) -> Result<(), OpenError> {
    match private(OpenOptions::new().write(true).create_new(true)).open(file) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
            Err(unwritable(file, &format!("it cannot be made: {error}")))
        }
        _ => Ok(()),
    }
}

#[cfg(unix)]
fn private(options: &mut OpenOptions) -> &mut OpenOptions {
    use std::os::unix::fs::OpenOptionsExt;
    options.mode(0o600)
}

#[cfg(not(unix))]
fn private(options: &mut OpenOptions) -> &mut OpenOptions {
    options
}

pub(super) fn connect(file: &Path, access: OpenFlags) -> rusqlite::Result<Connection> {
    // Each connection belongs to one thread, so SQLite need not guard it.
    let connection = Connection::open_with_flags(file, access | OpenFlags::SQLITE_OPEN_NO_MUTEX)?;
    connection.set_prepared_statement_cache_capacity(STATEMENTS);
    Ok(connection)
}

/// Refuses what is not ours, by reading only. Whether there is anything yet.
pub(super) fn identify(connection: &Connection, file: &Path) -> Result<bool, OpenError> {
    let read = |statement: &str| connection.query_row(statement, [], |row| row.get::<_, i64>(0));
    let failed = |error: rusqlite::Error| explain(file, &error);
    let file = file.display();
    let application = read("PRAGMA application_id").map_err(failed)?;
    let version = read("PRAGMA user_version").map_err(failed)?;
    let tables = read("SELECT count(*) FROM sqlite_schema").map_err(failed)?;
    match (application, version) {
        (0, 0) if tables == 0 => Ok(false),
        (APPLICATION, 1..=VERSION) => Ok(true),
        (APPLICATION, version) => Err(OpenError(format!(
            "the store {file} has version {version}, and this program knows version {VERSION}: start the program that made \
             it, or name another file"
        ))),
        _ => Err(OpenError(format!("{file} is a database of another program: name another file for the store"))),
    }
}

/// Sets the connection up, and the file if it is new. A copy that is put back gets another epoch: the places of its log are given
/// again, to other changes than those that subscribers have seen there.
fn prepare(connection: &Connection) -> rusqlite::Result<()> {
    if is_copy(connection)? {
        connection.execute("UPDATE meta SET epoch = lower(hex(randomblob(8)))", [])?;
        tracing::warn!("the store is a backup that was put back: subscribers are told of a gap");
    }
    connection.pragma_update_and_check(None, "journal_mode", "wal", |row| row.get::<_, String>(0))?;
    connection.execute_batch(WRITER)?;
    let found: i64 = connection.query_row("PRAGMA user_version", [], |row| row.get(0))?;
    for (version, schema) in SCHEMA.into_iter().filter(|(version, _)| *version > found) {
        connection.execute_batch(&format!(
            "BEGIN IMMEDIATE; {schema} PRAGMA application_id = {APPLICATION}; PRAGMA user_version = {version}; COMMIT;"
        ))?;
    }
    schedule::end_leases(connection)
}

/// Whether somebody else wrote the file: ours are in WAL mode before there is anything in them, and what `VACUUM INTO` writes is not.
fn is_copy(connection: &Connection) -> rusqlite::Result<bool> {
    let mode: String = connection.query_row("PRAGMA journal_mode", [], |row| row.get(0))?;
    let version: i64 = connection.query_row("PRAGMA user_version", [], |row| row.get(0))?;
    Ok(version > 0 && mode != "wal")
}

/// Reads a page of every table, so that a file that is damaged at its root is found now. Returns the highest token.
pub(super) fn inspect(connection: &Connection) -> rusqlite::Result<u64> {
    for table in ["subjects", "entries", "devices", "log", "endpoints", "deliveries"] {
        connection.query_row(&format!("SELECT count(*) FROM (SELECT 1 FROM {table} LIMIT 1)"), [], |_| Ok(()))?;
    }
    connection.query_row("SELECT tokens FROM meta", [], |row| row.get(0))
}

pub(super) fn unwritable(file: &Path, why: &str) -> OpenError {
    OpenError(format!(
        "the store {} cannot be written: {why}; let the user that runs this program write there, or name another file",
        file.display()
    ))
}

pub(super) fn explain(file: &Path, error: &rusqlite::Error) -> OpenError {
    let sentence = match error.sqlite_error_code() {
        Some(ErrorCode::NotADatabase) => "is not a SQLite database: name another file for the store".to_owned(),
        Some(ErrorCode::DatabaseCorrupt) => {
            "is damaged: put a backup in its place, or move it away to start with an empty one".to_owned()
        }
        Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => {
            "is held by another program: stop that one, or name another file".to_owned()
        }
        Some(ErrorCode::ReadOnly | ErrorCode::CannotOpen | ErrorCode::PermissionDenied) => {
            return unwritable(file, &error.to_string());
        }
        _ => format!("cannot be used: {error}"),
    };
    OpenError(format!("the store {} {sentence}", file.display()))
}
