//! Classifies token requests without a response by what they may have cost.

use super::Config;
use super::issuer::Issuer;
use crate::outgoing::failure::{NoResponse, RequestContext, explain};
use crate::token::ports::{Outcome, RequestError};

/// The failure of an exchange with `issuer` that ended in `error`.
pub(crate) fn failure(error: &reqwest::Error, issuer: &Issuer, config: &Config) -> RequestError {
    let request = RequestContext {
        host: issuer.authority(),
        what: "the token request",
        timeout: config.timeout,
        connect_timeout: config.connect_timeout,
        proxy: config.proxy.as_ref().map(|proxy| (proxy, "token_proxy")),
        quotation: issuer.quotation(),
    };
    let (silence, message) = explain(error, &request);
    RequestError {
        outcome: match silence {
            NoResponse::Unreached => Outcome::Connect,
            NoResponse::TimedOut => Outcome::Timeout,
            NoResponse::Broken => Outcome::ConnectionLost,
        },
        retry_after: None,
        message,
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
