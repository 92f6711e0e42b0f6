//! The Redis store beyond the common contract.

use std::sync::Arc;
use std::time::Duration;

use collibra_auth_proxy::client_id::ClientId;
use collibra_auth_proxy::clock::SystemClock;
use collibra_auth_proxy::secret::Secret;
use collibra_auth_proxy::store::key::Key;
use collibra_auth_proxy::store::redis::{Config, RedisStore, Server};
use collibra_auth_proxy::tls::CaFile;
use collibra_auth_proxy::token::ports::{Membership, TokenStore};
use tokio::time::timeout;

use super::contract::{LENGTH, free_lease, kept, lease, record};
use super::{Member, collibra, fleet, generation, holds};
use crate::support::redis::Redis;
use crate::support::relay::Relay;
use crate::support::wait::now;
use crate::support::{PATIENCE, http, until};

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
    let secret = Secret::from("s3cret".to_owned());
    let id = ClientId::parse("id").unwrap();
    let key = Key::new("https://acme.example", &id, &secret);
    RedisStore::new(config, "catalog", key, Arc::new(SystemClock)).unwrap()
}

#[tokio::test]
async fn the_gone_are_forgotten_and_the_others_move_up() {
    let redis = Redis::start();
    assert_eq!(store(&tcp(redis.port)).membership(), Membership::Unknown);
    let mut stores = Vec::new();
    for nth in 0..3 {
        let store = store(&tcp(redis.port));
        settles(&store, nth).await;
        stores.push(store);
    }
    // the first one leaves, and after a while the others move up
    drop(stores.remove(0));
    settles(&stores[0], 0).await;
    settles(&stores[1], 1).await;
    // after the server loses its data, each gets a position again
    redis.say(&[b"FLUSHALL"]);
    let ranked = async {
        loop {
            let before = stores.iter().map(|store| match store.membership() {
                Membership::Member { before, all: 2 } => before,
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
        while !matches!(store.membership(), Membership::Member { before, .. } if before == wanted) {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    timeout(PATIENCE, settled).await.unwrap();
}

#[tokio::test]
async fn one_that_is_known_to_be_away_is_not_even_tried() {
    let redis = Redis::start();
    let relay = Relay::to(redis.port);
    let store = store(&tcp(relay.port));
    assert_eq!(kept(&store).await, None);
    relay.swallow(true);
    assert!(store.read().await.is_err());
    timeout(PATIENCE, async {
        // while it is known to be unavailable, no call is made
        while store.lease(LENGTH).await.is_ok() {}
    })
    .await
    .unwrap();
    let begin = now();
    for _ in 0..10 {
        assert!(store.read().await.is_err());
    }
    assert!(begin.elapsed() < Duration::from_secs(1));
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

/// The permissions that docs/fleet.md names are sufficient.
#[tokio::test]
async fn a_user_needs_no_more_than_is_documented() {
    let guide = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/fleet.md");
    let guide = std::fs::read_to_string(guide).unwrap();
    let (_, after) = guide.split_once("on the server needs `").unwrap();
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
        (as_user("me", "k4n4ri"), "does not grant this user"),
    ] {
        let error = store(&config).read().await.unwrap_err().to_string();
        assert!(error.contains(problem), "{error}");
        assert!(!format!("{error:?}").contains("k4n4r"), "{error}");
    }
    // a server that is not Redis
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

#[test]
fn a_server_that_wants_a_password_gets_it_and_nobody_else_sees_it() {
    const PASSWORD: &str = "k4n4ri-8c1f";
    let simulator = collibra();
    let redis = Redis::with(&["--requirepass", PASSWORD]);
    let (_folder, file) = crate::support::file("password", PASSWORD.as_bytes());
    let mut member = Member {
        store: format!("kind = \"redis\"\nurl = \"{}\"", redis.url()),
        ..Member::alone(&simulator)
    };
    let refused = member.start();
    let away = |proxy: &crate::support::Proxy| {
        let up = proxy.metric(r#"collibra_auth_proxy_store_up{store="redis"}"#);
        (up == Some(0.0)).then_some(())
    };
    until("a store that is away", || away(&refused));
    let status = http::get(refused.admin, "/api/status").text();
    assert!(
        status.contains("does not accept user and password"),
        "{status}"
    );

    member.store += &format!("\npassword_file = \"{}\"", file.display());
    let two = fleet(&member, 2);
    two.iter().for_each(holds);
    member.store = format!(
        "kind = \"redis\"\nurl = \"unix://{}\"",
        redis.socket().display()
    );
    member.store += &format!("\npassword_file = \"{}\"", file.display());
    let by_socket = member.start();
    holds(&by_socket);
    for proxy in two.iter().chain([&refused, &by_socket]) {
        let mut said = proxy.process.err.all();
        said += &http::get(proxy.admin, "/metrics").text();
        said += &http::get(proxy.admin, "/api/status").text();
        assert!(!said.contains(PASSWORD), "{said}");
    }
    // the replica that never reached the store waits a moment before its own request
    std::thread::sleep(Duration::from_millis(500));
    assert!(simulator.of_client("issued") <= 2 + generation(&two[0]));
}

#[test]
fn nothing_stays_there_for_ever() {
    let (simulator, redis) = (collibra(), Redis::start());
    let member = Member {
        store: format!("kind = \"redis\"\nurl = \"{}\"", redis.url()),
        ..Member::alone(&simulator)
    };
    let proxy = member.start();
    holds(&proxy);
    for end in [":record", ":members", ":seen"] {
        let left = redis.say(&[b"PTTL", &redis.key(end)]);
        let left: i64 = String::from_utf8(left).unwrap().parse().unwrap();
        assert!(left > 0, "{end} never ends");
    }
}
