//! Credentials change: the new ones are tried at once, and the current token stays in use
//! meanwhile.

use std::os::unix::fs::symlink;

use super::*;
use crate::support::Origin;
use crate::support::certificate::Authority;
use crate::support::origin::{After, Rules};
use crate::support::{PATIENCE, process};

const RECEIVED: &str = "token received";
const FAILED: &str = "invalid_client";

/// Waits for the nth refused token request; the log line names the client.
fn refused(proxy: &Proxy, nth: usize) {
    let of_the_client = |line: &str| {
        let line: serde_json::Value = serde_json::from_str(line).ok()?;
        (line["outcome"] == FAILED && line["client"].is_string()).then_some(())
    };
    let printed = &proxy.process.err;
    printed.wait_for_nth("a refused token request", nth, of_the_client);
}

fn issued(simulator: &Simulator, client: &str) -> u64 {
    simulator.state()["clients"][client]["issued"]
        .as_u64()
        .unwrap()
}

#[test]
fn another_client_takes_over_under_load() {
    let (simulator, files, proxy) = one();
    let apps = Apps::start(&proxy);
    apps.answered(50);
    let changed = now();
    files.write("id", "two\n").write("secret", "second\n");
    let is_there = "a token of the new client";
    let printed = &proxy.process.err;
    let (_, at) = printed.wait_for_nth(is_there, 2, |line| message(line, RECEIVED));
    let took = at - changed;
    assert!(took < Duration::from_secs(6), "{took:?}");
    apps.answered(50);
    assert_eq!(
        (issued(&simulator, "one"), issued(&simulator, "two")),
        (1, 1)
    );
    // the old token is no longer needed
    simulator.revoke_client("one");
    apps.answered(200);
    apps.lost_nothing();
    assert_eq!(simulator.count("unauthorized"), 0);
}

#[test]
fn wrong_credentials_are_reported_and_right_ones_tried_at_once() {
    let (simulator, files, proxy) = one();
    let apps = Apps::start(&proxy);
    files.write("secret", "wrong\n");
    refused(&proxy, 1);
    apps.answered(50);
    let status = crate::support::http::get(proxy.admin, "/api/status").json();
    assert_eq!(status["clients"][0]["failure"]["outcome"], FAILED);
    assert_eq!(status["ready"], true, "the old token is good");
    let mended = now();
    files.write("secret", "first\n");
    said(&proxy, RECEIVED, 2);
    let took = mended.elapsed();
    assert!(took < Duration::from_secs(6), "{took:?}");
    apps.answered(50);
    apps.lost_nothing();
    assert_eq!(issued(&simulator, "one"), 2);
    let printed = proxy.process.err.all();
    for secret in ["wrong\"", "first"] {
        assert!(!printed.contains(secret), "{printed}");
    }
}

#[test]
fn a_token_is_kept_under_the_credentials_that_brought_it() {
    let simulator = simulator();
    let files = Files::new();
    files.write("id", "one").write("secret", "first");
    files.configure(
        &simulator.url(),
        "[store]\nkind = \"file\"\npath = \"state\"",
    );
    let proxy = files.serve();
    files.write("id", "two").write("secret", "second");
    until("the token to be kept", || {
        let status = crate::support::http::get(proxy.admin, "/api/status").json();
        let client = &status["clients"][0];
        let is_there = client["token"]["generation"] == 2 && client["next"]["kind"] == "request";
        is_there.then_some(())
    });
    drop(proxy);
    let proxy = Proxy::by_file(&files.path("proxy.toml")).start();
    said(&proxy, "token adopted from the store", 1);
    assert_eq!(proxy.get("/rest/2.0/application/info").status, 200);
    files.write("id", "one").write("secret", "first");
    said(&proxy, "token adopted from the store", 2);
    let issued = (issued(&simulator, "one"), issued(&simulator, "two"));
    assert_eq!(issued, (1, 1), "the first one's token was kept too");
}

#[test]
fn a_mounted_secret_changes_as_a_whole() {
    let simulator = simulator();
    let files = Files::new();
    for (generation, id, secret) in [("..1", "one", "first"), ("..2", "two", "second")] {
        std::fs::create_dir(files.path(generation)).unwrap();
        files.write(&format!("{generation}/id"), id);
        files.write(&format!("{generation}/secret"), secret);
    }
    symlink("..1", files.path("..data")).unwrap();
    symlink("..data/id", files.path("id")).unwrap();
    symlink("..data/secret", files.path("secret")).unwrap();
    let proxy = files.configure(&simulator.url(), "").serve();
    let apps = Apps::start(&proxy);
    symlink("..2", files.path("..data_tmp")).unwrap();
    std::fs::rename(files.path("..data_tmp"), files.path("..data")).unwrap();
    said(&proxy, RECEIVED, 2);
    apps.answered(50);
    apps.lost_nothing();
    assert_eq!(
        (issued(&simulator, "one"), issued(&simulator, "two")),
        (1, 1)
    );
    assert_eq!(simulator.count("token_requests"), 2);
}

#[test]
fn flags_may_name_the_file() {
    let simulator = simulator();
    let files = Files::new();
    files.write("secret", "first");
    let proxy = Proxy::to(&simulator.url())
        .without("COLLIBRA_CLIENT_SECRET")
        .variable("COLLIBRA_CLIENT_ID", "one")
        .file("--client-secret-file", &files.path("secret"))
        .start();
    proxy.has_token();
    files.write("secret", "wrong");
    refused(&proxy, 1);
    files.write("secret", "first");
    said(&proxy, RECEIVED, 2);
    proxy.process.signal("HUP");
    said(&proxy, "configuration unchanged", 1);
    assert_eq!(proxy.get("/rest/2.0/application/info").status, 200);
}

#[test]
fn both_may_be_in_one_file() {
    let simulator = simulator();
    let files = Files::new();
    let registered = |id: &str, secret: &str| {
        format!(r#"{{"client_id": "{id}", "client_secret": "{secret}", "name": "x"}}"#)
    };
    files.write("both.json", &registered("one", "first"));
    files.configure(&simulator.url(), "");
    let text = std::fs::read_to_string(files.path("proxy.toml")).unwrap();
    let by_one = text.replace(
        "client_id_file = \"id\"\nclient_secret_file = \"secret\"",
        "credentials_file = \"both.json\"",
    );
    let proxy = files.write("proxy.toml", &by_one).serve();
    files.write("both.json", &registered("two", "second"));
    said(&proxy, RECEIVED, 2);
    assert_eq!(issued(&simulator, "two"), 1);
}

/// Replaces the secret's file by a pipe without a writer.
fn become_a_pipe(files: &Files) {
    let (pipe, secret) = (files.path("pipe"), files.path("secret"));
    let made = std::process::Command::new("mkfifo").arg(&pipe).status();
    assert!(made.unwrap().success());
    std::fs::rename(&pipe, &secret).unwrap();
}

#[test]
fn a_secret_that_became_a_pipe_is_refused_and_holds_nothing_up() {
    let (_simulator, files, mut proxy) = one();
    become_a_pipe(&files);
    said(&proxy, REFUSED, 1);
    let printed = &proxy.process.err;
    printed.wait_for("why", |line| {
        line.contains("it is no regular file").then_some(())
    });
    assert_eq!(proxy.get("/rest/2.0/assets").status, 200);
    std::fs::remove_file(files.path("secret")).unwrap();
    files.write("secret", "first\n");
    said(&proxy, "configuration unchanged", 1);

    become_a_pipe(&files);
    proxy.process.signal("HUP");
    proxy.process.signal("TERM");
    assert_eq!(proxy.process.ended_within(PATIENCE), 0);
}

#[test]
fn a_secret_that_is_a_pipe_fails_a_start() {
    let files = Files::new();
    become_a_pipe(&files);
    let secret = files.path("secret");
    let words = [
        "serve",
        "--upstream",
        "https://acme.example",
        "--client-id",
        "one",
    ];
    let mut command = process::command(words);
    let ended = process::run(command.arg("--client-secret-file").arg(&secret));
    assert_eq!(ended.status, 78, "{}", ended.err);
    assert!(ended.err.contains("it is no regular file"), "{}", ended.err);
}

#[test]
fn a_file_that_is_gone_for_a_moment_is_reported_once_and_changes_nothing() {
    let (simulator, files, proxy) = one();
    let apps = Apps::start(&proxy);
    std::fs::remove_file(files.path("secret")).unwrap();
    said(&proxy, REFUSED, 1);
    proxy.metric_becomes("collibra_auth_proxy_config_reload_failed", 1.0);
    files.write("secret", "");
    said(&proxy, REFUSED, 2);
    files.write("secret", "first\n");
    said(&proxy, "configuration unchanged", 1);
    proxy.metric_becomes("collibra_auth_proxy_config_reload_failed", 0.0);
    apps.answered(20);
    apps.lost_nothing();
    let printed = proxy.process.err.all();
    let gone = printed
        .lines()
        .filter(|line| line.contains("the file cannot be read"));
    assert_eq!(gone.count(), 1, "{printed}");
    assert_eq!(issued(&simulator, "one"), 1);
}

#[test]
fn a_secret_may_change_while_the_configuration_is_at_fault() {
    let (simulator, files, proxy) = one();
    files.configure(&simulator.url(), "hsts = true");
    said(&proxy, REFUSED, 1);
    files.write("id", "two\n").write("secret", "second\n");
    said(&proxy, RECEIVED, 2);
    assert_eq!(issued(&simulator, "two"), 1);
    assert_eq!(
        proxy.metric("collibra_auth_proxy_config_reload_failed"),
        Some(1.0)
    );
    let printed = proxy.process.err.all();
    let named = printed.lines().filter(|line| line.contains("hsts"));
    assert_eq!(named.count(), 1, "{printed}");
}

#[test]
fn another_authority_takes_over() {
    let old = Authority::new();
    let new = Authority::new();
    let moved = Arc::new(AtomicBool::new(false));
    let (by_old, by_new) = (old.server("localhost"), new.server("localhost"));
    let has_moved = Arc::clone(&moved);
    let rules = Rules {
        tls: Some(Box::new(move |_| {
            let moved = has_moved.load(Ordering::SeqCst);
            Arc::clone(if moved { &by_new } else { &by_old })
        })),
        ..Rules::default()
    };
    let origin = Origin::with(rules, |_, stream| {
        stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")?;
        Ok(After::Keep)
    });
    let url = format!("https://localhost:{}", origin.address.port());
    let files = Files::new();
    std::fs::copy(old.ca_file(), files.path("ca.pem")).unwrap();
    files.write("id", "one").write("secret", "first");
    files.configure(&url, "");
    let text = std::fs::read_to_string(files.path("proxy.toml")).unwrap();
    let text = text.replace("[client.", "ca_file = \"ca.pem\"\n[client.");
    let proxy = files.write("proxy.toml", &text).serve();

    let mut kept = proxy.connect();
    assert_eq!(kept.get(proxy.address, "/x").status, 200);
    moved.store(true, Ordering::SeqCst);
    let cut = kept.get(proxy.address, "/x").status;
    assert_eq!(cut, 200, "the connection to the instance is kept");
    std::fs::copy(new.ca_file(), files.path("ca.pem")).unwrap();
    said(&proxy, TAKEN_OVER, 1);
    said(&proxy, RECEIVED, 2);
    let last = kept.get(proxy.address, "/x");
    assert_eq!(last.status, 200);
    assert_eq!(last.header("connection"), Some("keep-alive"));
    for _ in 0..20 {
        assert_eq!(proxy.get("/x").status, 200);
    }
}
