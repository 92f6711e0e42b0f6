//! Why there is no connection, in kinds for the metrics and in words for people.

use std::io;
use std::net::SocketAddr;

use super::quotation::Quotation;
use crate::descriptors::is_shortage;
use crate::telemetry::labels;
use crate::tls;

/// Why there is no connection: what failed, on what, why, and what to do. Never quotes what a
/// forward proxy sent.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub struct DialError {
    /// What failed.
    pub step: Step,
    /// Whether it timed out.
    pub is_timeout: bool,
    /// Whether another attempt would fail the same way.
    pub is_final: bool,
    /// The addresses that accepted no connection, each with the system's reason.
    pub(super) causes: Vec<(SocketAddr, io::Error)>,
    /// What failed, on what, why, and what to do.
    pub(super) message: String,
}

/// A step on the way to a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// There is no address to connect to.
    Resolve,
    /// The server, or the forward proxy, accepts no connection.
    Connect,
    /// The forward proxy does not connect to the server.
    Proxy,
    /// The TLS handshake with the server at this address fails.
    Tls(SocketAddr),
}

impl DialError {
    /// Returns the error of `step`, which timed out or not. Another attempt may succeed, but not
    /// after a timeout or without an address.
    pub(super) fn new(step: Step, is_timeout: bool, message: String) -> DialError {
        DialError {
            step,
            is_timeout,
            is_final: is_timeout || step == Step::Resolve,
            causes: Vec::new(),
            message,
        }
    }

    /// Returns the error of a server none of whose addresses accepted a connection; `written` says
    /// where its address is configured.
    pub(super) fn refused(
        host: &str,
        causes: Vec<(SocketAddr, io::Error)>,
        written: &str,
    ) -> DialError {
        let all = |kind| causes.iter().all(|(_, cause)| cause.kind() == kind);
        let message = if all(io::ErrorKind::ConnectionRefused) {
            let addresses: Vec<String> = causes.iter().map(|(a, _)| a.to_string()).collect();
            let at = match &*addresses {
                [only] if only == host => String::new(),
                all => format!(" at {}", all.join(", ")),
            };
            format!(
                "{host} refused the connection{at}; nothing listens there, or a firewall refuses: check {written}"
            )
        } else if causes.iter().all(|(_, cause)| is_shortage(cause)) {
            format!(
                "cannot connect to {host}: no file descriptor is left; raise the limit of open files (ulimit -n, or LimitNOFILE= of systemd)"
            )
        } else {
            let causes = list(&causes);
            format!("cannot connect to {host} ({causes}); check {written} and this network")
        };
        let is_timeout = all(io::ErrorKind::TimedOut);
        DialError {
            causes,
            ..DialError::new(Step::Connect, is_timeout, message)
        }
    }

    /// Returns the error of a TLS handshake with `host` at `address`.
    pub(super) fn tls(
        host: &str,
        address: SocketAddr,
        cause: &io::Error,
        written: &str,
    ) -> DialError {
        let quote = |text: String| Quotation::without(Vec::new()).quote(&text);
        let error = cause.get_ref().and_then(|e| e.downcast_ref());
        let message = match error {
            Some(rustls::Error::InvalidCertificate(reason)) => format!(
                "the certificate of {host} is not accepted ({}); {}",
                quote(reason.to_string()),
                tls::certificate_advice(reason)
            ),
            Some(rustls::Error::InvalidMessage(_)) => format!(
                "{host} does not speak TLS ({}); check the scheme and the port in {written}",
                quote(cause.to_string())
            ),
            _ => format!(
                "TLS with {host} failed ({}); check what stands between here and there",
                quote(in_words(cause))
            ),
        };
        DialError {
            is_final: matches!(error, Some(rustls::Error::InvalidCertificate(_))),
            ..DialError::new(Step::Tls(address), false, message)
        }
    }

    /// What failed, as a metric's label.
    #[must_use]
    pub fn kind(&self) -> Kind {
        match self.step {
            Step::Resolve => Kind::Dns,
            Step::Tls(_) => Kind::Tls,
            Step::Connect | Step::Proxy if self.is_timeout => Kind::Timeout,
            Step::Connect | Step::Proxy => Kind::Connect,
        }
    }

    /// Whether it says nothing about the server: this process or system has no file descriptor
    /// left.
    pub(super) fn is_shortage(&self) -> bool {
        !self.causes.is_empty() && self.causes.iter().all(|(_, e)| is_shortage(e))
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
