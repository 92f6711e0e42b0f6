//! Proxies share a client by a Secret and a Lease, whatever the API server does.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use axum::http::StatusCode;
use collibra_auth_proxy::client_id::ClientId;
use collibra_auth_proxy::clock::{Clock, SystemClock};
use collibra_auth_proxy::secret::Secret;
use collibra_auth_proxy::store::key::Key;
use collibra_auth_proxy::store::kubernetes::access::kubeconfig;
use collibra_auth_proxy::store::kubernetes::{Config, KubernetesStore};
use collibra_auth_proxy::token::ports::{
    Lease, Rank, Record, StoreError, StoredPool, StoredToken, TokenStore,
};
use tokio::time::timeout;

use crate::support::kubernetes::{Faults, Kubernetes};
use crate::support::simulator::{CLIENT_ID, CLIENT_SECRET};
use crate::support::{PATIENCE, Proxy, Simulator};

const LENGTH: Duration = Duration::from_secs(60);

fn config(server: &Kubernetes) -> Config {
    Config {
        access: kubeconfig(&[server.kubeconfig()]).unwrap(),
        namespace: "test".to_owned(),
        secret: "token".to_owned(),
        lease: "lease".to_owned(),
    }
}

fn store(config: &Config) -> KubernetesStore {
    of_client(config, "id")
}

fn of_client(config: &Config, id: &str) -> KubernetesStore {
    let secret = Secret::from("s3cret".to_owned());
    let id = ClientId::parse(id).unwrap();
    let key = Key::new("https://acme.example", &id, &secret);
    KubernetesStore::new(config, "catalog", key, Arc::new(SystemClock))
}

/// The configuration of a real cluster: `KUBECONFIG`, and the namespace in
/// `COLLIBRA_AUTH_PROXY_TEST_NAMESPACE`, with an empty Secret `token` and an empty Lease `lease`.
fn cluster() -> Config {
    let path = std::env::var("KUBECONFIG").unwrap();
    Config {
        access: kubeconfig(&[path.into()]).unwrap(),
        namespace: std::env::var("COLLIBRA_AUTH_PROXY_TEST_NAMESPACE").unwrap(),
        secret: "token".to_owned(),
        lease: "lease".to_owned(),
    }
}

fn record(generation: u64) -> Record {
    let now = SystemClock.wall();
    Record {
        generation,
        token: Some(StoredToken {
            generation,
            access_token: Secret::from(format!("token {generation}")),
            asked: now,
            lifetime: Duration::from_secs(299),
        }),
        pool: StoredPool {
            full_at: now + LENGTH,
            not_before: SystemTime::UNIX_EPOCH,
        },
    }
}

async fn kept(store: &KubernetesStore) -> Option<u64> {
    Some(store.read().await.unwrap()?.token.unwrap().generation)
}

/// Waits until the right to ask is free.
async fn free_lease(store: &KubernetesStore, length: Duration) -> Box<dyn Lease> {
    let freed = async {
        loop {
            if let Some(lease) = store.lease(length).await.unwrap() {
                return lease;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    timeout(PATIENCE, freed).await.unwrap()
}

/// What the engine counts on, by a client that nobody else has.
async fn keeps_the_contract(config: &Config) {
    let id = format!("id-{}", std::process::id());
    let (one, other) = (of_client(config, &id), of_client(config, &id));
    assert_eq!(kept(&other).await, None);
    let mut held = free_lease(&one, LENGTH).await;
    assert!(other.lease(LENGTH).await.unwrap().is_none());
    let stranger = of_client(config, &format!("{id}-stranger"));
    drop(free_lease(&stranger, LENGTH).await);
    held.publish(&record(2)).await.unwrap();
    timeout(PATIENCE, other.changed()).await.unwrap();
    assert_eq!(kept(&other).await, Some(2));
    let lower = held.publish(&record(1)).await;
    assert!(matches!(lower, Err(StoreError::Overtaken(_))), "{lower:?}");
    drop(held);

    // one that stops beyond its time changes nothing, and gives up no other's right
    let mut late = free_lease(&one, Duration::from_millis(50)).await;
    let mut held = free_lease(&other, Duration::from_millis(50)).await;
    let lost = late.publish(&record(9)).await;
    assert!(matches!(lost, Err(StoreError::Overtaken(_))), "{lost:?}");
    held.publish(&record(3)).await.unwrap();
    assert_eq!(kept(&one).await, Some(3));
    assert_eq!(kept(&stranger).await, None);
}

#[tokio::test]
async fn the_stand_in_server_bears_the_contract() {
    keeps_the_contract(&config(&Kubernetes::start())).await;
}

#[tokio::test]
#[ignore = "needs a cluster: KUBECONFIG and COLLIBRA_AUTH_PROXY_TEST_NAMESPACE"]
async fn a_real_cluster_bears_the_contract() {
    keeps_the_contract(&cluster()).await;
}

#[tokio::test]
async fn conflicts_a_version_that_is_gone_and_slow_answers_are_borne() {
    let server = Kubernetes::start();
    let (one, other) = (store(&config(&server)), store(&config(&server)));
    assert_eq!(kept(&other).await, None);
    for (generation, faults) in [
        (
            1,
            Faults {
                conflicts: 4,
                ..Faults::default()
            },
        ),
        (
            2,
            Faults {
                gone: true,
                ..Faults::default()
            },
        ),
        (
            3,
            Faults {
                slow: Duration::from_millis(200),
                ..Faults::default()
            },
        ),
    ] {
        server.does(faults);
        let mut lease = free_lease(&one, LENGTH).await;
        lease.publish(&record(generation)).await.unwrap();
        timeout(PATIENCE, other.changed()).await.unwrap();
        assert_eq!(kept(&other).await, Some(generation), "{faults:?}");
    }
}

#[tokio::test]
async fn a_server_that_refuses_says_what_to_grant() {
    let server = Kubernetes::start();
    let store = store(&config(&server));
    for (status, remedy) in [
        (StatusCode::FORBIDDEN, "bind it to a Role"),
        (StatusCode::NOT_FOUND, "create it, empty"),
        (StatusCode::UNAUTHORIZED, "does not accept the token"),
    ] {
        server.does(Faults {
            status: Some(status),
            ..Faults::default()
        });
        let error = store.read().await.unwrap_err().to_string();
        assert!(
            error.contains(remedy) && error.contains(&server.url()),
            "{error}"
        );
        assert!(!error.contains("k4n4ri"), "{error}");
    }
    server.does(Faults::default());
    timeout(PATIENCE, store.changed()).await.unwrap();
    assert_eq!(kept(&store).await, None);
    timeout(PATIENCE, async {
        while store.rank() != (Rank::Among { before: 0, all: 1 }) {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    })
    .await
    .unwrap();
}

#[test]
fn six_that_start_at_once_take_one_token_and_survive_garbage() {
    let simulator = Simulator::start();
    let server = Kubernetes::start();
    let text = format!(
        "[instance.acme]\nurl = \"{}\"\n[client.catalog]\nclient_id = \"{CLIENT_ID}\"\n\
         client_secret = \"{CLIENT_SECRET}\"\n[listener.local]\naddress = \"127.0.0.1:0\"\n\
         [admin]\naddress = \"127.0.0.1:0\"\n[server]\nthreads = 1\n[store]\nkind = \"kubernetes\"\n\
         secret = \"token\"\nlease = \"lease\"\nkubeconfig = \"{}\"\n",
        simulator.url(),
        server.kubeconfig().display()
    );
    let proxies: Vec<Proxy> = std::thread::scope(|scope| {
        let start = || Proxy::by_text(&text).start();
        let starting: Vec<_> = (0..6).map(|_| scope.spawn(start)).collect();
        starting.into_iter().map(|s| s.join().unwrap()).collect()
    });
    proxies.iter().for_each(holds_a_token);
    assert_eq!(simulator.count("token_requests"), 1);
    server.spoil("AAAA");
    // it is put back by whoever has it
    let another = Proxy::by_text(&text).start();
    holds_a_token(&another);
    proxies.iter().for_each(holds_a_token);
    assert!(simulator.count("token_requests") <= 2);
}

/// Waits until it has a token, its own or one that another has asked for.
fn holds_a_token(proxy: &Proxy) {
    proxy.metric_becomes("collibra_auth_proxy_token_usable{client=\"catalog\"}", 1.0);
}
