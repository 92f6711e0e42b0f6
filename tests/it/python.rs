//! Collibra's own Python client works through the proxy unmodified, as one process and as six that
//! start at once.

use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::{Value, json};

use crate::support::certificate::Authority;
use crate::support::proxy::message;
use crate::support::{Proxy, Simulator, pair};

/// Starts the client.
fn start(proxy: &Proxy) -> std::process::Child {
    command(&format!("http://{}", proxy.address))
        .spawn()
        .unwrap()
}

/// The command that runs the client against `base`.
fn command(base: &str) -> Command {
    let top = Path::new(env!("CARGO_MANIFEST_DIR"));
    let python = top.join("target/python/bin/python");
    assert!(
        python.exists(),
        "{} is missing: run tests/setup, which makes it",
        python.display()
    );
    let mut command = Command::new(python);
    command
        .arg(top.join("tests/python/collibra_core_client.py"))
        .arg(base)
        .env("NO_PROXY", "*")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    command
}

/// The output of a run.
fn seen(run: std::process::Child) -> Value {
    let output = run.wait_with_output().unwrap();
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{error}");
    serde_json::from_slice(&output.stdout).unwrap()
}

fn assert_all_seen(seen: &Value) {
    assert_seen(seen, 200);
}

/// Asserts that a run was successful, with this status for its session.
fn assert_seen(seen: &Value, session: u16) {
    assert_eq!(
        *seen,
        json!({
            "version": "2026.01.0-simulated",
            "user": "simulated-application",
            "session": [session, false],
            "found": 10,
            "added": "Added by a test",
            "changed": "Changed by a test",
            "removed": true,
            "export": seen["export"],
            "files": [5000],
        })
    );
    assert!(seen["export"].as_u64().unwrap() > 10_000, "{seen}");
}

#[test]
fn collibras_python_client_works_through_the_proxy() {
    let (simulator, proxy) = pair();
    assert_all_seen(&seen(start(&proxy)));
    simulator.assert_one_token_and_none_unauthorized();
}

#[test]
fn it_works_as_an_app_by_its_key_and_by_its_certificate() {
    let (authority, apps) = (Authority::new(), Authority::new());
    let (files, shown) = (authority.files("localhost"), apps.files("reporter"));
    let more = format!(
        "[app.lineage]\nkey_env = \"LINEAGE_KEY\"\n[app.reporter]\ncertificate = \"reporter\"\n\
         [listener.tls]\naddress = \"127.0.0.1:0\"\n\
         tls = {{ cert_file = {:?}, key_file = {:?}, client_ca_file = {:?} }}\n",
        files.cert,
        files.key,
        apps.ca_file()
    );
    let simulator = Simulator::start();
    let proxy = Proxy::configured(&simulator.url(), "", &more)
        .variable("LINEAGE_KEY", "lineage-key-0123456789")
        .start();
    proxy.has_token();
    let by_key = command(&format!("http://{}", proxy.address))
        .args(["lineage", "lineage-key-0123456789"])
        .spawn();
    // it sends no credentials when it asks for its session
    assert_seen(&seen(by_key.unwrap()), 401);
    let tls = proxy.process.err.wait_for("the TLS listener", |line| {
        let told = message(line, "listening")?;
        (told["listener"] == "tls").then(|| told["address"].as_str().unwrap().to_owned())
    });
    let (_, port) = tls.rsplit_once(':').unwrap();
    let by_certificate = command(&format!("https://localhost:{port}"))
        .env("APP_CA", authority.ca_file())
        .env("APP_CERT", shown.cert)
        .env("APP_KEY", shown.key)
        .spawn();
    assert_all_seen(&seen(by_certificate.unwrap()));
    simulator.assert_one_token_and_none_unauthorized();
}

#[test]
fn six_python_processes_at_once_share_one_token() {
    let simulator = Simulator::start();
    simulator.fault("token", "slow:500");
    let proxy = Proxy::to(&simulator.url()).start();
    let runs: Vec<_> = (0..6).map(|_| start(&proxy)).collect();
    for run in runs {
        assert_all_seen(&seen(run));
    }
    simulator.assert_one_token_and_none_unauthorized();
}
