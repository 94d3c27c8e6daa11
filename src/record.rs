//! The stored form of things: MessagePack arrays whose first field is the number of their format.
//!
//! A later program appends fields, raises the number, and reads all that is older; what is newer it refuses instead of losing
//! the fields that it does not know.

use serde::Serialize;
use serde::de::DeserializeOwned;

/// A stored record that this program cannot read.
#[derive(Debug, thiserror::Error)]
pub enum Unreadable {
    /// Written by a newer program.
    #[error("record format {0} is newer than this program")]
    Newer(u8),
    /// Not a record.
    // What the decoder says would quote the record: it is the source and not in the text, which may be logged.
    #[error("not a record")]
    Corrupt(#[from] rmp_serde::decode::Error),
}

/// The stored form of `record`, whose first field is its format.
pub(crate) fn write(record: &impl Serialize) -> Vec<u8> {
    rmp_serde::to_vec(record).expect("a record of plain data encodes")
}

/// Reads a stored form of a format up to `known`.
///
/// # Errors
/// When it is not one, or a newer program wrote it.
pub(crate) fn read<T: DeserializeOwned>(bytes: &[u8], known: u8) -> Result<T, Unreadable> {
    // A short array's header is one byte, a longer one's three; a format below 128 is its own byte.
    let format = match bytes {
        [0x90..=0x9f, format @ 0..0x80, ..] | [0xdc, _, _, format @ 0..0x80, ..] => *format,
        _ => known,
    };
    if format > known {
        return Err(Unreadable::Newer(format));
    }
    Ok(rmp_serde::from_slice(bytes)?)
}

/// What was read, if anything can be: a damaged record counts as absent, so that a look may write it anew. One of a newer program
/// stays as it is.
///
/// # Errors
/// When a newer program wrote it.
pub(crate) fn unless_damaged<T>(read: Result<T, Unreadable>) -> Result<Option<T>, Unreadable> {
    match read {
        Ok(record) => Ok(Some(record)),
        Err(Unreadable::Corrupt(_)) => Ok(None),
        Err(newer @ Unreadable::Newer(_)) => Err(newer),
    }
}
