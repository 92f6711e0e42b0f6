//! The configuration as it is shown: nothing is missing, nothing is secret, and it means the same.

use std::collections::BTreeSet;

use serde_json::Value;

use super::*;
use crate::config::{effective, from_flags, reload};

const CANARY: &str = "k4n4ri-5e1f";

/// A configuration that has every key which can stand beside the others, in a directory with the
/// files that it names. Every client has its pool: one that is shown is no longer assumed.
fn full() -> (tempfile::TempDir, String) {
    let directory = tempfile::tempdir().unwrap();
    let authority = rcgen::generate_simple_self_signed(vec!["proxy.test".to_owned()]).unwrap();
    let pem = authority.cert.pem();
    for (name, content) in [
        ("cert.pem", pem.clone()),
        ("key.pem", authority.signing_key.serialize_pem()),
        ("ca.pem", pem),
        ("secret", format!("{CANARY}-secret")),
        ("proxy", format!("me:{CANARY}-proxy")),
        ("app.key", format!("{CANARY}-app-key")),
        (
            "both.json",
            format!(r#"{{"client_id": "urn:b", "client_secret": "{CANARY}-b"}}"#),
        ),
        ("redis", format!("{CANARY}-redis")),
    ] {
        std::fs::write(directory.path().join(name), content).unwrap();
    }
    let text = r#"
[instance.acme]
url = "http://acme.example"
allow_insecure = true
token_path = "/t"
ca_file = "ca.pem"
client_cert_file = "cert.pem"
client_key_file = "key.pem"
proxy = "http://proxy.corp:3128"
token_proxy = "http://token.corp:3128"
proxy_credentials_file = "proxy"
http2 = false
connect_timeout = "7s"
idle_timeout = "2m"
header_timeout = "9s"
resolve_ttl_max = "11s"
[instance.other]
url = "https://other.example:8443"
address = ["10.1.2.3:8443", "internal.example:443"]
proxy = "http://you:k4n4ri-5e1f-url@proxy.corp:3128"
[client.catalog]
instance = "acme"
client_id = "urn:a"
client_secret_file = "secret"
auth_method = "client_secret_post"
scope = "some \"quoted\" scope"
token_timeout = "3s"
refresh_at = 0.25
refresh_jitter = 0
pool = { capacity = 7, refill = "90s" }
wait_for_token = "0s"
[client.dev]
instance = "other"
credentials_file = "both.json"
pool = { capacity = 5, refill = "1m" }
[client.env]
instance = "other"
client_id_env = "ID"
client_secret_env = "SECRET"
pool = { capacity = 5, refill = "1m" }
[client.inline]
instance = "other"
client_id = "urn:d"
client_secret = "k4n4ri-5e1f-inline"
pool = { capacity = 5, refill = "1m" }
[listener.local]
address = "127.0.0.1:8081"
client = "catalog"
route = [{ prefix = "/dev", client = "dev", strip = true }, { prefix = "/env", client = "env" }]
hosts = ["localhost", "proxy.internal"]
trusted_proxies = ["10.0.0.0/8", "fd00::1"]
tls = { cert_file = "cert.pem", key_file = "key.pem", client_ca_file = "ca.pem" }
allow_unauthenticated = true
upgrades = true
header_timeout = "4s"
max_header_bytes = 4096
min_body_rate = 0
max_connections = 11
[listener.forward]
address = "127.0.0.1:9900"
mode = "forward"
others = "tunnel"
allow_remote = true
client = "dev"
[listener.own]
address = "unix:own.sock"
mode = "0660"
client = "inline"
app = "lineage"
[app.lineage]
key_file = "app.key"
certificate = "lineage.internal"
client = "dev"
allow = ["GET /rest/**", "/graphql/*"]
requests_per_second = 2.5
max_in_flight = 3
[app.env]
key_env = "KEY"
[policy]
deny = ["/rest/auth/v1/**", "DELETE /**"]
sessions = "deny"
[server]
threads = 3
drain = "5s"
[admin]
address = "unix:admin.sock"
mode = "0666"
hosts = ["admin.internal"]
[log]
access = false
user_agent = true
[store]
kind = "redis"
url = "rediss://me@redis.example:6380/2"
password_file = "redis"
key_prefix = "mine"
ca_file = "ca.pem"
[trace]
endpoint = "http://localhost:4318"
sample = 0.25
[ca]
dir = "authority"
"#;
    (directory, text.to_owned())
}

fn env(name: &str) -> Option<String> {
    let value = match name {
        "ID" => "urn:c".to_owned(),
        "SECRET" | "KEY" => format!("{CANARY}-{name}-0123456789"),
        _ => return None,
    };
    Some(value)
}

#[test]
fn what_is_shown_means_the_same_and_has_no_secret() {
    let (directory, text) = full();
    let config = read_with(&text, directory.path(), &env).unwrap();
    let shown = effective::toml(&config);
    assert!(!shown.contains(CANARY), "{shown}");
    assert!(!effective::tree(&config).to_string().contains(CANARY));
    assert!(shown.contains(&format!("client_secret = \"{}\"", effective::REDACTED)));
    assert!(
        shown.contains("proxy = \"http://<redacted>@proxy.corp:3128\""),
        "{shown}"
    );

    // with the two secrets that stand in the text itself
    let again = shown
        .replace(
            "client_secret = \"<redacted>\"",
            &format!("client_secret = \"{CANARY}-inline\""),
        )
        .replace("<redacted>@", &format!("you:{CANARY}-url@"));
    let read = read_with(&again, std::path::Path::new("/"), &env).unwrap();
    assert_eq!(reload::differences(&config, &read), Vec::<String>::new());
    assert_eq!(effective::toml(&read), shown);
}

#[test]
fn every_key_is_shown_but_those_that_say_the_same_in_another_way() {
    let (directory, text) = full();
    let config = read_with(&text, directory.path(), &env).unwrap();
    let mut shown = BTreeSet::new();
    keys(&effective::tree(&config), &mut shown);
    // in other kinds of store, or in another way to give an id
    let elsewhere = [
        "path",
        "namespace",
        "secret",
        "lease",
        "kubeconfig",
        "client_id_file",
    ];
    for (path, key) in every_key("") {
        let is_shown = shown.contains(key.name);
        assert!(
            is_shown != elsewhere.contains(&key.name),
            "{path}: {is_shown}"
        );
    }
}

fn keys(tree: &Value, into: &mut BTreeSet<String>) {
    match tree {
        Value::Object(table) => table.iter().for_each(|(key, value)| {
            into.insert(key.clone());
            keys(value, into);
        }),
        Value::Array(items) => items.iter().for_each(|item| keys(item, into)),
        _ => {}
    }
}

#[test]
fn flags_and_variables_become_the_file_that_says_the_same() {
    let flags = Flags {
        upstream: Some("https://acme.example".to_owned()),
        ..Flags::default()
    };
    let env = |name: &str| match name {
        "COLLIBRA_CLIENT_ID" => Some("urn:a".to_owned()),
        "COLLIBRA_CLIENT_SECRET" => Some(CANARY.to_owned()),
        "OTEL_EXPORTER_OTLP_ENDPOINT" => Some(format!("http://localhost:4318?key={CANARY}")),
        "HTTPS_PROXY" => Some("http://me:k4n4ri-5e1f@proxy.corp:3128".to_owned()),
        _ => None,
    };
    let config = from_flags(flags, &env).unwrap();
    insta::assert_snapshot!(effective::toml(&config), @r#"
    [instance.default]
    url = "https://acme.example"
    allow_insecure = false
    token_path = "/rest/oauth/v2/token"
    proxy = "http://<redacted>@proxy.corp:3128"
    token_proxy = "http://<redacted>@proxy.corp:3128"
    http2 = true
    connect_timeout = "5s"
    idle_timeout = "0s"
    header_timeout = "1m"
    resolve_ttl_max = "30s"

    [client.default]
    instance = "default"
    client_id_env = "COLLIBRA_CLIENT_ID"
    client_secret_env = "COLLIBRA_CLIENT_SECRET"
    auth_method = "client_secret_basic"
    scope = ""
    token_timeout = "10s"
    refresh_at = 0.5
    refresh_jitter = 0.05
    pool = { capacity = 5, refill = "1m" }
    wait_for_token = "10s"

    [listener.local]
    address = "127.0.0.1:8080"
    client = "default"
    hosts = ["localhost", "127.0.0.1", "[::1]"]
    allow_unauthenticated = false
    upgrades = false
    header_timeout = "10s"
    max_header_bytes = 65536
    min_body_rate = 240
    max_connections = 10000
    trusted_proxies = []

    [policy]
    deny = ["/rest/auth/v1/**"]
    sessions = "local"

    [server]
    threads = 0
    drain = "20s"

    [admin]
    address = "127.0.0.1:9902"
    hosts = []

    [log]
    access = true
    user_agent = false

    [store]
    kind = "memory"

    [trace]
    endpoint = "http://localhost:4318/v1/traces"
    sample = 1.0
    "#);
}
