//! The one composition root: a validated configuration becomes a running server.
//!
//! Everything is built here and handed down; nothing below looks anything up by itself. What is
//! bound is bound before anything is asked of Collibra, so an address that is in use costs no
//! token.

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_util::task::TaskTracker;
use tracing::info;

use crate::admin::{self, ClientView, ListenerView, View};
use crate::clock::Clock;
use crate::config::{self, Config};
use crate::oauth::client::{self, TokenClient};
use crate::proxy;
use crate::proxy::config::{Instance, Listener};
use crate::proxy::service::{Client, Service};
use crate::proxy::upstream::Upstream;
use crate::random::ThreadJitter;
use crate::store;
use crate::telemetry::{ClientMetrics, Metrics};
use crate::token;
use crate::token::ports::Outcome;
use crate::token::service::{Observer, TokenService};

/// Why the server cannot start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// An address cannot be listened on.
    #[error("cannot listen on {address} ({what}): {cause}")]
    Bind {
        /// The address.
        address: SocketAddr,
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
    listeners: Vec<(Arc<str>, SocketAddr)>,
    admin: SocketAddr,
    servers: Vec<Arc<proxy::Server>>,
    shutdown: watch::Sender<bool>,
    draining: Arc<AtomicBool>,
    connections: TaskTracker,
    tasks: JoinSet<()>,
}

/// Starts the server on the current runtime. It serves as soon as this returns; whether it holds a
/// token yet is told by the admin address.
///
/// # Errors
/// [`StartError`] says which part cannot start and why.
pub async fn start(config: Config, clock: Arc<dyn Clock>) -> Result<Running, StartError> {
    let admin_socket = bind(config.admin.address, "admin.address".to_owned())?;
    let sockets: Vec<TcpListener> = config
        .listeners
        .iter()
        .map(|l| bind(l.address, format!("listener.{}.address", l.name)))
        .collect::<Result<_, _>>()?;

    let metrics = Arc::new(Metrics::new(env!("CARGO_PKG_VERSION")));
    let (stop, shutdown) = watch::channel(false);
    let draining = Arc::new(AtomicBool::new(false));
    let mut parts = Parts {
        clock,
        metrics,
        tasks: JoinSet::new(),
    };
    let upstreams = parts.upstreams(&config)?;
    let clients = parts.clients(&config, &upstreams)?;

    let connections = TaskTracker::new();
    let mut servers = Vec::new();
    let mut listeners = Vec::new();
    for (listener, socket) in config.listeners.iter().zip(sockets) {
        let address = local_address(&socket, listener.address);
        let service = Service {
            listener: listener.clone(),
            client: Arc::clone(&clients[&listener.client]),
            metrics: parts.metrics.listener(&listener.name),
            clock: Arc::clone(&parts.clock),
            access_log: config.access_log,
        };
        let server = proxy::build(service).map_err(|cause| StartError::Proxy {
            listener: Arc::clone(&listener.name),
            cause,
        })?;
        let server = Arc::new(server);
        let serving = Arc::clone(&server).serve(socket, shutdown.clone(), connections.clone());
        parts.tasks.spawn(serving);
        info!(listener = %listener.name, %address, client = %listener.client, "listening");
        listeners.push((Arc::clone(&listener.name), address));
        servers.push(server);
    }

    let admin_address = local_address(&admin_socket, config.admin.address);
    let view = Arc::new(View {
        version: env!("CARGO_PKG_VERSION"),
        started: parts.clock.wall(),
        clock: Arc::clone(&parts.clock),
        metrics: Arc::clone(&parts.metrics),
        clients: shown_clients(&config, &clients),
        listeners: shown_listeners(&config, &listeners),
        draining: Arc::clone(&draining),
    });
    view.export_tokens();
    // it answers to the very end, so that a probe sees the drain
    parts
        .tasks
        .spawn(admin::serve(admin_socket, view, std::future::pending()));
    info!(address = %admin_address, "admin address open");

    Ok(Running {
        listeners,
        admin: admin_address,
        servers,
        shutdown: stop,
        draining,
        connections,
        tasks: parts.tasks,
    })
}

impl Running {
    /// Where apps are served, by the listeners' names: with the ports that the system chose where
    /// the configuration says 0.
    #[must_use]
    pub fn listeners(&self) -> &[(Arc<str>, SocketAddr)] {
        &self.listeners
    }

    /// The admin address.
    #[must_use]
    pub fn admin(&self) -> SocketAddr {
        self.admin
    }

    /// Accepts nothing more, closes what is idle and lets what is under way finish for as long as
    /// `patience`. Gives how many connections were then cut.
    pub async fn drain(mut self, patience: Duration) -> usize {
        self.draining.store(true, Ordering::Relaxed);
        self.shutdown.send_replace(true);
        for server in &self.servers {
            server.close_idle().await;
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
}

/// What is built on the way to a running server.
struct Parts {
    clock: Arc<dyn Clock>,
    metrics: Arc<Metrics>,
    tasks: JoinSet<()>,
}

type ByName<T> = BTreeMap<Arc<str>, Arc<T>>;

impl Parts {
    fn upstreams(&mut self, config: &Config) -> Result<ByName<Upstream>, StartError> {
        let mut upstreams = ByName::new();
        for (name, instance) in &config.instances {
            let upstream = Upstream::new(Arc::clone(instance))
                .map_err(|_| StartError::Host(Arc::clone(name)))?;
            let upstream = Arc::new(upstream);
            let resolved = Arc::clone(&upstream);
            self.tasks
                .spawn(async move { resolved.keep_resolved().await });
            upstreams.insert(Arc::clone(name), upstream);
        }
        Ok(upstreams)
    }

    fn clients(
        &mut self,
        config: &Config,
        upstreams: &ByName<Upstream>,
    ) -> Result<ByName<Client>, StartError> {
        let mut clients = ByName::new();
        for (name, client) in &config.clients {
            let endpoint =
                TokenClient::new(&client.oauth, Arc::clone(&self.clock)).map_err(|cause| {
                    StartError::TokenClient {
                        client: Arc::clone(name),
                        cause,
                    }
                })?;
            let kept = store::Client {
                name,
                instance: &address(&config.instances[&client.instance]),
                id: &client.oauth.client_id,
                secret: &client.oauth.client_secret,
            };
            let store =
                store::build(&config.store, kept, Arc::clone(&self.clock)).map_err(|cause| {
                    StartError::Store {
                        client: Arc::clone(name),
                        cause,
                    }
                })?;
            let metrics = self.metrics.client(name);
            let (engine, cell) = TokenService::new(token::service::Parts {
                client: Arc::clone(name),
                config: client.schedule,
                endpoint: Arc::new(endpoint),
                store,
                clock: Arc::clone(&self.clock),
                jitter: ThreadJitter,
                observer: Counted(Arc::clone(&metrics)),
            });
            self.tasks.spawn(engine.run());
            let client = Client {
                name: Arc::clone(name),
                cell,
                wait_for_token: client.wait_for_token,
                upstream: Arc::clone(&upstreams[&client.instance]),
                metrics,
            };
            clients.insert(Arc::clone(name), Arc::new(client));
        }
        Ok(clients)
    }
}

fn shown_clients(config: &Config, clients: &ByName<Client>) -> Vec<ClientView> {
    let shown = |client: &config::Client| ClientView {
        name: Arc::clone(&client.name),
        instance: address(&config.instances[&client.instance]),
        client_id: client.oauth.client_id.clone(),
        cell: Arc::clone(&clients[&client.name].cell),
    };
    config.clients.values().map(shown).collect()
}

/// An instance's address, like `https://acme.collibra.com`.
fn address(instance: &Instance) -> String {
    let scheme = if instance.tls { "https" } else { "http" };
    format!("{scheme}://{}", instance.authority)
}

fn shown_listeners(config: &Config, bound: &[(Arc<str>, SocketAddr)]) -> Vec<ListenerView> {
    let shown = |(listener, (name, address)): (&Listener, &(Arc<str>, SocketAddr))| ListenerView {
        name: Arc::clone(name),
        address: *address,
        client: Arc::clone(&listener.client),
    };
    config.listeners.iter().zip(bound).map(shown).collect()
}

/// Counts token requests in the metrics.
#[derive(Debug)]
struct Counted(Arc<ClientMetrics>);

impl Observer for Counted {
    fn token_request(&self, duration: Duration, outcome: Result<(), Outcome>) {
        let label = outcome.map_or_else(Outcome::label, |()| "ok");
        self.0.token_request(label, duration);
    }
}

fn bind(address: SocketAddr, what: String) -> Result<TcpListener, StartError> {
    proxy::listener::bind(address).map_err(|cause| StartError::Bind {
        address,
        what,
        cause,
    })
}

/// The address that a socket has, with the port that the system chose.
fn local_address(socket: &TcpListener, asked: SocketAddr) -> SocketAddr {
    socket.local_addr().unwrap_or(asked)
}
