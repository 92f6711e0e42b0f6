//! The HTTP client for the program's own requests. Each has a connection of its own, which is not
//! kept: requests are minutes apart, and the server may close a kept connection just when the next
//! request is sent.

use std::error::Error;
use std::fmt;
use std::iter;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{CONNECTION, CONTENT_TYPE, HOST, USER_AGENT};
use http::{HeaderMap, HeaderName, HeaderValue, Request, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::task::JoinSet;
use tokio::time::timeout_at;
use tracing::debug;

use super::addresses::Addresses;
use super::dial::{Dialer, Protocols, Route, Transport};
use super::quotation::Quotation;
use crate::clock::timers;
use crate::tls;

const AGENT: &str = concat!("collibra-auth-proxy/", env!("CARGO_PKG_VERSION"));

/// The largest part of the timeout that connecting may take, whatever is configured. If it took all
/// of it, a failed connection would look like a missing response.
const CONNECT_SHARE: f64 = 0.9;

/// How long a client with addresses of its own uses them without another lookup.
const TTL_MAX: Duration = Duration::from_secs(30);

/// Why the HTTP client could not be built; permanent until the configuration changes.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    /// No certificate authority is available.
    #[error(transparent)]
    Tls(#[from] tls::Error),
    /// The host cannot be sent as `Host`.
    #[error("the host cannot be sent in a header")]
    Host,
}

/// Sends requests to one server.
#[derive(Debug)]
pub struct Client {
    dialer: Dialer,
    host: HeaderValue,
    timeout: Duration,
}

/// A request without a complete response.
#[derive(Debug)]
pub struct Failure {
    /// Whether the server may have seen the request.
    pub no_response: NoResponse,
    /// What failed, on what, why, and what to do.
    pub message: String,
}

/// Why there was no response.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoResponse {
    /// The connection failed: the server has not seen the request.
    Unreached,
    /// The timeout passed.
    TimedOut,
    /// The connection broke, or the response is not HTTP.
    Broken,
}

/// A response.
#[derive(Clone)]
pub struct Answer {
    /// Its status.
    pub status: StatusCode,
    /// Its header fields.
    pub headers: HeaderMap,
    /// Its body; of an error response, as much as arrived. If it is longer than the limit, it was
    /// cut off.
    pub body: Vec<u8>,
}

impl Client {
    /// Creates a client that connects by `route` and whose requests end within `timeout`.
    /// Uses the shared `addresses` if they are those of the route. Opens no connection.
    ///
    /// # Errors
    /// [`BuildError`] if the certificates or the host cannot be used.
    pub fn new(
        route: &Route<'_>,
        timeout: Duration,
        addresses: Option<&Arc<Addresses>>,
    ) -> Result<Client, BuildError> {
        let mut route = route.clone();
        route.connect_timeout = route.connect_timeout.min(timeout.mul_f64(CONNECT_SHARE));
        let targets = route.targets();
        let shared = addresses.filter(|shared| *shared.targets() == *targets);
        let addresses = match shared {
            Some(shared) => Arc::clone(shared),
            None => Addresses::new(targets, route.connect_timeout, TTL_MAX),
        };
        let dialer = Dialer::new(&route, addresses)?;
        let host = HeaderValue::try_from(dialer.authority()).map_err(|_| BuildError::Host)?;
        Ok(Client {
            dialer,
            host,
            timeout,
        })
    }

    /// The server's host, and its port unless it is the default.
    #[must_use]
    pub fn authority(&self) -> &str {
        self.dialer.authority()
    }

    /// Sends `request`, whose URI is a path, once, and reads the answer's body to its end, or until
    /// it exceeds `limit` bytes. Messages call the request `what`, and quote causes by `quotation`.
    ///
    /// # Errors
    /// [`Failure`] without a complete response. Of an error response the status is enough.
    pub async fn send(
        &self,
        request: Request<Bytes>,
        limit: usize,
        what: &str,
        quotation: &Quotation,
    ) -> Result<Answer, Failure> {
        let deadline = timers() + self.timeout;
        let dialed = self.dialer.dial(Protocols::Http1).await;
        let dialed = dialed.map_err(|error| Failure {
            no_response: NoResponse::Unreached,
            message: quotation.redact(&error.to_string()),
        })?;
        debug!(address = %dialed.address, "connected for {what}");
        let mut answer = None;
        let exchange = self.exchange(dialed.transport, request, limit, &mut answer);
        let ended = timeout_at(deadline, exchange).await;
        let is_whole = matches!(ended, Ok(Ok(())));
        if let Some(answer) = answer
            && (is_whole || !answer.status.is_success())
        {
            return Ok(answer);
        }
        let (no_response, how) = match ended {
            Ok(Err(error)) => {
                let first = &error as &(dyn Error + 'static);
                let causes = iter::successors(Some(first), |&cause| cause.source());
                let root = causes.last().map(ToString::to_string).unwrap_or_default();
                let cause = quotation.quote(&root);
                let how = format!("with a complete HTTP response ({cause})");
                (NoResponse::Broken, how)
            }
            _ => {
                let limit = humantime::format_duration(self.timeout);
                (NoResponse::TimedOut, format!("completely within {limit}"))
            }
        };
        let host = self.authority();
        Err(Failure {
            no_response,
            message: format!(
                "{host} did not answer {what} {how}; if this continues, check the network path to it and that host's status"
            ),
        })
    }

    /// Sends the request on `transport`. `answer` receives as much of the response as arrives.
    async fn exchange(
        &self,
        transport: Transport,
        mut request: Request<Bytes>,
        limit: usize,
        answer: &mut Option<Answer>,
    ) -> hyper::Result<()> {
        let headers = request.headers_mut();
        headers.insert(HOST, self.host.clone());
        headers.insert(USER_AGENT, HeaderValue::from_static(AGENT));
        headers.insert(CONNECTION, HeaderValue::from_static("close"));
        let (mut sender, connection) = http1::handshake(TokioIo::new(transport)).await?;
        // aborts the connection at the end of the exchange
        let mut driver = JoinSet::new();
        driver.spawn(connection);
        let response = sender.send_request(request.map(Full::new)).await?;
        let (head, mut body) = response.into_parts();
        let answer = answer.insert(Answer {
            status: head.status,
            headers: head.headers,
            body: Vec::new(),
        });
        while let Some(frame) = body.frame().await {
            if let Ok(data) = frame?.into_data() {
                answer.body.extend_from_slice(&data);
            }
            if answer.body.len() > limit {
                break;
            }
        }
        Ok(())
    }
}

impl Answer {
    /// The value of a header, without surrounding spaces, if it is text.
    #[must_use]
    pub fn header(&self, name: &HeaderName) -> Option<&str> {
        Some(self.headers.get(name)?.to_str().ok()?.trim())
    }

    /// Whether the body is HTML, as a login page or a gateway's error page is.
    #[must_use]
    pub fn is_html(&self) -> bool {
        let kind = self.header(&CONTENT_TYPE).map(str::to_ascii_lowercase);
        kind.is_some_and(|kind| kind.starts_with("text/html"))
            || self.body.trim_ascii_start().starts_with(b"<")
    }
}

/// Nothing of the body, which may have a secret.
impl fmt::Debug for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Answer")
            .field("status", &self.status)
            .field("body", &format_args!("{} bytes", self.body.len()))
            .finish_non_exhaustive()
    }
}
