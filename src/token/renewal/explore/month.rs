//! Thirty days of the small world with random steps and a fault every ten minutes or so. The
//! faults: partial outages for all or one replica, slow and lost answers, records that are wiped or
//! rolled back, processes that die without leaving the fleet, clocks that step.

use std::sync::atomic::{AtomicUsize, Ordering};

use super::trace;
use super::world::World;

const MONTH: u64 = 30 * 24 * 3_600_000;
/// In milliseconds, on average.
const BETWEEN_FAULTS: f64 = 600_000.0;
/// The least number of steps in a failure message.
const TRACED: usize = 400;

/// Returns how many tokens the month took, or the steps to the first broken promise.
fn a_month(seed: u64) -> Result<u64, String> {
    let mut generator = fastrand::Rng::with_seed(seed);
    let mut random = move || generator.f64();
    let mut world = World::new(0);
    let (mut start, mut steps) = (world.clone(), Vec::new());
    let mut later = world.clone();
    let mut next_fault = BETWEEN_FAULTS;
    while world.now() < MONTH {
        let choice = if world.now() as f64 >= next_fault {
            next_fault = world.now() as f64 + 2.0 * BETWEEN_FAULTS * random();
            world.misfortune(&mut random)
        } else {
            let choices = world.choices();
            choices[(random() * choices.len() as f64) as usize]
        };
        if steps.len() == TRACED {
            later = world.clone();
        } else if steps.len() == 2 * TRACED {
            start = later.clone();
            later = world.clone();
            steps.drain(..TRACED);
        }
        steps.push(choice);
        world.take(&choice);
        if let Some(problem) = world.verdict() {
            return Err(format!("seed {seed}: {problem}\n{}", trace(&start, &steps)));
        }
    }
    Ok(world.issued())
}

/// `SEEDS=400 cargo test --release --lib month -- --nocapture` takes about a minute; `FIRST=400`
/// begins with seed 400.
#[test]
fn a_month_of_store_faults_breaks_no_promise() {
    let number = |name: &str| std::env::var(name).map(|text| text.parse::<u64>().unwrap());
    let first = number("FIRST").unwrap_or(0);
    let seeds: Vec<u64> = match number("SEEDS") {
        Ok(many) => (first..first + many).collect(),
        // the last two once exceeded the pool
        Err(_) => vec![0, 1, 56, 253],
    };
    let next = AtomicUsize::new(0);
    let run = || {
        let one = || seeds.get(next.fetch_add(1, Ordering::Relaxed));
        let runs = std::iter::from_fn(one).map(|seed| a_month(*seed));
        runs.collect::<Vec<_>>()
    };
    let months: Vec<Result<u64, String>> = std::thread::scope(|scope| {
        let threads = [scope.spawn(run), scope.spawn(run)];
        threads
            .into_iter()
            .flat_map(|t| t.join().unwrap())
            .collect()
    });
    let broken: Vec<_> = months.iter().filter_map(|m| m.as_ref().err()).collect();
    let first: String = broken.iter().take(1).copied().cloned().collect();
    assert!(
        broken.is_empty(),
        "{} of {}; {first}",
        broken.len(),
        seeds.len()
    );
    let issued: u64 = months.iter().flatten().sum();
    let an_hour = issued as f64 / (seeds.len() * 30 * 24) as f64;
    println!("{} months: {an_hour:.1} tokens an hour", seeds.len());
    assert!(an_hour < 32.0, "{an_hour}");
}
