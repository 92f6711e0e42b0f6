//! The server of the admin address: HTTP/1.1 over TCP or a unix socket, with a limit on every wait.
//!
//! A probe is answered whatever other callers do. A connection is accepted at once: at the limit,
//! the one that has been idle longest is closed. If callers of the proxy hold every descriptor, a
//! reserve provides one.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use hyper::server::conn::http1;
use hyper::service::{Service, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use hyper_util::service::TowerToHyperService;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

use super::connection::{Connections, Guarded, NEW, Progress};
use super::local::Caller;
use super::routes::routes;
use super::view::View;
use crate::clock::{Clock, Instant};
use crate::descriptors::{Reserve, is_shortage};
use crate::socket::{Accepted, Socket};

/// The largest head of a request, in bytes.
const MAX_HEADER_BYTES: usize = 16 * 1024;

/// The pause after a failed accept: a small part of what a probe may take, because several can fail
/// in a row.
const ACCEPT_PAUSE: Duration = Duration::from_millis(10);

/// How many descriptors are reserved for probes.
const RESERVED: usize = 16;

/// How often failed accepts are reported.
const REPORTS: Duration = Duration::from_secs(60);

/// The time limits and the connection limit.
#[derive(Clone, Copy, Debug)]
struct Limits {
    /// How long a connection may take to send a request's head, or stay idle between two requests.
    head: Duration,
    /// How long a connection may leave its response unread.
    write: Duration,
    /// How long responses may take to be sent after the shutdown.
    shutdown: Duration,
    /// The most open connections.
    connections: usize,
}

const LIMITS: Limits = Limits {
    head: Duration::from_secs(10),
    write: Duration::from_secs(10),
    shutdown: Duration::from_secs(2),
    connections: 128,
};

/// Serves `view` on `listener` until `shutdown` completes, and then for at most two seconds.
pub async fn serve(listener: Arc<Socket>, view: Arc<View>, shutdown: impl Future<Output = ()>) {
    serve_within(LIMITS, listener, view, shutdown).await;
}

async fn serve_within(
    limits: Limits,
    listener: Arc<Socket>,
    view: Arc<View>,
    shutdown: impl Future<Output = ()>,
) {
    let clock = Arc::clone(&view.clock);
    let closing = CancellationToken::new();
    let routes = TowerToHyperService::new(routes(view, closing.clone()));
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new())
        .header_read_timeout(limits.head)
        .max_buf_size(MAX_HEADER_BYTES);
    let graceful = GracefulShutdown::new();
    // dropping it ends all remaining connections
    let mut tasks = JoinSet::new();
    let mut acceptor = Acceptor {
        connections: Connections::default(),
        reserve: Reserve::new(RESERVED),
        clock: &*clock,
        reported: None,
    };
    let mut shutdown = pin!(shutdown);
    loop {
        let stream = tokio::select! {
            () = &mut shutdown => break,
            Some(ended) = tasks.join_next_with_id() => {
                let id = ended.map_or_else(|cut| cut.id(), |(id, ())| id);
                acceptor.connections.remove(id);
                acceptor.reserve.refill();
                continue;
            }
            stream = acceptor.accept(&listener) => stream,
        };
        let Some(stream) = stream else {
            continue;
        };
        while acceptor.connections.len() >= limits.connections {
            if !acceptor.connections.shed() {
                sleep(NEW).await;
            }
        }
        let (routes, caller) = (routes.clone(), Caller::of(&stream));
        let service = service_fn(move |mut request| {
            request.extensions_mut().insert(caller);
            routes.call(request)
        });
        let progress = Progress::new();
        let stream = Guarded::new(stream, progress.clone(), limits.write);
        let connection = http.serve_connection(TokioIo::new(stream), service);
        let connection = graceful.watch(connection);
        let task = tasks.spawn(async move {
            if let Err(error) = connection.await {
                tracing::debug!(%error, "a connection to the admin address broke");
            }
        });
        acceptor.connections.add(task, progress);
    }
    drop(listener);
    closing.cancel();
    if timeout(limits.shutdown, graceful.shutdown()).await.is_err() {
        tracing::debug!("connections to the admin address were cut");
    }
}

/// Accepts connections, even if descriptors are short.
struct Acceptor<'c> {
    connections: Connections,
    reserve: Reserve,
    clock: &'c dyn Clock,
    reported: Option<Instant>,
}

impl Acceptor<'_> {
    /// The next connection. `None` if there was no descriptor for it; then a connection was closed,
    /// whose descriptor becomes free when its task ends.
    async fn accept(&mut self, listener: &Socket) -> Option<Accepted> {
        loop {
            match listener.accept().await {
                Ok(stream) => {
                    self.reserve.refill();
                    return Some(stream);
                }
                // another thread may take the descriptor first, so free more than one
                Err(error) if is_shortage(&error) && self.reserve.spend() => {}
                Err(error) => {
                    self.report(&error);
                    let has_cut = is_shortage(&error) && self.connections.shed();
                    sleep(ACCEPT_PAUSE).await;
                    if has_cut {
                        return None;
                    }
                }
            }
        }
    }

    /// Logs that connections cannot be accepted, once a minute.
    fn report(&mut self, error: &std::io::Error) {
        let now = self.clock.now();
        if self.reported.is_none_or(|at| now.since(at) >= REPORTS) {
            self.reported = Some(now);
            tracing::warn!(%error, "the admin address cannot accept connections");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::view::tests::view;
    use super::*;
    use std::net::SocketAddr;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::{TcpListener, TcpStream};
    use tokio::sync::oneshot;
    use tokio::task::JoinHandle;

    const LIMITS: Limits = Limits {
        head: Duration::from_millis(300),
        write: Duration::from_millis(300),
        shutdown: Duration::from_millis(200),
        connections: 4,
    };

    /// The longest that a sound machine takes for anything here.
    const SOON: Duration = Duration::from_secs(30);

    async fn served(limits: Limits) -> (SocketAddr, oneshot::Sender<()>, JoinHandle<()>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (stop, stopped) = oneshot::channel::<()>();
        let shutdown = async move {
            let _ = stopped.await;
        };
        let server = tokio::spawn(serve_within(
            limits,
            Arc::new(Socket::Tcp(listener)),
            view().0,
            shutdown,
        ));
        (address, stop, server)
    }

    #[tokio::test]
    async fn a_caller_that_never_ends_its_head_does_not_hold_the_shutdown_up() {
        let limits = Limits {
            head: SOON * 2,
            ..LIMITS
        };
        let (address, stop, server) = served(limits).await;
        let mut slow = TcpStream::connect(address).await.unwrap();
        slow.write_all(b"GET /livez HTTP/1.1\r\nHost:")
            .await
            .unwrap();
        let mut idle = TcpStream::connect(address).await.unwrap();
        idle.write_all(b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n")
            .await
            .unwrap();
        let mut start = [0; 12];
        idle.read_exact(&mut start).await.unwrap();
        assert_eq!(&start, b"HTTP/1.1 200");

        stop.send(()).unwrap();
        timeout(SOON, server).await.unwrap().unwrap();
        let mut rest = Vec::new();
        let _ = slow.read_to_end(&mut rest).await;
        assert!(!rest.starts_with(b"HTTP/1.1 2"), "it was cut");
        assert!(TcpStream::connect(address).await.is_err());
    }

    #[tokio::test]
    async fn a_caller_that_takes_nothing_is_cut() {
        let (address, _stop, _server) = served(LIMITS).await;
        let mut caller = TcpStream::connect(address).await.unwrap();
        // a write waits once all buffers are full, and fails once the other side is gone
        let request = b"GET /status.js HTTP/1.1\r\nHost: localhost\r\n\r\n";
        let cut = async { while caller.write_all(request).await.is_ok() {} };
        timeout(SOON, cut).await.unwrap();
    }

    #[tokio::test]
    async fn the_connection_that_stood_still_for_longest_makes_room() {
        let limits = Limits {
            head: SOON * 2,
            ..LIMITS
        };
        let (address, _stop, _server) = served(limits).await;
        let mut callers = Vec::new();
        for _ in 0..limits.connections {
            callers.push(TcpStream::connect(address).await.unwrap());
        }
        let mut stillest = callers.pop().unwrap();
        livez(&mut stillest).await;
        for caller in &mut callers {
            livez(caller).await;
        }
        let mut late = TcpStream::connect(address).await.unwrap();
        livez(&mut late).await;
        let read = timeout(SOON, stillest.read(&mut [0])).await.unwrap();
        assert!(matches!(read, Ok(0) | Err(_)), "it was cut");
        for caller in &mut callers {
            livez(caller).await;
        }
    }

    /// Asks for `/livez` and reads the answer.
    async fn livez(caller: &mut TcpStream) {
        let request = b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n";
        caller.write_all(request).await.unwrap();
        let mut answer = Vec::new();
        while !answer.ends_with(b"ok\n") {
            let read = timeout(SOON, caller.read_buf(&mut answer)).await;
            assert_ne!(read.unwrap().unwrap(), 0, "it was cut");
        }
        assert!(answer.starts_with(b"HTTP/1.1 200 "));
    }

    #[tokio::test]
    async fn silent_callers_do_not_keep_others_out() {
        let (address, _stop, _server) = served(LIMITS).await;
        let mut silent = Vec::new();
        for _ in 0..LIMITS.connections {
            silent.push(TcpStream::connect(address).await.unwrap());
        }
        let mut late = TcpStream::connect(address).await.unwrap();
        late.write_all(b"GET /livez HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
            .await
            .unwrap();
        let mut answer = String::new();
        let served = timeout(SOON, late.read_to_string(&mut answer));
        served.await.unwrap().unwrap();
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    }
}
