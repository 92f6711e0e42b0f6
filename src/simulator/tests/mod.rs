//! The simulator as seen through a socket.

mod api;
mod faults;
mod token_endpoint;

use std::collections::HashMap;
use std::net::SocketAddr;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::{Config, DEMO_CLIENT_ID, DEMO_CLIENT_SECRET, Simulator, start};

const ENCODED_ID: &str = "urn%3Asys%3Aenv%3A2eeadf60-1a11-5170-7e57-000000000000%3Ai%3A1cnxtsn";
const ENCODED_SECRET: &str = "s3cr%2Bt%2F%3D%25%26x+y%7E%21*";
const GRANT: &str = "grant_type=client_credentials";

/// Starts a simulator on its own free port.
async fn simulator(config: Config) -> Simulator {
    let listen = SocketAddr::from(([127, 0, 0, 1], 0));
    start(Config { listen, ..config }).await.unwrap()
}

/// A response.
#[derive(Debug)]
struct Answer {
    status: u16,
    headers: HashMap<String, String>,
    body: Vec<u8>,
}

impl Answer {
    fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_default()
    }

    fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(String::as_str)
    }
}

/// Sends bytes on a new connection and reads until it ends, in whatever way.
async fn exchange(address: SocketAddr, bytes: &[u8]) -> (Vec<u8>, std::io::Result<usize>) {
    let mut connection = TcpStream::connect(address).await.unwrap();
    connection.write_all(bytes).await.unwrap();
    let mut received = Vec::new();
    let ended = connection.read_to_end(&mut received).await;
    (received, ended)
}

fn request(line: &str, headers: &[&str], body: &str) -> Vec<u8> {
    let headers: String = headers
        .iter()
        .map(|header| format!("{header}\r\n"))
        .collect();
    format!(
        "{line} HTTP/1.1\r\nHost: acme.example\r\nConnection: close\r\nContent-Length: {}\r\n{headers}\r\n{body}",
        body.len()
    )
    .into_bytes()
}

async fn send(simulator: &Simulator, line: &str, headers: &[&str], body: &str) -> Answer {
    let (received, ended) = exchange(simulator.address(), &request(line, headers, body)).await;
    ended.unwrap();
    let end = received
        .windows(4)
        .position(|window| window == b"\r\n\r\n")
        .unwrap();
    let head = String::from_utf8(received[..end].to_vec()).unwrap();
    let mut lines = head.lines();
    let status = lines
        .next()
        .unwrap()
        .split(' ')
        .nth(1)
        .unwrap()
        .parse()
        .unwrap();
    let headers = lines
        .map(|line| line.split_once(": ").unwrap())
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect();
    Answer {
        status,
        headers,
        body: received[end + 4..].to_vec(),
    }
}

/// The names of a JSON object's fields, sorted.
fn fields(json: &Value) -> Vec<&str> {
    let mut fields: Vec<&str> = json
        .as_object()
        .map(|fields| fields.keys().map(String::as_str).collect())
        .unwrap_or_default();
    fields.sort_unstable();
    fields
}

fn basic(id: &str, secret: &str) -> String {
    format!(
        "Authorization: Basic {}",
        STANDARD.encode(format!("{id}:{secret}"))
    )
}

/// Requests a token as a client should.
async fn ask(simulator: &Simulator) -> Answer {
    let form = "Content-Type: application/x-www-form-urlencoded";
    let basic = basic(ENCODED_ID, ENCODED_SECRET);
    send(
        simulator,
        "POST /rest/oauth/v2/token",
        &[form, &basic],
        GRANT,
    )
    .await
}

/// A header with a valid token.
async fn bearer(simulator: &Simulator) -> String {
    let token = ask(simulator).await.json();
    format!(
        "Authorization: Bearer {}",
        token["access_token"].as_str().unwrap()
    )
}

async fn order(simulator: &Simulator, fault: Value) {
    let answer = send(
        simulator,
        "POST /_simulator/faults",
        &[],
        &fault.to_string(),
    )
    .await;
    assert_eq!(answer.status, 200, "{answer:?}");
}
