//! Requests that this program makes for itself, to an instance: the HTTP client for them, what it
//! means that no answer came ([`failure`]), how an answer may be quoted ([`quotation`]); and, for any
//! request, the way through a forward proxy ([`tunnel`]) and the mark by which a loop is known
//! ([`via`]).
//!
//! Promises: no retry, no redirect, no cookie, no proxy but the one that is given; the other side's
//! certificate is verified; an end within [`Config::timeout`].

pub mod failure;
pub mod quotation;
pub mod tunnel;
pub mod via;

use std::time::Duration;

use crate::tls::{self, CaFile, Identity};

const USER_AGENT: &str = concat!("collibra-auth-proxy/", env!("CARGO_PKG_VERSION"));

/// How the other side is reached.
#[derive(Clone, Debug)]
pub struct Config<'a> {
    /// The longest time for one request, from its start to the end of its answer.
    pub timeout: Duration,
    /// The longest time for name resolution, connection and TLS together.
    pub connect_timeout: Duration,
    /// Certificates accepted besides the system's.
    pub ca_file: Option<&'a CaFile>,
    /// What is shown to a side that asks who calls.
    pub identity: Option<&'a Identity>,
    /// The forward proxy on the way there.
    pub proxy: Option<&'a tunnel::Proxy>,
}

/// Why there is no HTTP client; permanent until the configuration changes.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    /// There is nothing to verify certificates by.
    #[error(transparent)]
    Tls(#[from] tls::Error),
    /// The HTTP client cannot be made.
    #[error("the HTTP client cannot be made: {0}")]
    Http(#[source] reqwest::Error),
}

/// An HTTP client that sends each request once, on a connection of its own: requests come minutes
/// apart, and a connection kept that long is one that the other side may close just when the next
/// request is on its way.
///
/// # Errors
/// [`BuildError`] if the certificates cannot be used.
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

/// The proxy as the HTTP client is told of it.
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

/// The host of `url`, and its port if that is not the scheme's own: all that is shown of it.
#[must_use]
pub fn authority(url: &reqwest::Url) -> String {
    let host = url.host_str().unwrap_or("");
    match url.port() {
        Some(port) => format!("{host}:{port}"),
        None => host.to_owned(),
    }
}

/// Reads up to `limit` bytes of a body, and of a longer one as much more as tells that it is
/// longer.
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
