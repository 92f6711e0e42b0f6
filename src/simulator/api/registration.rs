//! Registration and management of clients, under `/rest/auth/v1` and `/rest/auth/v1/platform` (RFC
//! 7591, and RFC 7592 in part).
//!
//! Callers need a valid token, or the only user's credentials: `admin`, password `admin`.
//! `openapi.json` describes requests and responses.

use axum::body::Body;
use axum::response::IntoResponse;
use http::StatusCode;
use http::header::{ALLOW, WWW_AUTHENTICATE};
use serde::Deserialize;
use serde_json::{Value, json};

use super::{Call, body};
use crate::simulator::credentials::Pair;
use crate::simulator::form;
use crate::simulator::issuer::{Client, Issuer};
use crate::simulator::random;
use crate::simulator::reply::{self, Reply};
use crate::simulator::world::World;

/// The prefix of client ids: the simulated environment.
const ENVIRONMENT: &str = "urn:sys:env:2eeadf60-1a11-5170-7e57-000000000000";

const TAKEN: &str = "Another client has this name.";

/// The attributes of a client that a caller may set; unknown ones are ignored (RFC 7591, section
/// 2).
#[derive(Deserialize)]
struct Writeable {
    client_name: Option<String>,
    #[serde(default, deserialize_with = "not_null")]
    grant_types: Option<Vec<String>>,
    /// Unused, but it must be a string.
    #[serde(default, deserialize_with = "not_null")]
    #[serde(rename = "software_id")]
    _software_id: Option<String>,
}

/// Rejects null, which the documents do not allow.
fn not_null<'de, T, D>(deserializer: D) -> Result<Option<T>, D::Error>
where
    T: Deserialize<'de>,
    D: serde::Deserializer<'de>,
{
    T::deserialize(deserializer).map(Some)
}

/// The segment that names a client, if the path is one of these; empty for all clients.
pub(super) fn client_of<'a>(segments: &[&'a str]) -> Option<&'a str> {
    let rest = segments.strip_prefix(&["rest", "auth", "v1"])?;
    match rest.strip_prefix(&["platform"]).unwrap_or(rest) {
        ["clients"] => Some(""),
        ["clients", client] => Some(client),
        _ => None,
    }
}

/// Returns whether Basic credentials are the administrator's.
pub(super) fn is_admin(encoded: &str) -> bool {
    Pair::from_user_password(encoded)
        .is_some_and(|pair| pair.id == "admin" && pair.secret == "admin")
}

/// Answers a call to `/clients` or `/clients/{client_id}`.
pub(super) async fn answer(call: Call<'_>, client: &str) -> Reply {
    let Ok(id) = form::decode_segment(client) else {
        return unknown_client();
    };
    match (call.method(), id.as_str()) {
        ("GET", "") => list(call.world),
        ("POST", "") => register(call).await.unwrap_or_else(|refused| refused),
        ("GET", id) => match call.world.issuer().client(id) {
            Some(client) => reply::json(StatusCode::OK, told(id, client)),
            None => unknown_client(),
        },
        ("PUT", id) if !id.is_empty() => update(call, id).await.unwrap_or_else(|refused| refused),
        ("DELETE", id) if !id.is_empty() => {
            match call.world.issuer().remove(id, call.world.now().steady) {
                true => StatusCode::NO_CONTENT.into_response(),
                false => unknown_client(),
            }
        }
        (_, id) => {
            let refused = reply::api_error(
                StatusCode::METHOD_NOT_ALLOWED,
                "methodNotAllowed",
                "This method has no meaning here.",
            );
            let allowed = if id.is_empty() {
                "GET, HEAD, POST"
            } else {
                "GET, HEAD, PUT, DELETE"
            };
            reply::with_header(refused, ALLOW, allowed)
        }
    }
}

fn list(world: &World) -> Reply {
    let issuer = world.issuer();
    let all: Vec<Value> = issuer
        .clients()
        .map(|(id, client)| told(id, client))
        .collect();
    reply::json(StatusCode::OK, json!({ "registrations": all }))
}

async fn register(call: Call<'_>) -> Result<Reply, Reply> {
    let world = call.world;
    let (id, secret) = (new_id(), random::secret());
    let (name, grant_types) = read(call.body).await?;
    let mut issuer = world.issuer();
    if is_taken(&issuer, &name, &id) {
        return Err(invalid(TAKEN));
    }
    issuer.add(id.clone(), secret.clone(), name, world.now());
    let client = issuer.client_mut(&id).ok_or_else(unknown_client)?;
    client.grant_types = grant_types.unwrap_or(client.grant_types.clone());
    let mut told = told(&id, client);
    told["client_secret"] = Value::from(secret);
    Ok(reply::not_stored(reply::json(StatusCode::CREATED, told)))
}

async fn update(call: Call<'_>, id: &str) -> Result<Reply, Reply> {
    let world = call.world;
    let (name, grant_types) = read(call.body).await?;
    let mut issuer = world.issuer();
    if is_taken(&issuer, &name, id) {
        return Err(invalid(TAKEN));
    }
    let client = issuer.client_mut(id).ok_or_else(unknown_client)?;
    client.name = name;
    client.grant_types = grant_types.unwrap_or(client.grant_types.clone());
    let mut told = told(id, client);
    if world.settings.update_rotates_secret {
        let secret = random::secret();
        told["client_secret"] = Value::from(secret.clone());
        client.change_secret(secret);
    }
    Ok(reply::not_stored(reply::json(StatusCode::OK, told)))
}

/// Returns whether another client than `id` has this name.
fn is_taken(issuer: &Issuer, name: &str, id: &str) -> bool {
    let mut clients = issuer.clients();
    clients.any(|(other, client)| client.name == name && other != id)
}

async fn read(body: Body) -> Result<(String, Option<Vec<String>>), Reply> {
    let sent: Writeable = body::json(body)
        .await
        .map_err(|error| invalid(&error.to_string()))?;
    match sent.client_name.filter(|name| !name.trim().is_empty()) {
        Some(name) => Ok((name, sent.grant_types)),
        None => Err(invalid("The field client_name is missing.")),
    }
}

fn new_id() -> String {
    let unique = random::uuid().replace('-', "");
    format!("{ENVIRONMENT}:i:{}", &unique[unique.len() - 7..])
}

fn told(id: &str, client: &Client) -> Value {
    json!({
        "client_id": id,
        "client_id_issued_at": client.registered,
        "client_name": client.name,
        "grant_types": client.grant_types,
    })
}

/// A registration error (RFC 7591, section 3.2.2).
fn invalid(description: &str) -> Reply {
    let body = json!({ "error": "invalid_client_metadata", "error_description": description });
    reply::not_stored(reply::json(StatusCode::BAD_REQUEST, body))
}

/// The response for an unknown client, which is the same as for an invalid token (RFC 7592, section
/// 2.1).
fn unknown_client() -> Reply {
    let refused = reply::api_error(
        StatusCode::UNAUTHORIZED,
        "unknownClient",
        "There is no client with this identifier.",
    );
    let challenge = "Bearer error=\"invalid_token\", error_description=\"no such client\"";
    reply::with_header(refused, WWW_AUTHENTICATE, challenge)
}
