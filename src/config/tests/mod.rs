//! Tests of the configuration as a whole.

mod apps;
mod canary;
mod effective;
mod faults;
mod flags;
mod listeners;
mod reference;
mod samples;
mod sound;

use std::time::Duration;

use super::declare::Declared;
use super::table::Key;
use super::*;

/// Reads `text` as the file `proxy.toml`, in a working directory without files, with an empty
/// environment.
pub(super) fn read(text: &str) -> Result<Config, Faults> {
    read_with(text, Path::new("/nonexistent"), &|_| None)
}

/// As [`read`], with files and an environment.
pub(super) fn read_with(
    text: &str,
    base: &Path,
    env: &dyn Fn(&str) -> Option<String>,
) -> Result<Config, Faults> {
    let origin = Origin::File(Arc::new("proxy.toml".into()));
    let context = LoadContext::of(base, env);
    let tables = Tables::parse(text, &origin, &context);
    parse::parse(tables.ok_or_else(|| context.faults())?, None, &context)
}

/// Returns the messages for `text`: its faults, or else its warnings.
fn report(text: &str) -> String {
    match read(text) {
        Err(faults) => faults.to_string(),
        Ok(config) => {
            let warnings: Vec<String> = config.warnings.iter().map(Fault::to_string).collect();
            warnings.join("\n")
        }
    }
}

/// Every key of `keys` and below, with its path; `name` names a named table.
fn walk(keys: &'static [Key], path: &str, name: &str, found: &mut Vec<(String, &'static Key)>) {
    for key in keys {
        let path = [path, key.name].join(".");
        let path = path.trim_start_matches('.');
        found.push((path.to_owned(), key));
        let named = [path, name].join(".");
        let below = if key.is_named { &named } else { path };
        walk(key.keys, below.trim_end_matches('.'), name, found);
    }
}

/// Every key, with its path. `name` names a named table; empty, the path is without it.
fn every_key(name: &str) -> Vec<(String, &'static Key)> {
    let mut found = Vec::new();
    walk(<Tables as Declared>::KEYS, "", name, &mut found);
    found
}

/// A file in which nothing is at fault, with `instance`, `client` and `listener` added to their
/// tables.
fn with(instance: &str, client: &str, listener: &str) -> String {
    format!(
        "[instance.acme]\nurl = \"https://acme.example\"\n{instance}\n\
         [client.catalog]\nclient_id = \"id\"\nclient_secret = \"s\"\n{client}\n\
         [listener.local]\naddress = \"127.0.0.1:8080\"\n{listener}\n"
    )
}
