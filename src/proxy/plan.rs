//! What is done with the requests of one listener: the client whose token they get, and whether
//! they may go on at all.

use std::sync::Arc;
use std::time::Duration;

use pingora_http::RequestHeader;

use super::config::Listener;
use super::respond::Refusal;
use super::upstream::Upstream;
use super::{browser, policy, target};
use crate::telemetry::{ClientMetrics, ListenerMetrics};
use crate::token::cache::TokenCell;
use crate::token::service::Control;

/// A client, as a request needs it.
#[derive(Debug)]
pub struct Client {
    /// Its name in the configuration.
    pub name: Arc<str>,
    /// Its token.
    pub cell: Arc<TokenCell>,
    /// How long a request waits when there is no token.
    pub wait_for_token: Duration,
    /// Where its instance is.
    pub upstream: Arc<Upstream>,
    /// Its figures.
    pub metrics: Arc<ClientMetrics>,
    /// Keeps its engine running for as long as a request may need it.
    pub engine: Control,
}

/// What is done with the requests of one listener. A request keeps the plan that was in place when
/// its head was complete, to its end.
#[derive(Debug)]
pub struct Plan {
    /// The listener.
    pub listener: Listener,
    /// The client whose token is attached.
    pub client: Arc<Client>,
    /// The listener's figures.
    pub metrics: Arc<ListenerMetrics>,
    /// Whether each request is logged.
    pub access_log: bool,
}

impl Plan {
    /// Whether the request may go on as it stands; an absolute target becomes its path.
    pub(super) fn examine(&self, request: &mut RequestHeader) -> Result<(), Refusal> {
        if target::is_forbidden(&request.method) {
            return Err(Refusal::Method);
        }
        target::check_headers(request.version, &request.headers).map_err(Refusal::Malformed)?;
        let hosts = &self.listener.hosts;
        let host = target::host(&request.headers).map_err(Refusal::Malformed)?;
        let host_is_accepted = browser::is_accepted(hosts, &host);
        let instance = self.client.upstream.instance();
        let is_ours = |host: &str| browser::is_accepted(hosts, host) || host == instance.host;
        let path = target::check_target(request.raw_path(), is_ours).map_err(Refusal::Malformed)?;
        let is_absolute = path.is_some();
        if let Some(path) = path {
            request.set_uri(path);
        }
        // an absolute target's authority, just checked, stands for Host (RFC 9112, section 3.2.2)
        if !is_absolute && !host_is_accepted {
            return Err(Refusal::Host {
                listener: self.listener.name.to_string(),
                accepted: hosts.join(", "),
            });
        }
        if browser::is_cross_site(hosts, &request.headers) {
            return Err(Refusal::CrossSite);
        }
        if let Some(denied) = policy::denied(request.uri.path(), &instance.token_path) {
            return Err(Refusal::Denied(denied));
        }
        Ok(())
    }
}
