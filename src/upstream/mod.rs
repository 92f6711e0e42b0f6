//! An instance, and the connections to it.
//!
//! [`connections`] returns a connection for a request: an open one from `pool`, or a new one from
//! [`crate::outgoing::dial`]. [`session`] is a request and its response on a connection, over
//! HTTP/1.1 or HTTP/2; `stream` and `head_frames` are the bytes below it. [`health`] tracks the
//! results of calls.
//!
//! Promises: a connection leads to its instance, whose certificate was verified; an idle one is
//! reused only if nothing arrived on it unrequested.
//!
//! Only this module and `proxy` use pingora and h2.

pub mod connections;
mod head_frames;
pub mod health;
mod http2;
pub mod io;
mod pool;
pub mod session;
mod stream;

use std::sync::Arc;
use std::time::Duration;

pub use connections::{Error, Upstream};

use crate::outgoing::addresses::Target;
use crate::outgoing::dial::{Route, URL};
use crate::outgoing::tunnel;
use crate::tls::{CaFile, Identity};

/// A Collibra environment.
#[derive(Clone, Debug, PartialEq)]
pub struct Instance {
    /// Its name in the configuration.
    pub name: Arc<str>,
    /// Whether it uses TLS. Its certificate is verified.
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
    /// The addresses to connect to instead of the host; empty for the host.
    pub address: Vec<Target>,
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
    /// The route to its API.
    #[must_use]
    pub fn route(&self) -> Route<'_> {
        Route {
            host: &self.host,
            port: self.port,
            written: URL,
            tls: self.tls,
            http2: self.http2,
            ca_file: self.ca_file.as_ref(),
            identity: self.identity.as_ref(),
            proxy: self.proxy.as_ref().map(|proxy| (proxy, "proxy")),
            address: &self.address,
            connect_timeout: self.connect_timeout,
        }
    }

    /// The address, like `https://acme.collibra.com`.
    #[must_use]
    pub fn origin(&self) -> String {
        let scheme = if self.tls { "https" } else { "http" };
        format!("{scheme}://{}", self.authority)
    }
}
