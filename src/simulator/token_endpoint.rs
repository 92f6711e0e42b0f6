//! `POST /rest/oauth/v2/token`: the client credentials grant (RFC 6749, section 4.4).
//!
//! It authenticates the client first, then checks the request. The pool comes last, so that only a
//! valid request takes a token.

use std::collections::HashMap;

use axum::body::Body;
use http::header::{ALLOW, CONTENT_TYPE, RETRY_AFTER, WWW_AUTHENTICATE};
use http::request::Parts;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, StatusCode};
use serde_json::json;

use super::credentials::{Authorization, Pair};
use super::faults::{Endpoint, Kind};
use super::issuer::Client;
use super::reply::{self, Reply};
use super::world::World;
use super::{body, clock, form, outage, random};

/// The endpoint's path.
pub(super) const PATH: &str = "/rest/oauth/v2/token";

/// Answers a token request.
pub(super) async fn answer(world: &World, request: Request<Body>) -> Reply {
    let (head, body) = request.into_parts();
    let fault = {
        let mut model = world.lock();
        model.counts.token_requests += 1;
        model.strike(Endpoint::Token)
    };
    let outage = fault.as_ref().filter(|fault| fault.replaces());
    if let Some(outage) = outage.filter(|outage| !outage.draws) {
        // an outage does not depend on whether the request is valid
        return outage::carry_out(world, outage, &head, Some(body)).await;
    }
    let issued = process(world, &head, body).await;
    if let (Some(outage), Ok(_)) = (outage, &issued) {
        return outage::carry_out(world, outage, &head, None).await;
    }
    if let Some(fault) = &fault {
        // delayed, but the token's lifetime has started
        fault.delay().await;
    }
    match issued {
        Ok(token) => granted(world, &token, fault.map(|fault| fault.kind)),
        Err(refusal) => refusal.into_reply(),
    }
}

/// Why a request is refused (RFC 6749, section 5.2).
struct Refusal {
    status: StatusCode,
    code: &'static str,
    description: &'static str,
    header: Option<(HeaderName, String)>,
}

impl Refusal {
    fn new(status: StatusCode, code: &'static str, description: &'static str) -> Self {
        Self {
            status,
            code,
            description,
            header: None,
        }
    }

    fn malformed(description: &'static str) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "invalid_request", description)
    }

    fn invalid_client(by_header: bool) -> Self {
        let challenge = "Basic realm=\"Collibra\"".to_owned();
        let description = "The client is unknown, or its secret is wrong.";
        Self {
            header: by_header.then_some((WWW_AUTHENTICATE, challenge)),
            ..Self::new(StatusCode::UNAUTHORIZED, "invalid_client", description)
        }
    }

    fn into_reply(self) -> Reply {
        let reply = reply::oauth_error(self.status, self.code, self.description);
        match self.header {
            Some((name, value)) => reply::with_header(reply, name, &value),
            None => reply,
        }
    }
}

/// Authenticates the client, validates its request and issues a token.
async fn process(world: &World, head: &Parts, body: Body) -> Result<String, Refusal> {
    if head.method != Method::POST {
        let description = "A token request must use POST.";
        return Err(Refusal {
            status: StatusCode::METHOD_NOT_ALLOWED,
            header: Some((ALLOW, "POST".to_owned())),
            ..Refusal::malformed(description)
        });
    }
    let body = body::keep(body).await;
    let body = body.map_err(|_| Refusal::malformed("The body is too long."))?;
    if !is_form(&head.headers) {
        return Err(Refusal::malformed(
            "The body must be application/x-www-form-urlencoded.",
        ));
    }
    let form = parameters(&body)?;
    let (pair, by_header) = credentials(&form, &head.headers)?;
    let issuer = &mut world.lock().issuer;
    let admitted = match issuer.client(&pair.id) {
        Some(client) if client.secret == pair.secret => admit(client, &form),
        _ => Err(Refusal::invalid_client(by_header)),
    };
    if let Err(refusal) = admitted {
        issuer.count_refusal(&pair.id);
        return Err(refusal);
    }
    let token = random::token();
    let issued = issuer.issue(&pair.id, &token, clock::read().steady);
    issued.map_err(|wait| {
        let seconds = reply::whole_seconds(wait).to_string();
        let description = "The client's token pool is empty.";
        let status = StatusCode::TOO_MANY_REQUESTS;
        Refusal {
            header: (world.config.retry_after).then_some((RETRY_AFTER, seconds)),
            ..Refusal::new(status, "too_many_requests", description)
        }
    })?;
    Ok(token)
}

fn is_form(headers: &HeaderMap) -> bool {
    let content_type = headers.get(CONTENT_TYPE).map(HeaderValue::as_bytes);
    let essence = content_type.and_then(|value| value.split(|byte| *byte == b';').next());
    let form = b"application/x-www-form-urlencoded";
    essence.is_some_and(|essence| essence.trim_ascii().eq_ignore_ascii_case(form))
}

/// The request's parameters, by name.
type Form = HashMap<String, String>;

/// The parameters that mean something; all others are ignored (RFC 6749, section 3.2).
const PARAMETERS: [&str; 4] = ["grant_type", "scope", "client_id", "client_secret"];

/// Reads the parameters; one without a value counts as missing (RFC 6749, section 3.2).
fn parameters(body: &[u8]) -> Result<Form, Refusal> {
    let malformed = |_| Refusal::malformed("The form is not encoded correctly.");
    let mut form = Form::new();
    for (name, value) in form::pairs(body).map_err(malformed)? {
        if PARAMETERS.contains(&&*name) && form.insert(name, value).is_some() {
            return Err(Refusal::malformed("A parameter is repeated."));
        }
    }
    form.retain(|_, value| !value.is_empty());
    Ok(form)
}

/// The credentials, and whether they came in the header (RFC 6749, section 2.3.1).
fn credentials(form: &Form, headers: &HeaderMap) -> Result<(Pair, bool), Refusal> {
    let [id, secret] = ["client_id", "client_secret"].map(|name| form.get(name).cloned());
    match (Authorization::of(headers), id, secret) {
        (Authorization::Absent, Some(id), Some(secret)) => Ok((Pair { id, secret }, false)),
        (Authorization::Absent, ..) => Err(Refusal::invalid_client(false)),
        (Authorization::Several, ..) | (.., Some(_)) => Err(Refusal::malformed(
            "A client must authenticate in one way only.",
        )),
        (Authorization::Basic(encoded), claimed, None) => {
            let pair = Pair::from_client_secret_basic(&encoded);
            let pair = pair.ok_or_else(|| Refusal::invalid_client(true))?;
            if claimed.is_some_and(|claimed| claimed != pair.id) {
                return Err(Refusal::malformed(
                    "Header and body name different clients.",
                ));
            }
            Ok((pair, true))
        }
        _ => Err(Refusal::invalid_client(true)),
    }
}

/// Checks that an authenticated client asks for a token that it may have.
fn admit(client: &Client, form: &Form) -> Result<(), Refusal> {
    let (code, description) = match form.get("grant_type").map(String::as_str) {
        None => ("invalid_request", "The parameter grant_type is missing."),
        Some("client_credentials") if form.contains_key("scope") => (
            "invalid_scope",
            "A client always has all of its scopes; omit the parameter.",
        ),
        Some(grant @ "client_credentials") => {
            if client.grant_types.iter().any(|granted| granted == grant) {
                return Ok(());
            }
            (
                "unauthorized_client",
                "The client was not registered for this grant.",
            )
        }
        Some(_) => (
            "unsupported_grant_type",
            "The only grant supported is client_credentials.",
        ),
    };
    Err(Refusal::new(StatusCode::BAD_REQUEST, code, description))
}

fn granted(world: &World, token: &str, fault: Option<Kind>) -> Reply {
    let mut granted = json!({
        "access_token": token,
        "token_type": "Bearer",
        "expires_in": world.config.lifetime.as_secs(),
    });
    match fault {
        Some(Kind::TokenType(word)) => granted["token_type"] = word.into(),
        Some(Kind::ExpiresIn(Some(value))) => granted["expires_in"] = value,
        Some(Kind::ExpiresIn(None)) => {
            granted
                .as_object_mut()
                .map(|fields| fields.remove("expires_in"));
        }
        _ => {}
    }
    reply::not_stored(reply::json(StatusCode::OK, granted))
}
