//! What the proxy is told: listeners to receive on, apps to serve. Already validated.

use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;

use super::limit::Limits;
use super::policy::pattern::Pattern;
pub use super::tls::{Error as TlsError, Tls};
use crate::secret::Secret;
use crate::socket::Address;

/// An address on which apps are served.
#[derive(Clone, Debug, PartialEq)]
pub struct Listener {
    /// Its name in the configuration.
    pub name: Arc<str>,
    /// Where it listens.
    pub address: Address,
    /// The name of the client whose token is attached, unless a route or an app has another.
    pub client: Arc<str>,
    /// What begins with a prefix and goes elsewhere.
    pub routes: Vec<Route>,
    /// The app that all who connect here are.
    pub app: Option<Arc<str>>,
    /// Accepted values of `Host`, without port, in lower case; IPv6 addresses in brackets.
    pub hosts: Vec<String>,
    /// The proxies before it whose word on a caller's address is logged.
    pub trusted_proxies: Vec<IpNet>,
    /// What it shows over TLS; none: it is plain.
    pub tls: Option<Tls>,
    /// Whether a WebSocket may be opened.
    pub upgrades: bool,
    /// The longest time for the head of a request, from its first byte to its last; for the first
    /// byte of a connection; and for a TLS handshake.
    pub header_timeout: Duration,
    /// The largest head of a request, in bytes.
    pub max_header_bytes: usize,
    /// How fast a caller has to send a body and to take an answer, in bytes per second; none: it
    /// may take its time.
    pub min_body_rate: Option<NonZeroU32>,
    /// How many connections are served at once; further ones wait to be accepted.
    pub max_connections: usize,
}

impl Listener {
    /// The scheme by which it is called.
    #[must_use]
    pub fn scheme(&self) -> &'static str {
        if self.tls.is_some() { "https" } else { "http" }
    }
}

/// Requests whose path begins alike, and whose client is another than their listener's.
#[derive(Clone, Debug, PartialEq)]
pub struct Route {
    /// What the path begins with, whole segments of it: it begins with a slash and does not end
    /// with one.
    pub prefix: Arc<str>,
    /// The name of the client whose token is attached.
    pub client: Arc<str>,
    /// Whether the prefix is cut before the request goes on.
    pub strip: bool,
}

/// A program that calls Collibra through the proxy, and says who it is.
#[derive(Clone, Debug, PartialEq)]
pub struct App {
    /// Its name in the configuration.
    pub name: Arc<str>,
    /// What it shows; an app without one is known by its certificate or its socket.
    pub key: Option<Secret>,
    /// The name on its certificate.
    pub certificate: String,
    /// The name of its client, whatever its listener's.
    pub client: Option<Arc<str>>,
    /// What it may do; `None`: all that is not denied.
    pub allow: Option<Vec<Pattern>>,
    /// How much of it.
    pub limits: Limits,
}
