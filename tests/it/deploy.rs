//! The files in `deploy` are correct: every object that Kustomize and the Helm chart render is
//! valid for Kubernetes, complies with the restricted profile, and starts the program with a valid
//! configuration. So are the files for a host.

mod attempt;
mod build;
mod chart;
mod configuration;
mod containers;
mod host;
mod image;
mod kustomize;
mod objects;
mod policy;
mod releases;
mod shape;

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

/// The project's directory.
fn top() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The Python interpreter with the tests' packages.
fn python() -> PathBuf {
    let python = top().join("target/python/bin/python");
    assert!(
        python.exists(),
        "{} is missing: run tests/setup, which makes it",
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

/// The output of a program that must succeed.
fn printed(command: &mut Command) -> String {
    let output = run(command);
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {error}");
    String::from_utf8(output.stdout).unwrap()
}
