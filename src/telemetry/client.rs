//! The numbers of one client: its token, its pool, its requests.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use prometheus::{Gauge, Histogram, IntCounter, IntGauge};

use super::app::AppMetrics;
use super::counts::Counts;
use super::families::Families;
use super::requests::MethodLabel;

/// The outcomes of a token request.
const OUTCOMES: [&str; 9] = [
    "ok",
    "rate_limited",
    "invalid_client",
    "invalid_request",
    "timeout",
    "connect",
    "connection_lost",
    "server_error",
    "malformed",
];

/// What fails on the way to the API.
const UPSTREAM_ERRORS: [&str; 6] = ["dns", "connect", "tls", "reset", "timeout", "protocol"];

/// What became of requests that the API answered with 401.
const REPLAYS: [&str; 4] = ["ok", "unauthorized", "too_large", "no_token"];

/// The metrics with one client's name on them, found once.
#[derive(Debug)]
pub struct ClientMetrics {
    token_usable: IntGauge,
    token_expiry: Gauge,
    token_issued: Gauge,
    token_generation: Gauge,
    token_requests: Counts,
    token_rejected: IntCounter,
    replays: Counts,
    token_request_duration: Histogram,
    token_pool_available: Gauge,
    token_pool_capacity: IntGauge,
    name: String,
    answered: AtomicU64,
    upstream_errors: Counts,
    connections_made: IntCounter,
    connections_reused: IntCounter,
    connections_failed: IntCounter,
    request_duration: Histogram,
    upstream_duration: Histogram,
    requests_in_flight: IntGauge,
}

/// A token's place and life, as it is shown: by the wall clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TokenTimes {
    /// Which token of this client it is, counted from 1.
    pub generation: u64,
    /// When it was asked for.
    pub issued: SystemTime,
    /// When it ends.
    pub expires: SystemTime,
}

/// One request under way; dropping it ends the request.
#[derive(Debug)]
#[must_use = "the request is counted for as long as this is held"]
pub struct InFlight(IntGauge);

impl ClientMetrics {
    pub(super) fn new(families: &Families, client: &str) -> ClientMetrics {
        let label = &[client];
        let connections = |outcome: &str| {
            let family = &families.upstream_connections;
            family.with_label_values(&[client, outcome])
        };
        ClientMetrics {
            token_usable: families.token_usable.with_label_values(label),
            token_expiry: families.token_expiry.with_label_values(label),
            token_issued: families.token_issued.with_label_values(label),
            token_generation: families.token_generation.with_label_values(label),
            token_requests: Counts::new(&families.token_requests, client, &OUTCOMES),
            token_rejected: families.token_rejected.with_label_values(label),
            replays: Counts::new(&families.replays, client, &REPLAYS),
            token_request_duration: families.token_request_duration.with_label_values(label),
            token_pool_available: families.token_pool_available.with_label_values(label),
            token_pool_capacity: families.token_pool_capacity.with_label_values(label),
            name: client.to_owned(),
            answered: AtomicU64::new(0),
            upstream_errors: Counts::new(&families.upstream_errors, client, &UPSTREAM_ERRORS),
            connections_made: connections("made"),
            connections_reused: connections("reused"),
            connections_failed: connections("failed"),
            request_duration: families.request_duration.with_label_values(label),
            upstream_duration: families.upstream_duration.with_label_values(label),
            requests_in_flight: families.requests_in_flight.with_label_values(label),
        }
    }

    /// A request of `app` was answered with the status `code`: `duration` after its head, of
    /// which Collibra took `upstream` to begin its answer, if it was asked. Takes no lock and
    /// formats nothing once a method and status have been seen.
    pub fn request(
        &self,
        app: &AppMetrics,
        method: MethodLabel,
        code: u16,
        duration: Duration,
        upstream: Option<Duration>,
    ) {
        app.count(&self.name, method, code);
        self.answered.fetch_add(1, Ordering::Relaxed);
        self.request_duration.observe(duration.as_secs_f64());
        if let Some(upstream) = upstream {
            self.upstream_duration.observe(upstream.as_secs_f64());
        }
    }

    /// A request begins; it is under way until the guard is dropped.
    pub fn in_flight(&self) -> InFlight {
        self.requests_in_flight.inc();
        InFlight(self.requests_in_flight.clone())
    }

    /// A token request ended as `outcome` (`ok` or the label of a failure) after `took`.
    pub fn token_request(&self, outcome: &'static str, took: Duration) {
        self.token_requests.count(outcome);
        self.token_request_duration.observe(took.as_secs_f64());
    }

    /// A call failed on the way to the API or at it; `kind` is a value of the label.
    pub fn upstream_error(&self, kind: &'static str) {
        self.upstream_errors.count(kind);
    }

    /// A request got a connection to the API, a reused one or a new one, or `None`.
    pub fn upstream_connection(&self, is_reused: Option<bool>) {
        match is_reused {
            Some(true) => self.connections_reused.inc(),
            Some(false) => self.connections_made.inc(),
            None => self.connections_failed.inc(),
        }
    }

    /// The API answered 401 to a request with the client's token.
    pub fn token_rejected(&self) {
        self.token_rejected.inc();
    }

    /// What became of such a request: sent again and answered otherwise (`ok`) or with 401 again
    /// (`unauthorized`); or not sent again, for want of its body (`too_large`) or of another token
    /// (`no_token`).
    pub fn replay(&self, outcome: &'static str) {
        self.replays.count(outcome);
    }

    /// What the client holds at this moment. Call it for each scrape: a token dies without an
    /// event.
    pub fn token(&self, usable: bool, held: Option<TokenTimes>) {
        self.token_usable.set(i64::from(usable));
        #[expect(clippy::cast_precision_loss, reason = "no client sees 2^53 tokens")]
        self.token_generation
            .set(held.map_or(0.0, |token| token.generation as f64));
        self.token_issued
            .set(held.map_or(0.0, |token| unix_seconds(token.issued)));
        self.token_expiry
            .set(held.map_or(0.0, |token| unix_seconds(token.expires)));
    }

    /// The level of the client's pool at this moment, in tokens, and its size.
    pub fn pool(&self, available: f64, capacity: u32) {
        self.token_pool_available.set(available);
        self.token_pool_capacity.set(i64::from(capacity));
    }

    /// How many requests were answered since the start.
    #[must_use]
    pub fn requests_total(&self) -> u64 {
        self.answered.load(Ordering::Relaxed)
    }

    /// How many requests are under way.
    #[must_use]
    pub fn requests_in_flight(&self) -> u64 {
        u64::try_from(self.requests_in_flight.get()).unwrap_or(0)
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.dec();
    }
}

/// To the millisecond: the wall-clock time of a moment is reckoned anew for each scrape, and would
/// tremble in every one if it were told more finely.
pub(super) fn unix_seconds(at: SystemTime) -> f64 {
    at.duration_since(SystemTime::UNIX_EPOCH)
        .map_or(0.0, |since| (since.as_secs_f64() * 1e3).round() / 1e3)
}
