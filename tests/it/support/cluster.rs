//! A real cluster, named by `KUBECONFIG`, with the test's own Secret and Lease, which are deleted
//! at the end.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use collibra_auth_proxy::random::unique;
use collibra_auth_proxy::store::kubernetes::Config;
use collibra_auth_proxy::store::kubernetes::access::{self, Access};
use k8s_openapi::ByteString;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::Secret;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::Api;
use kube::api::{DeleteParams, Patch, PatchParams, PostParams};
use serde_json::json;
use tokio::runtime::Runtime;
use tokio::time::error::Elapsed;

use super::until;

/// The variable with the namespace, if not the context's.
const NAMESPACE: &str = "COLLIBRA_AUTH_PROXY_TEST_NAMESPACE";

/// The timeout of a call.
const PATIENCE: Duration = Duration::from_secs(20);

/// A Secret and a Lease of this name, deleted on drop.
pub(crate) struct Cluster {
    runtime: Option<Runtime>,
    client: kube::Client,
    access: Access,
    kubeconfig: PathBuf,
    namespace: String,
    name: String,
}

impl Cluster {
    /// Creates both, empty.
    pub(crate) fn enter() -> Cluster {
        let path = std::env::var_os("KUBECONFIG").expect("KUBECONFIG names a kubeconfig file");
        let kubeconfig = std::env::split_paths(&path).next().unwrap();
        let kubeconfig = kubeconfig.canonicalize().unwrap();
        let access = access::kubeconfig(std::slice::from_ref(&kubeconfig)).unwrap();
        let namespace = std::env::var(NAMESPACE);
        let namespace = namespace.unwrap_or_else(|_| access.namespace().to_owned());
        let mut runtime = tokio::runtime::Builder::new_multi_thread();
        let runtime = runtime.worker_threads(1).enable_all().build().unwrap();
        let made = access.clone();
        let client = on(&runtime, async move { made.client().await.unwrap() }).unwrap();
        let cluster = Cluster {
            runtime: Some(runtime),
            client,
            access,
            kubeconfig,
            namespace,
            name: format!("collibra-auth-proxy-test-{:08x}", unique() as u32),
        };
        cluster.create();
        cluster
    }

    fn create(&self) {
        let metadata = ObjectMeta {
            name: Some(self.name.clone()),
            ..ObjectMeta::default()
        };
        let secret = Secret {
            metadata: metadata.clone(),
            ..Secret::default()
        };
        let lease = Lease {
            metadata,
            ..Lease::default()
        };
        let (secrets, leases) = (self.secrets(), self.leases());
        self.run(async move {
            let parameters = PostParams::default();
            secrets.create(&parameters, &secret).await.unwrap();
            leases.create(&parameters, &lease).await.unwrap();
        });
    }

    /// Deletes both, and creates them again, empty.
    pub(crate) fn create_anew(&self) {
        assert!(self.delete());
        self.create();
    }

    /// Deletes both; returns whether both existed.
    fn delete(&self) -> bool {
        let (secrets, leases, name) = (self.secrets(), self.leases(), self.name.clone());
        let deleted = on(self.runtime.as_ref().unwrap(), async move {
            let parameters = DeleteParams::default();
            let secret = secrets.delete(&name, &parameters).await.is_ok();
            let lease = leases.delete(&name, &parameters).await.is_ok();
            secret && lease
        });
        // a panic while a failed test is unwound would abort all tests
        deleted.unwrap_or(false)
    }

    /// Both objects, without the record's value.
    pub(crate) fn everything(&self) -> String {
        let (secrets, leases, name) = (self.secrets(), self.leases(), self.name.clone());
        self.run(async move {
            let (secret, lease) = (secrets.get(&name).await, leases.get(&name).await);
            let mut secret = secret.unwrap();
            let names: Vec<_> = secret
                .data
                .take()
                .into_iter()
                .flatten()
                .map(|(k, _)| k)
                .collect();
            let both = json!([secret, lease.unwrap(), names]);
            both.to_string()
        })
    }

    fn secrets(&self) -> Api<Secret> {
        Api::namespaced(self.client.clone(), &self.namespace)
    }

    fn leases(&self) -> Api<Lease> {
        Api::namespaced(self.client.clone(), &self.namespace)
    }

    fn run<T: Send>(&self, what: impl Future<Output = T> + Send) -> T {
        on(self.runtime.as_ref().unwrap(), what).unwrap()
    }

    /// The store's configuration.
    pub(crate) fn config(&self) -> Config {
        Config {
            access: self.access.clone(),
            namespace: self.namespace.clone(),
            secret: self.name.clone(),
            lease: self.name.clone(),
        }
    }

    /// The `[store]` table of a proxy.
    pub(crate) fn store(&self) -> String {
        let (name, namespace) = (&self.name, &self.namespace);
        let kubeconfig = self.kubeconfig.display();
        format!(
            "kind = \"kubernetes\"\nnamespace = \"{namespace}\"\nsecret = \"{name}\"\nlease = \"{name}\"\nkubeconfig = \"{kubeconfig}\""
        )
    }

    fn data(&self) -> BTreeMap<String, ByteString> {
        let (secrets, name) = (self.secrets(), self.name.clone());
        let secret = self.run(async move { secrets.get(&name).await.unwrap() });
        secret.data.unwrap_or_default()
    }

    /// Waits for the one record in the Secret.
    pub(crate) fn record(&self) -> Vec<u8> {
        until("a record in the Secret", || {
            self.data().into_values().next().map(|value| value.0)
        })
    }

    /// Sets every record in the Secret.
    pub(crate) fn put(&self, record: &[u8]) {
        let value = ByteString(record.to_owned());
        let keys = self.data().into_keys();
        let data: BTreeMap<_, _> = keys.map(|key| (key, value.clone())).collect();
        self.patch_secret(json!({"data": data}));
    }

    /// Empties both.
    pub(crate) fn forget(&self) {
        self.patch_secret(json!({"data": null}));
        self.patch_lease(json!({"metadata": {"annotations": null}, "spec": null}));
    }

    /// Changes the Secret.
    pub(crate) fn patch_secret(&self, patch: serde_json::Value) {
        let (secrets, name) = (self.secrets(), self.name.clone());
        self.run(async move {
            let patch = Patch::Merge(patch);
            let parameters = PatchParams::default();
            secrets.patch(&name, &parameters, &patch).await.unwrap();
        });
    }

    /// Changes the Lease.
    pub(crate) fn patch_lease(&self, patch: serde_json::Value) {
        let (leases, name) = (self.leases(), self.name.clone());
        self.run(async move {
            let patch = Patch::Merge(patch);
            let parameters = PatchParams::default();
            leases.patch(&name, &parameters, &patch).await.unwrap();
        });
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        if !self.delete() {
            eprintln!("Secret and Lease {} may be left behind", self.name);
        }
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

/// Runs a future on the runtime, even from within another one.
fn on<T: Send>(runtime: &Runtime, what: impl Future<Output = T> + Send) -> Result<T, Elapsed> {
    let bounded = async { tokio::time::timeout(PATIENCE, what).await };
    std::thread::scope(|scope| scope.spawn(|| runtime.block_on(bounded)).join().unwrap())
}
