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

use super::sentinels::Sentinels;
#[cfg(feature = "kubernetes")]
use crate::support::cluster::Cluster;
#[cfg(feature = "kubernetes")]
use crate::support::kubernetes::{Faults, Kubernetes};
use crate::support::redis::Redis;
use crate::support::until;

/// The kinds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Redis,
    /// The primary that three sentinels name.
    Sentinel,
    /// A Redis Cluster of three primaries, each with a replica.
    RedisCluster,
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
    Sentinel(Sentinels),
    RedisCluster(Vec<Redis>),
    #[cfg(feature = "kubernetes")]
    Kubernetes(Kubernetes),
    #[cfg(feature = "kubernetes")]
    Cluster(Cluster),
}

impl Server {
    pub(super) fn start(kind: Kind) -> Server {
        match kind {
            Kind::Redis => Server::Redis(Redis::start()),
            Kind::Sentinel => Server::Sentinel(Sentinels::start()),
            Kind::RedisCluster => Server::RedisCluster(Redis::cluster(None, &[])),
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
            Server::Sentinel(sentinels) => sentinels.store(),
            Server::RedisCluster(nodes) => {
                let nodes = listed(nodes);
                format!("kind = \"redis\"\nurl = \"redis+cluster://{nodes}\"")
            }
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
            Server::Sentinel(_) | Server::RedisCluster(_) => unreachable!("{SEVERAL}"),
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
            Server::Redis(server) => of_redis(
                redis::Server::Tcp {
                    host: "127.0.0.1".to_owned(),
                    port: port.unwrap_or(server.port),
                },
                key,
                clock,
            ),
            Server::Sentinel(sentinels) => of_redis(
                redis::Server::Sentinel {
                    nodes: places(&sentinels.sentinels),
                    primary: "main".to_owned(),
                    tls: None,
                },
                key,
                clock,
            ),
            Server::RedisCluster(nodes) => of_redis(
                redis::Server::Cluster {
                    nodes: places(nodes),
                    tls: None,
                },
                key,
                clock,
            ),
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
            Server::Sentinel(_) | Server::RedisCluster(_) => unreachable!("{SEVERAL}"),
            #[cfg(feature = "kubernetes")]
            Server::Kubernetes(server) => server.port(),
            #[cfg(feature = "kubernetes")]
            Server::Cluster(_) => unreachable!("a cluster is not this machine's"),
        }
    }

    /// The metric that says whether a proxy reaches it.
    pub(super) fn up(&self) -> &'static str {
        match self {
            Server::Redis(_) | Server::Sentinel(_) | Server::RedisCluster(_) => {
                r#"collibra_auth_proxy_store_up{store="redis"}"#
            }
            #[cfg(feature = "kubernetes")]
            _ => r#"collibra_auth_proxy_store_up{store="kubernetes"}"#,
        }
    }

    /// Stops it: a Redis server loses its data, an API server does not.
    pub(super) fn stop(&mut self) {
        match self {
            Server::Redis(redis) => redis.stop(),
            Server::Sentinel(_) | Server::RedisCluster(_) => unreachable!("{SEVERAL}"),
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
            Server::Sentinel(_) | Server::RedisCluster(_) => unreachable!("{SEVERAL}"),
            #[cfg(feature = "kubernetes")]
            Server::Kubernetes(server) => server.go_on(),
            #[cfg(feature = "kubernetes")]
            Server::Cluster(_) => unreachable!("a cluster goes on"),
        }
    }

    /// Makes it writable, or read-only.
    pub(super) fn writes(&self, works: bool) {
        match self {
            Server::Redis(_) | Server::Sentinel(_) | Server::RedisCluster(_) => {
                // as if its replicas were gone
                let replicas: &[u8] = if works { b"0" } else { b"5" };
                for redis in self.primaries() {
                    redis.say(&[b"CONFIG", b"SET", b"min-replicas-to-write", replicas]);
                }
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
            Server::Redis(_) | Server::Sentinel(_) | Server::RedisCluster(_) => {
                let owner = until("a record", || self.owner());
                owner.get(":record")
            }
            #[cfg(feature = "kubernetes")]
            Server::Kubernetes(server) => decoded(&server.record()),
            #[cfg(feature = "kubernetes")]
            Server::Cluster(cluster) => cluster.record(),
        }
    }

    /// Replaces the record.
    pub(super) fn put(&self, record: &[u8]) {
        match self {
            Server::Redis(_) | Server::Sentinel(_) | Server::RedisCluster(_) => {
                let owner = until("a record", || self.owner());
                owner.set(":record", record);
            }
            #[cfg(feature = "kubernetes")]
            Server::Kubernetes(server) => server.put_record(&encoded(record)),
            #[cfg(feature = "kubernetes")]
            Server::Cluster(cluster) => cluster.put(record),
        }
    }

    /// Deletes all data.
    pub(super) fn forget(&self) {
        match self {
            Server::Redis(_) | Server::Sentinel(_) | Server::RedisCluster(_) => {
                for redis in self.primaries() {
                    redis.say(&[b"FLUSHALL"]);
                }
            }
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
            Server::Redis(_) | Server::Sentinel(_) | Server::RedisCluster(_) => {
                let keys = |redis: &Redis| redis.say(&[b"KEYS", b"*"]);
                let all: Vec<u8> = self.primaries().into_iter().flat_map(keys).collect();
                String::from_utf8(all).unwrap()
            }
            #[cfg(feature = "kubernetes")]
            Server::Kubernetes(server) => format!("{} {}", server.secret(), server.lease()),
            #[cfg(feature = "kubernetes")]
            Server::Cluster(cluster) => cluster.everything(),
        }
    }

    /// How often it was called since its start, by operation.
    pub(super) fn figures(&self) -> String {
        match self {
            Server::Sentinel(_) | Server::RedisCluster(_) => SEVERAL.to_owned(),
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

/// Why a test is for a single server only.
const SEVERAL: &str = "several servers cannot be disturbed or counted as one";

impl Server {
    /// The Redis servers that accept writes.
    fn primaries(&self) -> Vec<&Redis> {
        match self {
            Server::Redis(redis) => vec![redis],
            Server::Sentinel(sentinels) => vec![sentinels.primary()],
            Server::RedisCluster(nodes) => nodes.iter().filter(|node| node.is_primary()).collect(),
            #[cfg(feature = "kubernetes")]
            Server::Kubernetes(_) | Server::Cluster(_) => Vec::new(),
        }
    }

    /// The primary that has the record.
    pub(super) fn owner(&self) -> Option<&Redis> {
        let mut primaries = self.primaries().into_iter();
        primaries.find(|redis| !redis.keys(":record").is_empty())
    }
}

/// A URL's list of servers.
pub(super) fn listed(servers: &[Redis]) -> String {
    let port = |redis: &Redis| redis.tls_port.unwrap_or(redis.port);
    let all = servers
        .iter()
        .map(|redis| format!("127.0.0.1:{}", port(redis)));
    all.collect::<Vec<_>>().join(",")
}

fn places(servers: &[Redis]) -> Vec<(String, u16)> {
    let all = servers
        .iter()
        .map(|redis| ("127.0.0.1".to_owned(), redis.port));
    all.collect()
}

fn of_redis(server: redis::Server, key: Key, clock: Arc<SystemClock>) -> Box<dyn TokenStore> {
    let config = redis::Config {
        server,
        user: None,
        password: None,
        database: 0,
        key_prefix: "test".to_owned(),
    };
    Box::new(store::redis::RedisStore::new(&config, "catalog", key, clock).unwrap())
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
