//! The simulator's only look at a clock: everything else takes `now` as an argument.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// One look at both clocks.
#[derive(Clone, Copy)]
pub(super) struct Reading {
    /// Monotonic time, which every deadline is measured by.
    pub(super) steady: Instant,
    /// Wall time since the Unix epoch, which is only ever shown.
    pub(super) wall: Duration,
}

impl Reading {
    /// Wall time in milliseconds, the unit of the API's `createdOn` and its like.
    pub(super) fn millis(&self) -> u64 {
        u64::try_from(self.wall.as_millis()).unwrap_or(u64::MAX)
    }
}

/// Reads the clocks.
#[expect(
    clippy::disallowed_methods,
    reason = "the simulator stands for another machine, so it has a clock of its own; this is the only reader"
)]
pub(super) fn read() -> Reading {
    Reading {
        steady: Instant::now(),
        wall: SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default(),
    }
}
