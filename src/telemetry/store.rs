//! The metrics of a kind of store: its operations by outcome, and their duration.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use prometheus::{Histogram, IntCounterVec};

use super::families::Families;
use super::label::{Label, labels};

labels! {
    /// An operation of a store.
    pub enum Operation {
        /// Reads the stored token.
        Read = "read",
        /// Takes the lease for a token request.
        Lease = "lease",
        /// Writes a token.
        Publish = "publish",
    }
}

labels! {
    /// The outcome of an operation.
    pub enum StoreOutcome {
        /// It succeeded.
        Ok = "ok",
        /// The store works, but another replica holds the lease, or the stored token is newer.
        Held = "held",
        /// The store is unavailable.
        Error = "error",
        /// The store did not answer in time.
        Timeout = "timeout",
    }
}

/// The metrics of all stores of one kind.
#[derive(Debug)]
pub struct StoreMetrics {
    kind: String,
    operations: IntCounterVec,
    duration: Histogram,
    /// The duration of the last answered operation, in microseconds; 0 for none.
    latency: AtomicU64,
}

impl StoreMetrics {
    pub(super) fn new(families: &Families, kind: &str) -> StoreMetrics {
        let operations = families.store_operations.clone();
        for operation in Operation::ALL {
            for outcome in StoreOutcome::ALL {
                operations.with_label_values(&[kind, operation.label(), outcome.label()]);
            }
        }
        StoreMetrics {
            kind: kind.to_owned(),
            operations,
            duration: families.store_operation_duration.with_label_values(&[kind]),
            latency: AtomicU64::new(0),
        }
    }

    /// Records the outcome of an `operation` and its duration.
    pub fn operation(&self, operation: Operation, outcome: StoreOutcome, took: Duration) {
        let labels = [&*self.kind, operation.label(), outcome.label()];
        self.operations.with_label_values(&labels).inc();
        self.duration.observe(took.as_secs_f64());
        if matches!(outcome, StoreOutcome::Ok | StoreOutcome::Held) {
            let took = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
            self.latency.store(took.max(1), Ordering::Relaxed);
        }
    }

    /// The duration of the last answered operation.
    #[must_use]
    pub fn latency(&self) -> Option<Duration> {
        let micros = self.latency.load(Ordering::Relaxed);
        (micros > 0).then(|| Duration::from_micros(micros))
    }
}

#[cfg(test)]
mod tests {
    use super::super::Metrics;
    use super::super::metrics::Format;
    use super::*;

    #[test]
    fn operations_are_counted_and_the_last_answered_one_is_the_latency() {
        let metrics = Metrics::new("0.0.0");
        let file = metrics.store("file");
        let took = Duration::from_millis(7);
        file.operation(Operation::Read, StoreOutcome::Timeout, took);
        assert_eq!(file.latency(), None);
        file.operation(Operation::Lease, StoreOutcome::Held, took);
        assert_eq!(metrics.store("file").latency(), Some(took));
        file.operation(Operation::Read, StoreOutcome::Error, took * 2);
        assert_eq!(file.latency(), Some(took));
        let text = metrics.render(Format::Text, |_| {});
        for (operation, outcome, count) in [
            ("read", "timeout", 1),
            ("lease", "held", 1),
            ("read", "error", 1),
            ("publish", "ok", 0),
        ] {
            let line = format!(
                "store_operations_total{{operation=\"{operation}\",outcome=\"{outcome}\",store=\"file\"}} {count}\n"
            );
            assert!(text.contains(&line), "{line}{text}");
        }
    }
}
