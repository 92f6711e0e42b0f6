//! The token engine: decides when to request a token, within the issuer's pool, and publishes the
//! one token that every request uses.
//!
//! The decisions are pure, without a clock, a socket or a file: [`renewal`] decides what to do,
//! [`schedule`] when, [`budget`] whether the pool allows it. [`service`] is the loop that carries
//! the decisions out. Requests read the token from [`cache`].
//!
//! Guarantees: the engine never exceeds the mirrored pool and never has two requests in flight for
//! one client. A failure never drops a token that is still valid. There is always a next attempt.

pub mod budget;
pub mod cache;
pub mod ports;
pub mod renewal;
pub mod schedule;
pub mod service;
#[cfg(test)]
mod simulation;
#[expect(
    clippy::module_inception,
    reason = "the token is what this module is about"
)]
pub mod token;
