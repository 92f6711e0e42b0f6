//! A guard that counts in a gauge.

use prometheus::IntGauge;

/// Something that is counted until it is dropped: an open connection, a waiting request.
#[derive(Debug)]
#[must_use = "it is counted for as long as this is held"]
pub struct Held(IntGauge);

impl Held {
    /// Counts one more in `gauge`.
    pub(super) fn by(gauge: &IntGauge) -> Held {
        gauge.inc();
        Held(gauge.clone())
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.0.dec();
    }
}
