//! Every field that the log has is told of in docs/logs.md.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use serde_json::Value;

use crate::support::pair;

/// Whether the document has `` `field` ``.
fn is_documented(field: &str) -> bool {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/logs.md");
    let text = fs::read_to_string(path).unwrap();
    text.contains(&format!("`{field}`"))
}

#[test]
fn the_fields_of_the_programs_own_lines_are_documented() {
    let mut fields = BTreeSet::new();
    collect(
        &Path::new(env!("CARGO_MANIFEST_DIR")).join("src"),
        &mut fields,
    );
    for known in ["next_in_seconds", "in_a_row", "drain_seconds", "listener"] {
        assert!(
            fields.contains(known),
            "it is not found in the source: {fields:?}"
        );
    }
    let missing: Vec<&String> = fields
        .iter()
        .filter(|field| !is_documented(field))
        .collect();
    assert!(missing.is_empty(), "not in docs/logs.md: {missing:?}");
}

#[test]
fn the_fields_of_a_request_are_documented() {
    let (_simulator, proxy) = pair();
    proxy.get("/rest/2.0/application/info");
    let line: Value = proxy.process.err.wait_for("an access line", |line| {
        let line: Value = serde_json::from_str(line).ok()?;
        (line["target"] == "access").then_some(line)
    });
    for field in line.as_object().unwrap().keys() {
        assert!(is_documented(field), "{field} of {line}");
    }
}

/// The fields of the lines that the files in `folder` log, tests and the simulator apart.
fn collect(folder: &Path, into: &mut BTreeSet<String>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap().to_owned();
        if path.is_dir() && !["simulator", "tests"].contains(&&*name) {
            collect(&path, into);
        } else if name.ends_with(".rs") && name != "tests.rs" {
            let text = fs::read_to_string(&path).unwrap();
            let text = text.split("#[cfg(test)]\n").next().unwrap();
            for level in ["error!(", "warn!(", "info!(", "debug!("] {
                for call in text.split(level).skip(1) {
                    into.extend(fields(call));
                }
            }
        }
    }
}

/// The names of the fields that stand before the message of a call.
fn fields(call: &str) -> Vec<String> {
    let before = call.split('"').next().unwrap();
    let (mut depth, mut fields, mut field) = (0, Vec::new(), String::new());
    for character in before.chars() {
        match character {
            '(' | '[' | '{' => depth += 1,
            ')' | ']' | '}' if depth == 0 => break,
            ')' | ']' | '}' => depth -= 1,
            ',' if depth == 0 => fields.push(std::mem::take(&mut field)),
            _ => {}
        }
        if depth == 0 && character != ',' {
            field.push(character);
        }
    }
    let name = |field: String| {
        let name = field.split('=').next().unwrap().trim();
        name.trim_start_matches(['%', '?']).to_owned()
    };
    // `target:` is none, and neither is what is no plain word
    let is_name = |name: &String| {
        let plain = |c: char| c.is_ascii_lowercase() || c == '_';
        !name.is_empty() && name.chars().all(plain)
    };
    fields.into_iter().map(name).filter(is_name).collect()
}
