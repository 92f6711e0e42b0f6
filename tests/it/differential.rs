//! Another build of the program beside this one: both get the same of every corpus there is, and
//! their answers, and what the instance saw, are compared.
//!
//! ```sh
//! COLLIBRA_AUTH_PROXY_OTHER=/path/of/the/other cargo test --test it differential -- --ignored --nocapture
//! ```
//!
//! A difference is a line like `answer 1: status: 400 -> 200`, the other build's before this one's.
//! Those that are meant are in [`EXPECTED`]; all others fail.

mod cases;
mod heard;
mod outcome;
mod responses;
mod scenes;
mod sides;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use outcome::Outcome;

/// What differs on purpose: the beginning of a difference, and why.
const EXPECTED: &[(&str, &str)] = &[];

/// How long a side may be silent until it is taken to wait for more: the first time, and where the
/// two sides were not of one mind. A busy machine makes a difference only in the first.
const SILENCES: [Duration; 3] = [
    Duration::from_millis(250),
    Duration::from_secs(1),
    Duration::from_secs(4),
];

/// How many examples of a difference are shown.
const EXAMPLES: usize = 3;

/// The build that is compared with this one.
fn other() -> PathBuf {
    let path = std::env::var_os("COLLIBRA_AUTH_PROXY_OTHER");
    path.expect("COLLIBRA_AUTH_PROXY_OTHER: the path of the other build")
        .into()
}

/// One thing that is tried on both builds.
struct Trial<'a> {
    name: String,
    /// Carries it out on the other build (0) or this one (1); silent for so long, a side waits.
    run: Box<dyn Fn(usize, Duration) -> Outcome + Sync + 'a>,
}

/// The differences found so far: each with how often and where.
#[derive(Default)]
struct Report {
    found: Mutex<BTreeMap<String, (usize, Vec<String>)>>,
    compared: AtomicUsize,
    /// Those that agreed once there was more time.
    settled: AtomicUsize,
}

impl Report {
    /// Tries all on both builds, so many at once.
    fn compare(&self, corpus: &str, at_once: usize, trials: &[Trial<'_>]) {
        let next = AtomicUsize::new(0);
        std::thread::scope(|scope| {
            for _ in 0..at_once {
                scope.spawn(|| {
                    while let Some(trial) = trials.get(next.fetch_add(1, Ordering::Relaxed)) {
                        self.try_on_both(corpus, trial);
                    }
                });
            }
        });
        println!("{corpus}: {} compared", trials.len());
    }

    fn try_on_both(&self, corpus: &str, trial: &Trial<'_>) {
        self.compared.fetch_add(1, Ordering::Relaxed);
        let mut differences = Vec::new();
        for (nth, silence) in SILENCES.into_iter().enumerate() {
            let [other, this] = [0, 1].map(|side| (trial.run)(side, silence));
            let found = other.differences(&this);
            if found.is_empty() {
                self.settled.fetch_add(nth.min(1), Ordering::Relaxed);
                return;
            }
            // the same twice is no chance
            if found == differences {
                break;
            }
            differences = found;
        }
        for difference in differences {
            self.note(difference, format!("{corpus}: {:?}", trial.name));
        }
    }

    fn note(&self, difference: String, place: String) {
        let mut found = self.found.lock().unwrap();
        let (times, places) = found.entry(difference).or_default();
        *times += 1;
        places.push(place);
    }

    /// Prints all, and gives those that nobody expects.
    fn unexpected(&self) -> Vec<String> {
        let found = self.found.lock().unwrap();
        let mut unexpected = Vec::new();
        for (difference, (times, places)) in found.iter() {
            let reason = EXPECTED
                .iter()
                .find(|(begin, _)| difference.starts_with(begin));
            println!("{difference}\n    {times} times");
            match reason {
                Some((_, why)) => println!("    expected: {why}"),
                None => unexpected.push(format!("{difference} ({times} times)")),
            }
            for place in places.iter().take(EXAMPLES) {
                println!("    {place}");
            }
        }
        unexpected
    }
}

#[test]
#[ignore = "compares with another build of the program: COLLIBRA_AUTH_PROXY_OTHER"]
fn both_builds_do_the_same() {
    let other: &Path = &other();
    let report = Report::default();
    scenes::all(other, &report);
    let unexpected = report.unexpected();
    let of = |count: &AtomicUsize| count.load(Ordering::Relaxed);
    println!(
        "{} compared, {} of them agreed once there was more time",
        of(&report.compared),
        of(&report.settled)
    );
    assert!(
        unexpected.is_empty(),
        "{} differences that nobody expects:\n{}",
        unexpected.len(),
        unexpected.join("\n")
    );
}
