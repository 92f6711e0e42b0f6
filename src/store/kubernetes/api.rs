//! The API server's calls that the store makes: read and replace one object by its name, and watch
//! one Secret.
//!
//! Objects are kept as the server gave them, so that what this program does not know of stays in
//! them when they are replaced.
//!
//! Promises: every call ends within [`DEADLINE`], and a watch within [`WATCH`] and that; an object is
//! replaced only if it still is the one that was read; nothing that the server says is passed on.

use std::time::Duration;

use bytes::BytesMut;
use reqwest::{Method, RequestBuilder, Response, StatusCode};
use serde_json::Value;

use super::{Config, Unusable};
use crate::store::kubernetes::access::Token;
use crate::tls;
use crate::token::ports::StoreError;

/// How long a call may take, connecting included.
pub(super) const DEADLINE: Duration = Duration::from_secs(2);

/// How long a watch lasts before it is begun anew.
const WATCH: Duration = Duration::from_secs(240);

/// The server's own limit of an object is 1.5 MiB.
const LARGEST: usize = 4 << 20;

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
#[derive(Debug)]
pub(super) struct Api {
    http: reqwest::Client,
    config: Config,
}

impl Api {
    pub(super) fn new(config: &Config) -> Result<Api, Unusable> {
        let mut http = reqwest::Client::builder()
            .no_proxy()
            .redirect(reqwest::redirect::Policy::none())
            .connect_timeout(DEADLINE);
        let access = &config.access;
        let verified = tls::config_of_client(access.ca.as_ref(), access.identity.as_ref());
        match verified {
            Ok(verified) => http = http.tls_backend_preconfigured(verified),
            // in the clear there is nothing to verify
            Err(_) if access.server.scheme() == "http" => {
                let none = rustls::RootCertStore::empty();
                let provider = rustls::crypto::ring::default_provider();
                let builder = rustls::ClientConfig::builder_with_provider(provider.into());
                let builder = builder.with_safe_default_protocol_versions();
                let builder = builder.map_err(|_| Unusable::Client)?;
                let empty = builder.with_root_certificates(none).with_no_client_auth();
                http = http.tls_backend_preconfigured(empty);
            }
            Err(error) => return Err(error.into()),
        }
        Ok(Api {
            http: http.build().map_err(|_| Unusable::Client)?,
            config: config.clone(),
        })
    }

    /// The object of this kind.
    pub(super) async fn get(&self, kind: Kind) -> Result<Value, StoreError> {
        self.call("get", kind, async {
            let request = self.request(Method::GET, kind, &[]).await?;
            let response = request.send().await.map_err(|e| self.unreached(&e))?;
            match response.status() {
                StatusCode::OK => self.object(response).await,
                status => Err(self.refused("get", kind, status)),
            }
        })
        .await
    }

    /// Has `object`, as it was read and then changed, take the place of what was read.
    pub(super) async fn replace(&self, kind: Kind, object: &Value) -> Result<Replaced, StoreError> {
        self.call("update", kind, async {
            let request = self.request(Method::PUT, kind, &[]).await?;
            let sent = request.json(object).send().await;
            let response = sent.map_err(|e| self.unreached(&e))?;
            match response.status() {
                StatusCode::OK | StatusCode::CREATED => Ok(Replaced::Done),
                StatusCode::CONFLICT => Ok(Replaced::Conflict),
                status => Err(self.refused("update", kind, status)),
            }
        })
        .await
    }

    /// The changes of the Secret since it had this version.
    pub(super) async fn watch(&self, version: &str) -> Result<Watch, StoreError> {
        let kind = Kind::Secret;
        self.call("watch", kind, async {
            let field = format!("metadata.name={}", self.config.secret);
            let seconds = WATCH.as_secs().to_string();
            let query = [
                ("watch", "true"),
                ("fieldSelector", &field),
                ("resourceVersion", version),
                ("timeoutSeconds", &seconds),
            ];
            let request = self.request(Method::GET, kind, &query).await?;
            let response = request.send().await.map_err(|e| self.unreached(&e))?;
            match response.status() {
                StatusCode::OK => Ok(Watch {
                    response,
                    buffer: BytesMut::new(),
                }),
                status => Err(self.refused("watch", kind, status)),
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
        let ended = tokio::time::timeout(DEADLINE, call).await;
        ended.unwrap_or_else(|_elapsed| {
            Err(StoreError::Away(format!(
                "{} does not answer within {} s (to {verb} {}); see that it runs and that nothing on the way swallows what is sent",
                self.config.access,
                DEADLINE.as_secs(),
                self.name(kind),
            )))
        })
    }

    async fn request(
        &self,
        method: Method,
        kind: Kind,
        watch: &[(&str, &str)],
    ) -> Result<RequestBuilder, StoreError> {
        let config = &self.config;
        let mut url = config.access.server.clone();
        if let Ok(mut path) = url.path_segments_mut() {
            path.pop_if_empty();
            match kind {
                Kind::Secret => path.extend(["api", "v1"]),
                Kind::Lease => path.extend(["apis", "coordination.k8s.io", "v1"]),
            };
            path.extend(["namespaces", &config.namespace, resource(kind)]);
            if watch.is_empty() {
                path.push(match kind {
                    Kind::Secret => &config.secret,
                    Kind::Lease => &config.lease,
                });
            }
        }
        if !watch.is_empty() {
            url.query_pairs_mut().extend_pairs(watch);
        }
        let request = self.http.request(method, url);
        let request = request.header(http::header::ACCEPT, "application/json");
        Ok(match &config.access.token {
            Token::None => request,
            Token::Fixed(token) => request.bearer_auth(token.expose()),
            Token::File(path) => {
                let read = tokio::fs::read_to_string(path).await;
                let token = read.map_err(|e| {
                    StoreError::Away(format!(
                        "the token for {} cannot be read from {}: {e}; see that the service account's token is mounted",
                        config.access,
                        path.display()
                    ))
                })?;
                request.bearer_auth(token.trim())
            }
        })
    }

    async fn object(&self, mut response: Response) -> Result<Value, StoreError> {
        let mut body = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(|e| self.unreached(&e))? {
            body.extend_from_slice(&chunk);
            if body.len() > LARGEST {
                return Err(self.strange());
            }
        }
        let object: Value = serde_json::from_slice(&body).map_err(|_| self.strange())?;
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

    fn unreached(&self, error: &reqwest::Error) -> StoreError {
        let mut cause: &dyn std::error::Error = error;
        while let Some(deeper) = cause.source() {
            cause = deeper;
        }
        StoreError::Away(format!(
            "{} cannot be reached: {cause}; check its address, its certificate and the network policies",
            self.config.access
        ))
    }

    fn refused(&self, verb: &str, kind: Kind, status: StatusCode) -> StoreError {
        let (server, name) = (&self.config.access, self.name(kind));
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
            StatusCode::TOO_MANY_REQUESTS => {
                format!("{server} is too busy (429) to {verb} the {name}; it is tried again")
            }
            status => {
                format!("{server} answers {status} to {verb} the {name}; see what its log says")
            }
        })
    }

    fn name(&self, kind: Kind) -> String {
        match kind {
            Kind::Secret => format!("Secret {}", self.config.secret),
            Kind::Lease => format!("Lease {}", self.config.lease),
        }
    }
}

fn resource(kind: Kind) -> &'static str {
    match kind {
        Kind::Secret => "secrets",
        Kind::Lease => "leases",
    }
}

/// The version of an object.
pub(super) fn version(object: &Value) -> Option<&str> {
    object.pointer("/metadata/resourceVersion")?.as_str()
}

/// The changes of the Secret, as they come.
#[derive(Debug)]
pub(super) struct Watch {
    response: Response,
    buffer: BytesMut,
}

impl Watch {
    /// The Secret as it is after the next change; `None` once the watch is over, whatever ended
    /// it: a version that is too old (410), a broken connection, or its time. Can be dropped and
    /// called again.
    pub(super) async fn next(&mut self) -> Option<Value> {
        loop {
            if let Some(end) = self.buffer.iter().position(|&byte| byte == b'\n') {
                let line = self.buffer.split_to(end + 1);
                let mut event: Value = serde_json::from_slice(&line).ok()?;
                return match event["type"].as_str()? {
                    "ADDED" | "MODIFIED" => Some(event["object"].take()),
                    _error_or_deleted => None,
                };
            }
            let chunk = self.response.chunk().await.ok()??;
            self.buffer.extend_from_slice(&chunk);
            if self.buffer.len() > LARGEST {
                return None;
            }
        }
    }
}
