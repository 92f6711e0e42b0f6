//! A fleet of 200 proxies, in virtual time, on a day with every fault. It never exceeds the pool,
//! never uses an expired token, and is not without one for longer than the faults explain. `cargo
//! bench --bench scale` does the same with 10,000.

mod virtual_fleet;

use virtual_fleet::{HOURS, Hour, Plan, a_bad_day, run};

const PROXIES: usize = 200;

fn day(sharing: bool, hours: usize, events: Vec<virtual_fleet::Event>) -> Vec<Hour> {
    run(&Plan {
        proxies: PROXIES,
        sharing,
        hours,
        events,
        seed: 7,
    })
}

fn share_without_token(hour: &Hour) -> f64 {
    hour.without_token as f64 / hour.requests as f64
}

/// The hours with a fault longer than a token's lifetime, and the largest share of them without a
/// token: ten minutes minus half a lifetime, plus a minute to recover.
const LONG: [usize; 4] = [6, 9, 20, 21];
const LONGEST: f64 = (600.0 - 143.0 + 60.0) / 3_600.0;

#[test]
fn a_fleet_that_shares_takes_what_one_proxy_takes_whatever_happens_to_it() {
    for (nth, hour) in day(true, 24, a_bad_day()).iter().enumerate() {
        let what = format!("hour {nth}, {}: {hour:?}", HOURS[nth]);
        assert_eq!(hour.asked.refused, 0, "{what}");
        assert!((20..=36).contains(&hour.asked.tokens), "{what}");
        // by one lease holder at a time, or by the four that continue without the store
        assert!(hour.asked.at_a_time <= 4, "{what}");
        let without_token = share_without_token(hour);
        if LONG.contains(&nth) {
            assert!(without_token <= LONGEST, "{what}");
        } else {
            assert_eq!(hour.without_token, 0, "{what}");
        }
        // the fleet floods neither the store nor the endpoint
        let proxies = PROXIES as u64;
        assert!(hour.worst.operations <= 10 * proxies, "{what}");
        assert!(hour.worst.processor.as_millis() < 1_000, "{what}");
        assert!(hour.store.operations <= 3 * 3_600 * proxies, "{what}");
        assert!(hour.store.bytes > 0, "{what}");
        assert!(hour.asked.requests <= 200, "{what}");
    }
}

#[test]
fn one_that_does_not_share_runs_the_pool_dry() {
    for hour in &day(false, 2, Vec::new()) {
        assert!((58..=66).contains(&hour.asked.tokens), "{hour:?}");
        assert!(hour.asked.refused > 1_000, "{hour:?}");
        assert!(share_without_token(hour) > 0.9, "{hour:?}");
    }
}
