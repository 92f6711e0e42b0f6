//! Answers token requests and session logins with a local token. An app that uses either only
//! changes its URL, and neither a password nor a token request reaches Collibra.

use std::time::Duration;

use http::header::{AUTHORIZATION, CONTENT_TYPE, SET_COOKIE};
use http::{Method, StatusCode};

use super::answer::Answer;
use super::caller::{Caller, CallerError};
use super::context::Context;
use super::identity::Identity;
use super::respond::Refusal;
use super::stop::Stop;
use crate::local_token::request::{self, Credentials, TokenRequestError, TokenResponse};
use crate::local_token::{Key, Subject, login};
use crate::policy::limit::Exceeded;
use crate::policy::reading::PathReadings;
use crate::policy::rules::{Sessions, session_call};
use crate::secret::Secret;

/// The lifetime of a local token.
const TOKEN_LIFE: Duration = Duration::from_secs(3_600);

/// How long a session lasts unless a logout ends it: as long as a query of Collibra's may run by
/// default. A response that has begun continues beyond it.
const SESSION_LIFE: Duration = Duration::from_secs(8 * 3_600);

/// The largest body in bytes: a name, a secret and little else.
const LARGEST_BODY: usize = 16 * 1024;

/// The timeout for reading the body.
const BODY_TIMEOUT: Duration = Duration::from_secs(10);

/// What a request asks for that is answered here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Endpoint {
    /// An access token (RFC 6749, section 4.4.2).
    Token,
    /// A session.
    OpenSession,
    /// The end of a session.
    EndSession,
}

impl Endpoint {
    /// The endpoint that a request addresses, if any.
    pub(super) fn of(
        method: &Method,
        paths: &PathReadings<'_>,
        token_path: &str,
        sessions: Sessions,
    ) -> Option<Endpoint> {
        let path = paths.likely().trim_end_matches('/');
        if *method == Method::POST && path.eq_ignore_ascii_case(token_path.trim_end_matches('/')) {
            return Some(Endpoint::Token);
        }
        if sessions != Sessions::Local {
            return None;
        }
        match (method.as_str(), session_call(path)?) {
            ("POST", "") => Some(Endpoint::OpenSession),
            ("DELETE", "" | "current") => Some(Endpoint::EndSession),
            _ => None,
        }
    }

    /// Its name in the response's header and the access log.
    pub(super) fn reason(self) -> &'static str {
        match self {
            Endpoint::Token => "local-token",
            Endpoint::OpenSession | Endpoint::EndSession => "local-session",
        }
    }
}

/// Answers the request of `caller`.
///
/// # Errors
/// [`Stop`], also if the caller was gone before its request was read.
pub(super) async fn answer(
    endpoint: Endpoint,
    caller: &mut Caller,
    context: &mut Context<'_>,
) -> Result<Answer, Stop> {
    let body = read_body(caller).await?;
    let body = body.ok_or(Refusal::Body(
        "It has more than 16 KiB, or took more than 10 s.",
    ))?;
    let headers = &caller.head().headers;
    let authorization = headers.get(AUTHORIZATION).map(|value| value.as_bytes());
    Ok(match endpoint {
        Endpoint::Token => {
            let content_type = headers.get(CONTENT_TYPE).map(|value| value.as_bytes());
            let asked = request::read(authorization, content_type, &body);
            let signed = asked.and_then(|shown| {
                let signed = sign(context, &shown, TOKEN_LIFE);
                signed.map_err(|unsigned| match unsigned {
                    None => TokenRequestError::InvalidClient,
                    Some(wait) => TokenRequestError::TooMany(wait),
                })
            });
            let by_header = authorization.is_some();
            let refusal = |error| Refusal::TokenRequest { error, by_header };
            let token = signed.map_err(refusal)?;
            let granted = TokenResponse {
                access_token: token.expose(),
                token_type: "Bearer",
                expires_in: TOKEN_LIFE.as_secs(),
            };
            Answer::json(StatusCode::OK, endpoint.reason(), &granted)
                .with("Pragma", "no-cache".to_owned())
        }
        Endpoint::OpenSession => {
            let shown = login::read(authorization, &body);
            let signed = sign(context, &shown, SESSION_LIFE);
            let token = signed.map_err(|unsigned| match unsigned {
                None => Refusal::UnknownApp,
                Some(wait) => Refusal::TokenLimit(wait),
            })?;
            let csrf_token = format!("{:032x}", crate::random::unique());
            let opened = login::SessionResponse {
                csrf_token: &csrf_token,
            };
            let over_tls = context.connection.peer.tls;
            let cookie = login::set_cookie(&token, SESSION_LIFE.as_secs(), over_tls);
            Answer::json(StatusCode::OK, endpoint.reason(), &opened)
                .with(SET_COOKIE.as_str(), cookie)
        }
        Endpoint::EndSession => {
            admit(context).map_err(Refusal::TokenLimit)?;
            context.callers().revoke(headers);
            Answer::empty(StatusCode::NO_CONTENT, endpoint.reason())
                .with(SET_COOKIE.as_str(), login::unset_cookie())
        }
    })
}

/// Issues a local token to the caller with these credentials.
///
/// # Errors
/// How long to wait if too many are requested; `None` if the credentials belong to no app.
fn sign(
    context: &mut Context<'_>,
    shown: &[Credentials],
    life: Duration,
) -> Result<Secret, Option<Duration>> {
    let is_known = identify(context, shown);
    admit(context).map_err(Some)?;
    if !is_known {
        return Err(None);
    }
    let of_shown = || {
        let nothing = Secret::from(String::new());
        Key::of(shown.first().map_or(&nothing, |shown| &shown.secret))
    };
    let nonce = u64::try_from(crate::random::unique() >> 64).unwrap_or_default();
    let expires = context.clock().wall() + life;
    let client = &context.client;
    let token = match &context.identity {
        Identity::App(app) => {
            // an app without a key is identified by its certificate or socket, whatever it sends
            let key = app.signing.clone().unwrap_or_else(of_shown);
            key.sign(Subject::App(app.name()), expires, nonce)
        }
        Identity::Owner => {
            let key = &client.own.signing;
            key.sign(Subject::Client(&client.name), expires, nonce)
        }
        Identity::Anyone => of_shown().sign(Subject::Anyone, expires, nonce),
    };
    context.app_metrics().local_token();
    Ok(token)
}

/// Draws on the limit of local tokens: an app's own, or that of all others.
///
/// # Errors
/// How long to wait.
fn admit(context: &Context<'_>) -> Result<(), Duration> {
    let now = context.clock().now();
    let admitted = match &context.identity {
        Identity::App(app) => app.tokens.admit(now),
        Identity::Anyone | Identity::Owner => context.connection.listening.strangers.admit(now),
    };
    match admitted {
        Ok(_) | Err(Exceeded::InFlight) => Ok(()),
        Err(Exceeded::Rate(wait)) => Err(wait),
    }
}

/// Identifies the caller by these credentials, unless it is identified already. Returns whether it
/// may have a token.
fn identify(context: &mut Context<'_>, shown: &[Credentials]) -> bool {
    if context.identity.app().is_some() {
        return true;
    }
    let callers = context.callers();
    if let Some(identity) = callers.by_pair(shown) {
        context.identified(identity);
        return true;
    }
    context.claimed_app = callers.claimed_by(shown);
    context.state.apps.is_empty()
}

/// Reads the request's body; `None` if it is too large or too slow.
async fn read_body(caller: &mut Caller) -> Result<Option<Vec<u8>>, CallerError> {
    let mut body = Vec::new();
    if !caller.has_body() {
        return Ok(Some(body));
    }
    if caller.expects_continue() {
        caller.write_continue().await?;
    }
    let reading = async {
        while let Some(part) = caller.read_body().await? {
            body.extend_from_slice(&part);
            if body.len() > LARGEST_BODY {
                break;
            }
        }
        Ok::<_, CallerError>(())
    };
    match tokio::time::timeout(BODY_TIMEOUT, reading).await {
        Ok(read) => read?,
        Err(_elapsed) => return Ok(None),
    }
    Ok((body.len() <= LARGEST_BODY).then_some(body))
}
