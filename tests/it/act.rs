//! An operator's actions on a running proxy: request a new token, change the log level, read the
//! configuration.

use std::net::SocketAddr;

use serde_json::Value;

use crate::support::http::{self, Connection};
use crate::support::process::{Ended, command, run};
use crate::support::proxy::message;
use crate::support::simulator::CLIENT_SECRET;
use crate::support::{Proxy, Simulator, file, pair};

fn said(admin: SocketAddr, words: &[&str]) -> Ended {
    let admin = admin.to_string();
    run(command(words).args(["--admin", &admin]))
}

/// `POST path` at the admin address.
fn post(admin: SocketAddr, path: &str, more: &str) -> http::Answer {
    let request = format!("POST {path} HTTP/1.1\r\nHost: {admin}\r\n{more}\r\n");
    let mut connection = Connection::open(admin);
    connection.send(&request);
    connection.answer(&request)
}

fn generation(proxy: &Proxy) -> Option<f64> {
    proxy.metric("collibra_auth_proxy_token_generation{client=\"default\"}")
}

#[test]
fn a_client_is_renewed_within_its_pool_and_no_further() {
    let (simulator, proxy) = pair();
    let ended = said(proxy.admin, &["renew", "default"]);
    assert_eq!((ended.status, &*ended.err), (0, ""));
    assert!(
        ended.out.starts_with("default: token 2, good for "),
        "{}",
        ended.out
    );
    assert_eq!(generation(&proxy), Some(2.0));
    // a pool of five, of which two are taken
    let mut refused = None;
    for _ in 0..5 {
        let ended = said(proxy.admin, &["renew", "default"]);
        if ended.status != 0 {
            refused = Some(ended.err);
        }
    }
    assert_eq!(generation(&proxy), Some(5.0));
    let refused = refused.unwrap();
    assert!(
        refused.contains("the token pool allows no request for another "),
        "{refused}"
    );
    assert_eq!(simulator.of_client("rate_limited"), 0);
    let answer = post(proxy.admin, "/api/clients/default/renew", "");
    assert_eq!(answer.status, 429);
    let wait: u64 = answer.header("retry-after").unwrap().parse().unwrap();
    assert!((1..=60).contains(&wait), "{wait}");

    let unknown = said(proxy.admin, &["renew", "no/such client"]);
    assert_eq!(unknown.status, 1);
    assert!(unknown.err.contains("there is default"), "{}", unknown.err);
    let page = post(
        proxy.admin,
        "/api/clients/default/renew",
        "Origin: http://localhost\r\n",
    );
    assert_eq!(page.status, 403);
}

#[test]
fn a_failed_renewal_is_told_and_the_token_in_hand_serves_on() {
    let (simulator, proxy) = pair();
    simulator.fault("token", "status:500");
    let ended = said(proxy.admin, &["renew", "default"]);
    assert_eq!(ended.status, 1);
    assert!(
        ended.err.starts_with("the token request failed: "),
        "{}",
        ended.err
    );
    assert_eq!(proxy.get("/rest/2.0/application/info").status, 200);
}

#[test]
fn the_log_level_changes_while_requests_are_served() {
    let (_simulator, proxy) = pair();
    let is_access = |line: &str, path: &str| line.contains(path).then_some(());
    let level = |words: &[&str]| {
        let ended = said(proxy.admin, words);
        assert_eq!(ended.status, 0, "{}", ended.err);
        ended.out
    };
    assert_eq!(level(&["log-level"]), "info");
    assert_eq!(level(&["log-level", "error"]), "error");
    proxy.get("/rest/2.0/assets?quiet");
    proxy.get("/rest/2.0/domains");
    assert_eq!(level(&["log-level", "DEBUG"]), "debug");
    proxy.get("/rest/2.0/communities");
    proxy.process.err.wait_for("an access line", |line| {
        is_access(line, "/rest/2.0/communities")
    });
    let printed = proxy.process.err.all();
    assert!(!printed.contains("/rest/2.0/domains"), "{printed}");
    for (before, after) in [("info", "error"), ("error", "debug")] {
        let changed = printed.lines().find_map(|line| {
            let line = message(line, "log level changed")?;
            (line["before"] == before && line["after"] == after).then_some(())
        });
        assert!(changed.is_some(), "{before} to {after}: {printed}");
    }
    // its own lines of that level, and none of a library's
    let mut broken = Connection::open(proxy.admin);
    broken.send("GET / HTTP/9\r\n\r\n");
    drop(broken);
    proxy.process.err.wait_for("a debug line", |line| {
        let line: Value = serde_json::from_str(line).ok()?;
        (line["level"] == "DEBUG" && line["target"] == "collibra_auth_proxy::admin::server")
            .then_some(())
    });
    let ended = said(proxy.admin, &["log-level", "loud"]);
    assert_eq!(ended.status, 1);
    assert!(
        ended.err.contains("choose one of off, error, warn"),
        "{}",
        ended.err
    );
}

#[test]
fn the_configuration_is_shown_as_it_is_in_force_and_without_secrets() {
    let simulator = Simulator::start();
    let proxy = Proxy::configured(&simulator.url(), "", "max_connections = 123").start();
    let answer = http::get(proxy.admin, "/api/config");
    assert_eq!(answer.status, 200);
    assert!(!answer.text().contains(CLIENT_SECRET));
    let config: Value = serde_json::from_str(&answer.text()).unwrap();
    assert_eq!(config["listener"]["local"]["max_connections"], 123);
    assert_eq!(config["client"]["catalog"]["client_secret"], "<redacted>");
    assert_eq!(config["client"]["catalog"]["pool"]["refill"], "1m");
    // a name may lead here from anywhere
    let request = "GET /api/config HTTP/1.1\r\nHost: attacker.example\r\n\r\n";
    let mut connection = Connection::open(proxy.admin);
    connection.send(request);
    assert!(matches!(connection.answer(request).status, 403 | 421));

    // what `check --print` says of flags is a file that means the same
    let mut check = command(["check", "--print", "--upstream", &simulator.url()]);
    check
        .env("COLLIBRA_CLIENT_ID", "urn:x")
        .env("COLLIBRA_CLIENT_SECRET", "canary-71");
    let printed = run(&mut check);
    assert_eq!(printed.status, 0, "{}", printed.err);
    assert!(!printed.out.contains("canary-71"), "{}", printed.out);
    let (_folder, path) = file("printed.toml", printed.out.as_bytes());
    let mut check = command(["check", "--print"]);
    check
        .arg("--config")
        .arg(&path)
        .env("COLLIBRA_CLIENT_ID", "urn:x")
        .env("COLLIBRA_CLIENT_SECRET", "canary-71");
    let again = run(&mut check);
    assert_eq!((again.status, again.out), (0, printed.out), "{}", again.err);
}
