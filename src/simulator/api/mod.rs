//! Everything that requires a token: the REST API, GraphQL, and endpoints for tests of a proxy.
//!
//! A request is counted and its token checked. Then a fault may hit it. Only then is it answered.

mod echo;
mod graph;
mod probe;
mod registration;
mod resources;
mod session;
mod transfers;

use std::error::Error;
use std::sync::Arc;

use axum::body::Body;
use axum::extract::Query;
use axum::extract::rejection::QueryRejection;
use http::header::WWW_AUTHENTICATE;
use http::request::Parts;
use http::{Method, Request, StatusCode};
use serde::de::DeserializeOwned;

use super::body;
use super::credentials::Authorization;
use super::faults::{Endpoint, Kind};
use super::issuer::Standing;
use super::outage::{self, Hit};
use super::reply::{self, Reply};
use super::wire::Line;
use super::world::World;

/// One request to the API.
struct Call<'a> {
    world: &'a Arc<World>,
    line: &'a Line,
    head: Parts,
    body: Body,
}

impl Call<'_> {
    fn query<T: DeserializeOwned>(&self) -> Result<T, QueryRejection> {
        Query::try_from_uri(&self.head.uri).map(|Query(query)| query)
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
pub(super) async fn answer(world: &Arc<World>, line: &Line, request: Request<Body>) -> Reply {
    world.count_request(Endpoint::Api);
    let (head, body) = request.into_parts();
    let path = head.uri.path().to_owned();
    let segments: Vec<&str> = path.strip_prefix('/').unwrap_or(&path).split('/').collect();
    let client_id = registration::client_of(&segments);
    let refused = authorize(world, &head, client_id.is_some());
    if refused.is_some() {
        world.count_unauthorized();
    }
    let fault = world.strike(Endpoint::Api).map(|fault| fault.kind);
    match fault {
        Some(Kind::Instead(outage)) => {
            let hit = Hit {
                endpoint: Endpoint::Api,
                line,
                headers: &head.headers,
                body: Some(body),
            };
            return outage::carry_out(world, &outage, hit).await;
        }
        Some(Kind::Upon(change)) => change.delay().await,
        None => {}
    }
    let call = Call {
        world,
        line,
        head,
        body,
    };
    match (refused, client_id) {
        (Some(why), _) => unauthorized(call, why).await,
        (None, Some(client_id)) => registration::answer(call, client_id).await,
        (None, None) => route(call, &segments)
            .await
            .unwrap_or_else(Refused::into_reply),
    }
}

async fn route(call: Call<'_>, segments: &[&str]) -> Answer {
    use resources::Kind::{Asset, Community, Domain};
    let method = call.method().to_owned();
    match (method.as_str(), segments) {
        ("GET", ["rest", "2.0", "application", "info"]) => Ok(session::application(&call)),
        ("GET", ["rest", "2.0", "users", "current"]) => Ok(session::user()),
        (_, ["rest", "2.0", "auth", "sessions", rest @ ..]) => {
            Ok(session::answer(call, rest).await)
        }
        (_, ["rest", "2.0", "assets", rest @ ..]) => resources::answer(call, Asset, rest).await,
        (_, ["rest", "2.0", "domains", rest @ ..]) => resources::answer(call, Domain, rest).await,
        (_, ["rest", "2.0", "communities", rest @ ..]) => {
            resources::answer(call, Community, rest).await
        }
        ("POST", ["rest", "2.0", "search"]) => resources::search(call).await,
        (_, ["rest", "2.0", "files", rest @ ..]) => transfers::files(call, rest).await,
        (_, ["rest", "2.0", "jobs", rest @ ..]) => transfers::jobs(call, rest).await,
        ("POST", ["rest", "2.0", "import", kind]) if kind.ends_with("-job") => {
            transfers::import(call, kind).await
        }
        ("POST", ["rest", "2.0", "outputModule", "export", format]) => {
            transfers::export(call, format).await
        }
        ("GET", ["rest", "catalog", "1.0", ..]) => Ok(graph::catalog(&call)),
        ("POST", ["graphql"]) => Ok(graph::query(call).await),
        ("POST", ["graphql", "knowledgeGraph", "v1"]) => Ok(graph::query(call).await),
        ("GET", ["_bytes", length]) => probe::send(&call, length),
        ("POST", ["_bytes"]) => Ok(probe::receive(call).await),
        ("GET", ["_sleep", millis]) => probe::sleep(millis).await,
        (_, ["_status", code]) => probe::status(call, code).await,
        _ => Ok(echo::answer(call).await),
    }
}

/// Why a request is not authorized.
struct Unauthorized {
    code: &'static str,
    message: &'static str,
}

/// Checks the caller's credentials; `None` if they are accepted.
fn authorize(world: &World, head: &Parts, by_password_too: bool) -> Option<Unauthorized> {
    let refused = |code, message| Some(Unauthorized { code, message });
    match Authorization::of(&head.headers) {
        Authorization::Bearer(token) => match world.issuer().standing(&token, world.now().steady) {
            Standing::Live => None,
            Standing::Ended => refused("expiredToken", "The access token has expired."),
            Standing::Unknown => refused("invalidToken", "The access token is not known."),
        },
        Authorization::Basic(encoded) if by_password_too && registration::is_admin(&encoded) => {
            None
        }
        Authorization::Absent => refused("missingToken", "The access token is missing."),
        Authorization::Several => refused("severalTokens", "There are several access tokens."),
        _ => refused("notBearer", "A Bearer access token is required."),
    }
}

/// Refuses a request; reads its body first unless the client waits for a 100 (RFC 9110, section
/// 10.1.1).
async fn unauthorized(call: Call<'_>, why: Unauthorized) -> Reply {
    let waits = call.header("expect").is_some();
    if !waits && call.head.method != Method::GET {
        body::drain(call.body).await;
    }
    let reply = reply::api_error(StatusCode::UNAUTHORIZED, why.code, why.message);
    let challenge = match why.code {
        "missingToken" => "Bearer realm=\"Collibra\"",
        _ => "Bearer realm=\"Collibra\", error=\"invalid_token\"",
    };
    reply::with_header(reply, WWW_AUTHENTICATE, challenge)
}

/// A response, or why there is none.
type Answer = Result<Reply, Refused>;

/// Why a request cannot be answered.
enum Refused {
    /// A query or a body is unusable.
    Unusable(String),
    /// There is no such thing.
    Missing(&'static str),
}

impl<E: Error> From<E> for Refused {
    fn from(why: E) -> Self {
        Self::Unusable(why.to_string())
    }
}

impl Refused {
    fn unusable(why: &str) -> Self {
        Self::Unusable(why.to_owned())
    }

    fn into_reply(self) -> Reply {
        match self {
            Self::Unusable(why) => {
                reply::api_error(StatusCode::BAD_REQUEST, "invalidRequest", &why)
            }
            Self::Missing(what) => {
                let message = format!("There is no {what} with this identifier.");
                reply::api_error(StatusCode::NOT_FOUND, "notFound", &message)
            }
        }
    }
}
