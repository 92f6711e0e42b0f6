//! Compares a new configuration with the one in force, and decides what to replace. Pure.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::declare::Declared;
use super::settings::{Client, Config};
use super::table::Key;
use super::tables::Tables;
use crate::token::service::Change;

/// Whether a client that keeps its name keeps its engine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Engine {
    /// The engine continues, with new orders if there are any.
    Kept(Option<Change>),
    /// A new engine is needed: a token must never go to another instance.
    Replaced,
}

/// Decides about the engine of `old` if its client becomes `new`.
#[must_use]
pub fn engine(old: &Client, new: &Client) -> Engine {
    let (was, is) = (&old.oauth, &new.oauth);
    if was.token_url.origin() != is.token_url.origin() {
        return Engine::Replaced;
    }
    // timeouts do not change how the client authenticates; ignore them here
    let asked_as_before = crate::oauth::Config {
        timeout: was.timeout,
        connect_timeout: was.connect_timeout,
        ..is.clone()
    };
    Engine::Kept(if was.client_id != is.client_id {
        Some(Change::Client)
    } else if *was != asked_as_before {
        Some(Change::Credentials)
    } else if was != is || old.schedule != new.schedule {
        Some(Change::Nothing)
    } else {
        None
    })
}

/// Keeps the TLS setup of a listener, and of its tunnels, whose certificate and key are unchanged,
/// so that callers can resume their sessions.
pub fn keep_tls(old: &Config, new: &mut Config) {
    for listener in &mut new.listeners {
        let mut olds = old.listeners.iter().map(|old| &old.tls);
        if let Some(same) = olds.find(|old| **old == listener.tls) {
            listener.tls.clone_from(same);
        }
        let mut olds = old.listeners.iter().map(|old| &old.forward);
        if let Some(same) = olds.find(|old| **old == listener.forward) {
            listener.forward.clone_from(same);
        }
    }
}

/// Returns the changed keys that apply only after a restart, and keeps their old values in `new`.
pub fn needs_restart(old: &Config, new: &mut Config) -> Vec<String> {
    let endpoint = |config: &Config| config.trace.as_ref().map(|trace| trace.endpoint.clone());
    // its query may hold a key, so it is not shown
    let has_new_endpoint = endpoint(old) != endpoint(new);
    let mut changed = Vec::new();
    for table in Tables::KEYS {
        let at_start = table.keys.iter().filter(|key| key.at_start);
        for Key { name, .. } in at_start {
            let (was, is) = (&old.shown[table.name], &mut new.shown[table.name]);
            if is.get(name) != was.get(name) || (*name == "endpoint" && has_new_endpoint) {
                changed.push(format!("{}.{name}", table.name));
            }
            match was.get(name) {
                Some(value) => is[*name] = value.clone(),
                None => drop(is.as_object_mut().map(|table| table.remove(*name))),
            }
        }
    }
    new.admin.address = old.admin.address.clone();
    new.server.threads = old.server.threads;
    new.trace.clone_from(&old.trace);
    changed
}

/// Describes the differences of `new`, one text per table, without values.
#[must_use]
pub fn differences(old: &Config, new: &Config) -> Vec<String> {
    let mut found = Vec::new();
    compare("instance", &old.instances, &new.instances, &mut found);
    compare("client", &old.clients, &new.clients, &mut found);
    let [was, is] = [old, new].map(|config| config.listeners.iter().map(|l| (&l.name, l)));
    compare("listener", was, is, &mut found);
    compare("app", &old.apps, &new.apps, &mut found);
    let others = [
        ("policy", old.policy != new.policy),
        ("server", old.server != new.server),
        ("admin", old.admin != new.admin),
        ("store", old.store != new.store),
        (
            "log",
            (old.access_log, old.log_user_agent) != (new.access_log, new.log_user_agent),
        ),
        ("trace", old.trace != new.trace),
        ("ca", old.ca.files != new.ca.files),
    ];
    for (table, _) in others.iter().filter(|(_, differs)| *differs) {
        found.push(format!("{table} changed"));
    }
    found
}

fn compare<'a, T: PartialEq + 'a>(
    table: &str,
    old: impl IntoIterator<Item = (&'a Arc<str>, &'a T)>,
    new: impl IntoIterator<Item = (&'a Arc<str>, &'a T)>,
    found: &mut Vec<String>,
) {
    let mut new: BTreeMap<_, _> = new.into_iter().collect();
    for (name, was) in old {
        match new.remove(name) {
            None => found.push(format!("{table}.{name} removed")),
            Some(is) if is != was => found.push(format!("{table}.{name} changed")),
            Some(_) => {}
        }
    }
    found.extend(new.keys().map(|name| format!("{table}.{name} added")));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::effective;
    use crate::config::tests::read;

    const TEXT: &str = r#"
instance.acme = { url = "https://acme.example" }
instance.dev = { url = "https://dev.example" }

[client.catalog]
instance = "acme"
client_id = "id"
client_secret = "secret"
auth_method = "client_secret_basic"
refresh_at = 0.5
token_timeout = "10s"
wait_for_token = "10s"

[listener.local]
address = "127.0.0.1:8080"

[server]
threads = 0

[admin]
address = "127.0.0.1:9902"
"#;

    fn with(from: &str, to: &str) -> Config {
        assert!(TEXT.contains(from), "{from}");
        read(&TEXT.replace(from, to)).unwrap()
    }

    #[test]
    fn an_engine_is_kept_as_long_as_its_token_fits() {
        for (from, to, expected) in [
            ("10s\"\nwait", "10s\"\nwait", Engine::Kept(None)),
            (
                "wait_for_token = \"10s\"",
                "wait_for_token = \"1s\"",
                Engine::Kept(None),
            ),
            (
                "secret = \"s",
                "secret = \"z",
                Engine::Kept(Some(Change::Credentials)),
            ),
            ("_basic", "_post", Engine::Kept(Some(Change::Credentials))),
            ("\"id\"", "\"other\"", Engine::Kept(Some(Change::Client))),
            (
                "token_timeout = \"10s\"",
                "token_timeout = \"9s\"",
                Engine::Kept(Some(Change::Nothing)),
            ),
            ("0.5", "0.4", Engine::Kept(Some(Change::Nothing))),
            (
                "instance = \"acme\"",
                "instance = \"dev\"",
                Engine::Replaced,
            ),
            (
                "https://acme.example",
                "https://acme.example:444",
                Engine::Replaced,
            ),
        ] {
            let (old, new) = (read(TEXT).unwrap(), with(from, to));
            let found = engine(&old.clients["catalog"], &new.clients["catalog"]);
            assert_eq!(found, expected, "{from} -> {to}");
        }
    }

    #[test]
    fn what_counts_from_the_next_start_is_named_and_kept() {
        let with_trace = format!("{TEXT}\n[trace]\nendpoint = \"http://localhost:4318/?key=a\"\n");
        let old = read(&with_trace).unwrap();
        for (from, to, expected) in [
            ("threads = 0", "threads = 0", ""),
            ("threads = 0", "drain = \"1s\"\nthreads = 0", ""),
            ("threads = 0", "threads = 2", "server.threads"),
            ("9902", "9903", "admin.address"),
            ("key=a", "key=b", "trace.endpoint"),
            ("[trace]", "[trace]\nsample = 0.5", "trace.sample"),
        ] {
            let mut new = read(&with_trace.replace(from, to)).unwrap();
            let named = needs_restart(&old, &mut new);
            assert_eq!(named.join(" "), expected, "{from} -> {to}");
            // the process goes on with the old values, and the next reload finds them again
            assert_eq!(new.admin.address, old.admin.address);
            assert_eq!(new.server.threads, old.server.threads);
            assert_eq!(new.trace, old.trace);
            let mut again = read(&with_trace.replace(from, to)).unwrap();
            assert_eq!(needs_restart(&new, &mut again), named, "{from} -> {to}");
            let (old, new) = (effective::tree(&old), effective::tree(&new));
            assert_eq!(
                (&old["admin"], &old["trace"]),
                (&new["admin"], &new["trace"])
            );
            assert_eq!(old["server"]["threads"], new["server"]["threads"]);
        }
        // without a collector, and with a socket's mode
        let mut new = with("127.0.0.1:9902\"", "unix:/run/a.sock\"\nmode = \"0660\"");
        let named = needs_restart(&old, &mut new);
        let expected = ["admin.address", "admin.mode", "trace.endpoint"];
        assert_eq!(named, expected);
        assert_eq!(effective::tree(&new), effective::tree(&old));
    }

    #[test]
    fn differences_are_told_without_values() {
        let old = read(TEXT).unwrap();
        assert!(differences(&old, &read(TEXT).unwrap()).is_empty());
        let new = with("client_secret = \"secret\"", "client_secret = \"canary\"");
        assert_eq!(differences(&old, &new), ["client.catalog changed"]);
        let new = with("[listener.local]", "[listener.other]");
        let expected = ["listener.local removed", "listener.other added"];
        assert_eq!(differences(&old, &new), expected);
        let new = with("threads = 0", "threads = 2");
        assert_eq!(differences(&old, &new), ["server changed"]);
    }
}
