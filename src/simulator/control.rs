//! `/_simulator/…`: the control calls. They need no token, and no proxy forwards them.

use axum::body::Body;
use axum::response::IntoResponse;
use http::header::CONTENT_TYPE;
use http::{Request, StatusCode};
use serde::Deserialize;
use serde_json::json;

use super::body;
use super::faults::{Order, Refused};
use super::reply::{self, Reply};
use super::world::World;

/// The prefix of every control path.
pub(super) const PREFIX: &str = "/_simulator/";

/// The description of the registration, management and token endpoints, for API tools.
const OPENAPI: &str = include_str!("openapi.json");

/// The body of `POST /_simulator/revoke`.
#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Revoke {
    client: Option<String>,
}

/// Answers a control call.
pub(super) async fn answer(world: &World, request: Request<Body>) -> Reply {
    let (head, body) = request.into_parts();
    let name = head.uri.path().strip_prefix(PREFIX).unwrap_or_default();
    match (head.method.as_str(), name) {
        ("GET", "state") => reply::json(StatusCode::OK, world.state()),
        ("GET", "openapi.json") => ([(CONTENT_TYPE, "application/json")], OPENAPI).into_response(),
        ("POST", "revoke") => revoke(world, body).await,
        ("POST", "faults") => match set_fault(world, body).await {
            Ok(()) => reply::json(StatusCode::OK, json!({ "ok": true })),
            Err(refused) => refuse(StatusCode::BAD_REQUEST, &refused),
        },
        ("POST", "reset") => {
            world.reset();
            reply::json(StatusCode::OK, json!({ "ok": true }))
        }
        (_, "state" | "openapi.json" | "revoke" | "faults" | "reset") => refuse(
            StatusCode::METHOD_NOT_ALLOWED,
            &"state and openapi.json take GET, everything else POST",
        ),
        _ => refuse(
            StatusCode::NOT_FOUND,
            &"there are state, openapi.json, revoke, faults and reset",
        ),
    }
}

async fn set_fault(world: &World, body: Body) -> Result<(), Refused> {
    let order: Order = body::json(body).await?;
    world
        .faults()
        .set(order, world.settings.speed, world.now().steady)
}

async fn revoke(world: &World, body: Body) -> Reply {
    let asked = match body::keep(body).await {
        Ok(empty) if empty.is_empty() => Ok(Revoke::default()),
        Ok(json) => serde_json::from_slice(&json).map_err(body::Unusable::from),
        Err(error) => Err(error),
    };
    let Revoke { client } = match asked {
        Ok(asked) => asked,
        Err(error) => return refuse(StatusCode::BAD_REQUEST, &error),
    };
    let mut issuer = world.issuer();
    if let Some(client) = &client
        && issuer.client(client).is_none()
    {
        return refuse(StatusCode::NOT_FOUND, &"there is no such client");
    }
    let revoked = issuer.revoke(client.as_deref(), world.now().steady);
    reply::json(StatusCode::OK, json!({ "revoked": revoked }))
}

fn refuse(status: StatusCode, why: &impl std::fmt::Display) -> Reply {
    reply::json(status, json!({ "error": why.to_string() }))
}
