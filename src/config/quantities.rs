//! Values that measure: sizes, rates, shares, counts. Durations are `crate::duration`.
//!
//! Each reads its whole text or says what would be right. A number never goes without its unit: `60` has been seconds in one
//! program and minutes in the next.

use crate::duration::is_number;

/// An amount of memory (bytes).
pub(super) fn size(text: &str) -> Result<u64, String> {
    const LEAST: u64 = 1 << 20;
    const MOST: u64 = 1 << 50;
    const FORM: &str = "write a number and its unit, as in 256MiB or 2GiB";
    if is_number(text) {
        return Err(format!("a number needs its unit, bytes included: {FORM}"));
    }
    match text.parse::<bytesize::ByteSize>() {
        Ok(size) if size.as_u64() < LEAST => Err("the least is 1MiB".to_owned()),
        Ok(size) if size.as_u64() > MOST => Err("the most is 1024TiB".to_owned()),
        Ok(size) => Ok(size.as_u64()),
        Err(_) => Err(FORM.to_owned()),
    }
}

/// How often something may happen (times per second).
pub(super) fn rate(text: &str) -> Result<f64, String> {
    const FORM: &str = "write a number per second, minute or hour, as in 1/s, 0.5/s, 30/m or 600/h";
    let (number, unit) = text.split_once('/').ok_or(FORM)?;
    let seconds = match unit {
        "s" => 1.0,
        "m" => 60.0,
        "h" => 3600.0,
        _ => return Err(FORM.to_owned()),
    };
    let number: f64 = Some(number).filter(|number| is_number(number)).and_then(|n| n.parse().ok()).ok_or(FORM)?;
    let rate = number / seconds;
    if number == 0.0 {
        Err("must be more than nothing, or nothing would ever be looked up; as in 1/s or 600/h".to_owned())
    } else if (0.01 / 3600.0..=1e6).contains(&rate) {
        Ok(rate)
    } else {
        Err("must lie between 0.01/h and 1000000/s".to_owned())
    }
}

/// A part of a whole, at least 0 and less than 1.
pub(super) fn share(text: &str) -> Result<f64, String> {
    Some(text)
        .filter(|text| is_number(text))
        .and_then(|text| text.parse().ok())
        .filter(|share| (0.0..1.0).contains(share))
        .ok_or_else(|| "write a share of at least 0 and less than 1, as in 0.2".to_owned())
}

/// How many, at least one.
pub(super) fn count(text: &str) -> Result<u32, String> {
    text.parse()
        .ok()
        .filter(|count| (1..=1_000_000).contains(count))
        .ok_or_else(|| "write a whole number between 1 and 1000000".to_owned())
}

/// Yes or no.
pub(super) fn switch(text: &str) -> Result<bool, String> {
    text.parse().map_err(|_| "write true or false".to_owned())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn sizes_have_units() {
        for (text, bytes) in [("256MiB", 256 << 20), ("1.5GiB", 3 << 29), ("256MB", 256_000_000), ("1 TiB", 1 << 40)] {
            assert_eq!(size(text), Ok(bytes), "{text}");
        }
        for (text, hint) in [
            ("268435456", "needs its unit"),
            ("0MiB", "least"),
            ("256B", "least"),
            ("9999999999999999PiB", "most"),
            ("MiB", "as in 256MiB"),
            ("-1GiB", "as in 256MiB"),
            ("", "as in 256MiB"),
        ] {
            let said = size(text).unwrap_err();
            assert!(said.contains(hint), "{text}: {said}");
        }
    }

    #[test]
    fn rates_are_per_second_minute_or_hour() {
        for (text, per_second) in [("1/s", 1.0), ("0.5/s", 0.5), ("30/m", 0.5), ("900/h", 0.25)] {
            assert_eq!(rate(text), Ok(per_second), "{text}");
        }
        for text in
            ["", "1", "/s", "1/", "1/d", "1 /s", "-1/s", "1e3/s", "inf/s", "NaN/s", "0/s", "0.001/h", "1000001/s"]
        {
            assert!(rate(text).is_err(), "{text}");
        }
    }

    #[test]
    fn shares_counts_and_switches() {
        assert_eq!(share("0"), Ok(0.0));
        assert_eq!(share("0.2"), Ok(0.2));
        assert!(["1", "1.5", "-0.1", "20%", "", ".", "NaN"].into_iter().all(|text| share(text).is_err()));
        assert_eq!(count("1"), Ok(1));
        assert!(["0", "-1", "1.5", "4294967296", ""].into_iter().all(|text| count(text).is_err()));
        assert_eq!((switch("true"), switch("false")), (Ok(true), Ok(false)));
        assert!(["yes", "1", "TRUE", ""].into_iter().all(|text| switch(text).is_err()));
    }

    proptest! {
        #[test]
        fn what_is_accepted_is_within_bounds(text in "[0-9.]{1,12} ?(MiB|GB|PiB|/s|/m|/h)?") {
            if let Ok(rate) = rate(&text) {
                prop_assert!(rate.is_finite() && rate > 0.0);
            }
            let _ = size(&text);
        }
    }
}
