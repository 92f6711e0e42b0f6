//! The list of metrics: the name, labels, buckets and help of each.

use std::sync::LazyLock;

use prometheus::core::Collector;
use prometheus::{
    Gauge, GaugeVec, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec,
    Opts, Registry,
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
static LOG_LINES_DROPPED: LazyLock<IntCounter> = LazyLock::new(|| {
    IntCounter::with_opts(options(
        "log_lines_dropped_total",
        "Lines of the log that were dropped because it could not be written fast enough.",
    ))
    .expect("a metric's name is well formed")
});

/// The counter of this process's dropped log lines, the same one each time.
pub(super) fn log_lines_dropped() -> IntCounter {
    LOG_LINES_DROPPED.clone()
}

/// All metric families.
#[derive(Clone, Debug)]
pub(super) struct Families {
    pub(super) build_info: IntGaugeVec,
    pub(super) reload_success: Gauge,
    pub(super) reload_failed: IntGauge,
    pub(super) token_usable: IntGaugeVec,
    pub(super) token_expiry: GaugeVec,
    pub(super) token_issued: GaugeVec,
    pub(super) token_generation: GaugeVec,
    pub(super) token_next_request: GaugeVec,
    pub(super) token_failures: IntGaugeVec,
    pub(super) token_waiters: IntGaugeVec,
    pub(super) token_requests: IntCounterVec,
    pub(super) token_rejected: IntCounterVec,
    pub(super) replays: IntCounterVec,
    pub(super) token_request_duration: HistogramVec,
    pub(super) token_pool_available: GaugeVec,
    pub(super) token_pool_capacity: IntGaugeVec,
    pub(super) requests: IntCounterVec,
    pub(super) request_duration: HistogramVec,
    pub(super) upstream_duration: HistogramVec,
    pub(super) upstream_errors: IntCounterVec,
    pub(super) upstream_connections: IntCounterVec,
    pub(super) requests_in_flight: IntGaugeVec,
    pub(super) request_bytes: IntCounterVec,
    pub(super) response_bytes: IntCounterVec,
    pub(super) app_in_flight: IntGaugeVec,
    pub(super) app_in_flight_max: IntGaugeVec,
    pub(super) app_rate_max: GaugeVec,
    pub(super) connections: IntGaugeVec,
    pub(super) connections_max: IntGaugeVec,
    pub(super) certificate_expiry: GaugeVec,
    pub(super) refused: IntCounterVec,
    pub(super) local_tokens: IntCounterVec,
    pub(super) store_up: IntGaugeVec,
    pub(super) store_operations: IntCounterVec,
    pub(super) store_operation_duration: HistogramVec,
}

impl Families {
    /// Creates every family and registers it in `registry`.
    pub(super) fn register(registry: &Registry) -> Families {
        let to = Registrar(registry);
        // the log belongs to the process: every registry shows the same counter
        to.add(Ok(log_lines_dropped()));
        Families {
            build_info: to.int_gauge(
                "build_info",
                "The version that runs; always 1.",
                &["version"],
            ),
            reload_success: to.add(Gauge::with_opts(options(
                "config_reload_success_timestamp_seconds",
                "When a configuration was last taken over, in Unix time.",
            ))),
            reload_failed: to.add(IntGauge::with_opts(options(
                "config_reload_failed",
                "Whether the configuration that was read last was refused (1) or not (0).",
            ))),
            token_usable: to.int_gauge(
                "token_usable",
                "Whether the client holds a token that may be sent (1) or not (0).",
                &["client"],
            ),
            token_expiry: to.gauge(
                "token_expiry_timestamp_seconds",
                "When the client's token ends, in Unix time; 0 if there never was one.",
                &["client"],
            ),
            token_issued: to.gauge(
                "token_issued_timestamp_seconds",
                "When the client's token was asked for, in Unix time; 0 if there never was one.",
                &["client"],
            ),
            token_generation: to.gauge(
                "token_generation",
                "Which token of the client it is, counted from 1; 0 if there never was one.",
                &["client"],
            ),
            token_next_request: to.gauge(
                "token_next_request_timestamp_seconds",
                "When the next token request is due, in Unix time; now, while one is in flight.",
                &["client"],
            ),
            token_failures: to.int_gauge(
                "token_consecutive_failures",
                "How many token requests have failed in a row; 0 after a success.",
                &["client"],
            ),
            token_waiters: to.int_gauge(
                "token_waiters",
                "Requests that wait for a token.",
                &["client"],
            ),
            token_requests: to.int_counter(
                "token_requests_total",
                "Requests to the token endpoint, by how they ended.",
                &["client", "outcome"],
            ),
            token_rejected: to.int_counter(
                "token_rejected_total",
                "Calls that the API answered with 401, although their token should be live.",
                &["client"],
            ),
            replays: to.int_counter(
                "replays_total",
                "What became of calls that the API answered with 401.",
                &["client", "outcome"],
            ),
            token_request_duration: to.histogram(
                "token_request_duration_seconds",
                "How long requests to the token endpoint took.",
                &["client"],
                &TOKEN_BUCKETS,
            ),
            token_pool_available: to.gauge(
                "token_pool_available",
                "How many tokens the issuer's pool still holds for the client, as mirrored here.",
                &["client"],
            ),
            token_pool_capacity: to.int_gauge(
                "token_pool_capacity",
                "How many tokens the client's pool holds when it is full.",
                &["client"],
            ),
            requests: to.int_counter(
                "requests_total",
                "Requests that have ended, by the status that the caller got or the side that cut them (client_closed, upstream_reset), and whether the response was the instance's or the proxy's own.",
                &["client", "app", "method", "code", "source"],
            ),
            request_duration: to.histogram(
                "request_duration_seconds",
                "From a request's head to the last byte of its response.",
                &["client", "app"],
                &CALL_BUCKETS,
            ),
            upstream_duration: to.histogram(
                "upstream_duration_seconds",
                "How long the instance took to begin its response.",
                &["client", "app"],
                &CALL_BUCKETS,
            ),
            upstream_errors: to.int_counter(
                "upstream_errors_total",
                "Calls that failed on the way to the API or broke off there, by the kind of failure.",
                &["client", "kind"],
            ),
            upstream_connections: to.int_counter(
                "upstream_connections_total",
                "Connections to the API that requests asked for: made, reused or failed.",
                &["client", "outcome"],
            ),
            requests_in_flight: to.int_gauge(
                "requests_in_flight",
                "Requests being served now.",
                &["client", "app"],
            ),
            request_bytes: to.int_counter(
                "request_bytes_total",
                "Bytes of request bodies that were read from callers.",
                &["client", "app"],
            ),
            response_bytes: to.int_counter(
                "response_bytes_total",
                "Bytes of response bodies that were sent to callers.",
                &["client", "app"],
            ),
            app_in_flight: to.int_gauge(
                "app_in_flight",
                "Requests of the app that are being served now, at all clients.",
                &["app"],
            ),
            app_in_flight_max: to.int_gauge(
                "app_in_flight_max",
                "The app's max_in_flight, if it has one.",
                &["app"],
            ),
            app_rate_max: to.gauge(
                "app_rate_max",
                "The app's requests_per_second, if it has any.",
                &["app"],
            ),
            connections: to.int_gauge(
                "connections",
                "Connections from callers that are open now.",
                &["listener"],
            ),
            connections_max: to.int_gauge(
                "connections_max",
                "The most connections that the listener may have open.",
                &["listener"],
            ),
            certificate_expiry: to.gauge(
                "certificate_expiry_timestamp_seconds",
                "When a certificate expires, in Unix time: a listener's own, an instance's as it was last shown, or the one shown to an instance.",
                &["kind", "name"],
            ),
            refused: to.int_counter(
                "refused_total",
                "Requests that the proxy answered itself, by the reason it gave.",
                &["listener", "reason", "app"],
            ),
            local_tokens: to.int_counter(
                "local_tokens_total",
                "Local tokens given, to apps that asked for a token or logged in.",
                &["app"],
            ),
            store_up: to.int_gauge(
                "store_up",
                "Whether the stores of this kind could be used when they were last asked (1) or not (0).",
                &["store"],
            ),
            store_operations: to.int_counter(
                "store_operations_total",
                "What stores were asked for, by what came of it.",
                &["store", "operation", "outcome"],
            ),
            store_operation_duration: to.histogram(
                "store_operation_duration_seconds",
                "How long the store took to answer.",
                &["store"],
                &STORE_BUCKETS,
            ),
        }
    }

    /// Removes the gauges of the last scrape.
    pub(super) fn reset_levels(&self) {
        for family in [
            &self.token_generation,
            &self.token_issued,
            &self.token_expiry,
            &self.token_next_request,
            &self.token_pool_available,
            &self.app_rate_max,
            &self.certificate_expiry,
        ] {
            family.reset();
        }
        for family in [
            &self.token_usable,
            &self.token_failures,
            &self.token_pool_capacity,
            &self.app_in_flight,
            &self.app_in_flight_max,
            &self.connections_max,
        ] {
            family.reset();
        }
    }
}

/// Creates and registers families. The names are constants, so an error is a bug in this file,
/// which the first test to build the metrics finds.
struct Registrar<'a>(&'a Registry);

impl Registrar<'_> {
    fn int_counter(&self, name: &str, help: &str, labels: &[&str]) -> IntCounterVec {
        self.add(IntCounterVec::new(options(name, help), labels))
    }

    fn int_gauge(&self, name: &str, help: &str, labels: &[&str]) -> IntGaugeVec {
        self.add(IntGaugeVec::new(options(name, help), labels))
    }

    fn gauge(&self, name: &str, help: &str, labels: &[&str]) -> GaugeVec {
        self.add(GaugeVec::new(options(name, help), labels))
    }

    fn histogram(&self, name: &str, help: &str, labels: &[&str], buckets: &[f64]) -> HistogramVec {
        let options = HistogramOpts::from(options(name, help)).buckets(buckets.to_vec());
        self.add(HistogramVec::new(options, labels))
    }

    fn add<F: Collector + Clone + 'static>(&self, made: prometheus::Result<F>) -> F {
        let family = made.expect("a metric's name and labels are well formed");
        self.0
            .register(Box::new(family.clone()))
            .expect("a metric's name is used once");
        family
    }
}

fn options(name: &str, help: &str) -> Opts {
    Opts::new(name, help).namespace(PREFIX)
}
