//! The data path: what happens to a request between its listener and Collibra.
//!
//! A request's walk: [`listener`] accepts a connection, `transport` is TLS or not, `connection` (HTTP/1)
//! or `http2` reads heads from it, and `exchange` serves each request from its head to its line in the
//! log. It asks [`head`] and `examine` ([`target`], [`browser`], `identify`, [`policy`], [`limit`]:
//! may it go on, and as whom?), the client's token, [`upstream`] (a connection: `pool`, `dial`),
//! `inject` and `hop_by_hop` (what is sent), `replay` (once more after a 401?), and passes the response
//! on. `caller` and `instance_session` are the two sides, whatever version of HTTP each speaks. What is
//! not forwarded is answered by `local`, with a local token, or by [`respond`], with a refusal.
//!
//! Promises: nothing goes to the instance without a usable token, and a token goes nowhere else;
//! bodies are streamed both ways, never buffered; a response has no total deadline, and one that
//! breaks off upstream breaks off downstream; what changes while a request is served counts for the
//! next one.
//!
//! This is the only module that knows pingora and h2.

mod access_log;
mod answer;
pub mod app;
pub mod browser;
mod caller;
pub mod config;
mod connection;
mod context;
mod dial;
mod examine;
mod exchange;
pub mod head;
mod head_frames;
mod hop_by_hop;
mod http2;
mod identify;
mod idle;
mod inject;
mod instance_session;
mod instance_stream;
pub mod limit;
pub mod listener;
mod local;
mod overhead;
mod pace;
pub mod peer;
pub mod plan;
pub mod policy;
mod pool;
pub mod replay;
mod request_body;
pub mod respond;
mod stream;
pub mod target;
mod tls;
mod transport;
pub mod upstream;

pub use listener::Listening;
