//! The HTTP client: one request on a connection of its own, one answer, nothing kept. Requests come
//! minutes apart, and a connection kept that long is one that the other side may close just when the
//! next request is on its way.

use std::error::Error;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{CONNECTION, HOST, USER_AGENT};
use http::{HeaderMap, HeaderValue, Request, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::task::JoinSet;
use tokio::time::timeout_at;
use tracing::debug;

use super::addresses::Addresses;
use super::dial::{DialError, Dialer, Protocols, Route};
use super::quotation::Quotation;
use crate::clock::timers;
use crate::tls;

const AGENT: &str = concat!("collibra-auth-proxy/", env!("CARGO_PKG_VERSION"));

/// A connection may take this share of the whole time at most, whatever is configured: one that
/// took all of it could not be told from an answer that never came.
const CONNECT_SHARE: f64 = 0.9;

/// How long the addresses of a client of its own are used without another look-up.
const TTL_MAX: Duration = Duration::from_secs(30);

/// Why there is no HTTP client; permanent until the configuration changes.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    /// There is nothing to verify certificates by.
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
    authority: String,
    timeout: Duration,
}

/// A request that brought no whole answer.
#[derive(Debug)]
pub struct Failure {
    /// Whether the other side can have seen the request.
    pub silence: Silence,
    /// What failed, on what, why, and what to do.
    pub message: String,
}

/// Why there was no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Silence {
    /// There was no connection: the other side has not seen the request.
    Unreached,
    /// It took too long.
    Late,
    /// The connection broke, or what came is no HTTP.
    Lost,
}

/// An answer.
#[derive(Debug)]
pub struct Answer {
    /// Its status.
    pub status: StatusCode,
    /// Its header fields.
    pub headers: HeaderMap,
    /// Its body, or what came of it if it is a refusal. Longer than the limit: there is more of it.
    pub body: Vec<u8>,
}

impl Client {
    /// A client that connects by `route`, with an end to each request within `timeout`. `authority` is
    /// the server's, as `Host` has it. Shares the `addresses` of another part of the program if they
    /// are those of the route. Opens no connection.
    ///
    /// # Errors
    /// [`BuildError`] if the certificates or the host cannot be used.
    pub fn new(
        route: &Route<'_>,
        authority: &str,
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
        Ok(Client {
            dialer: Dialer::new(&route, addresses)?,
            host: HeaderValue::try_from(authority).map_err(|_| BuildError::Host)?,
            authority: authority.to_owned(),
            timeout,
        })
    }

    /// Sends `request`, whose URI is a path, once, and reads up to `limit` bytes of the answer's body;
    /// of a longer one as much more as tells that it is longer. `what` is what messages call the
    /// request, `quotation` how they quote causes.
    ///
    /// # Errors
    /// [`Failure`] if no whole answer came. A refusal is known by its status, whatever became of its
    /// body.
    pub async fn send(
        &self,
        request: Request<Bytes>,
        limit: usize,
        what: &str,
        quotation: &Quotation,
    ) -> Result<Answer, Failure> {
        let deadline = timers() + self.timeout;
        let dialed = self.dialer.dial(Protocols::Http1).await;
        let dialed = dialed.map_err(|error| unreached(&error, quotation))?;
        debug!(address = %dialed.address, "connected for {what}");
        let mut answer = None;
        let exchange = self.exchange(dialed.transport, request, limit, &mut answer);
        let broken = match timeout_at(deadline, exchange).await {
            Ok(Ok(())) => None,
            Ok(Err(error)) => Some(self.lost(&error, what, quotation)),
            Err(_elapsed) => Some(self.late(what)),
        };
        match (answer, broken) {
            (Some(answer), None) => Ok(answer),
            (Some(answer), Some(_)) if !answer.status.is_success() => Ok(answer),
            (_, Some(failure)) => Err(failure),
            // an exchange that ends well has an answer
            (None, None) => Err(self.late(what)),
        }
    }

    /// The exchange on a connection. What has come of the answer is in `answer`, however it ends.
    async fn exchange(
        &self,
        transport: super::dial::Transport,
        mut request: Request<Bytes>,
        limit: usize,
        answer: &mut Option<Answer>,
    ) -> hyper::Result<()> {
        let headers = request.headers_mut();
        headers.insert(HOST, self.host.clone());
        headers.insert(USER_AGENT, HeaderValue::from_static(AGENT));
        headers.insert(CONNECTION, HeaderValue::from_static("close"));
        let (mut sender, connection) = http1::handshake(TokioIo::new(transport)).await?;
        // ends with this exchange
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

    fn late(&self, what: &str) -> Failure {
        let (host, limit) = (&self.authority, humantime::format_duration(self.timeout));
        Failure {
            silence: Silence::Late,
            message: format!(
                "{host} gave no whole answer to {what} within {limit}; if this goes on, check the network on the way there and that host's status"
            ),
        }
    }

    fn lost(&self, error: &hyper::Error, what: &str, quotation: &Quotation) -> Failure {
        let (host, cause) = (&self.authority, quotation.quote(&root_cause(error)));
        Failure {
            silence: Silence::Lost,
            message: format!(
                "{host} gave no whole HTTP answer to {what} ({cause}); if this goes on, check what stands between here and there, and that host's status"
            ),
        }
    }
}

fn unreached(error: &DialError, quotation: &Quotation) -> Failure {
    Failure {
        silence: Silence::Unreached,
        message: quotation.redact(&error.to_string()),
    }
}

/// The last cause of `error`. `io::Error` leaves what it wraps out of its `source`, so it is opened.
fn root_cause(error: &hyper::Error) -> String {
    let mut last: &(dyn Error + 'static) = error;
    loop {
        let wrapped = last
            .downcast_ref::<io::Error>()
            .and_then(io::Error::get_ref);
        let cause = match wrapped {
            Some(wrapped) => Some(wrapped as &(dyn Error + 'static)),
            None => last.source(),
        };
        match cause {
            Some(cause) => last = cause,
            None => return last.to_string(),
        }
    }
}
