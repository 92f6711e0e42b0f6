//! Everything that requires a token: the REST API, GraphQL, and endpoints for tests of a proxy.
//!
//! A request is counted and its token checked. Then a fault may hit it. Only then is it answered.

mod entries;
mod probe;
mod queries;
mod registration;
mod session;
mod transfers;

use std::fmt::Display;

use axum::body::Body;
use axum::extract::Query;
use http::header::WWW_AUTHENTICATE;
use http::request::Parts;
use http::{Method, Request, StatusCode};
use serde::de::DeserializeOwned;

use super::catalogue::Kind;
use super::credentials::Authorization;
use super::faults::Endpoint;
use super::issuer::Standing;
use super::reply::{self, Reply};
use super::world::World;
use super::{body, clock, outage};

/// One request to the API.
struct Call<'a> {
    world: &'a World,
    head: Parts,
    body: Body,
}

impl Call<'_> {
    fn query<T: DeserializeOwned>(&self) -> Result<T, Box<Reply>> {
        let query = Query::try_from_uri(&self.head.uri).map_err(unusable);
        query.map(|Query(query)| query)
    }

    fn header(&self, name: &str) -> Option<&str> {
        self.head.headers.get(name)?.to_str().ok()
    }

    /// The effective method: HEAD is answered as GET, and POST may stand for another.
    fn method(&self) -> &str {
        let overridden = self.header("x-http-method-override");
        match (self.head.method.as_str(), overridden) {
            ("POST", Some(meant @ ("PATCH" | "PUT" | "DELETE"))) => meant,
            ("HEAD", _) => "GET",
            (method, _) => method,
        }
    }
}

/// Answers a request to the API.
pub(super) async fn answer(world: &World, request: Request<Body>) -> Reply {
    let (head, body) = request.into_parts();
    let path = head.uri.path().to_owned();
    let segments: Vec<&str> = path.split('/').skip(1).collect();
    let client_id = registration::client_of(&segments);
    let authorized = authorize(world, &head, client_id.is_some());
    let fault = {
        let mut model = world.lock();
        model.counts.requests += 1;
        model.counts.unauthorized += u64::from(authorized.is_err());
        model.strike(Endpoint::Api)
    };
    match fault {
        Some(fault) if fault.replaces() => {
            return outage::carry_out(world, &fault, &head, Some(body)).await;
        }
        Some(fault) => fault.delay().await,
        None => {}
    }
    let call = Call { world, head, body };
    let answered = match (authorized, client_id) {
        (Err(why), _) => Ok(unauthorized(call, why).await),
        (Ok(()), Some(client_id)) => registration::answer(call, client_id).await,
        (Ok(()), None) => route(call, &segments).await,
    };
    answered.unwrap_or_else(|refused| *refused)
}

async fn route(call: Call<'_>, segments: &[&str]) -> Answer {
    use Kind::{Asset, Community, Domain, File, Job};
    match (call.method(), segments) {
        ("GET", ["rest", "2.0", "application", "info"]) => Ok(session::application(&call)),
        ("GET", ["rest", "2.0", "users", "current"]) => Ok(session::user()),
        (_, ["rest", "2.0", "auth", "sessions", rest @ ..]) => session::answer(call, rest).await,
        (_, ["rest", "2.0", "assets", rest @ ..]) => entries::answer(call, Asset, rest).await,
        (_, ["rest", "2.0", "domains", rest @ ..]) => entries::answer(call, Domain, rest).await,
        (_, ["rest", "2.0", "communities", rest @ ..]) => {
            entries::answer(call, Community, rest).await
        }
        (_, ["rest", "2.0", "files", rest @ ..]) => entries::answer(call, File, rest).await,
        (_, ["rest", "2.0", "jobs", rest @ ..]) => entries::answer(call, Job, rest).await,
        ("POST", ["rest", "2.0", "search"]) => queries::search(call).await,
        ("POST", ["rest", "2.0", "import", kind]) if kind.ends_with("-job") => {
            transfers::import(call, kind).await
        }
        ("POST", ["rest", "2.0", "outputModule", "export", format]) => {
            transfers::export(call, format).await
        }
        ("GET", ["rest", "catalog", "1.0", ..]) => Ok(queries::catalog(&call)),
        ("POST", ["graphql"] | ["graphql", "knowledgeGraph", "v1"]) => queries::graphql(call).await,
        ("GET", ["_bytes", length]) => probe::send(&call, length),
        ("POST", ["_bytes"]) => Ok(probe::receive(call).await),
        ("GET", ["_sleep", millis]) => probe::sleep(millis).await,
        (_, ["_status", code]) => probe::status(call, code).await,
        _ => Ok(probe::echo(call).await),
    }
}

/// Why a request is not authorized: a code and a message.
type Unauthorized = (&'static str, &'static str);

/// Checks the caller's credentials.
fn authorize(world: &World, head: &Parts, by_password_too: bool) -> Result<(), Unauthorized> {
    match Authorization::of(&head.headers) {
        Authorization::Bearer(token) => {
            let now = clock::read().steady;
            match world.lock().issuer.standing(&token, now) {
                Standing::Live => Ok(()),
                Standing::Ended => Err(("expiredToken", "The access token has expired.")),
                Standing::Unknown => Err(("invalidToken", "The access token is not known.")),
            }
        }
        Authorization::Basic(encoded) if by_password_too && registration::is_admin(&encoded) => {
            Ok(())
        }
        Authorization::Absent => Err(("missingToken", "The access token is missing.")),
        Authorization::Several => Err(("severalTokens", "There are several access tokens.")),
        _ => Err(("notBearer", "A Bearer access token is required.")),
    }
}

/// Refuses a request; reads its body first unless the client waits for a 100 (RFC 9110, section
/// 10.1.1).
async fn unauthorized(call: Call<'_>, (code, message): Unauthorized) -> Reply {
    let waits = call.header("expect").is_some();
    if !waits && call.head.method != Method::GET {
        body::drain(call.body).await;
    }
    let reply = reply::api_error(StatusCode::UNAUTHORIZED, code, message);
    let challenge = match code {
        "missingToken" => "Bearer realm=\"Collibra\"",
        _ => "Bearer realm=\"Collibra\", error=\"invalid_token\"",
    };
    reply::with_header(reply, WWW_AUTHENTICATE, challenge)
}

/// A response, or a refusal.
type Answer = Result<Reply, Box<Reply>>;

/// The refusal of a request whose query or body is unusable.
fn unusable(why: impl Display) -> Box<Reply> {
    let (status, why) = (StatusCode::BAD_REQUEST, why.to_string());
    Box::new(reply::api_error(status, "invalidRequest", &why))
}

/// The refusal of a request for something that does not exist.
fn missing(kind: Kind) -> Box<Reply> {
    let message = format!("There is no {kind:?} with this identifier.");
    Box::new(reply::api_error(
        StatusCode::NOT_FOUND,
        "notFound",
        &message,
    ))
}
