//! The effective configuration for display: every key with its value, whether from the file, a
//! flag, the environment or the default. A secret is shown as its source: a file or a variable.

use serde_json::{Map, Value, json};

use super::declare::Declared;
use super::settings::Config;
use super::table::Key;
use super::tables::Tables;
pub use super::value::REDACTED;

/// Returns the configuration as a tree: one JSON object per table.
#[must_use]
pub fn tree(config: &Config) -> Value {
    let mut tree = config.shown.clone();
    // `demo` turns it off without a key
    tree["log"]["access"] = json!(config.access_log);
    if config.trace.is_none() {
        tree.as_object_mut().map(|tables| tables.remove("trace"));
    }
    tree
}

/// Returns the configuration as a configuration file. Tables have headings; deeper levels are
/// inline tables.
#[must_use]
pub fn toml(config: &Config) -> String {
    let mut text = String::new();
    let tree = tree(config);
    for (key, value) in in_order(&tree, Tables::KEYS) {
        if !key.is_named {
            heading(&mut text, key.name, value, key.keys);
            continue;
        }
        for (name, value) in value.as_object().into_iter().flatten() {
            heading(&mut text, &format!("{}.{name}", key.name), value, key.keys);
        }
    }
    text
}

fn heading(text: &mut String, name: &str, table: &Value, keys: &'static [Key]) {
    if !text.is_empty() {
        text.push('\n');
    }
    text.push_str(&format!("[{name}]\n"));
    for (key, value) in in_order(table, keys) {
        text.push_str(&format!("{} = {}\n", key.name, inline(value)));
    }
}

/// Formats a value on one line. JSON writes strings, numbers and booleans as TOML does.
pub(super) fn inline(value: &Value) -> String {
    let joined = |items: Vec<String>| items.join(", ");
    match value {
        Value::Array(items) => format!("[{}]", joined(items.iter().map(inline).collect())),
        Value::Object(table) => {
            let pair = |(key, value): (&String, &Value)| format!("{key} = {}", inline(value));
            format!("{{ {} }}", joined(table.iter().map(pair).collect()))
        }
        // the one character that JSON leaves unescaped and TOML does not allow
        Value::String(_) => value.to_string().replace('\u{7f}', "\\u007f"),
        _ => value.to_string(),
    }
}

/// The entries of a table, in the order of `keys`.
fn in_order<'a>(
    table: &'a Value,
    keys: &'static [Key],
) -> impl Iterator<Item = (&'static Key, &'a Value)> {
    let table: Option<&Map<_, _>> = table.as_object();
    keys.iter()
        .filter_map(move |key| Some((key, table?.get(key.name)?)))
}
