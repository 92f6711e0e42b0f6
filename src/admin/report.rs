//! The response of `GET /api/status`, a stable form for programs: fields are added, never changed
//! or removed.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// The state of the proxy. Times are RFC 3339 in UTC, to the second; durations whole seconds.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct StatusReport {
    /// This program's version.
    pub version: String,
    /// When this report was made, by the proxy's clock.
    #[serde(default)]
    pub at: Timestamp,
    /// When the process started.
    pub started: Timestamp,
    /// How long it has been running.
    pub uptime_seconds: u64,
    /// Whether every client holds a usable token and the process is not draining.
    pub ready: bool,
    /// Whether the process is draining: it finishes requests in flight and then exits.
    pub draining: bool,
    /// The last configuration that was read, if it was refused; null otherwise.
    pub refused_configuration: Option<RefusedReport>,
    /// The clients, in the order of the configuration.
    pub clients: Vec<ClientReport>,
    /// The apps, ordered by name; if there are none, callers need not authenticate.
    #[serde(default)]
    pub apps: Vec<AppReport>,
    /// The listeners, in the order of the configuration.
    pub listeners: Vec<ListenerReport>,
    /// The certificates of listeners and instances.
    #[serde(default)]
    pub certificates: Vec<CertificateReport>,
}

/// A refused configuration; the one before stays in force.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RefusedReport {
    /// When the first faulty configuration was refused.
    pub since: Timestamp,
    /// Seconds since then.
    pub seconds_ago: u64,
    /// Its faults, each with what to write instead.
    pub faults: Vec<String>,
}

/// One client.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ClientReport {
    /// The client's name in the configuration.
    pub name: String,
    /// The URL of its instance.
    pub instance: String,
    /// Its identifier at Collibra.
    pub client_id: String,
    /// The last token, usable or not; null if there never was one.
    pub token: Option<TokenReport>,
    /// The next token request.
    pub next: NextReport,
    /// The last failure; null if the last attempt succeeded.
    pub failure: Option<FailureReport>,
    /// The issuer's pool, as mirrored here.
    pub pool: PoolReport,
    /// The requests of its apps.
    pub requests: RequestsReport,
    /// The store of the token; null from a version without this field.
    pub store: Option<StoreReport>,
    /// The last token requests, latest first, at most twenty.
    #[serde(default)]
    pub token_requests: Vec<TokenRequestReport>,
    /// The API's health, from the calls of all clients of the instance; null from a version without
    /// this field.
    pub api: Option<ApiReport>,
}

/// The health of an instance's API in the last five minutes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ApiReport {
    /// Calls that got a response, of any status.
    pub answered: u64,
    /// Calls that failed to reach the instance, or whose response broke off.
    pub failed: u64,
    /// When the current outage began; null if there is none.
    pub failing_since: Option<Timestamp>,
    /// How long the outage has lasted; null if there is none.
    pub failing_seconds: Option<u64>,
    /// The last failure since the start; null if there was none.
    pub last_failure: Option<ApiFailureReport>,
}

/// A failed call.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ApiFailureReport {
    /// What failed: a value of the label `kind` of the metric `upstream_errors_total`.
    pub kind: String,
    /// Why, and what to do.
    pub message: String,
    /// When it failed.
    pub at: Timestamp,
    /// How long ago it failed.
    pub seconds_ago: u64,
}

impl ApiReport {
    /// The share of calls that failed, in percent, like `12.5 %`; `None` if there were no calls.
    #[must_use]
    pub fn failed_share(&self) -> Option<String> {
        let all = self.answered + self.failed;
        #[expect(
            clippy::cast_precision_loss,
            reason = "a share to the tenth of a percent"
        )]
        (all > 0).then(|| format!("{:.1} %", self.failed as f64 * 100.0 / all as f64))
    }
}

/// The store of a client's token.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct StoreReport {
    /// Its kind, by its name in the configuration.
    pub kind: String,
    /// Why it is unavailable and what to do; null while it works.
    pub problem: Option<String>,
    /// How long the last operation took that a store of this kind answered; null before the first.
    pub latency_milliseconds: Option<f64>,
    /// How many proxies share the client, including this one, as the store last reported; null if
    /// replicas do not share the store, or before it is first reached.
    pub replicas: Option<u32>,
}

/// A token, without the token.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct TokenReport {
    /// Whether it is usable now; this ends shortly before `expires`.
    pub usable: bool,
    /// Whether the API rejected it (401), so that requests wait for the next one.
    pub rejected: bool,
    /// Whether the API rejects it for all callers, so that the process is not ready.
    pub revoked: bool,
    /// The identifier of the client that it was issued to. After a change of credentials it differs
    /// from the client's own until the new client's first token arrives.
    pub client_id: String,
    /// The generation: the client's tokens are numbered from 1.
    pub generation: u64,
    /// When it was requested.
    pub issued: Timestamp,
    /// When it expires.
    pub expires: Timestamp,
    /// How long until it expires, rounded down; 0 if it has.
    pub seconds_left: u64,
}

/// When a client's next token request is due.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct NextReport {
    /// Whether it is due later or in flight.
    pub kind: NextKind,
    /// When the request is due; null while one is in flight.
    pub at: Option<Timestamp>,
    /// How long until it is due, rounded up; null while one is in flight.
    pub in_seconds: Option<u64>,
}

/// The states of the next token request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum NextKind {
    /// A token request is scheduled.
    Request,
    /// A token request is in flight.
    Answer,
}

/// A failed attempt.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct FailureReport {
    /// The outcome: a value of the label `outcome` of the metric `token_requests_total`.
    pub outcome: String,
    /// Why, and what to do.
    pub message: String,
    /// When it failed.
    pub at: Timestamp,
    /// How long ago it failed.
    pub seconds_ago: u64,
    /// Consecutive failures, including this one.
    pub in_a_row: u32,
}

/// The issuer's pool of tokens, as mirrored here.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PoolReport {
    /// The tokens in it when it was last computed.
    pub available: f64,
    /// Its capacity, in tokens.
    pub capacity: u32,
}

/// The requests of a client's apps.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct RequestsReport {
    /// Answered since the start.
    pub total: u64,
    /// In flight.
    pub in_flight: u64,
    /// Those of `total` that failed: a 5xx, or no response.
    pub failed: u64,
    /// Requests with a current token that the API answered with 401, since the start.
    pub rejected: u64,
    /// The last five minutes.
    pub lately: TrafficReport,
}

/// The requests of a client's apps in some time.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct TrafficReport {
    /// Answered.
    pub requests: u64,
    /// Those that failed.
    pub failed: u64,
    /// The median of the durations; null without requests.
    pub p50_milliseconds: Option<f64>,
    /// The 95th percentile of the durations; null without requests.
    pub p95_milliseconds: Option<f64>,
}

/// A token request that has ended.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TokenRequestReport {
    /// When it ended.
    pub at: Timestamp,
    /// Its outcome: a value of the label `outcome` of the metric `token_requests_total`.
    pub outcome: String,
    /// How long it took.
    pub milliseconds: u64,
}

/// A certificate that the configuration names, or that an instance presented.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct CertificateReport {
    /// Its owner: `listener`, `instance`, or `client` for the one presented to an instance.
    pub kind: String,
    /// The name of the listener or instance.
    pub name: String,
    /// When it expires.
    pub expires: Timestamp,
    /// How long until it expires, in whole days, rounded down; negative if it has expired.
    pub days_left: i64,
}

/// One app. Its name, its client and its limits are the configuration's.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct AppReport {
    /// Its name in the configuration.
    pub name: String,
    /// The name of its own client; null if it uses its listener's or route's.
    pub client: Option<String>,
    /// Requests answered since the start.
    pub requests: u64,
    /// Local tokens issued to it since the start.
    pub local_tokens: u64,
    /// Its requests that failed: a 5xx, or no response.
    pub failed: u64,
    /// Its requests in flight.
    pub in_flight: u64,
    /// The most that may be in flight; null without a limit.
    pub max_in_flight: Option<u64>,
    /// Requests per second over the last minute.
    pub rate: f64,
    /// The most requests per second; null without a limit.
    pub max_rate: Option<f64>,
    /// When its last request was answered, to a few seconds; null if there was none since the
    /// start.
    pub last_seen: Option<Timestamp>,
}

/// One listener. All but its connections are the configuration's.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ListenerReport {
    /// Its name in the configuration.
    pub name: String,
    /// The address it listens on.
    pub address: String,
    /// The name of the client whose token it attaches.
    pub client: String,
    /// The open connections.
    pub connections: u64,
    /// The most open connections.
    #[serde(default)]
    pub max_connections: usize,
}

impl ClientReport {
    /// Returns whether the client holds a usable token, which the API does not reject for all
    /// callers.
    #[must_use]
    pub fn is_usable(&self) -> bool {
        self.token
            .as_ref()
            .is_some_and(|token| token.usable && !token.revoked)
    }
}
