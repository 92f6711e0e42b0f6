//! How the store's operations are counted, and what becomes of one that does not answer.

use super::*;
use crate::telemetry::metrics::Format;

#[tokio::test(start_paused = true)]
async fn each_operation_is_counted_by_what_came_of_it() {
    let (metrics, clock) = (Metrics::new("0.0.0"), TokioClock::start());
    let store = Arc::new(SharedStore::default());
    let settings = Settings {
        store_metrics: metrics.store("kind"),
        ..parts(Scripted::new(|_| Ok(())), store, clock).settings
    };
    // `Ok(true)` if another process holds the lease
    let count = async |operation, answer: Option<Result<bool, StoreError>>| {
        let call = async {
            match answer {
                Some(answer) => answer,
                None => std::future::pending().await,
            }
        };
        settings.count(&clock, operation, call, |held| *held).await
    };
    let (away, newer) = ("away".to_owned(), "newer".to_owned());
    let (away, newer) = (StoreError::Unavailable(away), StoreError::Conflict(newer));
    for (operation, answer, counted) in [
        (Operation::Read, Some(Ok(false)), ("read", "ok")),
        (Operation::Lease, Some(Ok(false)), ("lease", "ok")),
        (Operation::Lease, Some(Ok(true)), ("lease", "held")),
        (Operation::Publish, Some(Ok(false)), ("publish", "ok")),
        (Operation::Publish, Some(Err(newer)), ("publish", "held")),
        (Operation::Read, Some(Err(away)), ("read", "error")),
        (Operation::Read, None, ("read", "timeout")),
    ] {
        let is_error = !matches!(answer, Some(Ok(_)));
        assert_eq!(count(operation, answer).await.is_err(), is_error);
        let (operation, outcome) = counted;
        let line = format!(
            "store_operations_total{{operation=\"{operation}\",outcome=\"{outcome}\",store=\"kind\"}} 1\n"
        );
        let text = metrics.render(Format::Text, |_| {});
        assert!(text.contains(&line), "{line}{text}");
    }
    // all but the last took no time, and that took a twelfth of the refill interval
    let text = metrics.render(Format::Text, |_| {});
    for line in ["count{store=\"kind\"} 7\n", "sum{store=\"kind\"} 5\n"] {
        let line = format!("store_operation_duration_seconds_{line}");
        assert!(text.contains(&line), "{line}{text}");
    }
}
