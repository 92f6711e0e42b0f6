//! An hour of simulated time in a minute: 500 requests a second from 100 connections through the
//! proxy, while its token lives for 5 s and is renewed in time.
//!
//! Checks: no failure, no 401, no 429, and no more tokens than a renewal at half of their lifetime
//! needs. `cargo bench --bench hour -- --for 10` takes 10 s; the exit status is 1 if a check fails.

#![expect(clippy::unwrap_used, clippy::print_stdout, reason = "a benchmark")]

#[expect(dead_code, reason = "each benchmark uses a part of it")]
mod support;

use std::net::SocketAddr;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use serde_json::Value;
use support::http::{self, Connection};
use support::process;
use support::{CLIENT_ID, now};

const CONNECTIONS: u32 = 100;
const A_SECOND: u32 = 500;

/// The results of one connection.
#[derive(Default)]
struct Seen {
    latencies: Vec<Duration>,
    failures: Vec<String>,
}

#[tokio::main]
async fn main() -> ExitCode {
    let seconds = support::number("--for", 60);
    let (_simulator, origin) = process::simulator(&["--speed", "60", "--lifetime", "300s"]);
    let upstream = format!("http://{origin}");
    let (proxy, address, _) = process::proxy(
        process::BINARY,
        &[
            "--upstream",
            &upstream,
            "--client-id",
            CLIENT_ID,
            "--pool-refill",
            "1s",
            "--listen",
            "127.0.0.1:0",
            "--admin",
            "127.0.0.1:0",
        ],
    );

    let begin = now() + Duration::from_millis(100);
    let end = begin + Duration::from_secs(seconds);
    let every = Duration::from_secs(1) * CONNECTIONS / A_SECOND;
    let callers: Vec<_> = (0..CONNECTIONS)
        .map(|nth| {
            let first = begin + every * nth / CONNECTIONS;
            tokio::spawn(caller(address, first, every, end))
        })
        .collect();
    let mut seen = Seen::default();
    for caller in callers {
        let one = caller.await.unwrap();
        seen.latencies.extend(one.latencies);
        seen.failures.extend(one.failures);
    }
    let processor = proxy.processor_seconds();
    let resident = proxy.resident_megabytes();
    report(seconds, seen, &state(origin).await, processor, resident)
}

/// Sends one request every `every`, even if the last response was late. Latency is counted from
/// when the request was due.
async fn caller(address: SocketAddr, first: Instant, every: Duration, end: Instant) -> Seen {
    let request = http::get(address, "/rest/2.0/application/info", "");
    let mut seen = Seen::default();
    let mut connection = None;
    let mut meant = first;
    while meant < end {
        tokio::time::sleep_until(meant.into()).await;
        let answer = exchange(&mut connection, address, &request);
        match tokio::time::timeout(Duration::from_secs(10), answer).await {
            Ok(Ok(200)) => seen.latencies.push(now() - meant),
            Ok(Ok(status)) => seen.failures.push(format!("status {status}")),
            Ok(Err(e)) => seen.failures.push(e.to_string()),
            Err(e) => seen.failures.push(e.to_string()),
        }
        meant += every;
    }
    seen
}

async fn exchange(
    kept: &mut Option<Connection>,
    address: SocketAddr,
    request: &[u8],
) -> std::io::Result<u16> {
    let mut connection = match kept.take() {
        Some(connection) => connection,
        None => Connection::open(address).await?,
    };
    let status = connection.call(request).await?;
    *kept = Some(connection);
    Ok(status)
}

async fn state(simulator: SocketAddr) -> Value {
    let mut connection = Connection::open(simulator).await.unwrap();
    let request = http::get(simulator, "/_simulator/state", "");
    assert_eq!(connection.call(&request).await.unwrap(), 200);
    serde_json::from_slice(connection.body()).unwrap()
}

fn report(seconds: u64, mut seen: Seen, state: &Value, processor: f64, resident: f64) -> ExitCode {
    let client = &state["clients"][CLIENT_ID];
    let number = |value: &Value| value.as_u64().unwrap();
    let issued = number(&client["issued"]);
    let rate_limited = number(&client["rate_limited"]);
    let unauthorized = number(&state["unauthorized"]);
    // 22 to 26 an hour
    let (least, most) = (22 * seconds / 60, (26 * seconds).div_ceil(60));
    let sent = seen.latencies.len() + seen.failures.len();
    seen.latencies.sort();
    let quantile = |share: f64| {
        let last = seen.latencies.len().saturating_sub(1);
        let at = (last as f64 * share).round() as usize;
        let latency = seen.latencies.get(at).copied().unwrap_or_default();
        format!("{:.2} ms", latency.as_secs_f64() * 1e3)
    };

    println!("Collibra's time         {seconds} minutes");
    println!("requests                {sent}, {A_SECOND} a second from {CONNECTIONS} connections");
    println!("failed                  {}", seen.failures.len());
    println!("with a dead token       {unauthorized}");
    println!("tokens                  {issued} (promised: {least} to {most})");
    println!("429 at the endpoint     {rate_limited}");
    println!(
        "latency                 p50 {}, p99 {}, p99.9 {}, max {}",
        quantile(0.5),
        quantile(0.99),
        quantile(0.999),
        quantile(1.0)
    );
    println!(
        "processor a request     {:.1} us",
        processor * 1e6 / sent as f64
    );
    println!("resident memory         {resident:.1} MB");

    let kept = seen.failures.is_empty()
        && !seen.latencies.is_empty()
        && unauthorized == 0
        && rate_limited == 0
        && (least..=most).contains(&issued);
    if let Some(failure) = seen.failures.first() {
        println!("the first failure: {failure}");
    }
    println!("{}", if kept { "kept" } else { "BROKEN" });
    ExitCode::from(u8::from(!kept))
}
