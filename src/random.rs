//! Randomness as an argument: jitter is a number that the caller hands in.

/// A source of numbers in `[0, 1)`, by which delays are spread so that a fleet does not move in
/// step.
pub trait Jitter: Send + 'static {
    /// The next number, in `[0, 1)`.
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

/// A number that no other call gives, for telling requests apart. Not for secrets: it can be
/// guessed.
#[must_use]
#[expect(
    clippy::disallowed_methods,
    reason = "it names something and decides nothing"
)]
pub fn unique() -> u128 {
    fastrand::u128(..)
}
