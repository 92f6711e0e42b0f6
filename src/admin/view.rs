//! The sources of the admin address: the clients' tokens, the listeners, the metrics, the clock.

use std::collections::BTreeMap;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::SystemTime;

use arc_swap::{ArcSwap, ArcSwapOption};
use jiff::Timestamp;
use prometheus::GaugeVec;
use tokio::sync::Notify;
use tokio::time::{MissedTickBehavior, interval};

use super::history::{ClientSample, History, STEP};
use super::report::{AppReport, ListenerReport, StatusReport};
use crate::client_id::ClientId;
use crate::clock::{Clock, Instant};
use crate::telemetry::metrics::Format;
use crate::telemetry::{CertificateKind, Expiry, Levels, Metrics};
use crate::token::cache::TokenSlot;
use crate::token::ports::TokenStore;
use crate::token::service::Control;
use crate::upstream::health::ApiHealth;

/// The sources of everything shown. The composition root builds it.
#[derive(Debug)]
pub struct View {
    /// This program's version.
    pub version: &'static str,
    /// When the process started, by the wall clock.
    pub started: SystemTime,
    /// The same on the monotonic clock, for the uptime.
    pub up_since: Instant,
    /// The clock that decides when tokens expire.
    pub clock: Arc<dyn Clock>,
    /// The metrics.
    pub metrics: Arc<Metrics>,
    /// The current clients, apps and listeners.
    pub parts: ArcSwap<Parts>,
    /// The refused configuration, until another one is accepted.
    pub refused: ArcSwapOption<Refused>,
    /// Whether the process is draining and therefore not ready.
    pub draining: Arc<AtomicBool>,
    /// Notified when a caller asks the process to drain and exit.
    pub drain: Arc<Notify>,
    /// The history.
    pub history: Mutex<History>,
}

/// A configuration that was refused; the one before stays in force.
#[derive(Clone, Debug)]
pub struct Refused {
    /// When the first faulty configuration was refused, since the last accepted one.
    pub since: Instant,
    /// The faults of the last one. They quote no value.
    pub faults: Vec<String>,
}

/// The parts of the configuration in force.
#[derive(Clone, Debug, Default)]
pub struct Parts {
    /// The clients.
    pub clients: Vec<ClientView>,
    /// The apps, as configured.
    pub apps: Vec<AppReport>,
    /// The listeners, as configured.
    pub listeners: Vec<ListenerReport>,
    /// The accepted values of `Host` besides localhost and IP addresses, in lower case.
    pub hosts: Vec<String>,
    /// The certificates that the configuration names.
    pub certificates: Vec<Certificate>,
    /// The configuration without its secrets.
    pub config: serde_json::Value,
}

/// A certificate, as shown.
#[derive(Clone, Debug)]
pub struct Certificate {
    /// The kind of its owner.
    pub kind: CertificateKind,
    /// The name of the listener or instance.
    pub name: Arc<str>,
    /// When it expires.
    pub expires: Expiry,
}

/// A client, as shown.
#[derive(Clone, Debug)]
pub struct ClientView {
    /// The client's name in the configuration.
    pub name: Arc<str>,
    /// The URL of its instance.
    pub instance: String,
    /// Its identifier at Collibra.
    pub client_id: ClientId,
    /// The slot of its token.
    pub slot: Arc<TokenSlot>,
    /// Controls the engine that renews it.
    pub engine: Control,
    /// The kind of its store.
    pub store_kind: &'static str,
    /// Its store.
    pub store: Arc<dyn TokenStore>,
    /// The health of its instance's API.
    pub api: Arc<ApiHealth>,
}

impl View {
    /// Renders the metrics. Those of the report are of this moment: an expired token is shown as
    /// such, and the series of a removed client end.
    pub(super) fn metrics(&self, format: Format) -> String {
        self.metrics
            .render(format, |levels| set_levels(levels, &self.report()))
    }

    /// Samples every client and app each [`STEP`], until the view is dropped.
    pub async fn keep_history(view: Weak<View>) {
        let mut steps = interval(STEP);
        steps.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            steps.tick().await;
            let Some(view) = view.upgrade() else { return };
            view.sample();
        }
    }

    /// Adds a step to the history.
    pub(super) fn sample(&self) {
        let (parts, now) = (self.parts.load(), self.clock.now());
        let mut history = self.past();
        for client in &parts.clients {
            let sample = ClientSample {
                totals: self.metrics.client_totals(&client.name),
                tokens: self.metrics.client(&client.name).tokens_total(),
                pool: client.slot.status().pool.available(now),
            };
            history.add_client(&client.name, sample);
        }
        for app in &parts.apps {
            let totals = self.metrics.app(&app.name).totals();
            history.add_app(&app.name, &totals, self.clock.wall());
        }
        history.keep(
            |name| parts.clients.iter().any(|client| *client.name == *name),
            |name| parts.apps.iter().any(|app| *app.name == *name),
        );
    }

    /// Locks the history; a panic elsewhere leaves nothing inconsistent in it.
    pub(super) fn past(&self) -> MutexGuard<'_, History> {
        let past = self.history.lock();
        past.unwrap_or_else(PoisonError::into_inner)
    }
}

/// Sets the gauges of a scrape.
fn set_levels(levels: &Levels, report: &StatusReport) {
    #[expect(clippy::cast_precision_loss, reason = "no count here reaches 2^53")]
    let count = |count: u64| count as f64;
    let seconds = |at: Timestamp| at.as_duration().as_secs_f64();
    let set = |gauge: &GaugeVec, labels: &[&String], value: f64| {
        gauge.with_label_values(labels).set(value);
    };
    let mut stores = BTreeMap::new();
    for client in &report.clients {
        let (name, token) = (&[&client.name], client.token.as_ref());
        let (expiry, issued) = (token.map(|t| t.expires), token.map(|t| t.issued));
        let generation = token.map_or(0, |token| token.generation);
        let failures = client.failure.as_ref().map_or(0, |last| last.in_a_row);
        let next = client.next.at.unwrap_or(report.at);
        set(&levels.token_usable, name, f64::from(client.is_usable()));
        set(&levels.token_expiry, name, expiry.map_or(0.0, seconds));
        set(&levels.token_issued, name, issued.map_or(0.0, seconds));
        set(&levels.token_generation, name, count(generation));
        set(&levels.token_next_request, name, seconds(next));
        set(&levels.token_failures, name, failures.into());
        set(&levels.token_pool_available, name, client.pool.available);
        let capacity = client.pool.capacity.into();
        set(&levels.token_pool_capacity, name, capacity);
        if let Some(store) = &client.store {
            *stores.entry(&store.kind).or_insert(true) &= store.problem.is_none();
        }
    }
    for (kind, is_up) in stores {
        set(&levels.store_up, &[kind], f64::from(is_up));
    }
    for app in &report.apps {
        let name = &[&app.name];
        set(&levels.app_in_flight, name, count(app.in_flight));
        if let Some(most) = app.max_in_flight {
            set(&levels.app_in_flight_max, name, count(most));
        }
        if let Some(most) = app.max_rate {
            set(&levels.app_rate_max, name, most);
        }
    }
    for listener in &report.listeners {
        let most = count(listener.max_connections as u64);
        set(&levels.connections_max, &[&listener.name], most);
    }
    for certificate in &report.certificates {
        let labels = &[&certificate.kind, &certificate.name];
        let expires = seconds(certificate.expires);
        set(&levels.certificate_expiry, labels, expires);
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::clock::{Instant, ManualClock};
    use crate::secret::Secret;
    use crate::token::budget::{self, Budget};
    use crate::token::cache::{Failure, NextAttempt, Status};
    use crate::token::ports::{Lease, Membership, Outcome, Record, RequestError, StoreError};
    use crate::token::token::Token;
    use async_trait::async_trait;
    use std::time::Duration;

    /// A store of three replicas.
    #[derive(Debug)]
    struct Fleet;

    #[async_trait]
    impl TokenStore for Fleet {
        async fn read(&self) -> Result<Option<Record>, StoreError> {
            Ok(None)
        }

        async fn lease(&self, _length: Duration) -> Result<Option<Box<dyn Lease>>, StoreError> {
            Ok(None)
        }

        async fn changed(&self) {}

        fn membership(&self) -> Membership {
            Membership::Member { before: 1, all: 3 }
        }
    }

    /// The access token of every client here: it must be seen nowhere.
    pub(in crate::admin) const CANARY: &str = "canary-5e1f";

    /// A view under a clock that stands until it is moved. One client, without a token.
    pub(in crate::admin) fn view() -> (Arc<View>, ManualClock) {
        let clock = ManualClock::at(SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000));
        let parts = Parts {
            clients: vec![client("catalog", &clock)],
            apps: vec![AppReport {
                name: "lineage".to_owned(),
                max_in_flight: Some(32),
                ..AppReport::default()
            }],
            listeners: vec![ListenerReport {
                name: "local".to_owned(),
                address: "127.0.0.1:8080".to_owned(),
                client: "catalog".to_owned(),
                max_connections: 10_000,
                ..ListenerReport::default()
            }],
            hosts: Vec::new(),
            certificates: Vec::new(),
            config: serde_json::Value::Null,
        };
        let view = Arc::new(View {
            version: "0.0.0",
            started: clock.wall(),
            up_since: clock.now(),
            clock: Arc::new(clock.clone()),
            metrics: Arc::new(Metrics::new("0.0.0")),
            parts: ArcSwap::from_pointee(parts),
            refused: ArcSwapOption::empty(),
            draining: Arc::default(),
            drain: Arc::default(),
            history: Mutex::default(),
        });
        (view, clock)
    }

    fn client(name: &str, clock: &ManualClock) -> ClientView {
        ClientView {
            name: name.into(),
            instance: "https://acme.collibra.com".to_owned(),
            client_id: ClientId::parse("urn:sys:env:1:i:2").unwrap(),
            slot: Arc::new(TokenSlot::empty(clock.now(), Budget::full(POOL))),
            engine: tokio::sync::mpsc::unbounded_channel().0,
            store_kind: "redis",
            store: Arc::new(Fleet),
            api: Arc::new(ApiHealth::new("acme".into())),
        }
    }

    /// The slot of the one client.
    pub(in crate::admin) fn slot(view: &View) -> Arc<TokenSlot> {
        Arc::clone(&view.parts.load().clients[0].slot)
    }

    const POOL: budget::Config = budget::Config {
        capacity: 5,
        refill: Duration::from_secs(60),
    };

    fn taken_once(now: Instant) -> Budget {
        let mut pool = Budget::full(POOL);
        pool.take(now);
        pool
    }

    fn dry(now: Instant) -> Budget {
        let mut pool = Budget::full(POOL);
        pool.rate_limited(now, None);
        pool
    }

    /// A client with a token asked for at `now`, of 300 s, to be renewed at half of it.
    pub(in crate::admin) fn holds(now: Instant) -> Status {
        let secret = Secret::from(CANARY.to_owned());
        let token = Token::new(&secret, 7, now, Duration::from_secs(300)).unwrap();
        Status {
            token: Some(Arc::new(token)),
            issued_to: ClientId::parse("urn:sys:env:1:i:2").ok(),
            next: NextAttempt::At(now + Duration::from_secs(150)),
            failure: None,
            pool: taken_once(now),
            rejected: false,
            revoked: false,
            last_rejection_seen: 0,
            store_problem: None,
        }
    }

    /// The same client after an attempt at `now` was refused with a 429.
    pub(in crate::admin) fn refused(status: Status, now: Instant) -> Status {
        Status {
            next: NextAttempt::At(now + Duration::from_secs(60)),
            failure: Some(Failure {
                at: now,
                error: RequestError {
                    outcome: Outcome::RateLimited,
                    retry_after: None,
                    message: "acme.collibra.com says that the pool is empty".to_owned(),
                },
                in_a_row: 3,
            }),
            pool: dry(now),
            ..status
        }
    }

    #[test]
    fn the_metrics_show_a_token_that_dies_without_an_event() {
        let (view, clock) = view();
        let line = |name: &str| {
            let text = view.metrics(Format::Text);
            let start = format!("collibra_auth_proxy_{name}{{client=\"catalog\"}} ");
            let line = text.lines().find_map(|line| line.strip_prefix(&start));
            line.unwrap().to_owned()
        };
        assert_eq!(line("token_usable"), "0");
        slot(&view).publish(holds(clock.now()));
        assert_eq!(line("token_usable"), "1");
        assert_eq!(line("token_generation"), "7");
        assert_eq!(line("token_issued_timestamp_seconds"), "1800000000");
        assert_eq!(line("token_expiry_timestamp_seconds"), "1800000300");
        assert_eq!(line("token_pool_available"), "4");
        clock.advance(Duration::from_secs(297));
        assert_eq!(line("token_usable"), "0");
        assert_eq!(
            line("token_pool_available"),
            "5",
            "it refills without an event"
        );
        assert_eq!(line("token_expiry_timestamp_seconds"), "1800000300");
    }

    #[test]
    fn a_client_that_is_gone_is_shown_nowhere() {
        let (view, clock) = view();
        let of = |name: &str| {
            let text = view.metrics(Format::Text);
            let label = format!("{{client=\"{name}\"}}");
            let of_client = text.lines().filter(|line| line.contains(&label));
            // what was counted stays
            let counted = ["_total", "_duration", "requests", "token_waiters"];
            of_client
                .filter(|line| !counted.iter().any(|name| line.contains(name)))
                .count()
        };
        let all = of("catalog");
        assert_eq!(all, 8);
        view.parts.store(Arc::new(Parts {
            clients: vec![client("other", &clock)],
            ..Parts::default()
        }));
        assert_eq!((of("catalog"), of("other")), (0, all));
        assert_eq!(view.report().clients[0].name, "other");
        view.parts.store(Arc::new(Parts {
            clients: vec![client("catalog", &clock)],
            ..Parts::default()
        }));
        assert_eq!((of("catalog"), of("other")), (all, 0));
    }
}
