//! Every answer that the proxy makes itself: one table of what was refused, with which status,
//! under which reason, and what it says to the person who reads it.
//!
//! `X-Collibra-Auth-Proxy: REASON` tells such an answer from Collibra's own; the body has the shape
//! that Collibra's clients parse.

use std::time::Duration;

use bytes::Bytes;
use http::header::{CACHE_CONTROL, CONNECTION, CONTENT_LENGTH, CONTENT_TYPE, RETRY_AFTER};
use http::{Method, StatusCode};
use pingora_core::Result;
use pingora_http::ResponseHeader;
use pingora_proxy::Session;
use serde::Serialize;

use super::policy::Denied;
use super::target::Malformed;
use crate::token::cache::NoToken;

/// The header that marks an answer as the proxy's own.
pub const HEADER: &str = "X-Collibra-Auth-Proxy";

/// Why a request is answered here and not by Collibra.
#[derive(Clone, Debug)]
pub enum Refusal {
    /// The head is not HTTP.
    Unreadable,
    /// The request can be read in more than one way.
    Malformed(Malformed),
    /// A method that is never forwarded.
    Method,
    /// The head took too long.
    SlowHeader,
    /// The head is too large.
    LargeHeader,
    /// `Host` is not on the listener's list.
    Host {
        /// The listener's name.
        listener: String,
        /// The names that it answers to.
        accepted: String,
    },
    /// A web page of another site sent it.
    CrossSite,
    /// A path that is never forwarded.
    Denied(Denied),
    /// There is no token to send.
    NoToken(NoToken),
    /// Collibra could not be reached, or broke off.
    Upstream {
        /// What went wrong.
        problem: String,
        /// Whether it was a matter of time: 504, else 502.
        timeout: bool,
    },
}

impl Refusal {
    /// The value of [`HEADER`], and of the metrics' label `reason`.
    #[must_use]
    pub fn reason(&self) -> &'static str {
        match self {
            Refusal::Unreadable | Refusal::Malformed(_) => "bad-request",
            Refusal::Method => "method",
            Refusal::SlowHeader => "slow-header",
            Refusal::LargeHeader => "large-header",
            Refusal::Host { .. } => "host",
            Refusal::CrossSite => "cross-site",
            Refusal::Denied(_) => "denied",
            Refusal::NoToken(_) => "no-token",
            Refusal::Upstream { .. } => "upstream",
        }
    }

    /// The status.
    #[must_use]
    pub fn status(&self) -> StatusCode {
        match self {
            Refusal::Unreadable | Refusal::Malformed(_) => StatusCode::BAD_REQUEST,
            Refusal::Method => StatusCode::METHOD_NOT_ALLOWED,
            Refusal::SlowHeader => StatusCode::REQUEST_TIMEOUT,
            Refusal::LargeHeader => StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
            Refusal::Host { .. } => StatusCode::MISDIRECTED_REQUEST,
            Refusal::CrossSite | Refusal::Denied(_) => StatusCode::FORBIDDEN,
            Refusal::NoToken(_) => StatusCode::SERVICE_UNAVAILABLE,
            Refusal::Upstream { timeout: false, .. } => StatusCode::BAD_GATEWAY,
            Refusal::Upstream { timeout: true, .. } => StatusCode::GATEWAY_TIMEOUT,
        }
    }

    /// When to come again, in whole seconds, rounded up.
    #[must_use]
    pub fn retry_after(&self) -> Option<u64> {
        match self {
            Refusal::NoToken(no_token) => {
                let wait = no_token.retry_after + Duration::from_millis(999);
                Some(wait.as_secs().max(1))
            }
            _ => None,
        }
    }

    /// What is the matter, and what to do about it.
    fn words(&self) -> Words {
        match self {
            Refusal::Unreadable => Words::new(
                "The request could not be read",
                "The request's head is not valid HTTP/1.1.",
                "Look at the program that sent it, or at what stands between it and this proxy.",
            ),
            Refusal::Malformed(why) => Words::new(
                "The request is ambiguous",
                why.explain(),
                "Send it in one of the forms that every server reads alike.",
            ),
            Refusal::Method => Words::new(
                "Method not allowed",
                "TRACE, TRACK and CONNECT are never forwarded.",
                "Call the API with GET, POST, PUT, PATCH, DELETE, HEAD or OPTIONS.",
            ),
            Refusal::SlowHeader => Words::new(
                "The request came too slowly",
                "Its head did not arrive within the listener's header_timeout.",
                "Send the head at once, or raise header_timeout of the listener.",
            ),
            Refusal::LargeHeader => Words::new(
                "The request's head is too large",
                "Its request line and headers together exceed the listener's max_header_bytes.",
                "Send fewer or shorter headers, or raise max_header_bytes of the listener.",
            ),
            Refusal::Host { listener, accepted } => Words::new(
                "Not a host of this proxy",
                "The Host header names a host that this listener does not answer to.",
                &format!(
                    "Call it by one of these names: {accepted}; or add the name to hosts of listener.{listener}."
                ),
            ),
            Refusal::CrossSite => Words::new(
                "A page of another site may not use this proxy",
                "The browser says that another site's page sent this request.",
                "Programs need no Origin header; a page must be served from one of the listener's hosts.",
            ),
            Refusal::Denied(Denied::TokenEndpoint) => Words::new(
                "No token is needed here",
                "Requests to the token endpoint are not forwarded: they would use up the pool that all programs share.",
                "Leave the token request out; the proxy attaches the token to every call.",
            ),
            Refusal::Denied(Denied::ClientManagement) => Words::new(
                "This path is not forwarded",
                "The API below /rest/auth/v1, by which clients are registered and deleted, is denied.",
                "Manage clients at the Collibra instance itself.",
            ),
            Refusal::NoToken(NoToken {
                reason,
                store_problem,
                ..
            }) => Words::new(
                "There is no access token at present",
                &match (reason, store_problem) {
                    (Some((_, why)), _) => format!("The last token request failed: {why}"),
                    (None, Some(why)) => format!(
                        "The store by which a fleet shares its token is away, and others of the fleet ask for themselves meanwhile: {why}"
                    ),
                    (None, None) => {
                        "The first token has been asked for and has not come yet.".to_owned()
                    }
                },
                "Come again after the seconds that Retry-After says; nothing was sent to Collibra.",
            ),
            Refusal::Upstream { problem, .. } => Words::new(
                "Collibra could not be reached",
                problem,
                "See whether the instance is up and the proxy can reach it: collibra-auth-proxy check --live.",
            ),
        }
    }
}

/// Answers with `refusal`. The connection is kept only if the request has no body left to read.
///
/// # Errors
/// If the caller is gone.
pub(crate) async fn send(session: &mut Session, refusal: &Refusal) -> Result<()> {
    let body = if session.req_header().method == Method::HEAD {
        Bytes::new()
    } else {
        body(refusal)
    };
    if !session.as_downstream_mut().is_body_empty() {
        session.set_keepalive(None);
    }
    let mut head = ResponseHeader::build(refusal.status(), Some(6))?;
    for (name, value) in fields(refusal) {
        head.insert_header(name, value)?;
    }
    let no_body = body.is_empty();
    session
        .write_response_header(Box::new(head), no_body)
        .await?;
    if !no_body {
        session.write_response_body(Some(body), true).await?;
    }
    Ok(())
}

/// The whole answer as bytes, for a connection on which there is no request that could be
/// answered; it closes the connection.
pub(crate) fn raw(refusal: &Refusal) -> Vec<u8> {
    let mut head = format!("HTTP/1.1 {}\r\n", refusal.status());
    for (name, value) in fields(refusal) {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    head.push_str(&format!("{CONNECTION}: close\r\n\r\n"));
    [head.as_bytes(), &body(refusal)].concat()
}

fn fields(refusal: &Refusal) -> Vec<(&'static str, String)> {
    let mut fields = vec![
        (CONTENT_TYPE.as_str(), "application/json".to_owned()),
        (CONTENT_LENGTH.as_str(), body(refusal).len().to_string()),
        (CACHE_CONTROL.as_str(), "no-store".to_owned()),
        (HEADER, refusal.reason().to_owned()),
    ];
    if let Some(seconds) = refusal.retry_after() {
        fields.push((RETRY_AFTER.as_str(), seconds.to_string()));
    }
    fields
}

fn body(refusal: &Refusal) -> Bytes {
    let words = refusal.words();
    let error = ApiError {
        status_code: refusal.status().as_u16(),
        error_code: refusal.reason(),
        title_message: &words.title,
        user_message: &words.user,
        help_message: &words.help,
    };
    // a struct of texts and a number cannot fail to be written
    serde_json::to_vec(&error).unwrap_or_default().into()
}

/// The shape of an error in Collibra's REST API.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct ApiError<'a> {
    status_code: u16,
    error_code: &'a str,
    title_message: &'a str,
    user_message: &'a str,
    help_message: &'a str,
}

struct Words {
    title: String,
    user: String,
    help: String,
}

impl Words {
    fn new(title: &str, user: &str, help: &str) -> Words {
        Words {
            title: title.to_owned(),
            user: user.to_owned(),
            help: help.to_owned(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::token::ports::Outcome;

    fn no_token() -> Refusal {
        Refusal::NoToken(NoToken {
            retry_after: Duration::from_millis(1_200),
            reason: Some((
                Outcome::RateLimited,
                "acme.collibra.com answered 429".to_owned(),
            )),
            store_problem: None,
        })
    }

    #[test]
    fn a_raw_answer_is_whole() {
        let text = String::from_utf8(raw(&Refusal::SlowHeader)).unwrap();
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        assert!(
            head.starts_with("HTTP/1.1 408 Request Timeout\r\n"),
            "{head}"
        );
        assert!(head.contains("X-Collibra-Auth-Proxy: slow-header\r\n"));
        assert!(head.contains(&format!("content-length: {}\r\n", body.len())));
        assert!(head.ends_with("connection: close"));
    }

    #[test]
    fn no_token_says_why_and_when_to_come_again() {
        let refusal = no_token();
        assert_eq!(refusal.retry_after(), Some(2), "whole seconds, rounded up");
        let body: serde_json::Value = serde_json::from_slice(&body(&refusal)).unwrap();
        assert_eq!(body["statusCode"], 503);
        assert_eq!(body["errorCode"], "no-token");
        assert_eq!(
            body["userMessage"],
            "The last token request failed: acme.collibra.com answered 429"
        );
        assert!(body["helpMessage"].is_string() && body["titleMessage"].is_string());
    }
}
