//! A client's token pool: a bucket that refills continuously.
//!
//! Pure: it gets the time as an argument.

use std::time::{Duration, Instant};

/// A bucket of `capacity` tokens that refills by one every `refill`.
///
/// Its state is the moment at which it will be full, so no fraction is ever rounded, and an idle
/// bucket is full exactly in time.
#[derive(Clone, Debug)]
pub(super) struct Pool {
    capacity: u32,
    refill: Duration,
    full_at: Instant,
}

impl Pool {
    /// Returns a pool that is full at `now`. `capacity` is at least 1, `refill` above zero.
    pub(super) fn full(capacity: u32, refill: Duration, now: Instant) -> Self {
        Self {
            capacity,
            refill,
            full_at: now,
        }
    }

    /// Takes one token.
    ///
    /// # Errors
    /// If there is less than one: how long until there is. Nothing is taken then.
    pub(super) fn take(&mut self, now: Instant) -> Result<(), Duration> {
        let missing = self.full_at.saturating_duration_since(now);
        let bearable = self.refill * (self.capacity - 1);
        if missing > bearable {
            return Err(missing - bearable);
        }
        self.full_at = self.full_at.max(now) + self.refill;
        Ok(())
    }

    /// The tokens available, fractions included, from 0 to the capacity.
    pub(super) fn available(&self, now: Instant) -> f64 {
        let missing = self.full_at.saturating_duration_since(now);
        f64::from(self.capacity) - missing.as_secs_f64() / self.refill.as_secs_f64()
    }

    /// Fills the pool.
    pub(super) fn fill(&mut self, now: Instant) {
        self.full_at = now;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::simulator::clock;

    const MINUTE: Duration = Duration::from_secs(60);
    const INSTANT: Duration = Duration::from_nanos(1);

    fn drained() -> (Pool, Instant) {
        let now = clock::read().steady;
        let mut pool = Pool::full(5, MINUTE, now);
        for _ in 0..5 {
            pool.take(now).unwrap();
        }
        (pool, now)
    }

    #[test]
    fn a_full_pool_gives_its_capacity_and_then_says_how_long_to_wait() {
        let (mut pool, now) = drained();
        assert_eq!(pool.take(now), Err(MINUTE));
        assert_eq!(pool.take(now + MINUTE / 4), Err(MINUTE * 3 / 4));
    }

    #[test]
    fn the_next_token_is_ready_one_refill_after_the_pool_was_left_full() {
        let (mut pool, now) = drained();
        assert_eq!(pool.take(now + MINUTE - INSTANT), Err(INSTANT));
        assert_eq!(pool.take(now + MINUTE), Ok(()));
        assert_eq!(pool.take(now + MINUTE), Err(MINUTE));
    }

    #[test]
    fn a_refused_request_takes_nothing() {
        let (mut pool, now) = drained();
        for _ in 0..100 {
            assert!(pool.take(now).is_err());
        }
        assert_eq!(pool.take(now + MINUTE), Ok(()));
    }

    #[test]
    fn it_never_holds_more_than_its_capacity() {
        let (mut pool, now) = drained();
        let later = now + MINUTE * 1000;
        assert!((pool.available(later) - 5.0).abs() < 1e-9);
        for _ in 0..5 {
            pool.take(later).unwrap();
        }
        assert!(pool.take(later).is_err());
    }

    #[test]
    fn what_is_available_grows_continuously() {
        let (mut pool, now) = drained();
        assert!(pool.available(now).abs() < 1e-9);
        assert!((pool.available(now + MINUTE / 2) - 0.5).abs() < 1e-9);
        pool.fill(now);
        assert!((pool.available(now) - 5.0).abs() < 1e-9);
    }
}
