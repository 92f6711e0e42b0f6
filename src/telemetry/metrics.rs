//! The metrics as a whole: handing out each client's and each listener's share, and writing them
//! all down for a scrape.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use prometheus::{Registry, TextEncoder};

use super::app::AppMetrics;
use super::client::{ClientMetrics, unix_seconds};
use super::families::Families;
use super::listener::ListenerMetrics;
use super::store::{SharedStore, StoreMetrics};

/// The content type of what [`Metrics::render`] writes.
pub const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// All metrics of the process.
pub struct Metrics {
    registry: Registry,
    families: Families,
    clients: Mutex<BTreeMap<String, Arc<ClientMetrics>>>,
    apps: Mutex<BTreeMap<String, Arc<AppMetrics>>>,
    listeners: Mutex<BTreeMap<String, Arc<ListenerMetrics>>>,
    stores: Mutex<BTreeMap<String, Arc<SharedStore>>>,
    before_scrape: Mutex<Vec<Box<dyn Fn() + Send + Sync>>>,
}

impl Metrics {
    /// The metrics of a program of this `version`; those of the process (Linux only) with them.
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

    /// The metrics of `client`: the same ones each time. Takes a lock, so keep what it gives.
    #[must_use]
    pub fn client(&self, client: &str) -> Arc<ClientMetrics> {
        let mut clients = lock(&self.clients);
        let made = clients
            .entry(client.to_owned())
            .or_insert_with(|| Arc::new(ClientMetrics::new(&self.families, client)));
        Arc::clone(made)
    }

    /// Tells nothing more of the token and the pool of a client that is not `known`, until that
    /// client is asked for again. What was counted stays.
    pub fn withdraw_clients(&self, known: impl Fn(&str) -> bool) {
        lock(&self.clients).retain(|client, _| {
            let keep = known(client);
            if !keep {
                self.families.withdraw_token(client);
            }
            keep
        });
    }

    /// A configuration was taken over at `now`.
    pub fn config_loaded(&self, now: SystemTime) {
        self.families.reload_success.set(unix_seconds(now));
        self.families.reload_failed.set(0);
    }

    /// A configuration was refused, and the one before goes on.
    pub fn config_refused(&self) {
        self.families.reload_failed.set(1);
    }

    /// The metrics of `app`, empty for callers that are no app: the same ones each time. Takes a
    /// lock, so keep what it gives.
    #[must_use]
    pub fn app(&self, app: &str) -> Arc<AppMetrics> {
        let mut apps = lock(&self.apps);
        let made = apps
            .entry(app.to_owned())
            .or_insert_with(|| Arc::new(AppMetrics::new(&self.families, app)));
        Arc::clone(made)
    }

    /// The metrics of `listener`: the same ones each time. Takes a lock, so keep what it gives.
    #[must_use]
    pub fn listener(&self, listener: &str) -> Arc<ListenerMetrics> {
        let mut listeners = lock(&self.listeners);
        let made = listeners
            .entry(listener.to_owned())
            .or_insert_with(|| Arc::new(ListenerMetrics::new(&self.families, listener)));
        Arc::clone(made)
    }

    /// The metrics of stores of this `kind`, for one more client that uses one.
    #[must_use]
    pub fn store(&self, kind: &str) -> StoreMetrics {
        let mut stores = lock(&self.stores);
        let shared = stores
            .entry(kind.to_owned())
            .or_insert_with(|| Arc::new(SharedStore::new(&self.families, kind)));
        StoreMetrics::new(Arc::clone(shared))
    }

    /// Has `refresh` called before every scrape, to set what changes without an event, such as
    /// whether a token is still alive. It must not call [`Metrics::on_scrape`] or
    /// [`Metrics::render`].
    pub fn on_scrape(&self, refresh: impl Fn() + Send + Sync + 'static) {
        lock(&self.before_scrape).push(Box::new(refresh));
    }

    /// Everything, in Prometheus's text format, of the type [`CONTENT_TYPE`].
    #[must_use]
    pub fn render(&self) -> String {
        for refresh in lock(&self.before_scrape).iter() {
            refresh();
        }
        let mut text = String::new();
        if let Err(error) = TextEncoder::new().encode_utf8(&self.registry.gather(), &mut text) {
            tracing::error!(%error, "the metrics could not be written in full");
        }
        text
    }
}

impl fmt::Debug for Metrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Metrics").finish_non_exhaustive()
    }
}

/// A panic elsewhere leaves nothing half done in what these locks guard.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::{MethodLabel, TokenTimes};
    use std::fmt::Write as _;
    use std::time::Duration;

    /// One client, one listener, and one of everything.
    fn used() -> Metrics {
        let metrics = Metrics::new("0.0.0");
        // what says that it is up is taken back with the last who uses it
        std::mem::forget(metrics.store("memory"));
        let client = metrics.client("catalog");
        let _ = metrics.listener("local");
        metrics.config_loaded(SystemTime::UNIX_EPOCH + Duration::from_secs(1_000));
        client.request(
            &metrics.app(""),
            MethodLabel::Get,
            200,
            Duration::from_millis(40),
            Some(Duration::from_millis(30)),
        );
        metrics
    }

    /// What stands on the line of `series`, up to its value.
    fn value(text: &str, series: &str) -> f64 {
        let line = text.lines().find_map(|line| {
            line.strip_prefix("collibra_auth_proxy_")?
                .strip_prefix(series)
        });
        line.unwrap_or_else(|| panic!("no {series} in\n{text}"))
            .trim()
            .parse()
            .unwrap()
    }

    #[test]
    fn the_list_of_metrics() {
        let mut list = String::new();
        for family in used().registry.gather() {
            // those of the process are the library's, and Linux's alone
            if family.name().starts_with("process_") {
                continue;
            }
            let labels: Vec<_> = family.get_metric()[0]
                .get_label()
                .iter()
                .map(|label| label.name())
                .collect();
            let kind = format!("{:?}", family.get_field_type()).to_lowercase();
            writeln!(
                list,
                "{} {kind} {{{}}}: {}",
                family.name(),
                labels.join(","),
                family.help()
            )
            .unwrap();
        }
        insta::assert_snapshot!(list, @r"
        collibra_auth_proxy_build_info gauge {version}: The version that runs; always 1.
        collibra_auth_proxy_config_reload_failed gauge {}: Whether the configuration that was read last was refused (1) or not (0).
        collibra_auth_proxy_config_reload_success_timestamp_seconds gauge {}: When a configuration was last taken over, in Unix time.
        collibra_auth_proxy_connections gauge {listener}: Connections from apps that are open now.
        collibra_auth_proxy_local_tokens_total counter {app}: Local tokens given, to apps that asked for a token or logged in.
        collibra_auth_proxy_log_lines_dropped_total counter {}: Lines of the log that were dropped because it could not be written fast enough.
        collibra_auth_proxy_refused_total counter {listener,reason}: Requests that the proxy answered itself, by the reason it gave.
        collibra_auth_proxy_replays_total counter {client,outcome}: What became of calls that the API answered with 401.
        collibra_auth_proxy_request_duration_seconds histogram {client}: From a request's head to the last byte of its answer.
        collibra_auth_proxy_requests_in_flight gauge {client}: Requests being served now.
        collibra_auth_proxy_requests_total counter {app,client,code,method}: Requests answered, by the status that the app got.
        collibra_auth_proxy_store_operations_total counter {operation,outcome,store}: What stores were asked for, by what came of it.
        collibra_auth_proxy_store_up gauge {store}: Whether the stores of this kind could be used when they were last asked (1) or not (0).
        collibra_auth_proxy_token_expiry_timestamp_seconds gauge {client}: When the client's token ends, in Unix time; 0 if there never was one.
        collibra_auth_proxy_token_generation gauge {client}: Which token of the client it is, counted from 1; 0 if there never was one.
        collibra_auth_proxy_token_issued_timestamp_seconds gauge {client}: When the client's token was asked for, in Unix time; 0 if there never was one.
        collibra_auth_proxy_token_pool_available gauge {client}: How many tokens the issuer's pool still holds for the client, as mirrored here.
        collibra_auth_proxy_token_pool_capacity gauge {client}: How many tokens the client's pool holds when it is full.
        collibra_auth_proxy_token_rejected_total counter {client}: Calls that the API answered with 401, although their token should be live.
        collibra_auth_proxy_token_request_duration_seconds histogram {client}: How long requests to the token endpoint took.
        collibra_auth_proxy_token_requests_total counter {client,outcome}: Requests to the token endpoint, by how they ended.
        collibra_auth_proxy_token_usable gauge {client}: Whether the client holds a token that may be sent (1) or not (0).
        collibra_auth_proxy_upstream_connections_total counter {client,outcome}: Connections to the API that requests asked for: made, reused or failed.
        collibra_auth_proxy_upstream_duration_seconds histogram {client}: How long Collibra took to begin its answer.
        collibra_auth_proxy_upstream_errors_total counter {client,kind}: Calls that failed on the way to the API or broke off there, by the kind of failure.
        ");
    }

    #[test]
    fn every_family_keeps_the_format_and_the_conventions() {
        let text = used().render();
        let mut families = 0;
        let mut lines = text.lines().peekable();
        while let Some(line) = lines.next() {
            let Some(help) = line.strip_prefix("# HELP ") else {
                panic!("{line:?} stands before its HELP");
            };
            let (name, help) = help.split_once(' ').unwrap();
            assert!(help.ends_with('.'), "{name}: {help:?} is no sentence");
            let kind = lines.next().unwrap().strip_prefix("# TYPE ").unwrap();
            let kind = kind.strip_prefix(name).unwrap().trim();
            assert_eq!(name.ends_with("_total"), kind == "counter", "{name}");
            assert!(kind != "histogram" || name.ends_with("_seconds"), "{name}");
            let known = ["collibra_auth_proxy_", "process_"];
            assert!(
                known.iter().any(|prefix| name.starts_with(prefix)),
                "{name}"
            );
            while let Some(sample) = lines.next_if(|line| !line.starts_with('#')) {
                assert!(sample.starts_with(name), "{sample} below {name}");
                let value = sample.rsplit_once(' ').unwrap().1;
                assert!(value.parse::<f64>().unwrap().is_finite(), "{sample}");
            }
            families += 1;
        }
        assert!(families >= 15, "{text}");
    }

    #[test]
    fn what_has_not_happened_yet_is_shown_at_zero() {
        let text = used().render();
        for outcome in ["ok", "rate_limited", "connection_lost", "malformed"] {
            let series =
                format!("token_requests_total{{client=\"catalog\",outcome=\"{outcome}\"}}");
            assert_eq!(value(&text, &series), 0.0);
        }
        let series = "refused_total{listener=\"local\",reason=\"no-token\"}";
        assert_eq!(value(&text, series), 0.0);
        assert_eq!(value(&text, "token_usable{client=\"catalog\"}"), 0.0);
    }

    #[test]
    fn a_client_and_a_listener_are_counted() {
        let metrics = used();
        let client = metrics.client("catalog");
        client.token_request("rate_limited", Duration::from_millis(20));
        client.token_request("unheard_of", Duration::from_millis(20));
        let held = TokenTimes {
            generation: 3,
            issued: SystemTime::UNIX_EPOCH + Duration::from_secs(1_000),
            expires: SystemTime::UNIX_EPOCH + Duration::from_secs(1_299),
        };
        client.token(true, Some(held));
        client.pool(3.5, 5);
        let under_way = client.in_flight();
        let listener = metrics.listener("local");
        let open = listener.connection();
        listener.refused("host");

        let text = metrics.render();
        let of_client = |name: &str| value(&text, &format!("{name}{{client=\"catalog\"}}"));
        assert_eq!(of_client("token_usable"), 1.0);
        assert_eq!(of_client("token_generation"), 3.0);
        assert_eq!(of_client("token_issued_timestamp_seconds"), 1_000.0);
        assert_eq!(of_client("token_expiry_timestamp_seconds"), 1_299.0);
        assert_eq!(of_client("token_pool_available"), 3.5);
        assert_eq!(of_client("token_pool_capacity"), 5.0);
        assert_eq!(of_client("requests_in_flight"), 1.0);
        assert_eq!(of_client("request_duration_seconds_count"), 1.0);
        assert_eq!(of_client("upstream_duration_seconds_sum"), 0.03);
        assert_eq!(of_client("token_request_duration_seconds_count"), 2.0);
        assert_eq!(value(&text, "connections{listener=\"local\"}"), 1.0);
        let refused = "refused_total{listener=\"local\",reason=\"host\"}";
        assert_eq!(value(&text, refused), 1.0);
        let answered = "requests_total{app=\"\",client=\"catalog\",code=\"200\",method=\"GET\"}";
        assert_eq!(value(&text, answered), 1.0);
        assert_eq!(
            (client.requests_total(), client.requests_in_flight()),
            (1, 1)
        );

        drop((under_way, open));
        assert_eq!(
            (client.requests_in_flight(), listener.connections()),
            (0, 0)
        );
    }

    #[test]
    fn a_refused_configuration_is_told_until_one_is_taken_over() {
        let metrics = used();
        let failed = || value(&metrics.render(), "config_reload_failed");
        let at = || value(&metrics.render(), "config_reload_success_timestamp_seconds");
        assert_eq!((failed(), at()), (0.0, 1_000.0));
        metrics.config_refused();
        assert_eq!((failed(), at()), (1.0, 1_000.0));
        metrics.config_loaded(SystemTime::UNIX_EPOCH + Duration::from_secs(1_001));
        assert_eq!((failed(), at()), (0.0, 1_001.0));
    }

    #[test]
    fn what_dies_silently_is_looked_up_at_each_scrape() {
        let metrics = used();
        let client = metrics.client("catalog");
        let alive = Arc::new(std::sync::atomic::AtomicBool::new(true));
        let seen = Arc::clone(&alive);
        metrics
            .on_scrape(move || client.token(seen.load(std::sync::atomic::Ordering::Relaxed), None));
        let usable =
            |metrics: &Metrics| value(&metrics.render(), "token_usable{client=\"catalog\"}");
        assert_eq!(usable(&metrics), 1.0);
        alive.store(false, std::sync::atomic::Ordering::Relaxed);
        assert_eq!(usable(&metrics), 0.0);
    }
}
