//! What the program tells about itself while it runs: numbers ([`metrics`]) and lines
//! ([`logging`], [`access`]).
//!
//! Promises: counting a request takes no lock and formats nothing; labels stay few, never a path,
//! a token or an address; logging never waits; no log level makes a library print what it sends.

pub mod access;
mod app;
mod client;
mod counts;
mod families;
mod lines;
mod listener;
pub mod logging;
pub mod metrics;
pub mod printable;
mod requests;
mod store;

pub use app::AppMetrics;
pub use client::{ClientMetrics, InFlight, TokenTimes};
pub use listener::{Connection, ListenerMetrics};
pub use metrics::Metrics;
pub use requests::{Cut, MethodLabel};
pub use store::{Operation, StoreMetrics, StoreOutcome};
