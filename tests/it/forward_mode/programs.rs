//! Real programs with an unchanged URL: curl, Python requests and Node, by `HTTPS_PROXY` alone.
//! Java is in `java.rs`.

use std::process::{Command, Stdio};

use super::rig::{HOST, Rig};
use crate::support::made;

/// Runs `command` with the variables that its user would set, and no others for proxies; returns
/// its output.
fn run(rig: &Rig, command: &mut Command, trust: &str) -> String {
    for name in [
        "NO_PROXY",
        "no_proxy",
        "https_proxy",
        "ALL_PROXY",
        "all_proxy",
    ] {
        command.env_remove(name);
    }
    let output = command
        .env("HTTPS_PROXY", format!("http://{}", rig.address()))
        .env(trust, rig.ca_file())
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {error}");
    String::from_utf8(output.stdout).unwrap()
}

fn url() -> String {
    format!("https://{HOST}/rest/2.0/assets?limit=1")
}

#[test]
fn curl_calls_the_instances_own_address() {
    let rig = Rig::with("", "");
    let mut command = Command::new("curl");
    command
        .args(["-qsSf", "--max-time", "60"])
        .args(["--write-out", " %{http_code} %{http_version}"])
        .arg(url());
    assert_eq!(run(&rig, &mut command, "CURL_CA_BUNDLE"), "ok 200 2");
    rig.has_token();
}

#[test]
fn python_requests_calls_the_instances_own_address() {
    let rig = Rig::with("", "");
    let mut command = Command::new(made("target/python/bin/python"));
    let program = "import sys, requests\n\
                   with requests.Session() as session:\n\
                   \x20   for _ in range(3):\n\
                   \x20       answer = session.get(sys.argv[1])\n\
                   print(answer.text, answer.status_code)";
    command.args(["-c", program]).arg(url());
    assert_eq!(run(&rig, &mut command, "REQUESTS_CA_BUNDLE"), "ok 200\n");
    assert_eq!(rig.origin.requests().len(), 3);
    rig.has_token();
}

#[test]
fn node_calls_the_instances_own_address() {
    let rig = Rig::with("", "");
    let mut command = Command::new(made("target/node/node"));
    let program = "fetch(process.argv[1]).then(async (answer) => \
                   console.log(await answer.text(), answer.status))";
    command
        .env("NODE_USE_ENV_PROXY", "1")
        .args(["--eval", program])
        .arg(url());
    assert_eq!(run(&rig, &mut command, "NODE_EXTRA_CA_CERTS"), "ok 200\n");
    rig.has_token();
}

#[test]
fn the_log_reports_a_program_that_does_not_trust_the_authority() {
    let rig = Rig::with("", "");
    let output = Command::new("curl")
        .args(["--disable", "--silent", "--show-error", "--max-time", "60"])
        .args([
            "--noproxy",
            "",
            "--proxy",
            &format!("http://{}", rig.address()),
        ])
        .arg(url())
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(60), "{output:?}");
    rig.proxy.process.err.wait_for("the reason", |line| {
        let told = line.contains("does not accept the certificate") && line.contains(HOST);
        told.then_some(())
    });
    assert!(rig.origin.requests().is_empty());
}
