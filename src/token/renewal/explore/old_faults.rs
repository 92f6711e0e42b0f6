//! Reintroduces each fault of an earlier design: the exploration must find a counterexample.
//! `cargo test --lib old_faults -- --nocapture` prints the steps.

use super::explore;
use super::world::{Choice, How, Mode, OUTAGE, Old, World};

/// Asserts that an exploration from `begin` on with the behaviours of `old` finds `problem`, and
/// that without them all promises hold with the same faults, in as many states.
fn is_found(old: &'static [Old], begin: u64, faults: u8, menu: fn(Choice) -> bool, problem: &str) {
    let found = explore(World::with(faults, old, menu).after(begin), 200_000);
    let figures = found.figures();
    let violation = found.violation.unwrap_or_default();
    println!("{old:?}: {figures}: {violation}");
    assert!(violation.contains(problem), "{old:?}: {figures}");
    let without = explore(World::with(faults, &[], menu).after(begin), found.states);
    assert_eq!(without.violation, None, "{old:?}");
}

#[test]
fn a_failed_lease_that_is_not_retried_is_a_deadlock() {
    let menu = |choice| matches!(choice, Choice::Restart(_) | Choice::Set(Mode::Leases, _));
    let old = &[Old::Unprobed, Old::Standbys];
    is_found(old, 0, 3, menu, "has no token");
}

#[test]
fn a_request_that_is_not_booked_exceeds_the_pool() {
    let menu = |choice| matches!(choice, Choice::Set(Mode::Publications, _));
    is_found(&[Old::Unbooked], 0, 2, menu, "a request beyond the pool");
}

#[test]
fn a_delay_that_outlasts_the_outage_shrinks_the_reserve() {
    let menu = |choice| matches!(choice, Choice::Set(_, 4_000));
    is_found(&[Old::Delayed], 0, 1, menu, "delays its renewal");
}

#[test]
fn standby_places_of_exited_processes_leave_no_active_replica() {
    let menu = |choice| {
        matches!(
            choice,
            Choice::Restart(0 | 1) | Choice::Set(Mode::All, OUTAGE)
        )
    };
    // the outage lasts until the token has expired
    is_found(&[Old::Standbys], 80_000, 3, menu, "no replica continues");
}

#[test]
fn a_rejected_token_is_still_sent_if_its_replacement_fails() {
    let menu = |choice| matches!(choice, Choice::Revoke | Choice::End(_, How::Failed));
    is_found(&[Old::DeadToken], 0, 2, menu, "sends a revoked token");
}

#[test]
fn a_store_that_counts_as_usable_when_it_is_readable_alternates() {
    let menu = |choice| matches!(choice, Choice::Set(Mode::Publications, _));
    is_found(&[Old::Readable], 0, 1, menu, "alternates");
}
