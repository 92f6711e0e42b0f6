//! An app's limits: requests per second and concurrent requests. Each app has its own, so that none
//! affects another. Lock-free; the time is an argument.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use crate::clock::Instant;

/// The limits of an app.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Limits {
    /// Requests per second, above 0. A second's worth may come at once.
    pub requests_per_second: Option<f64>,
    /// Concurrent requests, above 0.
    pub max_in_flight: Option<usize>,
}

/// The limit that was exceeded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exceeded {
    /// `requests_per_second`; the next request is admitted after this time.
    Rate(Duration),
    /// `max_in_flight`.
    InFlight,
}

/// Counts an app's requests against its limits.
#[derive(Debug)]
pub(crate) struct Limiter {
    limits: Limits,
    /// When the next request would be due at an even rate (GCRA), in nanoseconds of the clock.
    due: AtomicU64,
    in_flight: AtomicUsize,
}

/// An admitted request; dropping it ends it.
#[derive(Debug)]
pub(crate) struct Admitted(Arc<Limiter>);

impl Limiter {
    pub(crate) fn new(limits: Limits) -> Limiter {
        Limiter {
            limits,
            due: AtomicU64::new(0),
            in_flight: AtomicUsize::new(0),
        }
    }

    /// Returns a limit of `rate` requests per second, without one of concurrent requests.
    pub(crate) fn per_second(rate: f64) -> Limiter {
        Limiter::new(Limits {
            requests_per_second: Some(rate),
            max_in_flight: None,
        })
    }

    /// The limits.
    pub(crate) fn limits(&self) -> Limits {
        self.limits
    }

    /// Admits a request at `now`, or returns the limit that it exceeds.
    pub(crate) fn admit(self: &Arc<Self>, now: Instant) -> Result<Admitted, Exceeded> {
        let before = self.in_flight.fetch_add(1, Ordering::Relaxed);
        // counted from here on; released on drop
        let admitted = Admitted(Arc::clone(self));
        if self.limits.max_in_flight.is_some_and(|most| before >= most) {
            return Err(Exceeded::InFlight);
        }
        match self.limits.requests_per_second {
            Some(rate) => self.draw(now, rate).map(|()| admitted),
            None => Ok(admitted),
        }
    }

    fn draw(&self, now: Instant, rate: f64) -> Result<(), Exceeded> {
        let interval = nanos(Duration::from_secs_f64(1.0 / rate));
        // a second's worth may come at once, and always at least one
        let tolerance = nanos(Duration::from_secs(1)).max(interval);
        let now = nanos(now.since(Instant::ORIGIN));
        let mut due = self.due.load(Ordering::Relaxed);
        loop {
            let next = due.max(now) + interval;
            let ahead = next - now;
            if ahead > tolerance {
                return Err(Exceeded::Rate(Duration::from_nanos(ahead - tolerance)));
            }
            let swapped =
                self.due
                    .compare_exchange_weak(due, next, Ordering::Relaxed, Ordering::Relaxed);
            match swapped {
                Ok(_) => return Ok(()),
                Err(other) => due = other,
            }
        }
    }
}

impl Drop for Admitted {
    fn drop(&mut self) {
        self.0.in_flight.fetch_sub(1, Ordering::Relaxed);
    }
}

fn nanos(span: Duration) -> u64 {
    u64::try_from(span.as_nanos()).unwrap_or(u64::MAX / 4)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limiter(requests_per_second: Option<f64>, max_in_flight: Option<usize>) -> Arc<Limiter> {
        Arc::new(Limiter::new(Limits {
            requests_per_second,
            max_in_flight,
        }))
    }

    fn at(millis: u64) -> Instant {
        Instant::ORIGIN + Duration::from_secs(1_000) + Duration::from_millis(millis)
    }

    #[test]
    fn without_limits_all_pass() {
        let limiter = limiter(None, None);
        let admitted: Vec<_> = (0..1_000).map(|_| limiter.admit(at(0)).unwrap()).collect();
        assert_eq!(admitted.len(), 1_000);
    }

    #[test]
    fn a_seconds_worth_may_come_at_once_and_no_more() {
        let limiter = limiter(Some(50.0), None);
        for _ in 0..50 {
            limiter.admit(at(0)).unwrap();
        }
        let wait = Exceeded::Rate(Duration::from_millis(20));
        assert_eq!(limiter.admit(at(0)).unwrap_err(), wait);
        limiter.admit(at(20)).unwrap();
        assert!(limiter.admit(at(20)).is_err());
    }

    #[test]
    fn over_an_hour_it_is_the_rate_however_they_come() {
        let limiter = limiter(Some(2.0), None);
        let hour = 3_600_000;
        let passed = (0..hour)
            .step_by(10)
            .filter(|&ms| limiter.admit(at(ms)).is_ok());
        let passed = passed.count();
        assert!((7_200..=7_202).contains(&passed), "{passed}");
    }

    #[test]
    fn below_one_a_second_one_is_let_through_at_a_time() {
        let limiter = limiter(Some(0.1), None);
        limiter.admit(at(0)).unwrap();
        let wait = Exceeded::Rate(Duration::from_secs(9));
        assert_eq!(limiter.admit(at(1_000)).unwrap_err(), wait);
        limiter.admit(at(10_000)).unwrap();
    }

    #[test]
    fn what_is_under_way_counts_until_it_ends() {
        let limiter = limiter(None, Some(2));
        let first = limiter.admit(at(0)).unwrap();
        let _second = limiter.admit(at(0)).unwrap();
        assert_eq!(limiter.admit(at(0)).unwrap_err(), Exceeded::InFlight);
        drop(first);
        limiter.admit(at(0)).unwrap();
    }

    #[test]
    fn a_request_that_is_refused_draws_nothing() {
        let limiter = limiter(Some(1.0), Some(1));
        let first = limiter.admit(at(0)).unwrap();
        assert_eq!(limiter.admit(at(5_000)).unwrap_err(), Exceeded::InFlight);
        drop(first);
        limiter.admit(at(5_000)).unwrap();
    }
}
