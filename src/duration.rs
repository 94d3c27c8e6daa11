//! Durations as people write them: `90s`, `15m`, `6h`, `7d`.
//!
//! A number never goes without its unit: `60` has been seconds in one program and minutes in the next.

use std::time::Duration;

/// A hundred years: longer is a slip of the finger, and sums of instants stay far from their limits.
const LONGEST: Duration = Duration::from_secs(100 * 36525 * 864);

/// A duration that may be nothing.
///
/// # Errors
/// What would be right, as a sentence.
pub fn parse_or_zero(text: &str) -> Result<Duration, String> {
    const FORM: &str = "write a number and its unit (ms, s, m, h, d or w), as in 90s, 15m, 6h, 7d or 1h30m";
    if is_number(text) {
        return Err("a number needs its unit, as in 90s, 15m, 6h or 7d".to_owned());
    }
    // humantime knows more units, among them `M` for months, too near to `m`.
    let units = text.split(|letter: char| !letter.is_alphabetic()).filter(|unit| !unit.is_empty());
    if !units.into_iter().all(|unit| matches!(unit, "ms" | "s" | "m" | "h" | "d" | "w")) {
        return Err(FORM.to_owned());
    }
    match humantime::parse_duration(text) {
        Ok(duration) if duration <= LONGEST => Ok(duration),
        Ok(_) | Err(humantime::DurationError::NumberOverflow) => Err("the longest is 100 years (36525d)".to_owned()),
        Err(_) => Err(FORM.to_owned()),
    }
}

/// A duration, more than nothing.
///
/// # Errors
/// What would be right, as a sentence.
pub fn parse(text: &str) -> Result<Duration, String> {
    match parse_or_zero(text) {
        Ok(Duration::ZERO) => Err("must be more than nothing, as in 90s, 15m, 6h or 7d".to_owned()),
        other => other,
    }
}

/// The shortest text that reads as this duration again: in the largest unit, of days and less, that measures it evenly.
#[must_use]
pub fn write(duration: Duration) -> String {
    let millis = duration.as_millis();
    let units = [("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1000)];
    let even = units.into_iter().find(|(_, unit)| millis >= *unit && millis.is_multiple_of(*unit));
    even.map_or_else(|| format!("{millis}ms"), |(name, unit)| format!("{}{name}", millis / unit))
}

/// Digits with at most one dot between them: neither a sign nor an exponent, `inf` nor `NaN`.
pub(crate) fn is_number(text: &str) -> bool {
    let digits = |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
    match text.split_once('.') {
        Some((whole, fraction)) => digits(whole) && digits(fraction),
        None => digits(text),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn durations_have_units() {
        for (text, seconds) in
            [("90s", 90.0), ("15m", 900.0), ("6h", 21600.0), ("7d", 604_800.0), ("1h30m", 5400.0), ("250ms", 0.25)]
        {
            assert_eq!(parse(text).map(|duration| duration.as_secs_f64()), Ok(seconds), "{text}");
        }
        for (text, hint) in [
            ("90", "needs its unit"),
            ("0", "needs its unit"),
            ("1.5", "needs its unit"),
            ("", "as in 90s"),
            ("s", "as in 90s"),
            ("15M", "as in 90s"),
            ("1year", "as in 90s"),
            ("-5s", "as in 90s"),
            ("6h!", "as in 90s"),
            ("0s", "more than nothing"),
            ("36526d", "100 years"),
            ("99999999999999999999999d", "100 years"),
        ] {
            let said = parse(text).unwrap_err();
            assert!(said.contains(hint), "{text}: {said}");
        }
        assert_eq!(parse_or_zero("0s"), Ok(Duration::ZERO));
    }

    #[test]
    fn durations_are_written_in_their_largest_unit() {
        for text in ["6h", "90s", "90m", "7d", "36h", "250ms", "1d"] {
            assert_eq!(write(parse(text).unwrap()), text);
        }
        assert_eq!(write(Duration::from_secs(3600)), "1h");
    }

    proptest! {
        #[test]
        fn what_is_accepted_is_within_bounds(text in "[0-9.]{1,12} ?(ms|s|m|h|d|w)?") {
            if let Ok(duration) = parse(&text) {
                prop_assert!(duration > Duration::ZERO && duration <= LONGEST);
            }
        }

        #[test]
        fn what_is_written_is_read(millis in 1u64..3_000_000_000) {
            let duration = Duration::from_millis(millis);
            prop_assert_eq!(parse(&write(duration)), Ok(duration));
        }
    }
}
