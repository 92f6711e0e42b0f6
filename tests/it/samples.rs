//! The samples in `config` run as they are, or say on their first line what they need.

use std::fs;
use std::path::Path;

use crate::support::process::{Ended, command, run};

/// A cluster that is never contacted.
const KUBECONFIG: &str = r#"
current-context: here
contexts: [{ name: here, context: { cluster: here } }]
clusters: [{ name: here, cluster: { server: "http://127.0.0.1:1" } }]
"#;

/// What a sample reads: variables, and files by their paths.
fn needs(text: &str) -> Vec<String> {
    fn collect(key: &str, value: &toml::Value, found: &mut Vec<String>) {
        match value {
            toml::Value::Table(table) => {
                for (key, value) in table {
                    collect(key, value, found);
                }
            }
            toml::Value::String(text) if key.ends_with("_file") || key.ends_with("_env") => {
                found.push(text.clone());
            }
            _ => {}
        }
    }
    let mut found = Vec::new();
    let table = toml::Value::Table(text.parse().unwrap());
    collect("", &table, &mut found);
    found
}

fn check(path: &Path, prepare: impl FnOnce(&mut std::process::Command)) -> Ended {
    let mut check = command(["check", "--config"]);
    check.arg(path).env_remove("KUBECONFIG").env_remove("HOME");
    prepare(&mut check);
    run(&mut check)
}

#[test]
fn each_runs_as_it_is_or_says_what_it_needs() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("config");
    let mut count = 0;
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap().to_owned();
        let text = fs::read_to_string(&path).unwrap();
        let first = text.lines().next().unwrap();
        count += 1;

        let as_it_is = check(&path, |_| ());
        if as_it_is.status == 0 {
            assert!(first.starts_with("# Runs as it is"), "{name}: {first}");
            continue;
        }
        let said = first.strip_prefix("# Needs ").unwrap_or_else(|| {
            panic!(
                "{name}: {first:?} does not say what is needed: {}",
                as_it_is.err
            )
        });
        for need in needs(&text) {
            let mut ways = Path::new(&need).ancestors().filter_map(Path::to_str);
            let is_said = ways.any(|way| way.len() > 1 && said.contains(way));
            assert!(is_said, "{name} does not say that it needs {need}");
        }
        let ended = provided(&text, &name);
        assert_eq!(ended.status, 0, "{name}: {}", ended.err);
    }
    assert!(count >= 9, "{count} samples");
}

/// Checks a sample with all that it needs.
fn provided(text: &str, name: &str) -> Ended {
    let root = tempfile::tempdir().unwrap();
    let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
    let mut here = text.to_owned();
    let (files, variables): (Vec<_>, Vec<_>) = needs(text)
        .into_iter()
        .partition(|need| need.starts_with('/'));
    for need in &files {
        let target = root.path().join(&need[1..]);
        fs::create_dir_all(target.parent().unwrap()).unwrap();
        let is_tls = need.starts_with("/etc/");
        let content = match target.extension().and_then(|extension| extension.to_str()) {
            Some("pem") => made.cert.pem(),
            Some("key") if is_tls => made.signing_key.serialize_pem(),
            Some("json") => r#"{"client_id": "urn:x", "client_secret": "s"}"#.to_owned(),
            // two apps may not have one key
            _ => format!("0123456789abcdef {need}\n"),
        };
        fs::write(&target, content).unwrap();
        here = here.replace(&format!("\"{need}\""), &format!("{target:?}"));
    }
    let kubeconfig = root.path().join("kubeconfig");
    fs::write(&kubeconfig, KUBECONFIG).unwrap();
    let path = root.path().join(name);
    fs::write(&path, &here).unwrap();
    check(&path, |check| {
        for variable in variables {
            check.env(variable, "urn:x");
        }
        if text
            .lines()
            .next()
            .unwrap()
            .contains("a pod's service account")
        {
            check.env("KUBECONFIG", kubeconfig);
        }
    })
}
