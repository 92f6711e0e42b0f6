//! `deploy/kubernetes/try.sh`, against a `kubectl` that renders what it is told to apply, and
//! otherwise only records. There is no cluster here.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

use super::objects::{Objects, containers, list};
use super::{policy, printed, run, shape, top};

/// Records its arguments, renders what it should apply, and fails at `wait` if `FAILS` is set.
const KUBECTL: &str = r#"#!/usr/bin/env bash
set -euo pipefail
echo "$*" >>"$RECORD/calls"
case "$*" in
    *" apply -k "*)
        exec "$REAL" kustomize "${*: -1}" >"$RECORD/$(basename "${*: -1}").yaml" ;;
    *" wait "*) [[ -z ${FAILS:-} ]] ;;
esac
"#;

/// The arguments: the proxy's image, and one with the simulator.
const IMAGE: &str = "registry.example:5000/collibra-auth-proxy:0.1.0";
const TRIAL: &str = "registry.example:5000/collibra-auth-proxy:trial";

/// The script's exit status, and the directory in which the stand-in recorded.
fn attempt(fails: bool) -> (bool, tempfile::TempDir) {
    let folder = tempfile::tempdir().unwrap();
    let stand_in = folder.path().join("kubectl");
    fs::write(&stand_in, KUBECTL).unwrap();
    fs::set_permissions(&stand_in, fs::Permissions::from_mode(0o755)).unwrap();
    let real = printed(Command::new("sh").args(["-c", "command -v kubectl"]));
    let path = format!(
        "{}:{}",
        folder.path().display(),
        std::env::var("PATH").unwrap()
    );
    let mut command = Command::new(top().join("deploy/kubernetes/try.sh"));
    command
        .args([IMAGE, TRIAL])
        .env("PATH", path)
        .env("REAL", real.trim())
        .env("RECORD", folder.path())
        .env("FAILS", if fails { "yes" } else { "" });
    (run(&mut command).status.success(), folder)
}

fn calls(folder: &Path) -> Vec<String> {
    let calls = fs::read_to_string(folder.join("calls")).unwrap();
    calls.lines().map(str::to_owned).collect()
}

#[test]
fn everything_it_applies_is_sound_and_in_one_namespace() {
    let (succeeded, folder) = attempt(false);
    let calls = calls(folder.path());
    assert!(succeeded, "{calls:?}");
    let namespace = calls[0].strip_prefix("create namespace ").unwrap();
    for call in &calls {
        assert!(call.contains(namespace), "{call}");
    }
    let (mut kinds, mut named) = (BTreeSet::new(), BTreeSet::new());
    for name in ["simulator", "gateway", "by-gateway", "by-sidecar"] {
        let text = fs::read_to_string(folder.path().join(format!("{name}.yaml"))).unwrap();
        let objects = Objects::read(&text);
        for object in &objects.0 {
            assert_eq!(shape::faults(object), [""; 0], "{name}: {object}");
            assert_eq!(
                object["metadata"]["namespace"], namespace,
                "{name}: {object}"
            );
            let (kind, object) = (object["kind"].to_string(), &object["metadata"]["name"]);
            assert!(
                named.insert((kind.clone(), object.to_string())),
                "{kind} {object} is applied twice"
            );
            kinds.insert(kind);
        }
        assert_eq!(policy::faults(objects.pod()), [""; 0], "{name}");
        for container in containers(objects.pod()) {
            // only the simulator is a build that has one
            let image = if name == "simulator" { TRIAL } else { IMAGE };
            assert_eq!(container["image"], image, "{name}");
        }
        for map in objects.of_kind("ConfigMap") {
            // the pod mounts the one that is made for it
            let mounted =
                list(&objects.pod()["volumes"]).map(|volume| &volume["configMap"]["name"]);
            assert!(
                mounted
                    .into_iter()
                    .any(|name| *name == map["metadata"]["name"]),
                "{name}"
            );
            let text = map["data"]["collibra-auth-proxy.toml"].as_str().unwrap();
            assert!(
                text.contains("url = \"http://collibra:9400\"\nallow_insecure = true\n"),
                "{text}"
            );
        }
    }
    // the Jobs that it waits for are there
    let waits = calls.iter().find(|call| call.contains(" wait ")).unwrap();
    for job in waits
        .split(' ')
        .filter_map(|word| word.strip_prefix("job/"))
    {
        let wanted = ("\"Job\"".to_owned(), format!("{job:?}"));
        assert!(named.contains(&wanted), "{job}: {named:?}");
    }
    let last = format!("delete namespace {namespace}");
    assert!(calls.last().unwrap().starts_with(&last), "{calls:?}");
}

#[test]
fn it_cleans_up_after_a_failure_and_says_why() {
    let (succeeded, folder) = attempt(true);
    let calls = calls(folder.path());
    assert!(!succeeded, "{calls:?}");
    assert!(
        calls
            .iter()
            .any(|call| call.contains(" logs --all-containers")),
        "{calls:?}"
    );
    assert!(
        calls.last().unwrap().starts_with("delete namespace "),
        "{calls:?}"
    );
}
