//! A simulated Collibra and a proxy in front of it, each in its own process, and their output.

use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::task::{block_in_place, spawn_blocking};
use tokio::time::Instant;

use super::front::Front;
use super::{COLLIBRA_MINUTE, now};
use crate::support::process::{Process, command};
use crate::support::simulator::{self, CLIENT_ID, CLIENT_SECRET};

/// The timeout of a process's start on a busy machine.
const START: Duration = Duration::from_secs(20);

/// The simulated Collibra at 60 times real speed: a token lives for 5 s, and the pool of 5 refills
/// at one a second.
pub(super) struct Simulator {
    running: simulator::Simulator,
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
        let flags = ["--speed", "60", "--lifetime", "300s"];
        let running = spawn_blocking(move || simulator::Simulator::with(&flags));
        Simulator {
            running: running.await.expect("the simulator starts"),
            started: now(),
        }
    }

    pub(super) fn url(&self) -> String {
        self.running.url()
    }

    pub(super) fn address(&self) -> SocketAddr {
        self.running.address
    }

    /// Activates a fault at the token endpoint, for two simulated minutes or indefinitely.
    pub(super) async fn order(&self, fault: &Value, two_minutes: bool) {
        let mut order = fault.clone();
        order["endpoint"] = json!("token");
        if two_minutes {
            order["for"] = json!("120s");
        }
        block_in_place(|| simulator::control(self.address(), "faults", &order.to_string()));
    }

    pub(super) async fn counted(&self) -> Counted {
        let state = block_in_place(|| self.running.state());
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
        let first = ["serve", "--upstream", upstream, "--client-id", CLIENT_ID];
        let mut command = command(first);
        command
            .args(["--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0"])
            // a simulated minute, and ten simulated seconds
            .args(["--pool-refill", "1s", "--wait-for-token", "160ms"])
            .args(["--threads", "1", "--log-format", "json"])
            .env("COLLIBRA_CLIENT_SECRET", CLIENT_SECRET);
        if let Some(file) = ca_file {
            command.arg("--ca-file").arg(file);
        }
        let (said, log) = watch::channel(Log::default());
        let process = Process::watched(&mut command, move |line| {
            said.send_if_modified(|log| log.take(line));
            false
        });
        Proxy {
            _process: process,
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
            None => Proxy::start(&self.simulator.url(), None),
        }
    }

    /// Waits for the first token; returns when it came.
    pub(super) async fn first_token(proxy: &Proxy) -> Instant {
        let log = proxy.logged(START, |log| !log.received.is_empty()).await;
        log.expect("a first token").received[0]
    }
}
