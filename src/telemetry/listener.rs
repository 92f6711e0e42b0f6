//! The numbers of one listener: its connections, and the requests that it refused.

use prometheus::{IntCounterVec, IntGauge};

use super::families::Families;
use super::label::Label;

/// The metrics with one listener's name on them, found once.
#[derive(Debug)]
pub struct ListenerMetrics {
    name: String,
    connections: IntGauge,
    refused: IntCounterVec,
}

/// One open connection; dropping it closes it.
#[derive(Debug)]
#[must_use = "the connection is counted for as long as this is held"]
pub struct Connection(IntGauge);

impl ListenerMetrics {
    pub(super) fn new(families: &Families, listener: &str) -> ListenerMetrics {
        ListenerMetrics {
            name: listener.to_owned(),
            connections: families.connections.with_label_values(&[listener]),
            refused: families.refused.clone(),
        }
    }

    /// Shows every reason of a refusal, at zero until the first. An app's own series begin with its
    /// first refusal.
    pub fn declare<Reason: Label>(&self) {
        for reason in Reason::ALL {
            self.refused
                .with_label_values(&[self.name.as_str(), reason.label(), ""]);
        }
    }

    /// A connection was accepted; it is open until the guard is dropped.
    pub fn connection(&self) -> Connection {
        self.connections.inc();
        Connection(self.connections.clone())
    }

    /// How many connections are open.
    #[must_use]
    pub fn connections(&self) -> u64 {
        u64::try_from(self.connections.get()).unwrap_or(0)
    }

    /// The proxy answered a request of `app` itself, for `reason`; the app is empty if it is not
    /// known.
    pub fn refused(&self, reason: impl Label, app: &str) {
        self.refused
            .with_label_values(&[self.name.as_str(), reason.label(), app])
            .inc();
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.0.dec();
    }
}
