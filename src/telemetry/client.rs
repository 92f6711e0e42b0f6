//! The metrics of a client's token and of the requests waiting for it.

use std::collections::VecDeque;
use std::sync::Mutex;
use std::time::{Duration, SystemTime};

use prometheus::{Histogram, IntCounter, IntCounterVec, IntGauge};

use super::families::Families;
use super::held::Held;
use super::label::Label;
use super::lock;

/// The outcome of a successful token request.
const OK: &str = "ok";

/// The metrics with a client's name, looked up once.
#[derive(Debug)]
pub struct ClientMetrics {
    name: String,
    token_requests: IntCounterVec,
    token_request_duration: Histogram,
    token_rejected: IntCounter,
    token_waiters: IntGauge,
    replays: IntCounterVec,
    upstream_errors: IntCounterVec,
    connections_made: IntCounter,
    connections_reused: IntCounter,
    connections_failed: IntCounter,
    /// The last token requests, latest last.
    log: Mutex<VecDeque<TokenRequest>>,
}

/// A completed token request.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct TokenRequest {
    /// When it ended.
    pub at: SystemTime,
    /// Its outcome: a value of the label `outcome` of `token_requests_total`.
    pub outcome: &'static str,
    /// How long it took.
    pub took: Duration,
}

/// The number of token requests that are kept.
const KEPT: usize = 20;

impl ClientMetrics {
    pub(super) fn new(families: &Families, client: &str) -> ClientMetrics {
        let label = &[client];
        let connections = |outcome: &str| {
            let family = &families.upstream_connections;
            family.with_label_values(&[client, outcome])
        };
        ClientMetrics {
            name: client.to_owned(),
            token_requests: families.token_requests.clone(),
            token_request_duration: families.token_request_duration.with_label_values(label),
            token_rejected: families.token_rejected.with_label_values(label),
            token_waiters: families.token_waiters.with_label_values(label),
            replays: families.replays.clone(),
            upstream_errors: families.upstream_errors.clone(),
            connections_made: connections("made"),
            connections_reused: connections("reused"),
            connections_failed: connections("failed"),
            log: Mutex::default(),
        }
    }

    /// Creates the series of every token request failure, replay outcome and API error at zero.
    pub fn declare<Failure: Label, Replay: Label, Upstream: Label>(&self) {
        self.of(&self.token_requests, OK);
        for failure in Failure::ALL {
            self.of(&self.token_requests, failure.label());
        }
        for outcome in Replay::ALL {
            self.of(&self.replays, outcome.label());
        }
        for kind in Upstream::ALL {
            self.of(&self.upstream_errors, kind.label());
        }
    }

    /// The client's counter in `family` with this second label.
    fn of(&self, family: &IntCounterVec, label: &str) -> IntCounter {
        family.with_label_values(&[&*self.name, label])
    }

    /// Records a token request that ended `at` after this duration, with a token or a failure.
    pub fn token_request(&self, outcome: Result<(), impl Label>, took: Duration, at: SystemTime) {
        let outcome = outcome.map_or_else(Label::label, |()| OK);
        self.of(&self.token_requests, outcome).inc();
        self.token_request_duration.observe(took.as_secs_f64());
        let mut log = lock(&self.log);
        if log.len() == KEPT {
            log.pop_front();
        }
        log.push_back(TokenRequest { at, outcome, took });
    }

    /// The number of tokens received since the start.
    #[must_use]
    pub fn tokens_total(&self) -> u64 {
        self.of(&self.token_requests, OK).get()
    }

    /// The last token requests, at most twenty, latest first.
    #[must_use]
    pub fn last_token_requests(&self) -> Vec<TokenRequest> {
        lock(&self.log).iter().rev().copied().collect()
    }

    /// Records a call that failed on the way to the API or at it.
    pub fn upstream_error(&self, kind: impl Label) {
        self.of(&self.upstream_errors, kind.label()).inc();
    }

    /// Records how a request got its connection: reused, new, or failed (`None`).
    pub fn upstream_connection(&self, is_reused: Option<bool>) {
        match is_reused {
            Some(true) => self.connections_reused.inc(),
            Some(false) => self.connections_made.inc(),
            None => self.connections_failed.inc(),
        }
    }

    /// Records that the API answered 401 to a request with the client's token.
    pub fn token_rejected(&self) {
        self.token_rejected.inc();
    }

    /// The number of 401 responses to requests with the client's token since the start.
    #[must_use]
    pub fn token_rejected_total(&self) -> u64 {
        self.token_rejected.get()
    }

    /// Records the outcome of a replay after such a 401.
    pub fn replay(&self, outcome: impl Label) {
        self.of(&self.replays, outcome.label()).inc();
    }

    /// Records a request that waits for a token until the guard is dropped.
    pub fn waits(&self) -> Held {
        Held::by(&self.token_waiters)
    }
}
