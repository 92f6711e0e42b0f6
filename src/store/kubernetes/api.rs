//! The API server's calls that the store needs: read, replace and watch one object by name.
//!
//! The library connects, authenticates and encodes the calls. Responses are decoded here. Objects
//! stay as the server sent them, so that unknown fields survive a replacement. No response is read
//! beyond [`LARGEST`], and none is logged; the library would log what it cannot decode.
//!
//! Guarantees: every call ends within [`DEADLINE`], or [`DEADLINE_OF_A_PROGRAM`]. An object is
//! replaced only in the version that was read. No message quotes the server.

use std::fmt;
use std::future::ready;
use std::iter::successors;
use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;
use http::header::RETRY_AFTER;
use http::response::Parts;
use http::{HeaderMap, Request, StatusCode};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use kube::api::{GetParams, PostParams, WatchParams};
use kube::client::{AuthError, Body};
use kube::core::{Request as Build, request};
use serde_json::Value;
use tokio::sync::Mutex;

use super::Config;
use super::object::version;
use crate::clock::{Clock, Instant};
use crate::random::{Jitter, ThreadJitter};
use crate::store::locked;
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

/// The longest pause after a conflict.
const CONFLICT: Duration = Duration::from_millis(40);

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

/// The API server, with the two objects.
pub(super) struct Api {
    config: Config,
    clock: Arc<dyn Clock>,
    deadline: Duration,
    /// Made for the first call; replaced if its certificate expires or is rejected.
    client: Mutex<Option<kube::Client>>,
    /// The time before which the server wants no calls.
    quiet_until: std::sync::Mutex<Instant>,
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
            quiet_until: std::sync::Mutex::new(Instant::ORIGIN),
        }
    }

    /// Reads the object of this kind.
    pub(super) async fn get(&self, kind: Kind) -> Result<Value, StoreError> {
        let request = { self.path(kind) }.get(self.name(kind), &GetParams::default());
        self.call("get", kind, request, |body| self.object(body))
            .await
    }

    /// Replaces an object by `object`, which was read and then changed. Returns whether it still
    /// was the one that was read; if not, only after a pause, so that others can replace it.
    pub(super) async fn replace(&self, kind: Kind, object: &Value) -> Result<bool, StoreError> {
        let object = object.to_string().into_bytes();
        let request = { self.path(kind) }.replace(self.name(kind), &PostParams::default(), object);
        match self.call("update", kind, request, |_| ready(Ok(()))).await {
            Err(StoreError::Conflict(_)) => {
                let pause = CONFLICT.mul_f64(ThreadJitter.next());
                tokio::time::sleep(pause).await;
                Ok(false)
            }
            replaced => replaced.map(|()| true),
        }
    }

    /// Watches the object of this kind: its current state, and its changes.
    pub(super) async fn watch(&self, kind: Kind) -> Result<Watch, StoreError> {
        let field = format!("metadata.name={}", self.name(kind));
        let parameters = { WatchParams::default().fields(&field) }
            .timeout(WATCH)
            .disable_bookmarks();
        let request = self.path(kind).watch(&parameters, ANY);
        let watch = |body| {
            let buffer = BytesMut::new();
            ready(Ok(Watch { body, buffer }))
        };
        self.call("watch", kind, request, watch).await
    }

    /// Sends `request` and returns what `read` makes of the response's body, all within the
    /// deadline.
    async fn call<T, F: Future<Output = Result<T, StoreError>>>(
        &self,
        verb: &str,
        kind: Kind,
        request: Result<Request<Vec<u8>>, request::Error>,
        read: impl FnOnce(Body) -> F,
    ) -> Result<T, StoreError> {
        let quiet_until = *locked(&self.quiet_until);
        if self.clock.now() < quiet_until {
            return Err(self.too_busy(verb, kind));
        }
        let call = async {
            // only a name that cannot stand in an URL, which the configuration does not let through
            let request = request.map_err(|_| self.strange())?.map(Body::from);
            let sent = self.client().await?.send(request).await;
            let (head, body) = sent.map_err(|error| self.unreached(&error))?.into_parts();
            match head.status {
                StatusCode::OK | StatusCode::CREATED => read(body).await,
                _ => Err(self.refused(verb, kind, &head).await),
            }
        };
        let ended = tokio::time::timeout(self.deadline, call).await;
        ended.unwrap_or_else(|_elapsed| {
            let (seconds, name) = (self.deadline.as_secs(), self.described(kind));
            Err(self.unavailable(format_args!(
                " does not answer within {seconds} s (to {verb} {name}); see that it runs and that no network policy drops the packets"
            )))
        })
    }

    /// Makes no calls as long as the server wants it in `Retry-After` (RFC 9110, section 10.2.3; it
    /// writes seconds).
    fn leave_alone(&self, headers: &HeaderMap) {
        let after = { headers.get(RETRY_AFTER) }.and_then(|value| value.to_str().ok());
        let after = after.and_then(|value| value.trim().parse().ok());
        let after = after.map_or(Duration::from_secs(1), Duration::from_secs);
        *locked(&self.quiet_until) = self.clock.now() + after.min(QUIET);
    }

    fn path(&self, kind: Kind) -> Build {
        let namespace = &self.config.namespace;
        Build::new(match kind {
            Kind::Secret => format!("/api/v1/namespaces/{namespace}/secrets"),
            Kind::Lease => format!("/apis/coordination.k8s.io/v1/namespaces/{namespace}/leases"),
        })
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
        let client = made.map_err(|problem| self.unavailable(format_args!(": {problem}")))?;
        *held = Some(client.clone());
        Ok(client)
    }

    async fn object(&self, body: Body) -> Result<Value, StoreError> {
        let read = Limited::new(body, LARGEST).collect().await;
        let read = read.map_err(|error| match error.is::<LengthLimitError>() {
            true => self.strange(),
            false => self.unreached(&*error),
        })?;
        let object: Option<Value> = serde_json::from_slice(&read.to_bytes()).ok();
        let object = object.filter(|object| version(object).is_some());
        object.ok_or_else(|| self.strange())
    }

    /// The error whose message is the server's address and `problem`.
    fn unavailable(&self, problem: impl fmt::Display) -> StoreError {
        StoreError::Unavailable(format!("{}{problem}", self.config.access))
    }

    fn strange(&self) -> StoreError {
        self.unavailable(" does not answer with a Kubernetes object; check its address")
    }

    fn too_busy(&self, verb: &str, kind: Kind) -> StoreError {
        let name = self.described(kind);
        self.unavailable(format_args!(
            " is too busy (429) to {verb} the {name}; it will be retried"
        ))
    }

    fn unreached(&self, error: &(dyn std::error::Error + 'static)) -> StoreError {
        let causes: Vec<_> = successors(Some(error), |error| error.source()).collect();
        // not quoted, because the program's output may contain secrets
        if causes.iter().any(|cause| cause.is::<AuthError>()) {
            return self.unavailable(
                ": the kubeconfig's login program fails; run it by hand, as this user, and read its output",
            );
        }
        let cause = causes.last().unwrap_or(&error);
        self.unavailable(format_args!(
            " cannot be reached: {cause}; check its address, its certificate and the network policies"
        ))
    }

    async fn refused(&self, verb: &str, kind: Kind, response: &Parts) -> StoreError {
        let (name, namespace) = (self.described(kind), &self.config.namespace);
        let problem = match response.status {
            StatusCode::CONFLICT => {
                return StoreError::Conflict(format!("another process replaced the {name}"));
            }
            StatusCode::TOO_MANY_REQUESTS => {
                self.leave_alone(&response.headers);
                return self.too_busy(verb, kind);
            }
            StatusCode::UNAUTHORIZED => {
                // the token or the certificate may have been renewed in place
                *self.client.lock().await = None;
                " does not accept the token or the certificate; see that the service account's token is mounted, or renew that of the kubeconfig".to_owned()
            }
            StatusCode::NOT_FOUND => format!(
                " has no {name} in the namespace {namespace}; create it, empty, with the deployment's manifests: this program may not create it"
            ),
            StatusCode::FORBIDDEN => format!(
                " does not let this user {verb} the {name} in the namespace {namespace}; bind it to a Role with the verbs get, update and watch for that name"
            ),
            StatusCode::UNPROCESSABLE_ENTITY => format!(
                " rejects the update of the {name} (422): it is immutable or full; delete it and create it again, empty"
            ),
            status => format!(" answers {status} to {verb} the {name}; check its log"),
        };
        self.unavailable(problem)
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
                    // not requested, but accepted
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
