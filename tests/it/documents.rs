//! The commands in the documents work as written, against a simulated Collibra. They run in their
//! own network namespace, so that they can use the documented ports.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use collibra_auth_proxy::proxy::respond::Reason;
use collibra_auth_proxy::telemetry::Label as _;

use crate::support::process::run;

/// Commands that cannot run here: the start of a block, and the reason.
const NOT_RUN: &[(&str, &str)] = &[
    ("kubectl create secret", "there is no cluster here"),
    ("kubectl create namespace", "there is no cluster here"),
    ("kubectl create configmap", "there is no cluster here"),
    ("kubectl exec", "there is no cluster here"),
    ("kubectl get", "there is no cluster here"),
    ("kubectl logs", "there is no cluster here"),
    (
        "kubectl apply",
        "there is no cluster here; tests/it/deploy renders what it applies",
    ),
    (
        "helm install",
        "there is no cluster here; tests/it/deploy renders what it installs",
    ),
    (
        "kubectl kustomize",
        "tests/it/deploy does, where kubectl is new enough",
    ),
    ("deploy/debian/build.sh", "a release build, an installation"),
    ("cd /etc/collibra-auth-proxy", "there is no systemd here"),
    ("docker build", "there is no Docker here"),
    (
        "docker run",
        "there is no Docker here; tests/it/deploy runs what the image would",
    ),
    (
        "docker compose",
        "there is no Docker here; tests/it/deploy runs the file's commands",
    ),
    ("kubectl --namespace", "there is no cluster here"),
    (
        "deploy/kubernetes/try.sh",
        "there is no cluster here; tests/it/deploy reads what it applies",
    ),
    (
        "deploy/image.sh",
        "a build for images; tests/it/deploy tries what is done with it",
    ),
    ("openssl s_client", "there is no Collibra here"),
    ("cargo cyclonedx", "a program that cargo installs first"),
    ("cargo bench", "takes minutes"),
    ("KUBECONFIG=", "there is no cluster here"),
];

/// A fenced block of a document.
struct Block {
    language: String,
    text: String,
}

fn top() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn blocks(path: &Path) -> Vec<Block> {
    let text = fs::read_to_string(path).unwrap();
    let mut parts = text.split("```").skip(1).step_by(2);
    let mut found = Vec::new();
    for part in &mut parts {
        let (language, text) = part.split_once('\n').unwrap();
        found.push(Block {
            language: language.to_owned(),
            text: text.to_owned(),
        });
    }
    assert_eq!(text.matches("```").count() % 2, 0, "{}", path.display());
    found
}

fn documents() -> Vec<PathBuf> {
    let found = fs::read_dir(top().join("docs")).unwrap();
    let mut found: Vec<_> = found.map(|entry| entry.unwrap().path()).collect();
    found.retain(|path| path.extension().is_some_and(|extension| extension == "md"));
    found.sort();
    found
}

/// Joins a document's commands into one script that stops at the first failure; also returns their
/// number.
fn script(path: &Path) -> (String, usize) {
    let mut script = "set -euo pipefail\n".to_owned();
    let mut count = 0;
    for block in blocks(path) {
        let command = match block.language.as_str() {
            "console" => {
                if NOT_RUN
                    .iter()
                    .any(|(start, _)| block.text.starts_with(start))
                {
                    continue;
                }
                block.text
            }
            "python" => format!(
                "\"$TOP/target/python/bin/python\" - <<'PYTHON'\n{}PYTHON\n",
                block.text
            ),
            "javascript" => format!(
                "\"$TOP/target/node/node\" --input-type=module - <<'NODE'\n{}NODE\n",
                block.text
            ),
            _ => continue,
        };
        script.push_str(&command);
        count += 1;
    }
    (script, count)
}

/// Runs a script in a sandbox: only temporary files are writable, and the network is its own. Its
/// processes end with it.
fn assert_runs(script: &str) {
    let folder = tempfile::tempdir().unwrap();
    let here = folder.path().to_str().unwrap();
    fs::write(folder.path().join("script"), script).unwrap();
    let program = Path::new(env!("CARGO_BIN_EXE_collibra-auth-proxy"));
    let path = format!("{}:/usr/bin:/bin", program.parent().unwrap().display());
    let mut command = Command::new("bwrap");
    command
        .args(["--unshare-user", "--unshare-net", "--unshare-pid"])
        .args(["--die-with-parent", "--ro-bind", "/", "/"])
        // systemd-analyze needs /tmp, whatever TMPDIR says
        .args(["--proc", "/proc", "--dev", "/dev", "--bind", "/tmp", "/tmp"])
        .args(["--bind", here, here])
        .args(["--clearenv", "--setenv", "PATH", &path])
        .args(["--setenv", "HOME", here, "--setenv", "TMPDIR", here])
        .args(["--setenv", "TOP", top().to_str().unwrap()])
        .args(["--chdir", here, "bash", "script"])
        .stdin(Stdio::null());
    let ended = run(&mut command);
    assert_eq!(ended.status, 0, "{}\n{}\n{script}", ended.out, ended.err);
}

#[test]
fn every_command_in_the_guides_works() {
    let mut count = 0;
    for path in documents() {
        let (script, of_this) = script(&path);
        if of_this > 0 {
            // files of the project are named relative to its root
            let script = script.replace(" deploy/", " \"$TOP\"/deploy/");
            assert_runs(&script);
        }
        count += of_this;
    }
    assert!(count >= 12, "only {count} blocks were run");
}

#[test]
fn what_is_not_run_is_there() {
    let all: Vec<Block> = documents().iter().flat_map(|path| blocks(path)).collect();
    for (start, why) in NOT_RUN {
        let found = all
            .iter()
            .any(|block| block.language == "console" && block.text.starts_with(start));
        assert!(found, "{start} is not in the documents any more ({why})");
    }
}

#[test]
#[should_panic(expected = "denied")]
fn a_command_that_fails_is_found() {
    let (script, _) = script(&top().join("docs/apps.md"));
    let call = "localhost:8080/rest/2.0/assets?limit=1\n";
    assert!(script.contains(call));
    // the one command that the proxy refuses
    let denied = "localhost:8080/rest/auth/v1/clients --fail-with-body\n";
    let denied = script
        .replace(call, denied)
        .replace("curl --fail ", "curl ");
    assert_runs(&denied);
}

#[test]
fn every_reason_has_its_section() {
    let text = fs::read_to_string(top().join("docs/troubleshooting.md")).unwrap();
    let headings: String = text
        .lines()
        .filter(|line| line.starts_with("### "))
        .collect();
    for reason in Reason::ALL.iter().map(|reason| reason.label()) {
        assert!(headings.contains(&format!("`{reason}`")), "{reason}");
    }
}

/// The anchors of a document's headings, as GitHub makes them.
fn anchors(path: &Path) -> Vec<String> {
    let text = fs::read_to_string(path).unwrap();
    // a line of a block may look like a heading
    let prose: String = text.split("```").step_by(2).collect();
    let headings = prose.lines().filter(|line| line.starts_with('#'));
    headings
        .map(|line| {
            let title = line.trim_start_matches('#').trim().to_lowercase();
            let kept = title
                .chars()
                .filter(|c| c.is_alphanumeric() || " -_".contains(*c));
            kept.map(|c| if c == ' ' { '-' } else { c }).collect()
        })
        .collect()
}

#[test]
fn every_file_that_is_named_is_there() {
    let own = [
        "README.md",
        "CONTRIBUTING.md",
        "CHANGELOG.md",
        "SECURITY.md",
    ];
    for path in documents()
        .into_iter()
        .chain(own.map(|name| top().join(name)))
    {
        let text = fs::read_to_string(&path).unwrap();
        for link in text.split("](").skip(1) {
            let link = link.split(')').next().unwrap();
            if link.contains("://") {
                continue;
            }
            let (target, anchor) = link.split_once('#').unwrap_or((link, ""));
            let named = match target {
                "" => path.clone(),
                _ => path.parent().unwrap().join(target),
            };
            assert!(named.exists(), "{}: {link}", path.display());
            let there = anchor.is_empty() || anchors(&named).iter().any(|known| known == anchor);
            assert!(there, "{}: {link}: no such heading", path.display());
        }
    }
}

#[test]
fn the_readme_is_short_and_names_every_page() {
    let text = fs::read_to_string(top().join("README.md")).unwrap();
    let words = text.split_whitespace().count();
    assert!(words <= 1200, "README.md has {words} words");
    for path in documents() {
        let name = path.file_name().unwrap().to_str().unwrap();
        assert!(text.contains(&format!("](docs/{name}")), "{name}");
    }
}
