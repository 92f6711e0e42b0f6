//! Watches the Secret while a store is in use.
//!
//! The Secret is watched, and also polled: a watch that missed what a poll finds is closed. A watch
//! that ends at once is restarted with a growing pause. After a failed read the Secret is polled at
//! once. A watch may stay open while nothing else gets through, and the caller waits for the server
//! to be back.

use std::time::Duration;

use serde_json::Value;
use tracing::info;

use super::api::Kind;
use super::object::version;
use super::{Inner, jittered};

/// The average polling interval besides a watch.
const POLL: Duration = Duration::from_secs(60);

/// The same without a watch.
const POLL_UNWATCHED: Duration = Duration::from_secs(5);

/// The shortest and the longest pause before an unavailable server is retried.
pub(super) const PAUSE: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(2));

/// Watches the Secret, until it is dropped.
pub(super) async fn watch(inner: &Inner) {
    let mut pause = PAUSE.0;
    // before a watch that ended soon is replaced
    let mut rest = PAUSE.0;
    let mut watch = None;
    let mut observed = String::new();
    let mut is_reported = false;
    loop {
        let Ok(secret) = inner.api.get(Kind::Secret).await else {
            inner.tracker.polled(None);
            watch = None;
            tokio::time::sleep(jittered(pause)).await;
            pause = (pause * 2).min(PAUSE.1);
            continue;
        };
        pause = PAUSE.0;
        if inner.observe(&secret, &mut observed) {
            // the current watch has missed this change
            watch = None;
        }
        if watch.is_none() {
            match inner.api.watch(Kind::Secret).await {
                Ok(begun) => watch = Some((begun, inner.entry.clock.now())),
                Err(problem) if !std::mem::replace(&mut is_reported, true) => {
                    info!(client = %inner.entry.client, "the store is polled, not watched: {problem}");
                }
                Err(_) => {}
            }
        }
        let poll = jittered(watch.as_ref().map_or(POLL_UNWATCHED, |_| POLL));
        let followed = async {
            let Some((watch, _)) = &mut watch else {
                return std::future::pending().await;
            };
            while let Some(secret) = watch.next().await {
                inner.observe(&secret, &mut observed);
            }
        };
        tokio::select! {
            () = tokio::time::sleep(poll) => {}
            () = inner.tracker.unavailable() => {}
            () = followed => {
                let begun = watch.take().map(|(_, begun)| begun);
                if begun.is_some_and(|at| inner.entry.clock.now().since(at) > POLL_UNWATCHED) {
                    rest = PAUSE.0;
                }
                // a watch that always ends at once must not cause a storm of calls
                tokio::time::sleep(jittered(rest)).await;
                rest = (rest * 2).min(POLL_UNWATCHED);
            }
        }
    }
}

impl Inner {
    /// Tracks the Secret's content. Returns whether its version differs from the one `observed`
    /// before.
    fn observe(&self, secret: &Value, observed: &mut String) -> bool {
        self.tracker.polled(Some(self.content(secret)));
        let now = version(secret).unwrap_or_default();
        let differs = now != observed;
        now.clone_into(observed);
        differs
    }
}
