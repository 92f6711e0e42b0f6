//! Assets, domains and communities, and their search.

use http::StatusCode;
use http::header::LOCATION;
use serde_json::{Map, Value, json};

use super::{Call, body, echo, missing, transfers, unusable};
pub(super) use crate::simulator::catalogue::Kind;
use crate::simulator::catalogue::USER;
use crate::simulator::reply::{self, Reply};

/// The most results per page, also the default.
const PAGE: usize = 1000;

/// `/rest/2.0/assets`, `…/domains` and `…/communities`.
pub(super) async fn answer(call: Call<'_>, kind: Kind, rest: &[&str]) -> Reply {
    match (call.method(), rest) {
        ("GET", []) => find(&call, kind),
        ("POST", []) => add(call, kind).await,
        ("POST", ["bulk"]) => add_several(call, kind).await,
        ("GET", [id]) => match call.world.catalogue().shelf(kind).get_mut(id) {
            Some(resource) => reply::json(StatusCode::OK, resource),
            None => missing(kind.name()),
        },
        ("PATCH", [id]) => change(call, kind, id).await,
        ("DELETE", [id]) => remove(&call, kind, id),
        _ => echo::answer(call).await,
    }
}

/// `POST /rest/2.0/search`: assets whose name contains the `keywords`.
pub(super) async fn search(call: Call<'_>) -> Reply {
    let world = call.world;
    let asked: Map<String, Value> = match body::json(call.body).await {
        Ok(asked) => asked,
        Err(error) => return unusable(&error),
    };
    let number = |name: &str, default: usize| {
        let asked = asked.get(name).and_then(Value::as_u64);
        asked
            .and_then(|number| usize::try_from(number).ok())
            .unwrap_or(default)
    };
    let (offset, limit) = (number("offset", 0), number("limit", PAGE).min(PAGE));
    let keywords = asked
        .get("keywords")
        .and_then(Value::as_str)
        .unwrap_or_default();
    let keywords = keywords.trim_matches('*').to_lowercase();
    let mut catalogue = world.catalogue();
    let found: Vec<&Value> = catalogue
        .shelf(Kind::Asset)
        .iter()
        .filter(|asset| contains(asset, &keywords))
        .collect();
    let results: Vec<Value> = found
        .iter()
        .skip(offset)
        .take(limit)
        .map(|asset| json!({ "resource": asset, "highlights": [] }))
        .collect();
    let page = json!({ "total": found.len(), "results": results, "aggregations": [] });
    reply::json(StatusCode::OK, &page)
}

fn find(call: &Call<'_>, kind: Kind) -> Reply {
    let number = |name, default| match call.query(name) {
        Some(value) => value.parse::<usize>(),
        None => Ok(default),
    };
    let (offset, limit) = match (number("offset", 0), number("limit", PAGE)) {
        (Ok(offset), Ok(limit)) => (offset, limit.min(PAGE)),
        (Err(error), _) | (_, Err(error)) => return unusable(&error),
    };
    let name = call.query("name").unwrap_or_default().to_lowercase();
    let mut catalogue = call.world.catalogue();
    let found: Vec<&Value> = catalogue
        .shelf(kind)
        .iter()
        .filter(|resource| contains(resource, &name))
        .collect();
    let results: Vec<&&Value> = found.iter().skip(offset).take(limit).collect();
    let page = json!({
        "total": found.len(),
        "offset": offset,
        "limit": limit,
        "results": results,
    });
    reply::json(StatusCode::OK, &page)
}

async fn add(call: Call<'_>, kind: Kind) -> Reply {
    let world = call.world;
    let sent = match body::json::<Map<String, Value>>(call.body).await {
        Ok(sent) if named(&sent) => sent,
        Ok(_) => return unusable(&"a `name` is missing"),
        Err(error) => return unusable(&error),
    };
    let made = world
        .catalogue()
        .create(kind, sent, &world.unique, world.now());
    let place = format!(
        "{}/{}",
        call.head.uri.path(),
        made["id"].as_str().unwrap_or_default()
    );
    reply::with_header(reply::json(StatusCode::CREATED, &made), LOCATION, &place)
}

async fn add_several(call: Call<'_>, kind: Kind) -> Reply {
    let world = call.world;
    let sent = match body::json::<Vec<Map<String, Value>>>(call.body).await {
        Ok(sent) if sent.iter().all(named) => sent,
        Ok(_) => return unusable(&"a `name` is missing"),
        Err(error) => return unusable(&error),
    };
    let mut catalogue = world.catalogue();
    let create = |sent| catalogue.create(kind, sent, &world.unique, world.now());
    let made: Vec<Value> = sent.into_iter().map(create).collect();
    reply::json(StatusCode::CREATED, &Value::Array(made))
}

async fn change(call: Call<'_>, kind: Kind, id: &str) -> Reply {
    let world = call.world;
    let mut sent: Map<String, Value> = match body::json(call.body).await {
        Ok(sent) => sent,
        Err(error) => return unusable(&error),
    };
    sent.remove("id");
    let mut catalogue = world.catalogue();
    let resource = catalogue.shelf(kind).get_mut(id);
    let Some(resource) = resource else {
        return missing(kind.name());
    };
    resource["lastModifiedBy"] = Value::from(USER);
    resource["lastModifiedOn"] = Value::from(world.now().millis());
    if let Some(fields) = resource.as_object_mut() {
        fields.extend(sent);
    }
    reply::json(StatusCode::OK, resource)
}

fn remove(call: &Call<'_>, kind: Kind, id: &str) -> Reply {
    if !call.world.catalogue().shelf(kind).remove(id) {
        return missing(kind.name());
    }
    match kind {
        // this removal returns the job that does it
        Kind::Domain => transfers::started(call.world, "Domain removal", String::new()),
        Kind::Asset | Kind::Community => reply::empty(StatusCode::NO_CONTENT),
    }
}

fn named(sent: &Map<String, Value>) -> bool {
    sent.get("name")
        .and_then(Value::as_str)
        .is_some_and(|name| !name.is_empty())
}

fn contains(resource: &Value, lowercase: &str) -> bool {
    let name = resource["name"].as_str().unwrap_or_default();
    lowercase.is_empty() || name.to_lowercase().contains(lowercase)
}
