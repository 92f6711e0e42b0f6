//! The client certificate is sent to an instance that asks for it, for API calls and token
//! requests. A new certificate is loaded while the proxy runs.

use std::fs;
use std::path::Path;

use crate::support::certificate::{Authority, Files};
use crate::support::origin::{After, Rules};
use crate::support::process::{command, run};
use crate::support::{Origin, Proxy, until};

/// An origin with a certificate of `authority` that accepts only clients certified by `clients`.
fn origin(authority: &Authority, clients: &Authority) -> Origin {
    let server = authority.server_for("localhost", clients);
    let rules = Rules {
        tls: Some(Box::new(move |_| server.clone())),
        ..Rules::default()
    };
    Origin::with(rules, |_, stream| {
        stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")?;
        Ok(After::Keep)
    })
}

fn keys(authority: &Authority, shown: &Files) -> String {
    format!(
        "ca_file = {:?}\nclient_cert_file = {:?}\nclient_key_file = {:?}",
        authority.ca_file(),
        shown.cert,
        shown.key
    )
}

fn url(origin: &Origin) -> String {
    format!("https://localhost:{}", origin.address.port())
}

/// Checks the configuration for `origin`; returns the exit status and the output.
fn check(origin: &Origin, keys: &str) -> (i32, String) {
    let text = format!(
        "[instance.acme]\nurl = \"{}\"\n{keys}\n\
         [client.catalog]\nclient_id = \"id\"\nclient_secret = \"s3cret\"\n",
        url(origin)
    );
    let (_folder, path) = crate::support::file("proxy.toml", text.as_bytes());
    let ended = run(command(["check", "--live", "--config"]).arg(Path::new(&path)));
    (ended.status, ended.out + &ended.err)
}

#[test]
fn it_is_shown_to_the_api_and_the_token_endpoint() {
    let (authority, clients) = (Authority::new(), Authority::new());
    let origin = origin(&authority, &clients);
    let shown = clients.files("app.test");
    let proxy = Proxy::configured(&url(&origin), &keys(&authority, &shown), "").start();
    for _ in 0..10 {
        let answer = proxy.get("/x");
        assert_eq!(answer.status, 200, "{}", answer.text());
    }
    assert_eq!(origin.requests().len(), 10);
    assert!(origin.accepted() < 10, "{} connections", origin.accepted());
    let (status, said) = check(&origin, &keys(&authority, &shown));
    assert_eq!(status, 0, "{said}");
    // without a client certificate the origin refuses everything
    let without = format!("ca_file = {:?}", authority.ca_file());
    let (status, said) = check(&origin, &without);
    assert_eq!(status, 1, "{said}");
}

#[test]
fn a_new_one_is_taken_over() {
    let (authority, clients, stranger) = (Authority::new(), Authority::new(), Authority::new());
    let origin = origin(&authority, &clients);
    let shown = stranger.files("app.test");
    let more = format!("{}\n[log]\naccess = false", keys(&authority, &shown));
    let proxy = Proxy::configured(&url(&origin), &more, "").start();
    let failure = |said: &str| said.contains("token request failed").then_some(());
    proxy.process.err.wait_for("a failure", failure);
    let good = clients.files("app.test");
    fs::copy(&good.cert, &shown.cert).unwrap();
    fs::copy(&good.key, &shown.key).unwrap();
    proxy.has_token();
    until("an answer", || {
        (proxy.get("/x").status == 200).then_some(())
    });
}
