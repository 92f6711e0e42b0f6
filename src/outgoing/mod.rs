//! The way to a server: the addresses of its name and their health ([`addresses`]), a connection to
//! the first that answers ([`dial`]), through a forward proxy if there is one ([`tunnel`]), and the
//! mark that detects loops ([`via`]); and, for this program's own requests, the HTTP client
//! ([`client`]) and how an answer may be quoted ([`quotation`]).
//!
//! The API, the token endpoint and `check --live` all connect by these.
//!
//! Guarantees: a connection uses only the configured forward proxy, verifies the server's
//! certificate, and fails only if every address failed. The client follows no redirect, keeps no
//! cookie, never retries, and returns within its timeout.

pub mod addresses;
pub mod client;
pub mod dial;
mod failure;
pub mod quotation;
mod resolve;
pub mod tunnel;
pub mod via;
