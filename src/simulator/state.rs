//! What the simulator tells of itself at `GET /_simulator/state`.

use std::collections::BTreeMap;

use serde::Serialize;

/// Everything counted since the start, or since the last `POST /_simulator/reset`.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[non_exhaustive]
pub struct State {
    /// Every client, by its identifier.
    pub clients: BTreeMap<String, ClientState>,
    /// Requests to the API, those that were refused included; no token requests, no control calls.
    pub requests: u64,
    /// Requests to the API that carried no live token.
    pub unauthorized: u64,
    /// Requests to the token endpoint, whatever became of them.
    pub token_requests: u64,
    /// Requests, to either endpoint, that a fault fell upon.
    pub faulted: u64,
    /// Simulated seconds a second.
    pub speed: f64,
}

/// One client's part of [`State`].
#[derive(Clone, Debug, PartialEq, Serialize)]
#[non_exhaustive]
pub struct ClientState {
    /// Tokens given out; a token whose answer a fault then spoiled counts.
    pub issued: u64,
    /// Token requests answered 429 because the pool was empty; 429s made by a fault do not count.
    pub rate_limited: u64,
    /// Token requests in this client's name answered 400 or 401.
    pub refused: u64,
    /// Tokens in the pool, fractions included.
    pub pool_available: f64,
    /// Tokens that the API accepts now.
    pub live_tokens: u64,
}
