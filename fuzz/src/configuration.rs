//! Fuzz target: the text of a configuration file.

use std::path::Path;
use std::str;

use collibra_auth_proxy::config::{self, Config, Fault};
use toml::de::{DeTable, DeValue};

/// Parses `input` as a configuration.
///
/// # Panics
/// If a message quotes a value, or if an invalid configuration is accepted.
pub fn check(input: &[u8]) {
    let Ok(text) = str::from_utf8(input) else {
        return;
    };
    if super::spells_canary(input) {
        return;
    }
    let text = super::planted(text);
    let mut seen = Seen::default();
    // a TOML syntax error names what was expected, and quotes no key
    if let Ok(document) = DeTable::parse(&text) {
        seen.table(document.get_ref());
    }
    if seen.names_canary || seen.leads_outside {
        return;
    }
    // relative paths are resolved in a directory that does not exist
    let path = Path::new("/nonexistent/proxy.toml");
    let said: Vec<String> = match config::read(path, super::secret(&text), &env) {
        Ok(config) => {
            assert_sound(&config);
            let hidden = !seen.shows_canary && !ids(&config).any(super::shows_canary);
            assert!(!hidden || !super::shows_canary(&format!("{config:?}")));
            config.warnings.iter().map(Fault::to_string).collect()
        }
        Err(faults) => {
            assert!(faults.iter().count() > 0, "refused without a fault");
            let each = faults.iter().map(|fault| format!("{fault:?}"));
            each.chain([faults.to_string()]).collect()
        }
    };
    for line in said {
        assert!(!super::shows_canary(&line), "{text}\n{line}");
    }
}

fn env(name: &str) -> Option<String> {
    match name {
        "ID" => Some("urn:x".to_owned()),
        "SECRET" => Some(super::CANARY.to_owned()),
        "LINES" => Some([super::CANARY; 2].join("\n")),
        _ => None,
    }
}

fn ids(config: &Config) -> impl Iterator<Item = &str> {
    config
        .clients
        .values()
        .map(|it| it.oauth.client_id.as_str())
}

fn assert_sound(config: &Config) {
    assert!(!config.clients.is_empty() && !config.listeners.is_empty());
    for client in config.clients.values() {
        assert!(config.instances.contains_key(&client.instance));
        assert!(!client.oauth.client_secret.expose().is_empty());
        assert!(!client.oauth.timeout.is_zero() && !client.oauth.connect_timeout.is_zero());
        let schedule = client.schedule;
        assert!(schedule.refresh_at > 0.0 && schedule.refresh_at < 1.0);
        assert!((0.0..=1.0).contains(&schedule.refresh_jitter));
        assert!(schedule.pool.capacity >= 1 && !schedule.pool.refill.is_zero());
    }
    for instance in config.instances.values() {
        assert!(!instance.host.is_empty() && instance.token_path.starts_with('/'));
        assert!(instance.idle_timeout.is_none_or(|it| !it.is_zero()));
    }
    for listener in &config.listeners {
        assert!(config.clients.contains_key(&listener.client));
        assert!(!listener.hosts.is_empty() && !listener.header_timeout.is_zero());
        assert!(listener.max_header_bytes > 0 && listener.max_connections > 0);
    }
}

/// What in a document affects which messages are allowed.
#[derive(Default)]
struct Seen {
    /// A key contains the canary; keys may be quoted.
    names_canary: bool,
    /// It is a value of another key than `client_secret`, where it is not a secret.
    shows_canary: bool,
    /// It names a file that may exist: do not read it.
    leads_outside: bool,
}

impl Seen {
    fn table(&mut self, table: &DeTable<'_>) {
        for (key, value) in table {
            let key = key.get_ref();
            self.names_canary |= super::shows_canary(key);
            self.value(key, value.get_ref());
        }
    }

    fn value(&mut self, key: &str, value: &DeValue<'_>) {
        match value {
            DeValue::Table(table) => self.table(table),
            DeValue::Array(items) => items.iter().for_each(|it| self.value(key, it.get_ref())),
            DeValue::String(text) => {
                self.shows_canary |= super::shows_canary(text) && key != "client_secret";
                self.leads_outside |= text.starts_with('/') && key.ends_with("_file");
            }
            _ => {}
        }
    }
}
