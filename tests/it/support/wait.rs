//! Waiting for what can be seen.

use std::time::{Duration, Instant};

/// How long anything may take that is bound to come: long enough for a machine that is busy with
/// something else, short enough to end a test that is stuck.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// How often a condition is looked at.
const PAUSE: Duration = Duration::from_millis(10);

/// Looks until `look` finds something; `what` is waited for.
///
/// # Panics
/// If it does not come within [`PATIENCE`].
pub(crate) fn until<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let start = now();
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(
            start.elapsed() < PATIENCE,
            "waited {PATIENCE:?} in vain: {what}"
        );
        std::thread::sleep(PAUSE);
    }
}

/// The time, for deadlines and for measuring.
#[expect(
    clippy::disallowed_methods,
    reason = "a test stands outside of the program and its clock"
)]
pub(crate) fn now() -> Instant {
    Instant::now()
}
