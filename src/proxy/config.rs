//! What the proxy is told: listeners to receive on, apps to serve. Already validated.

use std::collections::BTreeMap;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use super::limit::Limits;
use super::policy::pattern::Pattern;
pub use super::tls::Tls;
use crate::browser;
use crate::secret::Secret;
use crate::socket::Address;

/// Stands for any value of `Host`, on a listener whose callers all authenticate. No real host is
/// written like this.
pub const ANY_HOST: &str = "*";

/// An address that accepts apps' connections.
#[derive(Clone, Debug, PartialEq)]
pub struct Listener {
    /// The client's name in the configuration.
    pub name: Arc<str>,
    /// The address it listens on.
    pub address: Address,
    /// The name of the client whose token is attached, unless a route or an app has its own.
    pub client: Arc<str>,
    /// The routes by path prefix.
    pub routes: Vec<Route>,
    /// What it serves as a forward proxy; `None` for a reverse proxy.
    pub forward: Option<Forward>,
    /// The app of every caller of this listener, if set.
    pub app: Option<Arc<str>>,
    /// Accepted values of `Host`, without port, in lower case; IPv6 addresses in brackets. Any
    /// value is accepted if this is [`ANY_HOST`] alone.
    pub hosts: Vec<String>,
    /// The proxies before it whose word on a caller's address is logged.
    pub trusted_proxies: Vec<IpNet>,
    /// The certificate and TLS settings; plain text if `None`.
    pub tls: Option<Tls>,
    /// Whether WebSockets are allowed.
    pub upgrades: bool,
    /// The longest time for a request's head, from its first to its last byte, for the first byte
    /// of a connection, and for a TLS handshake.
    pub header_timeout: Duration,
    /// The largest head of a request, in bytes.
    pub max_header_bytes: usize,
    /// The lowest rate in bytes per second at which a caller may send a body and read a response;
    /// `None` for any.
    pub min_body_rate: Option<NonZeroU32>,
    /// The most concurrent connections; further ones wait to be accepted.
    pub max_connections: usize,
}

impl Listener {
    /// Whether `host` is an accepted value of `Host`.
    #[must_use]
    pub fn accepts(&self, host: &str) -> bool {
        let first = self.hosts.first().map(String::as_str);
        first == Some(ANY_HOST) || browser::is_accepted(&self.hosts, host)
    }

    /// The URL scheme.
    #[must_use]
    pub fn scheme(&self) -> &'static str {
        if self.tls.is_some() { "https" } else { "http" }
    }

    /// When the first of its certificates expires, the local authority's included, if it has one.
    #[must_use]
    pub fn expires(&self) -> Option<SystemTime> {
        let forward = self.forward.iter().flat_map(|forward| forward.tls.values());
        let all = self.tls.iter().chain(forward);
        all.filter_map(Tls::expires).min()
    }
}

/// What a listener serves as a forward proxy.
#[derive(Clone, Debug, PartialEq)]
pub struct Forward {
    /// The client for each instance's calls, one per instance; at least one.
    pub clients: Vec<Arc<str>>,
    /// The TLS inside tunnels, by instance host: those that the local authority covers.
    pub tls: BTreeMap<String, Tls>,
    /// What happens to calls to other hosts.
    pub others: Others,
}

/// What a forward listener does with calls to hosts of no instance.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Others {
    /// It refuses them.
    Refuse,
    /// It passes the bytes of a tunnel through.
    Tunnel,
}

/// Requests by path prefix that use another client than their listener's.
#[derive(Clone, Debug, PartialEq)]
pub struct Route {
    /// The prefix in whole segments; it starts with a slash and does not end with one.
    pub prefix: Arc<str>,
    /// The name of the client whose token is attached.
    pub client: Arc<str>,
    /// Whether the prefix is removed from the forwarded path.
    pub strip: bool,
}

/// A program that calls Collibra through the proxy and authenticates.
#[derive(Clone, Debug, PartialEq)]
pub struct App {
    /// The client's name in the configuration.
    pub name: Arc<str>,
    /// Its key; an app without one is identified by its certificate or socket.
    pub key: Option<Secret>,
    /// The name in its certificate.
    pub certificate: String,
    /// The name of its own client, whatever its listener's.
    pub client: Option<Arc<str>>,
    /// What it may call; `None` for everything that is not denied.
    pub allow: Option<Vec<Pattern>>,
    /// Its rate and concurrency limits.
    pub limits: Limits,
}
