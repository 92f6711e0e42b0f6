//! Metrics ([`metrics`]) and logs ([`logging`], [`access`]).
//!
//! Promises: counting a request takes no lock and formats nothing; labels stay few, never a path, a
//! token or an address; logging never waits; no log level makes a library print data that it sends.

use std::sync::{Mutex, MutexGuard, PoisonError};

pub mod access;
mod certificate;
mod client;
pub(crate) mod ended;
mod families;
mod held;
mod label;
mod lines;
mod listener;
pub mod logging;
pub mod metrics;
mod open_metrics;
pub mod printable;
mod requests;
mod store;
mod traffic;

pub use certificate::{CertificateKind, Expiry};
pub use client::{ClientMetrics, TokenRequest};
pub use ended::Ended;
pub use families::Levels;
pub use held::Held;
pub use label::Label;
pub(crate) use label::labels;
pub use listener::ListenerMetrics;
pub use metrics::Metrics;
pub use requests::Cut;
pub use store::{Operation, StoreMetrics, StoreOutcome};
pub use traffic::{AppMetrics, Durations, InFlight, Totals, Traffic, quantile};

/// Locks a mutex; a panic elsewhere leaves nothing inconsistent in it.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
