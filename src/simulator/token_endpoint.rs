//! `POST /rest/oauth/v2/token`: the client credentials grant (RFC 6749, section 4.4).
//!
//! It authenticates the client first, then checks the request. The pool comes last, so that only a
//! valid request takes a token.

use axum::body::Body;
use http::header::{ALLOW, CONTENT_TYPE, WWW_AUTHENTICATE};
use http::request::Parts;
use http::{HeaderMap, Method, Request, StatusCode};
use serde_json::{Map, Value};

use super::body;
use super::credentials::{Authorization, Pair};
use super::faults::{Change, Endpoint, Fault, Kind};
use super::form;
use super::outage::{self, Hit};
use super::random;
use super::reply::{self, Reply};
use super::wire::Line;
use super::world::World;

/// The endpoint's path.
pub(super) const PATH: &str = "/rest/oauth/v2/token";

/// Answers a token request.
pub(super) async fn answer(world: &World, line: &Line, request: Request<Body>) -> Reply {
    world.count_request(Endpoint::Token);
    let (head, body) = request.into_parts();
    let hit = |body| Hit {
        endpoint: Endpoint::Token,
        line,
        headers: &head.headers,
        body,
    };
    let fault = world.strike(Endpoint::Token);
    if let Some(Fault {
        kind: Kind::Instead(outage),
        draws: false,
    }) = &fault
    {
        // an outage does not depend on whether the request is valid
        return outage::carry_out(world, outage, hit(Some(body))).await;
    }
    let issued = process(world, &head, body).await;
    match (issued, fault.map(|fault| fault.kind)) {
        (Ok(_), Some(Kind::Instead(outage))) => outage::carry_out(world, &outage, hit(None)).await,
        (issued, Some(Kind::Upon(change))) => {
            // delayed, but the token's lifetime has started
            change.delay().await;
            issued.map_or_else(Refusal::into_reply, |token| {
                granted(world, &token, Some(&change))
            })
        }
        (issued, _) => {
            issued.map_or_else(Refusal::into_reply, |token| granted(world, &token, None))
        }
    }
}

async fn process(world: &World, head: &Parts, body: Body) -> Result<String, Refusal> {
    if head.method != Method::POST {
        return Err(Refusal::Method);
    }
    let body = body::keep(body)
        .await
        .map_err(|_| Refusal::Malformed("The body is too long."))?;
    let client = admit(world, &head.headers, &body)?;
    issue(world, &client)
}

/// Why a request is refused.
enum Refusal {
    Method,
    Malformed(&'static str),
    InvalidClient { by_header: bool },
    UnsupportedGrantType,
    UnauthorizedClient,
    InvalidScope,
    RateLimited { retry_after: Option<u64> },
}

impl Refusal {
    fn into_reply(self) -> Reply {
        let (status, code, description) = match self {
            Self::Method => (
                StatusCode::METHOD_NOT_ALLOWED,
                "invalid_request",
                "A token request must use POST.",
            ),
            Self::Malformed(why) => (StatusCode::BAD_REQUEST, "invalid_request", why),
            Self::InvalidClient { .. } => (
                StatusCode::UNAUTHORIZED,
                "invalid_client",
                "The client is unknown, or its secret is wrong.",
            ),
            Self::UnsupportedGrantType => (
                StatusCode::BAD_REQUEST,
                "unsupported_grant_type",
                "The only grant supported is client_credentials.",
            ),
            Self::UnauthorizedClient => (
                StatusCode::BAD_REQUEST,
                "unauthorized_client",
                "The client was not registered for this grant.",
            ),
            Self::InvalidScope => (
                StatusCode::BAD_REQUEST,
                "invalid_scope",
                "A client always has all of its scopes; omit the parameter.",
            ),
            Self::RateLimited { .. } => (
                StatusCode::TOO_MANY_REQUESTS,
                "too_many_requests",
                "The client's token pool is empty.",
            ),
        };
        let reply = reply::oauth_error(status, code, description);
        match self {
            Self::Method => reply::with_header(reply, ALLOW, "POST"),
            Self::InvalidClient { by_header: true } => {
                reply::with_header(reply, WWW_AUTHENTICATE, "Basic realm=\"Collibra\"")
            }
            Self::RateLimited { retry_after } => reply::retry_after(reply, retry_after),
            _ => reply,
        }
    }
}

/// Authenticates the client and validates its request.
fn admit(world: &World, headers: &HeaderMap, body: &[u8]) -> Result<String, Refusal> {
    if !is_form(headers) {
        return Err(Refusal::Malformed(
            "The body must be application/x-www-form-urlencoded.",
        ));
    }
    let form = Form::read(body)?;
    let (pair, by_header) = form.credentials(headers)?;
    let mut issuer = world.issuer();
    if !issuer.knows(&pair.id, &pair.secret) {
        issuer.count_refusal(&pair.id);
        return Err(Refusal::InvalidClient { by_header });
    }
    let asked = form.asks_for_a_token().and_then(|()| {
        let allowed = issuer.allows(&pair.id, "client_credentials");
        allowed.then_some(()).ok_or(Refusal::UnauthorizedClient)
    });
    if asked.is_err() {
        issuer.count_refusal(&pair.id);
    }
    asked.map(|()| pair.id)
}

fn is_form(headers: &HeaderMap) -> bool {
    let content_type = headers
        .get(CONTENT_TYPE)
        .and_then(|value| value.to_str().ok());
    let essence = content_type
        .and_then(|value| value.split(';').next())
        .unwrap_or_default();
    essence
        .trim()
        .eq_ignore_ascii_case("application/x-www-form-urlencoded")
}

/// The request's parameters; one without a value counts as missing (RFC 6749, section 3.2).
#[derive(Default)]
struct Form {
    grant_type: Option<String>,
    scope: Option<String>,
    client_id: Option<String>,
    client_secret: Option<String>,
}

impl Form {
    fn read(body: &[u8]) -> Result<Self, Refusal> {
        let malformed = |_| Refusal::Malformed("The form is not encoded correctly.");
        let mut form = Self::default();
        for (name, value) in form::pairs(body).map_err(malformed)? {
            let field = match name.as_str() {
                "grant_type" => &mut form.grant_type,
                "scope" => &mut form.scope,
                "client_id" => &mut form.client_id,
                "client_secret" => &mut form.client_secret,
                _ => continue,
            };
            if field.is_some() {
                return Err(Refusal::Malformed("A parameter is repeated."));
            }
            *field = Some(value).filter(|value| !value.is_empty());
        }
        Ok(form)
    }

    /// The credentials, and whether they came in the header (RFC 6749, section 2.3.1).
    fn credentials(&self, headers: &HeaderMap) -> Result<(Pair, bool), Refusal> {
        let of_the_form = (self.client_id.as_ref(), self.client_secret.as_ref());
        match (Authorization::of(headers), of_the_form) {
            (Authorization::Absent, (Some(id), Some(secret))) => Ok((
                Pair {
                    id: id.clone(),
                    secret: secret.clone(),
                },
                false,
            )),
            (Authorization::Absent, _) => Err(Refusal::InvalidClient { by_header: false }),
            (Authorization::Several, _) | (_, (_, Some(_))) => Err(Refusal::Malformed(
                "A client must authenticate in one way only.",
            )),
            (Authorization::Basic(encoded), (claimed, None)) => {
                let pair = Pair::from_client_secret_basic(&encoded);
                let pair = pair.ok_or(Refusal::InvalidClient { by_header: true })?;
                match claimed {
                    Some(claimed) if *claimed != pair.id => Err(Refusal::Malformed(
                        "Header and body name different clients.",
                    )),
                    _ => Ok((pair, true)),
                }
            }
            _ => Err(Refusal::InvalidClient { by_header: true }),
        }
    }

    fn asks_for_a_token(&self) -> Result<(), Refusal> {
        match (self.grant_type.as_deref(), &self.scope) {
            (None, _) => Err(Refusal::Malformed("The parameter grant_type is missing.")),
            (Some("client_credentials"), None) => Ok(()),
            (Some("client_credentials"), Some(_)) => Err(Refusal::InvalidScope),
            (Some(_), _) => Err(Refusal::UnsupportedGrantType),
        }
    }
}

fn issue(world: &World, client: &str) -> Result<String, Refusal> {
    let token = random::token();
    match world.issuer().issue(client, &token, world.now().steady) {
        Ok(true) => Ok(token),
        Ok(false) => Err(Refusal::InvalidClient { by_header: false }),
        Err(wait) => {
            let seconds = reply::whole_seconds(wait);
            Err(Refusal::RateLimited {
                retry_after: world.settings.retry_after.then_some(seconds),
            })
        }
    }
}

fn granted(world: &World, token: &str, change: Option<&Change>) -> Reply {
    let mut fields = Map::new();
    let mut add = |name: &str, value| fields.insert(name.to_owned(), value);
    add("access_token", Value::from(token));
    let token_type = match change {
        Some(Change::TokenType(word)) => word,
        _ => "Bearer",
    };
    add("token_type", Value::from(token_type));
    let expires_in = match change {
        Some(Change::ExpiresIn(value)) => value.clone(),
        _ => Some(Value::from(world.settings.expires_in)),
    };
    if let Some(expires_in) = expires_in {
        add("expires_in", expires_in);
    }
    reply::not_stored(reply::json(StatusCode::OK, fields))
}
