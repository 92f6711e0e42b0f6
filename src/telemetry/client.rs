//! The numbers of one client's token and of those who wait for it.

use std::time::Duration;

use prometheus::{Histogram, IntCounter, IntCounterVec, IntGauge};

use super::families::Families;
use super::label::Label;

/// The outcome of a token request that brought a token.
const OK: &str = "ok";

/// The metrics with one client's name on them, found once.
#[derive(Debug)]
pub struct ClientMetrics {
    name: String,
    token_requests: IntCounterVec,
    token_request_duration: Histogram,
    token_rejected: IntCounter,
    token_waiters: IntGauge,
    replays: IntCounterVec,
}

/// One request that waits for a token; dropping it ends the wait.
#[derive(Debug)]
#[must_use = "the wait is counted for as long as this is held"]
pub struct Waiting(IntGauge);

impl ClientMetrics {
    pub(super) fn new(families: &Families, client: &str) -> ClientMetrics {
        let label = &[client];
        ClientMetrics {
            name: client.to_owned(),
            token_requests: families.token_requests.clone(),
            token_request_duration: families.token_request_duration.with_label_values(label),
            token_rejected: families.token_rejected.with_label_values(label),
            token_waiters: families.token_waiters.with_label_values(label),
            replays: families.replays.clone(),
        }
    }

    /// Shows every failure of a token request and every outcome of a replay, at zero until the
    /// first.
    pub fn declare<Failure: Label, Replay: Label>(&self) {
        let failures = Failure::ALL.iter().map(|failure| failure.label());
        for outcome in failures.chain([OK]) {
            self.token_requests
                .with_label_values(&[self.name.as_str(), outcome]);
        }
        for outcome in Replay::ALL {
            self.replays
                .with_label_values(&[self.name.as_str(), outcome.label()]);
        }
    }

    /// A token request ended after `took`: with a token, or with a failure.
    pub fn token_request(&self, outcome: Result<(), impl Label>, took: Duration) {
        let outcome = outcome.map_or_else(Label::label, |()| OK);
        self.token_requests
            .with_label_values(&[self.name.as_str(), outcome])
            .inc();
        self.token_request_duration.observe(took.as_secs_f64());
    }

    /// The API answered 401 to a request with the client's token.
    pub fn token_rejected(&self) {
        self.token_rejected.inc();
    }

    /// How the replay of such a request ended.
    pub fn replay(&self, outcome: impl Label) {
        self.replays
            .with_label_values(&[self.name.as_str(), outcome.label()])
            .inc();
    }

    /// A request waits for a token until the guard is dropped.
    pub fn waits(&self) -> Waiting {
        self.token_waiters.inc();
        Waiting(self.token_waiters.clone())
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        self.0.dec();
    }
}
