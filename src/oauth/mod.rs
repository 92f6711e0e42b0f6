//! The token endpoint's client: one request per call (RFC 6749, section 4.4). Every response
//! becomes a token or a failure whose cost the engine can account for.
//!
//! `request` builds the request, [`client`] sends it, [`response`] interprets the response (pure),
//! and [`issuer`] quotes it in messages without the client's secret.
//!
//! Guarantees: no retry, redirect or cookie, and no proxy but [`Config::proxy`]. A request ends
//! within [`Config::timeout`]. No message and no `Debug` contains a secret.

pub mod client;
pub mod issuer;
mod request;
pub mod response;

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::client_id::ClientId;
use crate::outgoing::addresses::Target;
use crate::outgoing::dial::Route;
use crate::outgoing::tunnel;
use crate::secret::Secret;
use crate::tls::{CaFile, Identity};

/// Where a client gets its tokens, and how it authenticates.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// The token endpoint.
    pub token_url: reqwest::Url,
    /// The client's id.
    pub client_id: ClientId,
    /// The client's secret.
    pub client_secret: Secret,
    /// How both are sent.
    pub auth_method: AuthMethod,
    /// `scope`, sent only if set.
    pub scope: Option<String>,
    /// The timeout of one request, including the response body.
    pub timeout: Duration,
    /// The timeout of name resolution, connection and TLS together.
    pub connect_timeout: Duration,
    /// Trusted authorities besides the system's.
    pub ca_file: Option<CaFile>,
    /// The client certificate, for a token endpoint that asks for one.
    pub identity: Option<Identity>,
    /// The forward proxy to the token endpoint.
    pub proxy: Option<tunnel::Proxy>,
    /// Where to connect instead of the URL's host; empty: nowhere else.
    pub address: Vec<Target>,
}

impl Config {
    /// The way to the token endpoint.
    #[must_use]
    pub fn route(&self) -> Route<'_> {
        Route {
            ca_file: self.ca_file.as_ref(),
            identity: self.identity.as_ref(),
            proxy: self.proxy.as_ref().map(|proxy| (proxy, "token_proxy")),
            address: &self.address,
            ..Route::to(&self.token_url, self.connect_timeout)
        }
    }
}

/// How a client authenticates at the token endpoint (RFC 6749, section 2.3.1).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AuthMethod {
    /// `client_secret_basic`: in the `Authorization` header, both parts form-urlencoded.
    #[default]
    ClientSecretBasic,
    /// `client_secret_post`: in the body.
    ClientSecretPost,
}

#[cfg(test)]
pub(crate) mod testing {
    //! Shared by the tests of this module.

    use super::*;

    /// A client of `https://acme.example`.
    pub(crate) fn config(id: &str, secret: &str) -> Config {
        Config {
            token_url: "https://acme.example/rest/oauth/v2/token".parse().unwrap(),
            client_id: ClientId::parse(id).unwrap(),
            client_secret: Secret::from(secret.to_owned()),
            auth_method: AuthMethod::ClientSecretBasic,
            scope: None,
            timeout: Duration::from_secs(10),
            connect_timeout: Duration::from_secs(5),
            ca_file: None,
            identity: None,
            proxy: None,
            address: Vec::new(),
        }
    }
}
