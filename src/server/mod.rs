//! The composition root: builds a running server from a validated configuration, and replaces the
//! configuration while it runs.
//!
//! Every part is built here and passed down; nothing below looks anything up by itself. Addresses
//! are bound before the first request to Collibra, so an address in use costs no token. A start
//! replaces an empty configuration, so parts are built in one way only (`assembly`), which changes
//! nothing until all of them are ready.

mod assembly;
pub mod handoff;

use std::collections::BTreeMap;
use std::io;
use std::os::fd::AsFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio_util::task::TaskTracker;
use tracing::{info, warn};

use self::handoff::{IncomingHandoff, OutgoingHandoff};
use crate::admin::{self, AppView, Certificate, ClientView, ListenerView, Past, View};
use crate::clock::Clock;
use crate::config::{self, Config, reload};
use crate::local_token::Revoked;
use crate::memory;
use crate::oauth::client;
use crate::proxy::Listening;
use crate::proxy::app::Apps;
use crate::proxy::config::{App, Listener};
use crate::proxy::listener_state::Client;
use crate::socket::{Address, Socket};
use crate::store::key::Key;
use crate::store::{self, record};
use crate::telemetry::{CertificateKind, Expiry, Metrics};
use crate::token::ports::TokenStore;
use crate::trace::{self, Tracer};
use crate::upstream::{self, Upstream};
use assembly::NewParts;

/// The name of the admin address among the sockets of a handoff.
const ADMIN: &str = "admin";

/// How long idle connections may take to close.
const LINGER: Duration = Duration::from_secs(1);

/// How long tasks may take to end when the process exits.
const LAST_MOMENT: Duration = Duration::from_millis(500);

/// Why the server cannot start, or cannot apply a configuration.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The process cannot listen on an address.
    #[error("cannot listen on {address} ({what}): {cause}")]
    Bind {
        /// The address.
        address: Address,
        /// The key that configures it.
        what: String,
        /// The operating system's error.
        cause: io::Error,
    },
    /// The token endpoint's client cannot be built.
    #[error("client {client}: {cause}")]
    TokenClient {
        /// The client's name in the configuration.
        client: Arc<str>,
        /// The cause.
        cause: client::BuildError,
    },
    /// A client's store cannot be used.
    #[error("client {client}: {cause}")]
    Store {
        /// The client's name in the configuration.
        client: Arc<str>,
        /// The cause.
        cause: store::BuildError,
    },
    /// An instance is unusable.
    #[error("instance {instance}: {cause}")]
    Instance {
        /// The instance's name in the configuration.
        instance: Arc<str>,
        /// The cause.
        cause: upstream::Error,
    },
    /// The tracer cannot be built.
    #[error(transparent)]
    Trace(#[from] trace::BuildError),
}

/// A running server. Dropping it stops it at once; [`Running::drain`] stops it gracefully.
#[derive(Debug)]
pub struct Running {
    config: Config,
    parts: Parts,
    admin: Address,
    admin_socket: Weak<Socket>,
    admin_is_kept: bool,
    /// Notified when a successor takes over the admin address.
    admin_closed: Arc<Notify>,
    view: Arc<View>,
    metrics: Arc<Metrics>,
    tracer: Option<Arc<Tracer>>,
    clock: Arc<dyn Clock>,
    /// The local tokens that a logout ended, at any listener.
    revoked: Arc<Revoked>,
    draining: Arc<AtomicBool>,
    drain_asked: Arc<Notify>,
    connections: TaskTracker,
    tasks: JoinSet<()>,
}

/// The parts built from a configuration.
#[derive(Debug, Default)]
struct Parts {
    instances: BTreeMap<Arc<str>, Arc<Upstream>>,
    clients: BTreeMap<Arc<str>, Arc<Client>>,
    /// The store of each client.
    stores: BTreeMap<Arc<str>, Arc<dyn TokenStore>>,
    apps: Arc<Apps>,
    /// Ordered as in the configuration.
    listeners: Vec<Open>,
}

/// A listener whose socket is open.
#[derive(Clone, Debug)]
struct Open {
    name: Arc<str>,
    /// The configured address; its port may be 0.
    asked: Address,
    /// The actual address.
    address: Address,
    /// Valid while the listener is open.
    socket: Weak<Socket>,
    /// Whether the service manager holds the socket open too.
    is_kept: bool,
    listening: Arc<Listening>,
}

/// Starts the server on the current runtime. It serves when this returns; the admin address reports
/// whether it has tokens yet. It uses the sockets and tokens of `incoming` where they fit. The
/// files of unix sockets belong to the predecessor until [`Running::own_files`].
///
/// # Errors
/// [`StartError`] says which part cannot start and why.
pub async fn start(
    config: Config,
    clock: Arc<dyn Clock>,
    mut incoming: IncomingHandoff,
) -> Result<Running, StartError> {
    let asked = &config.admin.address;
    let (admin_socket, admin_is_kept) = incoming.open(ADMIN, asked, "admin.address")?;
    let admin = admin_socket.address(asked);
    let metrics = Arc::new(Metrics::new(env!("CARGO_PKG_VERSION")));
    let draining = Arc::new(AtomicBool::new(false));
    let drain_asked = Arc::new(Notify::new());
    let view = Arc::new(View {
        version: env!("CARGO_PKG_VERSION"),
        started: clock.wall(),
        up_since: clock.now(),
        clock: Arc::clone(&clock),
        metrics: Arc::clone(&metrics),
        parts: Default::default(),
        refused: Default::default(),
        draining: Arc::clone(&draining),
        drain: Arc::clone(&drain_asked),
        history: Past::default(),
    });
    let tracer = match &config.trace {
        Some(trace) => Some(Arc::new(Tracer::new(trace, Arc::clone(&clock))?)),
        None => None,
    };
    let mut running = Running {
        config,
        parts: Parts::default(),
        admin: admin.clone(),
        admin_socket: Arc::downgrade(&admin_socket),
        admin_is_kept,
        admin_closed: Arc::default(),
        view: Arc::clone(&view),
        metrics,
        tracer,
        clock,
        revoked: Arc::default(),
        draining,
        drain_asked,
        connections: TaskTracker::new(),
        tasks: JoinSet::new(),
    };
    let new = assembly::assemble(&running, &running.config, &mut incoming)?;
    for name in incoming.sockets.left() {
        warn!(
            socket = name,
            "closed a socket of the handoff, because nothing is configured for it"
        );
    }
    running.apply(new);
    running.taken_over();
    view.export_tokens();
    running
        .tasks
        .spawn(View::keep_history(Arc::downgrade(&view)));
    running.tasks.spawn(memory::keep_giving_back());
    // it responds to the very end, so that probes see the drain, unless a successor responds
    let closed = Arc::clone(&running.admin_closed);
    let serving = admin::serve(admin_socket, view, async move { closed.notified().await });
    running.tasks.spawn(serving);
    info!(address = %admin, "admin address open");
    Ok(running)
}

impl Running {
    /// The configuration in force.
    #[must_use]
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// The listeners' addresses by name, with the chosen port if the configuration says 0.
    #[must_use]
    pub fn listeners(&self) -> Vec<(Arc<str>, Address)> {
        let listeners = self.parts.listeners.iter();
        listeners
            .map(|open| (Arc::clone(&open.name), open.address.clone()))
            .collect()
    }

    /// The admin address.
    #[must_use]
    pub fn admin(&self) -> &Address {
        &self.admin
    }

    /// Replaces the configuration in force by `config`. Requests in flight keep the old one, and
    /// unchanged parts keep running. Returns the keys whose new values apply only after a restart.
    ///
    /// # Errors
    /// [`StartError`] if a part cannot be built; then nothing has changed.
    pub fn reload(&mut self, config: Config) -> Result<Vec<String>, StartError> {
        let exchanged = self.exchange(config);
        match &exchanged {
            Ok(_) => self.taken_over(),
            Err(why) => self.refused(vec![why.to_string()]),
        }
        exchanged
    }

    /// Reloads the files of the configuration in force, while a newer configuration is refused.
    ///
    /// # Errors
    /// See [`Running::reload`].
    pub fn reread(&mut self, config: Config) -> Result<Vec<String>, StartError> {
        self.exchange(config)
    }

    fn exchange(&mut self, mut config: Config) -> Result<Vec<String>, StartError> {
        reload::keep_tls(&self.config, &mut config);
        let nothing = &mut IncomingHandoff::default();
        let new = assembly::assemble(self, &config, nothing)?;
        let needs_restart = reload::needs_restart(&self.config, &mut config);
        self.config = config;
        self.apply(new);
        Ok(needs_restart)
    }

    /// Records that a configuration was refused for these `faults`. Metrics and status show it
    /// until another one is accepted.
    pub fn refused(&self, faults: Vec<String>) {
        let before = self.view.refused.load();
        let since = before
            .as_ref()
            .map_or_else(|| self.clock.now(), |before| before.since);
        let refused = admin::Refused { since, faults };
        self.view.refused.store(Some(Arc::new(refused)));
        self.metrics.config_refused();
    }

    fn taken_over(&self) {
        self.view.refused.store(None);
        self.metrics.config_loaded(self.clock.wall());
    }

    /// Completes when a caller of the admin address requests the drain.
    pub async fn drain_asked(&self) {
        self.drain_asked.notified().await;
    }

    /// Stops accepting, closes idle connections, and lets requests in flight finish within
    /// `patience`. Returns how many connections were then cut.
    pub async fn drain(mut self, patience: Duration) -> usize {
        self.draining.store(true, Ordering::Relaxed);
        for open in &self.parts.listeners {
            open.listening.drain();
        }
        self.connections.close();
        let cut = self.left_after(patience).await;
        self.end_tasks().await;
        self.leave_stores().await;
        self.flush_spans().await;
        cut
    }

    /// Stops the tasks. A task that is stuck in a system call ends with the process.
    async fn end_tasks(&mut self) {
        let _ = tokio::time::timeout(LAST_MOMENT, self.tasks.shutdown()).await;
    }

    /// Drains as [`Running::drain`] does while a successor serves the same sockets. As there is no
    /// hurry, an idle connection may have one more request within `patience`.
    pub async fn leave(mut self, patience: Duration) -> usize {
        for open in &self.parts.listeners {
            open.listening.has_successor();
            open.listening.wind_down();
        }
        self.admin_closed.notify_one();
        self.connections.close();
        let mut cut = self.left_after(patience).await;
        if cut > 0 {
            for open in &self.parts.listeners {
                open.listening.close();
            }
            cut = self.left_after(LINGER).await;
        }
        self.end_tasks().await;
        self.leave_stores().await;
        self.flush_spans().await;
        cut
    }

    /// Sends the remaining spans, within a short limit.
    async fn flush_spans(&mut self) {
        if let Some(tracer) = self.tracer.take() {
            tracer.shutdown(LAST_MOMENT).await;
        }
    }

    /// Gives up this process's standby place in the stores, within a short limit.
    async fn leave_stores(&self) {
        let mut leaving: JoinSet<()> = self
            .parts
            .stores
            .values()
            .map(Arc::clone)
            .map(|store| async move { store.leave().await })
            .collect();
        let all = async { while leaving.join_next().await.is_some() {} };
        // otherwise it expires
        let _ = tokio::time::timeout(LAST_MOMENT, all).await;
    }

    /// Returns the sockets and tokens for a successor.
    ///
    /// # Errors
    /// The operating system's error if a socket cannot be duplicated.
    pub fn handoff(&self) -> io::Result<OutgoingHandoff> {
        let mut handoff = OutgoingHandoff::default();
        let listeners = self.parts.listeners.iter();
        let listeners =
            listeners.map(|open| (&*open.name, &open.asked, &open.socket, open.is_kept));
        let asked = &self.config.admin.address;
        let admin = (ADMIN, asked, &self.admin_socket, self.admin_is_kept);
        for (name, asked, socket, is_kept) in [admin].into_iter().chain(listeners) {
            if let Some(socket) = socket.upgrade() {
                handoff.socket(name, asked, is_kept, socket.as_fd().try_clone_to_owned()?);
            }
        }
        for client in self.config.clients.values() {
            let status = self.parts.clients[&client.name].slot.status();
            let record = status.record(&client.oauth.client_id, &*self.clock);
            match record::seal(&key(&self.config, client), &record) {
                Ok(sealed) => handoff.token(&client.name, &sealed),
                Err(error) => warn!(client = %client.name, "its token was not handed off: {error}"),
            }
        }
        Ok(handoff)
    }

    /// Sets whether the files of the unix sockets are removed at the end, except the service
    /// manager's.
    pub fn own_files(&self, are_owned: bool) {
        let listeners = self.parts.listeners.iter();
        let listeners = listeners.map(|open| (&open.socket, open.is_kept));
        let sockets = listeners.chain([(&self.admin_socket, self.admin_is_kept)]);
        for (socket, is_kept) in sockets {
            if let Some(socket) = socket.upgrade() {
                socket.own_file(are_owned && !is_kept);
            }
        }
    }

    /// Waits until all connections have ended, for at most `patience`; returns how many are left.
    async fn left_after(&self, patience: Duration) -> usize {
        let finished = tokio::time::timeout(patience, self.connections.wait()).await;
        match finished {
            Ok(()) => 0,
            Err(_elapsed) => self.connections.len(),
        }
    }

    /// Applies the new parts for the configuration in force.
    fn apply(&mut self, new: NewParts) {
        // remove ended tasks
        while self.tasks.try_join_next().is_some() {}

        for (engine, order) in new.orders {
            // the engine runs as long as this sender, which is held here
            let _ = engine.send(order);
        }
        // in order, and before the first connection's own lines
        for (listener, open) in self.config.listeners.iter().zip(&new.parts.listeners) {
            let mut before = self.parts.listeners.iter();
            if !before.any(|kept| Arc::ptr_eq(&kept.listening, &open.listening)) {
                let (name, client) = (&listener.name, &listener.client);
                let scheme = listener.scheme();
                info!(listener = %name, address = %open.address, scheme, %client, "listening");
            }
        }
        for task in new.tasks {
            self.tasks.spawn(task);
        }
        for (listening, state) in new.states {
            listening.follow(state);
        }
        for address in new.modes {
            if let Err(error) = address.apply_mode() {
                warn!(%address, "the socket keeps its mode: {error}");
            }
        }
        let gone = std::mem::replace(&mut self.parts, new.parts).listeners;
        for open in gone {
            let mut now = self.parts.listeners.iter();
            if !now.any(|kept| Arc::ptr_eq(&kept.listening, &open.listening)) {
                info!(listener = %open.name, address = %open.address, "closed");
                self.tasks
                    .spawn(async move { open.listening.retire().await });
            }
        }
        self.view.parts.store(Arc::new(self.shown()));
    }

    /// The certificates whose expiry operators watch.
    fn certificates(&self) -> Vec<Certificate> {
        let listeners = self.config.listeners.iter().filter_map(|listener| {
            Some(Certificate {
                kind: CertificateKind::Listener,
                name: Arc::clone(&listener.name),
                expires: Expiry::at(listener.expires()?),
            })
        });
        let clients = self.config.instances.iter().filter_map(|(name, instance)| {
            Some(Certificate {
                kind: CertificateKind::Client,
                name: Arc::clone(name),
                expires: Expiry::at(instance.identity.as_ref()?.expires()?),
            })
        });
        let instances = self
            .parts
            .instances
            .iter()
            .map(|(name, upstream)| Certificate {
                kind: CertificateKind::Instance,
                name: Arc::clone(name),
                expires: upstream.certificate().clone(),
            });
        listeners.chain(clients).chain(instances).collect()
    }

    fn shown(&self) -> admin::Parts {
        let config = &self.config;
        let client = |client: &config::Client| ClientView {
            name: Arc::clone(&client.name),
            instance: config.instances[&client.instance].origin(),
            client_id: client.oauth.client_id.clone(),
            slot: Arc::clone(&self.parts.clients[&client.name].slot),
            engine: self.parts.clients[&client.name].engine.clone(),
            store_kind: config.store.kind(),
            store: Arc::clone(&self.parts.stores[&client.name]),
            api: Arc::clone(self.parts.clients[&client.name].upstream.health()),
        };
        let app = |app: &Arc<App>| AppView {
            name: Arc::clone(&app.name),
            client: app.client.clone(),
            max_in_flight: app
                .limits
                .max_in_flight
                .and_then(|most| u64::try_from(most).ok()),
            requests_per_second: app.limits.requests_per_second,
        };
        let listener = |(listener, open): (&Listener, &Open)| ListenerView {
            name: Arc::clone(&open.name),
            address: open.address.clone(),
            client: match &listener.forward {
                Some(forward) => forward.clients.join(", ").into(),
                None => Arc::clone(&listener.client),
            },
            max_connections: listener.max_connections,
        };
        let listeners = config.listeners.iter().zip(&self.parts.listeners);
        admin::Parts {
            clients: config.clients.values().map(client).collect(),
            apps: config.apps.values().map(app).collect(),
            listeners: listeners.map(listener).collect(),
            hosts: config.admin.hosts.clone(),
            certificates: self.certificates(),
            config: config::effective::tree(config),
        }
    }
}

/// The key that seals a client's token.
fn key(config: &Config, client: &config::Client) -> Key {
    let instance = config.instances[&client.instance].origin();
    let oauth = &client.oauth;
    Key::new(&instance, &oauth.client_id, &oauth.client_secret)
}

impl IncomingHandoff {
    /// Returns the socket for `name` at `address`, received or new, and whether the service manager
    /// holds it open too. `what` is the key that configures it.
    fn open(
        &mut self,
        name: &str,
        address: &Address,
        what: &str,
    ) -> Result<(Arc<Socket>, bool), StartError> {
        let socket = match self.sockets.take(name, address) {
            Ok(Some(taken)) => Ok(taken),
            Ok(None) => Socket::bind(address).map(|socket| (socket, false)),
            Err(cause) => Err(cause),
        };
        let taken = socket.map(|(socket, is_kept)| (Arc::new(socket), is_kept));
        taken.map_err(|cause| StartError::Bind {
            address: address.clone(),
            what: what.to_owned(),
            cause,
        })
    }
}
