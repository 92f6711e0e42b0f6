//! Assets, domains, communities, files and jobs: listed, created, shown, changed and removed.

use axum::response::IntoResponse;
use http::StatusCode;
use http::header::LOCATION;
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::{Answer, Call, missing, probe, transfers, unusable};
use crate::simulator::catalogue::{self, Kind, merge};
use crate::simulator::reply::{self, Reply};
use crate::simulator::{body, clock};

/// The most results per page, also the default.
const PAGE: usize = 1000;

/// A query for entries; `name` filters a list, `keywords` a search.
#[derive(Deserialize)]
pub(super) struct Asked {
    #[serde(default)]
    offset: usize,
    limit: Option<usize>,
    #[serde(alias = "keywords", default)]
    name: String,
}

impl Asked {
    /// The page of the entries that match. `entry` says how each is shown.
    pub(super) fn page<'a>(
        &self,
        all: impl IntoIterator<Item = &'a Value>,
        entry: impl Fn(&Value) -> Value,
    ) -> Value {
        let part = self.name.trim_matches('*').to_lowercase();
        let name = |one: &Value| one["name"].as_str().unwrap_or_default().to_lowercase();
        let matches = |one: &&Value| part.is_empty() || name(one).contains(&part);
        let found: Vec<&Value> = all.into_iter().filter(matches).collect();
        let limit = self.limit.unwrap_or(PAGE).min(PAGE);
        let shown = found.iter().skip(self.offset).take(limit);
        json!({
            "total": found.len(),
            "offset": self.offset,
            "limit": limit,
            "results": shown.map(|one| entry(one)).collect::<Value>(),
        })
    }
}

/// Answers a call to a collection (`/rest/2.0/assets` and the like), to `rest` in it.
pub(super) async fn answer(call: Call<'_>, kind: Kind, rest: &[&str]) -> Answer {
    use Kind::{Asset, Community, Domain, File, Job};
    match (call.method(), kind, rest) {
        ("GET", Asset | Domain | Community | Job, []) => find(&call, kind),
        ("POST", File, []) => transfers::upload(call).await,
        ("POST", Asset | Domain | Community, []) => add(call, kind, false).await,
        ("POST", Asset | Domain | Community, ["bulk"]) => add(call, kind, true).await,
        ("GET", File, [id]) => with(&call, kind, id, |file| transfers::download(file)),
        ("GET", Job, [id]) => with(&call, kind, id, |job| {
            catalogue::advance(job, clock::read());
            reply::json(StatusCode::OK, job)
        }),
        ("GET", _, [id]) | ("GET", File, [id, "info"]) => {
            with(&call, kind, id, |entry| reply::json(StatusCode::OK, entry))
        }
        ("POST", Job, [id, "canceled"]) => with(&call, kind, id, |job| {
            catalogue::end(job, ("CANCELED", "ABORTED", 0.0), clock::read());
            StatusCode::OK.into_response()
        }),
        ("PATCH", Asset | Domain | Community, [id]) => change(call, kind, id).await,
        ("DELETE", Asset | Domain | Community | File, [id]) => remove(&call, kind, id),
        _ => Ok(probe::echo(call).await),
    }
}

fn find(call: &Call<'_>, kind: Kind) -> Answer {
    let asked: Asked = call.query()?;
    let page = asked.page(call.world.lock().catalogue.all(kind), Value::clone);
    Ok(reply::json(StatusCode::OK, page))
}

/// Answers with the entry `id`.
fn with(call: &Call<'_>, kind: Kind, id: &str, act: impl FnOnce(&mut Value) -> Reply) -> Answer {
    let catalogue = &mut call.world.lock().catalogue;
    let entry = catalogue.get_mut(kind, id).ok_or_else(|| missing(kind))?;
    Ok(act(entry))
}

/// Creates an entry, or all of a list, unless one of them has no name.
async fn add(call: Call<'_>, kind: Kind, is_list: bool) -> Answer {
    let sent: Value = body::json(call.body).await.map_err(unusable)?;
    let sent = if is_list { sent } else { json!([sent]) };
    let sent: Vec<Value> = serde_json::from_value(sent).map_err(unusable)?;
    let is_unnamed = |entry: &Value| entry["name"].as_str().is_none_or(str::is_empty);
    if sent.iter().any(is_unnamed) {
        return Err(unusable("a `name` is missing"));
    }
    let catalogue = &mut call.world.lock().catalogue;
    let made = sent.into_iter();
    let made: Value = made
        .map(|entry| catalogue.create(kind, entry, clock::read()))
        .collect();
    if is_list {
        return Ok(reply::json(StatusCode::CREATED, made));
    }
    let id = made[0]["id"].as_str().unwrap_or_default();
    let place = format!("{}/{id}", call.head.uri.path());
    let reply = reply::json(StatusCode::CREATED, &made[0]);
    Ok(reply::with_header(reply, LOCATION, &place))
}

async fn change(call: Call<'_>, kind: Kind, id: &str) -> Answer {
    let mut sent: Map<String, Value> = body::json(call.body).await.map_err(unusable)?;
    sent.remove("id");
    let catalogue = &mut call.world.lock().catalogue;
    let entry = catalogue.get_mut(kind, id).ok_or_else(|| missing(kind))?;
    entry["lastModifiedOn"] = Value::from(clock::read().millis());
    merge(entry, Value::Object(sent));
    Ok(reply::json(StatusCode::OK, entry))
}

fn remove(call: &Call<'_>, kind: Kind, id: &str) -> Answer {
    let catalogue = &mut call.world.lock().catalogue;
    catalogue.remove(kind, id).ok_or_else(|| missing(kind))?;
    Ok(match kind {
        // this removal returns the job that does it
        Kind::Domain => {
            let job = catalogue.start("Domain removal", "", clock::read());
            reply::json(StatusCode::OK, job)
        }
        _ => StatusCode::NO_CONTENT.into_response(),
    })
}
