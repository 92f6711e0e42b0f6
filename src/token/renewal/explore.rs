//! Explores every course that a small fleet can take, step by step, with the real state machine.
//! The fleet has three replicas, two of which may continue without the store. Store and issuer are
//! modelled.
//!
//! A state consists of the machines, their actions in progress, and the records of store and
//! issuer. All times are relative to the present, and the replicas have no order. From each state
//! every possible step is taken: an action of a replica ends, with success or not, or time passes
//! until the next event. Faults come from a small allowance, in any state.
//!
//! [`World::verdict`] checks the invariants in every state. `old_faults.rs` brings faults of
//! earlier designs back and has each found. `cargo test --release --lib explore -- --ignored
//! --nocapture` explores up to three faults, and prints the number of states.

mod month;
mod old_faults;
mod world;

use std::collections::HashSet;
use std::hash::{DefaultHasher, Hash, Hasher};

use world::{Choice, World};

/// The result of an exploration.
struct Explored {
    states: usize,
    deepest: usize,
    /// Every reachable state was visited.
    is_closed: bool,
    /// The first violated invariant, and the steps to it.
    violation: Option<String>,
}

/// Takes every step from `start`, depth first, up to `most` states or the first violation.
fn explore(start: World, most: usize) -> Explored {
    let mut seen = HashSet::new();
    seen.insert(hash(&start));
    let mut explored = Explored {
        states: 1,
        deepest: 0,
        is_closed: false,
        violation: None,
    };
    let mut path: Vec<(World, Vec<Choice>)> = vec![(start.clone(), start.choices())];
    let mut steps: Vec<Choice> = Vec::new();
    while let Some((world, choices)) = path.last_mut() {
        let Some(choice) = choices.pop() else {
            path.pop();
            steps.pop();
            continue;
        };
        if explored.states >= most {
            return explored;
        }
        let mut next = world.clone();
        next.take(&choice);
        steps.push(choice);
        if let Some(problem) = next.verdict() {
            explored.violation = Some(format!("{problem}\n{}", trace(&path[0].0, &steps)));
            return explored;
        }
        if seen.insert(hash(&next)) {
            explored.states += 1;
            explored.deepest = explored.deepest.max(steps.len());
            let choices = next.choices();
            path.push((next, choices));
        } else {
            steps.pop();
        }
    }
    explored.is_closed = true;
    explored
}

/// The steps for a failure message: each with its time, all faults, and the last steps in full.
fn trace(start: &World, steps: &[Choice]) -> String {
    const LAST: usize = 40;
    let mut world = start.clone();
    let mut text = String::new();
    let first = steps.len().saturating_sub(LAST);
    for (nth, choice) in steps.iter().enumerate() {
        let before = world.now();
        let what = world.describe(choice);
        world.take(choice);
        let is_well = choice.is_well();
        if *choice != Choice::Pass && (nth >= first || !is_well) {
            text += &format!("{:>8.1} s  {what}\n", before as f64 / 1000.0);
        }
    }
    text
}

fn hash(world: &World) -> u64 {
    let mut hasher = DefaultHasher::new();
    world.digest().hash(&mut hasher);
    hasher.finish()
}

fn explored(faults: u8, most: usize) -> Explored {
    let explored = explore(World::new(faults), most);
    println!("{faults} faults: {}", explored.figures());
    if let Some(violation) = &explored.violation {
        panic!("{violation}");
    }
    explored
}

impl Explored {
    fn figures(&self) -> String {
        let (states, deepest) = (self.states, self.deepest);
        let closed = self.is_closed;
        format!("{states} states, {deepest} steps deep, closed: {closed}")
    }
}

#[test]
fn whatever_single_fault_comes_whenever_the_fleet_keeps_its_promises() {
    assert!(explored(0, 1_000_000).is_closed);
    explored(1, 60_000);
}

/// Takes some minutes, optimized: `cargo test --release --lib explore -- --ignored --nocapture`.
#[test]
#[ignore = "10 million states"]
fn nor_do_two_or_three_faults_break_them() {
    let most = std::env::var("STATES").map_or(10_000_000, |most| most.parse().unwrap());
    for faults in 1..=3 {
        explored(faults, most);
    }
}
