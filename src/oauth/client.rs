//! Sends token requests: one request and one response per call.

use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use http::header::{ACCEPT, ACCEPT_ENCODING, AUTHORIZATION, CONTENT_TYPE};
use http::{HeaderValue, Request};
use url::{Position, Url};

use super::Config;
use super::issuer::Issuer;
use super::request::TokenRequest;
use super::response::{self, MAX_BODY};
use crate::clock::Clock;
use crate::outgoing::addresses::Addresses;
use crate::outgoing::client::{self, NoResponse};
use crate::outgoing::via::{self, VIA};
use crate::secret::Secret;
use crate::token::ports::{Grant, Outcome, RequestError, TokenEndpoint};

/// Requests tokens for one client.
#[derive(Debug)]
pub struct TokenClient {
    http: client::Client,
    issuer: Issuer,
    /// The request without its body.
    request: Request<()>,
    form: Secret,
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
    /// Returns a client for `config`. Reads `clock` only for dates in `Retry-After`. Uses the API's
    /// `addresses` if they are those of the token endpoint too. Opens no connection.
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
        let http = client::Client::new(&route, config.timeout, addresses)?;
        let TokenRequest {
            authorization,
            form,
        } = TokenRequest::new(config);
        let path = &config.token_url[Position::BeforePath..Position::AfterQuery];
        let request = Request::post(path).header(VIA, via::own());
        let request = request
            .body(())
            .map_err(|_| BuildError::Url("cannot be requested"));
        let mut request = request?;
        let headers = request.headers_mut();
        for (name, value) in [
            (ACCEPT, "application/json"),
            (ACCEPT_ENCODING, "identity"),
            (CONTENT_TYPE, "application/x-www-form-urlencoded"),
        ] {
            headers.insert(name, HeaderValue::from_static(value));
        }
        headers.extend(authorization.map(|value| (AUTHORIZATION, value)));
        Ok(TokenClient {
            http,
            issuer,
            request,
            form,
            clock,
        })
    }
}

#[async_trait]
impl TokenEndpoint for TokenClient {
    async fn request_token(&self) -> Result<Grant, RequestError> {
        let body = Bytes::from(self.form.expose().to_owned());
        let request = self.request.clone().map(|()| body);
        let (what, quotation) = ("the token request", self.issuer.quotation());
        let sent = self.http.send(request, MAX_BODY, what, quotation).await;
        let answer = sent.map_err(|failure| RequestError {
            outcome: match failure.no_response {
                NoResponse::Unreached => Outcome::Connect,
                NoResponse::TimedOut => Outcome::Timeout,
                NoResponse::Broken => Outcome::ConnectionLost,
            },
            retry_after: None,
            message: failure.message,
        })?;
        response::parse(&answer, &self.issuer, self.clock.wall())
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
