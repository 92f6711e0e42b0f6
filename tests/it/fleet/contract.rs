//! What the engine counts on: the store itself against a real server, without processes.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use collibra_auth_proxy::client_id::ClientId;
use collibra_auth_proxy::clock::{Clock, SystemClock};
use collibra_auth_proxy::secret::Secret;
use collibra_auth_proxy::store::key::Key;
use collibra_auth_proxy::store::redis::{Config, RedisStore, Server};
use collibra_auth_proxy::tls::CaFile;
use collibra_auth_proxy::token::ports::{
    Lease, Rank, Record, StoreError, StoredPool, StoredToken, TokenStore,
};
use tokio::time::timeout;

use crate::support::PATIENCE;
use crate::support::redis::Redis;
use crate::support::relay::Relay;
use crate::support::wait::now;

const LENGTH: Duration = Duration::from_secs(60);

fn tcp(port: u16) -> Config {
    Config {
        server: Server::Tcp {
            host: "127.0.0.1".to_owned(),
            port,
        },
        user: None,
        password: None,
        database: 0,
        key_prefix: "test".to_owned(),
    }
}

fn store(config: &Config) -> RedisStore {
    of_client(config, "id")
}

fn of_client(config: &Config, id: &str) -> RedisStore {
    let secret = Secret::from("s3cret".to_owned());
    let key = Key::new(
        "https://acme.example",
        &ClientId::parse(id).unwrap(),
        &secret,
    );
    RedisStore::new(config, "catalog", key, Arc::new(SystemClock)).unwrap()
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

async fn kept(store: &RedisStore) -> Option<(u64, String)> {
    let record = store.read().await.unwrap()?;
    let text = record.token.unwrap().access_token.expose().to_owned();
    Some((record.generation, text))
}

async fn lease(store: &RedisStore) -> Option<Box<dyn Lease>> {
    store.lease(LENGTH).await.unwrap()
}

/// Waits until the right to ask is free; who gives it up does not wait for the server.
async fn free_lease(store: &RedisStore) -> Box<dyn Lease> {
    let freed = async {
        loop {
            if let Some(lease) = lease(store).await {
                return lease;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(PATIENCE, freed).await.unwrap()
}

#[tokio::test]
async fn what_one_keeps_the_other_reads_and_is_told_of() {
    let redis = Redis::start();
    let (one, other) = (store(&tcp(redis.port)), store(&tcp(redis.port)));
    assert_eq!(kept(&other).await, None);
    let told = tokio::spawn({
        let another = store(&tcp(redis.port));
        async move {
            assert!(another.read().await.unwrap().is_none());
            timeout(PATIENCE, another.changed()).await.unwrap();
            kept(&another).await
        }
    });
    let mut held = lease(&one).await.unwrap();
    held.publish(&record(1)).await.unwrap();
    assert_eq!(told.await.unwrap(), Some((1, "token 1".to_owned())));
    assert_eq!(kept(&other).await, Some((1, "token 1".to_owned())));

    // what was read or written here is no change
    for store in [&one, &other] {
        let again = timeout(Duration::from_millis(1_500), store.changed()).await;
        assert!(again.is_err());
    }
    let stranger = of_client(&tcp(redis.port), "another id");
    assert_eq!(kept(&stranger).await, None);
    assert!(lease(&stranger).await.is_some(), "with a lock of its own");
}

#[tokio::test]
async fn one_at_a_time_has_the_right_to_ask_and_gives_up_no_other_than_its_own() {
    let redis = Redis::start();
    let (one, other) = (store(&tcp(redis.port)), store(&tcp(redis.port)));
    let held = lease(&one).await.unwrap();
    assert!(lease(&other).await.is_none());
    assert!(lease(&one).await.is_none());
    drop(held);
    let short = Duration::from_millis(50);
    drop(free_lease(&other).await);
    let late = timeout(PATIENCE, async {
        loop {
            if let Some(lease) = other.lease(short).await.unwrap() {
                return lease;
            }
        }
    });
    let late = late.await.unwrap();
    // its lock has ended, and another has it
    let second = free_lease(&one).await;
    drop(late);
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert!(lease(&other).await.is_none(), "{second:?} is still held");
}

#[tokio::test]
async fn who_has_lost_the_right_changes_nothing() {
    let redis = Redis::start();
    let (one, other) = (store(&tcp(redis.port)), store(&tcp(redis.port)));
    let short = Duration::from_millis(50);
    let mut late = one.lease(short).await.unwrap().unwrap();
    let mut held = free_lease(&other).await;
    let lost = late.publish(&record(9)).await;
    assert!(matches!(lost, Err(StoreError::Overtaken(_))), "{lost:?}");
    assert_eq!(kept(&other).await, None);
    held.publish(&record(2)).await.unwrap();
    held.publish(&record(3)).await.unwrap();
    // the same generation may tell more of the pool, a lower one nothing
    held.publish(&record(3)).await.unwrap();
    let lower = held.publish(&record(2)).await;
    assert!(matches!(lower, Err(StoreError::Overtaken(_))), "{lower:?}");
    assert_eq!(kept(&one).await, Some((3, "token 3".to_owned())));
}

#[tokio::test]
async fn each_knows_how_many_came_before_it_and_the_gone_are_forgotten() {
    let redis = Redis::start();
    assert_eq!(store(&tcp(redis.port)).rank(), Rank::Unknown);
    let mut stores = Vec::new();
    for nth in 0..3 {
        let store = store(&tcp(redis.port));
        settles(&store, nth).await;
        stores.push(store);
    }
    // the first is gone, and after a while the others move up
    drop(stores.remove(0));
    settles(&stores[0], 0).await;
    settles(&stores[1], 1).await;
    // and when the server forgets them, each has a rank of its own again
    redis.say(&[b"FLUSHALL"]);
    let ranked = async {
        loop {
            let before = stores.iter().map(|store| match store.rank() {
                Rank::Among { before, all: 2 } => before,
                other => panic!("{other:?}"),
            });
            if before.sum::<u32>() == 1 {
                return;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    timeout(PATIENCE, ranked).await.unwrap();
}

async fn settles(store: &RedisStore, wanted: u32) {
    let settled = async {
        while !matches!(store.rank(), Rank::Among { before, .. } if before == wanted) {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    timeout(PATIENCE, settled).await.unwrap();
}

#[tokio::test]
async fn a_server_that_swallows_everything_holds_nobody_up() {
    let redis = Redis::start();
    let relay = Relay::to(redis.port);
    let store = store(&tcp(relay.port));
    assert_eq!(kept(&store).await, None);
    relay.swallow(true);
    let begin = now();
    assert!(store.read().await.is_err());
    assert!(begin.elapsed() < Duration::from_secs(4));
    timeout(PATIENCE, async {
        // known to be away, it does not even try
        while store.lease(LENGTH).await.is_ok() {}
    })
    .await
    .unwrap();
    let begin = now();
    for _ in 0..10 {
        assert!(store.read().await.is_err());
    }
    assert!(begin.elapsed() < Duration::from_secs(1));

    relay.swallow(false);
    let back = now();
    timeout(PATIENCE, store.changed()).await.unwrap();
    assert_eq!(kept(&store).await, None);
    assert!(back.elapsed() < Duration::from_secs(5));
}

#[tokio::test]
async fn a_server_is_spoken_to_by_tls_if_its_certificate_is_trusted() {
    let made = rcgen::generate_simple_self_signed(vec!["localhost".into()]).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    std::fs::write(path("cert.pem"), made.cert.pem()).unwrap();
    std::fs::write(path("key.pem"), made.signing_key.serialize_pem()).unwrap();
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = free.local_addr().unwrap().port();
    drop(free);
    let _redis = Redis::with(&[
        "--tls-port",
        &port.to_string(),
        "--tls-cert-file",
        &path("cert.pem"),
        "--tls-key-file",
        &path("key.pem"),
        "--tls-auth-clients",
        "no",
    ]);
    let by = |host: &str, ca_file| {
        let host = host.to_owned();
        store(&Config {
            server: Server::Tls {
                host,
                port,
                ca_file,
            },
            ..tcp(port)
        })
    };
    let trusted = || Some(CaFile::read(path("cert.pem").as_ref()).unwrap());
    assert_eq!(kept(&by("localhost", trusted())).await, None);
    let unknown = by("localhost", None).read().await.unwrap_err().to_string();
    assert!(unknown.contains("is not accepted"), "{unknown}");
    let other = by("127.0.0.1", trusted()).read().await.unwrap_err();
    assert!(other.to_string().contains("another host"), "{other}");
    let clear = store(&tcp(port)).read().await.unwrap_err().to_string();
    assert!(!clear.is_empty());
}

/// What the README says that a user needs is enough.
#[tokio::test]
async fn a_user_needs_no_more_than_is_documented() {
    let readme = concat!(env!("CARGO_MANIFEST_DIR"), "/README.md");
    let readme = std::fs::read_to_string(readme).unwrap();
    let (_, after) = readme.split_once("on the server needs `").unwrap();
    let (rules, _) = after.split_once('`').unwrap();
    let rules = rules.replace("collibra-auth-proxy", "test");
    let mut flags = vec!["--user", "me", "on", ">k4n4ri"];
    flags.extend(rules.split_whitespace());
    let redis = Redis::with(&flags);
    let config = Config {
        user: Some("me".to_owned()),
        password: Some(Secret::from("k4n4ri".to_owned())),
        ..tcp(redis.port)
    };
    let one = store(&config);
    settles(&one, 0).await;
    let other = store(&config);
    assert_eq!(kept(&other).await, None);
    lease(&one)
        .await
        .unwrap()
        .publish(&record(1))
        .await
        .unwrap();
    let told = now();
    timeout(PATIENCE, other.changed()).await.unwrap();
    assert!(told.elapsed() < Duration::from_secs(1));
    assert_eq!(kept(&other).await, Some((1, "token 1".to_owned())));
    drop(free_lease(&other).await);
}

#[tokio::test]
async fn a_server_that_does_not_let_one_in_is_told_of_in_words_that_hide_the_password() {
    let redis = Redis::with(&["--user", "me", "on", ">k4n4ri", "~test:*", "+get"]);
    let as_user = |user: &str, password: &str| Config {
        user: Some(user.to_owned()),
        password: Some(Secret::from(password.to_owned())),
        ..tcp(redis.port)
    };
    for (config, problem) in [
        (as_user("me", "k4n4r0"), "does not accept user and password"),
        (as_user("me", "k4n4ri"), "does not let this user do"),
    ] {
        let error = store(&config).read().await.unwrap_err().to_string();
        assert!(error.contains(problem), "{error}");
        assert!(!format!("{error:?}").contains("k4n4r"), "{error}");
    }
    // what is no Redis at all
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        for mut caller in listener.incoming().map_while(Result::ok).take(3) {
            let hello = b"HTTP/1.1 400 Bad Request\r\n\r\n";
            let _ = std::io::Write::write_all(&mut caller, hello);
        }
    });
    let config = Config {
        password: Some(Secret::from("k4n4ri".to_owned())),
        ..tcp(port)
    };
    let error = store(&config).read().await.unwrap_err().to_string();
    assert!(!error.contains("k4n4r"), "{error}");
}
