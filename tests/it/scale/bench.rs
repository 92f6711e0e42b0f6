//! Simulates a day of fleets of 1 to 10,000 proxies in virtual time, with and without a shared
//! store, and a day with every fault for the largest one.
//!
//! Checks: a fleet with a shared store is never refused a token because of the pool, and without
//! faults it is never without one. `cargo bench --bench scale` prints the tables of
//! `docs/fleet.md`; `-- --plot docs/fleet.svg` draws its figure; `-- --largest 1000` is faster. The
//! exit status is 1 if a check fails.

#![expect(clippy::unwrap_used, clippy::print_stdout, reason = "a benchmark")]

mod plot;
mod virtual_fleet;

use std::process::ExitCode;
use std::time::Instant;

use plot::Point;
use virtual_fleet::{HOURS, Hour, Plan, a_bad_day, run};

const SIZES: [usize; 9] = [1, 3, 10, 30, 100, 300, 1_000, 3_000, 10_000];

fn main() -> ExitCode {
    let largest = argument("--largest").map_or(10_000, |typed| typed.parse().unwrap());
    let sizes: Vec<usize> = SIZES.into_iter().filter(|size| *size <= largest).collect();
    let mut kept = true;

    let (with, without) = std::thread::scope(|threads| {
        let with = threads.spawn(|| days(&sizes, true));
        let without = days(&sizes, false);
        (with.join().unwrap(), without)
    });
    println!("a day on which nothing happens\n");
    println!("|  | with a shared store | | | | | | without | | |");
    println!("|---|---|---|---|---|---|---|---|---|---|");
    println!(
        "| proxies | tokens/h | 429/h | without a token | store: operations/s | in the worst second | kB/s | tokens/h | 429/h | without a token |"
    );
    for (size, (with, without)) in sizes.iter().zip(with.iter().zip(&without)) {
        println!(
            "| {size} | {} | {} | {:.1} | {} |",
            outcome(with),
            store(with),
            with.store.bytes as f64 / 86_400e3,
            outcome(without),
        );
        kept &= with.asked.refused == 0 && with.without_token == 0;
    }

    let proxies = *sizes.last().unwrap();
    let begun = now();
    let day = run(&plan(proxies, true, a_bad_day()));
    let took = begun.elapsed();
    println!("\na bad day of {proxies} proxies that share, in {took:.1?}\n");
    println!(
        "| hour | what happens | requests | tokens | 429 | without a token | store: operations/s | in the worst second | its processor time |"
    );
    println!("|---|---|---|---|---|---|---|---|---|");
    for (nth, (hour, what)) in day.iter().zip(HOURS).enumerate() {
        println!(
            "| {nth} | {what} | {} | {} | {} | {:.2} % | {:.0} | {} | {:.2?} |",
            hour.asked.requests,
            hour.asked.tokens,
            hour.asked.refused,
            percent(hour),
            hour.store.operations as f64 / 3_600.0,
            hour.worst.operations,
            hour.worst.processor,
        );
        kept &= hour.asked.refused == 0;
    }

    if let Some(path) = argument("--plot") {
        let points = |days: &[Hour]| sizes.iter().zip(days).map(point).collect::<Vec<_>>();
        std::fs::write(path, plot::svg(&points(&with), &points(&without))).unwrap();
    }
    println!("\n{}", if kept { "kept" } else { "BROKEN" });
    ExitCode::from(u8::from(!kept))
}

/// A day without faults for each size.
fn days(sizes: &[usize], sharing: bool) -> Vec<Hour> {
    let of_size = |size: &usize| {
        let begun = now();
        let day = sum(&run(&plan(*size, sharing, Vec::new())));
        let how = if sharing { "sharing" } else { "alone" };
        println!("{size} proxies, {how}: {:.1?}", begun.elapsed());
        day
    };
    sizes.iter().map(of_size).collect()
}

fn plan(proxies: usize, sharing: bool, events: Vec<virtual_fleet::Event>) -> Plan {
    Plan {
        proxies,
        sharing,
        hours: 24,
        events,
        seed: 1,
    }
}

fn sum(hours: &[Hour]) -> Hour {
    let mut day = Hour::default();
    for hour in hours {
        day.asked.requests += hour.asked.requests;
        day.asked.tokens += hour.asked.tokens;
        day.asked.refused += hour.asked.refused;
        day.requests += hour.requests;
        day.without_token += hour.without_token;
        day.store.operations += hour.store.operations;
        day.store.bytes += hour.store.bytes;
        if hour.worst.operations > day.worst.operations {
            day.worst = hour.worst;
        }
    }
    day
}

fn percent(hour: &Hour) -> f64 {
    100.0 * hour.without_token as f64 / hour.requests as f64
}

fn outcome(day: &Hour) -> String {
    format!(
        "{:.1} | {:.0} | {:.1} %",
        day.asked.tokens as f64 / 24.0,
        day.asked.refused as f64 / 24.0,
        percent(day)
    )
}

fn store(day: &Hour) -> String {
    let a_second = day.store.operations as f64 / 86_400.0;
    format!("{a_second:.1} | {}", day.worst.operations)
}

fn point((size, day): (&usize, &Hour)) -> Point {
    Point {
        proxies: *size as f64,
        tokens: day.asked.tokens as f64 / 24.0,
        refused: day.asked.refused as f64 / 24.0,
        without_token: percent(day),
    }
}

/// The value of the argument `name`.
fn argument(name: &str) -> Option<String> {
    std::env::args().skip_while(|word| word != name).nth(1)
}

#[expect(
    clippy::disallowed_methods,
    reason = "measures how long the simulation takes"
)]
fn now() -> Instant {
    Instant::now()
}
