//! The issuer's token pool, mirrored: how many requests are allowed, and when the next one is.
//!
//! A token bucket, represented by the moment at which it will be full. How the issuer accounts is
//! unknown, so the mirror is conservative: nothing refills while a request is in flight, because
//! the issuer may charge it as late as the response. Pure: `now` is an argument.

use std::time::{Duration, SystemTime};

use crate::clock::Instant;
use crate::token::ports::StoredPool;

/// The pool's size and refill rate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Config {
    /// The capacity in tokens; at least 1.
    pub capacity: u32,
    /// The time in which one token refills; above zero.
    pub refill: Duration,
}

/// The longest time for which a 429 may block requests, in refill intervals: an hour at one token a
/// minute.
pub const LONGEST_HOLD: u32 = 60;

/// The mirrored pool of one client.
#[derive(Clone, Debug)]
pub struct Budget {
    config: Config,
    /// When the pool will be full if nothing more is taken.
    full_at: Instant,
    /// No request before this, whatever the pool holds, because the issuer said so.
    not_before: Instant,
}

impl Budget {
    /// Returns a full pool.
    #[must_use]
    pub fn full(config: Config) -> Budget {
        Budget {
            config,
            full_at: Instant::ORIGIN,
            not_before: Instant::ORIGIN,
        }
    }

    /// The pool's size and refill rate.
    #[must_use]
    pub fn config(&self) -> Config {
        self.config
    }

    /// The tokens available at `now`, between 0 and the capacity.
    #[must_use]
    pub fn available(&self, now: Instant) -> f64 {
        let missing = self.full_at.since(now).as_secs_f64() / self.config.refill.as_secs_f64();
        (f64::from(self.config.capacity) - missing).max(0.0)
    }

    /// The earliest time of the next request; in the past if one is allowed now.
    #[must_use]
    pub fn ready_at(&self) -> Instant {
        self.holds_at(1)
    }

    /// The earliest time at which the pool holds `tokens` (at most its capacity), if nothing more
    /// is taken.
    #[must_use]
    pub fn holds_at(&self, tokens: u32) -> Instant {
        let still_missing = self.config.capacity.saturating_sub(tokens);
        (self.full_at - self.config.refill * still_missing).max(self.not_before)
    }

    /// Takes one token for a request that is sent now. Call it only once [`Budget::ready_at`] has
    /// passed.
    pub fn take(&mut self, now: Instant) {
        debug_assert!(self.ready_at() <= now, "a request that the pool forbids");
        self.full_at = self.full_at.max(now) + self.config.refill;
    }

    /// Ends the request sent at `sent`: it was answered or abandoned at `now`. Tokens refilled in
    /// between do not count.
    pub fn settle(&mut self, sent: Instant, now: Instant) {
        self.full_at = (self.full_at + now.since(sent)).min(self.empty_at(now));
    }

    /// Returns the token of a request that cost nothing.
    pub fn give_back(&mut self) {
        self.full_at = self.full_at - self.config.refill;
    }

    /// Changes the pool's size or rate at `now`; as many tokens are missing as before.
    pub fn resize(&mut self, config: Config, now: Instant) {
        let missing = self.full_at.since(now).div_duration_f64(self.config.refill);
        let missing = config.refill.mul_f64(missing);
        self.config = config;
        self.full_at = (now + missing).min(self.empty_at(now));
    }

    /// When the pool will be full, and the time before which no request may be made.
    #[must_use]
    pub fn times(&self) -> (Instant, Instant) {
        (self.full_at, self.not_before)
    }

    /// The pool as stored; `wall_at` converts to wall-clock time.
    pub(crate) fn stored(&self, wall_at: impl Fn(Instant) -> SystemTime) -> StoredPool {
        StoredPool {
            full_at: wall_at(self.full_at),
            not_before: wall_at(self.not_before),
        }
    }

    /// Merges the pool as another process stored it; the later times win. A time beyond what anyone
    /// can have booked is ignored (clocks may differ by one refill interval). Clamping it instead
    /// would push it forward at every read, and it would never pass.
    pub fn restore(&mut self, full_at: Instant, not_before: Instant, now: Instant) {
        let slack = self.config.refill;
        let empty = self.empty_at(now);
        if full_at <= empty + slack {
            self.full_at = self.full_at.max(full_at.min(empty));
        }
        if not_before <= now + self.config.refill * LONGEST_HOLD + slack {
            self.not_before = self.not_before.max(not_before);
        }
    }

    /// The issuer reports an empty pool: blocks requests for one refill interval, or for
    /// `retry_after` if that is longer.
    pub fn rate_limited(&mut self, now: Instant, retry_after: Option<Duration>) {
        self.full_at = self.empty_at(now);
        let wait = self.config.refill.max(retry_after.unwrap_or_default());
        self.not_before = self.not_before.max(now + wait);
    }

    /// The `full_at` of a pool that is empty at `now`.
    fn empty_at(&self, now: Instant) -> Instant {
        now + self.config.refill * self.config.capacity
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CONFIG: Config = Config {
        capacity: 5,
        refill: Duration::from_secs(60),
    };

    fn at(seconds: u64) -> Instant {
        Instant::ORIGIN + Duration::from_secs(10_000 + seconds)
    }

    #[test]
    fn a_full_pool_gives_its_capacity_at_once_and_then_one_a_refill() {
        let mut budget = Budget::full(CONFIG);
        for _ in 0..5 {
            assert!(budget.ready_at() <= at(0));
            budget.take(at(0));
        }
        assert_eq!(budget.ready_at(), at(60));
        budget.take(at(60));
        assert_eq!(budget.ready_at(), at(120));
        assert!(budget.available(at(120)) >= 1.0);
    }

    #[test]
    fn it_never_holds_more_than_its_capacity() {
        let mut budget = Budget::full(CONFIG);
        budget.take(at(0));
        assert!((budget.available(at(100_000)) - 5.0).abs() < 1e-9);
    }

    #[test]
    fn nothing_is_refilled_while_a_request_is_under_way() {
        let mut budget = Budget::full(CONFIG);
        budget.take(at(0));
        budget.settle(at(0), at(10));
        assert!((budget.available(at(10)) - 4.0).abs() < 1e-9);
    }

    #[test]
    fn a_429_empties_it_and_holds_it_for_a_refill_or_as_long_as_asked() {
        let mut budget = Budget::full(CONFIG);
        budget.take(at(0));
        budget.rate_limited(at(1), None);
        assert_eq!(budget.ready_at(), at(61));
        budget.take(at(61));
        budget.rate_limited(at(62), Some(Duration::from_secs(200)));
        assert_eq!(budget.ready_at(), at(262));
        assert!(
            budget.available(at(262)) > 3.0,
            "it refills while it may not be asked"
        );
    }

    #[test]
    fn another_size_or_pace_leaves_as_many_missing() {
        let mut budget = Budget::full(CONFIG);
        budget.take(at(0));
        budget.take(at(0));
        let faster = Config {
            capacity: 10,
            refill: Duration::from_secs(6),
        };
        budget.resize(faster, at(30));
        assert!((budget.available(at(30)) - 8.5).abs() < 1e-9);
        let tiny = Config {
            capacity: 1,
            refill: Duration::from_secs(60),
        };
        budget.resize(tiny, at(30));
        assert_eq!(budget.ready_at(), at(90), "no more than all are missing");
        budget.resize(CONFIG, at(1_000));
        assert!((budget.available(at(1_000)) - 5.0).abs() < 1e-9);
    }

    #[test]
    fn what_another_process_booked_holds_but_not_what_it_cannot_have() {
        let mut budget = Budget::full(CONFIG);
        budget.restore(at(120), at(90), at(0));
        assert!((budget.available(at(0)) - 3.0).abs() < 1e-9);
        assert_eq!(budget.ready_at(), at(90));
        budget.restore(at(1), at(1), at(0));
        assert_eq!(budget.ready_at(), at(90), "the later times hold");
        budget.restore(at(9_999_999), at(9_999_999), at(0));
        assert_eq!(budget.ready_at(), at(90), "nobody can have booked that");
    }

    #[test]
    fn what_took_nothing_is_given_back() {
        let mut budget = Budget::full(CONFIG);
        budget.take(at(0));
        budget.give_back();
        assert!((budget.available(at(0)) - 5.0).abs() < 1e-9);
    }
}
