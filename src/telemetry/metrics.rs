//! All metrics: returns those of each client, app, listener and store, and renders them for a
//! scrape.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex};
use std::time::SystemTime;

use prometheus::{Registry, TextEncoder};

use super::client::ClientMetrics;
use super::families::{Families, LOG_LINES_DROPPED, Levels};
use super::listener::ListenerMetrics;
use super::lock;
use super::open_metrics;
use super::store::StoreMetrics;
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
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    families: Families,
    clients: ByName<ClientMetrics>,
    apps: ByName<AppMetrics>,
    listeners: ByName<ListenerMetrics>,
    stores: ByName<StoreMetrics>,
}

/// Metrics with the same name in their labels, looked up once.
type ByName<T> = Mutex<BTreeMap<String, Arc<T>>>;

impl Metrics {
    /// Returns the metrics of a program of this `version`, with those of the process (Linux only).
    #[must_use]
    pub fn new(version: &str) -> Metrics {
        let registry = Registry::new();
        let families = Families::register(&registry);
        families.build_info.with_label_values(&[version]).set(1);
        let register = |collector| {
            let registered = registry.register(collector);
            registered.expect("a metric's name is used once");
        };
        // the log belongs to the process: every registry shows the same counter
        register(Box::new(LOG_LINES_DROPPED.clone()));
        #[cfg(target_os = "linux")]
        register(Box::new(
            prometheus::process_collector::ProcessCollector::for_self(),
        ));
        Metrics {
            registry,
            families,
            clients: Mutex::default(),
            apps: Mutex::default(),
            listeners: Mutex::default(),
            stores: Mutex::default(),
        }
    }

    /// The metrics of `client`, the same ones each time. Takes a lock, so keep the result.
    #[must_use]
    pub fn client(&self, client: &str) -> Arc<ClientMetrics> {
        self.named(&self.clients, client, ClientMetrics::new)
    }

    /// The metrics of `app`, the same ones each time; the name is empty for callers that are not
    /// apps. Takes a lock, so keep the result.
    #[must_use]
    pub fn app(&self, app: &str) -> Arc<AppMetrics> {
        self.named(&self.apps, app, AppMetrics::new)
    }

    /// The metrics of `listener`, the same ones each time. Takes a lock, so keep the result.
    #[must_use]
    pub fn listener(&self, listener: &str) -> Arc<ListenerMetrics> {
        self.named(&self.listeners, listener, ListenerMetrics::new)
    }

    /// The metrics of stores of this `kind`, the same ones each time.
    #[must_use]
    pub fn store(&self, kind: &str) -> Arc<StoreMetrics> {
        self.named(&self.stores, kind, StoreMetrics::new)
    }

    fn named<T>(&self, known: &ByName<T>, name: &str, create: fn(&Families, &str) -> T) -> Arc<T> {
        let mut known = lock(known);
        let named = known.entry(name.to_owned());
        Arc::clone(named.or_insert_with(|| Arc::new(create(&self.families, name))))
    }

    /// The traffic of `client` since the start, over all apps.
    #[must_use]
    pub fn client_totals(&self, client: &str) -> Totals {
        let mut totals = Totals::default();
        for app in lock(&self.apps).values() {
            app.add_to(&mut totals, |of| of == client);
        }
        totals
    }

    /// Records that a configuration was applied at `now`.
    pub fn config_loaded(&self, now: SystemTime) {
        let since = now.duration_since(SystemTime::UNIX_EPOCH);
        let seconds = since.unwrap_or_default().as_secs_f64();
        let Families {
            reload_success,
            reload_failed,
            ..
        } = &self.families;
        reload_success.with_label_values(&UNLABELLED).set(seconds);
        reload_failed.with_label_values(&UNLABELLED).set(0);
    }

    /// Records that a configuration was refused.
    pub fn config_refused(&self) {
        let failed = &self.families.reload_failed;
        failed.with_label_values(&UNLABELLED).set(1);
    }

    /// Renders all metrics as text. `set` sets the gauges of this scrape.
    #[must_use]
    pub fn render(&self, format: Format, set: impl FnOnce(&Levels)) -> String {
        let levels = Registry::new();
        set(&Levels::register(&levels));
        let mut gathered = self.registry.gather();
        gathered.extend(levels.gather());
        gathered.sort_by(|one, other| one.name().cmp(other.name()));
        let mut text = String::new();
        if let Err(error) = TextEncoder::new().encode_utf8(&gathered, &mut text) {
            tracing::error!(%error, "the metrics could not be written in full");
        }
        match format {
            Format::Text => text,
            Format::OpenMetrics => open_metrics::from_text(&text, &self.exemplars()),
        }
    }

    /// The exemplars of traced requests, by the series of their buckets.
    fn exemplars(&self) -> HashMap<String, String> {
        let apps = lock(&self.apps);
        apps.values().flat_map(|app| app.exemplars()).collect()
    }
}

const UNLABELLED: [&str; 0] = [];

#[cfg(test)]
mod tests;
