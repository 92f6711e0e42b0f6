//! The history, in memory: each client's traffic, latency, tokens and pool over the last 15 minutes
//! and the last day, and each app's traffic in the last minute.
//!
//! It is sampled every [`STEP`]. A client costs 13 KB, an app 300 bytes.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use serde::Serialize;

use crate::telemetry::{Durations, Totals, quantile};

/// The interval between two samples.
pub const STEP: Duration = Duration::from_secs(5);

/// The steps of the recent history: 15 minutes.
const RECENT: usize = 180;

/// The recent steps in one step of the day: 5 minutes.
const STEPS_OF_DAY: u32 = 60;

/// The steps of the day: 24 hours.
const DAY: usize = 288;

/// The steps over which the rates of the last minute are computed.
const MINUTE: usize = 12;

/// The history of all clients and apps.
#[derive(Debug, Default)]
pub(super) struct History {
    clients: BTreeMap<Arc<str>, Client>,
    apps: BTreeMap<Arc<str>, App>,
}

/// A client's counters at the time of a sample.
#[derive(Clone, Debug)]
pub(super) struct ClientSample {
    /// Its traffic since the start.
    pub(super) totals: Totals,
    /// How many tokens it received since the start.
    pub(super) tokens: u64,
    /// The tokens in its pool.
    pub(super) pool: f64,
}

#[derive(Debug)]
struct Client {
    before: ClientSample,
    recent: VecDeque<Point>,
    day: VecDeque<Point>,
    /// The incomplete step of the day.
    begun: Point,
    begun_durations: Durations,
    begun_steps: u32,
    /// The durations of the last five minutes, one row per step.
    durations: VecDeque<Durations>,
}

/// One step of a client's history.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Point {
    requests: u64,
    failed: u64,
    p50: Option<f64>,
    p95: Option<f64>,
    tokens: u64,
    pool: f64,
}

#[derive(Debug, Default)]
struct App {
    /// The requests answered so far at each recent sample, the latest last.
    answered: VecDeque<u64>,
    last_seen: Option<SystemTime>,
}

/// A client's history as shown: one list per value, oldest step first.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct SeriesReport {
    /// The length of a step.
    pub step_seconds: u64,
    /// The length of the last step, which may still be incomplete; 0 without steps.
    pub last_step_seconds: u64,
    /// Requests answered.
    pub requests: Vec<u64>,
    /// Requests that failed: a 5xx, or no response.
    pub failed: Vec<u64>,
    /// The median of the durations in milliseconds; null without requests.
    pub p50_milliseconds: Vec<Option<f64>>,
    /// The 95th percentile of the durations in milliseconds; null without requests.
    pub p95_milliseconds: Vec<Option<f64>>,
    /// Tokens received.
    pub tokens: Vec<u64>,
    /// The tokens in the pool at the end of the step.
    pub pool: Vec<f64>,
}

/// The response of `GET /api/history`.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct HistoryReport {
    /// The clients by name.
    pub clients: BTreeMap<String, ClientHistory>,
}

/// A client's history.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct ClientHistory {
    /// The last 15 minutes.
    pub recent: SeriesReport,
    /// The last day.
    pub day: SeriesReport,
}

/// A client's last five minutes.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Lately {
    pub(super) requests: u64,
    pub(super) failed: u64,
    pub(super) p50: Option<f64>,
    pub(super) p95: Option<f64>,
}

/// An app's last minute.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct AppLately {
    pub(super) requests_per_second: f64,
    pub(super) last_seen: Option<SystemTime>,
}

impl History {
    /// Adds a step to the history of `client`.
    pub(super) fn add_client(&mut self, client: &Arc<str>, sample: ClientSample) {
        match self.clients.get_mut(client) {
            Some(known) => known.add(sample),
            None => {
                self.clients.insert(Arc::clone(client), Client::new(sample));
            }
        }
    }

    /// Adds a step that ended `at` to the history of `app`.
    pub(super) fn add_app(&mut self, app: &Arc<str>, totals: &Totals, at: SystemTime) {
        let known = self.apps.entry(Arc::clone(app)).or_default();
        known.add(totals.answered, at);
    }

    /// Removes the clients and apps that the configuration no longer has.
    pub(super) fn keep(
        &mut self,
        has_client: impl Fn(&str) -> bool,
        has_app: impl Fn(&str) -> bool,
    ) {
        self.clients.retain(|name, _| has_client(name));
        self.apps.retain(|name, _| has_app(name));
    }

    /// The whole history.
    pub(super) fn report(&self) -> HistoryReport {
        let clients = self.clients.iter();
        HistoryReport {
            clients: clients
                .map(|(name, client)| (name.to_string(), client.report()))
                .collect(),
        }
    }

    /// The last five minutes of `client`.
    pub(super) fn lately(&self, client: &str) -> Lately {
        self.clients
            .get(client)
            .map_or_else(Lately::default, Client::lately)
    }

    /// The last minute of `app`.
    pub(super) fn app_lately(&self, app: &str) -> AppLately {
        self.apps
            .get(app)
            .map_or_else(AppLately::default, App::lately)
    }
}

impl Client {
    fn new(before: ClientSample) -> Client {
        Client {
            before,
            recent: VecDeque::with_capacity(RECENT),
            day: VecDeque::with_capacity(DAY),
            begun: Point::default(),
            begun_durations: Durations::default(),
            begun_steps: 0,
            durations: VecDeque::new(),
        }
    }

    fn add(&mut self, sample: ClientSample) {
        let before = std::mem::replace(&mut self.before, sample);
        let now = &self.before;
        let mut durations = now.totals.durations;
        for (duration, before) in durations.iter_mut().zip(before.totals.durations) {
            *duration = duration.saturating_sub(before);
        }
        let point = Point {
            requests: now.totals.answered.saturating_sub(before.totals.answered),
            failed: now.totals.failed.saturating_sub(before.totals.failed),
            p50: quantile(&durations, 0.5),
            p95: quantile(&durations, 0.95),
            tokens: now.tokens.saturating_sub(before.tokens),
            pool: now.pool,
        };
        push(&mut self.recent, point, RECENT);
        push(&mut self.durations, durations, STEPS_OF_DAY as usize);

        self.begun_steps += 1;
        add(&mut self.begun_durations, &durations);
        self.begun = Point {
            requests: self.begun.requests + point.requests,
            failed: self.begun.failed + point.failed,
            tokens: self.begun.tokens + point.tokens,
            p50: quantile(&self.begun_durations, 0.5),
            p95: quantile(&self.begun_durations, 0.95),
            pool: point.pool,
        };
        if self.begun_steps == STEPS_OF_DAY {
            push(&mut self.day, std::mem::take(&mut self.begun), DAY);
            self.begun_durations = Durations::default();
            self.begun_steps = 0;
        }
    }

    fn lately(&self) -> Lately {
        let mut durations = Durations::default();
        for step in &self.durations {
            add(&mut durations, step);
        }
        let steps = self.recent.iter().rev().take(STEPS_OF_DAY as usize);
        let (requests, failed) = steps.fold((0, 0), |(requests, failed), point| {
            (requests + point.requests, failed + point.failed)
        });
        Lately {
            requests,
            failed,
            p50: quantile(&durations, 0.5),
            p95: quantile(&durations, 0.95),
        }
    }

    fn report(&self) -> ClientHistory {
        let begun = (self.begun_steps > 0).then_some(self.begun);
        ClientHistory {
            recent: series(STEP, STEP, self.recent.iter().copied()),
            day: series(
                STEP * STEPS_OF_DAY,
                STEP * begun.map_or(STEPS_OF_DAY, |_| self.begun_steps),
                self.day.iter().copied().chain(begun),
            ),
        }
    }
}

impl App {
    fn add(&mut self, answered: u64, at: SystemTime) {
        if answered > self.answered.back().copied().unwrap_or_default() {
            self.last_seen = Some(at);
        }
        push(&mut self.answered, answered, MINUTE + 1);
    }

    fn lately(&self) -> AppLately {
        let (Some(first), Some(last)) = (self.answered.front(), self.answered.back()) else {
            return AppLately::default();
        };
        let steps = u32::try_from(self.answered.len() - 1).unwrap_or(1).max(1);
        let seconds = (STEP * steps).as_secs_f64();
        #[expect(clippy::cast_precision_loss, reason = "fewer than 2^53 requests")]
        let requests_per_second = last.saturating_sub(*first) as f64 / seconds;
        AppLately {
            requests_per_second,
            last_seen: self.last_seen,
        }
    }
}

fn push<T>(ring: &mut VecDeque<T>, last: T, length: usize) {
    if ring.len() == length {
        ring.pop_front();
    }
    ring.push_back(last);
}

fn add(sum: &mut Durations, more: &Durations) {
    for (sum, more) in sum.iter_mut().zip(more) {
        *sum += more;
    }
}

fn series(step: Duration, last: Duration, points: impl Iterator<Item = Point>) -> SeriesReport {
    let mut report = SeriesReport {
        step_seconds: step.as_secs(),
        ..SeriesReport::default()
    };
    let milliseconds = |seconds: Option<f64>| seconds.map(|s| (s * 1e4).round() / 10.0);
    for point in points {
        report.requests.push(point.requests);
        report.failed.push(point.failed);
        report.p50_milliseconds.push(milliseconds(point.p50));
        report.p95_milliseconds.push(milliseconds(point.p95));
        report.tokens.push(point.tokens);
        report.pool.push((point.pool * 100.0).round() / 100.0);
        report.last_step_seconds = last.as_secs();
    }
    report
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(answered: u64, failed: u64, tokens: u64) -> ClientSample {
        let mut durations = Durations::default();
        // all between 50 and 100 ms
        durations[4] = answered;
        ClientSample {
            totals: Totals {
                answered,
                failed,
                in_flight: 0,
                durations,
            },
            tokens,
            pool: 4.5,
        }
    }

    #[test]
    fn a_step_holds_what_happened_since_the_one_before() {
        let (mut history, name) = (History::default(), Arc::from("catalog"));
        // traffic before the first sample belongs to no step
        history.add_client(&name, sample(1_000, 7, 3));
        assert_eq!(history.lately("catalog"), Lately::default());
        history.add_client(&name, sample(1_100, 8, 4));
        history.add_client(&name, sample(1_100, 8, 4));
        let recent = &history.report().clients["catalog"].recent;
        assert_eq!(recent.step_seconds, 5);
        assert_eq!(
            (&recent.requests[..], &recent.failed[..]),
            (&[100, 0][..], &[1, 0][..])
        );
        assert_eq!(recent.p50_milliseconds, [Some(75.0), None]);
        let day = &history.report().clients["catalog"].day;
        assert_eq!((day.step_seconds, day.last_step_seconds), (300, 10));
        assert_eq!(recent.p95_milliseconds, [Some(97.5), None]);
        assert_eq!(
            (&recent.tokens[..], &recent.pool[..]),
            (&[1, 0][..], &[4.5, 4.5][..])
        );
        let lately = history.lately("catalog");
        assert_eq!((lately.requests, lately.failed), (100, 1));
        let milliseconds = |seconds: Option<f64>| seconds.map(|seconds| (seconds * 1e3).round());
        assert_eq!(milliseconds(lately.p50), Some(75.0));
        assert_eq!(milliseconds(lately.p95), Some(98.0));
    }

    #[test]
    fn a_day_and_no_more_is_kept() {
        let (mut history, name) = (History::default(), Arc::from("catalog"));
        let two_days = 2 * 24 * 3_600 / STEP.as_secs();
        for step in 0..=two_days {
            history.add_client(&name, sample(step * 10, step, step / 60));
        }
        let client = &history.report().clients["catalog"];
        assert_eq!(client.recent.requests, [10; RECENT]);
        assert_eq!(
            (client.day.requests.len(), client.day.step_seconds),
            (DAY, 300)
        );
        assert_eq!(client.day.last_step_seconds, 300);
        assert_eq!(client.day.requests, [600; DAY]);
        assert_eq!(client.day.failed, [60; DAY]);
        assert_eq!(client.day.tokens, [1; DAY]);
        assert_eq!(client.day.p50_milliseconds, [Some(75.0); DAY]);
        assert_eq!(history.lately("catalog").requests, 600);
    }

    #[test]
    fn an_app_has_the_rates_of_its_last_minute_and_a_last_time() {
        let (mut history, name) = (History::default(), Arc::from("lineage"));
        let at = |step: u64| SystemTime::UNIX_EPOCH + STEP * u32::try_from(step).unwrap();
        for step in 0..=100 {
            let totals = Totals {
                answered: step.min(50) * 10,
                ..Totals::default()
            };
            history.add_app(&name, &totals, at(step));
            let lately = history.app_lately("lineage");
            if (20..=50).contains(&step) {
                assert_eq!(lately.requests_per_second, 2.0);
                assert_eq!(lately.last_seen, Some(at(step)));
            }
        }
        let idle = history.app_lately("lineage");
        assert_eq!(
            (idle.requests_per_second, idle.last_seen),
            (0.0, Some(at(50)))
        );
        history.keep(|_| true, |_| false);
        assert_eq!(history.app_lately("lineage"), AppLately::default());
    }
}
