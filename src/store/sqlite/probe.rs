//! Looking at a store without opening it: could it be opened, is somebody at it, and how much room is there.
//!
//! * Nothing is made, locked or changed. What a proxy holds is not even read: it has done so itself.
//! * A file that nobody holds is read as it lies there, without SQLite's own locks and files, unless it was left in the middle of
//!   something: then its log of writes belongs to it.

use std::fs::{self, OpenOptions};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use percent_encoding::{AsciiSet, CONTROLS, percent_encode};
use rusqlite::OpenFlags;

use super::open::{VERSION, beside, connect, explain, identify, inspect, resolve, unwritable};
use crate::store::OpenError;

/// Where the system says who holds which lock.
const LOCKS: &str = "/proc/locks";

/// What would end a file's name in a URI, or change it.
const IN_URI: &AsciiSet = &CONTROLS.add(b' ').add(b'%').add(b'?').add(b'#');

/// A store that could be opened, or is.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Seen {
    /// The file, as an absolute path.
    pub file: PathBuf,
    /// What is there.
    pub state: State,
    /// What it takes on disk, with what belongs to it (bytes).
    pub bytes: u64,
    /// What is left for this user on its disk (bytes).
    pub free: u64,
}

/// What is there.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum State {
    /// Nothing yet, in a folder that can be written to.
    Absent,
    /// A store that this process has open.
    Held(u32),
    /// A store that this program can open.
    Sound,
    /// One of an older version, which opening brings up to date.
    Older(i64),
}

/// Looks. Blocks for some milliseconds.
///
/// # Errors
/// Why it could not be opened, in the words in which opening would say it.
pub fn probe(path: &Path) -> Result<Seen, OpenError> {
    let file = resolve(path)?;
    let folder = file.parent().unwrap_or(Path::new("/"));
    // In a folder that cannot be written to, SQLite cannot put its log beside the file either. Nothing of this one is left.
    tempfile::tempfile_in(folder).map_err(|error| unwritable(&file, &error.to_string()))?;
    for writable in [file.clone(), beside(&file, ".lock")] {
        match OpenOptions::new().write(true).open(&writable) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(unwritable(&writable, &error.to_string()));
            }
            _ => {}
        }
    }
    let room = rustix::fs::statvfs(folder).map_err(|error| unwritable(&file, &error.to_string()))?;
    let state = match holder(&beside(&file, ".lock")) {
        Some(process) => State::Held(process),
        None if !file.exists() => State::Absent,
        None => examine(&file)?,
    };
    let bytes = super::bytes(&file);
    Ok(Seen { file, state, bytes, free: room.f_bavail.saturating_mul(room.f_frsize) })
}

/// Whether this program could open it.
fn examine(file: &Path) -> Result<State, OpenError> {
    let failed = |error: rusqlite::Error| explain(file, &error);
    let left_open = beside(file, "-wal").exists() && beside(file, "-shm").exists();
    let connection = if left_open {
        connect(file, OpenFlags::SQLITE_OPEN_READ_ONLY)
    } else {
        let name = percent_encode(file.as_os_str().as_bytes(), IN_URI);
        let uri = PathBuf::from(format!("file:{name}?immutable=1"));
        connect(&uri, OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_URI)
    };
    let connection = connection.map_err(failed)?;
    if identify(&connection, file)? {
        let version = connection.query_row("PRAGMA user_version", [], |row| row.get(0)).map_err(failed)?;
        // What is inspected is there in the newest version alone.
        if version < VERSION {
            return Ok(State::Older(version));
        }
        inspect(&connection).map_err(failed)?;
    }
    Ok(State::Sound)
}

/// The process that holds a lock file, where the system tells: of processes in other containers it does not.
fn holder(lock: &Path) -> Option<u32> {
    let found = fs::metadata(lock).ok()?;
    let locks = fs::read_to_string(LOCKS).ok()?;
    let place =
        format!("{:02x}:{:02x}:{}", rustix::fs::major(found.dev()), rustix::fs::minor(found.dev()), found.ino());
    locks.lines().find_map(|line| {
        let words: Vec<&str> = line.split_whitespace().collect();
        match words[..] {
            [_, "FLOCK", _, "WRITE", process, at, ..] if at == place => process.parse().ok(),
            _ => None,
        }
    })
}
