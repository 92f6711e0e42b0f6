//! Tests: what a schedule does when the configuration of its client changes.

use super::tests::{CONFIG, LIFETIME, asked, at, holding};
use super::*;

#[test]
fn changed_credentials_are_tried_at_once() {
    let mut schedule = asked(CONFIG);
    schedule.failed(at(0.0), Outcome::InvalidClient, None, 0.9);
    schedule.credentials_changed(at(2.0));
    assert!(schedule.next_request() <= at(2.0));

    let mut schedule = holding();
    schedule.credentials_changed(at(20.0));
    assert!(schedule.next_request() <= at(20.0));
}

#[test]
fn changed_credentials_change_nothing_about_the_pool() {
    let mut schedule = asked(CONFIG);
    schedule.failed(at(1.0), Outcome::RateLimited, None, 0.0);
    schedule.credentials_changed(at(2.0));
    assert_eq!(schedule.next_request(), at(61.0));

    // however often they change, possible costs are charged
    let mut schedule = holding();
    let mut sent = 1;
    for second in 1..600 {
        let now = at(f64::from(second));
        schedule.credentials_changed(now);
        if schedule.next_request() <= now {
            schedule.ask(now);
            sent += 1;
            schedule.failed(now, Outcome::Malformed, None, 0.0);
        }
    }
    assert!((13..=15).contains(&sent), "5 and one a minute: {sent}");
}

#[test]
fn another_client_begins_with_a_full_pool() {
    let mut schedule = asked(CONFIG);
    schedule.failed(at(1.0), Outcome::RateLimited, None, 0.0);
    schedule.client_changed(at(2.0));
    assert!(schedule.next_request() <= at(2.0));
    schedule.ask(at(2.0));
    assert!((schedule.pool().available(at(2.0)) - 4.0).abs() < 1e-9);
}

#[test]
fn another_configuration_does_not_ask_by_itself() {
    let mut schedule = holding();
    let config = Config {
        refresh_at: 0.25,
        ..CONFIG
    };
    schedule.reconfigure(config, at(20.0));
    assert_eq!(schedule.next_request(), at(149.5 * EARLY));
    schedule.ask(at(149.5 * EARLY));
    schedule.granted(at(150.0), LIFETIME, at(446.0), 0.0);
    assert_eq!(
        schedule.next_request(),
        at(149.5 * EARLY + 0.25 * EARLY * 299.0)
    );
}
