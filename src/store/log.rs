//! The change log: every noticed change, in the order in which they were recorded.
//!
//! A record is appended by [`Store::apply`](super::Store::apply), in the same atomic write as the state that it leads to, and
//! never altered. Records leave in two ways only: the oldest are trimmed, which moves [`Extent::trimmed`], and those of a
//! forgotten person are taken out, which moves nothing, so that cursors stay valid. Sequences only grow and are never given
//! twice, but they have holes; nothing may be concluded from one.

use async_trait::async_trait;
use tokio::sync::watch;

use super::StoreError;
use crate::change::Change;
use crate::clock::Timestamp;
use crate::cursor::{Cursor, Epoch};
use crate::jid::{Device, Jid, Subject};

/// From where to where the log reaches.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Extent {
    /// Which log it is.
    pub epoch: Epoch,
    /// Up to here records were dropped for their age. Whoever stands before this missed something.
    pub trimmed: u64,
    /// The last sequence given, whether its record is still there or not.
    pub last: u64,
    /// Up to where this is the log that had another epoch before: the store lost what came behind.
    pub former: Option<Cursor>,
}

impl Extent {
    /// A place in this log.
    #[must_use]
    pub fn cursor(&self, sequence: u64) -> Cursor {
        Cursor { epoch: self.epoch, sequence }
    }

    /// Whether whoever stands at `cursor` can go on without having missed anything.
    #[must_use]
    pub fn reaches(&self, cursor: Cursor) -> bool {
        let upto = match self.former {
            Some(former) if former.epoch == cursor.epoch => former.sequence,
            _ if self.epoch == cursor.epoch => self.last,
            _ => return false,
        };
        (self.trimmed..=upto).contains(&cursor.sequence)
    }
}

/// One record.
#[derive(Clone, PartialEq, Debug)]
pub struct Record {
    /// Its place in the log.
    pub sequence: u64,
    /// When it was appended.
    pub at: Timestamp,
    /// What it says.
    pub what: What,
}

/// What a record says.
#[derive(Clone, PartialEq, Debug)]
pub enum What {
    /// A picture changed.
    Change(Box<(Subject, Change)>),
    /// Somebody was forgotten. It does not say who: whoever holds answers in memory drops them all.
    Forgotten,
}

/// Consecutive records, and the log's extent, all read in one instant.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Page {
    /// The log's extent.
    pub extent: Extent,
    /// Oldest first.
    pub records: Vec<Record>,
}

/// The log's face towards its readers.
#[async_trait]
pub trait Log: Send + Sync {
    /// Up to `limit` records behind the sequence `after`, oldest first.
    ///
    /// # Errors
    /// When the store fails.
    async fn read_log(&self, after: u64, limit: usize) -> Result<Page, StoreError>;

    /// The changes of one person or group, as one device saw them or (`None`) all did: up to `limit` of those before the sequence
    /// `before`, newest first.
    ///
    /// # Errors
    /// When the store fails.
    async fn history(&self, jid: &Jid, device: Option<&Device>, before: u64, limit: usize) -> Result<Page, StoreError>;

    /// Drops up to `limit` of the oldest records, as far as they were appended before `before`. Returns how many.
    ///
    /// # Errors
    /// When the store fails.
    async fn trim_log(&self, before: Timestamp, limit: usize) -> Result<usize, StoreError>;

    /// Whether other processes may use the same store, and so append to the same log.
    fn is_shared(&self) -> bool {
        false
    }

    /// Changes whenever something was appended that can be read by then. What it holds is the last sequence.
    fn tip(&self) -> watch::Receiver<u64>;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cursor_is_reached_from_the_oldest_kept_to_the_end() {
        let extent = Extent { epoch: "00000000000000aa".parse().unwrap(), trimmed: 5, last: 9, former: None };
        for (sequence, reaches) in [(4, false), (5, true), (9, true), (10, false)] {
            assert_eq!(extent.reaches(extent.cursor(sequence)), reaches, "{sequence}");
        }
        assert!(!extent.reaches(Cursor { epoch: Epoch::default(), sequence: 7 }));
    }

    #[test]
    fn where_a_log_goes_on_under_another_name_what_it_kept_is_reached() {
        let former = Cursor { epoch: "00000000000000bb".parse().unwrap(), sequence: 7 };
        let extent = Extent { epoch: "00000000000000aa".parse().unwrap(), trimmed: 5, last: 12, former: Some(former) };
        for (sequence, reaches) in [(4, false), (5, true), (7, true), (8, false)] {
            assert_eq!(extent.reaches(Cursor { sequence, ..former }), reaches, "{sequence}");
        }
        assert!(extent.reaches(extent.cursor(12)));
    }
}
