//! Carries out a fault: what is sent instead of the response.

use axum::body::Body;
use axum::response::{Html, IntoResponse};
use bytes::Bytes;
use http::header::{CONTENT_LENGTH, CONTENT_TYPE, HOST, LOCATION};
use http::{HeaderMap, StatusCode};
use serde_json::json;

use super::body;
use super::faults::{Endpoint, Outage};
use super::reply::{self, Reply};
use super::wire::Line;
use super::world::World;

/// The length of the padding of an `oversized` response, in bytes.
const OVERSIZED: usize = 1 << 20;

const LOGIN_PAGE: &str = "<!DOCTYPE html>\n<html><head><title>Sign in</title></head>\
    <body><form method=\"post\" action=\"/signin\"><input name=\"username\">\
    <input name=\"password\" type=\"password\"><button>Sign in</button></form></body></html>\n";

/// The parts of a request that a fault needs.
pub(super) struct Hit<'a> {
    /// The endpoint it arrived at.
    pub(super) endpoint: Endpoint,
    /// Its connection.
    pub(super) line: &'a Line,
    /// Its headers.
    pub(super) headers: &'a HeaderMap,
    /// Its body, if it was not read yet.
    pub(super) body: Option<Body>,
}

/// Sends what the fault demands, possibly nothing.
pub(super) async fn carry_out(world: &World, outage: &Outage, hit: Hit<'_>) -> Reply {
    if let Some(unread) = hit.body
        && !matches!(outage, Outage::Hang | Outage::Reset)
    {
        // unread data would turn the end of the connection into a reset
        body::drain(unread).await;
    }
    match outage {
        Outage::Status(status, retry_after) => {
            status_reply(world, *status, *retry_after, hit.endpoint)
        }
        Outage::Hang => std::future::pending().await,
        Outage::Reset => {
            hit.line.reset();
            std::future::pending().await
        }
        Outage::Close => {
            hit.line.close();
            std::future::pending().await
        }
        Outage::Empty => StatusCode::OK.into_response(),
        Outage::Html => Html(LOGIN_PAGE).into_response(),
        Outage::Truncate => truncated(hit.line.clone()),
        Outage::Oversized => oversized(),
        Outage::Redirect => elsewhere(world, hit.headers),
    }
}

fn status_reply(
    world: &World,
    status: StatusCode,
    retry_after: Option<u64>,
    endpoint: Endpoint,
) -> Reply {
    let message = "This fault was requested.";
    let reply = match endpoint {
        Endpoint::Token => {
            let code = match status {
                StatusCode::UNAUTHORIZED => "invalid_client",
                StatusCode::BAD_REQUEST => "invalid_request",
                StatusCode::TOO_MANY_REQUESTS => "too_many_requests",
                StatusCode::SERVICE_UNAVAILABLE => "temporarily_unavailable",
                _ => "server_error",
            };
            reply::oauth_error(status, code, message)
        }
        Endpoint::Api => reply::api_error(status, "orderedFault", message),
    };
    let when_limited = || {
        let refill = world.settings.rules.refill;
        let tells = world.settings.retry_after && status == StatusCode::TOO_MANY_REQUESTS;
        tells.then(|| reply::whole_seconds(refill))
    };
    reply::retry_after(reply, retry_after.or_else(when_limited))
}

fn truncated(line: Line) -> Reply {
    let whole =
        r#"{"access_token":"bm90IGEgdG9rZW4gYXQgYWxs","token_type":"Bearer","expires_in":299}"#;
    let half = Bytes::from_static(&whole.as_bytes()[..whole.len() / 2]);
    let headers = [
        (CONTENT_TYPE, "application/json".to_owned()),
        (CONTENT_LENGTH, whole.len().to_string()),
    ];
    let body = reply::generated(std::iter::once(half), None, Some(line));
    (headers, body).into_response()
}

fn oversized() -> Reply {
    let body = json!({
        "access_token": "A".repeat(OVERSIZED),
        "token_type": "Bearer",
        "expires_in": 299,
    });
    reply::json(StatusCode::OK, body)
}

fn elsewhere(world: &World, headers: &HeaderMap) -> Reply {
    let scheme = if world.settings.tls { "https" } else { "http" };
    let location = match headers.get(HOST).and_then(|host| host.to_str().ok()) {
        Some(host) => format!("{scheme}://{host}/moved/here"),
        None => "/moved/here".to_owned(),
    };
    reply::with_header(StatusCode::FOUND.into_response(), LOCATION, &location)
}
