//! `/_simulator/…`: the control calls. They need no token, and no proxy forwards them.

use axum::body::Body;
use axum::response::IntoResponse;
use http::header::CONTENT_TYPE;
use http::{Request, StatusCode};
use serde::Deserialize;
use serde_json::{Value, json};

use super::reply::{self, Reply};
use super::world::World;
use super::{body, clock};

/// The prefix of every control path.
pub(super) const PREFIX: &str = "/_simulator/";

/// The description of the registration, management and token endpoints, for API tools.
const OPENAPI: &str = include_str!("openapi.json");

/// The body of `POST /_simulator/revoke`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Revoke {
    client: Option<String>,
}

/// Answers a control call.
pub(super) async fn answer(world: &World, request: Request<Body>) -> Reply {
    let (head, body) = request.into_parts();
    let name = head.uri.path().strip_prefix(PREFIX).unwrap_or_default();
    let done = match (head.method.as_str(), name) {
        ("GET", "state") => return reply::json(StatusCode::OK, world.state()),
        ("GET", "openapi.json") => {
            return ([(CONTENT_TYPE, "application/json")], OPENAPI).into_response();
        }
        ("POST", "revoke") => revoke(world, body).await,
        ("POST", "faults") => set_fault(world, body).await,
        ("POST", "reset") => {
            world.lock().reset();
            Ok(json!({ "ok": true }))
        }
        (_, "state" | "openapi.json" | "revoke" | "faults" | "reset") => Err((
            StatusCode::METHOD_NOT_ALLOWED,
            "state and openapi.json take GET, everything else POST".to_owned(),
        )),
        _ => Err((
            StatusCode::NOT_FOUND,
            "there are state, openapi.json, revoke, faults and reset".to_owned(),
        )),
    };
    match done {
        Ok(json) => reply::json(StatusCode::OK, json),
        Err((status, why)) => reply::json(status, json!({ "error": why })),
    }
}

/// The result of a call, or a status and what is wrong with the request.
type Done = Result<Value, (StatusCode, String)>;

async fn set_fault(world: &World, body: Body) -> Done {
    let unusable = |why: String| (StatusCode::BAD_REQUEST, why);
    let fault = body::json(body)
        .await
        .map_err(|e| unusable(e.to_string()))?;
    let (speed, now) = (world.config.speed, clock::read().steady);
    let set = world.lock().faults.set(fault, speed, now);
    set.map_err(|why| unusable(why.to_owned()))?;
    Ok(json!({ "ok": true }))
}

async fn revoke(world: &World, body: Body) -> Done {
    let asked = body::keep(body).await.and_then(|json| match &*json {
        b"" => Ok(Revoke { client: None }),
        json => Ok(serde_json::from_slice(json)?),
    });
    let Revoke { client } = asked.map_err(|e| (StatusCode::BAD_REQUEST, e.to_string()))?;
    let issuer = &mut world.lock().issuer;
    if client
        .as_ref()
        .is_some_and(|id| issuer.client(id).is_none())
    {
        return Err((StatusCode::NOT_FOUND, "there is no such client".to_owned()));
    }
    let revoked = issuer.revoke(client.as_deref(), clock::read().steady);
    Ok(json!({ "revoked": revoked }))
}
