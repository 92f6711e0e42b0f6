//! What is done with the requests of one listener: whom they come from, which clients' tokens they
//! get, and what is forwarded at all.

use std::sync::Arc;
use std::time::Duration;

use super::app::{App, Apps};
use super::config::Listener;
use super::policy::Policy;
use super::upstream::Upstream;
use crate::client_id::ClientId;
use crate::local_token;
use crate::secret::Secret;
use crate::telemetry::{AppMetrics, ClientMetrics, ListenerMetrics};
use crate::token::cache::TokenSlot;
use crate::token::service::Control;

/// A client, as a request needs it.
#[derive(Debug)]
pub struct Client {
    /// Its name in the configuration.
    pub name: Arc<str>,
    /// Its token.
    pub slot: Arc<TokenSlot>,
    /// How long a request waits when there is no token.
    pub wait_for_token: Duration,
    /// Where its instance is.
    pub upstream: Arc<Upstream>,
    /// Its own credentials, by which an app may say that it is the client's owner.
    pub own: Credentials,
    /// Its figures.
    pub metrics: Arc<ClientMetrics>,
    /// Keeps its engine running for as long as a request may need it.
    pub engine: Control,
}

/// A client's own credentials.
#[derive(Debug)]
pub struct Credentials {
    /// Its id.
    pub id: ClientId,
    /// Its secret.
    pub secret: Secret,
    /// What the local tokens of those are signed with who show both.
    pub signing: local_token::Key,
}

/// What is done with the requests of one listener. A request keeps the plan that was in place when
/// its head was complete, to its end.
#[derive(Debug)]
pub struct Plan {
    /// The listener.
    pub listener: Listener,
    /// The client whose token is attached, unless a route or an app has another.
    pub client: Arc<Client>,
    /// The routes, the longest prefix first.
    pub routes: Vec<Route>,
    /// Those who may call.
    pub apps: Arc<Apps>,
    /// The app that all who connect here are.
    pub app: Option<Arc<App>>,
    /// The figures of callers that are no app.
    pub nobody: Arc<AppMetrics>,
    /// What they may call.
    pub policy: Arc<Policy>,
    /// The listener's figures.
    pub metrics: Arc<ListenerMetrics>,
    /// Whether each request is logged.
    pub access_log: bool,
}

/// Where requests go whose path begins alike.
#[derive(Debug)]
pub struct Route {
    /// What the path begins with: with a slash, and not ending with one.
    pub prefix: Arc<str>,
    /// Whose token they get.
    pub client: Arc<Client>,
    /// Whether the prefix is cut.
    pub strip: bool,
}

impl Credentials {
    /// The credentials `id` and `secret`.
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

impl Plan {
    /// The route of a path, as it was read, if it has one.
    pub(super) fn route(&self, path: &str) -> Option<&Route> {
        let mut routes = self.routes.iter();
        routes.find(|route| {
            let rest = path.strip_prefix(&*route.prefix);
            rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
        })
    }

    /// The client whose instance is `host`: the listener's own before those of its routes.
    pub(super) fn client_at(&self, host: &str) -> Option<&Arc<Client>> {
        let routed = self.routes.iter().map(|route| &route.client);
        let mut clients = std::iter::once(&self.client).chain(routed);
        clients.find(|client| client.upstream.instance().host == host)
    }
}
