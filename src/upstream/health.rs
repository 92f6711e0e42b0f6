//! The health of an instance's API: calls of the last five minutes, and outages.
//!
//! A successful call costs one atomic addition. Failed calls and [`ApiHealth::report`], called
//! every five seconds, do the rest. The log gets a warning at the first failure, one per minute
//! with a count, and a line when the outage is over.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tracing::{info, warn};

use crate::clock::Instant;
use crate::outgoing::dial::Kind;
use crate::telemetry::Label;

/// The window of a summary, and the shortest time between two readings of the counters.
const WINDOW: Duration = Duration::from_secs(300);
const BETWEEN_READINGS: Duration = Duration::from_secs(5);

/// The interval of warnings during an outage.
const WARN_EVERY: Duration = Duration::from_secs(60);

/// How long after its last failure an outage ends, if calls have succeeded since.
const CALM: Duration = Duration::from_secs(5);

/// [`ApiHealth::recovered`] without an outage.
const NO_OUTAGE: u64 = u64::MAX;

/// The health of one instance's API.
#[derive(Debug)]
pub struct ApiHealth {
    instance: Arc<str>,
    /// The calls since the start that got a response.
    answered: AtomicU64,
    /// The first success after the last failure of an outage, in microseconds since the clock's
    /// origin; 0: none yet.
    recovered: AtomicU64,
    trouble: Mutex<Trouble>,
}

/// The failures, under a lock that no successful call takes.
#[derive(Debug, Default)]
struct Trouble {
    /// The calls since the start that failed.
    failed: u64,
    /// Earlier values of the counters, oldest first. The first one is from before the window, once
    /// the process is older than that.
    readings: VecDeque<Reading>,
    outage: Option<Outage>,
    last: Option<LastError>,
}

/// The values of the counters at a moment.
#[derive(Clone, Copy, Debug)]
struct Reading {
    at: Instant,
    answered: u64,
    failed: u64,
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

impl ApiHealth {
    /// Returns the health of `instance`, its name in the configuration, before any call.
    #[must_use]
    pub fn new(instance: Arc<str>) -> ApiHealth {
        ApiHealth {
            instance,
            answered: AtomicU64::new(0),
            recovered: AtomicU64::new(NO_OUTAGE),
            trouble: Mutex::default(),
        }
    }

    /// Records a call whose response was complete at `now`.
    pub fn answered(&self, now: Instant) {
        self.answered.fetch_add(1, Ordering::Relaxed);
        if self.recovered.load(Ordering::Relaxed) == 0 {
            // only the first one counts: the outage lasted until then
            self.set_recovered(0, micros(now));
        }
    }

    /// Records a call that failed at `now`, with its error.
    pub fn failed(&self, now: Instant, kind: Kind, message: &str) {
        self.say(self.note(now, kind, message), kind, message);
    }

    /// Reads the counters, and logs an outage that continues or is over. Call it every five
    /// seconds.
    pub fn report(&self, now: Instant) {
        let mut trouble = self.lock();
        self.read_counters(&mut trouble, now);
        let line = self.due(&mut trouble, now);
        let last = trouble.last.clone();
        drop(trouble);
        if let Some(last) = last {
            self.say(line, last.kind, &last.message);
        }
    }

    fn read_counters(&self, trouble: &mut Trouble, now: Instant) {
        let (failed, readings) = (trouble.failed, &mut trouble.readings);
        if (readings.back()).is_none_or(|last| now.since(last.at) >= BETWEEN_READINGS) {
            readings.push_back(Reading {
                at: now,
                answered: self.answered.load(Ordering::Relaxed),
                failed,
            });
        }
        while (readings.get(1)).is_some_and(|second| now.since(second.at) >= WINDOW) {
            readings.pop_front();
        }
    }

    /// Records a failure; returns an event for the log.
    fn note(&self, now: Instant, kind: Kind, message: &str) -> Option<Line> {
        let mut trouble = self.lock();
        trouble.failed += 1;
        trouble.last = Some(LastError {
            kind,
            message: message.to_owned(),
            at: now,
        });
        self.recovered.store(0, Ordering::Relaxed);
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
        Some(Line::Begins)
    }

    /// Returns the event for the log at `now` during an outage.
    fn due(&self, trouble: &mut Trouble, now: Instant) -> Option<Line> {
        let Trouble { outage, last, .. } = trouble;
        let (going_on, last) = (outage.as_mut()?, last.as_ref()?);
        let recovered = self.recovered.load(Ordering::Relaxed);
        if recovered <= micros(last.at) {
            // counted late; kept, it would keep out the answer that ends the outage
            self.set_recovered(recovered, 0);
        } else if now.since(last.at) >= CALM {
            let seconds = recovered
                .saturating_sub(micros(going_on.since))
                .div_ceil(1_000_000);
            let over = Line::IsOver {
                failed: going_on.failed,
                lasted: Duration::from_secs(seconds),
            };
            *outage = None;
            self.recovered.store(NO_OUTAGE, Ordering::Relaxed);
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
        let trouble = self.lock();
        let old = (trouble.readings.iter()).rfind(|reading| now.since(reading.at) >= WINDOW);
        let (answered, failed) = old.map_or((0, 0), |old| (old.answered, old.failed));
        Summary {
            answered: self.answered.load(Ordering::Relaxed) - answered,
            failed: trouble.failed - failed,
            since: trouble.outage.as_ref().map(|outage| outage.since),
            last: trouble.last.clone(),
        }
    }

    /// Sets `recovered`, unless it is not `current` any more.
    fn set_recovered(&self, current: u64, to: u64) {
        let relaxed = Ordering::Relaxed;
        let _ = self
            .recovered
            .compare_exchange(current, to, relaxed, relaxed);
    }

    fn lock(&self) -> MutexGuard<'_, Trouble> {
        // a panic elsewhere leaves nothing inconsistent here
        self.trouble.lock().unwrap_or_else(PoisonError::into_inner)
    }
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
            health.report(at(second));
            health.answered(at(second));
            if second % 10 == 0 {
                health.failed(at(second), Kind::Connect, "refused");
            }
        }
        let summary = health.summary(at(600));
        assert!((295..=300).contains(&summary.answered), "{summary:?}");
        assert!((29..=30).contains(&summary.failed), "{summary:?}");
        assert!(
            health.lock().readings.len() < 64,
            "the old ones are dropped"
        );
        health.report(at(600));
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
}
