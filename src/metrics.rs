//! The figures: one struct, whose doc comments are the help texts.
//!
//! A registry of its own, passed to whoever counts; no process globals. Labels are few and bounded: no person's address ever,
//! and a device only as the first 8 hex digits of its SHA-256, at most [`DEVICES_MAX`] of them.

use prometheus::core::Collector;
use prometheus::{
    Encoder, Gauge, GaugeVec, Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec,
    Opts, Registry, TextEncoder,
};

/// The most devices that appear by a label of their own; the others are left out, or counted together as `other`.
pub const DEVICES_MAX: usize = 100;

/// Latencies from a memory hit (50 us) to a gateway at its slowest (s).
const LATENCY: &[f64] = &[
    0.000_05, 0.000_1, 0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0,
    10.0, 20.0, 40.0,
];

/// How long before its death a URL is renewed, from seconds to weeks (s).
const LEAD: &[f64] =
    &[0.0, 1.0, 5.0, 15.0, 60.0, 300.0, 900.0, 3600.0, 14_400.0, 43_200.0, 86_400.0, 259_200.0, 864_000.0];

/// How long a change went unnoticed at the most, from seconds to months (s).
const DELAY: &[f64] = &[
    1.0,
    5.0,
    15.0,
    60.0,
    300.0,
    900.0,
    3600.0,
    7200.0,
    14_400.0,
    21_600.0,
    43_200.0,
    86_400.0,
    172_800.0,
    604_800.0,
    2_592_000.0,
];

/// Makes a metric of its kind from its options.
trait Make: Collector + Clone + Sized + 'static {
    fn make(opts: Opts, labels: &[&str], buckets: &[f64]) -> prometheus::Result<Self>;
}

macro_rules! make {
    ($($kind:ty: |$opts:ident, $labels:pat_param, $buckets:pat_param| $new:expr;)*) => {
        $(impl Make for $kind {
            fn make($opts: Opts, $labels: &[&str], $buckets: &[f64]) -> prometheus::Result<Self> { $new }
        })*
    };
}

make! {
    IntCounter: |opts, _, _| IntCounter::with_opts(opts);
    IntGauge: |opts, _, _| IntGauge::with_opts(opts);
    Gauge: |opts, _, _| Gauge::with_opts(opts);
    Histogram: |opts, _, buckets| Histogram::with_opts(HistogramOpts { common_opts: opts, buckets: buckets.to_vec() });
    IntCounterVec: |opts, labels, _| IntCounterVec::new(opts, labels);
    IntGaugeVec: |opts, labels, _| IntGaugeVec::new(opts, labels);
    GaugeVec: |opts, labels, _| GaugeVec::new(opts, labels);
    HistogramVec: |opts, labels, buckets|
        HistogramVec::new(HistogramOpts { common_opts: opts, buckets: buckets.to_vec() }, labels);
}

macro_rules! metrics {
    ($($(#[doc = $help:literal])+ $field:ident: $kind:ty = $name:literal $([$($label:literal),*])? $(in $buckets:expr)?;)*) => {
        /// Every figure the program keeps.
        #[derive(Debug)]
        pub struct Metrics {
            registry: Registry,
            $($(#[doc = $help])+ pub $field: $kind,)*
        }

        impl Metrics {
            /// A fresh set, all zero.
            #[must_use]
            pub fn new() -> Self {
                let registry = Registry::new();
                $(
                    let opts = Opts::new(concat!("avatar_proxy_", $name), concat!($($help),+).trim());
                    let labels: &[&str] = &[$($($label),*)?];
                    #[allow(unused_mut, unused_assignments)]
                    let mut buckets: &[f64] = &[];
                    $(buckets = $buckets;)?
                    let $field = <$kind as Make>::make(opts, labels, buckets).expect("a metric's name and labels are valid");
                    registry.register(Box::new($field.clone())).expect("no two metrics share a name");
                )*
                Self { registry, $($field,)* }
            }
        }

        /// Name, kind and help of every metric: what the README lists.
        pub const ALL: &[(&str, &str, &str)] = &[
            $((concat!("avatar_proxy_", $name), stringify!($kind), concat!($($help),+)),)*
        ];
    };
}

metrics! {
    /// Always 1; the version is in the label.
    build_info: IntGaugeVec = "build_info" ["version"];
    /// When the process started, as Unix time (s).
    start_time: Gauge = "start_time_seconds";
    /// Requests answered, by route and status.
    http_requests: IntCounterVec = "http_requests_total" ["route", "status"];
    /// Client connections open now.
    http_connections: IntGauge = "http_connections";
    /// How many files the process may open; every connection is one.
    open_files_limit: IntGauge = "open_files_limit";
    /// Requests with credentials that are not accepted.
    http_credentials_refused: IntCounter = "http_credentials_refused_total";
    /// What the gateway's own webhooks told of somebody, by what came of it, and those that told nothing.
    hooks: IntCounterVec = "gateway_hooks_total" ["result"];
    /// Avatar lookups by clients, by how the cache met them.
    lookups: IntCounterVec = "lookups_total" ["met"];
    /// Time to meet an avatar lookup, by how the cache met it.
    lookup_seconds: HistogramVec = "lookup_seconds" ["met"] in LATENCY;
    /// Avatar lookups by clients that memory could not meet and that are not met yet.
    lookups_waiting: IntGauge = "lookups_waiting";
    /// Flights under way: lookups beyond memory, one for all who ask for the same, background looks included.
    flights: IntGauge = "flights";
    /// Lookups made at the gateway, by what came of them.
    gateway_lookups: IntCounterVec = "gateway_lookups_total" ["class"];
    /// Time the gateway took for a lookup.
    gateway_seconds: Histogram = "gateway_seconds" in LATENCY;
    /// Lookups under way at the gateway now.
    gateway_in_flight: IntGauge = "gateway_in_flight";
    /// Whether the gateway refuses the proxy's own credentials (1) or not (0).
    gateway_refuses: IntGauge = "gateway_refuses_credentials";
    /// Time spent waiting for the budget, by priority.
    budget_wait_seconds: HistogramVec = "budget_wait_seconds" ["priority"] in LATENCY;
    /// Lookups that the budget did not let through, by priority and reason.
    budget_refusals: IntCounterVec = "budget_refusals_total" ["priority", "reason"];
    /// Lookups waiting for the budget now.
    budget_waiting: IntGauge = "budget_waiting";
    /// Lookups that may start at once, by device; devices that never had an answer share the one called new.
    budget_tokens: GaugeVec = "budget_tokens" ["device"];
    /// Lookups per second that a device's budget allows now: the configured rate, less of it after a rate limit, none during one.
    budget_allowed: GaugeVec = "budget_allowed_per_second" ["device"];
    /// Lookups per second that are needed of a device's budget: expiring, to look at everything in time before it dies; recheck, to
    /// look at everybody once per recheck interval. Above what is allowed, some are looked at late.
    budget_needed: GaugeVec = "budget_needed_per_second" ["device", "work"];
    /// Cool-downs begun because WhatsApp said slow down, by device; new: never had an answer, other: beyond the first hundred.
    cool_downs: IntCounterVec = "cool_downs_total" ["device"];
    /// What is left of a device's cool-down, 0 when it is not cooling down; new, other: the longest of theirs.
    cool_down_seconds: GaugeVec = "cool_down_remaining_seconds" ["device"];
    /// Entries in memory.
    memory_entries: IntGauge = "memory_entries";
    /// Bytes that the entries in memory hold.
    memory_bytes: IntGauge = "memory_bytes";
    /// The bound on the bytes that entries in memory hold.
    memory_limit_bytes: IntGauge = "memory_limit_bytes";
    /// Background looks, by what came of them.
    refreshes: IntCounterVec = "refreshes_total" ["result"];
    /// Background looks under way or waiting for the budget.
    refreshes_running: IntGauge = "refreshes_running";
    /// How long before its death a URL was renewed in the background; 0 is too late.
    refresh_lead_seconds: Histogram = "refresh_lead_seconds" in LEAD;
    /// Keys in the store whose deadline has come and that wait for a look.
    refresh_backlog: IntGauge = "refresh_backlog";
    /// Entries in the store.
    store_entries: IntGauge = "store_entries";
    /// People and groups in the store, counted once for each device that sees them.
    store_subjects: IntGauge = "store_subjects";
    /// Bytes that the store takes on disk.
    store_bytes: IntGauge = "store_bytes";
    /// Whether the store answers (1) or not (0).
    store_up: IntGauge = "store_up";
    /// Whether changes are recorded and not announced, because none of the store's replicas has confirmed them (1), or not (0).
    log_unconfirmed: IntGauge = "log_unconfirmed";
    /// Time the store took, by operation.
    store_seconds: HistogramVec = "store_seconds" ["operation"] in LATENCY;
    /// Failures of the store, by operation.
    store_errors: IntCounterVec = "store_errors_total" ["operation"];
    /// Reads that met a damaged record, which counts as absent until a look writes it anew.
    store_damaged: IntCounter = "store_damaged_total";
    /// People and groups dropped because nobody asked for them for long.
    forgotten: IntCounter = "forgotten_total";
    /// People and groups that are watched: looked at though nobody asks.
    watches: IntGauge = "watches";
    /// Avatar changes noticed, by kind.
    changes: IntCounterVec = "changes_total" ["change"];
    /// From the last time a picture was seen to the time when it was noticed to have changed: no change waited longer.
    detection_seconds: Histogram = "detection_delay_seconds" in DELAY;
    /// Records in the change log.
    log_records: IntGauge = "log_records";
    /// Age of the oldest record in the change log; 0 when it is empty.
    log_age_seconds: IntGauge = "log_oldest_age_seconds";
    /// Records of the change log dropped for their age.
    log_trimmed: IntCounter = "log_trimmed_total";
    /// Event streams open now.
    subscribers: IntGauge = "subscribers";
    /// Events sent, over all event streams.
    events_sent: IntCounter = "events_sent_total";
    /// Times that a subscriber fell so far behind that it was served from the change log again.
    fall_backs: IntCounter = "subscriber_fall_backs_total";
    /// Gaps told to subscribers: what they missed is no longer kept.
    gaps: IntCounter = "gaps_total";
    /// Attempts to deliver to a webhook, by endpoint and what came of them: delivered, failed (tried again) or dead (given up).
    webhook_deliveries: IntCounterVec = "webhook_deliveries_total" ["endpoint", "result"];
    /// Whether a webhook is active, failing or disabled: 1 for the state it is in, 0 for the others.
    webhook_state: IntGaugeVec = "webhook_state" ["endpoint", "state"];
    /// Events that a webhook has yet to get at the most: those pending, and what was not read for it yet, wanted or not.
    webhook_lag_events: IntGaugeVec = "webhook_lag_events" ["endpoint"];
    /// Age of the oldest event that a webhook has yet to get; 0 when there is none.
    webhook_lag_seconds: IntGaugeVec = "webhook_lag_seconds" ["endpoint"];
    /// Events that were read for a webhook and are not delivered yet.
    webhook_pending: IntGaugeVec = "webhook_pending" ["endpoint"];
    /// Events that were given up, until they are sent again (replay) or too old (--retention).
    webhook_dead_letters: IntGaugeVec = "webhook_dead_letters" ["endpoint"];
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

impl Metrics {
    /// Everything in Prometheus's text format.
    #[must_use]
    pub fn render(&self) -> Vec<u8> {
        let mut text = Vec::with_capacity(16 * 1024);
        // Encoding into memory fails only for a metric without a name, and there is none.
        let _ = TextEncoder::new().encode(&self.registry.gather(), &mut text);
        text
    }

    /// The media type of [`Metrics::render`].
    #[must_use]
    pub fn content_type() -> &'static str {
        prometheus::TEXT_FORMAT
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_metric_has_a_name_of_its_own_and_a_help_text() {
        let metrics = Metrics::new();
        metrics.store_up.set(1);
        let text = String::from_utf8(metrics.render()).unwrap();
        assert!(text.contains("# HELP avatar_proxy_store_up Whether the store answers"), "{text}");
        for (name, kind, help) in ALL {
            assert!(help.len() > 10, "{name}");
            assert_eq!(name.ends_with("_total"), kind.contains("Counter"), "{name}");
        }
    }
}
