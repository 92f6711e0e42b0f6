//! What lies on the server is sealed and never trusted: whatever is put there, no app notices, no
//! token of another is sent, and the pool is never overdrawn.

use std::time::Duration;

use super::load::Load;
use super::{MINUTE, Member, collibra, fleet, generation, holds, sharing};
use crate::support::redis::Redis;
use crate::support::simulator::CLIENT_SECRET;
use crate::support::{http, until};

#[test]
fn whatever_is_put_there_under_load_no_app_notices() {
    let (simulator, redis, proxies) = sharing(4);
    let load = Load::begin(&proxies);
    let old = redis.get(":record");
    assert!(!old.is_empty());
    // as another tenant's proxy writes it, to a server of its own
    let (theirs, their_redis, _their_proxies) = sharing(1);
    let another = their_redis.get(":record");
    assert_ne!(theirs.address, simulator.address);

    let noise: Vec<u8> = (0..=255).cycle().take(4096).collect();
    let huge = vec![b'{'; 1 << 20];
    let mischief: [(&str, &dyn Fn()); 9] = [
        ("everything is flushed", &|| drop(redis.say(&[b"FLUSHALL"]))),
        ("noise", &|| redis.set(":record", &noise)),
        ("something huge", &|| redis.set(":record", &huge)),
        ("another tenant's record", &|| {
            redis.set(":record", &another)
        }),
        ("an old record", &|| redis.set(":record", &old)),
        ("a list as the record", &|| {
            let key = redis.key(":record");
            redis.say(&[b"DEL", &key]);
            redis.say(&[b"RPUSH", &key, b"a"]);
        }),
        ("strings as the members", &|| {
            redis.set(":members", b"a");
            redis.set(":seen", b"a");
        }),
        ("a lock without an end", &|| {
            let lock = redis.key(":record");
            let lock = String::from_utf8(lock).unwrap().replace(":record", ":lock");
            redis.say(&[b"SET", lock.as_bytes(), b"a"]);
        }),
        ("scripts are gone", &|| {
            drop(redis.say(&[b"SCRIPT", b"FLUSH"]))
        }),
    ];
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
    println!("9 kinds of mischief in 13 minutes: {issued} tokens, {refused} x 429");
    assert_eq!(refused, 0);
    assert!(issued <= 10, "{issued}");
    assert_eq!(simulator.count("unauthorized"), 0, "a token of another");
    let kept = redis.get(":record");
    assert!(serde_json::from_slice::<serde_json::Value>(&kept).is_ok());
}

#[test]
fn neither_token_nor_secret_nor_id_can_be_read_there() {
    let (_simulator, redis, _proxies) = sharing(1);
    let mut all = redis.say(&[b"KEYS", b"*"]);
    all.extend(redis.get(":record"));
    let all = String::from_utf8(all).unwrap();
    for part in [CLIENT_SECRET, "1cnxtsn", "2eeadf60", "127.0.0.1"] {
        assert!(!all.contains(part), "{part} in {all}");
    }
    for end in [":record", ":members", ":seen"] {
        let left = redis.say(&[b"PTTL", &redis.key(end)]);
        let left: i64 = String::from_utf8(left).unwrap().parse().unwrap();
        assert!(left > 0, "{end} never ends");
    }
}

#[test]
fn one_with_a_wrong_secret_costs_the_others_nothing() {
    let (simulator, redis, mut proxies) = sharing(2);
    let member = Member::sharing(&simulator, &redis.url());
    let wrong = Member {
        secret: "wrong",
        ..Member::sharing(&simulator, &redis.url())
    }
    .start();
    let load = Load::begin(&proxies[..1]);
    let failed =
        r#"collibra_auth_proxy_token_requests_total{client="catalog",outcome="invalid_client"}"#;
    // right after it has tried, a restart still finds the token
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

#[test]
fn a_server_that_wants_a_password_gets_it_and_nobody_else_sees_it() {
    const PASSWORD: &str = "k4n4ri-8c1f";
    let simulator = collibra();
    let redis = Redis::with(&["--requirepass", PASSWORD]);
    let (_folder, file) = crate::support::file("password", PASSWORD.as_bytes());
    let mut member = Member::sharing(&simulator, &redis.url());
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
    // the one that never found the store waits a moment before it asks for itself
    std::thread::sleep(Duration::from_millis(500));
    assert!(simulator.of_client("issued") <= 2 + generation(&two[0]));
}
