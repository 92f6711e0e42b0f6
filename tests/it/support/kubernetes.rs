//! A stand-in for an API server: one Secret and one Lease with versions, and a watch; and its faults.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::extract::{Request, State};
use axum::http::{Method, StatusCode};
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};
use tokio::sync::watch;

/// A running stand-in on a thread of its own; it keeps what it has when it is stopped.
pub(crate) struct Kubernetes {
    state: Arc<Api>,
    address: SocketAddr,
    folder: tempfile::TempDir,
}

/// What it does wrong.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Faults {
    /// So many replacements are answered 409, whatever they replace.
    pub(crate) conflicts: u32,
    /// Every call is answered so.
    pub(crate) status: Option<StatusCode>,
    /// Watches are answered 410.
    pub(crate) gone: bool,
    /// Watches tell nothing.
    pub(crate) stalled: bool,
    /// How long every answer takes.
    pub(crate) slow: Duration,
}

struct Api {
    objects: Mutex<(u64, Vec<(String, Value)>)>,
    faults: Mutex<Faults>,
    version: watch::Sender<u64>,
}

const SECRET: &str = "/api/v1/namespaces/test/secrets/token";
const LEASE: &str = "/apis/coordination.k8s.io/v1/namespaces/test/leases/lease";

impl Kubernetes {
    /// One with an empty Secret `token` and an empty Lease `lease` in the namespace `test`.
    pub(crate) fn start() -> Kubernetes {
        let object = |kind: &str, name: &str| json!({"kind": kind, "metadata": {"name": name, "namespace": "test", "resourceVersion": "1"}});
        let objects = vec![
            (SECRET.to_owned(), object("Secret", "token")),
            (LEASE.to_owned(), object("Lease", "lease")),
        ];
        let state = Arc::new(Api {
            objects: Mutex::new((1, objects)),
            faults: Mutex::default(),
            version: watch::Sender::new(1),
        });
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let address = listener.local_addr().unwrap();
        let router = axum::Router::new()
            .fallback(answer)
            .with_state(Arc::clone(&state));
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread();
            let runtime = { runtime }.enable_all().build().unwrap();
            runtime.block_on(async {
                let listener = tokio::net::TcpListener::from_std(listener).unwrap();
                axum::serve(listener, router).await
            })
        });
        let folder = tempfile::tempdir().unwrap();
        let text = format!(
            "current-context: test\ncontexts:\n- name: test\n  context: {{cluster: test, user: test, namespace: test}}\n\
             clusters:\n- name: test\n  cluster: {{server: \"http://{address}\"}}\n\
             users:\n- name: test\n  user: {{token: k4n4ri}}\n"
        );
        std::fs::write(folder.path().join("config"), text).unwrap();
        Kubernetes {
            state,
            address,
            folder,
        }
    }

    /// A kubeconfig file for it.
    pub(crate) fn kubeconfig(&self) -> std::path::PathBuf {
        self.folder.path().join("config")
    }

    /// Its address.
    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Has it do so from now on.
    pub(crate) fn does(&self, faults: Faults) {
        *self.state.faults.lock().unwrap() = faults;
        // watches that are under way see it
        self.state.version.send_modify(|_| {});
    }

    /// Has every value in the Secret be this, in base64.
    pub(crate) fn spoil(&self, value: &str) {
        let mut objects = self.state.objects.lock().unwrap();
        objects.0 += 1;
        let (version, all) = &mut *objects;
        let secret = &mut all[0].1;
        for content in secret["data"].as_object_mut().unwrap().values_mut() {
            *content = json!(value);
        }
        secret["metadata"]["resourceVersion"] = json!(version.to_string());
        self.state.version.send_replace(*version);
    }
}

async fn answer(State(api): State<Arc<Api>>, request: Request) -> Response {
    let faults = *api.faults.lock().unwrap();
    tokio::time::sleep(faults.slow).await;
    if let Some(status) = faults.status {
        return status.into_response();
    }
    let (parts, body) = request.into_parts();
    if parts.headers.get("authorization").unwrap() != "Bearer k4n4ri" {
        return StatusCode::UNAUTHORIZED.into_response();
    }
    let path = parts.uri.path();
    let query = parts.uri.query().unwrap_or_default();
    if SECRET.strip_suffix("/token") == Some(path) && query.contains("watch=true") {
        assert!(
            query.contains("fieldSelector=metadata.name%3Dtoken"),
            "{query}"
        );
        if faults.gone {
            return StatusCode::GONE.into_response();
        }
        let from = query
            .split('&')
            .find_map(|q| q.strip_prefix("resourceVersion="));
        return changes(api, from.unwrap().parse().unwrap());
    }
    if parts.method == Method::GET {
        let objects = api.objects.lock().unwrap();
        let found = objects.1.iter().find(|(known, _)| known == path);
        return match found {
            Some((_, object)) => axum::Json(object.clone()).into_response(),
            None => StatusCode::NOT_FOUND.into_response(),
        };
    }
    assert_eq!(parts.method, Method::PUT);
    assert_eq!(parts.headers["content-type"], "application/json");
    let body: Bytes = axum::body::to_bytes(body, 1 << 20).await.unwrap();
    replace(&api, path, serde_json::from_slice(&body).unwrap())
}

fn replace(api: &Api, path: &str, mut new: Value) -> Response {
    let mut faults = api.faults.lock().unwrap();
    if faults.conflicts > 0 {
        faults.conflicts -= 1;
        return StatusCode::CONFLICT.into_response();
    }
    let mut objects = api.objects.lock().unwrap();
    let (version, all) = &mut *objects;
    let Some((_, object)) = all.iter_mut().find(|(known, _)| known == path) else {
        return StatusCode::NOT_FOUND.into_response();
    };
    if new["metadata"]["resourceVersion"] != object["metadata"]["resourceVersion"] {
        return StatusCode::CONFLICT.into_response();
    }
    *version += 1;
    new["metadata"]["resourceVersion"] = json!(version.to_string());
    *object = new.clone();
    api.version.send_replace(*version);
    axum::Json(new).into_response()
}

/// The Secret each time that it is newer than `from`.
fn changes(api: Arc<Api>, from: u64) -> Response {
    let (send, receive) = tokio::sync::mpsc::channel::<Bytes>(1);
    tokio::spawn(async move {
        let mut last = from;
        let mut told = api.version.subscribe();
        loop {
            let faults = *api.faults.lock().unwrap();
            if faults.status.is_some() || faults.gone {
                return;
            }
            let secret = api.objects.lock().unwrap().1[0].1.clone();
            let version = secret["metadata"]["resourceVersion"].as_str().unwrap();
            let version: u64 = version.parse().unwrap();
            if version > last && !faults.stalled {
                last = version;
                let event = json!({"type": "MODIFIED", "object": secret});
                if send.send(format!("{event}\n").into()).await.is_err() {
                    return;
                }
            }
            tokio::select! {
                changed = told.changed() => if changed.is_err() { return },
                () = send.closed() => return,
            }
        }
    });
    Body::new(Lines(receive)).into_response()
}

struct Lines(tokio::sync::mpsc::Receiver<Bytes>);

impl http_body::Body for Lines {
    type Data = Bytes;
    type Error = std::convert::Infallible;

    fn poll_frame(
        mut self: std::pin::Pin<&mut Self>,
        context: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<Result<http_body::Frame<Bytes>, Self::Error>>> {
        let next = self.0.poll_recv(context);
        next.map(|line| line.map(|line| Ok(http_body::Frame::data(line))))
    }
}
