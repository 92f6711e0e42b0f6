//! The calls: one request each, one answer, nothing kept.

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
use crate::outgoing::client::{self, BuildError, Failure, Silence};
use crate::outgoing::quotation::Quotation;

/// What stands for itself in a segment of a path (RFC 3986, section 3.3), colons included.
const SEGMENT: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'.')
    .remove(b'_')
    .remove(b'~')
    .remove(b':');

/// The API at one instance.
pub struct RegistrationClient {
    http: client::Client,
    config: Config,
    host: String,
}

/// A call, before it is made.
struct Call<'a, B> {
    method: Method,
    /// Below `/clients`: empty, or a slash and a client's id.
    path: String,
    /// For messages.
    what: &'a str,
    body: Option<&'a B>,
}

impl RegistrationClient {
    /// The API that `config` names. Opens no connection.
    ///
    /// # Errors
    /// [`BuildError`] if the certificates cannot be used.
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

    /// All registered clients.
    ///
    /// # Errors
    /// [`Error`] if they are not told.
    pub async fn list(&self, by: &Authorization) -> Result<Vec<Registration>, Error> {
        let call = Call::<()> {
            method: Method::GET,
            path: String::new(),
            what: "the question for its clients",
            body: None,
        };
        self.carry_out(call, by, |answer| answer.list()).await
    }

    /// Registers a client. Its secret is in the answer and will not be shown again.
    ///
    /// # Errors
    /// [`Error`]; [`Kind::may_be_done`] tells whether there may be a client all the same.
    pub async fn register(&self, by: &Authorization, new: &NewClient) -> Result<Registered, Error> {
        let call = Call {
            method: Method::POST,
            path: String::new(),
            what: "the registration of a client",
            body: Some(new),
        };
        self.carry_out(call, by, |answer| answer.registered()).await
    }

    /// What Collibra says of one client.
    ///
    /// # Errors
    /// [`Error`] if it is not told.
    pub async fn show(&self, by: &Authorization, id: &ClientId) -> Result<Registration, Error> {
        let call = Call::<()> {
            method: Method::GET,
            path: segment(id)?,
            what: "the question for a client",
            body: None,
        };
        self.carry_out(call, by, |answer| answer.client()).await
    }

    /// Changes a client. The answer may show a secret; if so, it may be a new one.
    ///
    /// # Errors
    /// [`Error`]; [`Kind::may_be_done`] tells whether it may be changed all the same.
    pub async fn update(
        &self,
        by: &Authorization,
        id: &ClientId,
        changes: &Changes,
    ) -> Result<Registered, Error> {
        let call = Call {
            method: Method::PUT,
            path: segment(id)?,
            what: "the change of a client",
            body: Some(changes),
        };
        self.carry_out(call, by, |answer| answer.updated()).await
    }

    /// Deletes a client, which ends what it can do.
    ///
    /// # Errors
    /// [`Error`]; [`Kind::may_be_done`] tells whether it may be gone all the same.
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
        let quotation = Quotation::without(by.unspeakable());
        let failure = |Failure { silence, message }: Failure| {
            let kind = match silence {
                Silence::Unreached => Kind::Unreached,
                Silence::Late | Silence::Lost => Kind::NoAnswer,
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

/// The path of one client. An id that a path would swallow is none.
fn segment(id: &ClientId) -> Result<String, Error> {
    match id.as_str() {
        "." | ".." => Err(unsendable("the client's id")),
        id => Ok(format!("/{}", utf8_percent_encode(id, SEGMENT))),
    }
}

fn unsendable(what: &str) -> Error {
    Error {
        kind: Kind::Unsendable,
        message: format!("{what} cannot be sent as it stands; check that it was copied whole"),
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
