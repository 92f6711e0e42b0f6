//! The token engine: when to ask for a token, whether the pool allows it, and the one token that
//! every request takes.
//!
//! Pure where it decides: [`renewal`] says what to do, [`schedule`] when, [`budget`] whether the
//! pool allows it, and none of them has a clock, a socket or a file. The loop that carries the
//! decisions out is [`service`]; what it publishes is read from [`cache`].
//!
//! Promises: never more requests than the mirrored pool allows; never two at once for one client;
//! a token that is still good is kept whatever fails; there is always a next attempt.

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
