//! Collibra's own Python client works through the proxy unmodified, as one process and as six that
//! start at once.

use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::{Value, json};

use crate::support::{Proxy, Simulator, pair};

/// The client's run, started.
fn start(proxy: &Proxy) -> std::process::Child {
    let top = Path::new(env!("CARGO_MANIFEST_DIR"));
    let python = top.join("target/python/bin/python");
    assert!(
        python.exists(),
        "{} is missing: run tests/run, which makes it",
        python.display()
    );
    Command::new(python)
        .arg(top.join("tests/python/collibra_core_client.py"))
        .arg(format!("http://{}", proxy.address))
        .env("NO_PROXY", "*")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap()
}

/// What it saw.
fn seen(run: std::process::Child) -> Value {
    let output = run.wait_with_output().unwrap();
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{error}");
    serde_json::from_slice(&output.stdout).unwrap()
}

fn assert_all_seen(seen: &Value) {
    assert_eq!(
        *seen,
        json!({
            "version": "2026.01.0-simulated",
            "user": "simulated-application",
            "session": [200, false],
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
