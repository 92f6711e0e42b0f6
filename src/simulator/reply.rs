//! Responses, and bodies that are generated while they are sent.

use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http::header::{CACHE_CONTROL, CONTENT_TYPE, RETRY_AFTER};
use http::{HeaderName, HeaderValue, Response, StatusCode};
use http_body::{Body, Frame, SizeHint};
use serde_json::{Value, json};
use tokio::time::Sleep;

use super::wire::Line;

/// A response of the simulator.
pub(super) type Reply = Response<Payload>;

/// Generates the next piece of a body; `None` at its end.
pub(super) type Producer = Box<dyn FnMut() -> Option<Bytes> + Send>;

/// A body of pieces, generated as fast as the peer reads.
pub(super) struct Payload {
    next: Producer,
    length: Option<u64>,
    cut: Option<Line>,
    pause: Option<Duration>,
    pausing: Option<Pin<Box<Sleep>>>,
}

impl Payload {
    /// A body that is in memory.
    pub(super) fn whole(bytes: impl Into<Bytes>) -> Self {
        let bytes = bytes.into();
        let length = bytes.len() as u64;
        let mut rest = Some(bytes).filter(|bytes| !bytes.is_empty());
        Self::sized(length, Box::new(move || rest.take()))
    }

    /// A body with a `Content-Length`.
    pub(super) fn sized(length: u64, next: Producer) -> Self {
        Self {
            length: Some(length),
            ..Self::chunked(next)
        }
    }

    /// A chunked body, without an announced length.
    pub(super) fn chunked(next: Producer) -> Self {
        Self {
            next,
            length: None,
            cut: None,
            pause: None,
            pausing: None,
        }
    }

    /// Breaks the connection after the last piece, instead of ending the body.
    pub(super) fn cut(mut self, line: Line) -> Self {
        self.cut = Some(line);
        self
    }

    /// Pauses this long after each piece.
    pub(super) fn paced(mut self, pause: Option<Duration>) -> Self {
        self.pause = pause;
        self
    }
}

impl Body for Payload {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        if let Some(sleep) = &mut self.pausing {
            ready!(sleep.as_mut().poll(cx));
            self.pausing = None;
        }
        match ((self.next)(), &self.cut) {
            (Some(piece), _) => {
                self.pausing = self.pause.map(|pause| Box::pin(tokio::time::sleep(pause)));
                Poll::Ready(Some(Ok(Frame::data(piece))))
            }
            (None, None) => Poll::Ready(None),
            (None, Some(line)) => {
                // hyper flushes after this, and the wire breaks the connection then
                line.close();
                Poll::Pending
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.length == Some(0) && self.cut.is_none()
    }

    fn size_hint(&self) -> SizeHint {
        self.length
            .map_or_else(SizeHint::default, SizeHint::with_exact)
    }
}

/// A response with this content type and body.
pub(super) fn of_type(status: StatusCode, content_type: &'static str, body: Payload) -> Reply {
    let mut reply = Response::new(body);
    *reply.status_mut() = status;
    reply
        .headers_mut()
        .insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    reply
}

/// A JSON response.
pub(super) fn json(status: StatusCode, body: &Value) -> Reply {
    of_type(status, "application/json", Payload::whole(body.to_string()))
}

/// A response without a body.
pub(super) fn empty(status: StatusCode) -> Reply {
    let mut reply = Response::new(Payload::whole(Bytes::new()));
    *reply.status_mut() = status;
    reply
}

/// An error in the REST API's format.
pub(super) fn api_error(status: StatusCode, code: &str, message: &str) -> Reply {
    let body = json!({
        "statusCode": status.as_u16(),
        "errorCode": code,
        "titleMessage": status.canonical_reason().unwrap_or("Error"),
        "userMessage": message,
        "helpMessage": "This answer comes from a simulated Collibra.",
    });
    json(status, &body)
}

/// An error in the authorization server's format (RFC 6749, section 5.2).
pub(super) fn oauth_error(status: StatusCode, code: &str, description: &str) -> Reply {
    let body = json!({
        "error": code,
        "error_description": description,
        "error_uri": "https://datatracker.ietf.org/doc/html/rfc6749#section-5.2",
    });
    not_stored(json(status, &body))
}

/// Forbids caching (RFC 6749, section 5.1).
pub(super) fn not_stored(reply: Reply) -> Reply {
    with_header(reply, CACHE_CONTROL, "no-store")
}

/// Adds `Retry-After`, in whole seconds.
pub(super) fn retry_after(reply: Reply, seconds: Option<u64>) -> Reply {
    match seconds {
        Some(seconds) => with_header(reply, RETRY_AFTER, &seconds.to_string()),
        None => reply,
    }
}

/// A wait in whole seconds for `Retry-After`: rounded up, at least 1.
pub(super) fn whole_seconds(wait: Duration) -> u64 {
    wait.as_secs() + u64::from(wait.subsec_nanos() > 0 || wait.is_zero())
}

/// Adds a header, unless the value is invalid.
pub(super) fn with_header(mut reply: Reply, name: HeaderName, value: &str) -> Reply {
    if let Ok(value) = HeaderValue::from_str(value) {
        reply.headers_mut().append(name, value);
    }
    reply
}
