//! The load generator: each caller calls on schedule, over its own connections, whatever the
//! outcome of its last call.

use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use serde_json::Value;
use tokio::runtime::{Builder, Runtime};
use tokio::sync::watch;
use tokio::task::JoinSet;

use super::caller::{self, Connection};
use super::wait::{now, until};

/// The path of every call.
const PATH: &str = "/rest/2.0/application/info";

/// The schedule of the callers.
#[derive(Clone, Copy, Debug)]
pub struct Pace {
    /// The number of callers per address.
    pub callers: u32,
    /// The time between two calls of a caller; zero: the next call follows the response.
    pub every: Duration,
    /// One caller in so many opens a connection for each call; 0: none does.
    pub fresh: u32,
    /// Whether a caller that was kept waiting catches up. Otherwise it skips the calls that it
    /// missed.
    pub catches_up: bool,
    /// How long a caller waits for a response.
    pub patience: Duration,
}

impl Default for Pace {
    /// One caller, 20 calls a second, one connection.
    fn default() -> Self {
        Pace {
            callers: 1,
            every: Duration::from_millis(50),
            fresh: 0,
            catches_up: false,
            patience: super::PATIENCE,
        }
    }
}

/// One call.
#[derive(Clone, Debug)]
pub struct Call {
    /// The address, by its place in the list.
    pub to: usize,
    /// When it was due. Its latency counts from then.
    pub at: Instant,
    /// When its response was complete, or the caller gave up.
    pub end: Instant,
    /// The result.
    pub outcome: Outcome,
    /// The kept connection had been closed between two calls, and another was opened.
    pub reconnected: bool,
}

/// The result of a call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// A response of the instance with 200.
    Answered,
    /// The proxy's own 503 `no-token`, well-formed.
    NoToken {
        /// `Retry-After`, in seconds.
        retry_after: u64,
        /// Status and message.
        said: String,
    },
    /// Anything else, described.
    Failed(String),
}

impl Outcome {
    /// Why it failed, if it did.
    pub fn failure(&self) -> Option<&str> {
        match self {
            Outcome::Answered => None,
            Outcome::NoToken { said, .. } | Outcome::Failed(said) => Some(said),
        }
    }
}

/// Running callers.
#[derive(Debug)]
pub struct Load {
    runtime: Option<Runtime>,
    callers: JoinSet<Vec<Call>>,
    answered: Arc<AtomicU64>,
    stop: watch::Sender<bool>,
    addresses: usize,
}

impl Load {
    /// Starts to call `addresses`.
    pub fn start(addresses: &[SocketAddr], pace: Pace) -> Load {
        let mut runtime = Builder::new_multi_thread();
        let runtime = runtime.worker_threads(2).enable_all().build().unwrap();
        let (stop, stopped) = watch::channel(false);
        let answered = Arc::new(AtomicU64::new(0));
        let mut callers = JoinSet::new();
        let begin = now();
        for (to, address) in addresses.iter().enumerate() {
            for nth in 0..pace.callers {
                let caller = Caller {
                    to,
                    address: *address,
                    pace,
                    is_fresh: pace.fresh > 0 && nth % pace.fresh == 0,
                    kept: None,
                    answered: Arc::clone(&answered),
                };
                let first = begin + pace.every * nth / pace.callers;
                let calls = caller.run(first, stopped.clone());
                callers.spawn_on(calls, runtime.handle());
            }
        }
        Load {
            runtime: Some(runtime),
            callers,
            answered,
            stop,
            addresses: addresses.len(),
        }
    }

    /// Waits for `more` responses, or for a caller to panic.
    pub fn answered(&self, more: u64) {
        let enough = self.answered.load(Ordering::Relaxed) + more;
        until("the callers' responses", || {
            (self.answered.load(Ordering::Relaxed) >= enough).then_some(())
        });
    }

    /// Waits until the callers got `least` responses; returns whether they did in time.
    pub async fn is_answered(&self, least: u64) -> bool {
        let enough = async {
            while self.answered.load(Ordering::Relaxed) < least {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        tokio::time::timeout(super::PATIENCE, enough).await.is_ok()
    }

    /// Stops the callers after their current calls; returns all calls in the order of their times.
    pub async fn stop(mut self) -> Vec<Call> {
        self.stop.send_replace(true);
        let callers = std::mem::take(&mut self.callers);
        let mut calls = callers.join_all().await.concat();
        calls.sort_by_key(|call| call.at);
        calls
    }

    /// As [`Load::stop`], outside of a runtime.
    pub fn end(mut self) -> Vec<Call> {
        let runtime = self.runtime.take().unwrap();
        runtime.block_on(self.stop())
    }

    /// Stops the callers, and counts the outcomes of their calls.
    pub fn tally(self) -> Tally {
        self.end().iter().collect()
    }

    /// Stops the callers. Asserts that every call was answered, and that no idle connection was
    /// closed without `Connection: close` before.
    ///
    /// # Panics
    /// If not.
    #[track_caller]
    pub fn lost_nothing(self) -> Tally {
        let calls = self.end();
        let tally: Tally = calls.iter().collect();
        tally.assert_all_answered();
        let closed = calls.iter().filter(|call| call.reconnected).count();
        assert_eq!(closed, 0, "connections were closed: {tally:?}");
        tally
    }

    /// As [`Load::tally`], for each address.
    pub fn tallies(self) -> Vec<Tally> {
        let mut tallies = vec![Tally::default(); self.addresses];
        for call in &self.end() {
            tallies[call.to].add(call);
        }
        tallies
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        // a runtime must not block on its shutdown within another one
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

/// Calls once, on a new connection.
pub async fn call(address: SocketAddr, patience: Duration) -> Outcome {
    let mut caller = Caller {
        to: 0,
        address,
        pace: Pace {
            patience,
            ..Pace::default()
        },
        is_fresh: true,
        kept: None,
        answered: Arc::default(),
    };
    let request = caller::get(address, PATH, "");
    caller.call(&request, &mut false).await
}

/// The outcomes of calls, counted.
#[derive(Clone, Debug, Default)]
pub struct Tally {
    /// Responses of the instance with 200.
    pub answers: u64,
    /// The proxy's own 503s for want of a token.
    pub without_token: u64,
    /// Their longest `Retry-After`, in seconds.
    pub longest_retry_after: u64,
    /// All other failures, each with its number.
    pub failures: BTreeMap<String, u64>,
    /// The longest time from when a call was due to its end.
    pub longest: Duration,
}

impl<'a> FromIterator<&'a Call> for Tally {
    fn from_iter<I: IntoIterator<Item = &'a Call>>(calls: I) -> Tally {
        let mut tally = Tally::default();
        calls.into_iter().for_each(|call| tally.add(call));
        tally
    }
}

impl Tally {
    fn add(&mut self, call: &Call) {
        self.longest = self.longest.max(call.end.duration_since(call.at));
        match &call.outcome {
            Outcome::Answered => self.answers += 1,
            Outcome::NoToken { retry_after, .. } => {
                self.without_token += 1;
                self.longest_retry_after = self.longest_retry_after.max(*retry_after);
            }
            Outcome::Failed(why) => *self.failures.entry(why.clone()).or_default() += 1,
        }
    }

    /// Asserts that the instance answered every call.
    ///
    /// # Panics
    /// If it did not.
    #[track_caller]
    pub fn assert_all_answered(&self) {
        let failed = self.without_token > 0 || !self.failures.is_empty();
        assert!(self.answers > 0 && !failed, "{self:?}");
    }
}

struct Caller {
    to: usize,
    address: SocketAddr,
    pace: Pace,
    is_fresh: bool,
    kept: Option<Connection>,
    answered: Arc<AtomicU64>,
}

impl Caller {
    async fn run(mut self, first: Instant, mut stopped: watch::Receiver<bool>) -> Vec<Call> {
        let request = caller::get(self.address, PATH, "");
        let mut calls = Vec::new();
        let mut at = first;
        loop {
            tokio::select! {
                biased;
                _ = stopped.wait_for(|stopped| *stopped) => return calls,
                () = tokio::time::sleep_until(at.into()) => {}
            }
            if self.is_fresh {
                self.kept = None;
            }
            let mut reconnected = false;
            let outcome = self.call(&request, &mut reconnected).await;
            if outcome == Outcome::Answered {
                self.answered.fetch_add(1, Ordering::Relaxed);
            }
            let end = now();
            calls.push(Call {
                to: self.to,
                at,
                end,
                outcome,
                reconnected,
            });
            let due = at + self.pace.every;
            at = match due < end {
                true if self.pace.every.is_zero() => end,
                true if !self.pace.catches_up => end + self.pace.every,
                _ => due,
            };
        }
    }

    async fn call(&mut self, request: &[u8], reconnected: &mut bool) -> Outcome {
        let patience = self.pace.patience;
        let exchange = self.exchange(request, reconnected);
        match tokio::time::timeout(patience, exchange).await {
            Ok(Ok(outcome)) => outcome,
            Ok(Err(error)) => Outcome::Failed(error.to_string()),
            Err(_elapsed) => Outcome::Failed(format!("no answer within {patience:?}")),
        }
    }

    /// One exchange. If a kept connection was closed before the first byte of a response, retries
    /// on a new one, as every HTTP client does.
    async fn exchange(
        &mut self,
        request: &[u8],
        reconnected: &mut bool,
    ) -> std::io::Result<Outcome> {
        if let Some(mut connection) = self.kept.take() {
            match connection.call(request).await {
                Ok(status) => return Ok(self.classify(connection, status)),
                Err(e) if is_closed(e.kind()) && connection.is_silent() => *reconnected = true,
                Err(error) => return Err(error),
            }
        }
        let mut connection = Connection::open(self.address).await?;
        let status = connection.call(request).await?;
        Ok(self.classify(connection, status))
    }

    /// Classifies a response, and keeps the connection unless the response closes it.
    fn classify(&mut self, connection: Connection, status: u16) -> Outcome {
        let reason = connection.header("x-collibra-auth-proxy:");
        let retry_after = connection.header("retry-after:");
        let retry_after = retry_after.and_then(|value| value.parse().ok());
        let outcome = match (status, reason, retry_after) {
            (200, None, _) => Outcome::Answered,
            (status, reason, retry_after) => {
                let body: Value = serde_json::from_slice(connection.body()).unwrap_or_default();
                let said = format!("{status}: {}", body["userMessage"]);
                match retry_after {
                    Some(retry_after)
                        if (status, reason) == (503, Some("no-token"))
                            && body["statusCode"] == 503 =>
                    {
                        Outcome::NoToken { retry_after, said }
                    }
                    _ => Outcome::Failed(said),
                }
            }
        };
        if connection.header("connection:") != Some("close") {
            self.kept = Some(connection);
        }
        outcome
    }
}

fn is_closed(kind: ErrorKind) -> bool {
    use ErrorKind::{BrokenPipe, ConnectionReset, UnexpectedEof};
    matches!(kind, UnexpectedEof | ConnectionReset | BrokenPipe)
}
