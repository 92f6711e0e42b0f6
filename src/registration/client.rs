//! The API's calls: one request and one response each, without state.

use std::time::Duration;

use bytes::Bytes;
use http::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE};
use http::{HeaderValue, Method, Request};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

use super::answer::{Answer, MAX_BODY};
use super::{Attributes, Authorization, Error, Registered, Registration};
use crate::client_id::ClientId;
use crate::outgoing::client::{BuildError, Client, NoResponse};
use crate::outgoing::dial::Route;
use crate::outgoing::quotation::Quotation;

/// The characters that a path segment may contain unencoded (RFC 3986, section 3.3); colons are
/// encoded too.
const SEGMENT: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'.')
    .remove(b'_')
    .remove(b'~')
    .remove(b':');

/// Calls the API of one instance.
#[derive(Debug)]
pub struct RegistrationClient {
    http: Client,
    base: &'static str,
}

impl RegistrationClient {
    /// Returns a client for the API below the path `base` of an instance: [`super::ENVIRONMENT`] or
    /// [`super::PLATFORM`]. A call takes at most `timeout`. Opens no connection.
    ///
    /// # Errors
    /// [`BuildError`] if the certificates are unusable.
    pub fn new(
        route: &Route<'_>,
        base: &'static str,
        timeout: Duration,
    ) -> Result<RegistrationClient, BuildError> {
        Ok(RegistrationClient {
            http: Client::new(route, timeout, None)?,
            base,
        })
    }

    /// The instance's host, for messages.
    #[must_use]
    pub fn host(&self) -> &str {
        self.http.authority()
    }

    /// Lists all registered clients.
    ///
    /// # Errors
    /// [`Error`] if the call fails.
    pub async fn list(&self, by: &Authorization) -> Result<Vec<Registration>, Error> {
        let what = "the request for its clients";
        self.call(by, what, Method::GET, "", None).await?.list()
    }

    /// Registers a client. The response contains its secret, which is never shown again.
    ///
    /// # Errors
    /// [`Error`], which says whether the client may exist nevertheless.
    pub async fn register(
        &self,
        by: &Authorization,
        new: &Attributes,
    ) -> Result<Registered, Error> {
        let what = "the registration of a client";
        let answer = self.call(by, what, Method::POST, "", Some(new)).await?;
        answer.registered()
    }

    /// Reads one client.
    ///
    /// # Errors
    /// [`Error`] if the call fails.
    pub async fn show(&self, by: &Authorization, id: &ClientId) -> Result<Registration, Error> {
        let (what, path) = ("the request for a client", segment(id)?);
        let answer = self.call(by, what, Method::GET, &path, None).await?;
        answer.client()
    }

    /// Updates a client. If the response contains a secret, it may be a new one.
    ///
    /// # Errors
    /// [`Error`], which says whether the update may have been applied nevertheless.
    pub async fn update(
        &self,
        by: &Authorization,
        id: &ClientId,
        changes: &Attributes,
    ) -> Result<Registered, Error> {
        let (what, path) = ("the update of a client", segment(id)?);
        let answer = self
            .call(by, what, Method::PUT, &path, Some(changes))
            .await?;
        answer.updated()
    }

    /// Deletes a client, which revokes its access.
    ///
    /// # Errors
    /// [`Error`], which says whether the client may be gone nevertheless.
    pub async fn delete(&self, by: &Authorization, id: &ClientId) -> Result<(), Error> {
        let (what, path) = ("the deletion of a client", segment(id)?);
        self.call(by, what, Method::DELETE, &path, None).await?;
        Ok(())
    }

    /// Sends a request for `path` below `/clients`: empty, or a slash and a client's id. Messages
    /// call the request `what`.
    async fn call(
        &self,
        by: &Authorization,
        what: &'static str,
        method: Method,
        path: &str,
        body: Option<&Attributes>,
    ) -> Result<Answer<'_>, Error> {
        let uri = format!("{}/clients{path}", self.base).parse();
        let mut request = Request::new(Bytes::new());
        *request.method_mut() = method;
        *request.uri_mut() = uri.map_err(|_| unsendable("the client's id"))?;
        let authorization = by.header().ok_or_else(|| unsendable("the token"))?;
        request.headers_mut().insert(AUTHORIZATION, authorization);
        let json = HeaderValue::from_static("application/json");
        if let Some(body) = body {
            let body = serde_json::to_vec(body).map_err(|_| unsendable("the request"))?;
            *request.body_mut() = body.into();
            request.headers_mut().insert(CONTENT_TYPE, json.clone());
        }
        request.headers_mut().insert(ACCEPT, json);
        let quotation = Quotation::without(by.secret_forms());
        let sent = self.http.send(request, MAX_BODY, what, &quotation).await;
        let response = sent.map_err(|failure| Error {
            may_have_succeeded: failure.no_response != NoResponse::Unreached,
            message: failure.message,
        })?;
        let answer = Answer {
            host: self.host(),
            what,
            quotation,
            response,
        };
        answer.require_success()?;
        Ok(answer)
    }
}

/// The path of one client. `.` and `..` are rejected: a path would resolve them.
fn segment(id: &ClientId) -> Result<String, Error> {
    match id.as_str() {
        "." | ".." => Err(unsendable("the client's id")),
        id => Ok(format!("/{}", utf8_percent_encode(id, SEGMENT))),
    }
}

fn unsendable(what: &str) -> Error {
    Error {
        may_have_succeeded: false,
        message: format!("{what} cannot be sent; check that it was copied completely"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_one_segment_of_the_path() {
        let path = |id: &str| segment(&ClientId::parse(id).unwrap());
        assert_eq!(
            path("urn:sys:env:2e-1:i:1c").unwrap(),
            "/urn:sys:env:2e-1:i:1c"
        );
        assert_eq!(
            path("a/b?c#d%e ../f").unwrap(),
            "/a%2Fb%3Fc%23d%25e%20..%2Ff"
        );
        for swallowed in [".", ".."] {
            let refused = path(swallowed).unwrap_err();
            assert!(refused.message.contains("cannot be sent"), "{refused}");
        }
    }
}
