//! The simulated Collibra complies with the OpenAPI document that it publishes, and its responses
//! have the known shapes of the real ones.

use std::io::Write;
use std::process::{Command, Stdio};

use serde_json::{Value, json};

use super::{FIRST, ONE, python, top};
use crate::support::process::Process;
use crate::support::{Simulator, http};

/// Runs schemathesis with `more` arguments, and so many cases for each operation: a number, not a
/// time, because it warns of too few, which is all that a busy machine gets done.
fn schemathesis(simulator: &Simulator, cases: &str, more: &[&str]) {
    let folder = tempfile::tempdir().unwrap();
    // it uses all the processor time it can get, and other tests measure theirs
    let mut run = Command::new("nice");
    run.current_dir(&folder)
        .args(["-n", "19"])
        .arg(python("schemathesis"))
        .env("PYTHONPATH", top().join("tests/python"))
        .env("SCHEMATHESIS_HOOKS", "unique_names")
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .env("NO_PROXY", "*")
        .arg("--config-file")
        .arg(top().join("tests/python/schemathesis.toml"))
        .arg("run")
        .arg(format!("{}/_simulator/openapi.json", simulator.url()))
        .args(["--no-color", "--max-examples", cases])
        .args(more);
    let mut process = Process::spawn(&mut run);
    // its start alone takes long if all other tests come first
    let status = process.ended_within(crate::support::PATIENCE * 4);
    let said = process.out.all();
    assert_eq!(status, 0, "{said}\n{}", process.err.all());
    assert!(said.contains("No issues found"), "{said}");
}

#[test]
fn it_keeps_to_its_own_document_whatever_it_is_sent() {
    let client = format!("{ONE}:{FIRST}");
    let pool = ["--pool", "100000", "--refill", "1ms", "--client", &client];
    let simulator = Simulator::with(&pool);
    let token = ["--include-path", "/rest/oauth/v2/token"];
    // first, because the other run deletes the client
    let phases = ["--phases", "coverage,fuzzing"];
    schemathesis(&simulator, "60", &[token, phases].concat());
    schemathesis(&simulator, "60", &["--include-path-regex", "/clients"]);
}

/// Sends one request to the simulator as its administrator.
fn ask(simulator: &Simulator, line: &str, body: &str) -> (u16, Value) {
    let length = body.len();
    let mut connection = http::Connection::open(simulator.address);
    connection.send(format!(
        "{line} HTTP/1.1\r\nHost: x\r\nAuthorization: Basic YWRtaW46YWRtaW4=\r\n\
         Content-Type: application/json\r\nContent-Length: {length}\r\n\r\n{body}"
    ));
    let answer = connection.answer(line);
    let body = if answer.body.is_empty() {
        Value::Null
    } else {
        answer.json()
    };
    (answer.status, body)
}

#[test]
fn every_answer_has_the_shape_that_is_known_of_the_real_ones() {
    let simulator = Simulator::with(&["--client", &format!("{ONE}:{FIRST}")]);
    let mut seen = Vec::new();
    for base in ["/rest/auth/v1/clients", "/rest/auth/v1/platform/clients"] {
        let mut call = |shape: &str, line: &str, body: &str, expected: u16| -> Value {
            let (status, answer) = ask(&simulator, line, body);
            assert_eq!(status, expected, "{line}: {answer}");
            seen.push(json!({ "shape": shape, "answer": answer }));
            answer
        };
        let new = json!({ "client_name": format!("of {base}"), "software_id": "x" }).to_string();
        let made = call("registered", &format!("POST {base}"), &new, 201);
        assert!(made["client_secret"].is_string(), "{made}");
        call("error", &format!("POST {base}"), &new, 400);
        call("error", &format!("POST {base}"), "{}", 400);
        call("list", &format!("GET {base}"), "", 200);
        let one = format!("{base}/{}", made["client_id"].as_str().unwrap());
        let shown = call("client", &format!("GET {one}"), "", 200);
        assert_eq!(shown.get("client_secret"), None, "it is shown once");
        let name = json!({ "client_name": format!("changed of {base}") }).to_string();
        call("registered", &format!("PUT {one}"), &name, 200);
        call("nothing", &format!("DELETE {one}"), "", 204);
        call("refusal", &format!("GET {one}"), "", 401);
    }
    let mut check = Command::new(python("python"))
        .arg(top().join("tests/python/check_shapes.py"))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let all = Value::Array(seen).to_string();
    check
        .stdin
        .take()
        .unwrap()
        .write_all(all.as_bytes())
        .unwrap();
    let checked = check.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&checked.stdout);
    assert!(
        checked.status.success(),
        "{said}{}",
        String::from_utf8_lossy(&checked.stderr)
    );
    assert_eq!(said.trim(), "16 answers");
}
