//! Keeps repeated failures of one client's token requests from filling the log: the first of each
//! kind is logged at once, then one line a minute with a count, and one line when they are over.

use std::time::Duration;

use crate::clock::Instant;
use crate::token::ports::Outcome;

/// The shortest time between two lines about one kind of failure.
const PAUSE: Duration = Duration::from_secs(60);

/// The failures since the last token.
#[derive(Debug, Default)]
pub(super) struct Repeats {
    /// When the first one happened.
    since: Option<Instant>,
    failures: u32,
    kinds: Vec<Kind>,
}

/// One kind of failure.
#[derive(Debug)]
struct Kind {
    outcome: Outcome,
    logged: Instant,
    /// How many have happened since then.
    unlogged: u32,
}

impl Repeats {
    /// Counts a failed request. Returns how many failures of this kind the line covers that must be
    /// logged now; `None` if none is.
    pub(super) fn failed(&mut self, outcome: Outcome, now: Instant) -> Option<u32> {
        self.since.get_or_insert(now);
        self.failures += 1;
        let known = self.kinds.iter_mut().find(|kind| kind.outcome == outcome);
        let Some(kind) = known else {
            self.kinds.push(Kind {
                outcome,
                logged: now,
                unlogged: 0,
            });
            return Some(1);
        };
        kind.unlogged += 1;
        if now.since(kind.logged) < PAUSE {
            return None;
        }
        kind.logged = now;
        Some(std::mem::take(&mut kind.unlogged))
    }

    /// Ends the outage, if there is one, because a token arrived. Returns how many requests failed
    /// in a row, and how long after the first failure the token came.
    pub(super) fn over(&mut self, now: Instant) -> Option<(u32, Duration)> {
        let ended = std::mem::take(self);
        ended.since.map(|since| (ended.failures, now.since(since)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Instant {
        Instant::ORIGIN + Duration::from_secs(seconds)
    }

    #[test]
    fn an_hour_of_failures_is_one_line_a_minute_and_none_is_lost() {
        let mut repeats = Repeats::default();
        let mut lines = Vec::new();
        for second in (0..=3_600).step_by(4) {
            lines.extend(repeats.failed(Outcome::Timeout, at(second)));
        }
        assert_eq!(lines[0], 1);
        assert_eq!(lines.len(), 61);
        assert_eq!(lines.iter().sum::<u32>(), 901);
        let over = Some((901, Duration::from_secs(3_610)));
        assert_eq!(repeats.over(at(3_610)), over);
        assert_eq!(repeats.over(at(3_611)), None);
    }

    #[test]
    fn another_kind_of_failure_is_logged_at_once_and_none_alternates_past_the_limit() {
        let mut repeats = Repeats::default();
        let kinds = [Outcome::Connect, Outcome::InvalidClient];
        let mut failed = |second: u64| {
            let outcome = kinds[usize::try_from(second).unwrap() % 2];
            repeats.failed(outcome, at(second))
        };
        assert_eq!((failed(0), failed(1)), (Some(1), Some(1)));
        assert!((2..60).all(|second| failed(second).is_none()));
        assert_eq!((failed(60), failed(61)), (Some(30), Some(30)));
    }
}
