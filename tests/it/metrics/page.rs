//! A strict reader of Prometheus's text format: what it accepts, every scraper does.

use std::collections::{BTreeMap, BTreeSet};

/// A scraped page.
pub(super) struct Page {
    families: BTreeMap<String, Family>,
}

/// One metric with all its series.
pub(super) struct Family {
    pub(super) help: String,
    pub(super) kind: String,
    pub(super) samples: BTreeMap<String, f64>,
}

fn is_name(text: &str) -> bool {
    !text.is_empty()
        && !text.starts_with(|c: char| c.is_ascii_digit())
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
}

/// `name{label="value",...}` as name and labels.
fn series(text: &str) -> (&str, Vec<(&str, &str)>) {
    let Some((name, rest)) = text.split_once('{') else {
        assert!(is_name(text), "{text:?}");
        return (text, vec![]);
    };
    let labels = rest.strip_suffix('}').unwrap_or_else(|| panic!("{text:?} does not end"));
    assert!(is_name(name) && !labels.contains('\\'), "{text:?}");
    let labels = labels.split(',').map(|pair| {
        let (label, value) = pair.split_once('=').unwrap_or_else(|| panic!("{text:?}"));
        let value = value.strip_prefix('"').and_then(|value| value.strip_suffix('"'));
        assert!(is_name(label), "{text:?}");
        (label, value.unwrap_or_else(|| panic!("{text:?}")))
    });
    (name, labels.collect())
}

impl Page {
    /// Panics at whatever is not in order.
    pub(super) fn parse(text: &str) -> Self {
        assert!(text.ends_with('\n'));
        let mut page = Self { families: BTreeMap::new() };
        let mut current: Option<(String, Family)> = None;
        for line in text.lines() {
            if let Some(rest) = line.strip_prefix("# HELP ") {
                page.close(current.take());
                let (name, help) = rest.split_once(' ').expect("a help text");
                let family = Family { help: help.to_owned(), kind: String::new(), samples: BTreeMap::new() };
                current = Some((name.to_owned(), family));
                continue;
            }
            let (family, parts) = current.as_mut().expect("a family begins with its help");
            if let Some(rest) = line.strip_prefix("# TYPE ") {
                let (name, kind) = rest.split_once(' ').expect("a type");
                assert!(name == family && parts.kind.is_empty() && parts.samples.is_empty(), "{line}");
                kind.clone_into(&mut parts.kind);
                continue;
            }
            let (name, value) = line.rsplit_once(' ').unwrap_or_else(|| panic!("{line:?}"));
            let (base, _) = series(name);
            let suffix = base.strip_prefix(family.as_str()).unwrap_or_else(|| panic!("{line} in {family}"));
            let suffixes: &[&str] = if parts.kind == "histogram" { &["_bucket", "_sum", "_count"] } else { &[""] };
            assert!(suffixes.contains(&suffix), "{line} in a {}", parts.kind);
            let value = value.parse().unwrap_or_else(|_| panic!("{line:?} has no number"));
            assert!(parts.samples.insert(name.to_owned(), value).is_none(), "{line} comes twice");
        }
        page.close(current);
        page
    }

    fn close(&mut self, family: Option<(String, Family)>) {
        let Some((name, family)) = family else { return };
        assert!(is_name(&name) && name.starts_with("avatar_proxy_"), "{name}");
        assert!(["counter", "gauge", "histogram"].contains(&family.kind.as_str()), "{name}");
        assert_eq!(name.ends_with("_total"), family.kind == "counter", "{name}");
        for (series, value) in &family.samples {
            assert!(value.is_finite() && *value >= 0.0, "{series} is {value}");
        }
        if family.kind == "histogram" {
            family.check_buckets(&name);
        }
        assert!(self.families.insert(name.clone(), family).is_none(), "{name} comes twice");
    }

    #[track_caller]
    pub(super) fn family(&self, name: &str) -> &Family {
        self.families.get(name).unwrap_or_else(|| panic!("{name} is not there"))
    }

    /// The value of one series, named as it is printed.
    #[track_caller]
    pub(super) fn value(&self, series: &str) -> f64 {
        let found = self.families.values().find_map(|family| family.samples.get(series));
        *found.unwrap_or_else(|| panic!("{series} is not there"))
    }

    /// The sum over those series of a family that have this among their labels.
    #[track_caller]
    pub(super) fn total(&self, family: &str, label: &str) -> f64 {
        self.family(family).samples.iter().filter(|(name, _)| name.contains(label)).map(|(_, value)| value).sum()
    }

    /// Every value that a label has anywhere.
    pub(super) fn labels(&self, wanted: &str) -> BTreeSet<String> {
        let all = self.families.values().flat_map(|family| family.samples.keys());
        all.flat_map(|name| series(name).1)
            .filter(|(label, _)| *label == wanted)
            .map(|(_, value)| value.to_owned())
            .collect()
    }

    /// Panics if any label's value contains any of these.
    pub(super) fn names_nobody(&self, secrets: &[&str]) {
        for name in self.families.values().flat_map(|family| family.samples.keys()) {
            for (label, value) in series(name).1 {
                let told = secrets.iter().find(|secret| value.contains(*secret));
                assert!(told.is_none(), "{name} tells {told:?} in {label}");
            }
        }
    }
}

impl Family {
    /// Buckets rise, the last one holds all, and every series has a sum.
    fn check_buckets(&self, name: &str) {
        let mut series_of: BTreeMap<String, Vec<(f64, f64)>> = BTreeMap::new();
        for (sample, value) in &self.samples {
            let (base, labels) = series(sample);
            if base.ends_with("_bucket") {
                let (bounds, others): (Vec<_>, Vec<_>) = labels.into_iter().partition(|(label, _)| *label == "le");
                let bound = bounds[0].1.parse().expect("a bound");
                series_of.entry(format!("{others:?}")).or_default().push((bound, *value));
            }
        }
        let counts = self.samples.iter().filter(|(sample, _)| series(sample).0.ends_with("_count"));
        let counts: BTreeMap<String, f64> =
            counts.map(|(sample, value)| (format!("{:?}", series(sample).1), *value)).collect();
        let sums = self.samples.keys().filter(|sample| series(sample).0.ends_with("_sum")).count();
        assert_eq!((series_of.len(), series_of.len()), (counts.len(), sums), "{name}");
        for (labels, mut buckets) in series_of {
            buckets.sort_by(|one, other| one.0.total_cmp(&other.0));
            assert!(buckets.is_sorted_by(|one, other| one.1 <= other.1), "{name} {labels}: {buckets:?}");
            let (last, all) = buckets.last().expect("a bucket");
            assert!(last.is_infinite() && *all == counts[&labels], "{name} {labels}");
        }
    }
}
