//! The server of the admin address: HTTP/1.1 over TCP or a unix socket, with an end to every wait.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use hyper::server::conn::http1;
use hyper::service::{Service, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use hyper_util::service::TowerToHyperService;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use super::drain::Caller;
use super::routes::routes;
use super::view::View;
use crate::socket::{Accepted, Socket};

/// The largest head of a request, in bytes.
const MAX_HEADER_BYTES: usize = 16 * 1024;

/// The pause after a failed accept, which mostly means that the process is out of descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// The ends of the waits.
#[derive(Clone, Copy, Debug)]
struct Limits {
    /// How long a connection may take for the head of a request, or stay silent between two.
    head: Duration,
    /// How long answers may take to leave after the shutdown.
    shutdown: Duration,
    /// How many connections are served at once; further ones wait to be accepted.
    connections: usize,
}

const LIMITS: Limits = Limits {
    head: Duration::from_secs(10),
    shutdown: Duration::from_secs(2),
    connections: 128,
};

/// Serves `view` on `listener` until `shutdown` ends, and then for at most two seconds more.
pub async fn serve(listener: Arc<Socket>, view: Arc<View>, shutdown: impl Future<Output = ()>) {
    serve_within(LIMITS, listener, view, shutdown).await;
}

async fn serve_within(
    limits: Limits,
    listener: Arc<Socket>,
    view: Arc<View>,
    shutdown: impl Future<Output = ()>,
) {
    let routes = TowerToHyperService::new(routes(view));
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new())
        .header_read_timeout(limits.head)
        .max_buf_size(MAX_HEADER_BYTES);
    let room = Arc::new(Semaphore::new(limits.connections));
    let open = GracefulShutdown::new();
    // whatever is left in it when it is dropped is cut
    let mut tasks = JoinSet::new();
    let mut shutdown = pin!(shutdown);
    loop {
        let (stream, place) = tokio::select! {
            () = &mut shutdown => break,
            Some(_ended) = tasks.join_next() => continue,
            accepted = accept(&listener, &room) => accepted,
        };
        let (routes, caller) = (routes.clone(), Caller::of(&stream));
        let service = service_fn(move |mut request| {
            request.extensions_mut().insert(caller);
            routes.call(request)
        });
        let connection = http.serve_connection(TokioIo::new(stream), service);
        let connection = open.watch(connection);
        tasks.spawn(async move {
            if let Err(error) = connection.await {
                tracing::debug!(%error, "a connection to the admin address broke");
            }
            drop(place);
        });
    }
    drop(listener);
    if timeout(limits.shutdown, open.shutdown()).await.is_err() {
        tracing::debug!("connections to the admin address were cut");
    }
}

/// The next connection, once there is room for it.
async fn accept(
    listener: &Socket,
    room: &Arc<Semaphore>,
) -> (Accepted, Option<OwnedSemaphorePermit>) {
    // the semaphore is never closed, so there always is a place in the end
    let place = Arc::clone(room).acquire_owned().await.ok();
    loop {
        match listener.accept().await {
            Ok(stream) => return (stream, place),
            Err(error) => {
                tracing::warn!(%error, "the admin address cannot accept a connection");
                sleep(ACCEPT_PAUSE).await;
            }
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
