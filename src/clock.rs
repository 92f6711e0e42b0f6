//! Time as an argument: a monotonic [`Instant`] that includes suspends, and the [`Clock`] that
//! reads it.
//!
//! A token's lifetime is counted by its issuer, which does not sleep when this machine does. The
//! standard library's `Instant` stops during a suspend on Linux, so an expiry based on it would be
//! late by the time the machine slept.

use std::fmt;
use std::ops::{Add, Sub};
#[cfg(any(target_os = "linux", target_os = "android"))]
use std::os::fd::OwnedFd;
use std::pin::Pin;
use std::time::{Duration, SystemTime};

#[cfg(any(target_os = "linux", target_os = "android"))]
use tokio::io::{Interest, unix::AsyncFd};

/// A moment on the monotonic clock, counted from an arbitrary origin, suspends included.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Instant(Duration);

impl Instant {
    /// The clock's origin.
    pub const ORIGIN: Instant = Instant(Duration::ZERO);

    /// The time from `earlier` to this moment; zero if `earlier` is later.
    #[must_use]
    pub fn since(self, earlier: Instant) -> Duration {
        self.0.saturating_sub(earlier.0)
    }
}

/// The whole milliseconds of `span`.
#[must_use]
pub fn millis(span: Duration) -> u64 {
    u64::try_from(span.as_millis()).unwrap_or(u64::MAX)
}

impl Add<Duration> for Instant {
    type Output = Instant;

    fn add(self, span: Duration) -> Instant {
        Instant(self.0.saturating_add(span))
    }
}

impl Sub<Duration> for Instant {
    type Output = Instant;

    fn sub(self, span: Duration) -> Instant {
        Instant(self.0.saturating_sub(span))
    }
}

/// How far the origin lies before boot. A stored token may have been requested before this machine
/// booted, and that moment must be representable.
const BEFORE_BOOT: Duration = Duration::from_secs(7 * 24 * 3600);

/// The longest wait by a timer that a suspend stops.
pub(crate) const SLICE: Duration = Duration::from_secs(1);

/// A wait, as [`Clock::sleep_until`] returns it.
pub type Sleep = Pin<Box<dyn Future<Output = ()> + Send>>;

/// A source of time.
pub trait Clock: fmt::Debug + Send + Sync + 'static {
    /// Reads the monotonic clock.
    fn now(&self) -> Instant;

    /// Reads the wall clock, for display and storage; it may step.
    fn wall(&self) -> SystemTime;

    /// Waits until `at` or shorter: read the clock again afterwards. Tokio's timers stop while the
    /// machine is suspended and this clock does not, so a wait is cut into slices of a second.
    fn sleep_until(&self, at: Instant) -> Sleep {
        Box::pin(tokio::time::sleep(at.since(self.now()).min(SLICE)))
    }

    /// Converts `at` to wall-clock time, as currently known.
    fn wall_at(&self, at: Instant) -> SystemTime {
        let now = self.now();
        // one of the two is zero
        self.wall() + at.since(now) - now.since(at)
    }
}

/// The machine's clock.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    fn now(&self) -> Instant {
        #[cfg(any(target_os = "linux", target_os = "android"))]
        const CONTINUOUS: rustix::time::ClockId = rustix::time::ClockId::Boottime;
        // elsewhere (macOS, the BSDs) the monotonic clock already includes suspends
        #[cfg(not(any(target_os = "linux", target_os = "android")))]
        const CONTINUOUS: rustix::time::ClockId = rustix::time::ClockId::Monotonic;

        let since_boot = Duration::try_from(rustix::time::clock_gettime(CONTINUOUS));
        Instant(BEFORE_BOOT + since_boot.unwrap_or_default())
    }

    #[expect(
        clippy::disallowed_methods,
        reason = "the one place that reads the wall clock"
    )]
    fn wall(&self) -> SystemTime {
        SystemTime::now()
    }

    /// Uses a kernel timer that counts suspends, so that an idle process is not woken early.
    #[cfg(any(target_os = "linux", target_os = "android"))]
    fn sleep_until(&self, at: Instant) -> Sleep {
        let left = at.since(self.now());
        Box::pin(async move {
            let expired = match alarm(left) {
                Ok(timer) => timer.readable().await.map(drop),
                Err(error) => Err(error),
            };
            if expired.is_err() {
                tokio::time::sleep(left.min(SLICE)).await;
            }
        })
    }
}

/// Returns a timer that becomes readable after `left`, suspends included.
#[cfg(any(target_os = "linux", target_os = "android"))]
#[expect(
    deprecated,
    reason = "an OwnedFd keeps its descriptor open; the replacement is unsafe for all others"
)]
fn alarm(left: Duration) -> std::io::Result<AsyncFd<OwnedFd>> {
    use rustix::time::{
        Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create,
        timerfd_settime,
    };
    let flags = TimerfdFlags::CLOEXEC | TimerfdFlags::NONBLOCK;
    let timer = timerfd_create(TimerfdClockId::Boottime, flags)?;
    // zero would disarm it
    let left = left.max(Duration::from_nanos(1));
    let once = Itimerspec {
        it_interval: Timespec::default(),
        it_value: Timespec::try_from(left).map_err(std::io::Error::other)?,
    };
    timerfd_settime(&timer, TimerfdTimerFlags::empty(), &once)?;
    AsyncFd::with_interest(timer, Interest::READABLE)
}

/// The current time of tokio's timers, which stop while the machine is suspended. Use it for
/// deadlines of connections: a peer is not to blame for a closed lid.
#[expect(
    clippy::disallowed_methods,
    reason = "the one place that reads the clock of timers"
)]
#[must_use]
pub fn timers() -> tokio::time::Instant {
    tokio::time::Instant::now()
}

/// Tokio's clock, which tests can pause and advance.
#[cfg(test)]
#[derive(Clone, Copy, Debug)]
pub(crate) struct TokioClock(tokio::time::Instant);

#[cfg(test)]
impl TokioClock {
    #[expect(
        clippy::disallowed_methods,
        reason = "reads the paused clock of a test's runtime"
    )]
    pub(crate) fn start() -> TokioClock {
        TokioClock(tokio::time::Instant::now())
    }
}

#[cfg(test)]
impl Clock for TokioClock {
    fn now(&self) -> Instant {
        Instant(self.0.elapsed())
    }

    fn wall(&self) -> SystemTime {
        SystemTime::UNIX_EPOCH + self.0.elapsed()
    }
}

/// A clock that only moves when told to, for tests with real sockets, where Tokio's paused clock
/// would advance on its own.
#[cfg(test)]
#[derive(Clone, Debug)]
pub(crate) struct ManualClock {
    started: SystemTime,
    passed: std::sync::Arc<std::sync::Mutex<Duration>>,
}

#[cfg(test)]
impl ManualClock {
    pub(crate) fn at(wall: SystemTime) -> ManualClock {
        ManualClock {
            started: wall,
            passed: std::sync::Arc::default(),
        }
    }

    pub(crate) fn advance(&self, span: Duration) {
        *self.passed.lock().unwrap() += span;
    }
}

#[cfg(test)]
impl Clock for ManualClock {
    fn now(&self) -> Instant {
        Instant::ORIGIN + Duration::from_secs(1_000) + *self.passed.lock().unwrap()
    }

    fn wall(&self) -> SystemTime {
        self.started + *self.passed.lock().unwrap()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_machines_clock_wakes_a_sleeper_at_its_time() {
        for millis in [0, 30] {
            let at = SystemClock.now() + Duration::from_millis(millis);
            SystemClock.sleep_until(at).await;
            assert!(SystemClock.now() >= at);
        }
    }

    #[test]
    fn the_system_clock_goes_forward() {
        let first = SystemClock.now();
        assert!(first > Instant::ORIGIN);
        assert!(SystemClock.now() >= first);
    }

    #[test]
    fn differences_never_go_below_zero() {
        let at = Instant::ORIGIN + Duration::from_secs(5);
        assert_eq!(at.since(at + Duration::from_secs(1)), Duration::ZERO);
        assert_eq!(at - Duration::from_secs(9), Instant::ORIGIN);
    }

    #[test]
    fn wall_time_of_a_moment_follows_the_distance_from_now() {
        let clock = SystemClock;
        let soon = clock.wall_at(clock.now() + Duration::from_secs(60));
        let left = soon.duration_since(clock.wall()).unwrap();
        assert!(left <= Duration::from_secs(60) && left > Duration::from_secs(59));
    }
}
