//! A stand-in for an API server, as strict as a real one: a Secret and a Lease with versions, a
//! Role for them, a watch, and faults.

mod answers;
mod rules;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use axum::http::StatusCode;
use serde_json::{Value, json};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Runtime;
use tokio::sync::watch;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_util::either::Either;

use super::certificate::Authority;
use super::until;
use answers::{Api, LEASE, Objects, SECRET};

/// The token with the Role's permissions.
const TOKEN: &str = "k4n4ri-5f2b";

/// The token with all permissions.
const OPERATOR: &str = "k4n4ri-op3r";

/// A running stand-in; it keeps its objects while it is stopped.
pub(crate) struct Kubernetes {
    api: Arc<Api>,
    address: SocketAddr,
    runtime: Option<Runtime>,
    tls: Option<TlsAcceptor>,
    folder: tempfile::TempDir,
}

/// Its faults.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Faults {
    /// So many replacements get 409, regardless of their version.
    pub(crate) conflicts: u32,
    /// Every call gets this status, and every watch ends.
    pub(crate) status: Option<StatusCode>,
    /// Watches get 410.
    pub(crate) gone: bool,
    /// Watches start well, then report 410 and end.
    pub(crate) gone_later: bool,
    /// Watches stay open and report nothing.
    pub(crate) stalled: bool,
    /// Responses and events are truncated, but replacements take effect.
    pub(crate) cut: bool,
    /// A dry run of a creation succeeds, and the creation gets 500.
    pub(crate) keeps_nothing: bool,
    /// The delay of every response.
    pub(crate) slow: Duration,
    /// The verbs that the Role lacks, each with its object.
    pub(crate) forbidden: &'static [(&'static str, &'static str)],
}

impl Kubernetes {
    /// Starts one with an empty Secret `token` and an empty Lease `lease` in the namespace `test`,
    /// for callers with a bearer token.
    pub(crate) fn start() -> Kubernetes {
        Kubernetes::over(None, false)
    }

    /// As [`Kubernetes::start`], over TLS and for callers with a client certificate.
    pub(crate) fn with_certificates() -> Kubernetes {
        let (own, clients) = (Authority::new(), Authority::new());
        let acceptor = TlsAcceptor::from(own.server_for("localhost", &clients));
        let files = clients.files("test");
        let server = Kubernetes::over(Some(acceptor), true);
        server.put("ca.crt", &own.ca_file());
        server.put("client.pem", &files.cert);
        server.put("client.key", &files.key);
        server
    }

    /// As [`Kubernetes::start`], over TLS.
    pub(crate) fn with_tokens_by_tls() -> Kubernetes {
        let own = Authority::new();
        let server = Kubernetes::over(Some(TlsAcceptor::from(own.server("localhost"))), false);
        server.put("ca.crt", &own.ca_file());
        server
    }

    /// A directory with the files of a service account.
    pub(crate) fn service_account(&self) -> PathBuf {
        let folder = self.folder.path();
        std::fs::write(folder.join("token"), TOKEN).unwrap();
        std::fs::write(folder.join("namespace"), "test").unwrap();
        folder.to_owned()
    }

    fn put(&self, name: &str, from: &Path) {
        std::fs::copy(from, self.folder.path().join(name)).unwrap();
    }

    fn over(tls: Option<TlsAcceptor>, by_certificate: bool) -> Kubernetes {
        let objects = Objects::new();
        let version = watch::Sender::new(objects.version);
        let api = Arc::new(Api {
            by_certificate,
            objects: objects.into(),
            faults: Default::default(),
            counts: Default::default(),
            version,
        });
        let mut server = Kubernetes {
            api,
            address: "127.0.0.1:0".parse().unwrap(),
            runtime: None,
            tls,
            folder: tempfile::tempdir().unwrap(),
        };
        server.go_on();
        let port = server.address.port();
        let cluster = match server.tls {
            Some(_) => {
                format!("server: \"https://localhost:{port}\", certificate-authority: ca.crt")
            }
            None => format!("server: \"http://127.0.0.1:{port}\""),
        };
        let user = match by_certificate {
            true => "client-certificate: client.pem, client-key: client.key".to_owned(),
            false => format!("token: {TOKEN}"),
        };
        server.write("config", &cluster, &user);
        server
    }

    fn write(&self, name: &str, cluster: &str, user: &str) -> PathBuf {
        let text = format!(
            "current-context: test\ncontexts:\n- name: test\n  context: {{cluster: test, user: test, namespace: test}}\n\
             clusters:\n- name: test\n  cluster: {{{cluster}}}\n\
             users:\n- name: test\n  user: {{{user}}}\n"
        );
        let path = self.folder.path().join(name);
        std::fs::write(&path, text).unwrap();
        path
    }

    /// Starts it again after [`Kubernetes::stop`], with its objects and at the same address.
    pub(crate) fn go_on(&mut self) {
        let listener = std::net::TcpListener::bind(self.address).unwrap();
        listener.set_nonblocking(true).unwrap();
        self.address = listener.local_addr().unwrap();
        let mut runtime = tokio::runtime::Builder::new_multi_thread();
        let runtime = runtime.worker_threads(1).enable_all().build().unwrap();
        let router = axum::Router::new()
            .fallback(answers::answer)
            .with_state(Arc::clone(&self.api));
        let tls = self.tls.clone();
        runtime.spawn(async move {
            let listener = TcpListener::from_std(listener).unwrap();
            axum::serve(Door { listener, tls }, router).await
        });
        self.runtime = Some(runtime);
    }

    /// Stops it at once, with all connections.
    pub(crate) fn stop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_timeout(Duration::from_secs(5));
        }
    }

    /// A kubeconfig file for it.
    pub(crate) fn kubeconfig(&self) -> PathBuf {
        self.folder.path().join("config")
    }

    /// A kubeconfig file for it at another port, without TLS.
    pub(crate) fn kubeconfig_by(&self, port: u16) -> PathBuf {
        let cluster = format!("server: \"http://127.0.0.1:{port}\"");
        self.write("by", &cluster, &format!("token: {TOKEN}"))
    }

    /// A kubeconfig file with all permissions.
    pub(crate) fn operator_kubeconfig(&self) -> PathBuf {
        let cluster = format!("server: \"{}\"", self.url());
        self.write("operator", &cluster, &format!("token: {OPERATOR}"))
    }

    /// Its port.
    pub(crate) fn port(&self) -> u16 {
        self.address.port()
    }

    /// Its address, as messages have it.
    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Applies these faults from now on.
    pub(crate) fn does(&self, faults: Faults) {
        *self.api.faults.lock().unwrap() = faults;
        // open watches notice it
        self.api.version.send_modify(|_| {});
    }

    /// How often each verb was called.
    pub(crate) fn counts(&self) -> BTreeMap<String, u64> {
        self.api.counts.lock().unwrap().clone()
    }

    /// The Secret.
    pub(crate) fn secret(&self) -> Value {
        self.api.objects.lock().unwrap().all[SECRET].clone()
    }

    /// The Secret of this name, if there is one.
    pub(crate) fn secret_named(&self, name: &str) -> Option<Value> {
        let path = SECRET.replace("/token", &format!("/{name}"));
        self.api.objects.lock().unwrap().all.get(&path).cloned()
    }

    /// The Lease.
    pub(crate) fn lease(&self) -> Value {
        self.api.objects.lock().unwrap().all[LEASE].clone()
    }

    /// Changes the Secret with all permissions.
    pub(crate) fn edit_secret(&self, change: impl FnOnce(&mut Value)) {
        self.edit(SECRET, change);
    }

    /// Changes the Lease.
    pub(crate) fn edit_lease(&self, change: impl FnOnce(&mut Value)) {
        self.edit(LEASE, change);
    }

    fn edit(&self, path: &str, change: impl FnOnce(&mut Value)) {
        let mut objects = self.api.objects.lock().unwrap();
        let mut object = objects.all[path].clone();
        change(&mut object);
        objects.put(path, object);
        self.api.version.send_replace(objects.version);
    }

    /// Deletes both, and creates them again, empty.
    pub(crate) fn create_anew(&self) {
        let mut objects = self.api.objects.lock().unwrap();
        objects.delete(SECRET).unwrap();
        objects.delete(LEASE).unwrap();
        objects.put(SECRET, answers::fresh("v1", "Secret", "token"));
        let lease = answers::fresh("coordination.k8s.io/v1", "Lease", "lease");
        objects.put(LEASE, lease);
        self.api.version.send_replace(objects.version);
    }

    /// Waits for the one value in the Secret, in base64.
    pub(crate) fn record(&self) -> String {
        until("a record in the Secret", || {
            let secret = self.secret();
            let values = secret["data"].as_object()?;
            let value = values.values().next()?;
            value.as_str().map(str::to_owned)
        })
    }

    /// Sets every value in the Secret, in base64.
    pub(crate) fn put_record(&self, value: &str) {
        self.edit_secret(|secret| {
            let values = secret["data"].as_object_mut().into_iter();
            for content in values.flat_map(|values| values.values_mut()) {
                *content = json!(value);
            }
        });
    }
}

impl Drop for Kubernetes {
    fn drop(&mut self) {
        // it may be dropped on another runtime, which must not block
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

/// Where it is entered.
struct Door {
    listener: TcpListener,
    tls: Option<TlsAcceptor>,
}

impl axum::serve::Listener for Door {
    type Io = Either<TcpStream, TlsStream<TcpStream>>;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Self::Io, SocketAddr) {
        loop {
            let Ok((stream, address)) = self.listener.accept().await else {
                continue;
            };
            let Some(tls) = &self.tls else {
                return (Either::Left(stream), address);
            };
            let shaken = tokio::time::timeout(Duration::from_secs(1), tls.accept(stream)).await;
            if let Ok(Ok(stream)) = shaken {
                return (Either::Right(stream), address);
            }
        }
    }

    fn local_addr(&self) -> std::io::Result<SocketAddr> {
        self.listener.local_addr()
    }
}
