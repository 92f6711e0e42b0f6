//! Apps, routes and the policy.

use super::*;
use crate::proxy::policy::Sessions;

const REST: &str = r#"
instance.acme = { url = "https://acme.example" }

[client.catalog]
client_id = "id"
client_secret_env = "SECRET"

[client.dev]
client_id = "other"
client_secret_env = "SECRET"
"#;

fn env(name: &str) -> Option<String> {
    match name {
        "SECRET" => Some("s".to_owned()),
        "KEY" => Some("0123456789abcdef".to_owned()),
        "OTHER_KEY" => Some("fedcba9876543210".to_owned()),
        "SHORT" => Some("k4n4ri".to_owned()),
        _ => None,
    }
}

fn read_apps(text: &str) -> Result<Config, Faults> {
    read_with(&format!("{REST}{text}"), Path::new("/nonexistent"), &env)
}

fn said(text: &str) -> String {
    match read_apps(text) {
        Ok(config) => config.warnings.iter().map(|w| format!("{w}\n")).collect(),
        Err(faults) => faults.to_string(),
    }
}

#[test]
fn an_app_is_what_is_written_of_it() {
    let config = read_apps(
        r#"
        [listener.local]
        address = "0.0.0.0:8080"
        client = "catalog"
        route = [
            { prefix = "/dev/", client = "dev", strip = true },
            { prefix = "/dev/x", client = "catalog" },
        ]
        [app.lineage]
        key_env = "KEY"
        client = "dev"
        allow = ["GET /rest/2.0/**"]
        requests_per_second = 0.5
        max_in_flight = 3
        certificate = "lineage.internal"
        [app.other]
        key_env = "OTHER_KEY"
        [policy]
        deny = []
        sessions = "pass"
        "#,
    )
    .unwrap();
    let app = &config.apps["lineage"];
    assert_eq!(app.key.as_ref().unwrap().expose(), "0123456789abcdef");
    assert_eq!(app.client.as_deref(), Some("dev"));
    assert_eq!(app.allow.as_ref().unwrap().len(), 1);
    assert_eq!(app.limits.requests_per_second, Some(0.5));
    assert_eq!(app.limits.max_in_flight, Some(3));
    assert_eq!(app.certificate, "lineage.internal");
    let other = &config.apps["other"];
    assert_eq!((&*other.certificate, &other.allow), ("other", &None));
    let routes = &config.listeners[0].routes;
    assert_eq!((&*routes[0].prefix, routes[0].strip), ("/dev", true));
    assert_eq!((&*routes[1].client, routes[1].strip), ("catalog", false));
    assert!(config.policy.deny.is_empty());
    assert_eq!(config.policy.sessions, Sessions::Pass);
}

#[test]
fn without_a_policy_client_management_is_denied_and_logins_are_answered_here() {
    let config = read_apps("[listener]\nlocal = { address = \"127.0.0.1:1\", client = \"dev\" }");
    let policy = &config.unwrap().policy;
    assert_eq!(format!("{:?}", policy.deny), "[\"/rest/auth/v1/**\"]");
    assert_eq!(policy.sessions, Sessions::Local);
}

#[test]
fn faults() {
    insta::assert_snapshot!(said(
        r#"
[listener.local]
address = "127.0.0.1:8080"
client = "catalog"
app = "linage"
route = [
    { prefix = "dev", client = "dev" },
    { prefix = "/", client = "dev" },
    { prefix = "/a//b", client = "dev" },
    { prefix = "/a b", client = "dev" },
    { client = "deva" },
    { prefix = "/x", client = "dev", cut = true },
    { prefix = "/x/", client = "catalog" },
    "/y",
]

[app.lineage]

[app.short]
key_env = "SHORT"

[app.twice]
key_env = "KEY"
key_file = "key"

[app.one]
key_env = "KEY"
requests_per_second = 0
max_in_flight = 0
client = "prod"
allow = ["get /x", "rest/**", "GET /a?b", "/a/**b"]

[app.same]
key_env = "KEY"
allow = "GET /"

[app.gone]
key_file = "missing"

[policy]
deny = ["x"]
sessions = "no"
"#
    ), @r#"
    proxy.toml:15: listener.local.app: there is no [app.NAME] of this name; write "lineage"
    proxy.toml:17: listener.local.route.prefix: it does not begin with a slash; write it like "/dev"
    proxy.toml:18: listener.local.route.prefix: it is the beginning of every path; write it like "/dev"; what has no route has the listener's own client
    proxy.toml:19: listener.local.route.prefix: a prefix cannot contain this; write whole segments of letters, digits, `-`, `.`, `_` and `~`, like "/dev"
    proxy.toml:20: listener.local.route.prefix: a prefix cannot contain this; write whole segments of letters, digits, `-`, `.`, `_` and `~`, like "/dev"
    proxy.toml:21: listener.local.route.client: there is no [client.NAME] of this name; write "dev"
    proxy.toml:21: listener.local.route.prefix: the route has no prefix; write the beginning of its paths, like `prefix = "/dev"`
    proxy.toml:22: listener.local.route.cut: this key is unknown; known here: `prefix`, `client`, `strip`
    proxy.toml:23: listener.local.route.prefix: another route of this listener has the same prefix; keep one of them
    proxy.toml:24: listener.local.route: this should be a table, as each item of the list, and is a string; write `route = [ { prefix = … } ]`
    proxy.toml:27: app.lineage.key_file: no caller can authenticate as this app; write `key_file` or `key_env`; or `certificate`, the name on its client certificate; or name it with `app` in a listener of its own
    proxy.toml:30: app.short.key_env: the key has fewer than 16 bytes; make one with `openssl rand -hex 32`, or any text of one line
    proxy.toml:32: app.twice.key_file: it is given 2 times: `key_file`, `key_env`; keep one of them
    proxy.toml:38: app.one.requests_per_second: it is out of bounds; write a number from 0.001 to 1000000, or leave the key out for no limit
    proxy.toml:39: app.one.max_in_flight: the app could send no request; write 1 or more, or leave the key out for no limit
    proxy.toml:40: app.one.client: there is no [client.NAME] of this name; write one of `catalog`, `dev`
    proxy.toml:41: app.one.allow: item 1 is no pattern: what stands before the path is no method; write methods in capitals, several with commas, like "GET,POST /graphql"; or the path alone for all
    proxy.toml:41: app.one.allow: item 2 is no pattern: its path does not begin with a slash; write it like "GET /rest/2.0/**" or "/rest/2.0/**"
    proxy.toml:41: app.one.allow: item 3 is no pattern: its path has a character that is never matched; write the path alone and decoded: no query, `%`, `;`, `\` or dot segment, nor two slashes
    proxy.toml:41: app.one.allow: item 4 is no pattern: `**` stands beside other characters of its segment; write `**` as a segment of its own, or `*` for any characters within one
    proxy.toml:43: app.same: it has the same key as [app.one]; give each app a key of its own
    proxy.toml:45: app.same.allow: this should be a list of strings, and is a string; write strings in brackets, like ["…", "…"]
    proxy.toml:48: app.gone.key_file: the file cannot be read: No such file or directory (os error 2); name a file that this user can read (a relative path counts from /nonexistent)
    proxy.toml:51: policy.deny: item 1 is no pattern: its path does not begin with a slash; write it like "GET /rest/2.0/**" or "/rest/2.0/**"
    proxy.toml:52: policy.sessions: there is no such way to treat session logins; write "local" (answered here), "deny" or "pass"
    "#);
}

#[test]
fn warnings() {
    insta::assert_snapshot!(said(
        "[listener]\nlocal = { address = \"127.0.0.1:1\", client = \"dev\" }\n\
         [app]\nidle = { key_env = \"KEY\", allow = [] }",
    ), @r#"
    proxy.toml:4: client.catalog: no listener, route or app uses it, and yet it will hold a token; remove it, or name it in a listener
    proxy.toml:14: app.idle.allow: it allows nothing, so every request of this app is refused; write what it may do, like ["GET /rest/2.0/**"]; or leave the key out
    "#);
}
