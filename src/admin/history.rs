//! The history, in memory: each client's traffic, latency, tokens and pool over the last 15 minutes
//! and the last day, and each app's traffic in the last minute.
//!
//! It is sampled every [`STEP`]. A client costs 45 KB, an app 300 bytes.

use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, SystemTime};

use serde::Serialize;

use super::report::TrafficReport;
use crate::telemetry::{Totals, quantile};

/// The interval between two samples.
pub const STEP: Duration = Duration::from_secs(5);

/// The steps of the recent history: 15 minutes.
const RECENT: usize = 180;

/// The samples in one step of the day: 5 minutes.
const STEPS_OF_DAY: u32 = 60;

/// The steps of the day: 24 hours.
const DAY: usize = 288;

/// The steps over which the rates of the last minute are computed.
const MINUTE: usize = 12;

/// The history of all clients and apps. It starts empty.
#[derive(Debug, Default)]
pub struct History {
    clients: BTreeMap<String, Client>,
    apps: BTreeMap<String, App>,
}

/// A client's counters at the time of a sample.
#[derive(Clone, Debug, Default)]
pub(super) struct ClientSample {
    /// Its traffic since the start.
    pub(super) totals: Totals,
    /// How many tokens it received since the start.
    pub(super) tokens: u64,
    /// The tokens in its pool.
    pub(super) pool: f64,
}

#[derive(Debug, Default)]
struct Client {
    /// The samples of the last five minutes, the latest last.
    samples: VecDeque<ClientSample>,
    recent: Series,
    day: Series,
}

/// The steps of one length, the latest last.
#[derive(Debug, Default)]
struct Series {
    steps: VecDeque<Step>,
    /// The sample at which the last step began.
    began: ClientSample,
    /// How many samples the last step has.
    samples: u32,
}

#[derive(Debug, Default)]
struct Step {
    traffic: TrafficReport,
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

impl History {
    /// Adds a sample of `client`.
    pub(super) fn add_client(&mut self, client: &str, sample: ClientSample) {
        let client = self.clients.entry(client.to_owned()).or_default();
        if let Some(before) = client.samples.back() {
            client.recent.add(before, &sample, 1, RECENT);
            client.day.add(before, &sample, STEPS_OF_DAY, DAY);
        }
        push(&mut client.samples, sample, STEPS_OF_DAY as usize + 1);
    }

    /// Adds a sample of `app`, taken `at`.
    pub(super) fn add_app(&mut self, app: &str, totals: &Totals, at: SystemTime) {
        let app = self.apps.entry(app.to_owned()).or_default();
        if totals.answered > app.answered.back().copied().unwrap_or_default() {
            app.last_seen = Some(at);
        }
        push(&mut app.answered, totals.answered, MINUTE + 1);
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
        let report = |(name, client): (&String, &Client)| {
            let history = ClientHistory {
                recent: client.recent.report(1),
                day: client.day.report(STEPS_OF_DAY),
            };
            (name.clone(), history)
        };
        HistoryReport {
            clients: self.clients.iter().map(report).collect(),
        }
    }

    /// The traffic of `client` in the last five minutes.
    pub(super) fn lately(&self, client: &str) -> TrafficReport {
        let samples = self.clients.get(client).map(|client| &client.samples);
        let ends = samples.and_then(|samples| samples.front().zip(samples.back()));
        ends.map_or_else(TrafficReport::default, |(first, last)| {
            traffic(&first.totals, &last.totals)
        })
    }

    /// The requests of `app` per second in the last minute, and when its last one was answered.
    pub(super) fn app_lately(&self, app: &str) -> (f64, Option<SystemTime>) {
        let Some(app) = self.apps.get(app) else {
            return (0.0, None);
        };
        let (first, last) = (app.answered.front(), app.answered.back());
        let answered = last.unwrap_or(&0).saturating_sub(*first.unwrap_or(&0));
        let steps = app.answered.len().saturating_sub(1).max(1);
        #[expect(clippy::cast_precision_loss, reason = "fewer than 2^53 requests")]
        let rate = answered as f64 / (STEP.as_secs_f64() * steps as f64);
        (rate, app.last_seen)
    }
}

impl Series {
    /// Adds the time between two samples to the last step, which takes `samples`, or begins
    /// another. At most `most` steps are kept.
    fn add(&mut self, before: &ClientSample, now: &ClientSample, samples: u32, most: usize) {
        if self.steps.is_empty() || self.samples == samples {
            self.began = before.clone();
            self.samples = 0;
            push(&mut self.steps, Step::default(), most);
        }
        self.samples += 1;
        if let Some(last) = self.steps.back_mut() {
            *last = Step {
                traffic: traffic(&self.began.totals, &now.totals),
                tokens: now.tokens.saturating_sub(self.began.tokens),
                pool: now.pool,
            };
        }
    }

    fn report(&self, samples: u32) -> SeriesReport {
        fn list<T>(steps: &VecDeque<Step>, value: impl Fn(&Step) -> T) -> Vec<T> {
            steps.iter().map(value).collect()
        }
        let steps = &self.steps;
        SeriesReport {
            step_seconds: (STEP * samples).as_secs(),
            last_step_seconds: (STEP * self.samples).as_secs(),
            requests: list(steps, |step| step.traffic.requests),
            failed: list(steps, |step| step.traffic.failed),
            p50_milliseconds: list(steps, |step| step.traffic.p50_milliseconds),
            p95_milliseconds: list(steps, |step| step.traffic.p95_milliseconds),
            tokens: list(steps, |step| step.tokens),
            pool: list(steps, |step| (step.pool * 100.0).round() / 100.0),
        }
    }
}

/// The traffic between two samples.
fn traffic(before: &Totals, now: &Totals) -> TrafficReport {
    let mut durations = now.durations;
    for (duration, before) in durations.iter_mut().zip(before.durations) {
        *duration = duration.saturating_sub(before);
    }
    let milliseconds = |share| quantile(&durations, share).map(|s| (s * 1e4).round() / 10.0);
    TrafficReport {
        requests: now.answered.saturating_sub(before.answered),
        failed: now.failed.saturating_sub(before.failed),
        p50_milliseconds: milliseconds(0.5),
        p95_milliseconds: milliseconds(0.95),
    }
}

fn push<T>(ring: &mut VecDeque<T>, last: T, length: usize) {
    if ring.len() == length {
        ring.pop_front();
    }
    ring.push_back(last);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::Durations;

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
        let (mut history, name) = (History::default(), "catalog");
        // traffic before the first sample belongs to no step
        history.add_client(name, sample(1_000, 7, 3));
        assert_eq!(history.lately("catalog"), TrafficReport::default());
        history.add_client(name, sample(1_100, 8, 4));
        history.add_client(name, sample(1_100, 8, 4));
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
        assert_eq!(lately.p50_milliseconds, Some(75.0));
        assert_eq!(lately.p95_milliseconds, Some(97.5));
    }

    #[test]
    fn a_day_and_no_more_is_kept() {
        let (mut history, name) = (History::default(), "catalog");
        let two_days = 2 * 24 * 3_600 / STEP.as_secs();
        for step in 0..=two_days {
            history.add_client(name, sample(step * 10, step, step / 60));
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
        let (mut history, name) = (History::default(), "lineage");
        let at = |step: u64| SystemTime::UNIX_EPOCH + STEP * u32::try_from(step).unwrap();
        for step in 0..=100 {
            let totals = Totals {
                answered: step.min(50) * 10,
                ..Totals::default()
            };
            history.add_app(name, &totals, at(step));
            let lately = history.app_lately("lineage");
            if (20..=50).contains(&step) {
                assert_eq!(lately, (2.0, Some(at(step))));
            }
        }
        assert_eq!(history.app_lately("lineage"), (0.0, Some(at(50))));
        history.keep(|_| true, |_| false);
        assert_eq!(history.app_lately("lineage"), (0.0, None));
    }
}
