//! Search, GraphQL and the catalog API, with enough plausible data for clients.

use http::StatusCode;
use serde::Deserialize;
use serde_json::{Value, json};

use super::entries::Asked;
use super::{Answer, Call, unusable};
use crate::simulator::body;
use crate::simulator::catalogue::Kind;
use crate::simulator::reply::{self, Reply};

/// `POST /rest/2.0/search`: assets whose name contains the `keywords`.
pub(super) async fn search(call: Call<'_>) -> Answer {
    let asked: Asked = body::json(call.body).await.map_err(unusable)?;
    let hit = |asset: &Value| json!({ "resource": asset, "highlights": [] });
    let mut page = asked.page(call.world.lock().catalogue.all(Kind::Asset), hit);
    page["aggregations"] = json!([]);
    Ok(reply::json(StatusCode::OK, page))
}

/// A GraphQL request; members other than the query are ignored.
#[derive(Deserialize)]
struct Request {
    query: String,
}

/// `POST /graphql` and `POST /graphql/knowledgeGraph/v1`: the first ten assets, whatever the query.
pub(super) async fn graphql(call: Call<'_>) -> Answer {
    let request: Request = body::json(call.body).await.map_err(|error| {
        let errors = json!({ "errors": [{ "message": error.to_string() }] });
        reply::json(StatusCode::BAD_REQUEST, errors)
    })?;
    let model = call.world.lock();
    let assets = model.catalogue.all(Kind::Asset).iter().take(10);
    let shown = |asset: &Value| json!({ "id": asset["id"], "displayName": asset["displayName"] });
    let told = json!({
        "data": { "api": { "version": "v1" }, "assets": assets.map(shown).collect::<Value>() },
        "extensions": { "queryLength": request.query.len() },
    });
    Ok(reply::json(StatusCode::OK, told))
}

/// `GET /rest/catalog/1.0/…`: an empty page.
pub(super) fn catalog(call: &Call<'_>) -> Reply {
    let path = call.head.uri.path();
    let page = json!({ "total": 0, "offset": 0, "limit": 1000, "results": [], "path": path });
    reply::json(StatusCode::OK, page)
}
