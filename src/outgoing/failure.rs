//! Why there is no connection, in kinds for the metrics and in words for people.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use super::quotation::Quotation;
use super::tunnel;
use crate::descriptors::is_shortage;
use crate::telemetry::labels;
use crate::tls;

/// Why there is no connection: what failed, on what, and what to do. Never quotes what a forward proxy
/// sent.
#[derive(Debug, thiserror::Error)]
pub enum DialError {
    /// There is no address to connect to.
    #[error(
        "cannot find the address of {host} ({problem}); check {written} and this machine's DNS"
    )]
    Unresolved {
        /// The name.
        host: String,
        /// Why.
        problem: String,
        /// Where the name is written.
        written: &'static str,
        /// Whether it timed out.
        timeout: bool,
    },
    /// No address accepted a connection.
    #[error("{}", explain_connect(.host, .causes, .written))]
    Connect {
        /// The server.
        host: String,
        /// Each address, and the system's reason.
        causes: Vec<(SocketAddr, io::Error)>,
        /// Where the address is written.
        written: &'static str,
    },
    /// The request timed out.
    #[error(
        "no connection to {host} within {limit}; a firewall may drop it: check {written} and the way out of this network",
        limit = humantime::format_duration(*.limit)
    )]
    Late {
        /// The server.
        host: String,
        /// The time it had.
        limit: Duration,
        /// Where the address is written.
        written: &'static str,
    },
    /// The forward proxy is unreachable.
    #[error("cannot connect to the proxy {proxy} ({cause}); check {key}")]
    NoProxy {
        /// The proxy.
        proxy: String,
        /// What happened.
        cause: String,
        /// The key that names it.
        key: &'static str,
        /// Whether it timed out.
        timeout: bool,
    },
    /// The forward proxy did not connect to the server.
    #[error(transparent)]
    Proxy(#[from] tunnel::Error),
    /// The TLS handshake failed.
    #[error("{}", explain_tls(.host, .cause, .written))]
    Tls {
        /// The server.
        host: String,
        /// The address.
        address: SocketAddr,
        /// Why.
        cause: io::Error,
        /// Where the host is written.
        written: &'static str,
    },
}

impl DialError {
    /// What failed.
    #[must_use]
    pub fn kind(&self) -> Kind {
        match self {
            DialError::Unresolved { .. } => Kind::Dns,
            DialError::Tls { .. } => Kind::Tls,
            _ if self.is_timeout() => Kind::Timeout,
            _ => Kind::Connect,
        }
    }

    /// Whether it timed out.
    #[must_use]
    pub fn is_timeout(&self) -> bool {
        match self {
            DialError::Late { .. } => true,
            DialError::Unresolved { timeout, .. } | DialError::NoProxy { timeout, .. } => *timeout,
            DialError::Proxy(error) => error.is_timeout(),
            DialError::Connect { causes, .. } => {
                let mut causes = causes.iter();
                causes.all(|(_, cause)| cause.kind() == io::ErrorKind::TimedOut)
            }
            DialError::Tls { .. } => false,
        }
    }

    /// Whether it says nothing about the server: this process or system has no file descriptor left.
    pub(super) fn is_shortage(&self) -> bool {
        matches!(self, DialError::Connect { causes, .. } if causes.iter().all(|(_, e)| is_shortage(e)))
    }

    /// Returns whether another attempt would fail the same way.
    #[must_use]
    pub fn is_final(&self) -> bool {
        match self {
            DialError::Proxy(error) => error.is_final(),
            DialError::Tls { cause, .. } => {
                matches!(rustls(cause), Some(rustls::Error::InvalidCertificate(_)))
            }
            DialError::Unresolved { .. } => true,
            _ => self.is_timeout(),
        }
    }
}

labels! {
    /// The kinds of errors on the way to a server.
    pub enum Kind {
        /// Its name has no address.
        Dns = "dns",
        /// It accepts no connection, or a forward proxy does not connect to it.
        Connect = "connect",
        /// The TLS handshake failed.
        Tls = "tls",
        /// The connection broke.
        Reset = "reset",
        /// The request timed out.
        Timeout = "timeout",
        /// It broke the rules of HTTP.
        Protocol = "protocol",
    }
}

/// Each address and what it did.
pub(super) fn list(causes: &[(SocketAddr, io::Error)]) -> String {
    let causes = causes.iter();
    let causes: Vec<String> = causes
        .map(|(a, e)| format!("{a}: {}", in_words(e)))
        .collect();
    causes.join(", ")
}

/// The system's reason, without its number.
#[must_use]
pub fn in_words(error: &io::Error) -> String {
    let text = error.to_string();
    let end = text.find(" (os error").unwrap_or(text.len());
    text[..end].to_lowercase()
}

fn explain_connect(host: &str, causes: &[(SocketAddr, io::Error)], written: &str) -> String {
    let refused = |(_, e): &(_, io::Error)| e.kind() == io::ErrorKind::ConnectionRefused;
    if causes.iter().all(refused) {
        let addresses: Vec<String> = causes.iter().map(|(a, _)| a.to_string()).collect();
        let at = match &*addresses {
            [only] if only == host => String::new(),
            all => format!(" at {}", all.join(", ")),
        };
        return format!(
            "{host} refused the connection{at}; nothing listens there, or a firewall refuses: check {written}"
        );
    }
    if causes.iter().all(|(_, e)| is_shortage(e)) {
        return format!(
            "cannot connect to {host}: no file descriptor is left; raise the limit of open files (ulimit -n, or LimitNOFILE= of systemd)"
        );
    }
    let causes = list(causes);
    format!("cannot connect to {host} ({causes}); check {written} and this network")
}

fn explain_tls(host: &str, cause: &io::Error, written: &str) -> String {
    let quotation = Quotation::without(Vec::new());
    match rustls(cause) {
        Some(rustls::Error::InvalidCertificate(reason)) => format!(
            "the certificate of {host} is not accepted ({}); {}",
            quotation.quote(&reason.to_string()),
            tls::certificate_advice(reason)
        ),
        Some(rustls::Error::InvalidMessage(_)) => format!(
            "{host} does not speak TLS ({}); check the scheme and the port in {written}",
            quotation.quote(&cause.to_string())
        ),
        _ => format!(
            "TLS with {host} failed ({}); check what stands between here and there",
            quotation.quote(&in_words(cause))
        ),
    }
}

fn rustls(error: &io::Error) -> Option<&rustls::Error> {
    error.get_ref()?.downcast_ref()
}
