//! The build for packages and images.

use std::fs;
use std::process::Command;

use super::{printed, top};

#[test]
fn packages_and_images_have_the_dist_build() {
    let read = |name: &str| fs::read_to_string(top().join(name)).unwrap();
    let (built, recipe) = ("target/dist/collibra-auth-proxy", "deploy/build.sh");
    // the image has no simulated Collibra
    assert!(read("deploy/Dockerfile").contains("\nARG BUILD_OPTIONS=--image\n"));
    for (file, wanted) in [
        ("Cargo.toml", [built, "[profile.dist]"]),
        ("deploy/Dockerfile", [built, recipe]),
        ("deploy/debian/build.sh", ["target/dist/", recipe]),
        ("deploy/image.sh", [recipe, recipe]),
    ] {
        let text = read(file);
        for wanted in wanted {
            assert!(text.contains(wanted), "{file} has no {wanted}");
        }
        assert!(!text.contains("target/release"), "{file}");
    }
}

#[test]
fn the_training_run_reaches_every_kind_of_upstream() {
    let profiles = tempfile::tempdir().unwrap();
    let program = env!("CARGO_BIN_EXE_collibra-auth-proxy");
    // it fails at the first call that does
    printed(
        Command::new(top().join("deploy/train.sh"))
            .args([program, program])
            .arg(profiles.path())
            .arg("50"),
    );
}

#[test]
fn a_build_in_a_container_has_all_that_cargo_reads() {
    let read = |name: &str| fs::read_to_string(top().join(name)).unwrap();
    let ignored = read(".dockerignore");
    for line in ["tests", "!tests/kit", "fuzz"] {
        assert!(ignored.lines().any(|there| there == line), "{line}");
    }
    let manifest: toml::Table = toml::from_str(&read("Cargo.toml")).unwrap();
    let members = manifest["workspace"]["members"].as_array().unwrap();
    assert_eq!(members, &["tests/kit".into()]);
    // cargo looks for a target without a path, and for no other
    for target in manifest["test"].as_array().unwrap() {
        assert!(target.get("path").is_some(), "{target:?}");
    }
}
