//! The sockets: TLS, and one task per connection.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use http::Request;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;
use tokio_util::either::Either;

use super::reply::Reply;
use super::wire::{Line, Wire};
use super::world::World;
use super::{api, control, token_endpoint};

/// Serves until it is dropped; its connections end with it.
pub(super) async fn serve(listener: TcpListener, tls: Option<TlsAcceptor>, world: Arc<World>) {
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
        }
    }
}

async fn connection(tcp: TcpStream, tls: Option<TlsAcceptor>, world: Arc<World>) {
    let _ = tcp.set_nodelay(true);
    let stream = match tls {
        None => Either::Left(tcp),
        Some(tls) => match tls.accept(tcp).await {
            Ok(stream) => Either::Right(Box::new(stream)),
            Err(error) => return tracing::debug!(%error, "a TLS handshake failed"),
        },
    };
    let line = Line::default();
    let wire = TokioIo::new(Wire(stream, line.clone()));
    let service = service_fn(move |mut request: Request<_>| {
        let world = world.clone();
        request.extensions_mut().insert(line.clone());
        async move { Ok::<_, Infallible>(route(&world, request.map(Body::new)).await) }
    });
    if let Err(error) = http1::Builder::new().serve_connection(wire, service).await {
        tracing::debug!(%error, "a connection ended early");
    }
}

async fn route(world: &World, request: Request<Body>) -> Reply {
    match request.uri().path() {
        token_endpoint::PATH => token_endpoint::answer(world, request).await,
        path if path.starts_with(control::PREFIX) => control::answer(world, request).await,
        _ => api::answer(world, request).await,
    }
}
