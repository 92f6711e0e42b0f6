//! Exponential backoff between `base` and `cap`, with jitter.

use std::time::Duration;

/// The parameters of a backoff.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Backoff {
    /// The longest delay after the first failure.
    pub base: Duration,
    /// The longest delay after any failure.
    pub cap: Duration,
}

impl Backoff {
    /// The delay after `failures` consecutive failures (the first is 1), with `jitter` in `[0, 1)`.
    /// It is in the upper half of the exponential delay, and never above [`Backoff::cap`].
    #[must_use]
    pub fn delay(&self, failures: u32, jitter: f64) -> Duration {
        let doublings = failures.saturating_sub(1).min(31);
        let ceiling = self.base.saturating_mul(1 << doublings).min(self.cap);
        ceiling.mul_f64(1.0 - jitter.clamp(0.0, 1.0) / 2.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BACKOFF: Backoff = Backoff {
        base: Duration::from_secs(1),
        cap: Duration::from_secs(12),
    };

    #[test]
    fn doubles_up_to_the_cap() {
        let without_jitter: Vec<u64> = (1..=6).map(|n| BACKOFF.delay(n, 0.0).as_secs()).collect();
        assert_eq!(without_jitter, [1, 2, 4, 8, 12, 12]);
        assert_eq!(BACKOFF.delay(u32::MAX, 0.0), BACKOFF.cap);
    }

    #[test]
    fn jitter_takes_away_at_most_half() {
        assert_eq!(BACKOFF.delay(3, 1.0), Duration::from_secs(2));
        assert_eq!(BACKOFF.delay(3, 0.5), Duration::from_secs(3));
    }
}
