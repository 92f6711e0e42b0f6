//! Waits for observable conditions.

use std::time::{Duration, Instant};

/// The timeout of anything that must happen: long enough for a busy machine, short enough to end a
/// stuck test.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// The polling interval.
const PAUSE: Duration = Duration::from_millis(10);

/// Polls `look` until it returns something; `what` is for messages.
///
/// # Panics
/// If that takes longer than [`PATIENCE`].
pub fn until<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
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

/// The time, for deadlines and measurements.
#[expect(
    clippy::disallowed_methods,
    reason = "a test stands outside of the program and its clock"
)]
pub fn now() -> Instant {
    Instant::now()
}
