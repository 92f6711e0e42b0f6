//! An hour of simulated time in a minute: 500 requests a second from 100 connections through the
//! proxy, while its token lives for 5 s and is renewed in time.
//!
//! Checks: no failure, no 401, no 429, and no more tokens than a renewal at half of their lifetime
//! needs. `cargo bench --bench hour -- --for 10` takes 10 s; the exit status is 1 if a check fails.

#![expect(clippy::unwrap_used, clippy::print_stdout, reason = "a benchmark")]

use std::process::ExitCode;
use std::time::Duration;

use kit::load::{Call, Load, Pace};
use kit::simulator::CLIENT_ID;
use kit::{Proxy, Simulator};
use serde_json::Value;

const CONNECTIONS: u32 = 100;
const A_SECOND: u32 = 500;

fn main() -> ExitCode {
    let seconds = kit::number("--for", 60);
    let simulator = Simulator::with(&["--speed", "60", "--lifetime", "300s"]);
    let proxy = Proxy::to(&simulator.url())
        .flag("--pool-refill", "1s")
        .without_access_lines()
        .start();
    // each request is sent when it is due, even if the last response was late
    let pace = Pace {
        callers: CONNECTIONS,
        every: Duration::from_secs(1) * CONNECTIONS / A_SECOND,
        catches_up: true,
        patience: Duration::from_secs(10),
        ..Pace::default()
    };
    let load = Load::start(&[proxy.address], pace);
    std::thread::sleep(Duration::from_secs(seconds));
    let calls = load.end();
    let processor = proxy.process.processor_seconds();
    let resident = proxy.process.resident_megabytes();
    report(seconds, &calls, &simulator.state(), processor, resident)
}

fn report(seconds: u64, calls: &[Call], state: &Value, processor: f64, resident: f64) -> ExitCode {
    let client = &state["clients"][CLIENT_ID];
    let number = |value: &Value| value.as_u64().unwrap();
    let issued = number(&client["issued"]);
    let rate_limited = number(&client["rate_limited"]);
    let unauthorized = number(&state["unauthorized"]);
    // 22 to 26 an hour
    let (least, most) = (22 * seconds / 60, (26 * seconds).div_ceil(60));
    let sent = calls.len();
    let failures: Vec<&str> = calls.iter().filter_map(|c| c.outcome.failure()).collect();
    let answered = calls.iter().filter(|call| call.outcome.failure().is_none());
    let mut latencies: Vec<Duration> = answered.map(|call| call.end - call.at).collect();
    latencies.sort();
    let quantile = |share: f64| {
        let last = latencies.len().saturating_sub(1);
        let at = (last as f64 * share).round() as usize;
        let latency = latencies.get(at).copied().unwrap_or_default();
        format!("{:.2} ms", latency.as_secs_f64() * 1e3)
    };

    println!("Collibra's time         {seconds} minutes");
    println!("requests                {sent}, {A_SECOND} a second from {CONNECTIONS} connections");
    println!("failed                  {}", failures.len());
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

    let kept = failures.is_empty()
        && !latencies.is_empty()
        && unauthorized == 0
        && rate_limited == 0
        && (least..=most).contains(&issued);
    if let Some(failure) = failures.first() {
        println!("the first failure: {failure}");
    }
    println!("{}", if kept { "kept" } else { "BROKEN" });
    ExitCode::from(u8::from(!kept))
}
