//! The stored record is sealed and never trusted: whatever is written there, no app notices, no
//! other client's token is sent, and the pool is never exceeded.

use super::load::Load;
use super::server::{Kind, Server};
use super::{MINUTE, Member, generation, holds, sharing};
use crate::support::simulator::CLIENT_SECRET;
use crate::support::until;

/// A manipulation: its name, and what it does.
type Mischief<'a> = (&'static str, Box<dyn Fn() + 'a>);

pub(super) fn whatever_is_put_there_under_load_no_app_notices(kind: Kind) {
    let (simulator, server, proxies) = sharing(kind, 4);
    let load = Load::begin(&proxies);
    let old = server.record();
    assert!(!old.is_empty());
    // as another tenant's proxy writes it, to its own server
    let (theirs, their_server, _their_proxies) = sharing(kind, 1);
    let another = their_server.record();
    assert_ne!(theirs.address, simulator.address);

    let noise: Vec<u8> = (0..=255).cycle().take(4096).collect();
    // a Secret is limited to 1 MiB
    let huge = vec![b'{'; 700 << 10];
    let mut mischief: Vec<Mischief<'_>> = vec![
        ("everything is flushed", Box::new(|| server.forget())),
        ("noise", Box::new(|| server.put(&noise))),
        ("nothing", Box::new(|| server.put(b""))),
        ("something huge", Box::new(|| server.put(&huge))),
        ("another tenant's record", Box::new(|| server.put(&another))),
        ("an old record", Box::new(|| server.put(&old))),
    ];
    mischief.extend(of_its_kind(&server));
    let kinds = mischief.len();
    let mut last = 0;
    for (what, put) in mischief {
        put();
        std::thread::sleep(MINUTE * 3 / 2);
        for proxy in &proxies {
            let now = generation(proxy);
            assert!(now >= last, "{what}: generation {now} after {last}");
        }
        last = proxies.iter().map(generation).min().unwrap();
    }
    load.end().assert_all_answered();
    let (issued, refused) = (
        simulator.of_client("issued"),
        simulator.of_client("rate_limited"),
    );
    println!(
        "{kind:?}: {kinds} kinds of mischief, a minute and a half each: {issued} tokens, {refused} x 429"
    );
    assert_eq!(refused, 0);
    assert!(issued <= 12, "{issued}");
    assert_eq!(simulator.count("unauthorized"), 0, "a token of another");
    let kept = server.record();
    assert!(serde_json::from_slice::<serde_json::Value>(&kept).is_ok());
}

/// Manipulations that only this kind of server allows.
fn of_its_kind(server: &Server) -> Vec<Mischief<'_>> {
    match server {
        Server::Redis(redis) => vec![
            (
                "a list as the record",
                Box::new(|| {
                    let key = redis.key(":record");
                    redis.say(&[b"DEL", &key]);
                    redis.say(&[b"RPUSH", &key, b"a"]);
                }),
            ),
            (
                "strings as the members",
                Box::new(|| {
                    redis.set(":members", b"a");
                    redis.set(":seen", b"a");
                }),
            ),
            (
                "a lock without an end",
                Box::new(|| {
                    let lock = redis.key(":record");
                    let lock = String::from_utf8(lock).unwrap().replace(":record", ":lock");
                    redis.say(&[b"SET", lock.as_bytes(), b"a"]);
                }),
            ),
            (
                "scripts are gone",
                Box::new(|| drop(redis.say(&[b"SCRIPT", b"FLUSH"]))),
            ),
        ],
        Server::Sentinel(_) | Server::RedisCluster(_) => Vec::new(),
        #[cfg(feature = "kubernetes")]
        Server::Kubernetes(server) => vec![
            (
                "both are deleted and created again",
                Box::new(|| server.create_anew()),
            ),
            (
                "annotations of other forms, and a holder without an end",
                Box::new(|| {
                    server.edit_lease(|lease| {
                        let metadata = lease["metadata"].as_object_mut().unwrap();
                        let annotations = metadata["annotations"].as_object_mut().unwrap();
                        for (name, value) in annotations {
                            let spoilt = match name.contains("holder") {
                                true => format!("somebody {}", u64::MAX),
                                false => ": a:b c:-1 \u{e9}".to_owned(),
                            };
                            *value = spoilt.into();
                        }
                    });
                }),
            ),
        ],
        #[cfg(feature = "kubernetes")]
        Server::Cluster(cluster) => vec![(
            "both are deleted and created again",
            Box::new(|| cluster.create_anew()),
        )],
    }
}

pub(super) fn neither_token_nor_secret_nor_id_can_be_read_there(kind: Kind) {
    let (_simulator, server, _proxies) = sharing(kind, 1);
    let mut all = server.everything();
    all += &String::from_utf8(server.record()).unwrap();
    for part in [CLIENT_SECRET, "1cnxtsn", "2eeadf60", "127.0.0.1"] {
        assert!(!all.contains(part), "{part} in {all}");
    }
}

pub(super) fn one_with_a_wrong_secret_costs_the_others_nothing(kind: Kind) {
    let (simulator, server, mut proxies) = sharing(kind, 2);
    let member = Member::sharing(&simulator, &server);
    let wrong = Member {
        secret: "wrong",
        ..Member::sharing(&simulator, &server)
    }
    .start();
    let load = Load::begin(&proxies[..1]);
    let failed =
        r#"collibra_auth_proxy_token_requests_total{client="catalog",outcome="invalid_client"}"#;
    // even right after that a restart still finds the token
    for nth in 1..=4 {
        until("another attempt", || {
            wrong
                .metric(failed)
                .filter(|times| *times >= f64::from(nth))
        });
        let before = simulator.of_client("issued");
        let renewed = generation(&proxies[0]);
        proxies[1] = member.start();
        holds(&proxies[1]);
        let issued = simulator.of_client("issued") - before;
        assert!(issued <= generation(&proxies[0]) - renewed, "{issued}");
    }
    load.end().assert_all_answered();
    assert_eq!(simulator.of_client("rate_limited"), 0);
    let none = wrong.metric(r#"collibra_auth_proxy_token_usable{client="catalog"}"#);
    assert_eq!(none, Some(0.0));
}
