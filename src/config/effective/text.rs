//! Formats a tree as a TOML document, with its keys in the order of the reference.

use serde_json::{Map, Value};

use crate::config::raw;

/// The tables that contain named tables.
const NAMED: [&str; 4] = ["instance", "client", "listener", "app"];

/// Returns the document. Tables have headings; deeper levels are inline tables.
pub(super) fn toml(tree: &Value) -> String {
    let mut text = String::new();
    for (table, value) in in_order(tree, raw::TABLES) {
        let keys = keys(table);
        if !NAMED.contains(&table) {
            heading(&mut text, table, value, keys);
            continue;
        }
        for (name, value) in in_order(value, &[]) {
            heading(&mut text, &format!("{table}.{name}"), value, keys);
        }
    }
    text
}

fn heading(text: &mut String, name: &str, table: &Value, keys: &[&str]) {
    if !text.is_empty() {
        text.push('\n');
    }
    text.push_str(&format!("[{name}]\n"));
    for (key, value) in in_order(table, keys) {
        text.push_str(&format!("{key} = {}\n", inline(value)));
    }
}

/// Formats a value on one line. JSON writes strings, numbers and booleans as TOML does.
fn inline(value: &Value) -> String {
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

/// The entries of a table: first those of `keys`, in that order.
fn in_order<'a>(table: &'a Value, keys: &[&str]) -> Vec<(&'a str, &'a Value)> {
    let entries = table.as_object().into_iter().flat_map(Map::iter);
    let mut entries: Vec<_> = entries.map(|(key, value)| (&**key, value)).collect();
    let location = |key: &str| keys.iter().position(|known| *known == key);
    entries.sort_by_key(|(key, _)| location(key).unwrap_or(keys.len()));
    entries
}

fn keys(table: &str) -> &'static [&'static str] {
    match table {
        "instance" => raw::INSTANCE,
        "client" => raw::CLIENT,
        "listener" => raw::LISTENER,
        "app" => raw::APP,
        "policy" => raw::POLICY,
        "server" => raw::SERVER,
        "admin" => raw::ADMIN,
        "log" => raw::LOG,
        "store" => raw::STORE,
        "trace" => raw::TRACE,
        _ => &[],
    }
}
