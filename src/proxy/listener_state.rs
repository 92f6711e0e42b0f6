//! The state for a listener's requests: who may call, which clients' tokens are used, and what is
//! forwarded.

use std::sync::Arc;

use super::app::{App, Apps};
use super::client::Client;
use super::config::Listener;
use super::forward::Forward;
use crate::local_token::Revoked;
use crate::policy::rules::Policy;
use crate::telemetry::{AppMetrics, ListenerMetrics};
use crate::trace::Tracer;

/// The state for a listener's requests. A request keeps the state that was in force when its head
/// was complete.
#[derive(Debug)]
pub struct ListenerState {
    /// The listener.
    pub listener: Listener,
    /// The client whose token is attached, unless a route or an app has its own.
    pub client: Arc<Client>,
    /// The routes, longest prefix first.
    pub routes: Vec<Route>,
    /// The apps that may call.
    pub apps: Arc<Apps>,
    /// What it serves as a forward proxy, if it is one.
    pub forward: Option<Forward>,
    /// The app of every caller of this listener, if set.
    pub app: Option<Arc<App>>,
    /// The metrics of callers that are not apps.
    pub nobody: Arc<AppMetrics>,
    /// The local tokens that were ended by a logout.
    pub revoked: Arc<Revoked>,
    /// What they may call.
    pub policy: Arc<Policy>,
    /// The listener's metrics.
    pub metrics: Arc<ListenerMetrics>,
    /// Whether each request is logged.
    pub access_log: bool,
    /// Whether the log shows the caller's `User-Agent`.
    pub log_user_agent: bool,
    /// Makes each request's span, if there is a collector.
    pub tracer: Option<Arc<Tracer>>,
}

/// A route by path prefix.
#[derive(Debug)]
pub struct Route {
    /// The prefix: it starts with a slash and does not end with one.
    pub prefix: Arc<str>,
    /// The client whose token is attached.
    pub client: Arc<Client>,
    /// Whether the prefix is stripped.
    pub strip: bool,
}

impl ListenerState {
    /// The route of a path, in the form it was read, if there is one.
    pub(super) fn route(&self, path: &str) -> Option<&Route> {
        let mut routes = self.routes.iter();
        routes.find(|route| {
            let rest = path.strip_prefix(&*route.prefix);
            rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
        })
    }

    /// The client whose instance is `host`: the listener's own is checked before those of its
    /// routes.
    pub(super) fn client_at(&self, host: &str) -> Option<&Arc<Client>> {
        let routed = self.routes.iter().map(|route| &route.client);
        let mut clients = std::iter::once(&self.client).chain(routed);
        clients.find(|client| client.upstream.instance().host == host)
    }
}
