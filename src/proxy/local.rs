//! Answers token requests and session logins with a local token. An app that uses either only
//! changes its URL, and neither a password nor a token request reaches Collibra.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use http::header::{AUTHORIZATION, CONTENT_TYPE, RETRY_AFTER, SET_COOKIE, WWW_AUTHENTICATE};
use http::{Method, StatusCode};
use serde::Serialize;

use super::answer::Answer;
use super::caller::{Caller as Connection, CallerError};
use super::context::Context;
use super::identify::{Caller, Known, by_pair, claimed_by};
use super::limit::Exceeded;
use super::listener::Listening;
use super::policy::{PathReadings, Sessions, session_call};
use super::respond::{ApiError, Refusal};
use crate::local_token::request::{self, Credentials, TokenRequestError, TokenResponse};
use crate::local_token::{Key, Subject, login};
use crate::secret::Secret;
use crate::telemetry::Label;

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

/// Answers the request.
///
/// # Errors
/// If the caller is gone before its request was read.
pub(super) async fn answer(
    endpoint: Endpoint,
    connection: &mut Connection,
    context: &mut Context,
    listening: &Listening,
) -> Result<Result<Answer, Refusal>, CallerError> {
    let clock = &*listening.clock;
    let Some(body) = read_body(connection).await? else {
        return Ok(Err(Refusal::Body(
            "It has more than 16 KiB, or took more than 10 s.",
        )));
    };
    let headers = &connection.head().headers;
    let authorization = headers.get(AUTHORIZATION).map(|value| value.as_bytes());
    Ok(match endpoint {
        Endpoint::Token => {
            let content_type = headers.get(CONTENT_TYPE).map(|value| value.as_bytes());
            let asked = request::read(authorization, content_type, &body);
            let by_header = authorization.is_some();
            Ok(asked
                .and_then(|shown| {
                    let signed = sign(context, &shown, TOKEN_LIFE, listening);
                    signed.map_err(|unsigned| match unsigned {
                        Unsigned::Unknown => TokenRequestError::InvalidClient,
                        Unsigned::TooMany(wait) => TokenRequestError::TooMany(wait),
                    })
                })
                .map_or_else(|refused| refusal(context, refused, by_header), granted))
        }
        Endpoint::OpenSession => {
            let shown = login::read(authorization, &body);
            let over_tls = context.over_tls;
            match sign(context, &shown, SESSION_LIFE, listening) {
                Ok(token) => Ok(opened(&token, over_tls)),
                Err(Unsigned::Unknown) => Err(Refusal::UnknownApp),
                Err(Unsigned::TooMany(wait)) => Err(Refusal::TokenLimit(wait)),
            }
        }
        Endpoint::EndSession => {
            if let Err(wait) = admit(context, listening) {
                return Ok(Err(Refusal::TokenLimit(wait)));
            }
            let state = &context.state;
            let known = Known {
                apps: &state.apps,
                client: &context.client,
                revoked: &state.revoked,
                now: clock.wall(),
            };
            known.revoke(headers);
            let ended = Answer::empty(StatusCode::NO_CONTENT, endpoint.reason());
            Ok(ended.with(SET_COOKIE.as_str(), login::unset_cookie()))
        }
    })
}

/// Why there is no local token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Unsigned {
    /// The credentials belong to no app.
    Unknown,
    /// Too many were asked for; the next one is due after this.
    TooMany(Duration),
}

/// Issues a local token to the caller with these credentials.
fn sign(
    context: &mut Context,
    shown: &[Credentials],
    life: Duration,
    listening: &Listening,
) -> Result<Secret, Unsigned> {
    let known = identify(context, shown);
    admit(context, listening).map_err(Unsigned::TooMany)?;
    known
        .then(|| signed(context, shown, listening.clock.wall() + life))
        .ok_or(Unsigned::Unknown)
}

/// Draws on the limit of local tokens: an app's own, or that of all others. Gives how long to wait.
fn admit(context: &Context, listening: &Listening) -> Result<(), Duration> {
    let now = listening.clock.now();
    let admitted = match &context.caller {
        Caller::App(app) => app.admit_token(now),
        Caller::Anyone | Caller::Owner => listening.strangers.admit(now),
    };
    match admitted {
        Ok(_) | Err(Exceeded::InFlight) => Ok(()),
        Err(Exceeded::Rate(wait)) => Err(wait),
    }
}

/// Settles who showed these credentials, unless that is settled. Gives whether a token is theirs.
fn identify(context: &mut Context, shown: &[Credentials]) -> bool {
    if matches!(context.caller, Caller::App(_)) {
        return true;
    }
    let state = Arc::clone(&context.state);
    if let Some(caller) = by_pair(&state.apps, &context.client, shown) {
        context.comes_from(caller);
        return true;
    }
    context.claimed_app = claimed_by(&state.apps, shown);
    state.apps.is_empty()
}

/// A local token for the caller of the request.
fn signed(context: &Context, shown: &[Credentials], expires: SystemTime) -> Secret {
    let of_shown = || {
        let nothing = Secret::from(String::new());
        Key::of(shown.first().map_or(&nothing, |shown| &shown.secret))
    };
    let nonce = u64::try_from(crate::random::unique() >> 64).unwrap_or_default();
    let token = match &context.caller {
        Caller::App(app) => {
            // an app without a key is identified by its certificate or socket, whatever it sends
            let key = app.signing().cloned().unwrap_or_else(of_shown);
            key.sign(Subject::App(app.name()), expires, nonce)
        }
        Caller::Owner => {
            let client = &context.client;
            client
                .own
                .signing
                .sign(Subject::Client(&client.name), expires, nonce)
        }
        Caller::Anyone => of_shown().sign(Subject::Anyone, expires, nonce),
    };
    context.app_metrics().local_token();
    token
}

fn granted(token: Secret) -> Answer {
    let granted = TokenResponse {
        access_token: token.expose(),
        token_type: "Bearer",
        expires_in: TOKEN_LIFE.as_secs(),
    };
    Answer::json(StatusCode::OK, Endpoint::Token.reason(), &granted)
        .with("Pragma", "no-cache".to_owned())
}

fn opened(token: &Secret, over_tls: bool) -> Answer {
    let csrf_token = format!("{:032x}", crate::random::unique());
    let opened = login::SessionResponse {
        csrf_token: &csrf_token,
    };
    let cookie = login::set_cookie(token, SESSION_LIFE.as_secs(), over_tls);
    Answer::json(StatusCode::OK, Endpoint::OpenSession.reason(), &opened)
        .with(SET_COOKIE.as_str(), cookie)
}

/// The response to a refused token request, in the format of RFC 6749 and in Collibra's.
/// `by_header` says whether its credentials came in a header.
fn refusal(context: &mut Context, refused: TokenRequestError, by_header: bool) -> Answer {
    #[derive(Serialize)]
    struct Body<'a> {
        error: &'a str,
        error_description: &'a str,
        #[serde(flatten)]
        api: ApiError<'a>,
    }

    let (error, error_description) = refused.texts();
    let refusal = match refused {
        TokenRequestError::InvalidClient => Refusal::UnknownApp,
        TokenRequestError::TooMany(wait) => Refusal::TokenLimit(wait),
        _ => Refusal::Body(error_description),
    };
    let body = Body {
        error,
        error_description,
        api: ApiError {
            status_code: refusal.status().as_u16(),
            error_code: refusal.reason().label(),
            title_message: "No token is given",
            user_message: error_description,
            help_message: "Ask as for a token of Collibra's, with an app's name and key.",
        },
    };
    let mut answer = Answer::json(refusal.status(), refusal.reason().label(), &body);
    if let Some(seconds) = refusal.retry_after() {
        answer = answer.with(RETRY_AFTER.as_str(), seconds.to_string());
    }
    let app = context.app().map_or("", |app| app);
    context.state.metrics.refused(refusal.reason(), app);
    context.refusal = Some(refusal);
    if by_header && refused == TokenRequestError::InvalidClient {
        let challenge = super::respond::CHALLENGE.to_owned();
        answer.with(WWW_AUTHENTICATE.as_str(), challenge)
    } else {
        answer
    }
}

/// Reads the request's body; `None` if it is too large or too slow.
async fn read_body(connection: &mut Connection) -> Result<Option<Vec<u8>>, CallerError> {
    let mut body = Vec::new();
    if !connection.has_body() {
        return Ok(Some(body));
    }
    if connection.expects_continue() {
        connection.write_continue().await?;
    }
    let reading = async {
        while let Some(part) = connection.read_body().await? {
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
