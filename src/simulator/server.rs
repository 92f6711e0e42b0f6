//! The sockets: listening, TLS, and one task per connection.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use http::Request;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::oneshot;
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;
use tokio_util::either::Either;

use super::reply::Reply;
use super::wire::{Line, Wire};
use super::world::World;
use super::{api, control, token_endpoint};

/// How many connections the kernel queues until they are accepted; it may cap this (`somaxconn`).
const BACKLOG: u32 = 4096;

/// The timeout of a TLS handshake.
const HANDSHAKE: Duration = Duration::from_secs(10);

/// Binds the address; connections queue up from then on.
pub(super) fn listen(address: SocketAddr) -> std::io::Result<TcpListener> {
    let socket = match address {
        SocketAddr::V4(_) => TcpSocket::new_v4()?,
        SocketAddr::V6(_) => TcpSocket::new_v6()?,
    };
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

/// Serves until it is told to stop or dropped; its connections end with it.
pub(super) async fn serve(
    listener: TcpListener,
    tls: Option<TlsAcceptor>,
    world: Arc<World>,
    mut stop: oneshot::Receiver<()>,
) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((tcp, _)) => {
                    connections.spawn(connection(tcp, tls.clone(), world.clone()));
                }
                Err(error) => {
                    // most likely out of file descriptors: some will become free
                    tracing::warn!(%error, "the simulator cannot accept a connection");
                    tokio::time::sleep(Duration::from_millis(10)).await;
                }
            },
            Some(_) = connections.join_next() => {}
            _ = &mut stop => break,
        }
    }
    drop(listener);
    connections.shutdown().await;
}

async fn connection(tcp: TcpStream, tls: Option<TlsAcceptor>, world: Arc<World>) {
    if let Err(error) = tcp.set_nodelay(true) {
        tracing::debug!(%error, "TCP_NODELAY cannot be set");
    }
    let stream = match tls {
        None => Either::Left(tcp),
        Some(tls) => match tokio::time::timeout(HANDSHAKE, tls.accept(tcp)).await {
            Ok(Ok(stream)) => Either::Right(Box::new(stream)),
            Ok(Err(error)) => return tracing::debug!(%error, "a TLS handshake failed"),
            Err(_) => return tracing::debug!("a TLS handshake took too long"),
        },
    };
    let line = Line::default();
    let wire = TokioIo::new(Wire::new(stream, line.clone()));
    let service = service_fn(move |request: Request<_>| {
        let (world, line) = (world.clone(), line.clone());
        async move { Ok::<_, Infallible>(route(&world, &line, request.map(Body::new)).await) }
    });
    if let Err(error) = http1::Builder::new().serve_connection(wire, service).await {
        tracing::debug!(%error, "a connection ended early");
    }
}

async fn route(world: &Arc<World>, line: &Line, request: Request<Body>) -> Reply {
    match request.uri().path() {
        token_endpoint::PATH => token_endpoint::answer(world, line, request).await,
        path if path.starts_with(control::PREFIX) => control::answer(world, request).await,
        _ => api::answer(world, line, request).await,
    }
}
