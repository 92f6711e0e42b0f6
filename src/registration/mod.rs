//! Collibra's Client Registration and Client Management API (RFC 7591, and RFC 7592 in part):
//! lists, registers, reads, updates and deletes registered applications.
//!
//! [`client`] makes the calls, [`answer`] interprets the responses (pure), [`error`] classifies
//! failures. The caller passes an [`Authorization`] with each call.
//!
//! Guarantees: one call is one request. A client's secret is only ever in a [`Secret`]. No message
//! and no `Debug` contains a secret that was sent. Collibra does not document whether an update
//! changes the secret, so the response to one is read as if it did.

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

/// Where the API is, and its timeouts.
#[derive(Clone, Debug)]
pub struct Config {
    /// The instance, like `https://acme.collibra.com`.
    pub instance: reqwest::Url,
    /// Which of the two paths of the API to use.
    pub base: Base,
    /// The timeout of one call, including the response body.
    pub timeout: Duration,
    /// The timeout of name resolution, connection and TLS together.
    pub connect_timeout: Duration,
    /// Trusted authorities besides the system's.
    pub ca_file: Option<CaFile>,
    /// The client certificate, for an instance that asks for one.
    pub identity: Option<Identity>,
    /// The forward proxy to the instance.
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

/// The two paths under which the API is served.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Base {
    /// `/rest/auth/v1`: integration and user applications.
    #[default]
    Environment,
    /// `/rest/auth/v1/platform`: applications of the platform.
    Platform,
}

/// The caller's credentials. Collibra does not document how calls are authorized, so both common
/// schemes are supported.
#[derive(Clone)]
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

/// The attributes of a client to register.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct NewClient {
    /// The client's unique name.
    #[serde(rename = "client_name")]
    pub name: String,
    /// The grants it may use; Collibra's default if empty.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub grant_types: Vec<String>,
    /// The Collibra software bundle that it belongs to.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub software_id: Option<String>,
}

/// The changes to a client.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Changes {
    /// The new name; required even if unchanged.
    #[serde(rename = "client_name")]
    pub name: String,
    /// The grants it may use; unchanged if empty.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub grant_types: Vec<String>,
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

impl Base {
    /// The path before `/clients`.
    #[must_use]
    pub fn path(self) -> &'static str {
        match self {
            Base::Environment => "/rest/auth/v1",
            Base::Platform => "/rest/auth/v1/platform",
        }
    }
}

impl Authorization {
    /// The header value, marked sensitive; `None` if a character is not allowed in a header.
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

    /// The forms in which a response could repeat the secret.
    pub(crate) fn secret_forms(&self) -> Vec<Secret> {
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
