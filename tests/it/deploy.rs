//! What `deploy` holds is exact: every object that its Kustomize files and its Helm chart come to is
//! one that Kubernetes takes, keeps to the restricted profile, and starts the program with a
//! configuration that it accepts; and so are the files for a host.

mod build;
mod chart;
mod configuration;
mod host;
mod image;
mod kustomize;
mod objects;
mod policy;
mod shape;

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

/// The project's directory.
fn top() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The Python with what the tests need.
fn python() -> PathBuf {
    let python = top().join("target/python/bin/python");
    assert!(
        python.exists(),
        "{} is missing: run tests/run, which makes it",
        python.display()
    );
    python
}

/// Runs a program to its end.
fn run(command: &mut Command) -> Output {
    command
        .stdin(Stdio::null())
        .output()
        .unwrap_or_else(|error| panic!("{command:?} cannot be started: {error}"))
}

/// What a program that has to succeed prints.
fn printed(command: &mut Command) -> String {
    let output = run(command);
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {error}");
    String::from_utf8(output.stdout).unwrap()
}
