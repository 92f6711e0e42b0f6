//! Accepts connections and hands each to the data path, until told to stop.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use pingora_core::apps::HttpServerApp;
use pingora_core::protocols::Stream;
use pingora_core::protocols::http::ServerSession;
use pingora_core::protocols::l4::stream::Stream as TransportStream;
use pingora_core::server::configuration::ServerConf;
use pingora_proxy::{HttpProxy, http_proxy};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio_util::task::TaskTracker;
use tracing::warn;

use super::connection::{Connection, Limits};
use super::service::Service;
use crate::telemetry::ListenerMetrics;

/// How long a connection is kept between two requests, in seconds.
const KEEP_ALIVE: u64 = 60;

/// How many connections the kernel holds for us until they are accepted.
const BACKLOG: u32 = 4096;

/// After a failed accept (no file descriptor left, say) the next try waits so long.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Opens the listening socket.
///
/// # Errors
/// If the address cannot be bound.
pub fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = match address {
        SocketAddr::V4(_) => TcpSocket::new_v4()?,
        SocketAddr::V6(_) => TcpSocket::new_v6()?,
    };
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

/// The data path of one listener.
pub struct Server {
    name: Arc<str>,
    limits: Limits,
    permits: Arc<Semaphore>,
    metrics: Arc<ListenerMetrics>,
    proxy: Arc<HttpProxy<Service>>,
}

impl Server {
    pub(super) fn new(service: Service, conf: ServerConf) -> Server {
        let listener = &service.listener;
        Server {
            name: Arc::clone(&listener.name),
            limits: Limits {
                header_timeout: listener.header_timeout,
                max_header_bytes: listener.max_header_bytes,
            },
            permits: Arc::new(Semaphore::new(listener.max_connections)),
            metrics: Arc::clone(&service.metrics),
            proxy: Arc::new(http_proxy(&Arc::new(conf), service)),
        }
    }

    /// Serves `socket` until `shutdown` turns true, then closes it. Connections go on in tasks
    /// that `connections` knows of.
    pub async fn serve(
        self: Arc<Self>,
        socket: TcpListener,
        mut shutdown: watch::Receiver<bool>,
        connections: TaskTracker,
    ) {
        loop {
            let permit = tokio::select! {
                permit = Arc::clone(&self.permits).acquire_owned() => permit,
                _ = shutdown.wait_for(|stop| *stop) => return,
            };
            let accepted = tokio::select! {
                accepted = socket.accept() => accepted,
                _ = shutdown.wait_for(|stop| *stop) => return,
            };
            let stream = match accepted {
                Ok((stream, _)) => stream,
                Err(e) => {
                    warn!(listener = %self.name, "cannot accept a connection: {e}");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                    continue;
                }
            };
            let connection = Box::new(self.connection(stream));
            let proxy = Arc::clone(&self.proxy);
            let shutdown = shutdown.clone();
            connections.spawn(async move {
                serve_connection(proxy, connection, &shutdown).await;
                drop(permit);
            });
        }
    }

    /// Ends the connections that are between two requests.
    pub async fn close_idle(&self) {
        self.proxy.http_cleanup().await;
    }

    fn connection(&self, stream: TcpStream) -> Connection {
        let _ = stream.set_nodelay(true);
        let stream = TransportStream::from(stream);
        Connection::new(stream, self.limits, Arc::clone(&self.metrics))
    }
}

impl fmt::Debug for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Server")
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}

/// Serves the requests of one connection, one after the other.
async fn serve_connection(
    proxy: Arc<HttpProxy<Service>>,
    stream: Stream,
    shutdown: &watch::Receiver<bool>,
) {
    let mut session = ServerSession::new_http1(stream);
    session.set_keepalive(Some(KEEP_ALIVE));
    while let Some(reused) = proxy.process_new_http(session, shutdown).await {
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
