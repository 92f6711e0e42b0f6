//! A bad day around the proxy, in one run: 200 calls a second go on while the log is not read, DNS
//! is silent, an address swallows connections, the API and then Redis are down, the secret is torn,
//! the configuration broken, the admin address full of stuck callers, and descriptors are short.
//!
//! Promises: a call fails only if it overlaps the outage of the API or the second after it.
//! `/livez` answers within 100 ms; what the machine itself takes is measured beside it, printed,
//! and counts only where a probe took longer. Memory stays flat. At each step the status page's
//! data, `status` and `/readyz?verbose` say what is wrong, and afterwards that all is well.
//!
//! `cargo bench --bench bad_day` takes 30 minutes, `-- --minutes 3` three, the fewest; the exit
//! status is 1 if a promise is broken. Without root, DNS is left out, and Redis without
//! `redis-server`.

#![expect(clippy::unwrap_used, clippy::print_stdout, reason = "a benchmark")]

mod crowd;
mod day;
mod probe;
mod proxy;
mod relay;
mod report;
mod rig;

use std::process::ExitCode;
use std::time::Duration;

use kit::load::{Load, Pace};
use kit::wait::now;
use probe::Probing;
use rig::Rig;

/// 200 calls a second.
const PACE: Pace = Pace {
    callers: 50,
    every: Duration::from_millis(250),
    fresh: 10,
    catches_up: true,
    patience: Duration::from_secs(10),
};

/// The least number of minutes: a changed file takes seconds to be reported.
const SHORTEST: u64 = 3;

#[tokio::main]
async fn main() -> ExitCode {
    let minutes = kit::number("--minutes", 30);
    if minutes < SHORTEST {
        println!("--minutes takes {SHORTEST} or more");
        return ExitCode::from(2);
    }
    let mut rig = Rig::start(minutes).await;
    println!("200 calls a second for {minutes} minutes");
    let load = Load::start(&[rig.proxy.address], PACE);
    let probing = Probing::start(rig.proxy.admin, rig.proxy.id());
    let day = day::live(&mut rig, Duration::from_secs(minutes * 60)).await;
    let end = now();
    let calls = load.stop().await;
    let probed = probing.end();
    println!("warnings and errors in the log:");
    for (message, count) in rig.proxy.log.warnings() {
        println!("{count:>6} {message}");
    }
    let is_kept = report::report(day, &calls, &probed, end);
    ExitCode::from(u8::from(!is_kept))
}
