//! The callers' side: the byte stream of a connection, and what is known of its other end.
//!
//! [`transport`] is a socket, with or without [`tls`]; [`peer`] is who it leads to. [`stream`] buffers
//! what is written, and [`min_rate`] ends a connection whose caller is too slow. [`idle`] lists a
//! listener's connections, to close those that are idle.

pub(crate) mod idle;
pub(crate) mod min_rate;
pub(crate) mod peer;
pub(crate) mod stream;
pub mod tls;
pub(crate) mod transport;
