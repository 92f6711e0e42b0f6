//! The exchange itself: one request, one answer.

use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use http::header::{ACCEPT, ACCEPT_ENCODING, AUTHORIZATION, CONTENT_TYPE};
use http::{HeaderMap, HeaderValue, Request};
use url::Url;

use super::Config;
use super::issuer::Issuer;
use super::request::TokenRequest;
use super::response::{self, Answer, MAX_BODY};
use crate::clock::Clock;
use crate::outgoing::addresses::Addresses;
use crate::outgoing::client::{self, Failure, NoResponse};
use crate::outgoing::via::{self, VIA};
use crate::token::ports::{Grant, Outcome, RequestError, TokenEndpoint};

/// Requests tokens for one client.
pub struct TokenClient {
    http: client::Client,
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
    Http(#[from] client::BuildError),
}

impl TokenClient {
    /// A client by `config`; `clock` is asked only for dates in `Retry-After`. Shares `addresses`
    /// with the API if they are those of the token endpoint too. Opens no connection.
    ///
    /// # Errors
    /// [`BuildError`] if the URL or the certificates cannot be used.
    pub fn new(
        config: &Config,
        addresses: Option<&Arc<Addresses>>,
        clock: Arc<dyn Clock>,
    ) -> Result<TokenClient, BuildError> {
        check_url(&config.token_url)?;
        let issuer = Issuer::new(config);
        let route = config.route();
        let http = client::Client::new(&route, issuer.authority(), config.timeout, addresses)?;
        Ok(TokenClient {
            http,
            issuer,
            request: TokenRequest::new(config),
            config: config.clone(),
            clock,
        })
    }

    fn headers(&self) -> HeaderMap {
        let mut headers = HeaderMap::with_capacity(8);
        headers.insert(VIA, via::own());
        headers.insert(ACCEPT, HeaderValue::from_static("application/json"));
        headers.insert(ACCEPT_ENCODING, HeaderValue::from_static("identity"));
        headers.insert(
            CONTENT_TYPE,
            HeaderValue::from_static("application/x-www-form-urlencoded"),
        );
        if let Some(authorization) = self.request.authorization() {
            headers.insert(AUTHORIZATION, authorization.clone());
        }
        headers
    }
}

#[async_trait]
impl TokenEndpoint for TokenClient {
    async fn request_token(&self) -> Result<Grant, RequestError> {
        let url = &self.config.token_url;
        let body = Bytes::from(self.request.form().expose().to_owned());
        let mut request = Request::post(target(url)).body(body).map_err(unsendable)?;
        *request.headers_mut() = self.headers();
        let (what, quotation) = ("the token request", self.issuer.quotation());
        let sent = self.http.send(request, MAX_BODY, what, quotation).await;
        let answer = sent.map_err(failure)?;
        let answer = Answer {
            status: answer.status,
            headers: &answer.headers,
            body: &answer.body,
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

/// The path of a request for `url`, and its query.
fn target(url: &Url) -> String {
    match url.query() {
        Some(query) => format!("{}?{query}", url.path()),
        None => url.path().to_owned(),
    }
}

/// A path that no request can have, which no valid URL has.
fn unsendable(_: http::Error) -> RequestError {
    RequestError {
        outcome: Outcome::InvalidRequest,
        retry_after: None,
        message: "the token endpoint's URL cannot be requested; check token_path".to_owned(),
    }
}

/// A request without an answer, as the engine reckons with it.
fn failure(
    Failure {
        no_response,
        message,
    }: Failure,
) -> RequestError {
    RequestError {
        outcome: match no_response {
            NoResponse::Unreached => Outcome::Connect,
            NoResponse::TimedOut => Outcome::Timeout,
            NoResponse::Broken => Outcome::ConnectionLost,
        },
        retry_after: None,
        message,
    }
}

fn check_url(url: &Url) -> Result<(), BuildError> {
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
