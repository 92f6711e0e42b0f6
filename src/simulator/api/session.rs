//! The application info, the user and the current session.

use axum::response::IntoResponse;
use http::StatusCode;
use serde_json::json;

use super::{Answer, Call, probe};
use crate::simulator::body;
use crate::simulator::catalogue::USER;
use crate::simulator::reply::{self, Reply};

/// `GET /rest/2.0/application/info`.
pub(super) fn application(call: &Call<'_>) -> Reply {
    let scheme = match call.world.config.tls {
        Some(_) => "https",
        None => "http",
    };
    let told = json!({
        "baseUrl": format!("{scheme}://{}/", call.header("host").unwrap_or("localhost")),
        "buildNumber": "simulated",
        "solutions": [],
        "version": {
            "major": 2026,
            "minor": 1,
            "fullVersion": "2026.01.0-simulated",
            "displayVersion": "2026.01",
        },
    });
    reply::json(StatusCode::OK, told)
}

/// `/rest/2.0/auth/sessions`: opens, shows and ends a session. Each call needs a token, and nothing
/// depends on the session.
pub(super) async fn answer(call: Call<'_>, rest: &[&str]) -> Answer {
    Ok(match (call.method(), rest) {
        ("POST", []) => {
            body::drain(call.body).await;
            let token = json!({ "csrfToken": "00000000-0000-4000-8000-000000000000" });
            probe::with_session(reply::json(StatusCode::OK, token))
        }
        ("GET", ["current"]) => probe::with_session(user()),
        ("GET", ["heartbeat"]) => probe::with_session(StatusCode::OK.into_response()),
        ("DELETE", ["current"]) => StatusCode::NO_CONTENT.into_response(),
        _ => probe::echo(call).await,
    })
}

/// `GET /rest/2.0/users/current`: the system user that represents an application.
pub(super) fn user() -> Reply {
    let user = json!({
        "id": USER,
        "createdBy": USER,
        "createdOn": 0,
        "lastModifiedBy": USER,
        "lastModifiedOn": 0,
        "system": true,
        "resourceType": "User",
        "userName": "simulated-application",
        "firstName": "Simulated",
        "lastName": "Application",
        "emailAddress": "application@example.invalid",
        "gender": "UNKNOWN",
        "language": "en",
        "activated": true,
        "enabled": true,
        "ldapUser": false,
        "userSource": "INTERNAL",
        "guestUser": false,
        "apiUser": true,
        "licenseType": "AUTHOR",
    });
    reply::json(StatusCode::OK, user)
}
