//! The list of metrics: the name, labels, buckets and help of each.

use std::sync::LazyLock;

use prometheus::core::Collector;
use prometheus::{
    GaugeVec, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGaugeVec, Opts, Registry,
};

/// The prefix of every name, except the standard `process_*`.
const PREFIX: &str = "collibra_auth_proxy";

/// The upper bounds in seconds for calls, from a response out of memory to an export of an hour.
pub(super) const CALL_BUCKETS: [f64; 20] = [
    0.005, 0.01, 0.025, 0.05, 0.1, 0.15, 0.25, 0.35, 0.5, 0.75, 1.0, 1.5, 2.5, 5.0, 10.0, 30.0,
    60.0, 300.0, 1_200.0, 3_600.0,
];

/// The upper bounds in seconds for token requests, which time out after seconds.
const TOKEN_BUCKETS: [f64; 11] = [0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0];

/// The upper bounds in seconds for store operations, from a file to a timeout.
const STORE_BUCKETS: [f64; 9] = [0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.05, 0.25, 1.0, 5.0];

/// The dropped lines of this process's log. The log exists before any registry.
pub(super) static LOG_LINES_DROPPED: LazyLock<IntCounter> = LazyLock::new(|| {
    IntCounter::with_opts(options(
        "log_lines_dropped_total",
        "Lines of the log that were dropped because it could not be written fast enough.",
    ))
    .expect("a metric's name is well formed")
});

/// Registers a new family and returns it. The names are constants, so an error is a bug in this
/// file, which the first test to build the metrics finds.
fn registered<F: Collector + Clone + 'static>(to: &Registry, family: prometheus::Result<F>) -> F {
    let family = family.expect("a metric's name and labels are well formed");
    to.register(Box::new(family.clone()))
        .expect("a metric's name is used once");
    family
}

/// Declares families: a field, its type, the metric's name and labels, a histogram's buckets, and
/// the help text.
macro_rules! families {
    (
        $(#[$about:meta])*
        $visibility:vis struct $name:ident {
            $($field:ident: $type:ty = $metric:literal [$($label:literal),*] $(in $buckets:ident)?, $help:literal;)*
        }
    ) => {
        $(#[$about])*
        #[derive(Clone, Debug)]
        $visibility struct $name { $(#[doc = $help] $visibility $field: $type,)* }

        impl $name {
            /// Creates every family and registers it in `registry`.
            pub(super) fn register(registry: &Registry) -> $name {
                $name {
                    $($field: {
                        let options = options($metric, $help);
                        $(let options = HistogramOpts::from(options).buckets($buckets.to_vec());)?
                        registered(registry, <$type>::new(options, &[$($label),*]))
                    },)*
                }
            }
        }
    };
}

families! {
    /// The metrics that are updated as events happen.
    pub(super) struct Families {
        build_info: IntGaugeVec = "build_info" ["version"],
            "The running version; always 1.";
        reload_success: GaugeVec = "config_reload_success_timestamp_seconds" [],
            "When a configuration was last applied, in Unix time.";
        reload_failed: IntGaugeVec = "config_reload_failed" [],
            "Whether the last configuration read was refused (1) or not (0).";
        token_waiters: IntGaugeVec = "token_waiters" ["client"],
            "Requests waiting for a token.";
        token_requests: IntCounterVec = "token_requests_total" ["client", "outcome"],
            "Requests to the token endpoint, by outcome.";
        token_rejected: IntCounterVec = "token_rejected_total" ["client"],
            "API calls answered with 401 although their token should be valid.";
        replays: IntCounterVec = "replays_total" ["client", "outcome"],
            "API calls answered with 401, by the outcome of their replay.";
        token_request_duration: HistogramVec = "token_request_duration_seconds" ["client"] in TOKEN_BUCKETS,
            "How long requests to the token endpoint took.";
        requests: IntCounterVec = "requests_total" ["client", "app", "method", "code", "source"],
            "Completed requests, by the status sent to the caller or the side that cut them (client_closed, upstream_reset), and by the source of the response: the instance or the proxy.";
        request_duration: HistogramVec = "request_duration_seconds" ["client", "app"] in CALL_BUCKETS,
            "Time from a request's head to the last byte of its response.";
        upstream_duration: HistogramVec = "upstream_duration_seconds" ["client", "app"] in CALL_BUCKETS,
            "Time until the instance sent the head of its response.";
        upstream_errors: IntCounterVec = "upstream_errors_total" ["client", "kind"],
            "API calls that failed to reach the instance or broke off, by kind.";
        upstream_connections: IntCounterVec = "upstream_connections_total" ["client", "outcome"],
            "Connections for API calls: made, reused or failed.";
        requests_in_flight: IntGaugeVec = "requests_in_flight" ["client", "app"],
            "Requests in flight.";
        request_bytes: IntCounterVec = "request_bytes_total" ["client", "app"],
            "Bytes of request bodies read from callers.";
        response_bytes: IntCounterVec = "response_bytes_total" ["client", "app"],
            "Bytes of response bodies sent to callers.";
        connections: IntGaugeVec = "connections" ["listener"],
            "Open connections from callers.";
        connections_shed: IntCounterVec = "connections_shed_total" ["listener"],
            "Idle connections that the proxy closed to make room for others.";
        refused: IntCounterVec = "refused_total" ["listener", "reason", "app"],
            "Requests that the proxy refused, by reason.";
        local_tokens: IntCounterVec = "local_tokens_total" ["app"],
            "Local tokens issued to apps that requested a token or logged in.";
        store_operations: IntCounterVec = "store_operations_total" ["store", "operation", "outcome"],
            "Store operations, by outcome.";
        store_operation_duration: HistogramVec = "store_operation_duration_seconds" ["store"] in STORE_BUCKETS,
            "Time until the store answered.";
    }
}

families! {
    /// The gauges that change without an event: a token expires, a pool refills, an app is removed
    /// from the configuration. Each scrape has its own, so a gauge that it does not set is not
    /// shown.
    pub struct Levels {
        token_usable: GaugeVec = "token_usable" ["client"],
            "Whether the client holds a usable token (1) or not (0).";
        token_expiry: GaugeVec = "token_expiry_timestamp_seconds" ["client"],
            "When the client's token expires, in Unix time; 0 if there never was one.";
        token_issued: GaugeVec = "token_issued_timestamp_seconds" ["client"],
            "When the client's token was requested, in Unix time; 0 if there never was one.";
        token_generation: GaugeVec = "token_generation" ["client"],
            "The generation of the client's token, counted from 1; 0 if there never was one.";
        token_next_request: GaugeVec = "token_next_request_timestamp_seconds" ["client"],
            "When the next token request is due, in Unix time; now, while one is in flight.";
        token_failures: GaugeVec = "token_consecutive_failures" ["client"],
            "Consecutive failed token requests; 0 after a success.";
        token_pool_available: GaugeVec = "token_pool_available" ["client"],
            "Tokens left in the client's pool at the issuer, as mirrored here.";
        token_pool_capacity: GaugeVec = "token_pool_capacity" ["client"],
            "Capacity of the client's pool, in tokens.";
        app_in_flight: GaugeVec = "app_in_flight" ["app"],
            "Requests of the app in flight, over all clients.";
        app_in_flight_max: GaugeVec = "app_in_flight_max" ["app"],
            "The app's max_in_flight, if it has one.";
        app_rate_max: GaugeVec = "app_rate_max" ["app"],
            "The app's requests_per_second, if it has one.";
        connections_max: GaugeVec = "connections_max" ["listener"],
            "The listener's max_connections.";
        certificate_expiry: GaugeVec = "certificate_expiry_timestamp_seconds" ["kind", "name"],
            "When a certificate expires, in Unix time: a listener's, an instance's as last presented, or the client certificate for an instance.";
        store_up: GaugeVec = "store_up" ["store"],
            "Whether all stores of this kind were available at their last operation (1) or not (0).";
    }
}

fn options(name: &str, help: &str) -> Opts {
    Opts::new(name, help).namespace(PREFIX)
}
