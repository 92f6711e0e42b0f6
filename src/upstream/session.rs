//! A request to an instance and its response, over HTTP/1.1 or HTTP/2.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::time::Duration;

use bytes::Bytes;
use http::{StatusCode, Version};
use pingora::http::{RequestHeader, ResponseHeader};
use pingora::protocols::Stream;
use pingora::protocols::http::v1::client::HttpSession;
use pingora::{Error, ErrorType, RetryType};
use tokio::time::timeout;

use super::http2::{self, Http2};
use super::io::Received;
use crate::outgoing::dial::{Kind, in_words};

/// A request to an instance and its response. Order of calls: [`write_head`]; if there is a body,
/// any number of [`write_body`] and one [`finish`]; concurrently [`read_head`] until its status is
/// final, then [`read_body`] until it returns `None`.
///
/// [`write_head`]: InstanceSession::write_head
/// [`write_body`]: InstanceSession::write_body
/// [`finish`]: InstanceSession::finish
/// [`read_head`]: InstanceSession::read_head
/// [`read_body`]: InstanceSession::read_body
pub(crate) enum InstanceSession {
    Http1(Box<Http1>),
    Http2(Box<Http2>),
}

pub(crate) struct Http1 {
    pub(crate) session: HttpSession,
    pub(crate) received: Received,
    pub(crate) address: SocketAddr,
    /// Whether the connection has served a request before.
    pub(crate) is_reused: bool,
}

/// A piece of a response's body.
#[derive(Debug)]
pub(crate) enum Chunk<'a> {
    /// Borrowed from the connection's buffer.
    Borrowed(&'a [u8]),
    /// An owned buffer, as received.
    Owned(Bytes),
    /// The same, if the response is known to end with it.
    Last(Bytes),
}

/// Why a request or its response broke off. Never quotes received data.
#[derive(Debug)]
pub(crate) struct Broken {
    /// What happened and what to do.
    pub(crate) problem: String,
    /// The kind of failure.
    pub(crate) kind: Kind,
    /// Whether and how the request may be sent again.
    pub(crate) again: Again,
}

/// Whether a request that broke off may be sent again if its body is still available.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Again {
    /// Not at all.
    Never,
    /// If its method is idempotent (RFC 9110, section 9.2.2): the connection was reused, and the
    /// instance may have closed it before it saw the request.
    IfIdempotent,
    /// Always: the instance reports that it has not processed it (RFC 9113, section 8.7).
    Always,
    /// Always, over HTTP/1.1: the instance requires it (RFC 9113, section 7).
    OverHttp1,
}

impl Chunk<'_> {
    /// Its bytes.
    pub(crate) fn as_slice(&self) -> &[u8] {
        match self {
            Chunk::Borrowed(bytes) => bytes,
            Chunk::Owned(bytes) | Chunk::Last(bytes) => bytes,
        }
    }

    /// The bytes, copied if they are borrowed.
    pub(crate) fn into_bytes(self) -> Bytes {
        match self {
            Chunk::Borrowed(bytes) => Bytes::copy_from_slice(bytes),
            Chunk::Owned(bytes) | Chunk::Last(bytes) => bytes,
        }
    }
}

impl InstanceSession {
    /// Returns a session on an HTTP/1 connection.
    pub(crate) fn http1(
        stream: Stream,
        received: Received,
        address: SocketAddr,
        is_reused: bool,
    ) -> InstanceSession {
        InstanceSession::Http1(Box::new(Http1 {
            session: HttpSession::new(stream),
            received,
            address,
            is_reused,
        }))
    }

    /// Returns whether its connection has served a request before.
    pub(crate) fn is_reused(&self) -> bool {
        match self {
            InstanceSession::Http1(http1) => http1.is_reused,
            InstanceSession::Http2(http2) => http2.is_reused,
        }
    }

    pub(crate) fn is_http2(&self) -> bool {
        matches!(self, InstanceSession::Http2(_))
    }

    /// The number of received bytes of its connection; `None` if other requests share it.
    pub(crate) fn received(&self) -> Option<Received> {
        match self {
            InstanceSession::Http1(http1) => Some(http1.received.clone()),
            InstanceSession::Http2(_) => None,
        }
    }

    /// Sends the head of a request. Over HTTP/2 its URI is absolute and there is no `Host`.
    ///
    /// # Errors
    /// [`Broken`].
    pub(crate) async fn write_head(
        &mut self,
        head: Box<RequestHeader>,
        no_body: bool,
    ) -> Result<(), Broken> {
        match self {
            InstanceSession::Http1(http1) => {
                let written = http1.session.write_request_header(head).await;
                written.map(drop).map_err(|e| http1.broken(&e))
            }
            InstanceSession::Http2(http2) => http2.write_head(*head, no_body),
        }
    }

    /// Sends a part of the body. Ignores an empty one, which would end a chunked body.
    ///
    /// # Errors
    /// [`Broken`].
    pub(crate) async fn write_body(&mut self, part: Bytes) -> Result<(), Broken> {
        if part.is_empty() {
            return Ok(());
        }
        match self {
            InstanceSession::Http1(http1) => {
                let written = http1.session.write_body(&part).await;
                written.map(drop).map_err(|e| http1.broken(&e))
            }
            InstanceSession::Http2(http2) => http2.write_body(part).await,
        }
    }

    /// Ends the body.
    ///
    /// # Errors
    /// [`Broken`].
    pub(crate) async fn finish(&mut self) -> Result<(), Broken> {
        match self {
            InstanceSession::Http1(http1) => {
                let finished = http1.session.finish_body().await;
                finished.map(drop).map_err(|e| http1.broken(&e))
            }
            InstanceSession::Http2(http2) => http2.finish(),
        }
    }

    /// Reads the head of a response. If it is an interim one (1xx), call it again. Cancel safe.
    ///
    /// # Errors
    /// [`Broken`].
    pub(crate) async fn read_head(&mut self) -> Result<(), Broken> {
        match self {
            InstanceSession::Http1(http1) => {
                let read = http1.session.read_response().await;
                read.map(drop).map_err(|e| http1.broken(&e))
            }
            InstanceSession::Http2(http2) => http2.read_head().await,
        }
    }

    /// The last head read.
    pub(crate) fn head(&self) -> Option<&ResponseHeader> {
        match self {
            InstanceSession::Http1(http1) => http1.session.resp_header(),
            InstanceSession::Http2(http2) => http2.head.as_ref(),
        }
    }

    /// Takes the final head, to pass it on.
    pub(crate) fn take_head(&mut self) -> Option<ResponseHeader> {
        match self {
            // the session reads the body by it
            InstanceSession::Http1(http1) => http1.session.resp_header().cloned(),
            InstanceSession::Http2(http2) => http2.head.take(),
        }
    }

    /// Reads a piece of the response's body; `None` at its end. Cancel safe.
    ///
    /// # Errors
    /// [`Broken`].
    pub(crate) async fn read_body(&mut self) -> Result<Option<Chunk<'_>>, Broken> {
        match self {
            InstanceSession::Http1(http1) => match http1.session.read_body_ref().await {
                Ok(part) => Ok(part.map(Chunk::Borrowed)),
                Err(e) => Err(Broken::http1(&e, Again::Never)),
            },
            InstanceSession::Http2(http2) => http2.read_body().await,
        }
    }

    /// Returns whether the response is complete.
    pub(crate) fn is_complete(&mut self) -> bool {
        match self {
            InstanceSession::Http1(http1) => http1.session.is_body_done(),
            InstanceSession::Http2(http2) => http2.is_complete(),
        }
    }

    /// Returns whether the connection has become a tunnel (101).
    pub(crate) fn is_upgraded(&self) -> bool {
        match self {
            InstanceSession::Http1(http1) => http1.session.was_upgraded(),
            InstanceSession::Http2(_) => false,
        }
    }

    /// Switches the request's body to raw bytes: the connection has become a tunnel.
    pub(crate) fn write_as_tunnel(&mut self) {
        if let InstanceSession::Http1(http1) = self {
            http1.session.maybe_upgrade_body_writer();
        }
    }
}

impl Http1 {
    fn broken(&self, error: &Error) -> Broken {
        // if no response has started, a reused connection may have been closed before the request
        let is_stale = self.is_reused
            && (matches!(error.retry, RetryType::ReusedOnly)
                || matches!(error.etype(), ErrorType::WriteError));
        let again = if is_stale {
            Again::IfIdempotent
        } else {
            Again::Never
        };
        Broken::http1(error, again)
    }
}

impl Broken {
    fn http1(error: &Error, again: Again) -> Broken {
        let io = error.root_cause().downcast_ref::<io::Error>();
        let is_timeout = matches!(
            error.etype(),
            ErrorType::ReadTimedout | ErrorType::WriteTimedout
        );
        let is_cut = matches!(
            error.etype(),
            ErrorType::ReadError | ErrorType::WriteError | ErrorType::ConnectionClosed
        ) || error.etype().as_str() == PREMATURE_END;
        let kind = match () {
            () if is_timeout || is_timed_out(io) => Kind::Timeout,
            () if is_cut => Kind::Reset,
            () => Kind::Protocol,
        };
        let cause = match (io, error.etype()) {
            (Some(io), _) => in_words(io),
            (None, ErrorType::ConnectionClosed) => "it was closed".to_owned(),
            (None, other) => other.as_str().to_owned(),
        };
        Broken::new(kind, &cause, again)
    }

    /// Returns the error of a request over HTTP/2. Every stream of a connection ends with the
    /// connection's reason.
    pub(super) fn http2(error: &h2::Error, again: Again) -> Broken {
        let kind = match () {
            () if is_timed_out(error.get_io()) => Kind::Timeout,
            () if error.is_io() || error.is_reset() || error.is_go_away() => Kind::Reset,
            () => Kind::Protocol,
        };
        Broken::new(kind, &http2::cause(error), again)
    }

    /// Describes the failure without quoting the other side.
    fn new(kind: Kind, cause: &str, again: Again) -> Broken {
        let problem = match kind {
            Kind::Timeout => {
                format!("Collibra took too long ({cause}); check its status and the network")
            }
            Kind::Reset => format!(
                "the connection to Collibra broke before the response was complete ({cause}); if this goes on, check Collibra's status and what stands between here and there"
            ),
            _ => format!(
                "what Collibra sent is not valid HTTP ({cause}); check what stands between here and there"
            ),
        };
        Broken {
            problem,
            kind,
            again,
        }
    }

    /// Returns the error of an instance that was silent for too long.
    pub(crate) fn silent(what: &str) -> Broken {
        Broken {
            problem: what.to_owned(),
            kind: Kind::Timeout,
            again: Again::Never,
        }
    }

    /// Returns the error of a response that cannot be forwarded.
    pub(crate) fn invalid(what: &str) -> Broken {
        Broken {
            problem: format!("{what}; check what stands between here and Collibra"),
            kind: Kind::Protocol,
            again: Again::Never,
        }
    }
}

/// pingora's error type for a body that ends too early.
const PREMATURE_END: &str = "PrematureBodyEnd";

fn is_timed_out(error: Option<&io::Error>) -> bool {
    error.is_some_and(|error| error.kind() == io::ErrorKind::TimedOut)
}

/// The problems of an instance that is too slow.
pub(crate) const SILENT: &str = "Collibra was silent for longer than idle_timeout; if that is no fault, raise it for the instance";
pub(crate) const LATE_HEAD: &str =
    "the head of the response took longer than header_timeout; check Collibra's status";

/// Waits for the instance within `limit`, if there is one.
pub(crate) async fn limited<T>(
    limit: Option<Duration>,
    doing: Pin<&mut impl Future<Output = Result<T, Broken>>>,
) -> Result<T, Broken> {
    match limit {
        None => doing.await,
        Some(limit) => match timeout(limit, doing).await {
            Ok(done) => done,
            Err(_elapsed) => Err(Broken::silent(SILENT)),
        },
    }
}

/// Returns whether a response to `method` has no body, whatever its fields say (RFC 9110, sections
/// 9.3.2, 15.3.5 and 15.4.5).
pub(crate) fn has_no_body(method: &http::Method, status: StatusCode) -> bool {
    *method == http::Method::HEAD
        || matches!(status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED)
}

/// Returns whether `version` supports chunked coding and interim responses.
pub(crate) fn is_http11(version: Version) -> bool {
    version >= Version::HTTP_11
}
