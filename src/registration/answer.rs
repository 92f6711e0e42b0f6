//! Interprets responses: the requested result, or a failure with its message. Pure, because it
//! parses untrusted input.

use std::fmt;

use http::header::{CONTENT_TYPE, WWW_AUTHENTICATE};
use http::{HeaderMap, StatusCode};
use serde::Deserialize;
use serde_json::{Map, Value};

use super::{Error, Kind, Registered, Registration};
use crate::client_id::ClientId;
use crate::outgoing::quotation::Quotation;
use crate::secret::Secret;

/// The largest body in bytes: a list of many thousand clients.
pub const MAX_BODY: usize = 8 << 20;

/// The same for one client, or for a refusal: it is parsed into a map, which can take 80 times as
/// much memory.
const MAX_ONE: usize = 64 << 10;

/// A complete HTTP response.
#[derive(Clone, Copy)]
pub struct Answer<'a> {
    /// The server's host, for messages.
    pub host: &'a str,
    /// The request, for messages, like `the registration`.
    pub what: &'a str,
    /// Its status.
    pub status: StatusCode,
    /// Its headers.
    pub headers: &'a HeaderMap,
    /// Its body.
    pub body: &'a [u8],
    /// How to quote the response.
    pub quotation: &'a Quotation,
}

impl fmt::Debug for Answer<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Answer")
            .field("what", &self.what)
            .field("status", &self.status)
            .finish_non_exhaustive()
    }
}

/// A client, as every operation returns it.
#[derive(Deserialize)]
struct ClientBody {
    client_id: String,
    client_name: Option<String>,
    client_id_issued_at: Option<i64>,
    grant_types: Option<Vec<String>>,
}

#[derive(Deserialize)]
struct List {
    registrations: Option<Vec<ClientBody>>,
}

impl Answer<'_> {
    /// All clients (`findClients`).
    ///
    /// # Errors
    /// [`Error`] for anything but such a list.
    pub fn list(&self) -> Result<Vec<Registration>, Error> {
        self.require_status(&[StatusCode::OK])?;
        let list: List = self.json()?;
        let told = list.registrations.unwrap_or_default();
        told.into_iter()
            .map(|told| self.registration(told))
            .collect()
    }

    /// One client (`getClient`).
    ///
    /// # Errors
    /// [`Error`] for anything but a client.
    pub fn client(&self) -> Result<Registration, Error> {
        self.require_status(&[StatusCode::OK])?;
        self.registration(self.json()?)
    }

    /// A newly registered client, with its secret (`registerClient`).
    ///
    /// # Errors
    /// [`Error`] for anything but a client with a secret.
    pub fn registered(&self) -> Result<Registered, Error> {
        let registered = self.registration_with_secret(&[StatusCode::CREATED, StatusCode::OK])?;
        match registered.secret {
            Some(_) => Ok(registered),
            None => Err(self.malformed("it has no `client_secret`")),
        }
    }

    /// An updated client, with a secret if the response has one (`updateClient`).
    ///
    /// # Errors
    /// [`Error`] for anything but a client.
    pub fn updated(&self) -> Result<Registered, Error> {
        self.registration_with_secret(&[StatusCode::OK])
    }

    /// Confirms a deletion (`deleteClient`).
    ///
    /// # Errors
    /// [`Error`] if the client was not deleted.
    pub fn deleted(&self) -> Result<(), Error> {
        self.require_status(&[StatusCode::NO_CONTENT, StatusCode::OK])
    }

    fn registration_with_secret(&self, wanted: &[StatusCode]) -> Result<Registered, Error> {
        self.require_status(wanted)?;
        if self.body.len() > MAX_ONE {
            return Err(self.malformed("its body is larger than 64 KiB"));
        }
        let mut fields: Map<String, Value> = self.json()?;
        let secret = match fields.remove("client_secret") {
            None | Some(Value::Null) => None,
            Some(Value::String(secret)) => {
                let parsed = Secret::parse(Secret::from(secret).expose());
                Some(parsed.map_err(|_| self.malformed("its `client_secret` is not valid"))?)
            }
            Some(_) => return Err(self.malformed("its `client_secret` is not a string")),
        };
        let told = serde_json::from_value(Value::Object(fields));
        let told = told.map_err(|_| self.malformed(NOT_A_CLIENT))?;
        let registration = self.registration(told)?;
        Ok(Registered {
            registration,
            secret,
        })
    }

    fn registration(&self, told: ClientBody) -> Result<Registration, Error> {
        let client_id = ClientId::parse(&told.client_id)
            .map_err(|_| self.malformed("its `client_id` is not valid"))?;
        Ok(Registration {
            client_id,
            client_name: told.client_name,
            client_id_issued_at: told.client_id_issued_at,
            grant_types: told.grant_types.unwrap_or_default(),
        })
    }

    fn json<T: serde::de::DeserializeOwned>(&self) -> Result<T, Error> {
        if self.body.len() > MAX_BODY {
            return Err(self.malformed(&format!("its body is larger than {} MiB", MAX_BODY >> 20)));
        }
        // the parser's own message may quote its input
        serde_json::from_slice(self.body).map_err(|error| {
            self.malformed(match error.classify() {
                _ if self.is_html() => {
                    "its body is HTML, not JSON; the instance's url is wrong, or a login or error page answers instead"
                }
                serde_json::error::Category::Data => NOT_A_CLIENT,
                serde_json::error::Category::Eof => "its body is empty, or truncated JSON",
                _ => "its body is not JSON",
            })
        })
    }

    fn require_status(&self, wanted: &[StatusCode]) -> Result<(), Error> {
        if wanted.contains(&self.status) {
            return Ok(());
        }
        let (host, what, status) = (self.host, self.what, self.status.as_u16());
        let said = self.server_message();
        let detail = match &said {
            Some(said) => format!(" ({said})"),
            None if self.is_html() => {
                " (with an HTML page: perhaps not Collibra itself)".to_owned()
            }
            None => String::new(),
        };
        let (kind, advice) = classify(self.status);
        Err(Error {
            kind,
            message: format!("{host} answered {what} with {status}{detail}: {advice}"),
        })
    }

    /// The server's own message: from the body (RFC 7591, section 3.2.2, or the REST API's form) or
    /// the challenge (RFC 6750, section 3).
    fn server_message(&self) -> Option<String> {
        let body = Some(self.body).filter(|body| body.len() <= MAX_ONE);
        let body: Option<Map<String, Value>> =
            body.and_then(|body| serde_json::from_slice(body).ok());
        let text = |name: &str| body.as_ref()?.get(name)?.as_str().map(str::to_owned);
        let pair = |one: &str, other: &str| match (text(one), text(other)) {
            (Some(one), Some(other)) => Some(format!("{one}: {other}")),
            (one, other) => one.or(other),
        };
        let challenge = || {
            let challenge = self.headers.get(WWW_AUTHENTICATE)?.to_str().ok()?;
            let parameter = |name: &str| {
                let (_, rest) = challenge.split_once(&format!("{name}=\""))?;
                Some(rest.split_once('"')?.0.to_owned())
            };
            parameter("error_description").or_else(|| parameter("error"))
        };
        let said = pair("error", "error_description")
            .or_else(|| pair("errorCode", "userMessage"))
            .or_else(challenge)?;
        let quoted = self.quotation.quote(&said);
        (!quoted.is_empty()).then_some(quoted)
    }

    fn is_html(&self) -> bool {
        let kind = self.headers.get(CONTENT_TYPE).and_then(|v| v.to_str().ok());
        kind.is_some_and(|kind| kind.to_ascii_lowercase().starts_with("text/html"))
            || self.body.trim_ascii_start().starts_with(b"<")
    }

    fn malformed(&self, defect: &str) -> Error {
        let (host, what, status) = (self.host, self.what, self.status.as_u16());
        Error {
            kind: Kind::Malformed,
            message: format!("{host} answered {what} with {status}, but {defect}"),
        }
    }
}

const NOT_A_CLIENT: &str = "its body is not what Collibra documents";

/// Returns the kind of failure that a status means, and what to do about it.
fn classify(status: StatusCode) -> (Kind, &'static str) {
    match status.as_u16() {
        400 | 422 => (
            Kind::Invalid,
            "it refuses the request; two clients cannot have the same name (`clients list` shows them)",
        ),
        401 => (
            Kind::Unauthorized,
            "it does not accept the caller's user, token or client, or there is no client with this id (`clients list` shows them)",
        ),
        403 => (
            Kind::Forbidden,
            "the caller may not do this; use a user who may manage OAuth applications",
        ),
        404 | 405 | 410 => (
            Kind::NotFound,
            "there is no such API or no such client; check the instance's url, the client's id and --platform",
        ),
        409 => (
            Kind::Conflict,
            "it conflicts with another client, most often by its name (`clients list` shows them)",
        ),
        429 => (
            Kind::RateLimited,
            "too many requests; wait a minute and run this again",
        ),
        300..400 => (
            Kind::Refused,
            "a redirect, which is not followed; the instance's url is probably wrong, or a login page answers instead",
        ),
        500.. => (
            Kind::Server,
            "it failed, or a gateway before it did; check with `clients list` what was done",
        ),
        _ => (Kind::Refused, "it refuses the request"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CANARY: &str = "cAnArY-9c";

    fn answer<T>(
        status: u16,
        headers: &[(http::HeaderName, &str)],
        body: &str,
        read: impl FnOnce(&Answer<'_>) -> T,
    ) -> T {
        let headers = headers
            .iter()
            .map(|(name, value)| (name.clone(), value.parse().unwrap()))
            .collect();
        read(&Answer {
            host: "acme.example",
            what: "the request",
            status: StatusCode::from_u16(status).unwrap(),
            headers: &headers,
            body: body.as_bytes(),
            quotation: &Quotation::without(vec![Secret::from(CANARY.to_owned())]),
        })
    }

    fn kind_and_message(status: u16, body: &str) -> (Kind, String) {
        let error = answer(status, &[], body, |answer| answer.registered()).unwrap_err();
        (error.kind, error.message)
    }

    #[test]
    fn a_registration_brings_its_secret_and_shows_it_nowhere() {
        let body = r#"{"client_id":"urn:a","client_id_issued_at":1800000000,"client_name":"n",
            "grant_types":["client_credentials"],"client_secret":"s3cret","more":1}"#;
        let registered = answer(201, &[], body, |answer| answer.registered()).unwrap();
        assert_eq!(registered.secret.as_ref().unwrap().expose(), "s3cret");
        assert_eq!(registered.registration.client_name.as_deref(), Some("n"));
        assert!(!format!("{registered:?}").contains("s3cret"));
    }

    #[test]
    fn what_documents_do_not_demand_may_be_missing() {
        let read = answer(200, &[], r#"{"client_id":"urn:a"}"#, |answer| {
            answer.client()
        });
        let read = read.unwrap();
        assert_eq!((read.client_name, read.grant_types.len()), (None, 0));
        assert_eq!(answer(200, &[], "{}", |answer| answer.list()), Ok(vec![]));
        let updated = answer(200, &[], r#"{"client_id":"a"}"#, |answer| answer.updated());
        assert!(updated.unwrap().secret.is_none());
        assert_eq!(answer(204, &[], "", |answer| answer.deleted()), Ok(()));
    }

    #[test]
    fn an_answer_without_what_was_asked_for_is_no_answer() {
        for (body, defect) in [
            ("", "empty"),
            ("{", "truncated"),
            ("no", "not JSON"),
            ("<html>", "HTML"),
            ("[]", "not what Collibra documents"),
            (r#"{"client_id":7,"client_secret":"x"}"#, "not what"),
            (
                r#"{"client_id":"","client_secret":"x"}"#,
                "`client_id` is not",
            ),
            (r#"{"client_id":"a"}"#, "no `client_secret`"),
            (r#"{"client_id":"a","client_secret":7}"#, "not a string"),
            (r#"{"client_id":"a","client_secret":""}"#, "is not valid"),
        ] {
            let (kind, message) = kind_and_message(201, body);
            assert_eq!(kind, Kind::Malformed, "{message}");
            assert!(kind.may_have_succeeded());
            assert!(message.contains(defect), "{body}: {message}");
        }
    }

    #[test]
    fn one_client_has_a_bounded_answer() {
        let padded = |fields: &str| format!("{{{fields},\"x\":\"{}\"}}", "x".repeat(MAX_ONE));
        let (kind, message) = kind_and_message(201, &padded(r#""client_id":"a""#));
        assert_eq!(kind, Kind::Malformed);
        assert!(message.contains("larger than 64 KiB"), "{message}");
        let (_, message) = kind_and_message(400, &padded(r#""error":"invalid""#));
        assert!(message.contains("with 400: "), "{message}");
    }

    #[test]
    fn refusals_are_told_apart_and_say_what_to_do() {
        for (status, kind) in [
            (400, Kind::Invalid),
            (401, Kind::Unauthorized),
            (403, Kind::Forbidden),
            (404, Kind::NotFound),
            (409, Kind::Conflict),
            (418, Kind::Refused),
            (302, Kind::Refused),
            (429, Kind::RateLimited),
            (500, Kind::Server),
        ] {
            let (found, message) = kind_and_message(status, "");
            assert_eq!(found, kind, "{message}");
            assert_eq!(found.may_have_succeeded(), status == 500);
            assert!(message.contains(&format!("with {status}: ")), "{message}");
        }
    }

    #[test]
    fn the_servers_words_are_quoted_and_what_was_sent_as_a_secret_is_not() {
        let (_, message) = kind_and_message(
            400,
            r#"{"error":"invalid_client_metadata","error_description":"bad cAnArY-9c"}"#,
        );
        let quoted = "(invalid_client_metadata: bad [redacted])";
        assert!(message.contains(quoted), "{message}");
        let challenge = r#"Bearer error="invalid_token", error_description="no such client""#;
        let headers = [(WWW_AUTHENTICATE, challenge)];
        let error = answer(401, &headers, "", |answer| answer.client()).unwrap_err();
        assert!(error.message.contains("(no such client)"), "{error}");
    }
}
