//! The API's calls: one request and one response each, without state.

use std::fmt;

use bytes::Bytes;
use http::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE};
use http::{HeaderMap, HeaderValue, Method, Request};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde::Serialize;

use super::answer::{Answer, MAX_BODY};
use super::{Authorization, Changes, Config, Error, Kind, NewClient, Registered, Registration};
use crate::client_id::ClientId;
use crate::outgoing;
use crate::outgoing::client::{self, BuildError, Failure, NoResponse};
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
pub struct RegistrationClient {
    http: client::Client,
    config: Config,
    host: String,
}

/// A call to be made.
struct Call<'a, B> {
    method: Method,
    /// The path below `/clients`: empty, or a slash and a client's id.
    path: String,
    /// The request, for messages.
    what: &'a str,
    body: Option<&'a B>,
}

impl RegistrationClient {
    /// Returns a client for the API that `config` describes. Opens no connection.
    ///
    /// # Errors
    /// [`BuildError`] if the certificates are unusable.
    pub fn new(config: Config) -> Result<RegistrationClient, BuildError> {
        let host = outgoing::authority(&config.instance);
        let http = client::Client::new(&config.route(), &host, config.timeout, None)?;
        Ok(RegistrationClient { http, config, host })
    }

    /// The instance's host, for messages.
    #[must_use]
    pub fn host(&self) -> &str {
        &self.host
    }

    /// Lists all registered clients.
    ///
    /// # Errors
    /// [`Error`] if the call fails.
    pub async fn list(&self, by: &Authorization) -> Result<Vec<Registration>, Error> {
        let call = Call::<()> {
            method: Method::GET,
            path: String::new(),
            what: "the request for its clients",
            body: None,
        };
        self.carry_out(call, by, |answer| answer.list()).await
    }

    /// Registers a client. The response contains its secret, which is never shown again.
    ///
    /// # Errors
    /// [`Error`]; [`Kind::may_have_succeeded`] says whether the client may exist nevertheless.
    pub async fn register(&self, by: &Authorization, new: &NewClient) -> Result<Registered, Error> {
        let call = Call {
            method: Method::POST,
            path: String::new(),
            what: "the registration of a client",
            body: Some(new),
        };
        self.carry_out(call, by, |answer| answer.registered()).await
    }

    /// Reads one client.
    ///
    /// # Errors
    /// [`Error`] if the call fails.
    pub async fn show(&self, by: &Authorization, id: &ClientId) -> Result<Registration, Error> {
        let call = Call::<()> {
            method: Method::GET,
            path: segment(id)?,
            what: "the request for a client",
            body: None,
        };
        self.carry_out(call, by, |answer| answer.client()).await
    }

    /// Updates a client. If the response contains a secret, it may be a new one.
    ///
    /// # Errors
    /// [`Error`]; [`Kind::may_have_succeeded`] says whether the update may have been applied
    /// nevertheless.
    pub async fn update(
        &self,
        by: &Authorization,
        id: &ClientId,
        changes: &Changes,
    ) -> Result<Registered, Error> {
        let call = Call {
            method: Method::PUT,
            path: segment(id)?,
            what: "the update of a client",
            body: Some(changes),
        };
        self.carry_out(call, by, |answer| answer.updated()).await
    }

    /// Deletes a client, which revokes its access.
    ///
    /// # Errors
    /// [`Error`]; [`Kind::may_have_succeeded`] says whether the client may be gone nevertheless.
    pub async fn delete(&self, by: &Authorization, id: &ClientId) -> Result<(), Error> {
        let call = Call::<()> {
            method: Method::DELETE,
            path: segment(id)?,
            what: "the deletion of a client",
            body: None,
        };
        self.carry_out(call, by, |answer| answer.deleted()).await
    }

    async fn carry_out<B: Serialize, T>(
        &self,
        call: Call<'_, B>,
        by: &Authorization,
        read: impl FnOnce(&Answer<'_>) -> Result<T, Error>,
    ) -> Result<T, Error> {
        let quotation = Quotation::without(by.secret_forms());
        let failure = |Failure {
                           no_response,
                           message,
                       }: Failure| {
            let kind = match no_response {
                NoResponse::Unreached => Kind::Unreached,
                NoResponse::TimedOut | NoResponse::Broken => Kind::NoAnswer,
            };
            Error { kind, message }
        };
        let path = format!("{}/clients{}", self.config.base.path(), call.path);
        let mut request = Request::new(Bytes::new());
        *request.method_mut() = call.method;
        *request.uri_mut() = path.parse().map_err(|_| unsendable("the client's id"))?;
        *request.headers_mut() = headers(by)?;
        if let Some(body) = call.body {
            let json = serde_json::to_vec(body).map_err(|_| unsendable("the request"))?;
            let json_type = HeaderValue::from_static("application/json");
            request.headers_mut().insert(CONTENT_TYPE, json_type);
            *request.body_mut() = json.into();
        }
        let sent = self.http.send(request, MAX_BODY, call.what, &quotation);
        let answer = sent.await.map_err(failure)?;
        read(&Answer {
            host: &self.host,
            what: call.what,
            status: answer.status,
            headers: &answer.headers,
            body: &answer.body,
            quotation: &quotation,
        })
    }
}

impl fmt::Debug for RegistrationClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RegistrationClient")
            .field("host", &self.host)
            .field("base", &self.config.base)
            .finish_non_exhaustive()
    }
}

fn headers(by: &Authorization) -> Result<HeaderMap, Error> {
    let mut headers = HeaderMap::with_capacity(2);
    headers.insert(ACCEPT, HeaderValue::from_static("application/json"));
    let authorization = by.header().ok_or_else(|| unsendable("the token"))?;
    headers.insert(AUTHORIZATION, authorization);
    Ok(headers)
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
        kind: Kind::Unsendable,
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
            assert_eq!(path(swallowed).unwrap_err().kind, Kind::Unsendable);
        }
    }
}
