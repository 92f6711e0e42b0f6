//! The health of an instance's API: calls of the last five minutes, and outages.
//!
//! A successful call costs one atomic addition. Failed calls and [`ApiHealth::report`], called
//! every few seconds, do the rest. The log gets a warning at the first failure, one per minute with
//! a count, and a line when the outage is over.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tracing::{info, warn};

use crate::clock::Instant;
use crate::outgoing::dial::Kind;
use crate::telemetry::Label;

/// The number and the length of the periods: five minutes in all.
const PERIODS: usize = 60;
const PERIOD: Duration = Duration::from_secs(5);

/// The interval of warnings during an outage.
const WARN_EVERY: Duration = Duration::from_secs(60);

/// How long after its last failure an outage ends, if calls have succeeded since.
const CALM: Duration = Duration::from_secs(5);

/// The health of one instance's API.
#[derive(Debug)]
pub struct ApiHealth {
    instance: Arc<str>,
    /// A period's number, successful and failed calls, packed by [`Period`]. The number determines
    /// the index.
    periods: [AtomicU64; PERIODS],
    /// Whether there is an outage.
    is_out: AtomicBool,
    /// The first success after the last failure of an outage, in microseconds since the clock's
    /// origin; 0: none.
    answered: AtomicU64,
    trouble: Mutex<Trouble>,
}

/// The failures, under a lock that no successful call takes.
#[derive(Debug, Default)]
struct Trouble {
    outage: Option<Outage>,
    last: Option<LastError>,
}

#[derive(Debug)]
struct Outage {
    since: Instant,
    failed: u64,
    /// When the last warning was logged, and how many calls failed since.
    warned: Instant,
    unsaid: u64,
}

/// An event of an outage for the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Line {
    /// The first call failed.
    Begins,
    /// This many calls failed since the last line.
    GoesOn { failed: u64 },
    /// The outage is over: how many calls failed in all, and how long it lasted.
    IsOver { failed: u64, lasted: Duration },
}

/// The last error.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LastError {
    /// What failed.
    pub kind: Kind,
    /// The message: what failed, on what, why, and what to do.
    pub message: String,
    /// When it failed.
    pub at: Instant,
}

/// The calls of the last five minutes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Summary {
    /// Calls that got a response, of any status.
    pub answered: u64,
    /// Calls that failed.
    pub failed: u64,
    /// When the current outage began, if there is one.
    pub since: Option<Instant>,
    /// The last error since the start.
    pub last: Option<LastError>,
}

/// The calls of one period. Packed into 64 bits: 24 for its number, which repeats after two years,
/// and 20 for each count, which stops at a million.
#[derive(Clone, Copy)]
struct Period {
    number: u64,
    answered: u64,
    failed: u64,
}

const NUMBER_MASK: u64 = (1 << 24) - 1;
const COUNT_MASK: u64 = (1 << 20) - 1;

impl Period {
    fn unpack(packed: u64) -> Period {
        Period {
            number: packed >> 40,
            answered: (packed >> 20) & COUNT_MASK,
            failed: packed & COUNT_MASK,
        }
    }

    fn pack(self) -> u64 {
        let count = |n: u64| n.min(COUNT_MASK);
        self.number << 40 | count(self.answered) << 20 | count(self.failed)
    }
}

impl ApiHealth {
    /// Returns the health of `instance`, its name in the configuration, before any call.
    #[must_use]
    pub fn new(instance: Arc<str>) -> ApiHealth {
        ApiHealth {
            instance,
            periods: std::array::from_fn(|_| AtomicU64::new(0)),
            is_out: AtomicBool::new(false),
            answered: AtomicU64::new(0),
            trouble: Mutex::default(),
        }
    }

    /// Records a call whose response was complete at `now`.
    pub fn answered(&self, now: Instant) {
        self.count(now, |period| period.answered += 1);
        if self.is_out.load(Ordering::Relaxed) {
            // only the first one counts: the outage lasted until then
            let first = micros(now);
            let _ = self
                .answered
                .compare_exchange(0, first, Ordering::Relaxed, Ordering::Relaxed);
        }
    }

    /// Records a call that failed at `now`, with its error.
    pub fn failed(&self, now: Instant, kind: Kind, message: &str) {
        self.say(self.note(now, kind, message), kind, message);
    }

    /// Logs an outage that continues or is over. Call it every few seconds.
    pub fn report(&self, now: Instant) {
        if !self.is_out.load(Ordering::Relaxed) {
            return;
        }
        let mut trouble = self.lock();
        let line = self.due(&mut trouble, now);
        let last = trouble.last.clone();
        drop(trouble);
        if let Some(last) = last {
            self.say(line, last.kind, &last.message);
        }
    }

    /// Records a failure; returns an event for the log.
    fn note(&self, now: Instant, kind: Kind, message: &str) -> Option<Line> {
        self.count(now, |period| period.failed += 1);
        let mut trouble = self.lock();
        trouble.last = Some(LastError {
            kind,
            message: message.to_owned(),
            at: now,
        });
        self.answered.store(0, Ordering::Relaxed);
        if let Some(outage) = &mut trouble.outage {
            outage.failed += 1;
            outage.unsaid += 1;
            return self.due(&mut trouble, now);
        }
        trouble.outage = Some(Outage {
            since: now,
            failed: 1,
            warned: now,
            unsaid: 0,
        });
        self.is_out.store(true, Ordering::Relaxed);
        Some(Line::Begins)
    }

    /// Returns the event for the log at `now` during an outage.
    fn due(&self, trouble: &mut Trouble, now: Instant) -> Option<Line> {
        let Trouble { outage, last } = trouble;
        let (going_on, last) = (outage.as_mut()?, last.as_ref()?);
        let answered = self.answered.load(Ordering::Relaxed);
        if answered != 0 && answered <= micros(last.at) {
            // counted late; kept, it would keep out the answer that ends the outage
            self.answered.store(0, Ordering::Relaxed);
        }
        if answered > micros(last.at) && now.since(last.at) >= CALM {
            let seconds = answered
                .saturating_sub(micros(going_on.since))
                .div_ceil(1_000_000);
            let over = Line::IsOver {
                failed: going_on.failed,
                lasted: Duration::from_secs(seconds),
            };
            *outage = None;
            self.is_out.store(false, Ordering::Relaxed);
            return Some(over);
        }
        let is_due = going_on.unsaid > 0 && now.since(going_on.warned) >= WARN_EVERY;
        is_due.then(|| {
            going_on.warned = now;
            Line::GoesOn {
                failed: std::mem::take(&mut going_on.unsaid),
            }
        })
    }

    fn say(&self, line: Option<Line>, kind: Kind, message: &str) {
        let (instance, kind) = (&*self.instance, kind.label());
        match line {
            None => {}
            Some(Line::Begins) => warn!(instance, kind, "calls of the API fail: {message}"),
            Some(Line::GoesOn { failed }) => {
                warn!(
                    instance,
                    kind, failed, "calls of the API still fail: {message}"
                );
            }
            Some(Line::IsOver { failed, lasted }) => {
                let lasted = humantime::format_duration(lasted);
                info!(
                    instance,
                    failed, "the API answers again, {lasted} after the first failure"
                );
            }
        }
    }

    /// Reports the calls up to `now`.
    #[must_use]
    pub fn summary(&self, now: Instant) -> Summary {
        let current = number(now);
        let recent = (0..PERIODS as u64).map(|ago| current.wrapping_sub(ago) & NUMBER_MASK);
        let recent: Vec<u64> = recent.collect();
        let periods = self.periods.iter();
        let periods = periods.map(|packed| Period::unpack(packed.load(Ordering::Relaxed)));
        let (mut answered, mut failed) = (0, 0);
        for period in periods.filter(|period| recent.contains(&period.number)) {
            answered += period.answered;
            failed += period.failed;
        }
        let trouble = self.lock();
        Summary {
            answered,
            failed,
            since: trouble.outage.as_ref().map(|outage| outage.since),
            last: trouble.last.clone(),
        }
    }

    fn count(&self, now: Instant, add: impl Fn(&mut Period)) {
        let number = number(now);
        let at = usize::try_from(seconds(now) / PERIOD.as_secs()).unwrap_or(0) % PERIODS;
        let slot = &self.periods[at];
        let mut seen = slot.load(Ordering::Relaxed);
        loop {
            let mut period = Period::unpack(seen);
            if period.number != number {
                period = Period {
                    number,
                    answered: 0,
                    failed: 0,
                };
            }
            add(&mut period);
            let packed = period.pack();
            match slot.compare_exchange_weak(seen, packed, Ordering::Relaxed, Ordering::Relaxed) {
                Ok(_) => return,
                Err(other) => seen = other,
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, Trouble> {
        // a panic elsewhere leaves nothing inconsistent here
        self.trouble.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn seconds(at: Instant) -> u64 {
    at.since(Instant::ORIGIN).as_secs()
}

fn number(now: Instant) -> u64 {
    (seconds(now) / PERIOD.as_secs()) & NUMBER_MASK
}

fn micros(at: Instant) -> u64 {
    u64::try_from(at.since(Instant::ORIGIN).as_micros()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const START: Duration = Duration::from_secs(1_000_003);

    fn at(second: u64) -> Instant {
        Instant::ORIGIN + START + Duration::from_secs(second)
    }

    fn health() -> ApiHealth {
        ApiHealth::new("acme".into())
    }

    #[test]
    fn calls_are_counted_for_five_minutes() {
        let health = health();
        for second in 0..600 {
            health.answered(at(second));
            if second % 10 == 0 {
                health.failed(at(second), Kind::Connect, "refused");
            }
        }
        let summary = health.summary(at(600));
        assert!((295..=300).contains(&summary.answered), "{summary:?}");
        assert!((29..=30).contains(&summary.failed), "{summary:?}");
        let later = health.summary(at(600 + 301));
        assert_eq!((later.answered, later.failed), (0, 0));
        assert_eq!(later.last.unwrap().at, at(590), "the last error stays");
    }

    #[test]
    fn an_outage_begins_with_a_failure_and_ends_after_a_calm_answer() {
        let health = health();
        health.answered(at(0));
        health.report(at(0));
        assert_eq!(health.summary(at(0)).since, None);
        health.failed(at(1), Kind::Reset, "reset");
        health.failed(at(30), Kind::Timeout, "late");
        health.report(at(50));
        let summary = health.summary(at(50));
        assert_eq!(summary.since, Some(at(1)), "silence is no recovery");
        assert_eq!(summary.last.unwrap().kind, Kind::Timeout);

        health.answered(at(51));
        health.failed(at(52), Kind::Timeout, "late");
        health.report(at(70));
        assert_eq!(health.summary(at(70)).since, Some(at(1)));

        // an answer that was counted after the failure that followed it is no recovery
        health.answered(at(51));
        health.report(at(53));
        health.answered(at(55));
        health.report(at(56));
        assert!(health.summary(at(56)).since.is_some(), "not calm yet");
        health.report(at(57));
        let summary = health.summary(at(57));
        assert_eq!(summary.since, None);
        assert_eq!(summary.last.unwrap().message, "late");
    }

    #[test]
    fn the_log_has_a_line_at_once_one_a_minute_and_one_at_the_end() {
        let health = health();
        let due = |second| health.due(&mut health.lock(), at(second));
        let mut lines = Vec::new();
        for second in 0..150 {
            let line = health.note(at(second), Kind::Connect, "refused");
            lines.extend(line.map(|line| (second, line)));
            assert_eq!(due(second), None);
        }
        lines.extend((150..170).filter_map(|second| {
            health.answered(at(second));
            Some((second, due(second)?))
        }));
        let over = Line::IsOver {
            failed: 150,
            lasted: Duration::from_secs(150),
        };
        assert_eq!(
            lines,
            [
                (0, Line::Begins),
                (60, Line::GoesOn { failed: 60 }),
                (120, Line::GoesOn { failed: 60 }),
                (154, over),
            ]
        );
        assert_eq!(
            health.note(at(500), Kind::Connect, "refused"),
            Some(Line::Begins)
        );
        // the last error is reported even without further calls
        health.note(at(501), Kind::Connect, "refused");
        assert_eq!(due(560), Some(Line::GoesOn { failed: 1 }));
        assert_eq!(due(700), None);
    }

    #[test]
    fn counts_that_are_full_stay_full() {
        let full = Period {
            number: 5,
            answered: COUNT_MASK + 1,
            failed: COUNT_MASK,
        };
        let unpacked = Period::unpack(full.pack());
        assert_eq!(unpacked.number, 5);
        assert_eq!(unpacked.answered, COUNT_MASK);
        assert_eq!(unpacked.failed, COUNT_MASK);
    }
}
