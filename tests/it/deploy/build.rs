//! The build for packages and images.

use std::fs;
use std::process::Command;

use super::{printed, top};

#[test]
fn packages_and_images_have_the_dist_build() {
    let read = |name: &str| fs::read_to_string(top().join(name)).unwrap();
    let (built, recipe) = ("target/dist/collibra-auth-proxy", "deploy/build.sh");
    // the image has no simulated Collibra
    assert!(read("deploy/Dockerfile").contains("deploy/build.sh --image"));
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
