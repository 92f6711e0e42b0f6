//! When the next token is requested, and how failures, grants and 429s change that.

use super::*;

pub(super) const LIFETIME: Duration = Duration::from_secs(299);
pub(super) const CONFIG: Config = Config {
    refresh_at: 0.5,
    refresh_jitter: 0.05,
    pool: budget::Config {
        capacity: 5,
        refill: Duration::from_secs(60),
    },
};

pub(super) fn at(seconds: f64) -> Instant {
    Instant::ORIGIN + Duration::from_secs(10_000) + Duration::from_secs_f64(seconds)
}

pub(super) fn asked(config: Config) -> Schedule {
    let mut schedule = Schedule::new(config, at(0.0));
    assert!(schedule.next_request() <= at(0.0));
    schedule.ask(at(0.0));
    schedule
}

pub(super) fn holding() -> Schedule {
    let mut schedule = asked(CONFIG);
    schedule.granted(at(0.1), LIFETIME, at(296.0), 0.0);
    schedule
}

#[test]
fn a_token_is_renewed_at_half_of_its_life() {
    let schedule = holding();
    let due = at(149.5 * EARLY);
    assert_eq!(schedule.next_request(), due);
}

#[test]
fn the_renewal_is_not_brought_forward_where_the_pool_will_not_be_full() {
    let mut schedule = Schedule::new(CONFIG, at(0.0));
    for _ in 0..3 {
        schedule.ask(at(0.0));
        schedule.granted(at(0.0), LIFETIME, at(296.0), 0.0);
    }
    assert_eq!(schedule.next_request(), at(149.5));
}

#[test]
fn whatever_the_fault_an_attempt_falls_on_the_last_chance() {
    for (outcome, took) in [
        (Outcome::Connect, 0.1),
        (Outcome::Connect, 5.0),
        (Outcome::ServerError, 0.3),
        (Outcome::Timeout, 10.0),
        (Outcome::Malformed, 0.3),
        (Outcome::RateLimited, 0.3),
        (Outcome::InvalidClient, 0.3),
    ] {
        let mut schedule = holding();
        let mut last = 0.0;
        loop {
            let now = schedule.next_request();
            if now > at(295.3) {
                break;
            }
            schedule.ask(now);
            last = now.since(at(0.0)).as_secs_f64();
            let answered = now + Duration::from_secs_f64(took);
            schedule.failed(answered, outcome, None, 0.0);
        }
        assert!(last > 294.0, "{outcome:?} after {took} s: {last}");
    }
}

#[test]
fn jitter_brings_the_renewal_forward_only() {
    let mut schedule = asked(CONFIG);
    schedule.granted(at(0.1), LIFETIME, at(296.0), 0.999_999);
    let due = schedule.next_request().since(at(0.0)).as_secs_f64();
    assert!((137.0..137.1).contains(&due), "{due}");
}

#[test]
fn plain_refusals_are_followed_up_within_a_fifth_of_the_refill_interval() {
    let mut schedule = asked(CONFIG);
    let mut now = at(0.0);
    for expected in [1, 2, 4, 8, 12, 12, 12, 12] {
        schedule.failed(now, Outcome::ServerError, None, 0.0);
        now = schedule.next_request();
        assert!(schedule.next_request() <= now, "after {expected} s");
        schedule.ask(now);
    }
    assert_eq!(now, at(63.0));
}

#[test]
fn answers_that_never_come_are_counted_against_the_pool() {
    let mut schedule = asked(CONFIG);
    let mut now = at(0.0);
    let mut sent = 1;
    while now < at(600.0) {
        schedule.failed(now + Duration::from_secs(10), Outcome::Timeout, None, 0.5);
        now = schedule.next_request();
        assert!(schedule.next_request() <= now);
        schedule.ask(now);
        sent += 1;
    }
    assert!((12..=15).contains(&sent), "5 and one a minute: {sent}");
}

#[test]
fn with_a_token_in_hand_the_attempts_are_spread_over_its_life() {
    let mut schedule = holding();
    let mut now = schedule.next_request();
    let mut attempts = Vec::new();
    while now < at(296.0) {
        assert!(schedule.next_request() <= now);
        schedule.ask(now);
        attempts.push(now.since(at(0.0)).as_secs());
        schedule.failed(now, Outcome::Malformed, None, 0.0);
        now = schedule.next_request();
    }
    let last = attempts.last().unwrap();
    assert!((280..296).contains(last), "{attempts:?}");
    let widest = attempts.windows(2).map(|w| w[1] - w[0]).max().unwrap();
    assert!(widest <= 30, "{attempts:?}");
}

#[test]
fn a_429_is_followed_by_a_refill_interval_at_least() {
    let mut schedule = asked(CONFIG);
    let cause = schedule.failed(at(1.0), Outcome::RateLimited, None, 0.0);
    assert_eq!(cause, Some(RateLimitCause::PoolContended));
    assert_eq!(schedule.next_request(), at(61.0));
}

#[test]
fn retry_after_is_obeyed_up_to_an_hour() {
    let mut schedule = asked(CONFIG);
    schedule.failed(
        at(1.0),
        Outcome::RateLimited,
        Some(Duration::from_secs(90)),
        0.0,
    );
    assert_eq!(schedule.next_request(), at(91.0));

    let mut schedule = asked(CONFIG);
    schedule.failed(
        at(0.0),
        Outcome::ServerError,
        Some(Duration::from_secs(40)),
        0.0,
    );
    assert_eq!(schedule.next_request(), at(40.0));

    let mut schedule = asked(CONFIG);
    schedule.failed(at(0.0), Outcome::ServerError, Some(Duration::MAX), 0.0);
    assert_eq!(schedule.next_request(), at(3600.0));
}

#[test]
fn refused_credentials_are_tried_slowly() {
    let mut schedule = asked(CONFIG);
    schedule.failed(at(0.0), Outcome::InvalidClient, None, 0.9);
    assert_eq!(schedule.next_request(), at(60.0));
}

#[test]
fn refusals_are_counted_once_a_429_shows_that_they_use_up_the_pool() {
    let mut schedule = asked(CONFIG);
    schedule.failed(at(0.0), Outcome::ServerError, None, 0.0);
    assert!(
        schedule.pool().available(at(0.0)) > 4.9,
        "assumed to be free"
    );
    let now = schedule.next_request();
    assert!(schedule.next_request() <= now);
    schedule.ask(now);
    let cause = schedule.failed(now, Outcome::RateLimited, None, 0.0);
    assert_eq!(cause, Some(RateLimitCause::RefusalsCharged));

    let now = schedule.next_request();
    assert!(schedule.next_request() <= now);
    schedule.ask(now);
    schedule.failed(now, Outcome::ServerError, None, 0.0);
    assert!(schedule.pool().available(now) < 0.1, "charged from now on");
}

#[test]
fn while_others_drink_from_the_pool_renewals_come_later() {
    let mut schedule = asked(CONFIG);
    schedule.failed(at(0.0), Outcome::RateLimited, None, 0.0);
    let mut now = schedule.next_request();
    let mut lives = Vec::new();
    for _ in 0..5 {
        schedule.ask(now);
        schedule.granted(now, LIFETIME, now + Duration::from_secs(296), 0.0);
        lives.push(schedule.next_request().since(now).as_secs());
        now = schedule.next_request();
    }
    assert_eq!(lives, [156, 156, 156, 144, 144]);
}

#[test]
fn a_refused_token_is_replaced_at_once() {
    let mut schedule = holding();
    assert!(schedule.rejected(at(20.0)));
    assert!(schedule.next_request() <= at(20.0));
}

#[test]
fn an_api_that_refuses_everything_costs_one_token_a_refill_interval() {
    let mut schedule = holding();
    let mut asked = Vec::new();
    for tenth in 200..1_500 {
        let now = at(f64::from(tenth) / 10.0);
        schedule.rejected(now);
        if schedule.next_request() <= now {
            schedule.ask(now);
            asked.push(tenth / 10);
            let end = now + Duration::from_secs(296);
            schedule.granted(now, LIFETIME, end, 0.0);
        }
    }
    assert_eq!(asked, [20, 80, 140]);
}

#[test]
fn a_life_of_three_seconds_is_renewed_at_half_of_it() {
    let mut schedule = asked(Config {
        pool: budget::Config {
            capacity: 5,
            refill: Duration::from_millis(600),
        },
        ..CONFIG
    });
    schedule.granted(at(0.0), Duration::from_secs(3), at(2.97), 0.0);
    assert_eq!(schedule.next_request(), at(1.5 * EARLY));
}

#[test]
fn a_failed_renewal_comes_again_long_before_the_token_ends() {
    let mut schedule = holding();
    assert!(schedule.next_request() <= at(149.5));
    schedule.ask(at(149.5));
    schedule.failed(at(150.0), Outcome::Connect, None, 0.0);
    assert_eq!(schedule.next_request(), at(151.0));
}

#[test]
fn who_yields_again_and_again_looks_less_and_less_often() {
    let mut schedule = holding();
    let mut now = schedule.next_request();
    let mut waits = Vec::new();
    for _ in 0..6 {
        schedule.deferred_to_peer(now, 0.0);
        waits.push(schedule.next_request().since(now).as_secs());
        now = schedule.next_request();
    }
    assert_eq!(waits, [1, 2, 4, 8, 12, 12]);
    schedule.adopted(now, LIFETIME, now + LIFETIME, 0.0);
    now = schedule.next_request();
    schedule.deferred_to_peer(now, 0.0);
    assert_eq!(schedule.next_request(), now + Duration::from_secs(1));
}

#[test]
fn a_fleet_that_yields_together_does_not_come_again_together() {
    let now = holding().next_request();
    let comes_at = |jitter| {
        let mut schedule = holding();
        schedule.deferred_to_peer(now, jitter);
        schedule.next_request()
    };
    assert_eq!(comes_at(0.0), now + Duration::from_secs(1));
    assert_eq!(comes_at(0.5), now + Duration::from_millis(750));
}

#[test]
fn to_yield_never_brings_a_renewal_forward() {
    let mut schedule = holding();
    let due = schedule.next_request();
    schedule.deferred_to_peer(at(1.0), 0.0);
    assert_eq!(schedule.next_request(), due);
}

/// The fifth replica's peers may have made their last requests just before the store returned,
/// however long it was away. They make no more because the store flaps.
#[test]
fn the_peers_last_requests_are_charged_once_when_the_store_returns() {
    let fifth = Membership::Member { before: 4, all: 5 };
    for away in [10.0, 100.0, 500.0, 5_000.0] {
        let mut schedule = Schedule::new(CONFIG, at(0.0));
        schedule.store_unavailable(fifth, at(0.0));
        schedule.store_recovered(at(away), false, 0.0);
        let left = |schedule: &Schedule, now: f64| schedule.pool().available(at(now));
        assert!((left(&schedule, away) - 1.0).abs() < 1e-9, "{away} s");
        for flap in 1..6 {
            let now = away + 3.0 * f64::from(flap);
            schedule.store_unavailable(fifth, at(now));
            schedule.store_recovered(at(now + 1.0), false, 0.0);
            assert!(
                (left(&schedule, now + 1.0) - 1.0).abs() < 1e-9,
                "{away} s, {flap}"
            );
        }
    }
}
