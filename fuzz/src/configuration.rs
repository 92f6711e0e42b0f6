//! The text of a configuration file.

use std::path::Path;
use std::str;

use collibra_auth_proxy::config::{self, Config, Fault};
use toml::de::{DeTable, DeValue};

/// Reads `input` as a configuration.
///
/// # Panics
/// If what is said of it quotes a value, or if it is accepted without being sound.
pub fn check(input: &[u8]) {
    let Ok(text) = str::from_utf8(input) else {
        return;
    };
    if super::spells_canary(input) {
        return;
    }
    let text = super::planted(text);
    let mut seen = Seen::default();
    // a text that is no TOML is told so by what should stand there, and has no names to quote
    if let Ok(document) = DeTable::parse(&text) {
        seen.table(document.get_ref());
    }
    if seen.names_canary || seen.leads_outside {
        return;
    }
    // relative paths count from a directory that is not there
    let path = Path::new("/nonexistent/proxy.toml");
    let said: Vec<String> = match config::read(path, super::secret(&text), &env) {
        Ok(config) => {
            assert_sound(&config);
            let hidden = !seen.shows_canary && !ids(&config).any(super::shows_canary);
            assert!(!hidden || !super::shows_canary(&format!("{config:?}")));
            config.warnings.iter().map(Fault::to_string).collect()
        }
        Err(faults) => {
            assert!(faults.iter().count() > 0, "refused without a word");
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

/// What a document holds that bears on what may be said of it.
#[derive(Default)]
struct Seen {
    /// A key has the canary in it; keys may be quoted.
    names_canary: bool,
    /// It stands as a value elsewhere than under `client_secret`, where it is no secret.
    shows_canary: bool,
    /// A file is named that may be there: what it holds is not for this to read.
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
