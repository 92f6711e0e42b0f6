//! Whether the process writes an access log. It follows the log level, which may change at any
//! time.

use std::sync::atomic::{AtomicBool, Ordering};

static IS_ON: AtomicBool = AtomicBool::new(false);

/// Returns whether the process writes an access log. If not, create no [`Record`](super::Record).
#[must_use]
pub fn is_on() -> bool {
    IS_ON.load(Ordering::Relaxed)
}

/// Sets whether requests are logged.
pub(in crate::telemetry) fn show(is_shown: bool) {
    IS_ON.store(is_shown, Ordering::Relaxed);
}
