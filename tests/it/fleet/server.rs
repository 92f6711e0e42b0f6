//! The servers of a shared store: the same promises hold for each kind.

use std::sync::Arc;

use collibra_auth_proxy::client_id::ClientId;
use collibra_auth_proxy::clock::SystemClock;
use collibra_auth_proxy::secret::Secret;
use collibra_auth_proxy::store::key::Key;
use collibra_auth_proxy::store::{self, redis};
use collibra_auth_proxy::token::ports::TokenStore;

#[cfg(feature = "kubernetes")]
use collibra_auth_proxy::store::kubernetes::{Config, access};

#[cfg(feature = "kubernetes")]
use crate::support::cluster::Cluster;
#[cfg(feature = "kubernetes")]
use crate::support::kubernetes::{Faults, Kubernetes};
use crate::support::redis::Redis;

/// The kinds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Redis,
    /// The stand-in for an API server.
    #[cfg(feature = "kubernetes")]
    Kubernetes,
    /// The cluster that `KUBECONFIG` names.
    #[cfg(feature = "kubernetes")]
    Cluster,
}

/// A running server.
pub(super) enum Server {
    Redis(Redis),
    #[cfg(feature = "kubernetes")]
    Kubernetes(Kubernetes),
    #[cfg(feature = "kubernetes")]
    Cluster(Cluster),
}

impl Server {
    pub(super) fn start(kind: Kind) -> Server {
        match kind {
            Kind::Redis => Server::Redis(Redis::start()),
            #[cfg(feature = "kubernetes")]
            Kind::Kubernetes => Server::Kubernetes(Kubernetes::start()),
            #[cfg(feature = "kubernetes")]
            Kind::Cluster => Server::Cluster(Cluster::enter()),
        }
    }

    /// The `[store]` table for it.
    pub(super) fn store(&self) -> String {
        match self {
            Server::Redis(redis) => format!("kind = \"redis\"\nurl = \"{}\"", redis.url()),
            #[cfg(feature = "kubernetes")]
            Server::Kubernetes(server) => {
                let kubeconfig = server.kubeconfig();
                format!(
                    "kind = \"kubernetes\"\nsecret = \"token\"\nlease = \"lease\"\nkubeconfig = \"{}\"",
                    kubeconfig.display()
                )
            }
            #[cfg(feature = "kubernetes")]
            Server::Cluster(cluster) => cluster.store(),
        }
    }

    /// The same at another port of this machine.
    pub(super) fn store_by(&self, port: u16) -> String {
        match self {
            Server::Redis(_) => format!("kind = \"redis\"\nurl = \"redis://127.0.0.1:{port}\""),
            #[cfg(feature = "kubernetes")]
            Server::Kubernetes(server) => {
                let own = server.kubeconfig().display().to_string();
                let other = server.kubeconfig_by(port).display().to_string();
                self.store().replace(&own, &other)
            }
            #[cfg(feature = "kubernetes")]
            Server::Cluster(_) => unreachable!("a cluster is reached as it is"),
        }
    }

    /// A client's store, without a process.
    pub(super) fn of_client(&self, id: &str) -> Box<dyn TokenStore> {
        self.of_client_by(id, None)
    }

    /// As [`Server::of_client`], at another port of this machine.
    pub(super) fn of_client_by(&self, id: &str, port: Option<u16>) -> Box<dyn TokenStore> {
        let secret = Secret::from("s3cret".to_owned());
        let id = ClientId::parse(id).unwrap();
        let key = Key::new("https://acme.example", &id, &secret);
        let clock = Arc::new(SystemClock);
        match self {
            Server::Redis(server) => {
                let config = redis::Config {
                    server: redis::Server::Tcp {
                        host: "127.0.0.1".to_owned(),
                        port: port.unwrap_or(server.port),
                    },
                    user: None,
                    password: None,
                    database: 0,
                    key_prefix: "test".to_owned(),
                };
                Box::new(store::redis::RedisStore::new(&config, "catalog", key, clock).unwrap())
            }
            #[cfg(feature = "kubernetes")]
            Server::Kubernetes(server) => {
                let path = port.map_or(server.kubeconfig(), |port| server.kubeconfig_by(port));
                let config = Config {
                    access: access::kubeconfig(&[path]).unwrap(),
                    namespace: "test".to_owned(),
                    secret: "token".to_owned(),
                    lease: "lease".to_owned(),
                };
                of_config(&config, key, clock)
            }
            #[cfg(feature = "kubernetes")]
            Server::Cluster(cluster) => of_config(&cluster.config(), key, clock),
        }
    }

    /// The local port at which it listens.
    pub(super) fn port(&self) -> u16 {
        match self {
            Server::Redis(redis) => redis.port,
            #[cfg(feature = "kubernetes")]
            Server::Kubernetes(server) => server.port(),
            #[cfg(feature = "kubernetes")]
            Server::Cluster(_) => unreachable!("a cluster is not this machine's"),
        }
    }

    /// The metric that says whether a proxy reaches it.
    pub(super) fn up(&self) -> &'static str {
        match self {
            Server::Redis(_) => r#"collibra_auth_proxy_store_up{store="redis"}"#,
            #[cfg(feature = "kubernetes")]
            _ => r#"collibra_auth_proxy_store_up{store="kubernetes"}"#,
        }
    }

    /// Stops it: a Redis server loses its data, an API server does not.
    pub(super) fn stop(&mut self) {
        match self {
            Server::Redis(redis) => redis.stop(),
            #[cfg(feature = "kubernetes")]
            Server::Kubernetes(server) => server.stop(),
            #[cfg(feature = "kubernetes")]
            Server::Cluster(_) => unreachable!("a cluster goes on"),
        }
    }

    /// Starts it again.
    pub(super) fn go_on(&mut self) {
        match self {
            Server::Redis(redis) => redis.go_on(),
            #[cfg(feature = "kubernetes")]
            Server::Kubernetes(server) => server.go_on(),
            #[cfg(feature = "kubernetes")]
            Server::Cluster(_) => unreachable!("a cluster goes on"),
        }
    }

    /// Makes it writable, or read-only.
    pub(super) fn writes(&self, works: bool) {
        match self {
            Server::Redis(redis) => {
                // as if its replicas were gone
                let replicas: &[u8] = if works { b"0" } else { b"1" };
                redis.say(&[b"CONFIG", b"SET", b"min-replicas-to-write", replicas]);
            }
            #[cfg(feature = "kubernetes")]
            Server::Kubernetes(server) => server.does(Faults {
                forbidden: match works {
                    true => &[],
                    false => &[("update", "token"), ("update", "lease")],
                },
                ..Faults::default()
            }),
            #[cfg(feature = "kubernetes")]
            Server::Cluster(_) => unreachable!("a cluster is not this test's"),
        }
    }

    /// Waits for its one record.
    pub(super) fn record(&self) -> Vec<u8> {
        match self {
            Server::Redis(redis) => redis.get(":record"),
            #[cfg(feature = "kubernetes")]
            Server::Kubernetes(server) => decoded(&server.record()),
            #[cfg(feature = "kubernetes")]
            Server::Cluster(cluster) => cluster.record(),
        }
    }

    /// Replaces the record.
    pub(super) fn put(&self, record: &[u8]) {
        match self {
            Server::Redis(redis) => redis.set(":record", record),
            #[cfg(feature = "kubernetes")]
            Server::Kubernetes(server) => server.put_record(&encoded(record)),
            #[cfg(feature = "kubernetes")]
            Server::Cluster(cluster) => cluster.put(record),
        }
    }

    /// Deletes all data.
    pub(super) fn forget(&self) {
        match self {
            Server::Redis(redis) => drop(redis.say(&[b"FLUSHALL"])),
            #[cfg(feature = "kubernetes")]
            Server::Kubernetes(server) => {
                server.edit_secret(|secret| drop(secret.as_object_mut().unwrap().remove("data")));
                server.edit_lease(|lease| {
                    lease["spec"] = serde_json::json!({});
                    let metadata = lease["metadata"].as_object_mut().unwrap();
                    metadata.remove("annotations");
                });
            }
            #[cfg(feature = "kubernetes")]
            Server::Cluster(cluster) => cluster.forget(),
        }
    }

    /// All readable data except the record.
    pub(super) fn everything(&self) -> String {
        match self {
            Server::Redis(redis) => String::from_utf8(redis.say(&[b"KEYS", b"*"])).unwrap(),
            #[cfg(feature = "kubernetes")]
            Server::Kubernetes(server) => format!("{} {}", server.secret(), server.lease()),
            #[cfg(feature = "kubernetes")]
            Server::Cluster(cluster) => cluster.everything(),
        }
    }

    /// How often it was called since its start, by operation.
    pub(super) fn figures(&self) -> String {
        match self {
            Server::Redis(redis) => {
                let said = redis.say(&[b"INFO", b"stats"]);
                let said = String::from_utf8_lossy(&said).into_owned();
                let wanted = ["total_commands_processed", "total_net_output_bytes"];
                let is_wanted = |line: &&str| wanted.iter().any(|name| line.starts_with(name));
                said.lines()
                    .filter(is_wanted)
                    .collect::<Vec<_>>()
                    .join(", ")
            }
            #[cfg(feature = "kubernetes")]
            Server::Kubernetes(server) => format!("{:?}", server.counts()),
            #[cfg(feature = "kubernetes")]
            Server::Cluster(_) => "a cluster, whose calls nobody counts here".to_owned(),
        }
    }
}

#[cfg(feature = "kubernetes")]
fn of_config(config: &Config, key: Key, clock: Arc<SystemClock>) -> Box<dyn TokenStore> {
    use collibra_auth_proxy::store::kubernetes::KubernetesStore;

    Box::new(KubernetesStore::new(config, "catalog", key, clock))
}

#[cfg(feature = "kubernetes")]
fn decoded(text: &str) -> Vec<u8> {
    use base64::Engine;

    base64::engine::general_purpose::STANDARD
        .decode(text)
        .unwrap()
}

#[cfg(feature = "kubernetes")]
fn encoded(bytes: &[u8]) -> String {
    use base64::Engine;

    base64::engine::general_purpose::STANDARD.encode(bytes)
}
