//! Sentinels and a cluster over TLS, for a user with only the documented permissions.

use std::path::Path;

use super::load::Load;
use super::sentinels::Sentinels;
use super::server::listed;
use super::{MINUTE, Member, collibra, fleet, holds};
use crate::support::redis::Redis;
use crate::support::simulator::CLIENT_SECRET;

const PASSWORD: &str = "k4n4ri";

#[test]
fn sentinels_work_over_tls_with_the_documented_permissions() {
    let folder = certificate();
    let rules = rules("on the server needs `");
    let mut servers = Sentinels::with(Some(folder.path()), &user(&rules));
    let url = format!("rediss+sentinel://app@{}/main", listed(&servers.sentinels));
    holds_through(&url, folder.path(), || servers.kill_primary());
}

#[test]
fn a_cluster_works_over_tls_with_the_documented_permissions() {
    let folder = certificate();
    let rules = rules("on the server needs `");
    let mut nodes = Redis::cluster(Some(folder.path()), &user(&rules));
    let url = format!("rediss+cluster://app@{}", listed(&nodes));
    holds_through(&url, folder.path(), || {
        let is_owner = |node: &Redis| node.is_primary() && !node.keys(":record").is_empty();
        let owner = nodes.iter().position(is_owner).unwrap();
        nodes[owner].stop();
    });
}

/// Two proxies share a token in the store at `url`, before and after a failover under load.
fn holds_through(url: &str, folder: &Path, fail_over: impl FnOnce()) {
    let password = folder.join("password");
    std::fs::write(&password, PASSWORD).unwrap();
    let (password, ca_file) = (password.display(), folder.join("cert.pem"));
    let ca_file = ca_file.display();
    let simulator = collibra();
    let store = format!(
        "kind = \"redis\"\nurl = \"{url}\"\npassword_file = \"{password}\"\nca_file = \"{ca_file}\""
    );
    let member = Member {
        simulator: &simulator,
        store,
        secret: CLIENT_SECRET,
        minute: MINUTE,
    };
    let proxies = fleet(&member, 2);
    proxies.iter().for_each(holds);
    let up = r#"collibra_auth_proxy_store_up{store="redis"}"#;
    proxies
        .iter()
        .for_each(|proxy| proxy.metric_becomes(up, 1.0));
    assert_eq!(simulator.of_client("issued"), 1, "one for both");
    let load = Load::begin(&proxies);
    fail_over();
    std::thread::sleep(MINUTE * 8);
    load.end().assert_all_answered();
    proxies
        .iter()
        .for_each(|proxy| proxy.metric_becomes(up, 1.0));
    assert_eq!(simulator.of_client("rate_limited"), 0);
}

/// A folder with a certificate for this machine.
fn certificate() -> tempfile::TempDir {
    let made = rcgen::generate_simple_self_signed(vec!["127.0.0.1".into()]).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    std::fs::write(path("cert.pem"), made.cert.pem()).unwrap();
    std::fs::write(path("key.pem"), made.signing_key.serialize_pem()).unwrap();
    folder
}

/// The permissions that docs/fleet.md names after `before`.
fn rules(before: &str) -> String {
    let guide = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/fleet.md");
    let guide = std::fs::read_to_string(guide).unwrap().replace('\n', " ");
    let (_, after) = guide.split_once(before).unwrap();
    let (rules, _) = after.split_once('`').unwrap();
    rules.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// The flags for a user with these permissions.
fn user(rules: &str) -> Vec<&str> {
    let mut flags = vec!["--user", "app", "on", ">k4n4ri"];
    flags.extend(rules.split_whitespace());
    flags
}
