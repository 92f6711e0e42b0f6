//! Enforces a minimum rate: compares how long a caller makes the proxy wait with how many bytes it
//! moves.
//!
//! Only time in which this proxy waits for the caller counts; time in which it waits for the
//! instance never does. A caller begins with five seconds of credit. Waiting uses it up, and each
//! byte earns the time that it may take at the minimum rate. The credit is at most five minutes:
//! enough for what the systems at both ends buffer. The first byte of a body in chunks may take 30
//! seconds.

use std::num::NonZeroU32;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::time::{Instant, Sleep, sleep_until};

use crate::clock::timers;

/// The initial credit.
const GRACE: Duration = Duration::from_secs(5);

/// The same until the first byte of a body whose length is not known: the caller may have to
/// compute it.
const FIRST_BYTE: Duration = Duration::from_secs(30);

/// The largest credit.
const MOST: Duration = Duration::from_secs(300);

/// The rate of one direction.
#[derive(Debug)]
pub(crate) struct MinRate {
    /// The minimum rate in bytes per second; `None` for any.
    rate: Option<NonZeroU32>,
    /// The remaining credit, counted from `since` if that is set.
    credit: Duration,
    /// When the current wait began.
    since: Option<Instant>,
    timer: Option<Pin<Box<Sleep>>>,
}

impl MinRate {
    /// Returns a direction that must not fall below `rate`.
    pub(crate) fn of(rate: Option<NonZeroU32>) -> MinRate {
        MinRate {
            rate,
            credit: GRACE,
            since: None,
            timer: None,
        }
    }

    /// As [`MinRate::of`], where the first byte may take 30 s.
    pub(crate) fn with_late_start(rate: Option<NonZeroU32>) -> MinRate {
        MinRate {
            credit: FIRST_BYTE,
            ..MinRate::of(rate)
        }
    }

    /// The first byte has come.
    pub(crate) fn starts(&mut self) {
        self.credit = self.credit.min(GRACE);
    }

    /// Starts over.
    pub(crate) fn reset(&mut self) {
        self.credit = GRACE;
        self.since = None;
    }

    /// Records that the caller moved `bytes`.
    pub(crate) fn moved(&mut self, bytes: u64) {
        if let Some(rate) = self.rate {
            let earned = u128::from(bytes) * 1000 / u128::from(rate.get());
            let earned = Duration::from_millis(u64::try_from(earned).unwrap_or(u64::MAX));
            self.credit = self.credit.saturating_add(earned).min(MOST);
        }
    }

    /// Ends the current wait, if any.
    pub(crate) fn resume(&mut self) {
        if let Some(since) = self.since.take() {
            self.credit = self.credit.saturating_sub(timers() - since);
        }
    }

    /// Waits for the caller; ready once its credit is used up.
    pub(crate) fn wait(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if self.rate.is_none() {
            return Poll::Pending;
        }
        let end = *self.since.get_or_insert_with(timers) + self.credit;
        let timer = self.timer.get_or_insert_with(|| Box::pin(sleep_until(end)));
        // an earlier timer is left to fire: most waits end before
        if timer.deadline() > end {
            timer.as_mut().reset(end);
        }
        loop {
            ready!(timer.as_mut().poll(cx));
            if timer.deadline() >= end {
                return Poll::Ready(());
            }
            timer.as_mut().reset(end);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::future::poll_fn;
    use tokio::time::{advance, timeout};

    fn min_rate() -> MinRate {
        MinRate::of(NonZeroU32::new(240))
    }

    /// Waits for the caller for `seconds`; returns whether it is too slow by then.
    async fn waits(min_rate: &mut MinRate, seconds: u64) -> bool {
        let exhausted = poll_fn(|cx| min_rate.wait(cx));
        let slow = timeout(Duration::from_secs(seconds), exhausted).await;
        min_rate.resume();
        slow.is_ok()
    }

    #[tokio::test(start_paused = true)]
    async fn silence_is_borne_for_five_seconds() {
        assert!(!waits(&mut min_rate(), 4).await);
        assert!(waits(&mut min_rate(), 6).await);
    }

    #[tokio::test(start_paused = true)]
    async fn the_first_byte_of_a_body_in_chunks_may_take_thirty_seconds() {
        let late = || MinRate::with_late_start(NonZeroU32::new(240));
        assert!(!waits(&mut late(), 29).await);
        assert!(waits(&mut late(), 31).await);
        let mut min_rate = late();
        assert!(!waits(&mut min_rate, 1).await);
        min_rate.starts();
        assert!(
            waits(&mut min_rate, 6).await,
            "and those that follow as ever"
        );
    }

    #[tokio::test(start_paused = true)]
    async fn a_trickle_below_the_rate_is_ended_and_one_above_it_is_not() {
        let ends = |bytes| async move {
            let mut min_rate = min_rate();
            for second in 0..36_000_u64 {
                if waits(&mut min_rate, 1).await {
                    return Some(second);
                }
                min_rate.moved(bytes);
            }
            None
        };
        assert_eq!(ends(10).await, Some(5));
        assert_eq!(ends(200).await, Some(24));
        assert_eq!(ends(240).await, None);
        assert_eq!(ends(1_000_000).await, None);
    }

    #[tokio::test(start_paused = true)]
    async fn an_hour_in_which_nobody_waits_for_the_caller_does_not_count() {
        let mut min_rate = min_rate();
        for _ in 0..24 {
            assert!(!waits(&mut min_rate, 4).await);
            min_rate.moved(960);
            advance(Duration::from_secs(3600)).await;
        }
    }

    #[tokio::test(start_paused = true)]
    async fn much_at_once_does_not_buy_hours() {
        let mut min_rate = min_rate();
        min_rate.moved(1 << 40);
        assert!(!waits(&mut min_rate, 299).await);
        assert!(waits(&mut min_rate, 2).await);
        min_rate.reset();
        assert!(!waits(&mut min_rate, 4).await);
    }

    #[tokio::test(start_paused = true)]
    async fn without_a_rate_nobody_is_slow() {
        let mut min_rate = MinRate::of(None);
        assert!(!waits(&mut min_rate, 1_000_000).await);
    }
}
