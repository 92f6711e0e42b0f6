//! The callers: 200 calls a second from 50 connections, each at its time whatever became of the one
//! before.

use std::io::ErrorKind;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use serde_json::Value;
use tokio::task::JoinHandle;

use crate::support::http::{self, Connection};
use crate::support::now;

const CALLERS: u32 = 50;

/// Calls a second.
pub(crate) const RATE: u32 = 200;

/// One caller in so many opens a connection for each call.
const FRESH: u32 = 10;

/// After this a caller gives up.
const PATIENCE: Duration = Duration::from_secs(10);

/// One call.
pub(crate) struct Call {
    /// When it was due. Its latency counts from then.
    pub(crate) at: Instant,
    /// When its answer was there, or the caller gave up.
    pub(crate) end: Instant,
    /// Why it failed.
    pub(crate) failure: Option<String>,
    /// The kept connection had been closed between two calls, and another was opened.
    pub(crate) reconnected: bool,
}

/// Callers at work.
pub(crate) struct Load {
    stop: Arc<AtomicBool>,
    callers: Vec<JoinHandle<Vec<Call>>>,
}

impl Load {
    /// Starts to call the proxy at `address`.
    pub(crate) fn start(address: SocketAddr) -> Load {
        let stop = Arc::new(AtomicBool::new(false));
        let begin = now() + Duration::from_millis(100);
        let every = Duration::from_secs(1) * CALLERS / RATE;
        let callers = (0..CALLERS).map(|nth| {
            let first = begin + every * nth / CALLERS;
            let stop = Arc::clone(&stop);
            tokio::spawn(caller(address, first, every, nth % FRESH == 0, stop))
        });
        Load {
            callers: callers.collect(),
            stop,
        }
    }

    /// Stops, and gives all calls in the order of their times.
    pub(crate) async fn end(self) -> Vec<Call> {
        self.stop.store(true, Ordering::Relaxed);
        let mut calls = Vec::new();
        for caller in self.callers {
            calls.extend(caller.await.unwrap());
        }
        calls.sort_by_key(|call: &Call| call.at);
        calls
    }
}

async fn caller(
    address: SocketAddr,
    first: Instant,
    every: Duration,
    is_fresh: bool,
    stop: Arc<AtomicBool>,
) -> Vec<Call> {
    let request = http::get(address, "/rest/2.0/application/info", "");
    let mut calls = Vec::new();
    let mut kept = None;
    let mut at = first;
    while !stop.load(Ordering::Relaxed) {
        tokio::time::sleep_until(at.into()).await;
        if is_fresh {
            kept = None;
        }
        let mut reconnected = false;
        let answer = exchange(&mut kept, address, &request, &mut reconnected);
        let failure = match tokio::time::timeout(PATIENCE, answer).await {
            Ok(Ok(failure)) => failure,
            Ok(Err(error)) => Some(error.to_string()),
            Err(_elapsed) => Some("no answer within 10 s".to_owned()),
        };
        calls.push(Call {
            at,
            end: now(),
            failure,
            reconnected,
        });
        at += every;
    }
    calls
}

/// One call, which fails with what the proxy said. A kept connection that was closed before
/// anything of an answer came leads to another one, as with every HTTP client.
async fn exchange(
    kept: &mut Option<Connection>,
    address: SocketAddr,
    request: &[u8],
    reconnected: &mut bool,
) -> std::io::Result<Option<String>> {
    if let Some(mut connection) = kept.take() {
        match connection.call(request).await {
            Ok(status) => return Ok(judge(connection, status, kept)),
            Err(error) if is_closed(error.kind()) && connection.is_silent() => *reconnected = true,
            Err(error) => return Err(error),
        }
    }
    let mut connection = Connection::open(address).await?;
    let status = connection.call(request).await?;
    Ok(judge(connection, status, kept))
}

/// Keeps a connection whose response was complete; otherwise returns what came instead.
fn judge(connection: Connection, status: u16, kept: &mut Option<Connection>) -> Option<String> {
    if status == 200 {
        *kept = Some(connection);
        return None;
    }
    let body: Value = serde_json::from_slice(connection.body()).unwrap_or_default();
    Some(format!("{status}: {}", body["userMessage"]))
}

fn is_closed(kind: ErrorKind) -> bool {
    use ErrorKind::{BrokenPipe, ConnectionReset, UnexpectedEof};
    matches!(kind, UnexpectedEof | ConnectionReset | BrokenPipe)
}
