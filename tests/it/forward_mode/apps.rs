//! Apps at a forward listener: they authenticate by `Proxy-Authorization`, from the credentials in
//! their proxy's URL.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use super::rig::{HOST, Prepared, Rig, get};
use crate::support::Connection;

pub(super) const KEY: &str = "0123456789abcdef/lineage";

/// A proxy with one app, `lineage`, that may only read the REST API.
pub(super) fn rig() -> Rig {
    let tables = "[app.lineage]\nkey_env = \"LINEAGE\"\nallow = [\"GET /rest/**\"]\n";
    let prepared = Prepared::without_authority("", tables);
    prepared.ca_with("LINEAGE", KEY);
    let builder = prepared.builder().variable("LINEAGE", KEY);
    prepared.start_by(builder)
}

fn basic(name: &str, key: &str) -> String {
    let pair = STANDARD.encode(format!("{name}:{key}"));
    format!("Proxy-Authorization: Basic {pair}\r\n")
}

#[test]
fn an_unknown_caller_gets_407() {
    let rig = rig();
    for line in [
        String::new(),
        basic("lineage", "wrong key, and long"),
        basic("other", KEY),
    ] {
        for target in ["acme.example:443", "other.example:443"] {
            let head = format!("CONNECT {target} HTTP/1.1\nHost: {target}\n{line}\n");
            let mut connection = rig.proxy.connect();
            connection.send(head.replace("\r\n", "\n").replace('\n', "\r\n"));
            let answer = connection.answer("CONNECT");
            answer.assert_refused(407, "unknown-app");
            let challenge = answer.header("proxy-authenticate").unwrap();
            assert!(challenge.starts_with("Basic "), "{challenge}");
            connection.is_closed();
        }
    }
    let head = format!("GET http://{HOST}/rest/x HTTP/1.1\nHost: {HOST}\n\n");
    rig.ask(&head).0.assert_refused(407, "unknown-app");
    assert!(rig.origin.requests().is_empty());
}

#[test]
fn an_app_is_identified_and_limited_for_the_whole_tunnel() {
    let rig = rig();
    for line in [
        basic("lineage", KEY),
        format!("Proxy-Authorization: Bearer {KEY}\r\n"),
    ] {
        let mut inside = Connection::over(rig.inside_with(&line, &["http/1.1"]));
        // a program may have credentials for Collibra, which are not forwarded
        let head = format!(
            "GET /rest/x HTTP/1.1\r\nHost: {HOST}\r\nAuthorization: Basic c29tZTpib2R5\r\n\r\n"
        );
        inside.send(&head);
        assert_eq!(inside.answer(&head).status, 200);
        rig.has_token();
        get(&mut inside, "/graphql").assert_refused(403, "denied");
    }
    let counted = "collibra_auth_proxy_requests_total{app=\"lineage\",code=\"200\"}";
    assert_eq!(rig.proxy.metric(counted), Some(2.0));

    let head = format!(
        "GET http://{HOST}/rest/x HTTP/1.1\r\nHost: {HOST}\r\n{}\r\n",
        basic("lineage", KEY)
    );
    let mut plain = rig.proxy.connect();
    plain.send(&head);
    assert_eq!(plain.answer(&head).status, 200);
    rig.has_token();
    let logged = rig.proxy.process.err.all();
    assert!(!logged.contains(KEY) && !logged.contains(&STANDARD.encode(format!("lineage:{KEY}"))));
}

#[test]
fn curl_with_the_key_in_the_proxys_url() {
    let rig = rig();
    let output = std::process::Command::new("curl")
        .args(["-qsSf", "--max-time", "60"])
        .env_remove("NO_PROXY")
        .env_remove("no_proxy")
        .env(
            "HTTPS_PROXY",
            format!(
                "http://lineage:{}@{}",
                KEY.replace('/', "%2F"),
                rig.address()
            ),
        )
        .env("CURL_CA_BUNDLE", rig.ca_file())
        .arg(format!("https://{HOST}/rest/x"))
        .output()
        .unwrap();
    assert!(output.status.success(), "{output:?}");
    assert_eq!(output.stdout, b"ok");
}

#[test]
fn a_replaced_key_is_refused_in_open_tunnels() {
    let rig = rig();
    let mut inside = Connection::over(rig.inside_with(&basic("lineage", KEY), &["http/1.1"]));
    assert_eq!(get(&mut inside, "/rest/x").status, 200);
    let file = rig.folder.path().join("proxy.toml");
    let text = std::fs::read_to_string(&file).unwrap();
    let other = rig.folder.path().join("other.key");
    std::fs::write(&other, "another key of the app").unwrap();
    let changed = text.replace("key_env = \"LINEAGE\"", &format!("key_file = {other:?}"));
    std::fs::write(&file, changed).unwrap();
    rig.proxy.process.signal("HUP");
    crate::support::until("the old key to be refused", || {
        let answer = get(&mut inside, "/rest/x");
        (answer.status == 401).then_some(())
    });
}
