//! The table, and whether the promises were kept.

use std::time::{Duration, Instant};

use kit::load::Call;

use crate::day::Day;
use crate::probe::{Probe, Probed};

/// The longest time for `/livez`.
const LIVE: Duration = Duration::from_millis(100);

/// How long after an outage of the API a call may still fail.
const EDGE: Duration = Duration::from_secs(1);

/// How much more memory there may be at the end than after the first step, in MB: leaking 50 bytes
/// a call would be more in half an hour.
const GROWTH: f64 = 16.0;

/// Prints the table and what was broken; gives whether nothing was.
pub(crate) fn report(day: Day, calls: &[Call], probed: &Probed, end: Instant) -> bool {
    let mut broken = day.broken;
    println!(
        "{:<46} {:>7} {:>7} {:>6} {:>7} {:>7} {:>8} {:>8} {:>8} {:>7}",
        "step", "calls", "failed", "reconn", "p50", "p99", "max", "livez", "machine", "RSS"
    );
    for (nth, step) in day.steps.iter().enumerate() {
        let until = day.steps.get(nth + 1).map_or(end, |next| next.at);
        let is_within = |at: Instant| at >= step.at && at < until;
        let calls: Vec<&Call> = calls.iter().filter(|call| is_within(call.at)).collect();
        let probes = probed.probes.iter().filter(|probe| is_within(probe.at));
        let livez = probes.map(|probe| probe.took).max().unwrap_or_default();
        let mut latencies: Vec<Duration> = calls
            .iter()
            .filter(|call| call.outcome.failure().is_none())
            .map(|call| call.end - call.at)
            .collect();
        latencies.sort();
        let quantile = |percent: usize| {
            let at = latencies.len().saturating_sub(1) * percent / 100;
            milliseconds(latencies.get(at).copied().unwrap_or_default())
        };
        let reconnected = calls.iter().filter(|call| call.reconnected).count();
        println!(
            "{:<46} {:>7} {:>7} {:>6} {:>7} {:>7} {:>8} {:>8} {:>8} {:>7}",
            step.name,
            calls.len(),
            calls
                .iter()
                .filter(|call| call.outcome.failure().is_some())
                .count(),
            reconnected,
            quantile(50),
            quantile(99),
            quantile(100),
            milliseconds(livez),
            milliseconds(probed.longest_delay(step.at, until)),
            format!("{:.1}", step.megabytes),
        );
        for said in &step.said {
            println!("    {said}");
        }
        if reconnected > 0 && !step.name.contains("descriptors") {
            broken.push(format!(
                "{}: {reconnected} connections were closed",
                step.name
            ));
        }
    }
    println!("times in ms, memory in MB; reconn: kept connections that the proxy had closed;");
    println!(
        "livez: the longest probe; machine: how late a thread that only sleeps was woken at most"
    );

    let outside = calls.iter().filter(|call| {
        let overlaps = call.end >= day.outage.start && call.at < day.outage.end + EDGE;
        call.outcome.failure().is_some() && !overlaps
    });
    let outside: Vec<&Call> = outside.collect();
    println!(
        "calls that failed outside of the API's outage and the second after it: {}",
        outside.len()
    );
    for call in outside.iter().take(10) {
        let step = day.steps.iter().rfind(|step| step.at <= call.at);
        broken.push(format!(
            "{}: a call failed: {}",
            step.map_or("before", |step| step.name),
            call.outcome.failure().unwrap_or_default()
        ));
    }
    broken.extend(livez(probed));
    let [first, .., last] = &day.steps[..] else {
        return false;
    };
    let growth = last.megabytes - first.megabytes;
    println!(
        "memory: {:.1} MB after the first step, {:.1} MB at the end: {growth:+.1} MB (at most {GROWTH})",
        first.megabytes, last.megabytes
    );
    if growth > GROWTH {
        broken.push(format!("memory grew by {growth:.1} MB"));
    }
    for promise in &broken {
        println!("BROKEN: {promise}");
    }
    if broken.is_empty() {
        println!("kept");
    }
    broken.is_empty()
}

/// Says how the probes did; gives what was broken.
fn livez(probed: &Probed) -> Vec<String> {
    let took = probed.probes.iter().map(|probe| probe.took).max();
    let late = probed.probes.iter().filter(|probe| probe.took > LIVE);
    let late: Vec<&Probe> = late.collect();
    println!(
        "/livez: {} probes, the longest {} ms; {} above 100 ms",
        probed.probes.len(),
        milliseconds(took.unwrap_or_default()),
        late.len()
    );
    let mut broken = Vec::new();
    for probe in &late {
        let machine = probed.machine(probe);
        let own = probe.took.saturating_sub(machine);
        let text = format!(
            "a probe took {} ms, {} of them for want of a processor",
            milliseconds(probe.took),
            milliseconds(machine)
        );
        println!("    {text}");
        if own > LIVE {
            broken.push(format!("/livez: {text}"));
        }
    }
    let failed = probed.probes.iter().filter_map(|p| p.failure.as_deref());
    broken.extend(failed.map(|failure| format!("/livez: {failure}")));
    broken
}

fn milliseconds(duration: Duration) -> String {
    format!("{:.1}", duration.as_secs_f64() * 1e3)
}
