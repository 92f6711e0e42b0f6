//! Differential test: another build of the program and this one get the same input from every
//! corpus. Their responses and the requests that reach the instance are compared.
//!
//! ```sh
//! COLLIBRA_AUTH_PROXY_OTHER=/path/of/the/other \
//!     cargo test --test it differential -- --ignored --nocapture
//! ```
//!
//! A difference is a line like `summary: 400 bad-request, closed, 0 seen -> 200, kept, 1 seen`, the
//! other build first. A difference that is not in [`EXPECTED`] fails the test.

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

/// Intended differences: the start of the line, and the reason.
const EXPECTED: &[(&str, &str)] = &[];

/// How long a proxy may be silent before it counts as waiting: in the first attempt, and in the
/// ones after a difference, so that a busy machine causes none.
const SILENCES: [Duration; 3] = [
    Duration::from_millis(250),
    Duration::from_secs(1),
    Duration::from_secs(4),
];

/// Examples printed for each difference.
const EXAMPLES: usize = 3;

/// The path of the other build.
fn other() -> PathBuf {
    let path = std::env::var_os("COLLIBRA_AUTH_PROXY_OTHER");
    path.expect("COLLIBRA_AUTH_PROXY_OTHER: the path of the other build")
        .into()
}

/// One input for both builds.
struct Trial<'a> {
    name: String,
    /// Runs it on the other build (0) or this one (1), with this silence.
    run: Box<dyn Fn(usize, Duration) -> Outcome + Sync + 'a>,
}

/// Each difference with its count and the trials that showed it.
#[derive(Default)]
struct Report {
    found: Mutex<BTreeMap<String, (usize, Vec<String>)>>,
    compared: AtomicUsize,
    /// Trials that differed in the first attempt only.
    settled: AtomicUsize,
}

impl Report {
    /// Runs all trials on both builds, `at_once` in parallel.
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
            // twice the same is not timing
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

    /// Prints every difference; returns the unexpected ones.
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
        "{} compared, {} of them differed in the first attempt only",
        of(&report.compared),
        of(&report.settled)
    );
    assert!(
        unexpected.is_empty(),
        "{} unexpected differences:\n{}",
        unexpected.len(),
        unexpected.join("\n")
    );
}
