//! The callers' side: the byte stream of a connection, and what is known of its other end.
//!
//! `transport` is a socket, with or without [`tls`]; `peer` is its other end, and `forwarded` the
//! caller behind trusted proxies. `stream` buffers what is written. Three files protect the
//! process: `min_rate` ends a connection whose caller is too slow, `overhead` detects a flood of
//! frames, and `idle` lists a listener's connections, to close those that are idle.

pub(crate) mod forwarded;
pub(crate) mod idle;
pub(crate) mod min_rate;
pub(crate) mod overhead;
pub(crate) mod peer;
pub(crate) mod stream;
pub mod tls;
pub(crate) mod transport;
