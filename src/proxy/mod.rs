//! The data path: handles a request between its listener and Collibra.
//!
//! The path of a request: [`listener`] accepts a connection, `transport` adds TLS if configured,
//! and `connection` (HTTP/1) or `http2` reads heads from it. `exchange` serves each request from
//! its head to its access log line. It calls [`head`] and `examine` ([`target`], [`browser`],
//! `identify`, [`policy`], [`limit`]) to check and identify it, waits for the client's token, and
//! gets a connection from [`upstream`] (`pool`, `dial`). `inject` and `hop_by_hop` build the
//! forwarded head, and `replay` decides about a 401. Then it passes the response on. `caller` and
//! `instance_session` are its two sides, whatever their HTTP version. Requests that are not
//! forwarded are answered by `local`, with a local token, or by [`respond`], with a refusal.
//!
//! Guarantees: nothing is sent to the instance without a usable token, and a token goes nowhere
//! else. Bodies are streamed in both directions, never buffered. A response has no total deadline,
//! and one that is truncated upstream is truncated downstream. A change of the configuration
//! applies to the next request.
//!
//! Only this module uses pingora and h2.

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
mod record;
pub mod replay;
mod request_body;
pub mod respond;
mod stream;
pub mod target;
mod tls;
mod transport;
pub mod upstream;

pub use listener::Listening;
