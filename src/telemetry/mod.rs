//! Metrics ([`metrics`]) and logs ([`logging`], [`access`]).
//!
//! Promises: counting a request takes no lock and formats nothing; labels stay few, never a path, a
//! token or an address; logging never waits; at no log level does a library print what it sends.

pub mod access;
mod client;
mod families;
mod label;
mod levels;
mod lines;
mod listener;
pub mod logging;
pub mod metrics;
mod open_metrics;
pub mod printable;
mod requests;
mod store;
mod traffic;

pub use client::{ClientMetrics, TokenRequest, Waiting};
pub use label::Label;
pub(crate) use label::labels;
pub use levels::{AppLevels, CertificateKind, ClientLevels, Expiry, Levels, TokenTimes};
pub use listener::{Connection, ListenerMetrics};
pub use metrics::Metrics;
pub use requests::{Cut, MethodLabel, Source};
pub use store::{Operation, StoreMetrics, StoreOutcome};
pub use traffic::{AppMetrics, Durations, Ended, InFlight, Totals, Traffic, quantile};
