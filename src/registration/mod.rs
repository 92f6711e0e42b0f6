//! Collibra's Client Registration and Client Management API (RFC 7591, and RFC 7592 in part):
//! lists, registers, reads, updates and deletes registered applications.
//!
//! [`client`] makes the calls, `answer` interprets the responses (pure). The caller passes an
//! [`Authorization`] with each call.
//!
//! Guarantees: one call is one request. A client's secret is only ever in a [`Secret`]. No message
//! and no `Debug` contains a secret that was sent. Collibra does not document whether an update
//! changes the secret, so the response to one is read as if it did.

mod answer;
pub mod client;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use http::HeaderValue;
use serde::Serialize;

pub use client::RegistrationClient;

use crate::client_id::ClientId;
use crate::secret::Secret;

/// The path of the API for integration and user applications.
pub const ENVIRONMENT: &str = "/rest/auth/v1";

/// The path of the API for applications of the platform.
pub const PLATFORM: &str = "/rest/auth/v1/platform";

/// A failed call.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Error {
    /// Whether Collibra may have carried out the request nevertheless. Only a read can tell.
    pub may_have_succeeded: bool,
    /// What failed, on what, and what to do.
    pub message: String,
}

/// The caller's credentials. Collibra does not document how calls are authorized, so both common
/// schemes are supported.
#[derive(Clone, Debug)]
pub enum Authorization {
    /// A user's name and password (RFC 7617).
    Basic {
        /// The user's name, without a colon.
        user: String,
        /// The user's password.
        password: Secret,
    },
    /// An access token (RFC 6750).
    Bearer(Secret),
}

/// The attributes of a client, to register or to update it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Attributes {
    /// The client's unique name; required for an update too.
    #[serde(rename = "client_name")]
    pub name: String,
    /// The grants it may use. If empty: Collibra's default, or unchanged.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub grant_types: Vec<String>,
    /// The Collibra software bundle that it belongs to.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub software_id: Option<String>,
}

/// A registered client, without its secret.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Registration {
    /// The client's id.
    #[serde(serialize_with = "as_text")]
    pub client_id: ClientId,
    /// The name, if the response has one.
    pub client_name: Option<String>,
    /// When it was registered, in seconds since the Unix epoch, if the response says so.
    pub client_id_issued_at: Option<i64>,
    /// The grants it may use.
    pub grant_types: Vec<String>,
}

/// A response that may contain a secret, which is never shown again.
#[derive(Clone, Debug)]
pub struct Registered {
    /// The client.
    pub registration: Registration,
    /// The secret; always present after a registration.
    pub secret: Option<Secret>,
}

impl Registered {
    /// Id, secret and all other known attributes as JSON: the format of `credentials_file` in the
    /// configuration. `None` without a secret.
    #[must_use]
    pub fn credentials(&self) -> Option<Secret> {
        #[derive(Serialize)]
        struct Credentials<'a> {
            client_secret: &'a str,
            #[serde(flatten)]
            registration: &'a Registration,
        }
        let secret = self.secret.as_ref()?;
        let credentials = Credentials {
            client_secret: secret.expose(),
            registration: &self.registration,
        };
        let json = serde_json::to_string_pretty(&credentials).ok()?;
        Some(Secret::from(format!("{json}\n")))
    }
}

impl Authorization {
    /// The scheme, and the credentials as they are sent.
    fn sent(&self) -> (&'static str, Secret) {
        match self {
            Authorization::Basic { user, password } => {
                let pair = Secret::from(format!("{user}:{}", password.expose()));
                ("Basic", Secret::from(BASE64.encode(pair.expose())))
            }
            Authorization::Bearer(token) => ("Bearer", token.clone()),
        }
    }

    /// The header value, marked sensitive; `None` if a character is not allowed in a header.
    pub(crate) fn header(&self) -> Option<HeaderValue> {
        let (scheme, credentials) = self.sent();
        let text = Secret::from(format!("{scheme} {}", credentials.expose()));
        let mut value = HeaderValue::try_from(text.expose()).ok()?;
        value.set_sensitive(true);
        Some(value)
    }

    /// The forms in which a response could repeat the secret.
    pub(crate) fn secret_forms(&self) -> Vec<Secret> {
        let mut forms = vec![self.sent().1];
        if let Authorization::Basic { password, .. } = self {
            forms.push(password.clone());
        }
        forms
    }
}

fn as_text<S: serde::Serializer>(id: &ClientId, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(id)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn basic() -> Authorization {
        Authorization::Basic {
            user: "Aladdin".to_owned(),
            password: Secret::from("open sesame".to_owned()),
        }
    }

    #[test]
    fn a_users_password_is_sent_as_rfc_7617_shows_it() {
        let header = basic().header().unwrap();
        assert_eq!(header, "Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ==");
        assert!(header.is_sensitive());
    }

    #[test]
    fn who_calls_is_not_printed() {
        let bearer = Authorization::Bearer(Secret::from("sesame".to_owned()));
        let shown = format!("{:?} {bearer:?}", basic());
        assert!(!shown.contains("sesame"), "{shown}");
        assert!(!shown.contains("QWxh"), "{shown}");
    }

    #[test]
    fn only_what_is_said_is_sent() {
        let client = Attributes {
            name: "nightly".to_owned(),
            grant_types: Vec::new(),
            software_id: None,
        };
        let sent = serde_json::to_string(&client).unwrap();
        assert_eq!(sent, r#"{"client_name":"nightly"}"#);
    }
}
