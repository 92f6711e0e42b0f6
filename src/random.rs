//! Randomness as an argument: the caller passes jitter as a number.

/// A source of numbers in `[0, 1)` that spread delays, so that a fleet does not act in step.
pub trait Jitter: Send + 'static {
    /// Returns the next number, in `[0, 1)`.
    fn next(&mut self) -> f64;
}

/// The thread's pseudo-random generator, seeded from the operating system. Not for secrets.
#[derive(Clone, Copy, Debug, Default)]
pub struct ThreadJitter;

impl Jitter for ThreadJitter {
    #[expect(
        clippy::disallowed_methods,
        reason = "the one place that draws random numbers"
    )]
    fn next(&mut self) -> f64 {
        fastrand::f64()
    }
}

/// Returns a number that identifies a request. Not for secrets: it is guessable.
#[must_use]
#[expect(
    clippy::disallowed_methods,
    reason = "it names something and decides nothing"
)]
pub fn unique() -> u128 {
    fastrand::u128(..)
}
