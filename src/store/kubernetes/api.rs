//! The API server's calls that the store needs: read, replace and watch one object by name.
//!
//! The library connects, authenticates and encodes the calls. Responses are decoded here. Objects
//! stay as the server sent them, so that unknown fields survive a replacement. No response is read
//! beyond [`LARGEST`], and none is logged; the library would log what it cannot decode.
//!
//! Guarantees: every call ends within [`DEADLINE`], or [`DEADLINE_OF_A_PROGRAM`]. An object is
//! replaced only in the version that was read. No message quotes the server.

use std::fmt;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use bytes::BytesMut;
use http::header::RETRY_AFTER;
use http::{HeaderMap, Request, Response, StatusCode};
use http_body_util::BodyExt;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::Secret;
use kube::Resource;
use kube::api::{GetParams, PostParams, WatchParams};
use kube::client::{AuthError, Body};
use kube::core::{Request as Build, request};
use serde_json::Value;
use tokio::sync::Mutex;

use super::Config;
use super::object::version;
use crate::clock::{Clock, Instant};
use crate::token::ports::StoreError;

/// The timeout of a call, connecting included.
pub(super) const DEADLINE: Duration = Duration::from_secs(2);

/// The same if an external program logs in, which it may do before a call.
const DEADLINE_OF_A_PROGRAM: Duration = Duration::from_secs(15);

/// The duration of a watch, in seconds.
const WATCH: u32 = 240;

/// The version that a watch starts from: any, so that it begins with the current object. The
/// Secret's own version may have been compacted by the server, because it ages while other objects
/// change.
const ANY: &str = "0";

/// How long before its certificate expires a client is replaced.
const EARLY: Duration = Duration::from_secs(60);

/// The longest time for which an overloaded server is spared, whatever its `Retry-After`.
const QUIET: Duration = Duration::from_secs(30);

/// The largest object, or change of one, that is read, in bytes. Ours have some KiB; what is parsed
/// can take 80 times as much memory.
const LARGEST: usize = 512 << 10;

/// The kinds of objects.
#[derive(Clone, Copy, Debug)]
pub(super) enum Kind {
    Secret,
    Lease,
}

/// The result of a replacement.
#[derive(Debug)]
pub(super) enum Replaced {
    /// The object was replaced.
    Done,
    /// Another process replaced it first.
    Conflict,
}

/// The API server, with the two objects.
pub(super) struct Api {
    config: Config,
    clock: Arc<dyn Clock>,
    deadline: Duration,
    /// Made for the first call; replaced if its certificate expires or is rejected.
    client: Mutex<Option<kube::Client>>,
    /// The time before which the server wants no calls.
    quiet_until: std::sync::Mutex<Option<Instant>>,
}

impl Api {
    pub(super) fn new(config: &Config, clock: Arc<dyn Clock>) -> Api {
        Api {
            config: config.clone(),
            clock,
            deadline: match config.access.runs_a_program() {
                true => DEADLINE_OF_A_PROGRAM,
                false => DEADLINE,
            },
            client: Mutex::default(),
            quiet_until: std::sync::Mutex::default(),
        }
    }

    /// Reads the object of this kind.
    pub(super) async fn get(&self, kind: Kind) -> Result<Value, StoreError> {
        self.call("get", kind, async {
            let request = self.path(kind).get(self.name(kind), &GetParams::default());
            let response = self.send(request).await?;
            match response.status() {
                StatusCode::OK => self.object(response.into_body()).await,
                _ => Err(self.refused("get", kind, response).await),
            }
        })
        .await
    }

    /// Replaces an object by `object`, which was read and then changed.
    pub(super) async fn replace(&self, kind: Kind, object: &Value) -> Result<Replaced, StoreError> {
        self.call("update", kind, async {
            let parameters = PostParams::default();
            let object = object.to_string().into_bytes();
            let request = { self.path(kind) }.replace(self.name(kind), &parameters, object);
            let response = self.send(request).await?;
            match response.status() {
                StatusCode::OK | StatusCode::CREATED => Ok(Replaced::Done),
                StatusCode::CONFLICT => Ok(Replaced::Conflict),
                _ => Err(self.refused("update", kind, response).await),
            }
        })
        .await
    }

    /// Watches the object of this kind: its current state, and its changes.
    pub(super) async fn watch(&self, kind: Kind) -> Result<Watch, StoreError> {
        self.call("watch", kind, async {
            let field = format!("metadata.name={}", self.name(kind));
            let parameters = { WatchParams::default().fields(&field) }
                .timeout(WATCH)
                .disable_bookmarks();
            let response = self.send(self.path(kind).watch(&parameters, ANY)).await?;
            match response.status() {
                StatusCode::OK => Ok(Watch {
                    body: response.into_body(),
                    buffer: BytesMut::new(),
                }),
                _ => Err(self.refused("watch", kind, response).await),
            }
        })
        .await
    }

    async fn call<T>(
        &self,
        verb: &str,
        kind: Kind,
        call: impl Future<Output = Result<T, StoreError>>,
    ) -> Result<T, StoreError> {
        if self.is_left_alone() {
            return Err(StoreError::Unavailable(self.too_busy(verb, kind)));
        }
        let ended = tokio::time::timeout(self.deadline, call).await;
        ended.unwrap_or_else(|_elapsed| {
            Err(StoreError::Unavailable(format!(
                "{} does not answer within {} s (to {verb} {}); see that it runs and that no network policy drops the packets",
                self.config.access,
                self.deadline.as_secs(),
                self.described(kind),
            )))
        })
    }

    /// As the server wants it in `Retry-After` (RFC 9110, section 10.2.3; it writes seconds).
    fn leave_alone(&self, headers: &HeaderMap) {
        let after = headers
            .get(RETRY_AFTER)
            .and_then(|value| value.to_str().ok());
        let after = after.and_then(|value| value.trim().parse().ok());
        let after = after.map_or(Duration::from_secs(1), Duration::from_secs);
        let until = self.clock.now() + after.min(QUIET);
        *self
            .quiet_until
            .lock()
            .unwrap_or_else(PoisonError::into_inner) = Some(until);
    }

    fn is_left_alone(&self) -> bool {
        let until = *self
            .quiet_until
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        until.is_some_and(|until| self.clock.now() < until)
    }

    fn path(&self, kind: Kind) -> Build {
        let namespace = Some(&*self.config.namespace);
        Build::new(match kind {
            Kind::Secret => Secret::url_path(&(), namespace),
            Kind::Lease => Lease::url_path(&(), namespace),
        })
    }

    async fn send(
        &self,
        request: Result<Request<Vec<u8>>, request::Error>,
    ) -> Result<Response<Body>, StoreError> {
        // only a name that cannot stand in an URL, which the configuration does not let through
        let request = request.map_err(|_| self.strange())?;
        let client = self.client().await?;
        let sent = client.send(request.map(Body::from)).await;
        sent.map_err(|error| self.unreached(&error))
    }

    async fn client(&self) -> Result<kube::Client, StoreError> {
        let mut held = self.client.lock().await;
        if let Some(client) = &*held {
            let soon = jiff::Timestamp::try_from(self.clock.wall() + EARLY).unwrap_or_default();
            if client.valid_until().is_none_or(|end| soon < end) {
                return Ok(client.clone());
            }
        }
        let made = self.config.access.client().await;
        let client = made.map_err(|problem| {
            StoreError::Unavailable(format!("{}: {problem}", self.config.access))
        })?;
        *held = Some(client.clone());
        Ok(client)
    }

    async fn object(&self, mut body: Body) -> Result<Value, StoreError> {
        let mut object = Vec::new();
        while let Some(frame) = body.frame().await {
            let frame = frame.map_err(|error| self.unreached(&error))?;
            object.extend_from_slice(&frame.into_data().unwrap_or_default());
            if object.len() > LARGEST {
                return Err(self.strange());
            }
        }
        let object: Value = serde_json::from_slice(&object).map_err(|_| self.strange())?;
        match version(&object) {
            Some(_) => Ok(object),
            None => Err(self.strange()),
        }
    }

    fn strange(&self) -> StoreError {
        StoreError::Unavailable(format!(
            "{} does not answer with a Kubernetes object; check its address",
            self.config.access
        ))
    }

    fn unreached(&self, error: &(dyn std::error::Error + 'static)) -> StoreError {
        let server = &self.config.access;
        let mut cause = error;
        loop {
            // its words may be a program's
            if cause.is::<AuthError>() {
                return StoreError::Unavailable(format!(
                    "{server}: the kubeconfig's login program fails; run it by hand, as this user, and read its output"
                ));
            }
            match cause.source() {
                Some(deeper) => cause = deeper,
                None => break,
            }
        }
        StoreError::Unavailable(format!(
            "{server} cannot be reached: {cause}; check its address, its certificate and the network policies",
        ))
    }

    async fn refused(&self, verb: &str, kind: Kind, answer: Response<Body>) -> StoreError {
        let (answer, _) = answer.into_parts();
        let status = answer.status;
        match status {
            // what it shows may have been renewed where it stands
            StatusCode::UNAUTHORIZED => *self.client.lock().await = None,
            StatusCode::TOO_MANY_REQUESTS => self.leave_alone(&answer.headers),
            _ => {}
        }
        let (server, name) = (&self.config.access, self.described(kind));
        let namespace = &self.config.namespace;
        StoreError::Unavailable(match status {
            StatusCode::NOT_FOUND => format!(
                "{server} has no {name} in the namespace {namespace}; create it, empty, with the deployment's manifests: this program may not create it"
            ),
            StatusCode::FORBIDDEN => format!(
                "{server} does not let this user {verb} the {name} in the namespace {namespace}; bind it to a Role with the verbs get, update and watch for that name"
            ),
            StatusCode::UNAUTHORIZED => format!(
                "{server} does not accept the token or the certificate; see that the service account's token is mounted, or renew that of the kubeconfig"
            ),
            StatusCode::TOO_MANY_REQUESTS => self.too_busy(verb, kind),
            StatusCode::UNPROCESSABLE_ENTITY => format!(
                "{server} rejects the update of the {name} (422): it is immutable or full; delete it and create it again, empty"
            ),
            status => {
                format!("{server} answers {status} to {verb} the {name}; check its log")
            }
        })
    }

    fn too_busy(&self, verb: &str, kind: Kind) -> String {
        let (server, name) = (&self.config.access, self.described(kind));
        format!("{server} is too busy (429) to {verb} the {name}; it will be retried")
    }

    fn name(&self, kind: Kind) -> &str {
        match kind {
            Kind::Secret => &self.config.secret,
            Kind::Lease => &self.config.lease,
        }
    }

    fn described(&self, kind: Kind) -> String {
        format!("{kind:?} {}", self.name(kind))
    }
}

impl fmt::Debug for Api {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Api")
            .field("config", &self.config)
            .finish_non_exhaustive()
    }
}

/// The changes of an object, as they come.
pub(super) struct Watch {
    body: Body,
    buffer: BytesMut,
}

impl Watch {
    /// The object as it is after the next change, first as it is; `None` once the watch is over,
    /// whatever ended it: a version that is too old (410), a broken connection, or its time. Can be
    /// dropped and called again.
    pub(super) async fn next(&mut self) -> Option<Value> {
        loop {
            while let Some(end) = self.buffer.iter().position(|&byte| byte == b'\n') {
                let line = self.buffer.split_to(end + 1);
                let mut event: Value = serde_json::from_slice(&line).ok()?;
                match event["type"].as_str()? {
                    "ADDED" | "MODIFIED" => return Some(event["object"].take()),
                    "BOOKMARK" => {}
                    _error_or_deleted => return None,
                }
            }
            let frame = self.body.frame().await?.ok()?;
            let chunk = frame.into_data().unwrap_or_default();
            self.buffer.extend_from_slice(&chunk);
            if self.buffer.len() > LARGEST {
                return None;
            }
        }
    }
}
