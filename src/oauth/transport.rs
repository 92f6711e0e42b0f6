//! The ways in which a request brings no answer, told apart: whether the issuer can have seen it,
//! and what a person is to do.

use std::error::Error;
use std::io;

use super::Config;
use super::issuer::Issuer;
use crate::tls;
use crate::token::ports::{Outcome, RequestError};

/// What it means that the exchange with `issuer` ended in `error`.
pub(crate) fn failure(error: &reqwest::Error, issuer: &Issuer, config: &Config) -> RequestError {
    let host = issuer.authority();
    let (outcome, message) = if error.is_connect() {
        (Outcome::Connect, unreached(error, issuer, config))
    } else if error.is_timeout() {
        (
            Outcome::Timeout,
            format!(
                "{host} gave no whole answer to the token request within {}; if this goes on, check the network on the way there and Collibra's status",
                humantime::format_duration(config.timeout)
            ),
        )
    } else {
        (
            Outcome::ConnectionLost,
            format!(
                "{host} gave no whole HTTP answer to the token request ({}); if this goes on, check what stands between here and there, and Collibra's status",
                issuer.quote(&root_cause(error))
            ),
        )
    };
    RequestError {
        outcome,
        retry_after: None,
        message,
    }
}

/// Why there was no connection: the name, the address, the certificate, TLS.
fn unreached(error: &reqwest::Error, issuer: &Issuer, config: &Config) -> String {
    let host = issuer.authority();
    let cause = issuer.quote(&root_cause(error));
    if let Some(proxy) = &config.proxy {
        let refused = chain(error).any(|e| e.downcast_ref::<rustls::Error>().is_some());
        if !refused {
            return format!(
                "the proxy {proxy} did not connect to {host} ({}); check token_proxy and its credentials, and that it allows this host",
                through(error, &cause, config)
            );
        }
    }
    if error.is_timeout() {
        return format!(
            "no connection to {host} within {}; a firewall may drop it: check the instance's url and the way out of this network",
            humantime::format_duration(config.connect_timeout)
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
                issuer.quote(&reason.to_string()),
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
fn through(error: &reqwest::Error, cause: &str, config: &Config) -> String {
    if error.is_timeout() {
        let limit = humantime::format_duration(config.connect_timeout);
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

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use reqwest::dns::{Name, Resolve, Resolving};

    use super::*;
    use crate::oauth::testing;

    struct NoSuchName;

    impl Resolve for NoSuchName {
        fn resolve(&self, _: Name) -> Resolving {
            Box::pin(async { Err("Name or service not known".into()) })
        }
    }

    #[tokio::test]
    async fn a_name_without_an_address_is_told_apart_and_the_url_stays_unsaid() {
        let mut config = testing::config("urn:sys:env:1", "canary-27");
        config.token_url.set_query(Some("canary-28"));
        config.token_url.set_scheme("http").unwrap();
        let http = reqwest::Client::builder()
            .no_proxy()
            .tls_backend_preconfigured(crate::tls::client_config(None).unwrap())
            .dns_resolver(Arc::new(NoSuchName))
            .build()
            .unwrap();
        let error = http.post(config.token_url.clone()).send().await;
        let failed = failure(&error.unwrap_err(), &Issuer::new(&config), &config);
        assert_eq!(failed.outcome, Outcome::Connect);
        assert_eq!(
            failed.message,
            "cannot find the address of acme.example (Name or service not known); check the instance's url and this machine's DNS"
        );
    }
}
