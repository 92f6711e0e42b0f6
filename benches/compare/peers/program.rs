//! This program.

use std::fmt::Write;
use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;

use serde_json::Value;

use super::{Setup, Upstream};
use crate::machine;
use crate::origin::Origin;
use kit::simulator::CLIENT_SECRET;

/// The configuration file in the proxy's folder.
const FILE: &str = "proxy.toml";

/// The rules of every app.
const RULES: &str = r#"["GET /rest/2.0/**", "POST /graphql/**", "GET /rest/jobs/*"]"#;

/// The rules of one app after a reload.
const OTHER_RULES: &str = r#"["GET /rest/2.0/**", "POST /graphql/**", "GET /rest/2.0/jobs/*"]"#;

pub(super) fn command(
    program: &Path,
    folder: &Path,
    setup: Setup,
    origin: &Origin,
    listen: SocketAddr,
) -> Command {
    let url = origin.url(setup.upstream);
    let http2 = setup.upstream == Upstream::Http2;
    let (ca_file, access_log) = (origin.ca_file(), setup.access_log);
    let (threads, most) = (setup.threads, machine::most_connections());
    let mut config = format!(
        "[instance.origin]
url = \"{url}\"
ca_file = {ca_file:?}
http2 = {http2}
[listener.bench]
address = \"{listen}\"
client = \"client-0\"
max_connections = {most}
[admin]
address = \"127.0.0.1:0\"
[server]
threads = {threads}
[log]
access = {access_log}
"
    );
    for nth in 0..setup.clients {
        let _ = write!(
            config,
            "[client.client-{nth}]
client_id = \"bench-{nth}\"
client_secret_env = \"COLLIBRA_CLIENT_SECRET\"
"
        );
    }
    let keys = folder.join("keys");
    fs::create_dir(&keys).unwrap();
    for nth in 0..setup.apps {
        fs::write(keys.join(nth.to_string()), key(nth)).unwrap();
        let client = nth % setup.clients;
        let _ = write!(
            config,
            "[app.app-{nth}]
key_file = \"keys/{nth}\"
client = \"client-{client}\"
allow = {RULES}
"
        );
    }
    let file = folder.join(FILE);
    fs::write(&file, config).unwrap();
    let mut command = Command::new(program);
    command
        .args(["--log-format", "json", "serve", "--config"])
        .arg(file)
        .env("COLLIBRA_CLIENT_SECRET", CLIENT_SECRET);
    command
}

/// The admin address, from the program's log.
pub(super) fn admin_address(log: &str) -> Option<SocketAddr> {
    let mut lines = log
        .lines()
        .filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let line = lines.find(|line| line["message"] == "admin address open")?;
    line["address"].as_str()?.parse().ok()
}

/// The key of an app.
pub(super) fn key(nth: usize) -> String {
    format!("the-key-of-bench-app-{nth}")
}

/// Changes the first app's rules.
pub(super) fn change_a_rule(folder: &Path) {
    let file = folder.join(FILE);
    let config = fs::read_to_string(&file).unwrap();
    fs::write(file, config.replacen(RULES, OTHER_RULES, 1)).unwrap();
}
