//! The token endpoint's client: one request a call, by RFC 6749, section 4.4, with every answer
//! turned into a token or a failure that the engine can reckon with.

use std::path::PathBuf;
use std::time::Duration;

use crate::client_id::ClientId;
use crate::secret::Secret;

/// Where a client's tokens come from, and how it shows who it is.
#[derive(Clone, Debug)]
pub struct Config {
    /// The token endpoint.
    pub token_url: reqwest::Url,
    /// The client's identifier.
    pub client_id: ClientId,
    /// The client's secret.
    pub client_secret: Secret,
    /// How both are sent.
    pub auth_method: AuthMethod,
    /// `scope`, sent only if set.
    pub scope: Option<String>,
    /// The longest time for one request, from its start to the end of its answer.
    pub timeout: Duration,
    /// The longest time for name resolution, connection and TLS together.
    pub connect_timeout: Duration,
    /// Certificates (PEM) accepted besides the system's.
    pub ca_file: Option<PathBuf>,
}

/// How a client authenticates at the token endpoint (RFC 6749, section 2.3.1).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum AuthMethod {
    /// `client_secret_basic`: in `Authorization`, each form-urlencoded.
    #[default]
    ClientSecretBasic,
    /// `client_secret_post`: in the body.
    ClientSecretPost,
}
