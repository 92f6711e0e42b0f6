//! The API server's calls that the store makes: read and replace one object by its name, and watch
//! it.
//!
//! The way there, who asks, and how a call is written are the library's. What is answered is read
//! here: objects are kept as the server gave them, so that what this program does not know of stays
//! in them when they are replaced; none is read beyond [`LARGEST`]; and none is shown in a log, where
//! the library puts what it cannot read.
//!
//! Promises: every call ends within [`DEADLINE`], or [`DEADLINE_OF_A_PROGRAM`]; an object is replaced
//! only if it still is the one that was read; nothing that the server says is passed on.

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

/// How long a call may take, connecting included.
pub(super) const DEADLINE: Duration = Duration::from_secs(2);

/// The same where another program logs in, before a call now and then.
const DEADLINE_OF_A_PROGRAM: Duration = Duration::from_secs(15);

/// How long a watch lasts before it is begun anew, in seconds.
const WATCH: u32 = 240;

/// The version from which a watch goes on: any, so that it begins with what is there. The Secret's own
/// may be one that the server has forgotten, for it grows old while others change.
const ANY: &str = "0";

/// A client whose certificate ends is made anew so long before.
const EARLY: Duration = Duration::from_secs(60);

/// For so long a server that is too busy is left alone at most, whatever it says.
const QUIET: Duration = Duration::from_secs(30);

/// The largest object, or change of one, that is read, in bytes. Ours have some KiB; what is parsed can
/// take 80 times as much memory.
const LARGEST: usize = 512 << 10;

/// What can be named.
#[derive(Clone, Copy, Debug)]
pub(super) enum Kind {
    Secret,
    Lease,
}

/// What comes of replacing an object.
#[derive(Debug)]
pub(super) enum Replaced {
    /// It was.
    Done,
    /// Another replaced it first.
    Conflict,
}

/// The server, and the two objects there.
pub(super) struct Api {
    config: Config,
    clock: Arc<dyn Clock>,
    deadline: Duration,
    /// Made for the first call; again if its certificate ends, or if it is not accepted.
    client: Mutex<Option<kube::Client>>,
    /// Until when the server wants to be left alone.
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

    /// The object of this kind.
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

    /// Has `object`, as it was read and then changed, take the place of what was read.
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

    /// The object of this kind as it is, and its changes from now on.
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
            return Err(StoreError::Away(self.too_busy(verb, kind)));
        }
        let ended = tokio::time::timeout(self.deadline, call).await;
        ended.unwrap_or_else(|_elapsed| {
            Err(StoreError::Away(format!(
                "{} does not answer within {} s (to {verb} {}); see that it runs and that nothing on the way swallows what is sent",
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
        let client =
            made.map_err(|problem| StoreError::Away(format!("{}: {problem}", self.config.access)))?;
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
        StoreError::Away(format!(
            "{} answers with something that is no object of Kubernetes; check its address",
            self.config.access
        ))
    }

    fn unreached(&self, error: &(dyn std::error::Error + 'static)) -> StoreError {
        let server = &self.config.access;
        let mut cause = error;
        loop {
            // its words may be a program's
            if cause.is::<AuthError>() {
                return StoreError::Away(format!(
                    "{server}: the program that the kubeconfig's user logs in by fails; run it by hand, as this user, and see what it says"
                ));
            }
            match cause.source() {
                Some(deeper) => cause = deeper,
                None => break,
            }
        }
        StoreError::Away(format!(
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
        StoreError::Away(match status {
            StatusCode::NOT_FOUND => format!(
                "{server} has no {name} in the namespace {namespace}; create it, empty, by the manifests of the deployment, for this program may not"
            ),
            StatusCode::FORBIDDEN => format!(
                "{server} does not let this user {verb} the {name} in the namespace {namespace}; bind it to a Role with the verbs get, update and watch for that name"
            ),
            StatusCode::UNAUTHORIZED => format!(
                "{server} does not accept the token or the certificate; see that the service account's token is mounted, or renew that of the kubeconfig"
            ),
            StatusCode::TOO_MANY_REQUESTS => self.too_busy(verb, kind),
            StatusCode::UNPROCESSABLE_ENTITY => format!(
                "{server} does not take the {name} as it is kept there (422): an immutable one, or one that is full; delete it, and create it anew, empty"
            ),
            status => {
                format!("{server} answers {status} to {verb} the {name}; see what its log says")
            }
        })
    }

    fn too_busy(&self, verb: &str, kind: Kind) -> String {
        let (server, name) = (&self.config.access, self.described(kind));
        format!("{server} is too busy (429) to {verb} the {name}; it is tried again")
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
