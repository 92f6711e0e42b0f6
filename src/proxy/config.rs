//! What the proxy is told: instances to send to, listeners to receive on. Already validated.

use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

pub use super::tls::{Error as TlsError, Tls};
use crate::socket::Address;
use crate::tls::CaFile;

/// One Collibra environment.
#[derive(Clone, Debug, PartialEq)]
pub struct Instance {
    /// Its name in the configuration.
    pub name: Arc<str>,
    /// Whether it is spoken to over TLS, its certificate verified.
    pub tls: bool,
    /// A DNS name or an IP address (no brackets).
    pub host: String,
    /// Its port.
    pub port: u16,
    /// The value of `Host`: `host`, and the port unless it is the scheme's own.
    pub authority: String,
    /// The token endpoint's path, which is never forwarded.
    pub token_path: String,
    /// Certificates accepted besides the system's.
    pub ca_file: Option<CaFile>,
    /// The longest time for a connection, TLS included.
    pub connect_timeout: Duration,
    /// The longest silence inside a response; `None`: no limit.
    pub idle_timeout: Option<Duration>,
    /// How long an address is used before the name is looked up again, at most.
    pub resolve_ttl_max: Duration,
}

impl Instance {
    /// Its address, like `https://acme.collibra.com`.
    #[must_use]
    pub fn origin(&self) -> String {
        let scheme = if self.tls { "https" } else { "http" };
        format!("{scheme}://{}", self.authority)
    }
}

/// An address on which apps are served.
#[derive(Clone, Debug, PartialEq)]
pub struct Listener {
    /// Its name in the configuration.
    pub name: Arc<str>,
    /// Where it listens.
    pub address: Address,
    /// The name of the client whose token is attached.
    pub client: Arc<str>,
    /// Accepted values of `Host`, without port, in lower case; IPv6 addresses in brackets.
    pub hosts: Vec<String>,
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
