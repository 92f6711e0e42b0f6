//! The circles: no file of a module imports one that imports it, directly or through others.

use std::collections::{BTreeMap, BTreeSet};

use super::{File, paths};

/// A module of the crate: its path from the root.
type Module = Vec<String>;

/// The circles of imports among the files of `src/NAME`, one text each. The tests are left out. A
/// `mod.rs` imports every file below it.
pub(super) fn circles(files: &[File], name: &str) -> Vec<String> {
    let texts: BTreeMap<Module, &str> = files
        .iter()
        .filter(|file| !file.path.contains("/tests"))
        .map(|file| (module(&file.path), without_tests(&file.text)))
        .filter(|(module, _)| module[0] == name)
        .collect();
    let mut imports: BTreeMap<&Module, BTreeSet<&Module>> = BTreeMap::new();
    for (module, text) in &texts {
        let named = paths::all(module, text).into_iter();
        let mut found: BTreeSet<&Module> = named.filter_map(|path| file(&texts, path)).collect();
        found.extend(texts.keys().filter(|other| other.starts_with(module)));
        found.remove(module);
        imports.insert(module, found);
    }
    let reach: BTreeMap<&Module, BTreeSet<&Module>> = imports
        .keys()
        .map(|module| (*module, reached(module, &imports)))
        .collect();
    let circles: BTreeSet<Vec<String>> = reach
        .iter()
        .filter(|(module, reached)| reached.contains(*module))
        .map(|(module, reached)| {
            let back = reached
                .iter()
                .filter(|other| reach[*other].contains(module));
            back.map(|other| other.join("::")).collect()
        })
        .collect();
    circles.iter().map(|circle| circle.join(" ")).collect()
}

/// The module of a file.
fn module(path: &str) -> Module {
    let path = path.strip_prefix("src/").unwrap_or(path);
    let path = path.strip_suffix(".rs").unwrap_or(path);
    let path = path.strip_suffix("/mod").unwrap_or(path);
    path.split('/').map(str::to_owned).collect()
}

fn without_tests(text: &str) -> &str {
    const MARK: &str = "\n#[cfg(test)]\n";
    let is_module = |at: &usize| {
        let line = text[at + MARK.len()..].lines().next();
        line.is_some_and(|line| line.contains("mod ") && line.ends_with('{'))
    };
    let mut marks = text.match_indices(MARK).map(|(at, _)| at);
    marks.find(is_module).map_or(text, |at| &text[..at])
}

/// The file that has what `path` names.
fn file<'a>(texts: &'a BTreeMap<Module, &str>, mut path: Module) -> Option<&'a Module> {
    while !path.is_empty() {
        if let Some((module, _)) = texts.get_key_value(&path) {
            return Some(module);
        }
        path.pop();
    }
    None
}

/// The modules that are imported by `module`, directly or through others.
fn reached<'a>(
    module: &'a Module,
    imports: &BTreeMap<&'a Module, BTreeSet<&'a Module>>,
) -> BTreeSet<&'a Module> {
    let mut found = BTreeSet::new();
    let mut to_do = vec![module];
    while let Some(next) = to_do.pop() {
        to_do.extend(imports[next].iter().filter(|import| found.insert(**import)));
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn circles_of(files: &[(&str, &str)]) -> Vec<String> {
        let file = |(path, text): &(&str, &str)| File {
            path: (*path).to_owned(),
            text: (*text).to_owned(),
        };
        let files: Vec<File> = files.iter().map(file).collect();
        circles(&files, "a")
    }

    #[test]
    fn imports_that_lead_down_are_in_order() {
        let files = [
            ("src/a/mod.rs", "mod x; mod y; use x::X; pub use y::Y;"),
            ("src/a/x.rs", "use super::y::{self, Y}; use crate::b::z;"),
            (
                "src/a/y.rs",
                "// super::x\n\n#[cfg(test)]\npub(super) mod tests {\nuse super::super::x; }",
            ),
            ("src/b/z.rs", "use crate::a::x;"),
            (
                "src/a/tests/all.rs",
                "use super::super::x; use crate::a::tests::all;",
            ),
        ];
        assert_eq!(circles_of(&files), [""; 0]);
    }

    #[test]
    fn circles_are_found() {
        let to_parent = [
            ("src/a/mod.rs", "mod x;"),
            ("src/a/x.rs", "use super::Thing;"),
        ];
        assert_eq!(circles_of(&to_parent), ["a a::x"]);
        let through_a_third = [
            ("src/a/x.rs", "fn f() { super::y::g() }"),
            ("src/a/y.rs", "use super::{w, z::{Z, ZZ}};"),
            ("src/a/z.rs", "use crate::a::{x as other};"),
            ("src/a/w.rs", ""),
        ];
        assert_eq!(circles_of(&through_a_third), ["a::x a::y a::z"]);
    }
}
