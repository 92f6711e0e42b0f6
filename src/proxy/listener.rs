//! Accepts connections and hands each to the data path, until told to stop.
//!
//! What is done with requests can be exchanged meanwhile ([`Listening::follow`]): the socket stays
//! open, every connection stays as it is, and the next request of each meets what is then in place.

use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::task::Poll;
use std::time::Duration;

use arc_swap::ArcSwap;
use pingora_core::apps::HttpServerApp;
use pingora_core::protocols::Stream;
use pingora_core::protocols::http::ServerSession;
use pingora_core::server::configuration::ServerConf;
use pingora_proxy::{HttpProxy, http_proxy};
use tokio::io::BufReader;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio_rustls::TlsAcceptor;
use tokio_util::task::TaskTracker;
use tracing::warn;

use super::connection::{Connection, Limits};
use super::http2;
use super::plan::Plan;
use super::service::Service;
use super::tls::Tls;
use super::transport::Transport;
use crate::clock::Clock;
use crate::socket::{Accepted, Socket};
use crate::tls::CaFile;

/// How long a connection is kept between two requests.
const KEEP_ALIVE: Duration = Duration::from_secs(60);

/// What is read ahead below TLS: a record (RFC 8446, section 5.1).
const READ_BUFFER: usize = 16 * 1024;

/// After a failed accept (no file descriptor left, say) the next try waits so long.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// How long a connection that was just opened may take for its request, once its listener is gone.
const LINGER: Duration = Duration::from_secs(1);

/// A data path. The certificates by which it verifies the other side are its own for ever; all
/// else is its plan's.
pub struct Server {
    ca_file: Option<CaFile>,
    plan: Arc<ArcSwap<Plan>>,
    proxy: Arc<HttpProxy<Service>>,
    /// Turns true when each connection is to end after its request.
    ending: watch::Sender<bool>,
}

/// A listener while it runs: what is done with the connections that its socket accepts.
#[derive(Debug)]
pub struct Listening {
    server: ArcSwap<Server>,
    /// Servers that were replaced, whose connections have not ended yet.
    replaced: Mutex<Vec<Weak<Server>>>,
    permits: Arc<Semaphore>,
    max_connections: AtomicUsize,
    closed: watch::Sender<bool>,
    /// Whether another process will accept those who wait when this one accepts nothing more.
    has_heir: AtomicBool,
}

impl Server {
    pub(super) fn new(plan: Arc<Plan>, clock: Arc<dyn Clock>, conf: ServerConf) -> Server {
        let ca_file = plan.client.upstream.instance().ca_file.clone();
        let plan = Arc::new(ArcSwap::new(plan));
        let ending = watch::Sender::new(false);
        let service = Service {
            plan: Arc::clone(&plan),
            clock,
            ca_file: ca_file.clone(),
            ending: ending.subscribe(),
        };
        Server {
            ca_file,
            plan,
            proxy: Arc::new(http_proxy(&Arc::new(conf), service)),
            ending,
        }
    }

    /// Serves the requests of one connection.
    async fn serve(self: Arc<Self>, connection: Connection) {
        if connection.is_http2() {
            let ending = self.ending.subscribe();
            http2::serve(connection, &self.proxy, KEEP_ALIVE, ending).await;
        } else {
            self.serve_http1(Box::new(connection)).await;
        }
    }

    /// Serves requests one after the other.
    async fn serve_http1(&self, stream: Stream) {
        let mut session = ServerSession::new_http1(stream);
        session.set_keepalive(Some(KEEP_ALIVE.as_secs()));
        let ending = self.ending.subscribe();
        while let Some(reused) = self.proxy.process_new_http(session, &ending).await {
            let (stream, settings) = reused.consume();
            if let Some(connection) = (*stream).as_any().downcast_ref::<Connection>() {
                connection.request_is_done();
            }
            session = ServerSession::new_http1(stream);
            if let Some(settings) = settings {
                settings.apply_to_session(&mut session);
            }
        }
    }

    /// Has every connection end after its request; one that is between two requests may have one
    /// more.
    fn end(&self) {
        self.ending.send_replace(true);
    }

    /// Ends the connections that are between two requests.
    async fn close_idle(&self) {
        self.proxy.http_cleanup().await;
    }
}

impl Listening {
    /// A listener whose connections `server` serves.
    #[must_use]
    pub fn new(server: Server) -> Listening {
        let max_connections = server.plan.load().listener.max_connections;
        Listening {
            server: ArcSwap::from_pointee(server),
            replaced: Mutex::default(),
            permits: Arc::new(Semaphore::new(max_connections)),
            max_connections: AtomicUsize::new(max_connections),
            closed: watch::Sender::new(false),
            has_heir: AtomicBool::new(false),
        }
    }

    /// Whether it can follow `plan`. Otherwise it needs another server, because the plan's
    /// instance is verified by other certificates.
    #[must_use]
    pub fn can_follow(&self, plan: &Plan) -> bool {
        self.server.load().ca_file == plan.client.upstream.instance().ca_file
    }

    /// Does with every further request what `plan` says. Connections that are open keep their
    /// limits on the heads of requests.
    pub fn follow(&self, plan: Arc<Plan>) {
        self.limit(plan.listener.max_connections);
        self.server.load().plan.store(plan);
    }

    /// Has further connections served by `server`; those that are open end after their request.
    pub fn replace(&self, server: Server) {
        self.limit(server.plan.load().listener.max_connections);
        let old = self.server.swap(Arc::new(server));
        old.end();
        let mut replaced = self.replaced.lock().unwrap_or_else(PoisonError::into_inner);
        replaced.retain(|server| server.strong_count() > 0);
        replaced.push(Arc::downgrade(&old));
    }

    /// Serves `socket` until [`Listening::close`] or [`Listening::retire`] is called, then closes
    /// it. Connections go on in tasks that `connections` knows of.
    pub async fn serve(self: Arc<Self>, socket: Arc<Socket>, connections: TaskTracker) {
        let mut closed = self.closed.subscribe();
        loop {
            let permit = tokio::select! {
                permit = Arc::clone(&self.permits).acquire_owned() => permit.ok(),
                _ = closed.wait_for(|closed| *closed) => break,
            };
            let accepted = tokio::select! {
                accepted = socket.accept() => accepted,
                _ = closed.wait_for(|closed| *closed) => break,
            };
            match accepted {
                Ok(stream) => self.admit(stream, permit, &connections),
                Err(e) => {
                    let name = Arc::clone(&self.server.load().plan.load().listener.name);
                    warn!(listener = %name, "cannot accept a connection: {e}");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
        if self.has_heir.load(Ordering::Relaxed) {
            return;
        }
        // the kernel has told these callers already that they are connected
        let waiting = || std::future::poll_fn(|cx| Poll::Ready(socket.poll_accept(cx)));
        while let Poll::Ready(Ok(stream)) = waiting().await {
            self.admit(stream, None, &connections);
        }
    }

    /// The socket stays open elsewhere: who waits at it when this listener is closed is left to
    /// the process that accepts there next.
    pub fn has_heir(&self) {
        self.has_heir.store(true, Ordering::Relaxed);
    }

    /// Accepts nothing more, and ends every connection that is between two requests; the others
    /// end after theirs.
    pub async fn close(&self) {
        self.wind_down();
        self.close_idle().await;
    }

    /// As [`Listening::close`], but gently: a connection that was just opened may still have its
    /// one request. Takes a second.
    pub async fn retire(&self) {
        self.wind_down();
        tokio::time::sleep(LINGER).await;
        self.close_idle().await;
    }

    /// Accepts nothing more. Every connection may have one more request, at whose end it is closed.
    pub fn wind_down(&self) {
        self.closed.send_replace(true);
        for server in self.servers() {
            server.end();
        }
    }

    async fn close_idle(&self) {
        for server in self.servers() {
            server.close_idle().await;
        }
    }

    fn servers(&self) -> Vec<Arc<Server>> {
        let replaced = self.replaced.lock().unwrap_or_else(PoisonError::into_inner);
        let replaced = replaced.iter().filter_map(Weak::upgrade);
        replaced.chain([self.server.load_full()]).collect()
    }

    fn admit(
        &self,
        stream: Accepted,
        permit: Option<OwnedSemaphorePermit>,
        connections: &TaskTracker,
    ) {
        let server = self.server.load_full();
        let plan = server.plan.load();
        let listener = &plan.listener;
        let limits = Limits {
            header_timeout: listener.header_timeout,
            max_header_bytes: listener.max_header_bytes,
            min_body_rate: listener.min_body_rate,
        };
        let tls = listener.tls.as_ref().map(Tls::acceptor);
        let metrics = Arc::clone(&plan.metrics);
        drop(plan);
        let open = metrics.connection();
        connections.spawn(async move {
            if let Some(transport) = shake_hands(stream, tls, limits.header_timeout).await {
                let connection = Connection::new(transport, limits, metrics, open);
                server.serve(connection).await;
            }
            drop(permit);
        });
    }

    /// Serves at most `most` connections at once from now on, or as soon as enough have ended.
    fn limit(&self, most: usize) {
        let before = self.max_connections.swap(most, Ordering::Relaxed);
        self.permits.add_permits(most.saturating_sub(before));
        let surplus = u32::try_from(before.saturating_sub(most)).unwrap_or(u32::MAX);
        if surplus > 0 {
            let permits = Arc::clone(&self.permits);
            tokio::spawn(async move {
                if let Ok(taken) = permits.acquire_many_owned(surplus).await {
                    taken.forget();
                }
            });
        }
    }
}

/// What an accepted connection runs over. Who does not speak TLS where it is asked for, or takes
/// too long, is let go without a word.
async fn shake_hands(
    stream: Accepted,
    tls: Option<TlsAcceptor>,
    patience: Duration,
) -> Option<Transport> {
    if let Accepted::Tcp(stream) = &stream {
        let _ = stream.set_nodelay(true);
    }
    let Some(tls) = tls else {
        return Some(Transport::Plain(stream));
    };
    // records are read in small pieces
    let stream = BufReader::with_capacity(READ_BUFFER, stream);
    match tokio::time::timeout(patience, tls.accept(stream)).await {
        Ok(Ok(stream)) => Some(Transport::Tls(Box::new(stream))),
        Ok(Err(_)) | Err(_) => None,
    }
}

impl fmt::Debug for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Server")
            .field("plan", &self.plan.load())
            .finish_non_exhaustive()
    }
}
