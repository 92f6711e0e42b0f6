//! Classifies requests without a response: whether the server can have seen the request, and what
//! to do.

use std::error::Error;
use std::io;
use std::time::Duration;

use super::quotation::Quotation;
use super::tunnel;
use crate::tls;

/// A request, for messages.
#[derive(Clone, Copy, Debug)]
pub struct RequestContext<'a> {
    /// The server's host, and the port unless it is the default.
    pub host: &'a str,
    /// The request, like `the token request`.
    pub what: &'a str,
    /// The overall timeout.
    pub timeout: Duration,
    /// The connect timeout.
    pub connect_timeout: Duration,
    /// The forward proxy on the way, and the key that configures it.
    pub proxy: Option<(&'a tunnel::Proxy, &'a str)>,
    /// How to quote causes.
    pub quotation: &'a Quotation,
}

/// Why there was no response.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoResponse {
    /// The connection failed: the server has not seen the request.
    Unreached,
    /// The request timed out.
    TimedOut,
    /// The connection broke, or the response is not HTTP.
    Broken,
}

/// Classifies an exchange that ended in `error`; also returns the message for operators.
#[must_use]
pub fn explain(error: &reqwest::Error, request: &RequestContext<'_>) -> (NoResponse, String) {
    let RequestContext { host, what, .. } = request;
    if error.is_connect() {
        (NoResponse::Unreached, unreached(error, request))
    } else if error.is_timeout() {
        let limit = humantime::format_duration(request.timeout);
        let message = format!(
            "{host} did not answer {what} completely within {limit}; if this continues, check the network path and Collibra's status"
        );
        (NoResponse::TimedOut, message)
    } else {
        let cause = request.quotation.quote(&root_cause(error));
        let message = format!(
            "{host} did not answer {what} with a complete HTTP response ({cause}); if this continues, check the proxies on the way and Collibra's status"
        );
        (NoResponse::Broken, message)
    }
}

/// Why the connection failed: name, address, certificate or TLS.
fn unreached(error: &reqwest::Error, request: &RequestContext<'_>) -> String {
    let host = request.host;
    let cause = request.quotation.quote(&root_cause(error));
    if let Some((proxy, key)) = &request.proxy {
        let by_tls = chain(error).any(|e| e.downcast_ref::<rustls::Error>().is_some());
        if !by_tls {
            return format!(
                "the proxy {proxy} did not connect to {host} ({}); check {key} and its credentials, and that it allows this host",
                through(error, &cause, request)
            );
        }
    }
    if error.is_timeout() {
        return format!(
            "no connection to {host} within {}; a firewall may drop packets: check the instance's url and this network's egress",
            humantime::format_duration(request.connect_timeout)
        );
    }
    if error.is_dns() {
        return format!(
            "cannot find the address of {host} ({cause}); check the instance's url and this machine's DNS"
        );
    }
    if let Some(error) = chain(error).find_map(|e| e.downcast_ref::<rustls::Error>()) {
        return match error {
            rustls::Error::InvalidCertificate(reason) => format!(
                "the certificate of {host} is not accepted ({}); {}",
                request.quotation.quote(&reason.to_string()),
                tls::certificate_advice(reason)
            ),
            rustls::Error::InvalidMessage(_) => format!(
                "{host} does not speak TLS ({cause}); check the scheme and the port in the instance's url"
            ),
            _ => format!("TLS with {host} failed ({cause})"),
        };
    }
    let refused = chain(error)
        .filter_map(|e| e.downcast_ref::<io::Error>())
        .any(|e| e.kind() == io::ErrorKind::ConnectionRefused);
    if refused {
        return format!(
            "{host} refused the connection; nothing listens there, or a firewall rejects it: check the instance's url"
        );
    }
    format!("cannot connect to {host} ({cause}); check the instance's url and this network")
}

/// Why a forward proxy did not connect.
fn through(error: &reqwest::Error, cause: &str, request: &RequestContext<'_>) -> String {
    if error.is_timeout() {
        let limit = humantime::format_duration(request.connect_timeout);
        return format!("nothing within {limit}");
    }
    // the HTTP client's text
    match cause.trim_start_matches("tunnel error: ") {
        "proxy authorization required" => "it requires other credentials: 407".to_owned(),
        "unsuccessful" => "it refused".to_owned(),
        cause => cause.to_owned(),
    }
}

fn root_cause(error: &reqwest::Error) -> String {
    // skip reqwest's own text: it contains the whole URL
    chain(error)
        .skip(1)
        .last()
        .map_or_else(|| "no reason given".to_owned(), ToString::to_string)
}

/// An error and its causes.
fn chain(error: &reqwest::Error) -> impl Iterator<Item = &(dyn Error + 'static)> {
    let first: &(dyn Error + 'static) = error;
    std::iter::successors(Some(first), |error| cause(*error))
}

/// `io::Error` omits the wrapped error from its `source`, so it is unwrapped here.
fn cause<'a>(error: &'a (dyn Error + 'static)) -> Option<&'a (dyn Error + 'static)> {
    match error
        .downcast_ref::<io::Error>()
        .and_then(io::Error::get_ref)
    {
        Some(wrapped) => Some(wrapped),
        None => error.source(),
    }
}
