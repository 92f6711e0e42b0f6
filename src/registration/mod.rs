//! Collibra's Client Registration and Client Management API (RFC 7591, and RFC 7592 in part): to
//! list, register, look at, change and delete registered applications.
//!
//! [`client`] carries a call over the wire, [`answer`] is what comes back (pure), [`error`] tells
//! the failures apart. Whoever calls brings the [`Authorization`] with each call.
//!
//! Promises: one call, one request; a client's secret only in a [`Secret`], whatever the answer;
//! nothing that was sent as a secret in any message or `Debug`. Collibra's documents leave open
//! whether a change gives a client another secret, so the answer to one is read as if it did.

pub mod answer;
pub mod client;
pub mod error;

use std::fmt;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use http::HeaderValue;
use serde::Serialize;

pub use client::RegistrationClient;
pub use error::{Error, Kind};

use crate::client_id::ClientId;
use crate::outgoing::addresses::Target;
use crate::outgoing::dial::Route;
use crate::outgoing::tunnel;
use crate::secret::Secret;
use crate::tls::{CaFile, Identity};

/// Where the API is, and how long it may take.
#[derive(Clone, Debug)]
pub struct Config {
    /// The instance, like `https://acme.collibra.com`.
    pub instance: reqwest::Url,
    /// Which of the two places of the API is meant.
    pub base: Base,
    /// The longest time for one call, from its start to the end of its answer.
    pub timeout: Duration,
    /// The longest time for name resolution, connection and TLS together.
    pub connect_timeout: Duration,
    /// Certificates accepted besides the system's.
    pub ca_file: Option<CaFile>,
    /// What is shown to an instance that asks who calls.
    pub identity: Option<Identity>,
    /// The forward proxy on the way there.
    pub proxy: Option<tunnel::Proxy>,
    /// Where to connect instead of the URL's host; empty: nowhere else.
    pub address: Vec<Target>,
}

impl Config {
    /// The way to the instance.
    fn route(&self) -> Route<'_> {
        Route {
            ca_file: self.ca_file.as_ref(),
            identity: self.identity.as_ref(),
            proxy: self.proxy.as_ref().map(|proxy| (proxy, "proxy")),
            address: &self.address,
            ..Route::to(&self.instance, self.connect_timeout)
        }
    }
}

/// The API is served below two paths.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Base {
    /// `/rest/auth/v1`: integration and user applications.
    #[default]
    Environment,
    /// `/rest/auth/v1/platform`: applications of the platform.
    Platform,
}

/// Who calls. The documents do not say how calls are authorised, so both usual ways are there.
#[derive(Clone)]
pub enum Authorization {
    /// A user's name and password (RFC 7617).
    Basic {
        /// The user's name, which has no colon in it.
        user: String,
        /// The user's password.
        password: Secret,
    },
    /// An access token (RFC 6750).
    Bearer(Secret),
}

/// What can be said of a client to be registered.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct NewClient {
    /// Its name, which no other client has.
    #[serde(rename = "client_name")]
    pub name: String,
    /// The grants that it may use; empty: Collibra's choice.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub grant_types: Vec<String>,
    /// The Collibra software bundle that it is a part of.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub software_id: Option<String>,
}

/// What can be changed about a client.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Changes {
    /// Its name from now on; it must be said even if it stays.
    #[serde(rename = "client_name")]
    pub name: String,
    /// The grants that it may use from now on; empty: as they are.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub grant_types: Vec<String>,
}

/// What Collibra says of a client. It has no secret in it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Registration {
    /// Its identifier.
    #[serde(serialize_with = "as_text")]
    pub client_id: ClientId,
    /// Its name, if one is told.
    pub client_name: Option<String>,
    /// When it was registered, in seconds since the Unix epoch, if that is told.
    pub client_id_issued_at: Option<i64>,
    /// The grants that it may use.
    pub grant_types: Vec<String>,
}

/// An answer that may show a secret, for this one time.
#[derive(Clone, Debug)]
pub struct Registered {
    /// The client.
    pub registration: Registration,
    /// Its secret; there always is one after a registration.
    pub secret: Option<Secret>,
}

impl Registered {
    /// Id and secret, and all else that is known of the client, as JSON: the form that a
    /// configuration reads as `credentials_file`. `None` if there is no secret.
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

impl Base {
    /// The path that `/clients` follows.
    #[must_use]
    pub fn path(self) -> &'static str {
        match self {
            Base::Environment => "/rest/auth/v1",
            Base::Platform => "/rest/auth/v1/platform",
        }
    }
}

impl Authorization {
    /// The header's value, marked sensitive; `None` if there is a character in it that no header
    /// can have.
    pub(crate) fn header(&self) -> Option<HeaderValue> {
        let text = match self {
            Authorization::Basic { user, password } => {
                let pair = Secret::from(format!("{user}:{}", password.expose()));
                Secret::from(format!("Basic {}", BASE64.encode(pair.expose())))
            }
            Authorization::Bearer(token) => Secret::from(format!("Bearer {}", token.expose())),
        };
        let mut value = HeaderValue::try_from(text.expose()).ok()?;
        value.set_sensitive(true);
        Some(value)
    }

    /// The forms in which an answer could repeat it.
    pub(crate) fn unspeakable(&self) -> Vec<Secret> {
        match self {
            Authorization::Basic { user, password } => {
                let pair = Secret::from(format!("{user}:{}", password.expose()));
                let encoded = Secret::from(BASE64.encode(pair.expose()));
                vec![password.clone(), encoded]
            }
            Authorization::Bearer(token) => vec![token.clone()],
        }
    }
}

impl fmt::Debug for Authorization {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Authorization::Basic { .. } => "Basic [redacted]",
            Authorization::Bearer(_) => "Bearer [redacted]",
        })
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
        let client = NewClient {
            name: "nightly".to_owned(),
            grant_types: Vec::new(),
            software_id: None,
        };
        let sent = serde_json::to_string(&client).unwrap();
        assert_eq!(sent, r#"{"client_name":"nightly"}"#);
    }
}
