//! The rules of the source: which module may import which (the floors), and the form of every file.
//! `CONTRIBUTING.md` describes them.

mod circles;
mod contributing;
mod floors;
mod paths;

use std::fs;
use std::path::{Path, PathBuf};

/// The maximum length of a file, including its tests.
const MAX_LINES: usize = 700;

/// The maximum width of a comment, in characters. Stable rustfmt does not wrap comments.
const MAX_COMMENT: usize = 100;

/// A file of the project: its path from the root, with `/`, and its text.
struct File {
    path: String,
    text: String,
}

#[test]
fn every_module_imports_only_from_floors_below_its_own() {
    assert_none(floors::violations(&files("src")));
}

#[test]
fn no_file_imports_what_imports_it() {
    let files = files("src");
    for module in ["admin", "config", "downstream", "policy", "proxy"] {
        assert_none(circles::circles(&files, module));
    }
}

#[test]
fn every_file_is_headed_short_and_finished() {
    let files: Vec<File> = files("src").into_iter().chain(files("tests")).collect();
    assert_none(files.iter().flat_map(look).collect());
}

#[test]
fn only_the_data_path_knows_pingora_and_h2() {
    let data_path = ["src/proxy/", "src/downstream/", "src/upstream/"];
    let outside = files("src")
        .into_iter()
        .filter(|file| !data_path.iter().any(|path| file.path.starts_with(path)));
    assert_none(
        outside
            .flat_map(|file| named(&file, &["pingora", "h2"]))
            .collect(),
    );
}

#[test]
fn the_engine_knows_no_proxy_no_http_client_and_no_file_format() {
    let engine = files("src/token").into_iter();
    assert_none(
        engine
            .flat_map(|file| named(&file, &["pingora", "reqwest", "serde"]))
            .collect(),
    );
}

#[test]
fn the_changelog_has_a_place_for_what_is_unreleased() {
    let text = fs::read_to_string(top().join("CHANGELOG.md")).unwrap();
    assert!(
        text.lines().any(|line| line.trim() == "## [Unreleased]"),
        "CHANGELOG.md has no heading `## [Unreleased]`"
    );
}

/// The faults in the form of a file.
fn look(file: &File) -> Vec<String> {
    let mut faults = Vec::new();
    if !file.text.starts_with("//!") {
        faults.push(format!(
            "{}: begins without //!: say what the file is for",
            file.path
        ));
    }
    let lines = file.text.lines().count();
    if lines > MAX_LINES {
        faults.push(format!(
            "{}: has {lines} lines, more than {MAX_LINES}: divide it",
            file.path
        ));
    }
    let comments = |line: &&str| line.trim_start().starts_with("//") && !line.contains("://");
    let wide = file.text.lines().filter(comments);
    if let Some(line) = wide
        .into_iter()
        .find(|line| line.chars().count() > MAX_COMMENT)
    {
        faults.push(format!(
            "{}: wrap this comment at {MAX_COMMENT} characters: {}",
            file.path,
            line.trim()
        ));
    }
    // concatenated, so that this file does not contain them
    for mark in [concat!("TO", "DO"), concat!("FIX", "ME")] {
        if file.text.contains(mark) {
            faults.push(format!(
                "{}: holds {mark}: do it now or not at all",
                file.path
            ));
        }
    }
    faults
}

/// The places in code (not comments or strings) with an identifier that starts with one of
/// `crates`.
fn named(file: &File, crates: &[&str]) -> Vec<String> {
    let code = paths::code_only(&file.text);
    let mut identifiers = code.split(|c: char| !c.is_alphanumeric() && c != '_');
    match identifiers.find(|name| crates.iter().any(|banned| name.starts_with(banned))) {
        Some(name) => vec![format!("{}: names {name}", file.path)],
        None => Vec::new(),
    }
}

/// Every Rust file below `folder`, in order.
fn files(folder: &str) -> Vec<File> {
    let mut found = Vec::new();
    collect(&top().join(folder), &mut found);
    found.sort();
    assert!(!found.is_empty(), "no Rust file below {folder}");
    found
        .into_iter()
        .map(|path| {
            let relative = path.strip_prefix(top()).unwrap();
            let parts: Vec<_> = relative.iter().map(|part| part.to_str().unwrap()).collect();
            File {
                path: parts.join("/"),
                text: fs::read_to_string(&path).unwrap(),
            }
        })
        .collect()
}

fn collect(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            collect(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
}

fn top() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn assert_none(faults: Vec<String>) {
    assert!(faults.is_empty(), "\n{}\n", faults.join("\n"));
}

mod of_the_checks_themselves {
    use super::*;

    fn file(text: &str) -> File {
        File {
            path: "src/token/x.rs".to_owned(),
            text: text.to_owned(),
        }
    }

    #[test]
    fn the_look_of_a_file_is_judged() {
        assert!(look(&file("//! Fine.\n")).is_empty());
        assert_eq!(look(&file("\n//! Late.\n")).len(), 1);
        assert_eq!(look(&file(&"//!\n".repeat(701))).len(), 1);
        let wide = format!("//! Fine.\n    // {}\n", "w".repeat(94));
        assert_eq!(look(&file(&wide)).len(), 1);
        assert!(look(&file(&wide.replace("www", "ww"))).is_empty());
        let marked = format!("//! {}{}\n", "TO", "DO");
        assert_eq!(look(&file(&marked)).len(), 1);
    }

    #[test]
    fn a_crate_is_found_in_code_only() {
        let banned = &["serde"];
        assert_eq!(named(&file("use serde_json::Value;"), banned).len(), 1);
        assert_eq!(named(&file("fn f(x: &serde::de::X) {}"), banned).len(), 1);
        assert!(
            named(
                &file("// serde\nlet x = \"serde\"; let my_serde = 1;"),
                banned
            )
            .is_empty()
        );
    }
}
