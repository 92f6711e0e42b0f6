//! Time and randomness of a simulated fleet: Tokio's paused clock, which jumps to the next event,
//! and seeded random numbers.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use collibra_auth_proxy::clock::{Clock, Instant, Sleep};
use collibra_auth_proxy::random::Jitter;

/// Tokio's clock. Its timers follow it, because this machine is never suspended.
#[derive(Clone, Copy, Debug)]
pub(super) struct VirtualClock(tokio::time::Instant);

impl VirtualClock {
    #[expect(
        clippy::disallowed_methods,
        reason = "reads the paused clock of the simulation's runtime"
    )]
    pub(super) fn start() -> VirtualClock {
        VirtualClock(tokio::time::Instant::now())
    }

    /// How long the simulation has run.
    pub(super) fn passed(&self) -> Duration {
        self.0.elapsed()
    }
}

impl Clock for VirtualClock {
    fn now(&self) -> Instant {
        Instant::ORIGIN + Duration::from_secs(1_000_000) + self.passed()
    }

    fn wall(&self) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000) + self.passed()
    }

    fn sleep_until(&self, at: Instant) -> Sleep {
        Box::pin(tokio::time::sleep(at.since(self.now())))
    }
}

/// A repeatable random generator.
#[derive(Debug)]
pub(super) struct Numbers(Mutex<fastrand::Rng>);

impl Numbers {
    pub(super) fn of(seed: u64) -> Numbers {
        Numbers(Mutex::new(fastrand::Rng::with_seed(seed)))
    }

    /// A random time between `from` and `to`.
    pub(super) fn between(&self, from: Duration, to: Duration) -> Duration {
        from + (to - from).mul_f64(locked(&self.0).f64())
    }

    /// A seed for another generator.
    pub(super) fn seed(&self) -> u64 {
        locked(&self.0).u64(..)
    }
}

/// The jitter of one proxy.
#[derive(Debug)]
pub(super) struct Seeded(pub(super) fastrand::Rng);

impl Jitter for Seeded {
    fn next(&mut self) -> f64 {
        self.0.f64()
    }
}

pub(super) fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
