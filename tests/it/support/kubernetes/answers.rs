//! The stand-in's API calls: authentication, authorization, and the resulting objects.

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::extract::{Request, State};
use axum::http::{HeaderMap, Method, StatusCode};
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};
use tokio::sync::{mpsc, watch};

use super::rules::{self, Refusal};
use super::{Faults, OPERATOR, TOKEN};

/// The Secret.
pub(super) const SECRET: &str = "/api/v1/namespaces/test/secrets/token";
/// The Lease.
pub(super) const LEASE: &str = "/apis/coordination.k8s.io/v1/namespaces/test/leases/lease";

/// The number of remembered changes.
const REMEMBERED: usize = 64;

/// The server's state and behaviour.
pub(super) struct Api {
    /// Whether callers authenticate with a certificate, which TLS has verified.
    pub(super) by_certificate: bool,
    pub(super) objects: Mutex<Objects>,
    pub(super) faults: Mutex<Faults>,
    pub(super) counts: Mutex<BTreeMap<String, u64>>,
    /// The version of the newest change.
    pub(super) version: watch::Sender<u64>,
}

/// The objects by path, with one version counter for all, as in etcd.
pub(super) struct Objects {
    pub(super) version: u64,
    pub(super) all: BTreeMap<String, Value>,
    history: VecDeque<Change>,
}

/// A change of an object.
#[derive(Clone)]
struct Change {
    version: u64,
    path: String,
    event: &'static str,
    object: Value,
}

impl Change {
    fn line(&self) -> Value {
        json!({"type": self.event, "object": self.object})
    }
}

impl Objects {
    pub(super) fn new() -> Objects {
        let mut objects = Objects {
            version: 104_728,
            all: BTreeMap::new(),
            history: VecDeque::new(),
        };
        objects.put(SECRET, fresh("v1", "Secret", "token"));
        objects.put(LEASE, fresh("coordination.k8s.io/v1", "Lease", "lease"));
        objects
    }

    /// Stores the object in a new version.
    pub(super) fn put(&mut self, path: &str, mut object: Value) -> Value {
        self.version += 1;
        object["metadata"]["resourceVersion"] = json!(self.version.to_string());
        let event = match self.all.contains_key(path) {
            true => "MODIFIED",
            false => "ADDED",
        };
        self.remember(path, event, object.clone());
        self.all.insert(path.to_owned(), object.clone());
        object
    }

    /// Deletes an object.
    pub(super) fn delete(&mut self, path: &str) -> Option<Value> {
        let object = self.all.remove(path)?;
        self.version += 1;
        self.remember(path, "DELETED", object.clone());
        Some(object)
    }

    fn remember(&mut self, path: &str, event: &'static str, object: Value) {
        self.history.push_back(Change {
            version: self.version,
            path: path.to_owned(),
            event,
            object,
        });
        if self.history.len() > REMEMBERED {
            self.history.pop_front();
        }
    }
}

/// An object as an operator creates it.
pub(super) fn fresh(version: &str, kind: &str, name: &str) -> Value {
    let uid = format!("{:032x}", collibra_auth_proxy::random::unique());
    let mut object = json!({
        "apiVersion": version, "kind": kind,
        "metadata": {
            "name": name, "namespace": "test", "uid": uid,
            "creationTimestamp": "2026-01-01T00:00:00Z",
            "labels": {"app.kubernetes.io/managed-by": "kustomize"},
            "annotations": {"example.com/owner": "another"},
        },
    });
    if kind == "Secret" {
        object["type"] = json!("Opaque");
    }
    object
}

/// Answers any request.
pub(super) async fn answer(State(api): State<Arc<Api>>, request: Request) -> Response {
    let faults = *api.faults.lock().unwrap();
    tokio::time::sleep(faults.slow).await;
    let (parts, body) = request.into_parts();
    if let Some(status) = faults.status {
        *{ api.counts.lock().unwrap() }
            .entry("refused".to_owned())
            .or_default() += 1;
        let mut response = refuse(Refusal(status, "as it was told".to_owned()));
        if status == StatusCode::TOO_MANY_REQUESTS {
            let seconds = axum::http::HeaderValue::from_static("3");
            response.headers_mut().insert("retry-after", seconds);
        }
        return response;
    }
    let operates = has_token(&parts.headers, OPERATOR);
    if !api.by_certificate && !operates && !has_token(&parts.headers, TOKEN) {
        let problem = "Unauthorized".to_owned();
        return refuse(Refusal(StatusCode::UNAUTHORIZED, problem));
    }
    let (path, query) = (parts.uri.path(), parts.uri.query().unwrap_or_default());
    let query: BTreeMap<_, _> = { url::form_urlencoded::parse(query.as_bytes()) }
        .into_owned()
        .collect();
    let verb = match (&parts.method, query.get("watch").map(String::as_str)) {
        (&Method::GET, Some("true" | "1")) => "watch",
        (&Method::GET, None) => "get",
        (&Method::PUT, None) => "update",
        (&Method::POST, None) => "create",
        (&Method::PATCH, None) => "patch",
        (&Method::DELETE, None) => "delete",
        _ => "other",
    };
    // a Role that names objects checks a watch by its field selector
    let selected = { query.get("fieldSelector") }.and_then(|s| s.strip_prefix("metadata.name="));
    let named = match (verb, selected) {
        ("watch", Some(name)) => format!("{path}/{name}"),
        _ => path.to_owned(),
    };
    let granted = matches!(
        (verb, &*named),
        ("get" | "update" | "watch", SECRET | LEASE)
    );
    let is_forbidden =
        |(of, object): &(&str, &str)| *of == verb && named.ends_with(&format!("s/{object}"));
    let granted = granted && !faults.forbidden.iter().any(is_forbidden);
    if !granted && !operates {
        let problem = format!("User \"test\" cannot {verb} resource {path}");
        return refuse(Refusal(StatusCode::FORBIDDEN, problem));
    }
    let what = if named.contains("/secrets") {
        "secret"
    } else {
        "lease"
    };
    *{ api.counts.lock().unwrap() }
        .entry(format!("{verb} {what}"))
        .or_default() += 1;
    if verb == "watch" {
        return begin_watch(api, named, &query, faults);
    }
    let body = axum::body::to_bytes(body, 3 << 20).await.unwrap();
    let body = || {
        let body = serde_json::from_slice::<Value>(&body);
        body.map_err(|problem| Refusal(StatusCode::BAD_REQUEST, problem.to_string()))
    };
    let answered = match verb {
        "get" => match api.objects.lock().unwrap().all.get(&named) {
            Some(object) if faults.cut => Ok(cut_off(&object.to_string())),
            Some(object) => Ok(axum::Json(object).into_response()),
            None => Err(not_found()),
        },
        "update" => {
            assert_eq!(parts.headers["content-type"], "application/json");
            body().and_then(|new| replace(&api, &named, new))
        }
        "create" => body().and_then(|new| {
            let tried = query.get("dryRun").is_some_and(|what| what == "All");
            create(&api, path, new, tried)
        }),
        "patch" => {
            assert_eq!(
                parts.headers["content-type"],
                "application/merge-patch+json"
            );
            body().and_then(|patch| {
                let old = api.objects.lock().unwrap().all.get(&named).cloned();
                let mut new = old.ok_or_else(not_found)?;
                merge(&mut new, &patch);
                replace(&api, &named, new)
            })
        }
        _ => {
            let mut objects = api.objects.lock().unwrap();
            let gone = objects.delete(&named).ok_or_else(not_found);
            api.version.send_replace(objects.version);
            gone.map(|object| axum::Json(object).into_response())
        }
    };
    answered.unwrap_or_else(refuse)
}

fn create(
    api: &Api,
    collection: &str,
    mut object: Value,
    is_tried: bool,
) -> Result<Response, Refusal> {
    let metadata = &mut object["metadata"];
    let path = format!("{collection}/{}", metadata["name"].as_str().unwrap());
    let namespace = collection.rsplit('/').nth(1).unwrap();
    if namespace != "test" {
        return Err(not_found());
    }
    metadata["namespace"] = json!(namespace);
    metadata["uid"] = json!(format!("{:032x}", collibra_auth_proxy::random::unique()));
    let mut objects = api.objects.lock().unwrap();
    if objects.all.contains_key(&path) {
        let problem = "it already exists".to_owned();
        return Err(Refusal(StatusCode::CONFLICT, problem));
    }
    if !is_tried && api.faults.lock().unwrap().keeps_nothing {
        let problem = "as it was told".to_owned();
        return Err(Refusal(StatusCode::INTERNAL_SERVER_ERROR, problem));
    }
    if !is_tried {
        object = objects.put(&path, object);
        api.version.send_replace(objects.version);
    }
    Ok((StatusCode::CREATED, axum::Json(object)).into_response())
}

/// RFC 7396, section 2.
fn merge(target: &mut Value, patch: &Value) {
    let Value::Object(patch) = patch else {
        *target = patch.clone();
        return;
    };
    if !target.is_object() {
        *target = json!({});
    }
    for (name, value) in patch {
        match value {
            Value::Null => drop(target.as_object_mut().unwrap().remove(name)),
            value => merge(&mut target[name], value),
        }
    }
}

fn has_token(headers: &HeaderMap, token: &str) -> bool {
    let shown = headers.get("authorization");
    shown.is_some_and(|shown| shown.as_bytes() == format!("Bearer {token}").as_bytes())
}

fn not_found() -> Refusal {
    Refusal(StatusCode::NOT_FOUND, "not found".to_owned())
}

/// A `Status`, the body of every error of an API server.
fn refuse(Refusal(status, message): Refusal) -> Response {
    (status, axum::Json(status_object(status, &message))).into_response()
}

fn status_object(status: StatusCode, message: &str) -> Value {
    let reason = match status.as_u16() {
        409 => "Conflict",
        410 => "Expired",
        422 => "Invalid",
        403 => "Forbidden",
        404 => "NotFound",
        401 => "Unauthorized",
        429 => "TooManyRequests",
        400 => "BadRequest",
        _ => "InternalError",
    };
    json!({
        "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
        "message": message, "reason": reason, "code": status.as_u16(),
    })
}

fn replace(api: &Api, path: &str, new: Value) -> Result<Response, Refusal> {
    let mut faults = api.faults.lock().unwrap();
    let mut objects = api.objects.lock().unwrap();
    let old = objects.all.get(path).ok_or_else(not_found)?;
    let new = rules::update(old, new)?;
    if faults.conflicts > 0 {
        faults.conflicts -= 1;
        let problem = "somebody was faster".to_owned();
        return Err(Refusal(StatusCode::CONFLICT, problem));
    }
    // an update without a change creates no version
    if *old == new {
        return Ok(axum::Json(new).into_response());
    }
    let new = objects.put(path, new);
    api.version.send_replace(objects.version);
    match faults.cut {
        // it is done, but the response is truncated
        true => Ok(cut_off(&new.to_string())),
        false => Ok(axum::Json(new).into_response()),
    }
}

fn begin_watch(
    api: Arc<Api>,
    path: String,
    query: &BTreeMap<String, String>,
    faults: Faults,
) -> Response {
    if faults.gone {
        let problem = "too old resource version".to_owned();
        return refuse(Refusal(StatusCode::GONE, problem));
    }
    let from: u64 = query["resourceVersion"].parse().unwrap();
    let seconds = query
        .get("timeoutSeconds")
        .map_or(1800, |s| s.parse().unwrap());
    let (send, receive) = mpsc::channel(1);
    tokio::spawn(async move {
        let told = tell_changes(api, &path, from, &send);
        let _ = tokio::time::timeout(Duration::from_secs(seconds), told).await;
    });
    Body::new(Chunks(receive)).into_response()
}

type Sender = mpsc::Sender<io::Result<Bytes>>;

/// Sends the object after each change since version `from`, one per line.
async fn tell_changes(api: Arc<Api>, path: &str, from: u64, send: &Sender) {
    let mut last = from;
    let mut told = api.version.subscribe();
    loop {
        let faults = *api.faults.lock().unwrap();
        if faults.status.is_some() || faults.gone {
            return;
        }
        let (oldest, newest, news) = {
            let objects = api.objects.lock().unwrap();
            let is_news = |change: &&Change| change.version > last && change.path == path;
            let news = objects.history.iter().filter(is_news);
            let mut news: Vec<_> = news.map(Change::line).collect();
            // from any version: starts with the current object
            if last == 0 {
                let there = objects.all.get(path);
                let added = |object| json!({"type": "ADDED", "object": object});
                news = there.map(added).into_iter().collect();
                last = objects.version;
            }
            let full = objects.history.len() == REMEMBERED;
            let oldest = objects.history.front().filter(|_| full);
            (
                oldest.map_or(0, |change| change.version),
                objects.version,
                news,
            )
        };
        let mut lines = Vec::new();
        // the changes in between are forgotten
        if faults.gone_later || last + 1 < oldest {
            let status = status_object(StatusCode::GONE, "too old resource version");
            lines.push(json!({"type": "ERROR", "object": status}));
        } else if !faults.stalled {
            for line in news {
                // bookmarks: not requested, but clients must accept them
                let version = &line["object"]["metadata"]["resourceVersion"];
                let metadata = json!({"resourceVersion": version});
                let object = json!({"kind": "Secret", "apiVersion": "v1", "metadata": metadata});
                lines.extend([line, json!({"type": "BOOKMARK", "object": object})]);
            }
        }
        let is_over = faults.gone_later || last + 1 < oldest;
        last = newest;
        for line in lines {
            let line = format!("{line}\n");
            let end = line.len() / if faults.cut { 2 } else { 1 };
            let part = Bytes::copy_from_slice(&line.as_bytes()[..end]);
            if send.send(Ok(part)).await.is_err() {
                return;
            }
            if faults.cut {
                let _ = send.send(Err(io::ErrorKind::BrokenPipe.into())).await;
                return;
            }
        }
        if is_over {
            return;
        }
        tokio::select! {
            changed = told.changed() => if changed.is_err() { return },
            () = send.closed() => return,
        }
    }
}

/// The first half of the text, and then the connection ends.
fn cut_off(text: &str) -> Response {
    let (send, receive) = mpsc::channel(2);
    let half = Bytes::copy_from_slice(&text.as_bytes()[..text.len() / 2]);
    send.try_send(Ok(half)).unwrap();
    send.try_send(Err(io::ErrorKind::BrokenPipe.into()))
        .unwrap();
    Body::new(Chunks(receive)).into_response()
}

/// A body as it comes.
struct Chunks(mpsc::Receiver<io::Result<Bytes>>);

impl http_body::Body for Chunks {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: std::pin::Pin<&mut Self>,
        context: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<io::Result<http_body::Frame<Bytes>>>> {
        let next = self.0.poll_recv(context);
        next.map(|chunk| chunk.map(|chunk| chunk.map(http_body::Frame::data)))
    }
}
