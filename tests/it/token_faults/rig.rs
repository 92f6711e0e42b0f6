//! A simulated Collibra and a proxy in front of it, each in its own process, and their output.

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::time::Instant;

use super::front::Front;
use super::{COLLIBRA_MINUTE, now};

const BINARY: &str = env!("CARGO_BIN_EXE_collibra-auth-proxy");
const CLIENT_ID: &str = "urn:sys:env:2eeadf60-1a11-5170-7e57-000000000000:i:1cnxtsn";
const CLIENT_SECRET: &str = "s3cr+t/=%&x y~!*";

/// The timeout of a process's start on a busy machine.
const START: Duration = Duration::from_secs(20);

/// A process that is killed on drop.
struct Process(Child);

impl Drop for Process {
    fn drop(&mut self) {
        // it may have ended by itself
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The simulated Collibra at 60 times real speed: a token lives for 5 s, and the pool of 5 refills
/// at one a second.
pub(super) struct Simulator {
    _process: Process,
    url: String,
    http: reqwest::Client,
    started: Instant,
}

/// The simulator's counters.
#[derive(Debug)]
pub(super) struct Counted {
    pub(super) requests: u64,
    pub(super) unauthorized: u64,
    pub(super) token_requests: u64,
    pub(super) faulted: u64,
    pub(super) issued: u64,
    pub(super) rate_limited: u64,
    /// The most tokens that its pool can have issued since its start.
    pub(super) allowed: u64,
}

impl Simulator {
    pub(super) async fn start() -> Simulator {
        let mut child = Command::new(BINARY)
            .args(["simulate", "--listen", "127.0.0.1:0"])
            .args(["--speed", "60", "--lifetime", "300s"])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let out = child.stdout.take().unwrap();
        let process = Process(child);
        let (said, mut heard) = watch::channel(None);
        // to the end, so that the process never writes to a closed pipe
        thread::spawn(move || {
            for line in BufReader::new(out).lines().map_while(Result::ok) {
                if let Some(at) = line.find("http://") {
                    said.send_if_modified(|url| {
                        let first = url.is_none();
                        url.get_or_insert_with(|| line[at..].trim().to_owned());
                        first
                    });
                }
            }
        });
        let url = tokio::time::timeout(START, heard.wait_for(Option::is_some))
            .await
            .expect("the simulator starts")
            .unwrap()
            .clone()
            .unwrap();
        Simulator {
            _process: process,
            url,
            http: super::http_client(),
            started: now(),
        }
    }

    pub(super) fn url(&self) -> &str {
        &self.url
    }

    pub(super) fn address(&self) -> SocketAddr {
        self.url.strip_prefix("http://").unwrap().parse().unwrap()
    }

    /// Activates a fault at the token endpoint, for two simulated minutes or indefinitely.
    pub(super) async fn order(&self, fault: &Value, two_minutes: bool) {
        let mut order = fault.clone();
        order["endpoint"] = json!("token");
        if two_minutes {
            order["for"] = json!("120s");
        }
        let url = format!("{}/_simulator/faults", self.url);
        let answer = self.http.post(url).json(&order).send().await.unwrap();
        assert_eq!(answer.status(), 200, "{order}: {:?}", answer.text().await);
    }

    pub(super) async fn counted(&self) -> Counted {
        let url = format!("{}/_simulator/state", self.url);
        let text = self.http.get(url).send().await.unwrap().text();
        let state: Value = serde_json::from_str(&text.await.unwrap()).unwrap();
        let number = |value: &Value| value.as_u64().unwrap();
        let client = &state["clients"][CLIENT_ID];
        let minutes = self.started.elapsed().as_secs_f64() / COLLIBRA_MINUTE.as_secs_f64();
        Counted {
            requests: number(&state["requests"]),
            unauthorized: number(&state["unauthorized"]),
            token_requests: number(&state["token_requests"]),
            faulted: number(&state["faulted"]),
            issued: number(&client["issued"]),
            rate_limited: number(&client["rate_limited"]),
            // it started slightly before its start was noticed
            allowed: 5 + minutes.ceil() as u64,
        }
    }
}

/// The proxy's log.
#[derive(Clone, Debug, Default)]
pub(super) struct Log {
    listening: Option<SocketAddr>,
    /// When each token was issued.
    pub(super) received: Vec<Instant>,
    /// When and how each token request failed.
    pub(super) failed: Vec<(Instant, String)>,
}

impl Log {
    fn take(&mut self, line: &str) -> bool {
        let Ok(line) = serde_json::from_str::<Value>(line) else {
            return false;
        };
        let text = |key: &str| line[key].as_str().unwrap_or_default();
        match text("message") {
            "listening" => self.listening = text("address").parse().ok(),
            "token received" => self.received.push(now()),
            message if message.starts_with("token request failed") => {
                let outcome = text("outcome").to_owned();
                self.failed.push((now(), outcome));
            }
            _ => return false,
        }
        true
    }

    /// How long after `end` the first token came.
    pub(super) fn back_after(&self, end: Instant) -> Option<Duration> {
        let first = self.received.iter().find(|at| **at >= end)?;
        Some(first.duration_since(end))
    }

    /// Returns whether the last attempt before `end` failed.
    pub(super) fn is_failing_at(&self, end: Instant) -> bool {
        let before = |at: &&Instant| **at < end;
        let token = self.received.iter().rfind(before);
        let failure = self.failed.iter().map(|(at, _)| at).rfind(before);
        failure > token
    }
}

/// The proxy.
pub(super) struct Proxy {
    _process: Process,
    log: watch::Receiver<Log>,
}

impl Proxy {
    /// Starts it without waiting.
    pub(super) fn start(upstream: &str, ca_file: Option<&Path>) -> Proxy {
        let mut command = Command::new(BINARY);
        command
            .args(["serve", "--upstream", upstream, "--client-id", CLIENT_ID])
            .args(["--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0"])
            // a simulated minute, and ten simulated seconds
            .args(["--pool-refill", "1s", "--wait-for-token", "160ms"])
            .args(["--threads", "1", "--log-format", "json"])
            .env("COLLIBRA_CLIENT_SECRET", CLIENT_SECRET);
        if let Some(file) = ca_file {
            command.arg("--ca-file").arg(file);
        }
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let err = child.stderr.take().unwrap();
        let (said, log) = watch::channel(Log::default());
        thread::spawn(move || {
            for line in BufReader::new(err).lines().map_while(Result::ok) {
                said.send_if_modified(|log| log.take(&line));
            }
        });
        Proxy {
            _process: Process(child),
            log,
        }
    }

    pub(super) async fn url(&self) -> String {
        let log = self.logged(START, |log| log.listening.is_some()).await;
        let address = log.and_then(|log| log.listening);
        format!("http://{}", address.expect("the proxy listens"))
    }

    pub(super) fn log(&self) -> Log {
        self.log.borrow().clone()
    }

    /// Waits until the log satisfies a condition; `None` if it does not within `patience`.
    pub(super) async fn logged(
        &self,
        patience: Duration,
        wish: impl FnMut(&Log) -> bool,
    ) -> Option<Log> {
        let mut log = self.log.clone();
        let waited = tokio::time::timeout(patience, log.wait_for(wish)).await;
        waited.ok().map(|seen| seen.unwrap().clone())
    }
}

/// Simulator and proxy, with a TLS front between them if the fault is one of certificates.
pub(super) struct Rig {
    pub(super) simulator: Simulator,
    pub(super) front: Option<Front>,
}

impl Rig {
    pub(super) async fn start(tls: bool) -> Rig {
        let simulator = Simulator::start().await;
        let front = match tls {
            true => Some(Front::start(simulator.address()).await),
            false => None,
        };
        Rig { simulator, front }
    }

    pub(super) fn proxy(&self) -> Proxy {
        match &self.front {
            Some(front) => Proxy::start(&front.url(), Some(front.ca_file())),
            None => Proxy::start(self.simulator.url(), None),
        }
    }

    /// Waits for the first token; returns when it came.
    pub(super) async fn first_token(proxy: &Proxy) -> Instant {
        let log = proxy.logged(START, |log| !log.received.is_empty()).await;
        log.expect("a first token").received[0]
    }
}
