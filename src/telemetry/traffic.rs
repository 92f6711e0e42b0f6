//! The metrics of an app: its requests by client, and its local tokens.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use arc_swap::ArcSwap;
use prometheus::core::Metric as _;
use prometheus::{Histogram, IntCounter, IntGauge};

use super::ended::Ended;
use super::families::{CALL_BUCKETS, Families};
use super::lock;
use super::open_metrics;
use super::requests::RequestCounts;

/// The metrics with an app's name, looked up once. The name is empty for callers that are not apps.
#[derive(Debug)]
pub struct AppMetrics {
    name: String,
    families: Families,
    /// An app has few clients, mostly one, and each is added once.
    traffic: ArcSwap<Vec<Arc<Traffic>>>,
    local_tokens: IntCounter,
}

/// The metrics with the names of an app and a client.
#[derive(Debug)]
pub struct Traffic {
    client: String,
    requests: RequestCounts,
    duration: Histogram,
    upstream_duration: Histogram,
    in_flight: IntGauge,
    request_bytes: IntCounter,
    response_bytes: IntCounter,
    /// The trace and the duration in seconds of the last traced request in each bucket of
    /// `duration`.
    exemplars: Mutex<BTreeMap<usize, (u128, f64)>>,
}

/// The traffic of a client or an app since the start.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// The number of requests.
    pub answered: u64,
    /// The number of failed requests: a 5xx, no response, or cut by the instance.
    pub failed: u64,
    /// The number of requests in flight.
    pub in_flight: u64,
    /// The distribution of the durations.
    pub durations: Durations,
}

/// A distribution of durations: a count per bucket, the last without an upper bound.
pub type Durations = [u64; CALL_BUCKETS.len() + 1];

/// The duration in seconds below which the share `quantile` (0 to 1) of the requests stayed,
/// interpolated within its bucket as by Prometheus' `histogram_quantile`; `None` without requests.
#[must_use]
pub fn quantile(durations: &Durations, quantile: f64) -> Option<f64> {
    let total: u64 = durations.iter().sum();
    #[expect(clippy::cast_precision_loss, reason = "fewer than 2^53 requests")]
    let (rank, count) = (quantile * total as f64, |count: u64| count as f64);
    let mut below = 0.0;
    for (nth, &in_bucket) in durations.iter().enumerate() {
        let reached = below + count(in_bucket);
        if in_bucket > 0 && reached >= rank {
            let lower = nth.checked_sub(1).map_or(0.0, |nth| CALL_BUCKETS[nth]);
            let upper = CALL_BUCKETS.get(nth).copied().unwrap_or(lower);
            return Some(lower + (upper - lower) * (rank - below) / count(in_bucket));
        }
        below = reached;
    }
    None
}

/// A request in flight; dropping it ends the request.
#[derive(Debug)]
#[must_use = "the request is counted for as long as this is held"]
pub struct InFlight(Arc<Traffic>);

impl AppMetrics {
    pub(super) fn new(families: &Families, app: &str) -> AppMetrics {
        AppMetrics {
            name: app.to_owned(),
            families: families.clone(),
            traffic: ArcSwap::default(),
            local_tokens: families.local_tokens.with_label_values(&[app]),
        }
    }

    /// The app's traffic on `client`. Takes no lock and formats nothing after the first call.
    #[must_use]
    pub fn traffic(&self, client: &str) -> Arc<Traffic> {
        let find = |all: &[Arc<Traffic>]| {
            let mut all = all.iter();
            all.find(|traffic| traffic.client == client).map(Arc::clone)
        };
        if let Some(known) = find(&self.traffic.load()) {
            return known;
        }
        let made = Arc::new(Traffic::new(&self.families, client, &self.name));
        self.traffic.rcu(|all| {
            let mut all = Vec::clone(all);
            if find(&all).is_none() {
                all.push(Arc::clone(&made));
            }
            all
        });
        find(&self.traffic.load()).unwrap_or(made)
    }

    /// Records that the proxy issued it a local token.
    pub fn local_token(&self) {
        self.local_tokens.inc();
    }

    /// Its traffic since the start, over all clients.
    #[must_use]
    pub fn totals(&self) -> Totals {
        let mut totals = Totals::default();
        self.add_to(&mut totals, |_| true);
        totals
    }

    /// Adds its traffic since the start on the clients that `counts` accepts to `totals`.
    pub(super) fn add_to(&self, totals: &mut Totals, counts: impl Fn(&str) -> bool) {
        for traffic in self.traffic.load().iter() {
            if counts(&traffic.client) {
                traffic.add_to(totals);
            }
        }
    }

    /// The number of local tokens issued to it since the start.
    #[must_use]
    pub fn local_tokens_total(&self) -> u64 {
        self.local_tokens.get()
    }

    /// The exemplars of its traced requests, each with the series of its bucket.
    pub(super) fn exemplars(&self) -> Vec<(String, String)> {
        let mut exemplars = Vec::new();
        for traffic in self.traffic.load().iter() {
            for (bucket, (trace_id, seconds)) in lock(&traffic.exemplars).iter() {
                let bound = CALL_BUCKETS.get(*bucket).copied();
                exemplars.push((
                    open_metrics::duration_bucket(&self.name, &traffic.client, bound),
                    format!("{{trace_id=\"{trace_id:032x}\"}} {seconds}"),
                ));
            }
        }
        exemplars
    }
}

impl Traffic {
    fn new(families: &Families, client: &str, app: &str) -> Traffic {
        let labels = &[client, app];
        Traffic {
            client: client.to_owned(),
            requests: RequestCounts::new(families.requests.clone(), client, app),
            duration: families.request_duration.with_label_values(labels),
            upstream_duration: families.upstream_duration.with_label_values(labels),
            in_flight: families.requests_in_flight.with_label_values(labels),
            request_bytes: families.request_bytes.with_label_values(labels),
            response_bytes: families.response_bytes.with_label_values(labels),
            exemplars: Mutex::default(),
        }
    }

    /// Adds the counts since the start to `totals`.
    fn add_to(&self, totals: &mut Totals) {
        totals.answered += self.requests.total();
        totals.failed += self.requests.failed();
        totals.in_flight += u64::try_from(self.in_flight.get()).unwrap_or(0);
        let duration = self.duration.metric();
        let buckets = duration.get_histogram().get_bucket().iter();
        let mut below = 0;
        for (bucket, total) in buckets.zip(&mut totals.durations) {
            *total += bucket.cumulative_count() - below;
            below = bucket.cumulative_count();
        }
        totals.durations[CALL_BUCKETS.len()] += duration.get_histogram().get_sample_count() - below;
    }
}

impl InFlight {
    /// Records the start of a request.
    pub fn new(traffic: Arc<Traffic>) -> InFlight {
        traffic.in_flight.inc();
        InFlight(traffic)
    }

    /// Counts a completed request. Formats nothing after the first one with its method and status,
    /// and takes no lock unless it is traced.
    pub fn count(&self, ended: &Ended<'_>) {
        let Traffic {
            requests,
            duration,
            upstream_duration,
            request_bytes,
            response_bytes,
            exemplars,
            ..
        } = &*self.0;
        let seconds = ended.took.as_secs_f64();
        let method = ended.method.into();
        requests.count(method, ended.status, ended.cut, ended.source());
        duration.observe(seconds);
        if let Some(upstream) = ended.upstream {
            upstream_duration.observe(upstream.as_secs_f64());
        }
        request_bytes.inc_by(ended.request_bytes);
        response_bytes.inc_by(ended.response_bytes);
        if let Some(trace_id) = ended.trace_id {
            let bucket = CALL_BUCKETS.partition_point(|bound| *bound < seconds);
            lock(exemplars).insert(bucket, (trace_id, seconds));
        }
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.in_flight.dec();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn durations(counts: &[(usize, u64)]) -> Durations {
        let mut durations = Durations::default();
        for (bucket, count) in counts {
            durations[*bucket] = *count;
        }
        durations
    }

    #[test]
    fn a_quantile_lies_within_the_bucket_that_reaches_it() {
        // to the microsecond
        let quantile = |durations: &Durations, share: f64| {
            quantile(durations, share).map(|seconds| (seconds * 1e6).round() / 1e6)
        };
        assert_eq!(quantile(&Durations::default(), 0.5), None);
        // 100 requests between 50 and 100 ms
        let even = durations(&[(4, 100)]);
        assert_eq!(quantile(&even, 0.5), Some(0.075));
        assert_eq!(quantile(&even, 1.0), Some(0.1));
        // 90 below 5 ms, 10 between 1 and 1.5 s
        let two = durations(&[(0, 90), (11, 10)]);
        assert_eq!(quantile(&two, 0.9), Some(0.005));
        assert_eq!(quantile(&two, 0.95), Some(1.25));
        // the last bucket has no upper bound to interpolate to
        assert_eq!(
            quantile(&durations(&[(CALL_BUCKETS.len(), 1)]), 0.5),
            Some(3_600.0)
        );
    }
}
