//! Interprets responses: the requested result, or a failure with its message. Pure, because it
//! parses untrusted input.

use http::StatusCode;
use http::header::WWW_AUTHENTICATE;
use serde::Deserialize;
use serde_json::{Map, Value};

use super::{Error, Registered, Registration};
use crate::client_id::ClientId;
use crate::outgoing::client;
use crate::outgoing::quotation::Quotation;
use crate::secret::Secret;

/// The largest body in bytes: a list of many thousand clients.
pub(super) const MAX_BODY: usize = 8 << 20;

/// The same for one client, or for a refusal: it is parsed into a map, which can take 80 times as
/// much memory.
const MAX_ONE: usize = 64 << 10;

const NOT_A_CLIENT: &str = "its body is not what Collibra documents";

/// A response to a call.
pub(super) struct Answer<'a> {
    /// The server's host, for messages.
    pub(super) host: &'a str,
    /// The request, for messages, like `the registration`.
    pub(super) what: &'static str,
    /// How to quote the response.
    pub(super) quotation: Quotation,
    /// The response itself.
    pub(super) response: client::Answer,
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
struct WithSecret {
    client_secret: Option<Value>,
    #[serde(flatten)]
    client: ClientBody,
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
    pub(super) fn list(&self) -> Result<Vec<Registration>, Error> {
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
    pub(super) fn client(&self) -> Result<Registration, Error> {
        self.registration(self.json()?)
    }

    /// A newly registered client, with its secret (`registerClient`).
    ///
    /// # Errors
    /// [`Error`] for anything but a client with a secret.
    pub(super) fn registered(&self) -> Result<Registered, Error> {
        let registered = self.updated()?;
        match registered.secret {
            Some(_) => Ok(registered),
            None => Err(self.malformed("it has no `client_secret`")),
        }
    }

    /// An updated client, with a secret if the response has one (`updateClient`).
    ///
    /// # Errors
    /// [`Error`] for anything but a client.
    pub(super) fn updated(&self) -> Result<Registered, Error> {
        if self.response.body.len() > MAX_ONE {
            return Err(self.malformed("its body is larger than 64 KiB"));
        }
        let told: WithSecret = self.json()?;
        let secret = match told.client_secret {
            None | Some(Value::Null) => None,
            Some(Value::String(secret)) => {
                let parsed = Secret::parse(Secret::from(secret).expose());
                Some(parsed.map_err(|_| self.malformed("its `client_secret` is not valid"))?)
            }
            Some(_) => return Err(self.malformed("its `client_secret` is not a string")),
        };
        Ok(Registered {
            registration: self.registration(told.client)?,
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
        if self.response.body.len() > MAX_BODY {
            return Err(self.malformed(&format!("its body is larger than {} MiB", MAX_BODY >> 20)));
        }
        // the parser's own message may quote its input
        serde_json::from_slice(&self.response.body).map_err(|error| {
            self.malformed(match error.classify() {
                _ if self.response.is_html() => {
                    "its body is HTML, not JSON; the instance's url is wrong, or a login or error page answers instead"
                }
                serde_json::error::Category::Data => NOT_A_CLIENT,
                serde_json::error::Category::Eof => "its body is empty, or truncated JSON",
                _ => "its body is not JSON",
            })
        })
    }

    /// Checks that the call was carried out, which is all that the response to a deletion says
    /// (`deleteClient`).
    ///
    /// # Errors
    /// [`Error`] with the server's reason.
    pub(super) fn require_success(&self) -> Result<(), Error> {
        let status = self.response.status;
        if matches!(
            status,
            StatusCode::OK | StatusCode::CREATED | StatusCode::NO_CONTENT
        ) {
            return Ok(());
        }
        let detail = match self.server_message() {
            Some(said) => format!(" ({said})"),
            None if self.response.is_html() => {
                " (with an HTML page: perhaps not Collibra itself)".to_owned()
            }
            None => String::new(),
        };
        let (host, what, advice) = (self.host, self.what, advice(status));
        Err(Error {
            may_have_succeeded: status.is_server_error(),
            message: format!(
                "{host} answered {what} with {}{detail}: {advice}",
                status.as_u16()
            ),
        })
    }

    /// The server's own message: from the body (RFC 7591, section 3.2.2, or the REST API's form) or
    /// the challenge (RFC 6750, section 3).
    fn server_message(&self) -> Option<String> {
        let body = Some(&self.response.body).filter(|body| body.len() <= MAX_ONE);
        let body: Option<Map<String, Value>> =
            body.and_then(|body| serde_json::from_slice(body).ok());
        let text = |name: &str| body.as_ref()?.get(name)?.as_str().map(str::to_owned);
        let pair = |one: &str, other: &str| match (text(one), text(other)) {
            (Some(one), Some(other)) => Some(format!("{one}: {other}")),
            (one, other) => one.or(other),
        };
        let challenge = || {
            let challenge = self.response.header(&WWW_AUTHENTICATE)?;
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

    fn malformed(&self, defect: &str) -> Error {
        let (host, what, status) = (self.host, self.what, self.response.status.as_u16());
        Error {
            may_have_succeeded: true,
            message: format!("{host} answered {what} with {status}, but {defect}"),
        }
    }
}

/// What to do about a status.
fn advice(status: StatusCode) -> &'static str {
    match status.as_u16() {
        400 | 422 => {
            "it refuses the request; two clients cannot have the same name (`clients list` shows them)"
        }
        401 => {
            "it does not accept the caller's user, token or client, or there is no client with this id (`clients list` shows them)"
        }
        403 => "the caller may not do this; use a user who may manage OAuth applications",
        404 | 405 | 410 => {
            "there is no such API or no such client; check the instance's url, the client's id and --platform"
        }
        409 => {
            "it conflicts with another client, most often by its name (`clients list` shows them)"
        }
        429 => "too many requests; wait a minute and run this again",
        300..400 => {
            "a redirect, which is not followed; the instance's url is probably wrong, or a login page answers instead"
        }
        500.. => "it failed, or a gateway before it did; check with `clients list` what was done",
        _ => "it refuses the request",
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
        read: impl FnOnce(&Answer<'_>) -> Result<T, Error>,
    ) -> Result<T, Error> {
        let headers = headers
            .iter()
            .map(|(name, value)| (name.clone(), value.parse().unwrap()))
            .collect();
        let answer = Answer {
            host: "acme.example",
            what: "the request",
            quotation: Quotation::without(vec![Secret::from(CANARY.to_owned())]),
            response: client::Answer {
                status: StatusCode::from_u16(status).unwrap(),
                headers,
                body: body.as_bytes().to_vec(),
            },
        };
        answer.require_success().and_then(|()| read(&answer))
    }

    fn error(status: u16, body: &str) -> Error {
        answer(status, &[], body, |answer| answer.registered()).unwrap_err()
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
        assert_eq!(answer(204, &[], "", |_| Ok(())), Ok(()));
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
            let error = error(201, body);
            assert!(error.may_have_succeeded, "{error}");
            assert!(error.message.contains(defect), "{body}: {error}");
        }
    }

    #[test]
    fn one_client_has_a_bounded_answer() {
        let padded = |fields: &str| format!("{{{fields},\"x\":\"{}\"}}", "x".repeat(MAX_ONE));
        let large = error(201, &padded(r#""client_id":"a""#));
        assert!(large.message.contains("larger than 64 KiB"), "{large}");
        let refused = error(400, &padded(r#""error":"invalid""#));
        assert!(refused.message.contains("with 400: "), "{refused}");
    }

    #[test]
    fn refusals_are_told_apart_and_say_what_to_do() {
        for (status, advice) in [
            (400, "the same name"),
            (401, "does not accept the caller's"),
            (403, "manage OAuth applications"),
            (404, "check the instance's url"),
            (409, "conflicts with another client"),
            (418, "refuses the request"),
            (302, "a redirect"),
            (429, "wait a minute"),
            (500, "check with `clients list`"),
        ] {
            let error = error(status, "");
            assert_eq!(error.may_have_succeeded, status == 500);
            let said = format!("with {status}: ");
            assert!(error.message.contains(&said), "{error}");
            assert!(error.message.contains(advice), "{error}");
        }
    }

    #[test]
    fn the_servers_words_are_quoted_and_what_was_sent_as_a_secret_is_not() {
        let error = error(
            400,
            r#"{"error":"invalid_client_metadata","error_description":"bad cAnArY-9c"}"#,
        );
        let quoted = "(invalid_client_metadata: bad [redacted])";
        assert!(error.message.contains(quoted), "{error}");
        let challenge = r#"Bearer error="invalid_token", error_description="no such client""#;
        let headers = [(WWW_AUTHENTICATE, challenge)];
        let error = answer(401, &headers, "", |answer| answer.client()).unwrap_err();
        assert!(error.message.contains("(no such client)"), "{error}");
    }
}
