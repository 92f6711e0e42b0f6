//! The numbers of one app: its requests, by client, and the local tokens that it was given.

use std::fmt;
use std::sync::Arc;

use arc_swap::ArcSwap;
use prometheus::{IntCounter, IntCounterVec};

use super::families::Families;
use super::requests::{Cut, MethodLabel, RequestCounts};

/// The metrics with one app's name on them, found once. The name is empty for callers that are no
/// app.
pub struct AppMetrics {
    name: String,
    family: IntCounterVec,
    /// An app has few clients, most often one, and each is added once.
    requests: ArcSwap<Vec<Arc<RequestCounts>>>,
    local_tokens: IntCounter,
}

impl AppMetrics {
    pub(super) fn new(families: &Families, app: &str) -> AppMetrics {
        AppMetrics {
            name: app.to_owned(),
            family: families.requests.clone(),
            requests: ArcSwap::default(),
            local_tokens: families.local_tokens.with_label_values(&[app]),
        }
    }

    /// It was given a local token.
    pub fn local_token(&self) {
        self.local_tokens.inc();
    }

    /// How many requests of it were answered since the start.
    #[must_use]
    pub fn requests_total(&self) -> u64 {
        let requests = self.requests.load();
        requests.iter().map(|counts| counts.total()).sum()
    }

    /// How many local tokens it was given since the start.
    #[must_use]
    pub fn local_tokens_total(&self) -> u64 {
        self.local_tokens.get()
    }

    /// Counts one request for `client`.
    pub(super) fn count(&self, client: &str, method: MethodLabel, code: u16, cut: Option<Cut>) {
        let known = |all: &[Arc<RequestCounts>]| all.iter().any(|counts| counts.client() == client);
        if !known(&self.requests.load()) {
            let made = Arc::new(RequestCounts::new(self.family.clone(), client, &self.name));
            self.requests.rcu(|all| {
                let mut all = Vec::clone(all);
                if !known(&all) {
                    all.push(Arc::clone(&made));
                }
                all
            });
        }
        let all = self.requests.load();
        if let Some(counts) = all.iter().find(|counts| counts.client() == client) {
            counts.count(method, code, cut);
        }
    }
}

impl fmt::Debug for AppMetrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AppMetrics")
            .field("name", &self.name)
            .field("requests", &self.requests_total())
            .finish_non_exhaustive()
    }
}
