//! The admin address: liveness, readiness, metrics, and a status page for people.
//!
//! Ready means that every client *holds* a usable token, not that the issuer is reachable: apps do
//! not notice an outage that the current tokens outlive.
//!
//! Promises: anyone who can connect can read everything here, but no web page can (`guard`), so no
//! response contains a token, a secret or a key. Only the POST routes change anything; they, and
//! the configuration, are restricted to programs on this machine. A slow or silent caller is
//! disconnected.

mod actions;
mod connection;
mod events;
mod guard;
pub mod history;
mod local;
mod page;
mod ready;
pub mod report;
mod response;
mod routes;
mod server;
mod snapshot;
mod view;

pub use actions::{LogLevel, Renewing};
pub use server::serve;
pub use view::{Certificate, ClientView, Parts, Refused, View};
