//! The numbers of one app: its requests, by client, and the local tokens that it was given.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use prometheus::{Histogram, IntCounter, IntGauge};

use super::families::Families;
use super::requests::{MethodLabel, RequestCounts, Source};

/// The metrics with one app's name on them, found once. The name is empty for callers that are no
/// app.
pub struct AppMetrics {
    name: String,
    families: Families,
    /// An app has few clients, most often one, and each is added once.
    traffic: ArcSwap<Vec<Arc<Traffic>>>,
    local_tokens: IntCounter,
}

/// The metrics with the names of one app and one client on them.
pub struct Traffic {
    client: String,
    requests: RequestCounts,
    duration: Histogram,
    upstream_duration: Histogram,
    in_flight: IntGauge,
    request_bytes: IntCounter,
    response_bytes: IntCounter,
}

/// A request that has ended, as it is counted.
#[derive(Clone, Copy, Debug)]
pub struct Ended {
    /// The request's method.
    pub method: MethodLabel,
    /// The status that the caller was sent; 0: none.
    pub status: u16,
    /// Whose response it was.
    pub source: Source,
    /// From the request's head to the last byte of the response.
    pub duration: Duration,
    /// How long the instance took to begin its response, if it was asked.
    pub upstream: Option<Duration>,
    /// The length of the request's body as far as it was read.
    pub request_bytes: u64,
    /// The length of the response's body as far as it was sent.
    pub response_bytes: u64,
}

/// One request in flight; dropping it ends the request.
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

    /// The app's traffic on `client`. Takes no lock and formats nothing once the pair was seen.
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

    /// The proxy gave it a local token.
    pub fn local_token(&self) {
        self.local_tokens.inc();
    }

    /// How many requests of it were answered since the start.
    #[must_use]
    pub fn requests_total(&self) -> u64 {
        let traffic = self.traffic.load();
        traffic.iter().map(|traffic| traffic.requests.total()).sum()
    }

    /// How many requests of it are in flight.
    #[must_use]
    pub fn in_flight(&self) -> u64 {
        let traffic = self.traffic.load();
        traffic.iter().map(|traffic| traffic.in_flight()).sum()
    }

    /// How many local tokens it was given since the start.
    #[must_use]
    pub fn local_tokens_total(&self) -> u64 {
        self.local_tokens.get()
    }

    /// Its traffic on each client that it used.
    pub(super) fn all_traffic(&self) -> Arc<Vec<Arc<Traffic>>> {
        self.traffic.load_full()
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
        }
    }

    /// The client's name.
    pub(super) fn client(&self) -> &str {
        &self.client
    }

    /// How many requests were answered since the start.
    pub(super) fn total(&self) -> u64 {
        self.requests.total()
    }

    /// How many requests are in flight.
    pub(super) fn in_flight(&self) -> u64 {
        u64::try_from(self.in_flight.get()).unwrap_or(0)
    }
}

impl InFlight {
    /// A request begins.
    pub fn new(traffic: Arc<Traffic>) -> InFlight {
        traffic.in_flight.inc();
        InFlight(traffic)
    }

    /// Counts the request, which has ended. Takes no lock and formats nothing once its method and
    /// status have been seen.
    pub fn count(&self, ended: &Ended) {
        let Traffic {
            requests,
            duration,
            upstream_duration,
            request_bytes,
            response_bytes,
            ..
        } = &*self.0;
        requests.count(ended.method, ended.status, ended.source);
        duration.observe(ended.duration.as_secs_f64());
        if let Some(upstream) = ended.upstream {
            upstream_duration.observe(upstream.as_secs_f64());
        }
        request_bytes.inc_by(ended.request_bytes);
        response_bytes.inc_by(ended.response_bytes);
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.in_flight.dec();
    }
}

impl fmt::Debug for AppMetrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AppMetrics")
            .field("name", &self.name)
            .field("requests", &self.requests_total())
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for Traffic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Traffic")
            .field("requests", &self.requests)
            .finish_non_exhaustive()
    }
}
