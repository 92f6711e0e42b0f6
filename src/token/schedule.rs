//! The refresh state machine.

use crate::token::budget;

/// When a client's token is renewed.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Config {
    /// The share of a token's life after which it is renewed; above 0, below 1.
    pub refresh_at: f64,
    /// By what share of that time the renewal is brought forward, at most; 0 to 1.
    pub refresh_jitter: f64,
    /// The issuer's limit, mirrored.
    pub pool: budget::Config,
}
