//! Thirty days of the small world with random steps and a fault every ten minutes or so. The
//! faults: partial outages for all or one replica, slow and lost answers, records that are wiped or
//! rolled back, processes that die without leaving the fleet, clocks that step.

use super::world::{Choice, World};

const MONTH: u64 = 30 * 24 * 3_600_000;
/// In milliseconds, on average.
const BETWEEN_FAULTS: f64 = 600_000.0;

fn a_month(seed: u64) -> u64 {
    let mut generator = fastrand::Rng::with_seed(seed);
    let mut random = move || generator.f64();
    let mut world = World::new(0);
    let (mut last, mut faults) = (Vec::new(), Vec::new());
    let mut next_fault = BETWEEN_FAULTS;
    while world.now() < MONTH {
        let choice = if world.now() as f64 >= next_fault {
            next_fault = world.now() as f64 + 2.0 * BETWEEN_FAULTS * random();
            world.allow();
            let fault = world.misfortune(&mut random);
            faults.push((world.now(), fault));
            fault
        } else {
            let choices = world.choices();
            choices[(random() * choices.len() as f64) as usize]
        };
        if choice != Choice::Pass {
            last.push((world.now(), choice));
        }
        last.drain(..last.len().saturating_sub(200));
        faults.drain(..faults.len().saturating_sub(8));
        world.take(&choice);
        world.forbid();
        if let Some(problem) = world.verdict() {
            panic!("seed {seed}: {problem}\n{faults:?}\n{last:#?}\n{world:#?}");
        }
    }
    world.issued()
}

/// `SEEDS=400 cargo test --release --lib month -- --nocapture` takes about a minute.
#[test]
fn a_month_of_store_faults_breaks_no_promise() {
    let seeds: u64 = std::env::var("SEEDS").map_or(4, |seeds| seeds.parse().unwrap());
    let next = std::sync::atomic::AtomicU64::new(0);
    let issued = std::sync::atomic::AtomicU64::new(0);
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
                    if seed >= seeds {
                        return;
                    }
                    issued.fetch_add(a_month(seed), std::sync::atomic::Ordering::Relaxed);
                }
            });
        }
    });
    let an_hour = issued.into_inner() as f64 / (seeds * 30 * 24) as f64;
    println!("{seeds} months: {an_hour:.1} tokens an hour");
    assert!(an_hour < 32.0, "{an_hour}");
}
