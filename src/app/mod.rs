//! The one composition root: a validated configuration becomes a running server, and another one
//! takes its place while it runs.
//!
//! Everything is built here and handed down; nothing below looks anything up by itself. What is
//! bound is bound before anything is asked of Collibra, so an address that is in use costs no
//! token. Starting is taking the first configuration's place from nothing: there is one way in
//! which parts come to be (`draft`), and it changes nothing before all of them can be had.

mod draft;

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio_util::task::TaskTracker;
use tracing::{info, warn};

use crate::admin::{self, AppView, ClientView, ListenerView, View};
use crate::clock::Clock;
use crate::config::{self, Config, reload};
use crate::oauth::client;
use crate::proxy::app::Apps;
use crate::proxy::config::{App, Listener};
use crate::proxy::plan::Client;
use crate::proxy::upstream::Upstream;
use crate::proxy::{self, Listening};
use crate::socket::{Address, Socket};
use crate::store;
use crate::telemetry::Metrics;
use draft::Made;

/// Why the server cannot start, or cannot take over a configuration.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// An address cannot be listened on.
    #[error("cannot listen on {address} ({what}): {cause}")]
    Bind {
        /// The address.
        address: Address,
        /// Which part of the configuration asks for it.
        what: String,
        /// The system's reason.
        cause: io::Error,
    },
    /// The token endpoint's client cannot be made.
    #[error("client {client}: {cause}")]
    TokenClient {
        /// The client's name in the configuration.
        client: Arc<str>,
        /// Why not.
        cause: client::BuildError,
    },
    /// A client's token cannot be kept where it should be.
    #[error("client {client}: {cause}")]
    Store {
        /// The client's name in the configuration.
        client: Arc<str>,
        /// Why not.
        cause: store::BuildError,
    },
    /// The data path cannot be made.
    #[error("listener {listener}: {cause}")]
    Proxy {
        /// The listener's name in the configuration.
        listener: Arc<str>,
        /// Why not.
        cause: proxy::Error,
    },
    /// An instance's host cannot be sent as `Host`.
    #[error("instance {0}: its host cannot be sent in a header")]
    Host(Arc<str>),
}

/// A running server. It stops when this is dropped; [`Running::drain`] stops it gently.
#[derive(Debug)]
pub struct Running {
    config: Config,
    parts: Parts,
    admin: Address,
    view: Arc<View>,
    metrics: Arc<Metrics>,
    clock: Arc<dyn Clock>,
    draining: Arc<AtomicBool>,
    drain_asked: Arc<Notify>,
    connections: TaskTracker,
    tasks: JoinSet<()>,
}

/// What a configuration is made into.
#[derive(Debug, Default)]
struct Parts {
    instances: BTreeMap<Arc<str>, Arc<Upstream>>,
    clients: BTreeMap<Arc<str>, Arc<Client>>,
    apps: Arc<Apps>,
    /// In the order of the configuration.
    listeners: Vec<Open>,
}

/// A listener whose socket is open.
#[derive(Clone, Debug)]
struct Open {
    name: Arc<str>,
    /// The address that the configuration says; its port may be 0.
    asked: Address,
    /// The address that it has.
    address: Address,
    listening: Arc<Listening>,
}

/// Starts the server on the current runtime. It serves as soon as this returns; whether it holds a
/// token yet is told by the admin address.
///
/// # Errors
/// [`StartError`] says which part cannot start and why.
pub async fn start(config: Config, clock: Arc<dyn Clock>) -> Result<Running, StartError> {
    let asked = &config.admin.address;
    let admin_socket = bind(asked, "admin.address".to_owned())?;
    let admin = admin_socket.address(asked);
    let metrics = Arc::new(Metrics::new(env!("CARGO_PKG_VERSION")));
    let draining = Arc::new(AtomicBool::new(false));
    let drain_asked = Arc::new(Notify::new());
    let view = Arc::new(View {
        version: env!("CARGO_PKG_VERSION"),
        started: clock.wall(),
        clock: Arc::clone(&clock),
        metrics: Arc::clone(&metrics),
        parts: Default::default(),
        draining: Arc::clone(&draining),
        drain: Arc::clone(&drain_asked),
    });
    let mut running = Running {
        config,
        parts: Parts::default(),
        admin: admin.clone(),
        view: Arc::clone(&view),
        metrics,
        clock,
        draining,
        drain_asked,
        connections: TaskTracker::new(),
        tasks: JoinSet::new(),
    };
    let made = draft::make(&running, &running.config)?;
    running.carry_out(made);
    view.export_tokens();
    // it answers to the very end, so that a probe sees the drain
    let serving = admin::serve(admin_socket, view, std::future::pending());
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

    /// Where apps are served, by the listeners' names: with the ports that the system chose where
    /// the configuration says 0.
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

    /// Has `config` take the place of the configuration in force. Requests under way end as they
    /// began; what is the same in both goes on untouched. Gives the keys whose new values count
    /// from the next start on.
    ///
    /// # Errors
    /// [`StartError`] if a part of it cannot be made; nothing has changed then.
    pub fn reload(&mut self, mut config: Config) -> Result<Vec<&'static str>, StartError> {
        reload::keep_tls(&self.config, &mut config);
        let made = draft::make(self, &config).inspect_err(|_| self.refused())?;
        let needs_restart = reload::needs_restart(&self.config, &config);
        config.admin = self.config.admin.clone();
        config.server.threads = self.config.server.threads;
        self.config = config;
        self.carry_out(made);
        Ok(needs_restart)
    }

    /// A configuration could not take the place of the one in force: the metrics tell of it.
    pub fn refused(&self) {
        self.metrics.config_refused();
    }

    /// Ends when a caller of the admin address asks for the drain.
    pub async fn drain_asked(&self) {
        self.drain_asked.notified().await;
    }

    /// Accepts nothing more, closes what is idle and lets what is under way finish for as long as
    /// `patience`. Gives how many connections were then cut.
    pub async fn drain(mut self, patience: Duration) -> usize {
        self.draining.store(true, Ordering::Relaxed);
        for open in &self.parts.listeners {
            open.listening.close().await;
        }
        self.connections.close();
        let finished = tokio::time::timeout(patience, self.connections.wait()).await;
        let cut = match finished {
            Ok(()) => 0,
            Err(_elapsed) => self.connections.len(),
        };
        self.tasks.shutdown().await;
        cut
    }

    /// Puts into effect what was made for the configuration in force.
    fn carry_out(&mut self, made: Made) {
        // those that have ended
        while self.tasks.try_join_next().is_some() {}

        for (engine, orders) in made.orders {
            // an engine runs for as long as its sender, which is in hand
            let _ = engine.send(orders);
        }
        for task in made.tasks {
            self.tasks.spawn(task);
        }
        for (listening, plan) in made.plans {
            plan.put_into(&listening);
        }
        for address in made.modes {
            if let Err(error) = address.apply_mode() {
                warn!(%address, "the socket keeps its mode: {error}");
            }
        }
        let gone = std::mem::replace(&mut self.parts, made.parts).listeners;
        for open in gone {
            let mut now = self.parts.listeners.iter();
            if !now.any(|kept| Arc::ptr_eq(&kept.listening, &open.listening)) {
                info!(listener = %open.name, address = %open.address, "closed");
                self.tasks
                    .spawn(async move { open.listening.retire().await });
            }
        }
        self.view.parts.store(Arc::new(self.shown()));
        self.metrics.config_loaded(self.clock.wall());
    }

    fn shown(&self) -> admin::Parts {
        let config = &self.config;
        let client = |client: &config::Client| ClientView {
            name: Arc::clone(&client.name),
            instance: config.instances[&client.instance].origin(),
            client_id: client.oauth.client_id.clone(),
            cell: Arc::clone(&self.parts.clients[&client.name].cell),
        };
        let app = |app: &Arc<App>| AppView {
            name: Arc::clone(&app.name),
            client: app.client.clone(),
        };
        let listener = |(listener, open): (&Listener, &Open)| ListenerView {
            name: Arc::clone(&open.name),
            address: open.address.clone(),
            client: Arc::clone(&listener.client),
        };
        let listeners = config.listeners.iter().zip(&self.parts.listeners);
        admin::Parts {
            clients: config.clients.values().map(client).collect(),
            apps: config.apps.values().map(app).collect(),
            listeners: listeners.map(listener).collect(),
        }
    }
}

fn bind(address: &Address, what: String) -> Result<Socket, StartError> {
    Socket::bind(address).map_err(|cause| StartError::Bind {
        address: address.clone(),
        what,
        cause,
    })
}
