//! The proxy's validated configuration: instances to send to, listeners to accept on.

use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use super::limit::Limits;
use super::policy::pattern::Pattern;
pub use super::tls::{Error as TlsError, Tls};
use crate::outgoing::tunnel;
use crate::secret::Secret;
use crate::socket::Address;
use crate::tls::{CaFile, Identity};

/// A Collibra environment.
#[derive(Clone, Debug, PartialEq)]
pub struct Instance {
    /// Its name in the configuration.
    pub name: Arc<str>,
    /// Whether TLS is used, with the certificate verified.
    pub tls: bool,
    /// A DNS name or an IP address, without brackets.
    pub host: String,
    /// Its port.
    pub port: u16,
    /// The value of `Host`: `host`, and the port unless it is the default.
    pub authority: String,
    /// The path of the token endpoint, which is never forwarded.
    pub token_path: String,
    /// Trusted authorities besides the system's.
    pub ca_file: Option<CaFile>,
    /// The client certificate, for an instance that asks for one.
    pub identity: Option<Identity>,
    /// The forward proxy to the API.
    pub proxy: Option<tunnel::Proxy>,
    /// Whether HTTP/2 is used if the instance offers it.
    pub http2: bool,
    /// The timeout of a connection, TLS included.
    pub connect_timeout: Duration,
    /// The longest pause within a response; `None` for no limit.
    pub idle_timeout: Option<Duration>,
    /// The longest time from the first to the last byte of a response's head.
    pub header_timeout: Duration,
    /// The longest time for which a resolved address is used.
    pub resolve_ttl_max: Duration,
}

impl Instance {
    /// The address, like `https://acme.collibra.com`.
    #[must_use]
    pub fn origin(&self) -> String {
        let scheme = if self.tls { "https" } else { "http" };
        format!("{scheme}://{}", self.authority)
    }
}

/// An address that accepts apps' connections.
#[derive(Clone, Debug, PartialEq)]
pub struct Listener {
    /// Its name in the configuration.
    pub name: Arc<str>,
    /// The address it listens on.
    pub address: Address,
    /// The name of the client whose token is attached, unless a route or an app has its own.
    pub client: Arc<str>,
    /// The routes by path prefix.
    pub routes: Vec<Route>,
    /// The app of every caller of this listener, if set.
    pub app: Option<Arc<str>>,
    /// Accepted values of `Host`, without port, in lower case; IPv6 addresses in brackets.
    pub hosts: Vec<String>,
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
    /// The URL scheme.
    #[must_use]
    pub fn scheme(&self) -> &'static str {
        if self.tls.is_some() { "https" } else { "http" }
    }
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
    /// Its name in the configuration.
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
