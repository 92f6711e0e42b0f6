//! The reference, generated from the declarations: `config/reference.toml`, and the page of `docs`.

use std::fmt::Write as _;

use serde_json::Value;

use super::*;
use crate::config::effective::inline;

/// The longest line of a comment.
const WIDTH: usize = 100;

const HEAD: &str = "\
# Needs COLLIBRA_CLIENT_ID and COLLIBRA_CLIENT_SECRET in the environment, and your instance's url below.
#
# Every key, with its default unless its comment says otherwise. Keys that are commented out have no
# default, or are another way to say the same. An unknown key is an error. Durations are text with a
# unit, like \"90s\", \"5m\" or \"250ms\". Relative paths count from this file's directory.
#
# This file, and each that it names, may change while the proxy runs: changes apply within seconds,
# or on SIGHUP at once. Keys that need a restart say so.
#
# Generated from src/config/tables.rs.
";

/// Returns `config/reference.toml`.
pub(super) fn toml() -> String {
    let defaults = defaults();
    let mut text = HEAD.to_owned();
    for table in <Tables as Declared>::KEYS {
        text.push('\n');
        write_table(&mut text, &heading(table), table, below(&defaults, table));
    }
    text
}

/// The defaults of all keys: what is shown of a file in which each table is empty.
fn defaults() -> Value {
    let text = "instance.a = {}\nclient.a = {}\nlistener.a = { route = [{}] }\napp.a = {}\n";
    let context = LoadContext::of(Path::new("/"), &|_| None);
    let origin = Origin::File(Arc::new("reference.toml".into()));
    Tables::parse(text, &origin, &context)
        .unwrap()
        .show(&context)
}

/// The defaults of the keys below `key`.
fn below<'a>(defaults: &'a Value, key: &Key) -> &'a Value {
    match &defaults[key.name] {
        Value::Array(items) => &items[0],
        named if key.is_named => &named["a"],
        table => table,
    }
}

/// The heading of a table, with the sample's name.
fn heading(table: &Key) -> String {
    match table.sample {
        "" => table.name.to_owned(),
        name => format!("{}.{name}", table.name),
    }
}

fn write_table(text: &mut String, heading: &str, table: &Key, defaults: &Value) {
    comment(text, table);
    let lines: Vec<(&Key, String)> = table
        .keys
        .iter()
        .filter(|key| !is_section(key))
        .map(|key| (key, line(key, defaults)))
        .collect();
    let is_example = lines.iter().all(|(_, line)| line.starts_with('#'));
    let mark = if is_example { "# " } else { "" };
    writeln!(text, "{mark}[{heading}]").unwrap();
    for (key, line) in lines {
        comment(text, key);
        writeln!(text, "{line}").unwrap();
    }
    for section in table.keys.iter().filter(|key| is_section(key)) {
        text.push('\n');
        let heading = format!("{heading}.{}", section.name);
        write_table(text, &heading, section, below(defaults, section));
    }
}

/// Returns whether a key is a table that has a heading of its own.
fn is_section(key: &Key) -> bool {
    !key.keys.is_empty() && key.example.is_empty()
}

/// Writes the documentation of a key as a comment.
fn comment(text: &mut String, key: &Key) {
    let mut line = "#".to_owned();
    for word in prose(key).split(' ') {
        if line.chars().count() + word.chars().count() >= WIDTH {
            writeln!(text, "{line}").unwrap();
            line = "#".to_owned();
        }
        line.push(' ');
        line.push_str(word);
    }
    writeln!(text, "{line}").unwrap();
}

/// The key with its default, its sample or, commented out, its example.
fn line(key: &Key, defaults: &Value) -> String {
    match (key.example, key.sample, defaults.get(key.name)) {
        ("", "", Some(default)) => format!("{} = {}", key.name, inline(default)),
        ("", "", None) => panic!("{}: give it a default, a sample or an example", key.name),
        ("", sample, _) => format!("{} = {sample}", key.name),
        (example, _, _) => format!("# {} = {example}", key.name),
    }
}

const PREAMBLE: &str = "\
# Configuration reference

Every table and key of the configuration file. [Configuration](configuration.md) explains how to use
it; [`config/reference.toml`](../config/reference.toml) has the same as a file to copy from. An unknown
key is an error. Durations are text with a unit, like `90s`, `5m` or `250ms`. Relative paths count from
the file's directory.
";

/// Returns `docs/configuration-reference.md`.
pub(super) fn page() -> String {
    let defaults = defaults();
    let mut text = PREAMBLE.to_owned();
    for table in <Tables as Declared>::KEYS {
        let heading = if table.is_named {
            format!("{}.NAME", table.name)
        } else {
            table.name.to_owned()
        };
        section(&mut text, &heading, table, below(&defaults, table));
    }
    text
}

fn section(text: &mut String, heading: &str, table: &Key, defaults: &Value) {
    let about = prose(table);
    writeln!(text, "\n## `[{heading}]`\n\n{about}\n").unwrap();
    text.push_str("| key | default | meaning |\n|---|---|---|\n");
    for key in table.keys {
        let default = match defaults.get(key.name) {
            Some(default) if key.keys.is_empty() => format!("`{}`", inline(default)),
            _ => String::new(),
        };
        let about = prose(key).replace('|', "\\|");
        writeln!(text, "| `{}` | {default} | {about} |", key.name).unwrap();
    }
    for key in table.keys.iter().filter(|key| !key.keys.is_empty()) {
        let heading = format!("{heading}.{}", key.name);
        section(text, &heading, key, below(defaults, key));
    }
}

/// The documentation of a key, on one line.
fn prose(key: &Key) -> String {
    let about = key.about.iter().map(|line| line.trim().to_owned());
    let kind = (!key.kind.is_empty()).then(|| format!("Only with the kind `{}`.", key.kind));
    let restart = key.at_start.then(|| "Needs a restart.".to_owned());
    about
        .chain(kind)
        .chain(restart)
        .collect::<Vec<_>>()
        .join(" ")
}
