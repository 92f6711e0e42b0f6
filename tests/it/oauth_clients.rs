//! Programs with their own client-credentials code work by changing one URL, and never use
//! Collibra's pool.

use std::process::{Child, Command, Stdio};

use serde_json::{Value, json};

use crate::support::simulator::{CLIENT_ID, CLIENT_SECRET};
use crate::support::{Proxy, Simulator, made};

const KEY: &str = "lin+eage%20key/0123456789";

/// An OAuth library.
#[derive(Clone, Copy, Debug)]
enum Client {
    /// requests-oauthlib
    Python,
    /// simple-oauth2
    Node,
}

impl Client {
    /// Starts it against `proxy` with these credentials, sent this way.
    fn start(self, proxy: &Proxy, id: &str, secret: &str, way: &str) -> Child {
        let mut command = match self {
            Client::Python => {
                let mut command = Command::new(made("target/python/bin/python"));
                command.arg(made("tests/python/oauth_client.py"));
                command
            }
            Client::Node => {
                let mut command = Command::new(made("target/node/node"));
                command.arg(made("target/node/oauth_client.mjs"));
                command
            }
        };
        command
            .arg(format!("http://{}", proxy.address))
            .args([id, secret, way])
            // the library would require TLS even for loopback
            .env("OAUTHLIB_INSECURE_TRANSPORT", "1")
            .env("NO_PROXY", "*")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap()
    }
}

/// The output of a run.
fn seen(run: Child) -> Value {
    let output = run.wait_with_output().unwrap();
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{error}");
    serde_json::from_slice(&output.stdout).unwrap()
}

fn known_app(simulator: &Simulator) -> Proxy {
    let app = "[app.lineage]\nkey_env = \"LINEAGE_KEY\"\n";
    let proxy = Proxy::configured(&simulator.url(), "", app)
        .variable("LINEAGE_KEY", KEY)
        .start();
    proxy.has_token();
    proxy
}

#[test]
fn they_work_in_both_ways_with_an_apps_key_and_with_the_clients_own() {
    let simulator = Simulator::start();
    let proxy = known_app(&simulator);
    for client in [Client::Python, Client::Node] {
        for (id, secret) in [("lineage", KEY), (CLIENT_ID, CLIENT_SECRET)] {
            for way in ["header", "body"] {
                // a program that sends them unencoded cannot have a colon in its id
                if matches!(client, Client::Python) && way == "header" && id.contains(':') {
                    continue;
                }
                let told = seen(client.start(&proxy, id, secret, way));
                let expected = json!({ "status": 200, "version": "2026.01.0-simulated" });
                assert_eq!(told, expected, "{client:?} {id} {way}");
            }
        }
    }
    simulator.assert_one_token_and_none_unauthorized();
}

#[test]
fn six_processes_that_each_fetch_a_token_cost_the_pool_nothing() {
    let simulator = Simulator::start();
    let proxy = known_app(&simulator);
    let runs: Vec<Child> = (0..6)
        .map(|nth| {
            let client = [Client::Python, Client::Node][nth % 2];
            client.start(&proxy, "lineage", KEY, "header")
        })
        .collect();
    for run in runs {
        assert_eq!(seen(run)["status"], 200);
    }
    simulator.assert_one_token_and_none_unauthorized();
    let given = proxy.metric("collibra_auth_proxy_local_tokens_total{app=\"lineage\"}");
    assert_eq!(given, Some(6.0));
}
