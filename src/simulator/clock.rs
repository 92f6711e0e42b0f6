//! The simulator's only access to a clock: everything else takes `now` as an argument.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// The time of both clocks.
#[derive(Clone, Copy)]
pub(super) struct Reading {
    /// Monotonic time, for deadlines.
    pub(super) steady: Instant,
    /// Wall-clock time since the Unix epoch, for display only.
    pub(super) wall: Duration,
}

impl Reading {
    /// Wall-clock time in milliseconds, the unit of `createdOn` and similar fields of the API.
    pub(super) fn millis(&self) -> u64 {
        u64::try_from(self.wall.as_millis()).unwrap_or(u64::MAX)
    }
}

/// Reads the clocks.
#[expect(
    clippy::disallowed_methods,
    reason = "the simulator stands for another machine, so it has its own clock; this is the only reader"
)]
pub(super) fn read() -> Reading {
    Reading {
        steady: Instant::now(),
        wall: SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default(),
    }
}
