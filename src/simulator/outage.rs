//! Carries out a fault: what is sent instead of the response.

use axum::body::Body;
use axum::response::{Html, IntoResponse};
use bytes::Bytes;
use http::StatusCode;
use http::header::{CONTENT_LENGTH, CONTENT_TYPE, LOCATION};
use http::request::Parts;
use serde_json::json;

use super::body;
use super::faults::{Endpoint, Fault, Kind};
use super::reply::{self, Reply};
use super::wire::Line;
use super::world::World;

/// The length of the padding of an `oversized` response, in bytes.
const OVERSIZED: usize = 1 << 20;

const LOGIN_PAGE: &str = "<!DOCTYPE html>\n<html><head><title>Sign in</title></head>\
    <body><form method=\"post\" action=\"/signin\"><input name=\"username\">\
    <input name=\"password\" type=\"password\"><button>Sign in</button></form></body></html>\n";

const TOKEN: &str =
    r#"{"access_token":"bm90IGEgdG9rZW4gYXQgYWxs","token_type":"Bearer","expires_in":299}"#;

/// Sends what the fault demands, possibly nothing. `unread` is the request's body, if it was not
/// read yet.
pub(super) async fn carry_out(
    world: &World,
    fault: &Fault,
    head: &Parts,
    unread: Option<Body>,
) -> Reply {
    if let Some(unread) = unread
        && !matches!(fault.kind, Kind::Hang | Kind::Reset)
    {
        // unread data would turn the end of the connection into a reset
        body::drain(unread).await;
    }
    let line = Line::of(head);
    match fault.kind {
        Kind::Status(status) => status_reply(world, fault, status),
        Kind::Reset => line.reset().await,
        Kind::Close => line.close().await,
        Kind::Empty => StatusCode::OK.into_response(),
        Kind::Html => Html(LOGIN_PAGE).into_response(),
        Kind::Truncate => {
            let half = Bytes::from_static(&TOKEN.as_bytes()[..TOKEN.len() / 2]);
            let headers = [
                (CONTENT_TYPE, "application/json".to_owned()),
                (CONTENT_LENGTH, TOKEN.len().to_string()),
            ];
            let body = reply::generated(std::iter::once(half), None, Some(line));
            (headers, body).into_response()
        }
        Kind::Oversized => {
            let token = "A".repeat(OVERSIZED);
            let body = json!({ "access_token": token, "token_type": "Bearer", "expires_in": 299 });
            reply::json(StatusCode::OK, body)
        }
        Kind::Redirect => (StatusCode::FOUND, [(LOCATION, "/moved/here")]).into_response(),
        // the other kinds do not replace the response
        _ => std::future::pending().await,
    }
}

fn status_reply(world: &World, fault: &Fault, status: StatusCode) -> Reply {
    let message = "This fault was requested.";
    let reply = match fault.endpoint {
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
    let is_told = world.config.retry_after && status == StatusCode::TOO_MANY_REQUESTS;
    let refill = is_told.then(|| reply::whole_seconds(world.config.refill));
    reply::retry_after(reply, fault.retry_after.or(refill))
}
