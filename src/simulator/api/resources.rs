//! Assets, domains and communities, and their search.

use axum::response::IntoResponse;
use http::StatusCode;
use http::header::LOCATION;
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::{Answer, Call, Refused, body, echo, transfers};
pub(super) use crate::simulator::catalogue::Kind;
use crate::simulator::catalogue::USER;
use crate::simulator::reply;

/// The most results per page, also the default.
const PAGE: usize = 1000;

/// A query for resources; `name` filters a list, `keywords` a search.
#[derive(Deserialize)]
struct Asked {
    #[serde(default)]
    offset: usize,
    #[serde(default = "page")]
    limit: usize,
    #[serde(alias = "keywords", default)]
    name: String,
}

fn page() -> usize {
    PAGE
}

impl Asked {
    /// The number of resources that match, and those of the page.
    fn among<'a>(&self, all: impl Iterator<Item = &'a Value>) -> (usize, Vec<&'a Value>) {
        let part = self.name.trim_matches('*').to_lowercase();
        let name = |resource: &Value| resource["name"].as_str().unwrap_or_default().to_lowercase();
        let found: Vec<_> = all.filter(|one| name(one).contains(&part)).collect();
        let shown = found.iter().skip(self.offset).take(self.limit.min(PAGE));
        (found.len(), shown.copied().collect())
    }
}

/// `/rest/2.0/assets`, `…/domains` and `…/communities`.
pub(super) async fn answer(call: Call<'_>, kind: Kind, rest: &[&str]) -> Answer {
    match (call.method(), rest) {
        ("GET", []) => find(&call, kind),
        ("POST", []) => add(call, kind).await,
        ("POST", ["bulk"]) => add_several(call, kind).await,
        ("GET", [id]) => match call.world.catalogue().shelf(kind).get_mut(id) {
            Some(resource) => Ok(reply::json(StatusCode::OK, resource)),
            None => Err(Refused::Missing(kind.name())),
        },
        ("PATCH", [id]) => change(call, kind, id).await,
        ("DELETE", [id]) => remove(&call, kind, id),
        _ => Ok(echo::answer(call).await),
    }
}

/// `POST /rest/2.0/search`: assets whose name contains the `keywords`.
pub(super) async fn search(call: Call<'_>) -> Answer {
    let asked: Asked = body::json(call.body).await?;
    let mut catalogue = call.world.catalogue();
    let (total, found) = asked.among(catalogue.shelf(Kind::Asset).iter());
    let results: Vec<Value> = found
        .iter()
        .map(|asset| json!({ "resource": asset, "highlights": [] }))
        .collect();
    let page = json!({ "total": total, "results": results, "aggregations": [] });
    Ok(reply::json(StatusCode::OK, page))
}

fn find(call: &Call<'_>, kind: Kind) -> Answer {
    let asked: Asked = call.query()?;
    let mut catalogue = call.world.catalogue();
    let (total, results) = asked.among(catalogue.shelf(kind).iter());
    let page = json!({
        "total": total,
        "offset": asked.offset,
        "limit": asked.limit.min(PAGE),
        "results": results,
    });
    Ok(reply::json(StatusCode::OK, page))
}

async fn add(call: Call<'_>, kind: Kind) -> Answer {
    let sent = named(body::json(call.body).await?)?;
    let made = call.world.catalogue().create(kind, sent, call.world.now());
    let id = made["id"].as_str().unwrap_or_default();
    let place = format!("{}/{id}", call.head.uri.path());
    let reply = reply::json(StatusCode::CREATED, &made);
    Ok(reply::with_header(reply, LOCATION, &place))
}

async fn add_several(call: Call<'_>, kind: Kind) -> Answer {
    let sent: Vec<Map<String, Value>> = body::json(call.body).await?;
    let sent: Vec<_> = sent.into_iter().map(named).collect::<Result<_, _>>()?;
    let mut catalogue = call.world.catalogue();
    let create = |sent| catalogue.create(kind, sent, call.world.now());
    let made: Vec<Value> = sent.into_iter().map(create).collect();
    Ok(reply::json(StatusCode::CREATED, made))
}

async fn change(call: Call<'_>, kind: Kind, id: &str) -> Answer {
    let mut sent: Map<String, Value> = body::json(call.body).await?;
    sent.remove("id");
    let mut catalogue = call.world.catalogue();
    let resource = catalogue.shelf(kind).get_mut(id);
    let resource = resource.ok_or(Refused::Missing(kind.name()))?;
    resource["lastModifiedBy"] = Value::from(USER);
    resource["lastModifiedOn"] = Value::from(call.world.now().millis());
    if let Some(fields) = resource.as_object_mut() {
        fields.extend(sent);
    }
    Ok(reply::json(StatusCode::OK, resource))
}

fn remove(call: &Call<'_>, kind: Kind, id: &str) -> Answer {
    if !call.world.catalogue().shelf(kind).remove(id) {
        return Err(Refused::Missing(kind.name()));
    }
    Ok(match kind {
        // this removal returns the job that does it
        Kind::Domain => transfers::started(call.world, "Domain removal", String::new()),
        Kind::Asset | Kind::Community => StatusCode::NO_CONTENT.into_response(),
    })
}

/// Returns `sent` if it has a name.
fn named(sent: Map<String, Value>) -> Result<Map<String, Value>, Refused> {
    match sent.get("name").and_then(Value::as_str) {
        None | Some("") => Err(Refused::unusable("a `name` is missing")),
        Some(_) => Ok(sent),
    }
}
