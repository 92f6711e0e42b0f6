//! Every response that the proxy makes itself: a table of refusals with their status, reason and
//! text.
//!
//! `X-Collibra-Auth-Proxy: REASON` distinguishes it from Collibra's responses. The body has the
//! format that Collibra's clients parse.

use std::borrow::Cow;
use std::time::Duration;

use http::StatusCode;
use http::header::{PROXY_AUTHENTICATE, RETRY_AFTER, WWW_AUTHENTICATE};
use serde::Serialize;

use super::answer::Answer;
use crate::local_token::request::TokenRequestError;
use crate::policy::limit::Exceeded;
use crate::policy::rules::Denied;
use crate::policy::target::Malformed;
use crate::telemetry::{Label, labels};
use crate::token::cache::NoToken;
use crate::token::ports::Outcome;

/// Why the proxy answers a request itself.
#[derive(Clone, Debug)]
pub enum Refusal {
    /// The head is not HTTP.
    Unreadable,
    /// HTTP/2 without TLS, which is not supported.
    Http2WithoutTls,
    /// A request that is answered here has an invalid body; the text says why.
    Body(&'static str),
    /// The request is ambiguous.
    Malformed(Malformed),
    /// It has passed this process before.
    Loop,
    /// A method that is never forwarded.
    Method,
    /// The head took too long.
    SlowHeader,
    /// The head is too large.
    LargeHeader,
    /// The body came too slowly.
    SlowBody,
    /// `Host` is not on the listener's list.
    Host {
        /// The name in `Host`.
        host: String,
        /// The listener's name.
        listener: String,
        /// The names that it accepts.
        accepted: Vec<String>,
    },
    /// A forward listener was called as if it were a server.
    ForwardOnly {
        /// The listener.
        listener: String,
    },
    /// It came through a tunnel to this host, and names another one.
    OtherHost(String),
    /// The request to a forward listener names a server that it does not serve.
    NotAnInstance {
        /// Why it is not served.
        why: &'static str,
        /// The listener.
        listener: String,
        /// The instances that it serves.
        instances: String,
    },
    /// A tunnel would lead to this machine or to a link-local address.
    ForbiddenTunnel,
    /// The host of a tunnel was unreachable, for this reason; and whether it timed out.
    Unreachable(String, bool),
    /// There is no local authority that covers an instance's host.
    NoAuthority {
        /// The host.
        host: String,
    },
    /// A web page of another site sent it.
    CrossSite,
    /// Apps are configured, and the caller is none of them.
    UnknownApp,
    /// The same at a forward listener, which requires `Proxy-Authorization`.
    ProxyAuthentication,
    /// The policy does not forward it.
    Denied(Denied),
    /// It exceeds the app's own limit.
    AppLimit(Exceeded),
    /// Local tokens are requested too often; the next one is due after this.
    TokenLimit(Duration),
    /// The request for a local token is refused, in the format of RFC 6749 as well.
    TokenRequest {
        /// What is wrong with it.
        error: TokenRequestError,
        /// Whether its credentials came in a header.
        by_header: bool,
    },
    /// There is no usable token.
    NoToken(NoToken),
    /// Collibra was unreachable, or the connection broke.
    Upstream {
        /// What went wrong.
        problem: String,
        /// Whether it timed out: 504, else 502.
        timeout: bool,
    },
}

impl From<NoToken> for Refusal {
    fn from(no_token: NoToken) -> Refusal {
        match no_token.reason {
            // nothing but another configuration brings one
            Some((Outcome::Loop, _)) => Refusal::Loop,
            _ => Refusal::NoToken(no_token),
        }
    }
}

impl From<Malformed> for Refusal {
    fn from(why: Malformed) -> Refusal {
        Refusal::Malformed(why)
    }
}

labels! {
    /// The kinds of refusals, as named in responses, the log and the metrics.
    #[expect(missing_docs, reason = "each is described at the refusal")]
    pub enum Reason {
        BadRequest = "bad-request",
        UnknownApp = "unknown-app",
        Denied = "denied",
        CrossSite = "cross-site",
        Method = "method",
        SlowHeader = "slow-header",
        LargeHeader = "large-header",
        SlowBody = "slow-body",
        Host = "host",
        NotAnInstance = "not-an-instance",
        NoAuthority = "no-authority",
        AppLimit = "app-limit",
        TokenLimit = "token-limit",
        Loop = "loop",
        Upstream = "upstream",
        NoToken = "no-token",
    }
}

/// What to write so that a listener accepts `host` too.
fn remedy_for_host(host: &str, listener: &str, accepted: &[String]) -> String {
    // no DNS name is longer, and the response would grow with it
    if host.len() > 253 {
        let known = accepted.join(", ");
        return format!("Call it by one of these names: {known}.");
    }
    let mut flags = String::new();
    let mut items = String::new();
    for name in accepted.iter().map(String::as_str).chain([host]) {
        flags += &format!(" --host {name}");
        items += &format!("{}{name:?}", if items.is_empty() { "" } else { ", " });
    }
    format!(
        "Call it by a name that it accepts, or add this one: in [listener.{listener}] of the configuration write hosts = [{items}]. Without a configuration file, start it with{flags}."
    )
}

impl Refusal {
    /// The value of `X-Collibra-Auth-Proxy`, and of the metrics' label `reason`.
    #[must_use]
    pub fn reason(&self) -> Reason {
        self.text().reason
    }

    /// The status; `reason` is its reason.
    pub(super) fn status(&self, reason: Reason) -> StatusCode {
        match (self, reason) {
            (Refusal::ProxyAuthentication, _) => StatusCode::PROXY_AUTHENTICATION_REQUIRED,
            (Refusal::Upstream { timeout: true, .. } | Refusal::Unreachable(_, true), _) => {
                StatusCode::GATEWAY_TIMEOUT
            }
            (_, Reason::BadRequest) => StatusCode::BAD_REQUEST,
            (_, Reason::UnknownApp) => StatusCode::UNAUTHORIZED,
            (_, Reason::Denied | Reason::CrossSite | Reason::NotAnInstance) => {
                StatusCode::FORBIDDEN
            }
            (_, Reason::Method) => StatusCode::METHOD_NOT_ALLOWED,
            (_, Reason::SlowHeader | Reason::SlowBody) => StatusCode::REQUEST_TIMEOUT,
            (_, Reason::LargeHeader) => StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
            (_, Reason::Host) => StatusCode::MISDIRECTED_REQUEST,
            (_, Reason::AppLimit | Reason::TokenLimit) => StatusCode::TOO_MANY_REQUESTS,
            (_, Reason::Loop) => StatusCode::LOOP_DETECTED,
            (_, Reason::Upstream) => StatusCode::BAD_GATEWAY,
            (_, Reason::NoToken | Reason::NoAuthority) => StatusCode::SERVICE_UNAVAILABLE,
        }
    }

    /// Whether the connection must close, because the start of the next request is unknown.
    pub(super) fn ends_connection(&self) -> bool {
        matches!(
            self,
            Refusal::SlowBody
                | Refusal::Unreadable
                | Refusal::Malformed(Malformed::LineEnd | Malformed::Framing)
        )
    }

    /// When to retry, in whole seconds, rounded up.
    #[must_use]
    pub fn retry_after(&self) -> Option<u64> {
        let wait = match self {
            Refusal::NoToken(no_token) => no_token.retry_after,
            Refusal::AppLimit(Exceeded::Rate(wait))
            | Refusal::TokenLimit(wait)
            | Refusal::TokenRequest {
                error: TokenRequestError::TooMany(wait),
                ..
            } => *wait,
            // when one of the other requests ends is unknown
            Refusal::AppLimit(Exceeded::InFlight) => Duration::from_secs(1),
            _ => return None,
        };
        let rounded_up = wait + Duration::from_nanos(999_999_999);
        Some(rounded_up.as_secs().max(1))
    }

    /// Its reason, what is wrong, and what to do about it.
    fn text(&self) -> ApiError<'_> {
        match self {
            Refusal::Unreadable => ApiError::new(
                Reason::BadRequest,
                "The request could not be read",
                "The request's head is not valid HTTP/1.1.",
                "Check the program that sent it, and any proxy between it and this one.",
            ),
            Refusal::Http2WithoutTls => ApiError::new(
                Reason::BadRequest,
                "HTTP/2 requires TLS",
                "The connection started with HTTP/2, but this listener has no TLS.",
                "Use HTTP/1.1, or give the listener a certificate (tls) and use https://.",
            ),
            Refusal::Body(why) => ApiError::new(
                Reason::BadRequest,
                "The request's body is not valid here",
                *why,
                "Send what Collibra expects: a form to the token endpoint, JSON to a login.",
            ),
            Refusal::Malformed(why) => ApiError::new(
                Reason::BadRequest,
                "The request is ambiguous",
                why.to_string(),
                "Send it in a form that every server reads the same way.",
            ),
            Refusal::Loop => ApiError::new(
                Reason::Loop,
                "The request came back to this proxy",
                "Requests that the proxy sends to Collibra arrive at the proxy again, directly or through another proxy.",
                "Set the instance's url (COLLIBRA_URL) to Collibra's own address. Where /etc/hosts or DNS gives that name to the proxy, set the instance's address too.",
            ),
            Refusal::Method => ApiError::new(
                Reason::Method,
                "Method not allowed",
                "TRACE, TRACK and CONNECT are never forwarded.",
                "Call the API with GET, POST, PUT, PATCH, DELETE, HEAD or OPTIONS.",
            ),
            Refusal::SlowHeader => ApiError::new(
                Reason::SlowHeader,
                "The request came too slowly",
                "Its head did not arrive within the listener's header_timeout.",
                "Send the head at once, or raise header_timeout of the listener.",
            ),
            Refusal::LargeHeader => ApiError::new(
                Reason::LargeHeader,
                "The request's head is too large",
                "Its request line and headers together exceed the listener's max_header_bytes.",
                "Send fewer or shorter headers, or raise max_header_bytes of the listener.",
            ),
            Refusal::SlowBody => ApiError::new(
                Reason::SlowBody,
                "The request came too slowly",
                "Its body came more slowly than the listener's min_body_rate allows.",
                "Send the body as fast as the network takes it, or lower min_body_rate of the listener; 0 turns it off.",
            ),
            Refusal::Host {
                host,
                listener,
                accepted,
            } => ApiError::new(
                Reason::Host,
                "Not a host of this proxy",
                "The Host header names a host that this listener does not accept.",
                remedy_for_host(host, listener, accepted),
            ),
            Refusal::ForwardOnly { listener } => ApiError::new(
                Reason::Host,
                "This is a forward proxy",
                format!(
                    "The listener {listener} has mode = \"forward\" and takes CONNECT and absolute URLs only."
                ),
                "Give the program this address as HTTPS_PROXY, and Collibra's own URL; or call a listener without that mode.",
            ),
            Refusal::OtherHost(host) => ApiError::new(
                Reason::Host,
                "The request names another host than its tunnel",
                format!("The tunnel was opened to {host}, and Host or the target names another."),
                "Open a tunnel to each host, and send its name, with its port unless that is the default, as Host.",
            ),
            Refusal::NotAnInstance {
                why,
                listener,
                instances,
            } => ApiError::new(
                Reason::NotAnInstance,
                "Not an instance of this proxy",
                format!("{why} This forward proxy serves {instances}."),
                format!(
                    "Name the host in the program's NO_PROXY, so that it is called directly; or add it as an [instance.NAME] with a client; or write others = \"tunnel\" in listener.{listener}, which lets CONNECT to other hosts through."
                ),
            ),
            Refusal::ForbiddenTunnel => ApiError::new(
                Reason::NotAnInstance,
                "No tunnel leads to this address",
                "The host has a loopback, link-local or multicast address, or is this proxy.",
                "Name the host in the program's NO_PROXY, so that it is called directly.",
            ),
            Refusal::Unreachable(problem, _) => ApiError::new(
                Reason::Upstream,
                "The host could not be reached",
                capitalised(problem),
                "Check the host's name and port, and whether this machine can reach it without a forward proxy.",
            ),
            Refusal::NoAuthority { host } => ApiError::new(
                Reason::NoAuthority,
                "There is no certificate for this host",
                format!("There is no local authority, or it does not cover {host}."),
                "Run collibra-auth-proxy ca init with the proxy's configuration (ca renew if there is an authority), and make the program trust its certificate.",
            ),
            Refusal::CrossSite => ApiError::new(
                Reason::CrossSite,
                "A page of another site may not use this proxy",
                "The browser says that another site's page sent this request.",
                "Programs need no Origin header; a page must be served from one of the listener's hosts.",
            ),
            Refusal::UnknownApp => ApiError::new(
                Reason::UnknownApp,
                "Authentication required",
                "This proxy serves configured apps only, and the request has no valid credentials of one.",
                "Send the app's name and key as Basic, the key as Bearer, or a token that this proxy issued to the app.",
            ),
            Refusal::ProxyAuthentication => ApiError::new(
                Reason::UnknownApp,
                "Proxy authentication required",
                "This proxy serves configured apps only, and the request has no valid credentials of one.",
                "Write the app's name and key into the proxy's URL: HTTPS_PROXY=http://app:key@host:port, special characters percent-encoded.",
            ),
            Refusal::AppLimit(which) => ApiError::new(
                Reason::AppLimit,
                "Too many requests of this app",
                match which {
                    Exceeded::Rate(_) => "The app's requests_per_second is used up.",
                    Exceeded::InFlight => {
                        "The app has as many requests in flight as its max_in_flight allows."
                    }
                },
                "Retry after the seconds in Retry-After, or raise the app's limit.",
            ),
            Refusal::TokenLimit(_) => ApiError::new(
                Reason::TokenLimit,
                "Too many token requests and logins",
                "An app gets 20 local tokens a second; all callers of a listener that are no app get 100 together, refused ones included.",
                "Keep the token or the session until it expires, and retry after the seconds in Retry-After.",
            ),
            Refusal::TokenRequest { error, .. } => ApiError::new(
                match error {
                    TokenRequestError::InvalidClient => Reason::UnknownApp,
                    TokenRequestError::TooMany(_) => Reason::TokenLimit,
                    _ => Reason::BadRequest,
                },
                "No token is given",
                error.texts().1,
                "Ask as for a token of Collibra's, with an app's name and key.",
            ),
            Refusal::Denied(Denied::TokenEndpoint) => ApiError::new(
                Reason::Denied,
                "This is not forwarded to the token endpoint",
                "Requests there are not forwarded: they would use up the pool that all programs share.",
                "POST to exactly the token endpoint's path to get a token for this proxy, or omit the request: the proxy attaches Collibra's token to every call.",
            ),
            Refusal::Denied(Denied::Sessions) => ApiError::new(
                Reason::Denied,
                "No session is opened or closed at Collibra",
                "All programs share one user there; a login would end another program's session.",
                "Omit the login: the proxy attaches an access token to every call.",
            ),
            Refusal::Denied(Denied::Pattern(pattern)) => ApiError::new(
                Reason::Denied,
                "This is denied",
                format!("It matches {pattern:?} of policy.deny."),
                "Do this at Collibra directly, or change policy.deny.",
            ),
            Refusal::Denied(Denied::NotAllowed { app }) => ApiError::new(
                Reason::Denied,
                "The app may not do this",
                format!("No pattern in allow of app.{app} matches this method and path."),
                format!("Add a pattern to allow of app.{app}, if it should be allowed."),
            ),
            Refusal::NoToken(NoToken {
                reason,
                store_problem,
                ..
            }) => ApiError::new(
                Reason::NoToken,
                "There is no access token at the moment",
                match (reason, store_problem) {
                    (Some((_, why)), _) => format!("The last token request failed: {why}"),
                    (None, Some(why)) => format!(
                        "The fleet's shared store is unavailable, and other proxies of the fleet make requests meanwhile: {why}"
                    ),
                    (None, None) => {
                        "The first token was requested and has not arrived yet.".to_owned()
                    }
                },
                "Retry after the seconds in Retry-After; nothing was sent to Collibra.",
            ),
            Refusal::Upstream { problem, .. } => ApiError::new(
                Reason::Upstream,
                "Collibra could not be reached",
                capitalised(problem),
                "Check whether the instance is up and reachable: collibra-auth-proxy check --live.",
            ),
        }
    }
}

/// `problem` as a sentence.
fn capitalised(problem: &str) -> String {
    let mut chars = problem.chars();
    let first = chars.next().map(char::to_uppercase);
    let sentence: String = first.into_iter().flatten().chain(chars).collect();
    format!("{sentence}.")
}

/// The authentication schemes for apps (RFC 9110, section 11.6.1).
const CHALLENGE: &str = "Basic realm=\"collibra-auth-proxy\", charset=\"UTF-8\"";

/// Builds the response for `refusal`.
pub(super) fn answer(refusal: &Refusal) -> Answer {
    let mut text = refusal.text();
    let (status, reason) = (refusal.status(text.reason), text.reason.label());
    text.status_code = status.as_u16();
    let mut challenge = None;
    match refusal {
        Refusal::UnknownApp => challenge = Some(WWW_AUTHENTICATE.as_str()),
        Refusal::ProxyAuthentication => challenge = Some(PROXY_AUTHENTICATE.as_str()),
        Refusal::TokenRequest { error, by_header } => {
            let (code, description) = error.texts();
            text.error = Some(code);
            text.error_description = Some(description);
            let is_due = *by_header && *error == TokenRequestError::InvalidClient;
            challenge = is_due.then_some(WWW_AUTHENTICATE.as_str());
        }
        _ => {}
    }
    let mut answer = Answer::json(status, reason, &text);
    if let Some(seconds) = refusal.retry_after() {
        answer = answer.with(RETRY_AFTER.as_str(), seconds.to_string());
    }
    match challenge {
        Some(field) => answer.with(field, CHALLENGE.to_owned()),
        None => answer,
    }
}

/// The shape of an error in Collibra's REST API; the first two are for a refused request for a
/// token (RFC 6749, section 5.2).
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct ApiError<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<&'a str>,
    #[serde(rename = "error_description", skip_serializing_if = "Option::is_none")]
    error_description: Option<&'a str>,
    status_code: u16,
    error_code: &'static str,
    title_message: &'a str,
    user_message: Cow<'a, str>,
    help_message: Cow<'a, str>,
    #[serde(skip)]
    reason: Reason,
}

impl<'a> ApiError<'a> {
    fn new(
        reason: Reason,
        title_message: &'a str,
        user_message: impl Into<Cow<'a, str>>,
        help_message: impl Into<Cow<'a, str>>,
    ) -> ApiError<'a> {
        ApiError {
            error: None,
            error_description: None,
            status_code: 0,
            error_code: reason.label(),
            title_message,
            user_message: user_message.into(),
            help_message: help_message.into(),
            reason,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
        let text = String::from_utf8(answer(&Refusal::SlowHeader).raw()).unwrap();
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
    fn a_foreign_host_learns_which_line_to_write() {
        let refusal = |host: &str| Refusal::Host {
            host: host.to_owned(),
            listener: "gateway".to_owned(),
            accepted: vec!["localhost".to_owned(), "[::1]".to_owned()],
        };
        let refused = refusal("proxy");
        insta::assert_snapshot!(refused.text().help_message, @r#"Call it by a name that it accepts, or add this one: in [listener.gateway] of the configuration write hosts = ["localhost", "[::1]", "proxy"]. Without a configuration file, start it with --host localhost --host [::1] --host proxy."#);
        let long = refusal(&"a.".repeat(4096));
        insta::assert_snapshot!(long.text().help_message, @"Call it by one of these names: localhost, [::1].");
    }

    #[test]
    fn no_token_says_why_and_when_to_come_again() {
        let refusal = no_token();
        assert_eq!(refusal.retry_after(), Some(2), "whole seconds, rounded up");
        let text = String::from_utf8(answer(&refusal).raw()).unwrap();
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        assert!(head.contains("retry-after: 2\r\n"), "{head}");
        let body: serde_json::Value = serde_json::from_str(body).unwrap();
        assert_eq!(body["statusCode"], 503);
        assert_eq!(body["errorCode"], "no-token");
        assert_eq!(
            body["userMessage"],
            "The last token request failed: acme.collibra.com answered 429"
        );
        assert!(body["helpMessage"].is_string() && body["titleMessage"].is_string());
    }
}
