//! Assets: found, created, changed and removed.

use axum::response::IntoResponse;
use http::StatusCode;
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::{Answer, Call, USER, missing, unusable};
use crate::simulator::clock::{self, Reading};
use crate::simulator::reply::{self, Reply};
use crate::simulator::{body, random};

/// The most assets that a simulator starts with.
const SEEDED: u64 = 10_000;

/// The most results per page, also the default.
const PAGE: usize = 1000;

/// The assets that a simulator starts with: one per row.
pub(in crate::simulator) fn seeded(rows: u64, now: Reading) -> Vec<Value> {
    let named = |name| Map::from_iter([("name".to_owned(), Value::String(name))]);
    let assets = (1..=rows.min(SEEDED)).map(|nth| asset(named(format!("Asset {nth}")), now));
    assets.collect()
}

#[derive(Deserialize)]
struct Page {
    #[serde(default)]
    offset: usize,
    #[serde(default = "page")]
    limit: usize,
}

fn page() -> usize {
    PAGE
}

/// `GET /rest/2.0/assets`.
pub(super) fn find(call: &Call<'_>) -> Answer {
    let Page { offset, limit } = call.query()?;
    let (assets, limit) = (&call.world.lock().assets, limit.min(PAGE));
    let results: Vec<&Value> = assets.iter().skip(offset).take(limit).collect();
    let total = assets.len();
    let page = json!({ "total": total, "offset": offset, "limit": limit, "results": results });
    Ok(reply::json(StatusCode::OK, page))
}

/// `POST /rest/2.0/assets`.
pub(super) async fn add(call: Call<'_>) -> Answer {
    let sent: Map<String, Value> = body::json(call.body).await.map_err(unusable)?;
    let name = sent.get("name").and_then(Value::as_str);
    if name.is_none_or(str::is_empty) {
        return Err(unusable("a `name` is missing"));
    }
    let made = asset(sent, clock::read());
    call.world.lock().assets.push(made.clone());
    Ok(reply::json(StatusCode::CREATED, made))
}

/// `GET /rest/2.0/assets/{id}`.
pub(super) fn show(call: &Call<'_>, id: &str) -> Answer {
    let assets = &call.world.lock().assets;
    Ok(reply::json(StatusCode::OK, &assets[position(assets, id)?]))
}

/// `PATCH /rest/2.0/assets/{id}`.
pub(super) async fn change(call: Call<'_>, id: &str) -> Answer {
    let mut sent: Map<String, Value> = body::json(call.body).await.map_err(unusable)?;
    sent.remove("id");
    let assets = &mut call.world.lock().assets;
    let at = position(assets, id)?;
    let asset = &mut assets[at];
    asset["lastModifiedOn"] = Value::from(clock::read().millis());
    if let Some(fields) = asset.as_object_mut() {
        fields.extend(sent);
    }
    Ok(reply::json(StatusCode::OK, asset))
}

/// `DELETE /rest/2.0/assets/{id}`.
pub(super) fn remove(call: &Call<'_>, id: &str) -> Answer {
    let assets = &mut call.world.lock().assets;
    assets.remove(position(assets, id)?);
    Ok(StatusCode::NO_CONTENT.into_response())
}

fn position(assets: &[Value], id: &str) -> Result<usize, Box<Reply>> {
    let found = assets.iter().position(|asset| asset["id"] == id);
    found.ok_or_else(|| missing("asset"))
}

/// An asset with all attributes, from those that a client sent.
fn asset(mut sent: Map<String, Value>, now: Reading) -> Value {
    let mut reference = |field: &str, of: &str, name: &str| {
        let id = sent.remove(field).unwrap_or_else(|| Value::from(USER));
        json!({ "id": id, "resourceType": of, "name": name })
    };
    let domain = reference("domainId", "Domain", "Business Glossary");
    let kind = reference("typeId", "AssetType", "Business Term");
    let status = reference("statusId", "Status", "Candidate");
    let mut made = json!({
        "id": random::uuid(),
        "createdBy": USER,
        "createdOn": now.millis(),
        "lastModifiedBy": USER,
        "lastModifiedOn": now.millis(),
        "system": false,
        "resourceType": "Asset",
        "displayName": sent.get("name"),
        "articulationScore": 0.0,
        "excludedFromAutoHyperlinking": false,
        "domain": domain,
        "type": kind,
        "status": status,
        "avgRating": 0.0,
        "ratingsCount": 0,
    });
    if let Some(fields) = made.as_object_mut() {
        fields.extend(sent);
    }
    made
}
