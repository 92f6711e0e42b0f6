//! The numbers of one listener: its connections, and what it turned away.

use prometheus::IntGauge;

use super::counts::Counts;
use super::families::Families;

/// The reasons for which the proxy answers itself.
const REASONS: [&str; 14] = [
    "bad-request",
    "loop",
    "token-limit",
    "unknown-app",
    "denied",
    "cross-site",
    "method",
    "slow-header",
    "large-header",
    "slow-body",
    "host",
    "app-limit",
    "upstream",
    "no-token",
];

/// The metrics with one listener's name on them, found once.
#[derive(Debug)]
pub struct ListenerMetrics {
    connections: IntGauge,
    refused: Counts,
}

/// One open connection; dropping it closes it.
#[derive(Debug)]
#[must_use = "the connection is counted for as long as this is held"]
pub struct Connection(IntGauge);

impl ListenerMetrics {
    pub(super) fn new(families: &Families, listener: &str) -> ListenerMetrics {
        ListenerMetrics {
            connections: families.connections.with_label_values(&[listener]),
            refused: Counts::new(&families.refused, listener, &REASONS),
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

    /// A request was answered by the proxy itself, for `reason`: the value of
    /// `X-Collibra-Auth-Proxy`.
    pub fn refused(&self, reason: &'static str) {
        self.refused.count(reason);
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.0.dec();
    }
}
