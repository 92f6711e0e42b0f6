//! The ways in which a request brings no answer, told apart: whether the other side can have seen
//! it, and what a person is to do.

use std::error::Error;
use std::io;
use std::time::Duration;

use super::quotation::Quotation;
use super::tunnel;
use crate::tls;

/// A request, as messages speak of it.
#[derive(Clone, Copy, Debug)]
pub struct Spoken<'a> {
    /// The other side's host, and its port if that is not the scheme's own.
    pub host: &'a str,
    /// The request, like `the token request`.
    pub what: &'a str,
    /// The longest time for all of it.
    pub timeout: Duration,
    /// The longest time for the connection.
    pub connect_timeout: Duration,
    /// The forward proxy on the way there, and the key that names it.
    pub proxy: Option<(&'a tunnel::Proxy, &'a str)>,
    /// How causes may be quoted.
    pub quotation: &'a Quotation,
}

/// Why there was no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Silence {
    /// There was no connection: the other side has not seen the request.
    Unreached,
    /// It took too long.
    Late,
    /// The connection broke, or what came is no HTTP.
    Lost,
}

/// What it means that the exchange ended in `error`, and the message for people.
#[must_use]
pub fn explain(error: &reqwest::Error, spoken: &Spoken<'_>) -> (Silence, String) {
    let Spoken { host, what, .. } = spoken;
    if error.is_connect() {
        (Silence::Unreached, unreached(error, spoken))
    } else if error.is_timeout() {
        let limit = humantime::format_duration(spoken.timeout);
        let message = format!(
            "{host} gave no whole answer to {what} within {limit}; if this goes on, check the network on the way there and Collibra's status"
        );
        (Silence::Late, message)
    } else {
        let cause = spoken.quotation.quote(&root_cause(error));
        let message = format!(
            "{host} gave no whole HTTP answer to {what} ({cause}); if this goes on, check what stands between here and there, and Collibra's status"
        );
        (Silence::Lost, message)
    }
}

/// Why there was no connection: the name, the address, the certificate, TLS.
fn unreached(error: &reqwest::Error, spoken: &Spoken<'_>) -> String {
    let host = spoken.host;
    let cause = spoken.quotation.quote(&root_cause(error));
    if let Some((proxy, key)) = &spoken.proxy {
        let by_tls = chain(error).any(|e| e.downcast_ref::<rustls::Error>().is_some());
        if !by_tls {
            return format!(
                "the proxy {proxy} did not connect to {host} ({}); check {key} and its credentials, and that it allows this host",
                through(error, &cause, spoken)
            );
        }
    }
    if error.is_timeout() {
        return format!(
            "no connection to {host} within {}; a firewall may drop it: check the instance's url and the way out of this network",
            humantime::format_duration(spoken.connect_timeout)
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
                spoken.quotation.quote(&reason.to_string()),
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
            "{host} refused the connection; nothing listens there, or a firewall refuses: check the instance's url"
        );
    }
    format!("cannot connect to {host} ({cause}); check the instance's url and this network")
}

/// Why there was no way through a proxy.
fn through(error: &reqwest::Error, cause: &str, spoken: &Spoken<'_>) -> String {
    if error.is_timeout() {
        let limit = humantime::format_duration(spoken.connect_timeout);
        return format!("nothing within {limit}");
    }
    // the HTTP client's words
    match cause.trim_start_matches("tunnel error: ") {
        "proxy authorization required" => "it wants other credentials: 407".to_owned(),
        "unsuccessful" => "it refused".to_owned(),
        cause => cause.to_owned(),
    }
}

fn root_cause(error: &reqwest::Error) -> String {
    // reqwest's own text is its first element: it has the whole URL in it
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

/// `io::Error` leaves what it wraps out of its `source`, so it is opened.
fn cause<'a>(error: &'a (dyn Error + 'static)) -> Option<&'a (dyn Error + 'static)> {
    match error
        .downcast_ref::<io::Error>()
        .and_then(io::Error::get_ref)
    {
        Some(wrapped) => Some(wrapped),
        None => error.source(),
    }
}
