//! The metrics of a kind of store: its availability, and its operations by outcome.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use prometheus::{Histogram, IntCounter, IntCounterVec, IntGaugeVec};

use super::families::Families;

/// An operation of a store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    /// Reads the stored token.
    Read,
    /// Takes the lease for a token request.
    Lease,
    /// Writes a token.
    Publish,
}

/// The outcome of an operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StoreOutcome {
    /// It succeeded.
    Ok,
    /// The store works, but another replica holds the lease, or the stored token is newer.
    Held,
    /// The store is unavailable.
    Error,
    /// The store did not answer in time.
    Timeout,
}

/// The metrics of a kind of store, for one client that uses one. If several clients use stores of
/// one kind, it counts as up if it is up for all of them.
#[derive(Debug)]
pub struct StoreMetrics {
    shared: Arc<SharedStore>,
    /// Whether this client's last operation failed.
    unavailable: Mutex<bool>,
}

/// The metrics shared by all clients of a kind of store.
#[derive(Debug)]
pub(super) struct SharedStore {
    kind: String,
    up: IntGaugeVec,
    counts: [[IntCounter; 4]; 3],
    duration: Histogram,
    /// The duration of the last answered operation, in microseconds; 0 for none.
    latency: AtomicU64,
    users: Mutex<Users>,
}

/// The number of clients that use the kind, and for how many of them it is unavailable.
#[derive(Debug, Default)]
struct Users {
    all: usize,
    unavailable: usize,
}

const OPERATIONS: [Operation; 3] = [Operation::Read, Operation::Lease, Operation::Publish];
const OUTCOMES: [StoreOutcome; 4] = [
    StoreOutcome::Ok,
    StoreOutcome::Held,
    StoreOutcome::Error,
    StoreOutcome::Timeout,
];

impl Operation {
    /// The label's value.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Operation::Read => "read",
            Operation::Lease => "lease",
            Operation::Publish => "publish",
        }
    }
}

impl StoreOutcome {
    /// The label's value.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            StoreOutcome::Ok => "ok",
            StoreOutcome::Held => "held",
            StoreOutcome::Error => "error",
            StoreOutcome::Timeout => "timeout",
        }
    }
}

impl StoreMetrics {
    /// Returns the metrics for one more client of this kind.
    pub(super) fn new(shared: Arc<SharedStore>) -> StoreMetrics {
        shared.change(|users| users.all += 1);
        StoreMetrics {
            shared,
            unavailable: Mutex::new(false),
        }
    }

    /// Records the outcome of an `operation` and its duration.
    pub fn operation(&self, operation: Operation, outcome: StoreOutcome, took: Duration) {
        self.shared.counts[operation as usize][outcome as usize].inc();
        self.shared.duration.observe(took.as_secs_f64());
        let is_unavailable = matches!(outcome, StoreOutcome::Error | StoreOutcome::Timeout);
        if !is_unavailable {
            let took = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
            self.shared.latency.store(took.max(1), Ordering::Relaxed);
        }
        let was_unavailable = std::mem::replace(&mut *locked(&self.unavailable), is_unavailable);
        match (was_unavailable, is_unavailable) {
            (false, true) => self.shared.change(|users| users.unavailable += 1),
            (true, false) => self.shared.change(|users| users.unavailable -= 1),
            _ => {}
        }
    }
}

impl Drop for StoreMetrics {
    fn drop(&mut self) {
        let was_unavailable = *locked(&self.unavailable);
        self.shared.change(|users| {
            users.all -= 1;
            users.unavailable -= usize::from(was_unavailable);
        });
    }
}

impl SharedStore {
    pub(super) fn new(families: &Families, kind: &str) -> SharedStore {
        let count = |family: &IntCounterVec, operation: Operation, outcome: StoreOutcome| {
            family.with_label_values(&[kind, operation.label(), outcome.label()])
        };
        let family = &families.store_operations;
        let counts = OPERATIONS.map(|operation| OUTCOMES.map(|o| count(family, operation, o)));
        SharedStore {
            kind: kind.to_owned(),
            up: families.store_up.clone(),
            counts,
            duration: families.store_operation_duration.with_label_values(&[kind]),
            latency: AtomicU64::new(0),
            users: Mutex::default(),
        }
    }

    /// The duration of the last answered operation.
    pub(super) fn latency(&self) -> Option<Duration> {
        let micros = self.latency.load(Ordering::Relaxed);
        (micros > 0).then(|| Duration::from_micros(micros))
    }

    /// Ends the series of a kind that is no longer used.
    fn change(&self, change: impl FnOnce(&mut Users)) {
        let mut users = locked(&self.users);
        change(&mut users);
        let label = &[self.kind.as_str()];
        if users.all == 0 {
            // the series may already be removed
            let _ = self.up.remove_label_values(label);
        } else {
            let up = self.up.with_label_values(label);
            up.set(i64::from(users.unavailable == 0));
        }
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::super::Metrics;
    use super::super::metrics::Format;
    use super::*;

    fn up(metrics: &Metrics) -> Option<String> {
        let text = metrics.render(Format::Text);
        let line = text.lines();
        let mut found = line.filter_map(|l| l.strip_prefix("collibra_auth_proxy_store_up{store="));
        found.next().map(str::to_owned)
    }

    #[test]
    fn a_store_is_up_if_it_is_for_all_and_untold_if_nobody_uses_it() {
        let metrics = Metrics::new("0.0.0");
        assert_eq!(up(&metrics), None);
        let (one, other) = (metrics.store("file"), metrics.store("file"));
        assert_eq!(up(&metrics).unwrap(), "\"file\"} 1");
        let took = Duration::from_millis(7);
        one.operation(Operation::Read, StoreOutcome::Timeout, took);
        assert_eq!(metrics.store_latency("file"), None);
        other.operation(Operation::Lease, StoreOutcome::Held, took);
        assert_eq!(metrics.store_latency("file"), Some(took));
        assert_eq!(up(&metrics).unwrap(), "\"file\"} 0");
        one.operation(Operation::Publish, StoreOutcome::Held, took);
        assert_eq!(up(&metrics).unwrap(), "\"file\"} 1");
        other.operation(Operation::Read, StoreOutcome::Error, took * 2);
        assert_eq!(metrics.store_latency("file"), Some(took));
        drop(other);
        assert_eq!(up(&metrics).unwrap(), "\"file\"} 1");
        drop(one);
        assert_eq!(up(&metrics), None);
        let told =
            "store_operations_total{operation=\"read\",outcome=\"timeout\",store=\"file\"} 1";
        assert!(metrics.render(Format::Text).contains(told));
    }
}
