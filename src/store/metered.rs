//! Counts the operations of a store, of any kind, by their outcome.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;

use crate::clock::{Clock, Instant};
use crate::telemetry::{Operation, StoreMetrics, StoreOutcome};
use crate::token::ports::{Lease, Membership, Record, StoreError, TokenStore};

/// A store whose operations are counted.
#[derive(Debug)]
pub struct MeteredStore {
    store: Arc<dyn TokenStore>,
    counts: Counts,
}

/// Where operations are counted, and the clock that times them.
#[derive(Clone, Debug)]
struct Counts {
    metrics: Arc<StoreMetrics>,
    clock: Arc<dyn Clock>,
}

impl MeteredStore {
    /// Wraps `store`; its operations are counted in `metrics` and timed by `clock`.
    #[must_use]
    pub fn new(
        store: Arc<dyn TokenStore>,
        metrics: Arc<StoreMetrics>,
        clock: Arc<dyn Clock>,
    ) -> MeteredStore {
        let counts = Counts { metrics, clock };
        MeteredStore { store, counts }
    }
}

#[async_trait]
impl TokenStore for MeteredStore {
    async fn read(&self) -> Result<Option<Record>, StoreError> {
        let call = MeteredCall::begin(&self.counts, Operation::Read);
        let read = self.store.read().await;
        call.end(outcome(&read));
        read
    }

    async fn lease(&self, length: Duration) -> Result<Option<Box<dyn Lease>>, StoreError> {
        let call = MeteredCall::begin(&self.counts, Operation::Lease);
        let lease = self.store.lease(length).await;
        call.end(match &lease {
            Ok(None) => StoreOutcome::Held,
            other => outcome(other),
        });
        Ok(lease?.map(|lease| {
            let counts = self.counts.clone();
            Box::new(MeteredLease { lease, counts }) as Box<dyn Lease>
        }))
    }

    async fn changed(&self) {
        self.store.changed().await;
    }

    async fn leave(&self) {
        self.store.leave().await;
    }

    fn membership(&self) -> Membership {
        self.store.membership()
    }
}

#[derive(Debug)]
struct MeteredLease {
    lease: Box<dyn Lease>,
    counts: Counts,
}

#[async_trait]
impl Lease for MeteredLease {
    async fn publish(&mut self, record: &Record) -> Result<(), StoreError> {
        let call = MeteredCall::begin(&self.counts, Operation::Publish);
        let published = self.lease.publish(record).await;
        call.end(outcome(&published));
        published
    }
}

fn outcome<T>(result: &Result<T, StoreError>) -> StoreOutcome {
    match result {
        Ok(_) => StoreOutcome::Ok,
        Err(StoreError::Conflict(_)) => StoreOutcome::Held,
        Err(StoreError::Unavailable(_)) => StoreOutcome::Error,
    }
}

/// An operation in progress. If it is dropped before its end, the engine timed out, and it counts
/// as a timeout.
struct MeteredCall<'a> {
    counts: &'a Counts,
    begun: Instant,
    operation: Operation,
    outcome: StoreOutcome,
}

impl MeteredCall<'_> {
    fn begin(counts: &Counts, operation: Operation) -> MeteredCall<'_> {
        MeteredCall {
            counts,
            begun: counts.clock.now(),
            operation,
            outcome: StoreOutcome::Timeout,
        }
    }

    fn end(mut self, outcome: StoreOutcome) {
        self.outcome = outcome;
    }
}

impl Drop for MeteredCall<'_> {
    fn drop(&mut self) {
        let Counts { metrics, clock } = self.counts;
        let took = clock.now().since(self.begun);
        metrics.operation(self.operation, self.outcome, took);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::TokioClock;
    use crate::store::memory::MemoryStore;
    use crate::telemetry::Metrics;
    use crate::telemetry::metrics::Format;

    /// Returns the scripted result; without one, never returns.
    #[derive(Debug)]
    struct Scripted(Option<Result<(), StoreError>>);

    #[async_trait]
    impl TokenStore for Scripted {
        async fn read(&self) -> Result<Option<Record>, StoreError> {
            match self.0.clone() {
                Some(answer) => answer.map(|()| None),
                None => std::future::pending().await,
            }
        }

        async fn lease(&self, _length: Duration) -> Result<Option<Box<dyn Lease>>, StoreError> {
            self.read().await.map(|_| None)
        }

        async fn changed(&self) {}
    }

    #[track_caller]
    fn counted(metrics: &Metrics, operation: &str, outcome: &str) {
        let line = format!(
            "store_operations_total{{operation=\"{operation}\",outcome=\"{outcome}\",store=\"kind\"}} 1\n"
        );
        let text = metrics.render(Format::Text, |_| {});
        assert!(text.contains(&line), "{line}{text}");
    }

    #[tokio::test(start_paused = true)]
    async fn each_operation_is_counted_by_what_came_of_it() {
        let metrics = Metrics::new("0.0.0");
        let clock = Arc::new(TokioClock::start());
        let metered = |store| MeteredStore::new(store, metrics.store("kind"), clock.clone());
        let memory = metered(Arc::new(MemoryStore));
        assert!(memory.read().await.is_ok());
        counted(&metrics, "read", "ok");
        let minute = Duration::from_secs(60);
        let mut lease = memory.lease(minute).await.unwrap().unwrap();
        counted(&metrics, "lease", "ok");
        let record = Record {
            generation: 0,
            token: None,
            pool: crate::token::ports::StoredPool {
                full_at: std::time::SystemTime::UNIX_EPOCH,
                not_before: std::time::SystemTime::UNIX_EPOCH,
            },
        };
        lease.publish(&record).await.unwrap();
        counted(&metrics, "publish", "ok");

        let held = metered(Arc::new(Scripted(Some(Ok(())))));
        assert!(held.lease(minute).await.unwrap().is_none());
        counted(&metrics, "lease", "held");
        let away = Err(StoreError::Unavailable("away".to_owned()));
        let away = metered(Arc::new(Scripted(Some(away))));
        assert!(away.read().await.is_err());
        counted(&metrics, "read", "error");
        let silent = metered(Arc::new(Scripted(None)));
        assert!(tokio::time::timeout(minute, silent.read()).await.is_err());
        counted(&metrics, "read", "timeout");
        // all but the last took no time, and that took a minute
        let text = metrics.render(Format::Text, |_| {});
        for line in ["count{store=\"kind\"} 6\n", "sum{store=\"kind\"} 60\n"] {
            let line = format!("store_operation_duration_seconds_{line}");
            assert!(text.contains(&line), "{line}{text}");
        }
    }
}
