//! Apps authenticate with keys, local tokens or sessions, and are limited by rules, rates and
//! routes.

mod allowed;
mod doors;
mod known;
mod limits;
mod local_tokens;
mod routes;

use crate::support::http::{self, Answer};
use crate::support::{Proxy, Simulator};

/// Two apps: one with all permissions, and one that may read.
const APPS: &str = r#"
[app.lineage]
key_env = "LINEAGE_KEY"
[app.reader]
key_env = "READER_KEY"
allow = ["GET /rest/2.0/**", "POST /graphql/**"]
"#;

/// The key of `lineage`, with characters that a form would encode.
const KEY: &str = "lin+eage%20key/0123456789";

/// The key of `reader`.
const READER_KEY: &str = "reader-key-0123456789";

/// A simulated Collibra, and a proxy that holds a token for [`APPS`] and more tables.
fn known_apps(more: &str) -> (Simulator, Proxy) {
    let simulator = Simulator::start();
    let proxy = Proxy::configured(&simulator.url(), "", &format!("{APPS}{more}"))
        .variable("LINEAGE_KEY", KEY)
        .variable("READER_KEY", READER_KEY)
        .start();
    proxy.has_token();
    (simulator, proxy)
}

/// The Basic header of a name and key.
fn basic(name: &str, key: &str) -> String {
    use base64::Engine;
    let pair = base64::engine::general_purpose::STANDARD.encode(format!("{name}:{key}"));
    format!("Authorization: Basic {pair}\n")
}

/// Sends `METHOD path` with header lines, and no body.
fn call(proxy: &Proxy, line: &str, headers: &str) -> Answer {
    let length = match line.split(' ').next() {
        Some("GET" | "HEAD" | "DELETE") => "",
        _ => "Content-Length: 0\n",
    };
    proxy.ask(&format!(
        "{line} HTTP/1.1\nHost: {{host}}\n{headers}{length}\n"
    ))
}

/// Sends a token request with this form and header lines.
fn ask_for_token(proxy: &Proxy, headers: &str, form: &str) -> Answer {
    let length = form.len();
    proxy.ask(&format!(
        "POST /rest/oauth/v2/token HTTP/1.1\nHost: {{host}}\n{headers}\
         Content-Type: application/x-www-form-urlencoded\nContent-Length: {length}\n\n{form}"
    ))
}

/// Logs in with this name and password.
fn log_in(proxy: &Proxy, name: &str, password: &str) -> Answer {
    let body = serde_json::json!({ "username": name, "password": password }).to_string();
    let line = "POST /rest/2.0/auth/sessions HTTP/1.1";
    http::post(proxy.address, line, "application/json", body.as_bytes())
}
