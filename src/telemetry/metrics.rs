//! All metrics: returns those of each client, app, listener and store, and renders them for a
//! scrape.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use prometheus::{Registry, TextEncoder};

use super::client::ClientMetrics;
use super::families::Families;
use super::levels::{Levels, unix_seconds};
use super::listener::ListenerMetrics;
use super::open_metrics;
use super::store::{SharedStore, StoreMetrics};
use super::traffic::{AppMetrics, Totals};

/// A text format for metrics.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// Prometheus' own, version 0.0.4.
    Text,
    /// OpenMetrics 1.0.0.
    OpenMetrics,
}

impl Format {
    /// Its value of `Content-Type`.
    #[must_use]
    pub fn content_type(self) -> &'static str {
        match self {
            Format::Text => "text/plain; version=0.0.4; charset=utf-8",
            Format::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
        }
    }
}

/// All metrics of the process.
pub struct Metrics {
    registry: Registry,
    families: Families,
    clients: Mutex<BTreeMap<String, Arc<ClientMetrics>>>,
    apps: Mutex<BTreeMap<String, Arc<AppMetrics>>>,
    listeners: Mutex<BTreeMap<String, Arc<ListenerMetrics>>>,
    stores: Mutex<BTreeMap<String, Arc<SharedStore>>>,
    before_scrape: Mutex<Vec<Refresh>>,
}

/// Sets the gauges of one scrape.
type Refresh = Box<dyn Fn(&Levels<'_>) + Send + Sync>;

impl Metrics {
    /// Returns the metrics of a program of this `version`, with those of the process (Linux only).
    #[must_use]
    pub fn new(version: &str) -> Metrics {
        let registry = Registry::new();
        let families = Families::register(&registry);
        families.build_info.with_label_values(&[version]).set(1);
        #[cfg(target_os = "linux")]
        registry
            .register(Box::new(
                prometheus::process_collector::ProcessCollector::for_self(),
            ))
            .expect("the names of the process's metrics are its own");
        Metrics {
            registry,
            families,
            clients: Mutex::default(),
            apps: Mutex::default(),
            listeners: Mutex::default(),
            stores: Mutex::default(),
            before_scrape: Mutex::default(),
        }
    }

    /// The metrics of `client`, the same ones each time. Takes a lock, so keep the result.
    #[must_use]
    pub fn client(&self, client: &str) -> Arc<ClientMetrics> {
        let mut clients = lock(&self.clients);
        let made = clients
            .entry(client.to_owned())
            .or_insert_with(|| Arc::new(ClientMetrics::new(&self.families, client)));
        Arc::clone(made)
    }

    /// The traffic of `client` since the start, over all apps.
    #[must_use]
    pub fn client_totals(&self, client: &str) -> Totals {
        let apps = lock(&self.apps);
        let mut totals = Totals::default();
        for app in apps.values() {
            let all = app.all_traffic();
            for traffic in all.iter().filter(|traffic| traffic.client() == client) {
                traffic.add_to(&mut totals);
            }
        }
        totals
    }

    /// Records that a configuration was applied at `now`.
    pub fn config_loaded(&self, now: SystemTime) {
        self.families.reload_success.set(unix_seconds(now));
        self.families.reload_failed.set(0);
    }

    /// Records that a configuration was refused.
    pub fn config_refused(&self) {
        self.families.reload_failed.set(1);
    }

    /// The metrics of `app`, the same ones each time; the name is empty for callers that are not
    /// apps. Takes a lock, so keep the result.
    #[must_use]
    pub fn app(&self, app: &str) -> Arc<AppMetrics> {
        let mut apps = lock(&self.apps);
        let made = apps
            .entry(app.to_owned())
            .or_insert_with(|| Arc::new(AppMetrics::new(&self.families, app)));
        Arc::clone(made)
    }

    /// The metrics of `listener`, the same ones each time. Takes a lock, so keep the result.
    #[must_use]
    pub fn listener(&self, listener: &str) -> Arc<ListenerMetrics> {
        let mut listeners = lock(&self.listeners);
        let made = listeners
            .entry(listener.to_owned())
            .or_insert_with(|| Arc::new(ListenerMetrics::new(&self.families, listener)));
        Arc::clone(made)
    }

    /// Returns the metrics of stores of this `kind`, for one more client that uses one.
    #[must_use]
    pub fn store(&self, kind: &str) -> StoreMetrics {
        let mut stores = lock(&self.stores);
        let shared = stores
            .entry(kind.to_owned())
            .or_insert_with(|| Arc::new(SharedStore::new(&self.families, kind)));
        StoreMetrics::new(Arc::clone(shared))
    }

    /// How long the last operation took that a store of this `kind` answered.
    #[must_use]
    pub fn store_latency(&self, kind: &str) -> Option<Duration> {
        lock(&self.stores).get(kind)?.latency()
    }

    /// Calls `refresh` before every scrape, to set the gauges that change without an event, such as
    /// whether a token has expired. It must not call [`Metrics::on_scrape`] or [`Metrics::render`].
    pub fn on_scrape(&self, refresh: impl Fn(&Levels<'_>) + Send + Sync + 'static) {
        lock(&self.before_scrape).push(Box::new(refresh));
    }

    /// The exemplars of traced requests, by the series of their buckets.
    fn exemplars(&self) -> HashMap<String, String> {
        let mut exemplars = HashMap::new();
        for app in lock(&self.apps).values() {
            for traffic in app.all_traffic().iter() {
                for (bound, exemplar) in traffic.exemplars() {
                    let series = open_metrics::bucket(
                        "collibra_auth_proxy_request_duration_seconds",
                        &[("app", app.name()), ("client", traffic.client())],
                        bound,
                    );
                    let (trace_id, seconds) =
                        (u128::from_be_bytes(exemplar.trace_id), exemplar.seconds);
                    let text = format!("{{trace_id=\"{trace_id:032x}\"}} {seconds}");
                    exemplars.insert(series, text);
                }
            }
        }
        exemplars
    }

    /// Renders all metrics as text.
    #[must_use]
    pub fn render(&self, format: Format) -> String {
        let gathered = {
            // held until all are gathered, so that no other scrape resets the gauges meanwhile
            let refreshes = lock(&self.before_scrape);
            self.families.reset_levels();
            for refresh in refreshes.iter() {
                refresh(&Levels(&self.families));
            }
            self.registry.gather()
        };
        let mut text = String::new();
        if let Err(error) = TextEncoder::new().encode_utf8(&gathered, &mut text) {
            tracing::error!(%error, "the metrics could not be written in full");
        }
        match format {
            Format::Text => text,
            Format::OpenMetrics => open_metrics::from_text(&text, &self.exemplars()),
        }
    }
}

impl fmt::Debug for Metrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Metrics").finish_non_exhaustive()
    }
}

/// Locks a mutex; a panic elsewhere leaves nothing inconsistent in it.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;
