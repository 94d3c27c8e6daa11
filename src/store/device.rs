//! What is remembered about a device, and its stored form.

use serde::{Deserialize, Serialize};

use crate::clock::Timestamp;
use crate::record::{self, Unreadable};

/// What is remembered about a device.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct DeviceRecord {
    /// It got an answer about a person at least once: it exists.
    pub proven: bool,
    /// No lookup starts before this instant.
    pub cool_down_until: Option<Timestamp>,
    /// Length of the last cool-down in seconds.
    pub cool_down_seconds: u32,
    /// When the rate was last cut, and to which share of the configured one.
    pub slowed_at: Option<Timestamp>,
    /// The share (0 to 1) of the configured rate at `slowed_at`; 1 when it never was.
    pub slowed_to: f64,
}

impl Default for DeviceRecord {
    /// A device that nothing is known of: not proven, not resting, at its full rate.
    fn default() -> Self {
        Self { proven: false, cool_down_until: None, cool_down_seconds: 0, slowed_at: None, slowed_to: 1.0 }
    }
}

/// The stored form: format version, then the fields in order. A later version appends fields and reads the older ones.
#[derive(Serialize, Deserialize)]
struct Record {
    format: u8,
    proven: bool,
    cool_down_until: Option<Timestamp>,
    cool_down_seconds: u32,
    slowed_at: Option<Timestamp>,
    slowed_to: f64,
}

const FORMAT: u8 = 1;

impl DeviceRecord {
    /// The stored form.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let record = Record {
            format: FORMAT,
            proven: self.proven,
            cool_down_until: self.cool_down_until,
            cool_down_seconds: self.cool_down_seconds,
            slowed_at: self.slowed_at,
            slowed_to: self.slowed_to,
        };
        record::write(&record)
    }

    /// Reads a stored form.
    ///
    /// # Errors
    /// When it is not one, or a newer program wrote it.
    pub fn decode(bytes: &[u8]) -> Result<Self, Unreadable> {
        let record: Record = record::read(bytes, FORMAT)?;
        Ok(Self {
            proven: record.proven,
            cool_down_until: record.cool_down_until,
            cool_down_seconds: record.cool_down_seconds,
            slowed_at: record.slowed_at,
            // What is no share, whatever damaged it, is the smallest: it recovers, and an account that is asked too much does not.
            slowed_to: if (0.0..=1.0).contains(&record.slowed_to) { record.slowed_to } else { 0.0 },
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_format_stays_readable() {
        let record = DeviceRecord {
            proven: true,
            cool_down_until: Some(Timestamp::from_seconds(1_700_000_060)),
            cool_down_seconds: 60,
            slowed_at: None,
            slowed_to: 0.5,
        };
        let stored = "9601c3cf0000018bcfe652603cc0cb3fe0000000000000";
        assert_eq!(hex::encode(record.encode()), stored);
        assert_eq!(DeviceRecord::decode(&hex::decode(stored).unwrap()).unwrap(), record);
        let mut newer = record.encode();
        newer[1] = FORMAT + 1;
        assert!(matches!(DeviceRecord::decode(&newer), Err(Unreadable::Newer(_))));
        assert!(matches!(DeviceRecord::decode(&record.encode()[..5]), Err(Unreadable::Corrupt(_))));
    }

    #[test]
    fn a_share_that_is_none_is_read_as_the_smallest() {
        for odd in [f64::NAN, f64::INFINITY, -0.5, 1.5] {
            let stored = DeviceRecord { slowed_to: odd, ..DeviceRecord::default() }.encode();
            assert!(DeviceRecord::decode(&stored).unwrap().slowed_to < f64::EPSILON, "{odd}");
        }
        let stored = DeviceRecord::default().encode();
        assert_eq!(DeviceRecord::decode(&stored).unwrap(), DeviceRecord::default());
    }
}
