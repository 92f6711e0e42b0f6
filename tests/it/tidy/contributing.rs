//! The map is true: `CONTRIBUTING.md` and `src/lib.rs` name only files that exist.
//! `CONTRIBUTING.md` and its recipes stay short.

use std::fs;
use std::path::Path;

use super::{assert_none, top};

/// The maximum length of `CONTRIBUTING.md`.
const MAX_WORDS: usize = 1500;

/// The maximum length of a recipe.
const MAX_STEPS: usize = 5;

/// The words that the headings of recipes must contain.
const RECIPES: [&str; 5] = ["key", "metric", "answer", "command", "store"];

fn read(name: &str) -> String {
    fs::read_to_string(top().join(name)).unwrap()
}

#[test]
fn contributing_names_no_file_that_does_not_exist() {
    let text = read("CONTRIBUTING.md");
    assert!(paths(&text).count() > 50);
    assert_none(missing(&text, top()));
}

#[test]
fn the_map_in_lib_rs_names_every_module_and_no_other() {
    let text = read("src/lib.rs");
    let declared: Vec<&str> = text
        .lines()
        .filter_map(|line| line.strip_prefix("pub mod ")?.strip_suffix(';'))
        .collect();
    assert!(declared.len() > 20);
    assert_none(faults_of_the_map(&text, &declared, top()));
}

#[test]
fn contributing_and_its_recipes_are_short() {
    let text = read("CONTRIBUTING.md");
    let words = text.split_whitespace().count();
    assert!(words <= MAX_WORDS, "CONTRIBUTING.md has {words} words");
    let (_, recipes) = text.split_once("## Recipes").unwrap();
    let recipes: Vec<&str> = recipes.split("\n### ").skip(1).collect();
    for wanted in RECIPES {
        let there = recipes.iter().any(|recipe| {
            let title = recipe.lines().next().unwrap_or_default();
            title.split(' ').any(|word| word == wanted)
        });
        assert!(there, "CONTRIBUTING.md has no recipe for a {wanted}");
    }
    for recipe in recipes {
        let is_step = |line: &&str| line.starts_with(|c: char| c.is_ascii_digit());
        let steps = recipe.lines().filter(is_step).count();
        assert!(steps <= MAX_STEPS, "{steps} steps: {recipe}");
    }
}

/// The spans in backticks that look like paths, outside code blocks.
fn paths(text: &str) -> impl Iterator<Item = &str> {
    let prose = text.split("```").step_by(2);
    let spans = prose.flat_map(|part| part.split('`').skip(1).step_by(2));
    spans.filter(|span| {
        let endings = [".rs", ".toml", ".md", ".yaml", ".sh"];
        let is_path = span.contains('/') || endings.iter().any(|end| span.ends_with(end));
        is_path && !span.contains(' ') && !span.starts_with("//")
    })
}

/// The paths that do not exist, neither from the root nor from the folder of `src` named last.
fn missing(text: &str, root: &Path) -> Vec<String> {
    let mut folder = root.to_owned();
    let mut missing = Vec::new();
    for path in paths(text) {
        let from_root = root.join(path);
        if !from_root.exists() && !folder.join(path).exists() {
            missing.push(format!(
                "CONTRIBUTING.md names {path}, which does not exist"
            ));
        }
        if path.starts_with("src/") && from_root.is_dir() {
            folder = from_root;
        }
    }
    missing
}

/// The faults of the diagram and of the paths in the documentation of the crate.
fn faults_of_the_map(text: &str, declared: &[&str], root: &Path) -> Vec<String> {
    let mut faults = Vec::new();
    let diagram = text.split("```").nth(1).unwrap_or_default();
    let lines = diagram.lines().filter_map(|line| line.strip_prefix("//! "));
    // deeper ones continue a description
    let lines = lines.filter(|line| !line.starts_with("        "));
    for line in lines {
        let is_module = |word: &&str| word.parse::<u8>().is_err() && *word != "aside";
        let first = line.split_whitespace().find(is_module);
        if let Some(first) = first.filter(|first| !declared.contains(first)) {
            faults.push(format!(
                "src/lib.rs: the map has {first}, which is no module"
            ));
        }
    }
    let words: Vec<&str> = diagram.split_whitespace().collect();
    for module in declared {
        if !words.contains(module) {
            faults.push(format!("src/lib.rs: the map lacks the module {module}"));
        }
    }
    let prose = text.split("```").step_by(2).flat_map(str::lines);
    let docs = prose.filter(|line| line.starts_with("//!"));
    for span in docs.flat_map(|line| line.split('`').skip(1).step_by(2)) {
        let path = root.join("src").join(span.replace("::", "/"));
        if !path.is_dir() && !path.with_extension("rs").is_file() {
            faults.push(format!("src/lib.rs names {span}, which does not exist"));
        }
    }
    faults
}

mod of_the_checks_themselves {
    use super::*;

    #[test]
    fn a_path_is_looked_for_from_the_root_and_the_last_folder() {
        let found = |text| missing(text, top()).len();
        assert_eq!(
            found("`src/token`: `cache.rs`, `tests/run`, `cargo x/y`"),
            0
        );
        assert_eq!(found("`src/proxy`: `cache.rs`"), 1);
        assert_eq!(found("`src/attic/x.rs` and `docs/attic.md`"), 2);
        assert_eq!(found("```sh\n`attic/x`\n```\n"), 0);
    }

    #[test]
    fn the_map_is_compared_both_ways() {
        let map = "//! ```text\n//! 1  token  attic: `x`\n//!    attic  x\n//! ```\n//! [`token::cache`] `token::attic`";
        let faults = faults_of_the_map(map, &["token", "clock"], top());
        assert_eq!(faults.len(), 3, "{faults:?}");
    }
}
