//! Cursors: places in the change log, as subscribers hold them.
//!
//! A cursor is written `<epoch>.<sequence>`. Everything up to its sequence lies behind it. The epoch is random and made with the
//! log, so that a cursor of another log, or of one that was lost and begun anew, is recognised. To subscribers it is opaque.

use std::fmt;
use std::str::FromStr;

/// Names a log: random, made with it.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub struct Epoch(u64);

/// A place in a log.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Cursor {
    /// Which log.
    pub epoch: Epoch,
    /// The last record that lies behind it; 0 is the beginning.
    pub sequence: u64,
}

/// A text that is no cursor.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("is not a cursor; pass on the one that came with the last event, as it is")]
pub struct Malformed;

/// The digits of an epoch.
const EPOCH_DIGITS: usize = 16;

impl fmt::Display for Epoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

impl FromStr for Epoch {
    type Err = Malformed;

    fn from_str(text: &str) -> Result<Self, Malformed> {
        let is_digit = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
        if text.len() != EPOCH_DIGITS || !text.bytes().all(is_digit) {
            return Err(Malformed);
        }
        u64::from_str_radix(text, 16).map(Self).map_err(|_| Malformed)
    }
}

impl fmt::Display for Cursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.epoch, self.sequence)
    }
}

impl FromStr for Cursor {
    type Err = Malformed;

    fn from_str(text: &str) -> Result<Self, Malformed> {
        let (epoch, sequence) = text.split_once('.').ok_or(Malformed)?;
        // One cursor, one spelling: no sign, no leading zeros.
        let is_plain = sequence == "0" || sequence.starts_with(|digit: char| ('1'..='9').contains(&digit));
        if !is_plain {
            return Err(Malformed);
        }
        Ok(Self { epoch: epoch.parse()?, sequence: sequence.parse().map_err(|_| Malformed)? })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn odd_texts_are_no_cursors() {
        for text in [
            "",
            ".",
            "1",
            "earliest",
            "00000000000000ff",
            "00000000000000ff.",
            "00000000000000ff.01",
            "00000000000000ff.+1",
            "00000000000000ff.-1",
            "00000000000000ff.1.1",
            "00000000000000FF.1",
            "0000000000000ff.1",
            " 00000000000000ff.1",
            "00000000000000ff.18446744073709551616",
            "+0000000000000ff.1",
        ] {
            assert_eq!(text.parse::<Cursor>(), Err(Malformed), "{text}");
        }
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(epoch: u64, sequence: u64) {
            let cursor = Cursor { epoch: Epoch(epoch), sequence };
            prop_assert_eq!(cursor.to_string().parse(), Ok(cursor));
        }

        #[test]
        fn every_cursor_has_one_spelling(text in "[0-9a-f]{15,17}\\.[0-9]{0,21}") {
            if let Ok(cursor) = text.parse::<Cursor>() {
                prop_assert_eq!(cursor.to_string(), text);
            }
        }
    }
}
