//! The counters that `GET /_simulator/state` returns.

use std::collections::BTreeMap;

use serde::Serialize;

/// All counts since the start, or since the last `POST /_simulator/reset`.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[non_exhaustive]
pub struct State {
    /// Every client, by its id.
    pub clients: BTreeMap<String, ClientState>,
    /// API requests, including refused ones; without token requests and control calls.
    pub requests: u64,
    /// API requests without a valid token.
    pub unauthorized: u64,
    /// Requests to the token endpoint, whatever their result.
    pub token_requests: u64,
    /// Requests to either endpoint that a fault hit.
    pub faulted: u64,
    /// Simulated seconds per second.
    pub speed: f64,
}

/// One client's counters.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
#[non_exhaustive]
pub struct ClientState {
    /// Issued tokens, including those whose response a fault changed.
    pub issued: u64,
    /// Token requests that got 429 because the pool was empty; 429s of a fault do not count.
    pub rate_limited: u64,
    /// Token requests of this client that got 400 or 401.
    pub refused: u64,
    /// Tokens in the pool, fractions included.
    pub pool_available: f64,
    /// Tokens that the API accepts now.
    pub live_tokens: u64,
}
