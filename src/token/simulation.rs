//! The schedule against a modelled issuer, in virtual time: days of random faults in milliseconds,
//! with the invariants checked at every step.

use std::time::Duration;

use proptest::prelude::*;

use crate::clock::Instant;
use crate::telemetry::Label;
use crate::token::budget;
use crate::token::ports::Outcome;
use crate::token::schedule::{Config, RateLimitCause, Schedule};

const REFILL: f64 = 60.0;
const CAPACITY: f64 = 5.0;
const LIFETIME: f64 = 299.0;
const DAY: f64 = 24.0 * 3600.0;
const CONFIG: Config = Config {
    refresh_at: 0.5,
    refresh_jitter: 0.05,
    pool: budget::Config {
        capacity: 5,
        refill: Duration::from_secs(60),
    },
};

/// How the issuer behaves for a while.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Weather {
    Fair,
    /// Every request fails like this, and takes a token if `draws`.
    Failing {
        outcome: Outcome,
        draws: bool,
    },
}

/// An issuer written independently of the mirror: a level that rises with time.
#[derive(Debug)]
struct Issuer {
    level: f64,
    at: f64,
}

impl Issuer {
    fn draw(&mut self, now: f64) -> bool {
        self.level = (self.level + (now - self.at) / REFILL).min(CAPACITY);
        self.at = now;
        let allowed = self.level >= 1.0 - 1e-6;
        if allowed {
            self.level -= 1.0;
        }
        allowed
    }
}

/// The result of a run.
#[derive(Debug, Default)]
struct Record {
    tokens: u32,
    unexpected_429: u32,
    learned: u32,
    sent: Vec<f64>,
    /// (from, to) without a usable token, after the first one.
    gaps: Vec<(f64, f64)>,
    /// When each token was issued.
    came: Vec<f64>,
}

/// Runs the schedule for `until` seconds; `weather(now)` says how the issuer behaves.
fn run(until: f64, weather: impl FnMut(f64) -> Weather, random: impl FnMut() -> f64) -> Record {
    run_disturbed(until, weather, random, 0.0)
}

/// As [`run`], but a share of `disturbed` of all waits is cut short: the API rejects the token, an
/// operator wants a new one, or the process restarts and adopts the stored state.
fn run_disturbed(
    until: f64,
    mut weather: impl FnMut(f64) -> Weather,
    mut random: impl FnMut() -> f64,
    disturbed: f64,
) -> Record {
    let origin = Instant::ORIGIN + Duration::from_secs(1_000);
    let at = |seconds: f64| origin + Duration::from_secs_f64(seconds);
    let mut schedule = Schedule::new(CONFIG, origin);
    let mut issuer = Issuer {
        level: CAPACITY,
        at: 0.0,
    };
    let mut record = Record::default();
    let mut usable_until: Option<f64> = None;
    let mut held: Option<Instant> = None;
    let mut now = 0.0;
    while now < until {
        match schedule.next_request() {
            next if next > at(now) => {
                let wait = next.since(at(now)).as_secs_f64();
                assert!(
                    wait > 0.0 && wait <= 3_700.0,
                    "a next step within reach: {wait}"
                );
                if random() >= disturbed {
                    now += wait;
                } else if random() < 0.4 {
                    now += wait * random();
                    schedule.rejected(at(now));
                } else if random() < 0.4 {
                    now += wait * random();
                    let allowed = schedule.renew_now(at(now)).is_ok();
                    assert_eq!(allowed, schedule.next_request() <= at(now));
                } else {
                    now += wait * random();
                    schedule = restarted(&schedule, held, at(now), random());
                }
            }
            _due => {
                record.sent.push(now);
                schedule.ask(at(now));
                let arrives = now + random() * 0.2;
                let answered = match weather(now) {
                    Weather::Failing {
                        outcome: Outcome::Timeout,
                        ..
                    } => now + 10.0,
                    _ => arrives + random() * 0.5,
                };
                let outcome = match weather(now) {
                    Weather::Fair if issuer.draw(arrives) => Ok(()),
                    Weather::Fair => Err(Outcome::RateLimited),
                    Weather::Failing { outcome, draws } => {
                        if draws && !issuer.draw(arrives) && outcome != Outcome::Timeout {
                            Err(Outcome::RateLimited)
                        } else {
                            Err(outcome)
                        }
                    }
                };
                match outcome {
                    Ok(()) => {
                        let usable = now + LIFETIME * 0.99;
                        schedule.granted(
                            at(answered),
                            Duration::from_secs_f64(LIFETIME),
                            at(usable),
                            random(),
                        );
                        if let Some(end) = usable_until.filter(|end| *end < answered) {
                            record.gaps.push((end, answered));
                        }
                        usable_until = Some(usable);
                        held = Some(at(now));
                        record.tokens += 1;
                        record.came.push(answered);
                    }
                    Err(outcome) => {
                        let cause = schedule.failed(at(answered), outcome, None, random());
                        let forged = matches!(
                            weather(now),
                            Weather::Failing {
                                outcome: Outcome::RateLimited,
                                ..
                            }
                        );
                        if outcome == Outcome::RateLimited && !forged {
                            record.unexpected_429 += 1;
                            record.learned +=
                                u32::from(cause == Some(RateLimitCause::RefusalsCharged));
                        }
                    }
                }
                now = answered;
            }
        }
    }
    record
}

/// The schedule of a restarted process: it adopts the pool from the store, and the token requested
/// at `held` if that has not expired.
fn restarted(before: &Schedule, held: Option<Instant>, now: Instant, jitter: f64) -> Schedule {
    let mut schedule = Schedule::new(CONFIG, now);
    let (full_at, not_before) = before.pool().times();
    schedule.restore_pool(full_at, not_before, now);
    let lifetime = Duration::from_secs_f64(LIFETIME);
    if let Some(asked) = held.filter(|asked| now < *asked + lifetime.mul_f64(0.99)) {
        schedule.adopted(asked, lifetime, asked + lifetime.mul_f64(0.99), jitter);
    }
    schedule
}

/// A seeded generator of numbers in `[0, 1)`, so that a failing case can be repeated.
fn numbers(seed: u64) -> impl FnMut() -> f64 {
    let mut generator = fastrand::Rng::with_seed(seed);
    move || generator.f64()
}

/// Weather that changes every few minutes, generated from `seed`.
fn changing(
    seed: u64,
    kinds: &'static [Outcome],
    draws: impl Fn(Outcome) -> bool,
) -> impl FnMut(f64) -> Weather {
    let mut random = numbers(seed);
    let mut until = 0.0;
    let mut current = Weather::Fair;
    move |now| {
        while now >= until {
            current = if current == Weather::Fair && !kinds.is_empty() {
                until += 10.0 + random() * 600.0;
                let outcome = kinds[(random() * kinds.len() as f64) as usize];
                Weather::Failing {
                    outcome,
                    draws: draws(outcome),
                }
            } else {
                until += 60.0 + random() * 3_600.0;
                Weather::Fair
            };
        }
        current
    }
}

/// Asserts that the requests in any period stay within the pool's size and rate.
fn assert_within_the_pool(sent: &[f64], what: &str) {
    for (i, from) in sent.iter().enumerate() {
        for (n, to) in sent[i..].iter().enumerate().take(40) {
            let allowed = CAPACITY + (to - from) / REFILL;
            assert!(
                (n + 1) as f64 <= allowed + 1e-6,
                "{what}: {} in {} s",
                n + 1,
                to - from
            );
        }
    }
}

const MAY_DRAW: &[Outcome] = &[
    Outcome::Timeout,
    Outcome::ConnectionLost,
    Outcome::Malformed,
];

#[test]
fn an_hour_of_fair_weather_takes_24_to_26_tokens() {
    for seed in 0..200 {
        let record = run(3_600.0, |_| Weather::Fair, numbers(seed));
        assert!((24..=26).contains(&record.tokens), "{}", record.tokens);
        assert_eq!(record.unexpected_429, 0);
        assert!(record.gaps.is_empty());
    }
}

/// Half of a lifetime is 149.5 s.
#[test]
fn half_a_life_of_any_fault_is_not_noticed_from_a_steady_state() {
    for &outcome in Outcome::ALL {
        for start in (0..3_000).map(|n| 600.0 + f64::from(n) / 10.0) {
            let storm = |now: f64| {
                if (start..start + 149.5).contains(&now) {
                    Weather::Failing {
                        outcome,
                        draws: MAY_DRAW.contains(&outcome),
                    }
                } else {
                    Weather::Fair
                }
            };
            let record = run(1_800.0, storm, numbers((start * 10.0) as u64));
            assert!(
                record.gaps.is_empty(),
                "{outcome:?} at {start}: {:?}",
                record.gaps
            );
            assert_eq!(record.unexpected_429, 0, "{outcome:?}");
        }
    }
}

#[test]
fn after_an_outage_that_cost_nothing_a_token_is_back_within_15_s() {
    for outcome in [Outcome::Connect, Outcome::ServerError] {
        for end in (300..1_200).step_by(11).map(f64::from) {
            let storm = |now: f64| {
                if now < end {
                    Weather::Failing {
                        outcome,
                        draws: false,
                    }
                } else {
                    Weather::Fair
                }
            };
            let record = run(end + 100.0, storm, numbers(end as u64));
            assert!(
                record.came[0] - end <= 15.0,
                "{outcome:?} until {end}: {:?}",
                record.came
            );
        }
    }
}

/// Thirty days with outages of these `kinds`, up to `longest` seconds each, minutes or hours apart.
fn a_month(seed: u64, kinds: &[Outcome], longest: f64, disturbed: f64) -> Record {
    let mut random = numbers(seed);
    let (mut from, mut to, mut kind) = (0.0, 0.0, kinds[0]);
    let storm = |now: f64| {
        while now >= to {
            from = to + 150.0 + random() * 7_200.0;
            to = from + longest * random();
            kind = kinds[(random() * kinds.len() as f64) as usize];
        }
        if now < from {
            return Weather::Fair;
        }
        Weather::Failing {
            outcome: kind,
            draws: MAY_DRAW.contains(&kind),
        }
    };
    run_disturbed(30.0 * DAY, storm, numbers(!seed), disturbed)
}

#[test]
fn a_month_of_outages_below_two_minutes_is_never_noticed() {
    for seed in 0..300 {
        let record = a_month(seed, Outcome::ALL, 120.0, 0.0);
        assert!(record.gaps.is_empty(), "seed {seed}: {:?}", record.gaps);
        assert_eq!(record.unexpected_429, 0, "seed {seed}");
    }
}

/// Outages follow each other closely, so the pool is not always full. Forged 429s are left out:
/// after one, renewals come later for a while.
#[test]
fn nor_is_a_month_of_outages_below_nearly_half_a_life() {
    let kinds: Vec<Outcome> = Outcome::ALL
        .iter()
        .map(|outcome| match outcome {
            Outcome::RateLimited => Outcome::ServerError,
            other => *other,
        })
        .collect();
    for seed in 0..300 {
        let record = a_month(seed, &kinds, 144.0, 0.0);
        assert!(record.gaps.is_empty(), "seed {seed}: {:?}", record.gaps);
        assert_eq!(record.unexpected_429, 0, "seed {seed}");
    }
}

/// Thousands of restarts and rejected tokens in a month, among outages of a minute: no 429 that was
/// not forged, and never without a token.
#[test]
fn a_month_of_restarts_and_refused_tokens_never_runs_the_pool_dry() {
    for seed in 0..300 {
        let record = a_month(seed, Outcome::ALL, 60.0, 0.2);
        assert_eq!(record.unexpected_429, 0, "seed {seed}");
        assert!(record.gaps.is_empty(), "seed {seed}: {:?}", record.gaps);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    /// Possible costs are charged: whatever happens, the only 429s are forged ones, and no request
    /// exceeds the pool.
    #[test]
    fn a_day_of_costly_faults_never_runs_the_pool_dry(seed in any::<u64>()) {
        let record = run(DAY, changing(seed, MAY_DRAW, |_| true), numbers(!seed));
        prop_assert_eq!(record.unexpected_429, 0);
        assert_within_the_pool(&record.sent, "costly faults");
    }

    /// Faults of every kind, at an issuer whose refusals are free.
    #[test]
    fn a_day_of_all_faults_with_free_refusals(seed in any::<u64>()) {
        let all = Outcome::ALL;
        let record = run(DAY, changing(seed, all, |o| MAY_DRAW.contains(&o)), numbers(!seed));
        prop_assert_eq!(record.unexpected_429, 0);
    }

    /// An issuer that charges for refusals causes one surprise, and no second one.
    #[test]
    fn a_day_at_an_issuer_that_charges_for_refusals(seed in any::<u64>()) {
        let kinds = &[Outcome::ServerError, Outcome::InvalidClient, Outcome::Malformed];
        let record = run(DAY, changing(seed, kinds, |_| true), numbers(!seed));
        prop_assert!(record.learned <= 1);
        // the first outage may empty the issuer's pool before the first 429 shows that refusals
        // cost
        prop_assert!(record.unexpected_429 <= 2, "{}", record.unexpected_429);
    }
}
