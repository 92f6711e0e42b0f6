//! Registration and management of clients, under `/rest/auth/v1` and `/rest/auth/v1/platform` (RFC
//! 7591, and RFC 7592 in part).
//!
//! Callers need a valid token, or the only user's credentials: `admin`, password `admin`.
//! `openapi.json` describes requests and responses.

use axum::response::IntoResponse;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::StatusCode;
use http::header::{ALLOW, WWW_AUTHENTICATE};
use serde::Deserialize;
use serde_json::{Value, json};

use super::{Answer, Call};
use crate::simulator::issuer::Client;
use crate::simulator::reply::{self, Reply};
use crate::simulator::{body, clock, form, random};

/// The prefix of client ids: the simulated environment.
const ENVIRONMENT: &str = "urn:sys:env:2eeadf60-1a11-5170-7e57-000000000000";

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
    encoded == STANDARD.encode("admin:admin")
}

/// Answers a call to `/clients` or `/clients/{client_id}`.
pub(super) async fn answer(call: Call<'_>, client: &str) -> Answer {
    let id = form::decode_segment(client.as_bytes()).map_err(|_| unknown_client())?;
    let model = || call.world.lock();
    match (call.method(), id.as_str()) {
        ("GET", "") => {
            let model = model();
            let all = model.issuer.clients().map(|(id, client)| told(id, client));
            let all = json!({ "registrations": all.collect::<Value>() });
            Ok(reply::json(StatusCode::OK, all))
        }
        ("GET", id) => match model().issuer.client(id) {
            Some(client) => Ok(reply::json(StatusCode::OK, told(id, client))),
            None => Err(unknown_client()),
        },
        ("POST", "") => write(call, None).await,
        ("PUT", id) if !id.is_empty() => write(call, Some(id.to_owned())).await,
        ("DELETE", id) if !id.is_empty() => match model().issuer.remove(id, clock::read().steady) {
            true => Ok(StatusCode::NO_CONTENT.into_response()),
            false => Err(unknown_client()),
        },
        (_, id) => {
            let refused = reply::api_error(
                StatusCode::METHOD_NOT_ALLOWED,
                "methodNotAllowed",
                "This method has no meaning here.",
            );
            let allowed = match id {
                "" => "GET, HEAD, POST",
                _ => "GET, HEAD, PUT, DELETE",
            };
            Ok(reply::with_header(refused, ALLOW, allowed))
        }
    }
}

/// Updates the client `id`, or registers a new one. Only this response has a new secret.
async fn write(call: Call<'_>, id: Option<String>) -> Answer {
    let sent = body::json(call.body).await;
    let sent: Writeable = sent.map_err(|error| invalid(&error.to_string()))?;
    let name = sent.client_name.filter(|name| !name.trim().is_empty());
    let name = name.ok_or_else(|| invalid("The field client_name is missing."))?;
    let issuer = &mut call.world.lock().issuer;
    let is_taken = issuer
        .clients()
        .any(|(other, client)| client.name == name && id.as_ref() != Some(other));
    if is_taken {
        return Err(invalid("Another client has this name."));
    }
    let rotates = call.world.config.update_rotates_secret;
    let (status, id, secret) = match id {
        Some(id) => (StatusCode::OK, id, rotates.then(random::secret)),
        None => {
            let (id, secret) = (new_id(), random::secret());
            issuer.add(id.clone(), secret.clone(), name.clone(), clock::read());
            (StatusCode::CREATED, id, Some(secret))
        }
    };
    let client = issuer.client_mut(&id).ok_or_else(unknown_client)?;
    client.name = name;
    client.grant_types = sent.grant_types.unwrap_or(client.grant_types.clone());
    let mut told = told(&id, client);
    if let Some(secret) = secret {
        client.secret.clone_from(&secret);
        told["client_secret"] = Value::from(secret);
    }
    Ok(reply::not_stored(reply::json(status, told)))
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
fn invalid(description: &str) -> Box<Reply> {
    let body = json!({ "error": "invalid_client_metadata", "error_description": description });
    let refused = reply::json(StatusCode::BAD_REQUEST, body);
    Box::new(reply::not_stored(refused))
}

/// The response for an unknown client, which is the same as for an invalid token (RFC 7592, section
/// 2.1).
fn unknown_client() -> Box<Reply> {
    let refused = reply::api_error(
        StatusCode::UNAUTHORIZED,
        "unknownClient",
        "There is no client with this identifier.",
    );
    let challenge = "Bearer error=\"invalid_token\", error_description=\"no such client\"";
    Box::new(reply::with_header(refused, WWW_AUTHENTICATE, challenge))
}
