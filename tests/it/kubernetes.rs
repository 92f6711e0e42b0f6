//! The Kubernetes store beyond the common contract: all responses of the API server, and all ways
//! to reach it.

use std::sync::Arc;
use std::time::Duration;

use axum::http::StatusCode;
use collibra_auth_proxy::client_id::ClientId;
use collibra_auth_proxy::clock::SystemClock;
use collibra_auth_proxy::secret::Secret;
use collibra_auth_proxy::store::key::Key;
use collibra_auth_proxy::store::kubernetes::access::kubeconfig;
use collibra_auth_proxy::store::kubernetes::{Config, KubernetesStore};
use collibra_auth_proxy::token::ports::{Lease, Membership, TokenStore};
use serde_json::json;
use tokio::time::timeout;

use crate::fleet::contract::{LENGTH, record};
use crate::support::kubernetes::{Faults, Kubernetes};
use crate::support::simulator::{CLIENT_ID, CLIENT_SECRET};
use crate::support::wait::now;
use crate::support::{PATIENCE, Proxy, Simulator, http, until};

fn store(server: &Kubernetes) -> KubernetesStore {
    let config = Config {
        access: kubeconfig(&[server.kubeconfig()]).unwrap(),
        namespace: "test".to_owned(),
        secret: "token".to_owned(),
        lease: "lease".to_owned(),
    };
    let secret = Secret::from("s3cret".to_owned());
    let id = ClientId::parse("id").unwrap();
    let key = Key::new("https://acme.example", &id, &secret);
    KubernetesStore::new(&config, "catalog", key, Arc::new(SystemClock))
}

async fn kept(store: &KubernetesStore) -> Option<u64> {
    Some(store.read().await.unwrap()?.token.unwrap().generation)
}

/// Waits until the lease is free and the server can grant it.
async fn free_lease(store: &KubernetesStore) -> Box<dyn Lease> {
    let freed = async {
        loop {
            if let Ok(Some(lease)) = store.lease(LENGTH).await {
                return lease;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    timeout(PATIENCE, freed).await.unwrap()
}

async fn has_rank(store: &KubernetesStore) {
    let ranked = async {
        while store.membership() == Membership::Unknown {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    timeout(PATIENCE, ranked).await.unwrap();
}

/// Waits until the store reports that its server is available.
async fn is_back(store: &KubernetesStore) {
    let back = async {
        while store.read().await.is_err() {
            store.changed().await;
        }
    };
    timeout(PATIENCE, back).await.unwrap();
}

#[tokio::test]
async fn whatever_the_server_does_what_is_kept_arrives() {
    let server = Kubernetes::start();
    let (one, other) = (store(&server), store(&server));
    assert_eq!(kept(&other).await, None);
    has_rank(&other).await;
    let well = Faults::default();
    for (nth, faults) in [
        well,
        Faults {
            conflicts: 4,
            ..well
        },
        Faults { gone: true, ..well },
        Faults {
            gone_later: true,
            ..well
        },
        Faults {
            slow: Duration::from_millis(200),
            ..well
        },
    ]
    .into_iter()
    .enumerate()
    {
        let generation = nth as u64 + 1;
        server.does(faults);
        let mut lease = free_lease(&one).await;
        lease.publish(&record(generation)).await.unwrap();
        timeout(PATIENCE, other.changed()).await.unwrap();
        server.does(well);
        assert_eq!(kept(&other).await, Some(generation), "{faults:?}");
    }
}

/// Polling makes up for a watch that reports nothing, and for one whose events are truncated.
#[tokio::test]
async fn a_watch_that_tells_nothing_is_made_up_for() {
    let server = Kubernetes::start();
    let (one, other) = (store(&server), store(&server));
    assert_eq!(kept(&other).await, None);
    has_rank(&other).await;
    server.does(Faults {
        stalled: true,
        ..Faults::default()
    });
    let mut lease = free_lease(&one).await;
    lease.publish(&record(1)).await.unwrap();
    let begin = now();
    let told = timeout(Duration::from_secs(90), other.changed()).await;
    assert!(told.is_ok(), "neither a watch nor a reading has told");
    assert!(
        begin.elapsed() > Duration::from_secs(2),
        "the watch told of it"
    );
}

#[tokio::test]
async fn an_answer_cut_in_its_middle_is_none_and_what_it_said_is_found_out() {
    let server = Kubernetes::start();
    let (one, other) = (store(&server), store(&server));
    let mut lease = free_lease(&one).await;
    server.does(Faults {
        cut: true,
        ..Faults::default()
    });
    let error = other.read().await.unwrap_err().to_string();
    assert!(error.contains("check its address"), "{error}");
    assert!(lease.publish(&record(1)).await.is_err());
    server.does(Faults::default());
    lease.publish(&record(1)).await.unwrap();
    timeout(PATIENCE, other.changed()).await.unwrap();
    assert_eq!(kept(&other).await, Some(1));
}

#[tokio::test]
async fn watches_that_end_at_once_make_no_storm() {
    let server = Kubernetes::start();
    server.does(Faults {
        gone: true,
        ..Faults::default()
    });
    let store = store(&server);
    has_rank(&store).await;
    tokio::time::sleep(Duration::from_secs(5)).await;
    let refused = server.counts();
    assert!(refused["watch secret"] <= 6, "{refused:?}");
    server.does(Faults {
        gone_later: true,
        ..Faults::default()
    });
    tokio::time::sleep(Duration::from_secs(8)).await;
    let ended = server.counts()["watch secret"] - refused["watch secret"];
    assert!((1..=9).contains(&ended), "{ended}");
}

#[tokio::test]
async fn a_server_that_is_too_busy_is_left_alone_as_long_as_it_says() {
    let server = Kubernetes::start();
    let store = store(&server);
    has_rank(&store).await;
    server.does(Faults {
        status: Some(StatusCode::TOO_MANY_REQUESTS),
        ..Faults::default()
    });
    let error = store.read().await.unwrap_err().to_string();
    assert!(error.contains("too busy"), "{error}");
    let before = server.counts()["refused"];
    for _ in 0..20 {
        assert!(store.read().await.is_err());
        assert!(store.lease(LENGTH).await.is_err());
    }
    assert!(server.counts()["refused"] <= before + 1);
    server.does(Faults::default());
    is_back(&store).await;
}

#[tokio::test]
async fn a_server_that_refuses_says_what_to_grant() {
    let server = Kubernetes::start();
    let store = store(&server);
    for (status, remedy) in [
        (StatusCode::FORBIDDEN, "bind it to a Role"),
        (StatusCode::NOT_FOUND, "create it, empty"),
        (StatusCode::UNAUTHORIZED, "does not accept the token"),
        (StatusCode::INTERNAL_SERVER_ERROR, "check its log"),
        (StatusCode::UNPROCESSABLE_ENTITY, "create it again"),
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
    is_back(&store).await;
    timeout(PATIENCE, async {
        while store.membership() != (Membership::Member { before: 0, all: 1 }) {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    })
    .await
    .unwrap();
}

#[tokio::test]
async fn what_others_wrote_into_the_objects_stays_and_a_right_given_back_leaves_no_holder() {
    let server = Kubernetes::start();
    server.edit_lease(|lease| lease["spec"] = json!({"leaseTransitions": 7}));
    server.edit_secret(|secret| secret["data"] = json!({"another": "YQ=="}));
    let store = store(&server);
    let mut held = free_lease(&store).await;
    let spec = server.lease()["spec"].clone();
    assert_eq!(spec["leaseTransitions"], 8, "{spec}");
    assert_eq!(spec["leaseDurationSeconds"], 60, "{spec}");
    assert!(spec["holderIdentity"].is_string(), "{spec}");
    held.publish(&record(1)).await.unwrap();
    drop(held);
    until_given_back(&server).await;
    let (secret, lease) = (server.secret(), server.lease());
    assert_eq!(lease["spec"]["leaseTransitions"], 8);
    for object in [&secret, &lease] {
        let metadata = &object["metadata"];
        assert_eq!(metadata["annotations"]["example.com/owner"], "another");
        assert_eq!(
            metadata["labels"]["app.kubernetes.io/managed-by"],
            "kustomize"
        );
    }
    assert_eq!(secret["data"]["another"], "YQ==");
}

async fn until_given_back(server: &Kubernetes) {
    let given_back = async {
        while !server.lease()["spec"]["holderIdentity"].is_null() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    timeout(PATIENCE, given_back).await.unwrap();
}

#[tokio::test]
async fn an_immutable_secret_is_told_of() {
    let server = Kubernetes::start();
    server.edit_secret(|secret| secret["immutable"] = json!(true));
    let store = store(&server);
    let mut held = free_lease(&store).await;
    let error = held.publish(&record(1)).await.unwrap_err().to_string();
    assert!(error.contains("immutable"), "{error}");
}

#[tokio::test]
async fn who_has_a_client_certificate_needs_no_token() {
    let server = Kubernetes::with_certificates();
    let (one, other) = (store(&server), store(&server));
    assert_eq!(kept(&other).await, None);
    free_lease(&one).await.publish(&record(1)).await.unwrap();
    timeout(PATIENCE, other.changed()).await.unwrap();
    assert_eq!(kept(&other).await, Some(1));
}

fn configuration(simulator: &Simulator, store: &str) -> String {
    format!(
        "[instance.acme]\nurl = \"{}\"\n[client.catalog]\nclient_id = \"{CLIENT_ID}\"\n\
         client_secret = \"{CLIENT_SECRET}\"\n[listener.local]\naddress = \"127.0.0.1:0\"\n\
         [admin]\naddress = \"127.0.0.1:0\"\n[server]\nthreads = 1\n[store]\nkind = \"kubernetes\"\n\
         secret = \"token\"\nlease = \"lease\"\n{store}\n",
        simulator.url(),
    )
}

#[test]
fn nothing_that_is_secret_is_said_whatever_the_server_answers() {
    let (simulator, server) = (Simulator::start(), Kubernetes::start());
    let kubeconfig = format!("kubeconfig = \"{}\"", server.kubeconfig().display());
    let proxy = Proxy::by_text(&configuration(&simulator, &kubeconfig)).start();
    proxy.has_token();
    let kept = server.record();
    for faults in [
        Faults {
            cut: true,
            ..Faults::default()
        },
        Faults {
            status: Some(StatusCode::BAD_GATEWAY),
            ..Faults::default()
        },
        Faults::default(),
    ] {
        server.does(faults);
        let up = if faults.cut || faults.status.is_some() {
            0.0
        } else {
            1.0
        };
        // the watcher re-reads the Secret
        server.edit_secret(|secret| secret["metadata"]["labels"] = json!({}));
        proxy.metric_becomes("collibra_auth_proxy_store_up{store=\"kubernetes\"}", up);
    }
    let mut said = proxy.process.err.all();
    said += &http::get(proxy.admin, "/metrics").text();
    said += &http::get(proxy.admin, "/api/status").text();
    for part in ["k4n4ri", &kept[..40], CLIENT_SECRET, "kube_client"] {
        assert!(!said.contains(part), "{part} in {said}");
    }
}

/// With a service account's files where a pod has them.
#[test]
fn a_pod_needs_no_more_than_its_service_account() {
    let (simulator, server) = (Simulator::start(), Kubernetes::with_tokens_by_tls());
    let account = server.service_account();
    let mounted = account.display().to_string();
    let port = server.port().to_string();
    // /var/run is mostly a link to /run
    let run = std::path::Path::new("/var/run").canonicalize().unwrap();
    let place = run.join("secrets/kubernetes.io/serviceaccount");
    let proxy = Proxy::by_text(&configuration(&simulator, ""))
        .variable("KUBERNETES_SERVICE_HOST", "localhost")
        .variable("KUBERNETES_SERVICE_PORT", &port)
        .by(&[
            "bwrap",
            "--dev-bind",
            "/",
            "/",
            "--tmpfs",
            run.to_str().unwrap(),
            "--ro-bind",
            &mounted,
            place.to_str().unwrap(),
            "--die-with-parent",
        ])
        .start();
    proxy.metric_becomes("collibra_auth_proxy_token_usable{client=\"catalog\"}", 1.0);
    proxy.metric_becomes("collibra_auth_proxy_store_up{store=\"kubernetes\"}", 1.0);
    let kept = until("a record", || server.secret()["data"].as_object().cloned());
    assert_eq!(kept.len(), 1);
}

/// Runs the tests for a real cluster in their own process against the stand-in. As an operator they
/// create what they need, and leave nothing behind.
#[test]
fn what_is_run_against_a_real_cluster_runs_here_too() {
    let server = Kubernetes::start();
    let mut tests = std::process::Command::new(std::env::current_exe().unwrap());
    tests
        .args([
            "fleet::kubernetes_cluster::w",
            "--ignored",
            "--test-threads=2",
        ])
        .env("KUBECONFIG", server.operator_kubeconfig())
        .env_remove("COLLIBRA_AUTH_PROXY_TEST_NAMESPACE");
    let ran = tests.output().unwrap();
    let said = String::from_utf8_lossy(&ran.stdout);
    assert!(ran.status.success() && said.contains("4 passed"), "{said}");
    let counts = server.counts();
    assert!(counts["create secret"] >= 4, "{counts:?}");
    assert_eq!(
        counts["create secret"], counts["delete secret"],
        "{counts:?}"
    );
    assert_eq!(counts["create lease"], counts["delete lease"], "{counts:?}");
}
