//! The state for a listener's requests: who may call, which clients' tokens are used, and what is
//! forwarded.

use std::sync::Arc;
use std::time::Duration;

use super::app::{App, Apps};
use super::config::Listener;
use super::forward::Forward;
use super::policy::Policy;
use crate::client_id::ClientId;
use crate::local_token::{self, Revoked};
use crate::secret::Secret;
use crate::telemetry::{AppMetrics, ClientMetrics, ListenerMetrics};
use crate::token::cache::TokenSlot;
use crate::token::service::Control;
use crate::trace::Tracer;
use crate::upstream::Upstream;

/// A client, as a request needs it.
#[derive(Debug)]
pub struct Client {
    /// The client's name in the configuration.
    pub name: Arc<str>,
    /// Its token.
    pub slot: Arc<TokenSlot>,
    /// How long a request waits for a token.
    pub wait_for_token: Duration,
    /// The connections to its instance.
    pub upstream: Arc<Upstream>,
    /// Its own credentials, which identify a caller as the client's owner.
    pub own: Credentials,
    /// Its metrics.
    pub metrics: Arc<ClientMetrics>,
    /// Keeps its engine running as long as a request may need it.
    pub engine: Control,
}

/// A client's own credentials.
#[derive(Debug)]
pub struct Credentials {
    /// Its id.
    pub id: ClientId,
    /// Its secret.
    pub secret: Secret,
    /// The key that signs local tokens for callers with these credentials.
    pub signing: local_token::Key,
}

/// The state for a listener's requests. A request keeps the state that was in force when its head was
/// complete.
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

impl Credentials {
    /// Returns the credentials `id` and `secret`.
    #[must_use]
    pub fn new(id: ClientId, secret: Secret) -> Credentials {
        let signing = local_token::Key::of(&secret);
        Credentials {
            id,
            secret,
            signing,
        }
    }
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
