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
use std::fmt::Display;
use std::io;
use std::os::fd::AsFd;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Weak};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio_util::task::TaskTracker;
use tracing::{info, warn};

use self::handoff::{IncomingHandoff, OutgoingHandoff};
use crate::admin::report::{AppReport, ListenerReport};
use crate::admin::{self, Certificate, ClientView, View};
use crate::clock::Clock;
use crate::config::{self, Config, reload};
use crate::local_token::Revoked;
use crate::memory;
use crate::proxy::Listening;
use crate::proxy::app::Apps;
use crate::proxy::client::Client;
use crate::proxy::config::{App, Listener};
use crate::socket::{Address, Socket};
use crate::store::key::Key;
use crate::store::record;
use crate::telemetry::{CertificateKind, Expiry, Metrics};
use crate::token::ports::TokenStore;
use crate::trace::Tracer;
use crate::upstream::Upstream;
use assembly::NewParts;

/// The name of the admin address among the sockets of a handoff.
const ADMIN: &str = "admin";

/// How long idle connections may take to close.
const LINGER: Duration = Duration::from_secs(1);

/// How long tasks may take to end when the process exits.
const LAST_MOMENT: Duration = Duration::from_millis(500);

/// Why the server cannot start, or cannot apply a configuration: which part failed, and the cause.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct StartError(String);

impl StartError {
    /// Returns the error that `part` failed because of its cause.
    fn of<E: Display>(part: impl Display) -> impl FnOnce(E) -> StartError {
        move |cause| StartError(format!("{part}: {cause}"))
    }
}

/// A running server. Dropping it stops it at once; [`Running::drain`] stops it gracefully.
#[derive(Debug)]
pub struct Running {
    config: Config,
    parts: Parts,
    admin: Bound,
    /// Notified when a successor takes over the admin address.
    admin_closed: Arc<Notify>,
    view: Arc<View>,
    tracer: Option<Arc<Tracer>>,
    /// The local tokens that a logout ended, at any listener.
    revoked: Arc<Revoked>,
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

/// A listener that is open.
#[derive(Clone, Debug)]
struct Open {
    socket: Bound,
    listening: Arc<Listening>,
}

/// An open socket.
#[derive(Clone, Debug)]
struct Bound {
    /// The listener's name, or [`ADMIN`].
    name: Arc<str>,
    /// The configured address; its port may be 0.
    asked: Address,
    /// The actual address.
    address: Address,
    /// Valid while the socket is open.
    socket: Weak<Socket>,
    /// Whether the service manager holds the socket open too.
    is_kept: bool,
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
    let (admin_socket, admin) = incoming.open(ADMIN, &config.admin.address, "admin.address")?;
    let view = Arc::new(View {
        version: env!("CARGO_PKG_VERSION"),
        started: clock.wall(),
        up_since: clock.now(),
        metrics: Arc::new(Metrics::new(env!("CARGO_PKG_VERSION"))),
        clock: Arc::clone(&clock),
        parts: Default::default(),
        refused: Default::default(),
        draining: Arc::default(),
        drain: Arc::default(),
        history: Default::default(),
    });
    let tracer = config.trace.as_ref();
    let tracer = tracer.map(|trace| Tracer::new(trace, Arc::clone(&clock)));
    let mut running = Running {
        config,
        parts: Parts::default(),
        admin,
        admin_closed: Arc::default(),
        view: Arc::clone(&view),
        tracer: tracer
            .transpose()
            .map_err(StartError::of("trace"))?
            .map(Arc::new),
        revoked: Arc::default(),
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
    running
        .tasks
        .spawn(View::keep_history(Arc::downgrade(&view)));
    running.tasks.spawn(memory::keep_giving_back());
    // it responds to the very end, so that probes see the drain, unless a successor responds
    let closed = Arc::clone(&running.admin_closed);
    let serving = admin::serve(admin_socket, view, async move { closed.notified().await });
    running.tasks.spawn(serving);
    info!(address = %running.admin.address, "admin address open");
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
        let sockets = self.parts.listeners.iter().map(|open| &open.socket);
        sockets
            .map(|socket| (Arc::clone(&socket.name), socket.address.clone()))
            .collect()
    }

    /// The admin address.
    #[must_use]
    pub fn admin(&self) -> &Address {
        &self.admin.address
    }

    /// Replaces the configuration in force by `config`. Requests in flight keep the old one, and
    /// unchanged parts keep running. Returns the keys whose new values apply only after a restart.
    ///
    /// # Errors
    /// [`StartError`] if a part cannot be built; then nothing has changed.
    pub fn reload(&mut self, config: Config) -> Result<Vec<String>, StartError> {
        let exchanged = self.reread(config);
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
    pub fn reread(&mut self, mut config: Config) -> Result<Vec<String>, StartError> {
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
            .map_or_else(|| self.view.clock.now(), |before| before.since);
        let refused = admin::Refused { since, faults };
        self.view.refused.store(Some(Arc::new(refused)));
        self.view.metrics.config_refused();
    }

    fn taken_over(&self) {
        self.view.refused.store(None);
        self.view.metrics.config_loaded(self.view.clock.wall());
    }

    /// Completes when a caller of the admin address requests the drain.
    pub async fn drain_asked(&self) {
        self.view.drain.notified().await;
    }

    /// Stops accepting, closes idle connections, and lets requests in flight finish within
    /// `patience`. Returns how many connections were then cut.
    pub async fn drain(self, patience: Duration) -> usize {
        self.view.draining.store(true, Ordering::Relaxed);
        for open in &self.parts.listeners {
            open.listening.drain();
        }
        self.connections.close();
        let cut = self.left_after(patience).await;
        self.end().await;
        cut
    }

    /// Drains as [`Running::drain`] does while a successor serves the same sockets. As there is no
    /// hurry, an idle connection may have one more request within `patience`.
    pub async fn leave(self, patience: Duration) -> usize {
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
        self.end().await;
        cut
    }

    /// Stops the tasks, gives up this process's standby place in the stores and sends the remaining
    /// spans, each within a short limit.
    async fn end(mut self) {
        // a task that is stuck in a system call ends with the process
        let _ = tokio::time::timeout(LAST_MOMENT, self.tasks.shutdown()).await;
        let stores = self.parts.stores.values();
        let leaving = futures_util::future::join_all(stores.map(|store| store.leave()));
        // otherwise the place expires
        let _ = tokio::time::timeout(LAST_MOMENT, leaving).await;
        if let Some(tracer) = self.tracer.take() {
            tracer.shutdown(LAST_MOMENT).await;
        }
    }

    /// The open sockets: the admin address's, then the listeners'.
    fn sockets(&self) -> impl Iterator<Item = (Arc<Socket>, &Bound)> {
        let listeners = self.parts.listeners.iter().map(|open| &open.socket);
        let bound = [&self.admin].into_iter().chain(listeners);
        bound.filter_map(|bound| Some((bound.socket.upgrade()?, bound)))
    }

    /// Returns the sockets and tokens for a successor.
    ///
    /// # Errors
    /// The operating system's error if a socket cannot be duplicated.
    pub fn handoff(&self) -> io::Result<OutgoingHandoff> {
        let mut handoff = OutgoingHandoff::default();
        for (socket, bound) in self.sockets() {
            let socket = socket.as_fd().try_clone_to_owned()?;
            handoff.socket(&bound.name, &bound.asked, bound.is_kept, socket);
        }
        for client in self.config.clients.values() {
            let status = self.parts.clients[&client.name].slot.status();
            let record = status.record(&client.oauth.client_id, &*self.view.clock);
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
        for (socket, bound) in self.sockets() {
            socket.own_file(are_owned && !bound.is_kept);
        }
    }

    /// Waits until all connections have ended, for at most `patience`; returns how many are left.
    async fn left_after(&self, patience: Duration) -> usize {
        let _ = tokio::time::timeout(patience, self.connections.wait()).await;
        self.connections.len()
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
                info!(listener = %name, address = %open.socket.address, scheme, %client, "listening");
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
                let Bound { name, address, .. } = &open.socket;
                info!(listener = %name, %address, "closed");
                self.tasks
                    .spawn(async move { open.listening.retire().await });
            }
        }
        self.view.parts.store(Arc::new(self.shown()));
    }

    /// The certificates whose expiry operators watch.
    fn certificates(&self) -> Vec<Certificate> {
        let listeners = self.config.listeners.iter().filter_map(|listener| {
            let expires = Expiry::at(listener.expires()?);
            Some((CertificateKind::Listener, &listener.name, expires))
        });
        let clients = self.config.instances.iter().filter_map(|(name, instance)| {
            let expires = Expiry::at(instance.identity.as_ref()?.expires()?);
            Some((CertificateKind::Client, name, expires))
        });
        let instances = self.parts.instances.iter();
        let instances = instances.map(|(name, upstream)| {
            (
                CertificateKind::Instance,
                name,
                upstream.certificate().clone(),
            )
        });
        let certificates = listeners.chain(clients).chain(instances);
        let certificate = |(kind, name, expires)| Certificate {
            kind,
            name: Arc::clone(name),
            expires,
        };
        certificates.map(certificate).collect()
    }

    fn shown(&self) -> admin::Parts {
        let config = &self.config;
        let client = |client: &config::Client| {
            let served = &self.parts.clients[&client.name];
            ClientView {
                name: Arc::clone(&client.name),
                instance: config.instances[&client.instance].origin(),
                client_id: client.oauth.client_id.clone(),
                slot: Arc::clone(&served.slot),
                engine: served.engine.clone(),
                store_kind: config.store.kind(),
                store: Arc::clone(&self.parts.stores[&client.name]),
                api: Arc::clone(served.upstream.health()),
            }
        };
        let app = |app: &Arc<App>| AppReport {
            name: app.name.to_string(),
            client: app.client.as_deref().map(str::to_owned),
            max_in_flight: app
                .limits
                .max_in_flight
                .and_then(|most| u64::try_from(most).ok()),
            max_rate: app.limits.requests_per_second,
            ..AppReport::default()
        };
        let listener = |(listener, open): (&Listener, &Open)| ListenerReport {
            name: open.socket.name.to_string(),
            address: open.socket.address.to_string(),
            client: match &listener.forward {
                Some(forward) => forward.clients.join(", "),
                None => listener.client.to_string(),
            },
            max_connections: listener.max_connections,
            ..ListenerReport::default()
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
    /// Returns the socket for `name` at `asked`, received or new. `what` is the key that configures
    /// it.
    fn open(
        &mut self,
        name: &str,
        asked: &Address,
        what: &str,
    ) -> Result<(Arc<Socket>, Bound), StartError> {
        let socket = match self.sockets.take(name, asked) {
            Ok(Some(taken)) => Ok(taken),
            Ok(None) => Socket::bind(asked).map(|socket| (socket, false)),
            Err(cause) => Err(cause),
        };
        let part = format!("cannot listen on {asked} ({what})");
        let (socket, is_kept) = socket.map_err(StartError::of(part))?;
        let socket = Arc::new(socket);
        let bound = Bound {
            name: name.into(),
            asked: asked.clone(),
            address: socket.address(asked),
            socket: Arc::downgrade(&socket),
            is_kept,
        };
        Ok((socket, bound))
    }
}
