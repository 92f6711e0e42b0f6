//! GraphQL and the catalog API, with enough plausible data for clients.

use http::StatusCode;
use serde::Deserialize;
use serde_json::{Value, json};

use super::{Call, body};
use crate::simulator::catalogue::Kind;
use crate::simulator::reply::{self, Reply};

/// A GraphQL request; members other than the query are ignored.
#[derive(Deserialize)]
struct Request {
    query: String,
}

/// `POST /graphql` and `POST /graphql/knowledgeGraph/v1`: the first ten assets, whatever the query.
pub(super) async fn query(call: Call<'_>) -> Reply {
    let world = call.world;
    let request: Request = match body::json(call.body).await {
        Ok(request) => request,
        Err(error) => {
            let errors = json!({ "errors": [{ "message": error.to_string() }] });
            return reply::json(StatusCode::BAD_REQUEST, errors);
        }
    };
    let mut catalogue = world.catalogue();
    let assets: Vec<Value> = catalogue
        .shelf(Kind::Asset)
        .iter()
        .take(10)
        .map(|asset| json!({ "id": asset["id"], "displayName": asset["displayName"] }))
        .collect();
    let told = json!({
        "data": { "api": { "version": "v1" }, "assets": assets },
        "extensions": { "queryLength": request.query.len() },
    });
    reply::json(StatusCode::OK, told)
}

/// `GET /rest/catalog/1.0/…`: an empty page.
pub(super) fn catalog(call: &Call<'_>) -> Reply {
    let page = json!({
        "total": 0,
        "offset": 0,
        "limit": 1000,
        "results": [],
        "path": call.head.uri.path(),
    });
    reply::json(StatusCode::OK, page)
}
