//! The data path: what happens to a request between its listener and Collibra.
//!
//! A request's walk: [`listener`] -> `transport` (TLS or not) -> `connection` (the limits on its
//! head, its `pace`; `http2` takes streams apart) -> [`service`] (the hooks) -> [`head`] ->
//! `examine`: [`target`], [`browser`], `identify`, [`policy`], [`limit`] (may it go on?) -> the
//! client's token -> [`upstream`] (where to) -> `inject` (as whom) -> the response, the access log,
//! the metrics. What is not forwarded is answered by `local`, with a local token, or by [`respond`],
//! with a refusal.
//!
//! Promises: nothing goes to the instance without a usable token, and a token goes nowhere else;
//! bodies are streamed both ways, never buffered; a response has no total deadline, and one that
//! breaks off upstream breaks off downstream; what changes while a request is served counts for the
//! next one.
//!
//! This is the only module that knows pingora's proxy.

use std::sync::Arc;

use pingora_core::server::configuration::ServerConf;

use crate::clock::Clock;

mod access_log;
mod answer;
pub mod app;
pub mod browser;
pub mod config;
mod connection;
mod context;
mod examine;
pub mod head;
mod http2;
mod identify;
mod inject;
pub mod limit;
pub mod listener;
mod local;
mod pace;
pub mod peer;
mod phase;
pub mod plan;
pub mod policy;
mod replay;
pub mod respond;
pub mod service;
pub mod target;
mod tls;
mod transport;
mod trust;
mod tunnel;
pub mod upstream;

use plan::Plan;
use trust::Bundle;

pub use listener::{Listening, Server};
/// Why the data path of a listener cannot be made.
pub use trust::Error;

/// How many idle connections to an instance are kept.
const KEPT_CONNECTIONS: usize = 1024;

/// A data path that follows `plan`; `clock` tells when tokens end and times requests.
///
/// # Errors
/// [`Error`] if there is no place for the instance's certificates.
pub fn build(plan: Arc<Plan>, clock: Arc<dyn Clock>) -> Result<Server, Error> {
    let ca_file = plan.client.upstream.instance().ca_file.as_ref();
    let bundle = ca_file.map(Bundle::with).transpose()?;
    let conf = ServerConf {
        threads: 1,
        upstream_keepalive_pool_size: KEPT_CONNECTIONS,
        ca_file: bundle.as_ref().map(|bundle| bundle.path().to_owned()),
        ..ServerConf::default()
    };
    Ok(Server::new(plan, clock, conf))
}
