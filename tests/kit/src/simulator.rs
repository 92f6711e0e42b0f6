//! A simulated Collibra for a test.

use std::net::SocketAddr;

use serde_json::{Value, json};

use super::http;
use super::process::{self, Process};

/// The id of the simulator's well-known client.
pub const CLIENT_ID: &str = "urn:sys:env:2eeadf60-1a11-5170-7e57-000000000000:i:1cnxtsn";
/// Its secret.
pub const CLIENT_SECRET: &str = "s3cr+t/=%&x y~!*";

/// A running `simulate`.
pub struct Simulator {
    process: Process,
    scheme: String,
    /// Where it listens.
    pub address: SocketAddr,
}

impl Simulator {
    /// Starts one with the real service's pool, at real speed.
    pub fn start() -> Simulator {
        Simulator::with(&[])
    }

    /// Starts one with more flags.
    pub fn with(flags: &[&str]) -> Simulator {
        Simulator::at("127.0.0.1:0", flags)
    }

    /// Starts one that listens at `address`.
    pub fn at(address: &str, flags: &[&str]) -> Simulator {
        let first = ["simulate", "--listen", address];
        let args = first.iter().chain(flags);
        let process = Process::spawn(&mut process::command(args));
        let url = process.out.wait_for("the simulator's address", |line| {
            Some(line.split_once(" at ")?.1.to_owned())
        });
        let (scheme, address) = url.split_once("://").unwrap();
        Simulator {
            scheme: scheme.to_owned(),
            address: address.parse().unwrap(),
            process,
        }
    }

    /// Its address as an instance's URL.
    pub fn url(&self) -> String {
        format!("{}://{}", self.scheme, self.address)
    }

    /// Stops it gently; returns its exit status.
    pub fn end(mut self) -> i32 {
        self.process.signal("TERM");
        self.process.ended_within(super::PATIENCE)
    }

    /// Kills it.
    pub fn kill(self) {
        drop(self.process);
    }

    /// Its counters.
    pub fn state(&self) -> Value {
        http::get(self.address, "/_simulator/state").json()
    }

    /// A counter.
    pub fn count(&self, name: &str) -> u64 {
        self.state()[name].as_u64().unwrap()
    }

    /// A counter of its default client.
    pub fn of_client(&self, name: &str) -> u64 {
        self.state()["clients"][CLIENT_ID][name].as_u64().unwrap()
    }

    /// Activates a fault of `kind` at the endpoint `token` or `api`.
    pub fn fault(&self, endpoint: &str, kind: &str) {
        let order = json!({ "endpoint": endpoint, "kind": kind });
        self.control("faults", &order.to_string());
    }

    /// Revokes all tokens.
    pub fn revoke(&self) {
        self.control("revoke", "");
    }

    /// Revokes the tokens of one client.
    pub fn revoke_client(&self, client: &str) {
        self.control("revoke", &json!({ "client": client }).to_string());
    }

    /// Asserts that exactly one token was requested, and that no request came without one.
    pub fn assert_one_token_and_none_unauthorized(&self) {
        let state = self.state();
        assert_eq!(state["token_requests"], 1, "{state}");
        assert_eq!(state["unauthorized"], 0, "{state}");
    }

    fn control(&self, name: &str, body: &str) {
        control(self.address, name, body);
    }
}

/// Gives an order to the simulator at `address`.
pub fn control(address: SocketAddr, name: &str, body: &str) {
    let head = format!("POST /_simulator/{name} HTTP/1.1");
    let answer = http::post(address, &head, "application/json", body.as_bytes());
    assert_eq!(answer.status, 200, "{name} {body}: {}", answer.text());
}
