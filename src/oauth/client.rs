//! Sends token requests: one request on its own connection, one response, without state.

use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use http::header::{ACCEPT, ACCEPT_ENCODING, AUTHORIZATION, CONNECTION, CONTENT_TYPE};
use http::{HeaderMap, HeaderValue};

use super::Config;
use super::issuer::Issuer;
use super::request::TokenRequest;
use super::response::{self, Answer, MAX_BODY};
use super::transport;
use crate::clock::Clock;
use crate::outgoing;
use crate::token::ports::{Grant, RequestError, TokenEndpoint};

/// The largest share of the timeout that connecting may take, whatever is configured. A connect
/// that took all of it would look like a response that never came, which may have cost a token.
const CONNECT_SHARE: f64 = 0.9;

/// Requests tokens for one client.
pub struct TokenClient {
    http: reqwest::Client,
    config: Config,
    issuer: Issuer,
    request: TokenRequest,
    clock: Arc<dyn Clock>,
}

/// Why no client could be built; permanent until the configuration changes.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    /// The token endpoint's address is unusable. Never quotes it, because it may contain a
    /// password.
    #[error("the token endpoint's URL {0}")]
    Url(&'static str),
    /// The HTTP client could not be built.
    #[error(transparent)]
    Http(#[from] outgoing::BuildError),
}

impl TokenClient {
    /// Returns a client for `config`; `clock` is only used for dates in `Retry-After`. Opens no
    /// connection.
    ///
    /// # Errors
    /// [`BuildError`] if the URL or the certificates are unusable.
    pub fn new(config: &Config, clock: Arc<dyn Clock>) -> Result<TokenClient, BuildError> {
        check_url(&config.token_url)?;
        let mut config = config.clone();
        config.connect_timeout = config
            .connect_timeout
            .min(config.timeout.mul_f64(CONNECT_SHARE));
        let http = outgoing::client(&outgoing::Config {
            timeout: config.timeout,
            connect_timeout: config.connect_timeout,
            ca_file: config.ca_file.as_ref(),
            identity: config.identity.as_ref(),
            proxy: config.proxy.as_ref(),
        })?;
        Ok(TokenClient {
            http,
            issuer: Issuer::new(&config),
            request: TokenRequest::new(&config),
            config,
            clock,
        })
    }

    fn headers(&self) -> HeaderMap {
        let mut headers = HeaderMap::with_capacity(5);
        headers.insert(ACCEPT, HeaderValue::from_static("application/json"));
        headers.insert(ACCEPT_ENCODING, HeaderValue::from_static("identity"));
        headers.insert(CONNECTION, HeaderValue::from_static("close"));
        headers.insert(
            CONTENT_TYPE,
            HeaderValue::from_static("application/x-www-form-urlencoded"),
        );
        if let Some(authorization) = self.request.authorization() {
            headers.insert(AUTHORIZATION, authorization.clone());
        }
        headers
    }

    fn failure(&self, error: &reqwest::Error) -> RequestError {
        transport::failure(error, &self.issuer, &self.config)
    }
}

#[async_trait]
impl TokenEndpoint for TokenClient {
    async fn request_token(&self) -> Result<Grant, RequestError> {
        let mut response = self
            .http
            .post(self.config.token_url.clone())
            .headers(self.headers())
            .body(self.request.form().expose().to_owned())
            .send()
            .await
            .map_err(|error| self.failure(&error))?;

        let mut body = Vec::new();
        let broken = outgoing::read_body(&mut response, &mut body, MAX_BODY)
            .await
            .err();
        // the status decides about a refusal, even if its body is broken
        if let Some(error) = broken.filter(|_| response.status().is_success()) {
            return Err(self.failure(&error));
        }
        let answer = Answer {
            status: response.status(),
            headers: response.headers(),
            body: &body,
        };
        response::parse(answer, &self.issuer, self.clock.wall())
    }
}

impl fmt::Debug for TokenClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TokenClient")
            .field("issuer", &self.issuer)
            .field("client_id", &self.config.client_id)
            .field("auth_method", &self.config.auth_method)
            .finish_non_exhaustive()
    }
}

fn check_url(url: &reqwest::Url) -> Result<(), BuildError> {
    if !matches!(url.scheme(), "http" | "https") {
        return Err(BuildError::Url("should begin with https://"));
    }
    // the HTTP client would send them instead of the client's own credentials
    if !url.username().is_empty() || url.password().is_some() {
        return Err(BuildError::Url(
            "has a user name or password in it; leave them out, because the client sends its own",
        ));
    }
    // RFC 6749, section 3.2
    if url.fragment().is_some() {
        return Err(BuildError::Url("has a fragment (#…); leave it out"));
    }
    Ok(())
}

#[cfg(test)]
mod tests;
