//! The program's own requests: the HTTP client, the meaning of a missing response ([`failure`]),
//! quoting ([`quotation`]), and the tunnel through a forward proxy, for any request ([`tunnel`]).
//!
//! Guarantees: no retry, redirect or cookie, and no proxy but the configured one. The server's
//! certificate is verified. A request ends within [`Config::timeout`].

pub mod failure;
pub mod quotation;
pub mod tunnel;

use std::time::Duration;

use crate::tls::{self, CaFile, Identity};

const USER_AGENT: &str = concat!("collibra-auth-proxy/", env!("CARGO_PKG_VERSION"));

/// How to reach the server.
#[derive(Clone, Debug)]
pub struct Config<'a> {
    /// The timeout of one request, including the response body.
    pub timeout: Duration,
    /// The timeout of name resolution, connection and TLS together.
    pub connect_timeout: Duration,
    /// Trusted authorities besides the system's.
    pub ca_file: Option<&'a CaFile>,
    /// The client certificate, for a server that asks for one.
    pub identity: Option<&'a Identity>,
    /// The forward proxy to the server.
    pub proxy: Option<&'a tunnel::Proxy>,
}

/// Why the HTTP client could not be built; permanent until the configuration changes.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    /// No certificate authority is available.
    #[error(transparent)]
    Tls(#[from] tls::Error),
    /// The HTTP client could not be built.
    #[error("the HTTP client cannot be built: {0}")]
    Http(#[source] reqwest::Error),
}

/// Returns an HTTP client that sends each request once, on its own connection. Requests are minutes
/// apart, and the server may close a kept connection just when the next request is sent.
///
/// # Errors
/// [`BuildError`] if the certificates are unusable.
pub fn client(config: &Config<'_>) -> Result<reqwest::Client, BuildError> {
    let tls = tls::config_of_client(config.ca_file, config.identity)?;
    let http = reqwest::Client::builder()
        .tls_backend_preconfigured(tls)
        .user_agent(USER_AGENT)
        .redirect(reqwest::redirect::Policy::none())
        .referer(false)
        .retry(reqwest::retry::never())
        .no_proxy()
        .http1_only()
        .pool_max_idle_per_host(0)
        .connect_timeout(config.connect_timeout)
        .timeout(config.timeout);
    let http = match config.proxy {
        Some(proxy) => http.proxy(forward(proxy)?),
        None => http,
    };
    http.build().map_err(without_url)
}

/// The proxy in the HTTP client's form.
fn forward(proxy: &tunnel::Proxy) -> Result<reqwest::Proxy, BuildError> {
    let forward = reqwest::Proxy::all(format!("http://{proxy}")).map_err(without_url)?;
    Ok(match proxy.credentials() {
        Some((user, password)) => forward.basic_auth(user, password),
        None => forward,
    })
}

fn without_url(error: reqwest::Error) -> BuildError {
    BuildError::Http(error.without_url())
}

/// The host of `url`, and the port unless it is the default. Messages show no more of it.
#[must_use]
pub fn authority(url: &reqwest::Url) -> String {
    let host = url.host_str().unwrap_or("");
    match url.port() {
        Some(port) => format!("{host}:{port}"),
        None => host.to_owned(),
    }
}

/// Reads up to `limit` bytes of a body; of a longer one, enough more to detect it.
///
/// # Errors
/// The connection's.
pub async fn read_body(
    response: &mut reqwest::Response,
    body: &mut Vec<u8>,
    limit: usize,
) -> reqwest::Result<()> {
    while let Some(chunk) = response.chunk().await? {
        body.extend_from_slice(&chunk);
        if body.len() > limit {
            break;
        }
    }
    Ok(())
}
