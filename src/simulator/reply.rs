//! Responses, and bodies that are generated while they are sent.

use std::convert::Infallible;
use std::time::Duration;

use axum::Json;
use axum::body::Body;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use futures_util::stream;
use http::header::{CACHE_CONTROL, RETRY_AFTER};
use http::{HeaderName, HeaderValue, StatusCode};
use serde::Serialize;
use serde_json::json;

use super::wire::Line;

/// A response of the simulator.
pub(super) type Reply = Response;

/// A body of `pieces`, generated as fast as the peer reads, with a pause after each of them. It is
/// chunked unless the response has a `Content-Length`. With `cut` the connection breaks after the
/// last piece, instead of the body's end.
pub(super) fn generated(
    pieces: impl Iterator<Item = Bytes> + Send + 'static,
    pause: Option<Duration>,
    cut: Option<Line>,
) -> Body {
    let started = (pieces, None, cut);
    Body::from_stream(stream::unfold(
        started,
        move |(mut pieces, wait, cut)| async move {
            if let Some(wait) = wait {
                tokio::time::sleep(wait).await;
            }
            match (pieces.next(), &cut) {
                (Some(piece), _) => Some((Ok::<_, Infallible>(piece), (pieces, pause, cut))),
                (None, None) => None,
                // hyper flushes after this, and the wire breaks the connection then
                (None, Some(line)) => line.close().await,
            }
        },
    ))
}

/// A JSON response.
pub(super) fn json(status: StatusCode, body: impl Serialize) -> Reply {
    (status, Json(body)).into_response()
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
    json(status, body)
}

/// An error in the authorization server's format (RFC 6749, section 5.2).
pub(super) fn oauth_error(status: StatusCode, code: &str, description: &str) -> Reply {
    let body = json!({
        "error": code,
        "error_description": description,
        "error_uri": "https://datatracker.ietf.org/doc/html/rfc6749#section-5.2",
    });
    not_stored(json(status, body))
}

/// Forbids caching (RFC 6749, section 5.1).
pub(super) fn not_stored(reply: Reply) -> Reply {
    with_header(reply, CACHE_CONTROL, "no-store")
}

/// Parses a status that a response may have.
pub(super) fn status(code: &str) -> Option<StatusCode> {
    let code: StatusCode = code.parse().ok()?;
    (200..=599).contains(&code.as_u16()).then_some(code)
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
