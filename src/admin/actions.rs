//! Actions and information that are restricted to programs on this machine.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use axum::Json;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Path, Query, State};
use axum::http::StatusCode;
use axum::http::header::RETRY_AFTER;
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};
use tracing::info;

use super::local::Local;
use super::snapshot::whole_seconds;
use super::view::View;
use crate::telemetry::logging;
use crate::token::service::{NotNow, renew_now};

/// A renewal in progress.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Renewing {
    /// The client's name in the configuration.
    pub client: String,
    /// The generation of the current token, in use until a newer one arrives; 0: none.
    pub generation: u64,
}

/// The log level.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogLevel {
    /// `off`, `error`, `warn`, `info`, `debug` or `trace`.
    pub level: String,
}

/// `POST /drain`: starts the drain, and responds before it ends.
pub(super) async fn drain(_: Local, State(view): State<Arc<View>>) -> impl IntoResponse {
    // at once, so that the next probe finds it draining
    view.draining.store(true, Ordering::Relaxed);
    view.drain.notify_one();
    (StatusCode::ACCEPTED, "draining\n")
}

/// `POST /api/clients/{name}/renew`: requests a new token for a client, if its pool allows it.
pub(super) async fn renew(
    _: Local,
    State(view): State<Arc<View>>,
    Path(name): Path<String>,
) -> Response {
    let parts = view.parts.load_full();
    let Some(client) = parts.clients.iter().find(|client| *client.name == *name) else {
        let names: Vec<&str> = parts.clients.iter().map(|client| &*client.name).collect();
        let known = names.join(", ");
        let what = format!("no such client is configured; there is {known}\n");
        return (StatusCode::NOT_FOUND, what).into_response();
    };
    match renew_now(&client.engine, &client.slot).await {
        Ok(generation) => {
            info!(
                client = name,
                generation, "renewal requested at the admin address"
            );
            let client = name;
            (StatusCode::ACCEPTED, Json(Renewing { client, generation })).into_response()
        }
        Err(refused) => {
            let status = match refused {
                NotNow::InFlight | NotNow::Stopped => StatusCode::CONFLICT,
                NotNow::Pool { .. } | NotNow::Share { .. } => StatusCode::TOO_MANY_REQUESTS,
            };
            let wait = refused.retry_after();
            let wait = wait.map(|wait| [(RETRY_AFTER, whole_seconds(wait).to_string())]);
            (status, wait, format!("{refused}\n")).into_response()
        }
    }
}

/// `GET /api/log-level`: returns the log level.
pub(super) async fn log_level() -> Json<LogLevel> {
    let level = logging::level();
    Json(LogLevel { level })
}

/// `POST /api/log-level?level=LEVEL`: changes the log level until the process ends.
pub(super) async fn set_log_level(
    _: Local,
    level: Result<Query<LogLevel>, QueryRejection>,
) -> Response {
    let Ok(Query(LogLevel { level })) = level else {
        let what = "say which level: /api/log-level?level=debug\n";
        return (StatusCode::BAD_REQUEST, what).into_response();
    };
    match logging::set_level(&level) {
        Ok(level) => Json(LogLevel { level }).into_response(),
        Err(error) => (StatusCode::BAD_REQUEST, format!("{error}\n")).into_response(),
    }
}

/// `GET /api/config`: the effective configuration, with defaults and without secrets. It contains
/// host names and file paths, which other machines and web pages must not see.
pub(super) async fn config(_: Local, State(view): State<Arc<View>>) -> Json<serde_json::Value> {
    Json(view.parts.load().config.clone())
}
