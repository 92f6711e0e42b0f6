//! The documentation of the commands is their help.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use crate::support::process::{command, run};

/// The help of the command `words`.
fn help(words: &[String]) -> String {
    let mut command = command(words.iter().map(String::as_str).chain(["--help"]));
    let ended = run(command.env("COLUMNS", "100"));
    assert_eq!(ended.status, 0, "{words:?}: {}", ended.err);
    // a line may end with the space before an empty default
    let lines = ended
        .out
        .lines()
        .map(|line| format!("{}\n", line.trim_end()));
    lines.collect()
}

/// The commands that a help lists, in its order.
fn listed(help: &str) -> Vec<String> {
    let after = help.split("\nCommands:\n").nth(1).unwrap_or_default();
    let lines = after.lines().take_while(|line| !line.is_empty());
    let names = lines.filter_map(|line| line.strip_prefix("  ")?.split(' ').next());
    let names = names.filter(|name| !name.is_empty() && *name != "help");
    names.map(str::to_owned).collect()
}

/// The options that every command has, in the help of the program itself.
fn shared(help: &str) -> &str {
    let (start, last) = ("      --log-level", "Print version\n");
    let help = &help[help.find(start).unwrap()..];
    &help[..help.find(last).unwrap() + last.len()]
}

/// Adds a section for the command `words`, without the options `shared`, and one for each command
/// below it.
fn describe(words: &[String], shared: &str, page: &mut String) {
    let help = help(words);
    assert!(help.contains(shared), "{words:?}: {help}");
    let own = help.replace(shared, "");
    // nothing may be left of the list
    let own = own.replace("Options:\n\n", "");
    let own = own.trim_end().trim_end_matches("Options:").trim_end();
    let heading = words.join(" ");
    write!(page, "\n## {heading}\n\n```text\n{own}\n```\n").unwrap();
    for name in listed(&help) {
        describe(&[words, &[name]].concat(), shared, page);
    }
}

#[test]
fn the_documentation_has_the_help_of_every_command() {
    let program = help(&[]);
    let mut expected = format!("## collibra-auth-proxy\n\n```text\n{program}```\n");
    for name in listed(&program) {
        describe(&[name], shared(&program), &mut expected);
    }
    assert!(expected.contains("\n## clients rotate\n"), "{expected}");

    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/commands.md");
    let text = fs::read_to_string(&page).unwrap();
    let (preamble, documented) = text.split_at(text.find("## ").unwrap_or(text.len()));
    if documented != expected {
        let written = Path::new(env!("CARGO_TARGET_TMPDIR")).join("commands.md");
        fs::write(&written, format!("{preamble}{expected}")).unwrap();
        let written = written.display();
        panic!("docs/commands.md is not up to date: read {written}, and copy it there");
    }
}
