//! What is counted of lookups.

use std::time::Instant;

use prometheus::{Histogram, HistogramVec, IntCounter, IntCounterVec, IntGauge};

use super::answer::Met;
use crate::change::Kind;
use crate::metrics::Metrics;

/// The figures of lookups; those of a memory hit are found beforehand, because it takes as long to find them as to hit.
pub(super) struct Figures {
    lookups: IntCounterVec,
    seconds: HistogramVec,
    memory: (IntCounter, Histogram),
}

impl Figures {
    pub(super) fn new(metrics: &Metrics) -> Self {
        let label = Met::Memory.as_str();
        for kind in Kind::ALL {
            // There from the start, so that the first change is seen as a rise from zero.
            metrics.changes.with_label_values(&[kind.as_str()]);
        }
        Self {
            memory: (metrics.lookups.with_label_values(&[label]), metrics.lookup_seconds.with_label_values(&[label])),
            lookups: metrics.lookups.clone(),
            seconds: metrics.lookup_seconds.clone(),
        }
    }

    pub(super) fn count(&self, met: &str, began: Instant) {
        let seconds = began.elapsed().as_secs_f64();
        if met == Met::Memory.as_str() {
            self.memory.0.inc();
            self.memory.1.observe(seconds);
        } else {
            self.lookups.with_label_values(&[met]).inc();
            self.seconds.with_label_values(&[met]).observe(seconds);
        }
    }
}

/// Counts a client while it waits, also one that hangs up.
pub(super) struct Waiting<'a>(&'a IntGauge);

impl<'a> Waiting<'a> {
    pub(super) fn new(waiting: &'a IntGauge) -> Self {
        waiting.inc();
        Self(waiting)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.dec();
    }
}
