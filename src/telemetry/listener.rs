//! The metrics of a listener: its connections and refused requests.

use prometheus::{IntCounter, IntCounterVec, IntGauge};

use super::families::Families;
use super::held::Held;
use super::label::Label;

/// The metrics with a listener's name, looked up once.
#[derive(Debug)]
pub struct ListenerMetrics {
    name: String,
    connections: IntGauge,
    shed: IntCounter,
    refused: IntCounterVec,
}

impl ListenerMetrics {
    pub(super) fn new(families: &Families, listener: &str) -> ListenerMetrics {
        ListenerMetrics {
            name: listener.to_owned(),
            connections: families.connections.with_label_values(&[listener]),
            shed: families.connections_shed.with_label_values(&[listener]),
            refused: families.refused.clone(),
        }
    }

    /// Creates the series of every reason of a refusal at zero. The series of an app start at its
    /// first refusal.
    pub fn declare<Reason: Label>(&self) {
        for reason in Reason::ALL {
            self.refused
                .with_label_values(&[self.name.as_str(), reason.label(), ""]);
        }
    }

    /// Records a connection, which is open until the guard is dropped.
    pub fn connection(&self) -> Held {
        Held::by(&self.connections)
    }

    /// The number of open connections.
    #[must_use]
    pub fn connections(&self) -> u64 {
        u64::try_from(self.connections.get()).unwrap_or(0)
    }

    /// Records that `count` idle connections were closed to make room for others.
    pub fn shed(&self, count: usize) {
        self.shed.inc_by(u64::try_from(count).unwrap_or(u64::MAX));
    }

    /// Records that the proxy refused a request of `app` for `reason`; `app` is empty if unknown.
    pub fn refused(&self, reason: impl Label, app: &str) {
        self.refused
            .with_label_values(&[self.name.as_str(), reason.label(), app])
            .inc();
    }
}
