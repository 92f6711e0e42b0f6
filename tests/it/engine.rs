//! Eight minutes of simulated time in eight seconds: the token is renewed at half of its lifetime,
//! no request is without one, and the pool is never exceeded.

use std::time::Duration;

use crate::support::proxy::message;
use crate::support::wait::now;
use crate::support::{Proxy, Simulator};

#[test]
fn tokens_are_renewed_at_half_of_their_life_and_no_app_notices() {
    let simulator = Simulator::with(&["--speed", "60", "--lifetime", "300s"]);
    let proxy = Proxy::to(&simulator.url())
        .flag("--pool-refill", "1s")
        .start();
    proxy.has_token();
    let start = now();
    let mut requests = 0;
    while start.elapsed() < Duration::from_secs(8) {
        assert_eq!(proxy.get("/rest/2.0/application/info").status, 200);
        requests += 1;
        // a light load, not a busy loop
        std::thread::sleep(Duration::from_millis(20));
    }
    let state = simulator.state();
    assert_eq!(state["requests"], requests);
    assert_eq!(state["unauthorized"], 0, "{state}");
    assert_eq!(simulator.of_client("rate_limited"), 0, "{state}");
    let issued = simulator.of_client("issued");
    assert!((3..=6).contains(&issued), "{state}");

    // a token lives for 5 s here and is renewed at half of that, minus 5 % jitter
    let received = |nth| {
        let token = |line: &str| message(line, "token received");
        let (line, at) = proxy.process.err.wait_for_nth("a token", nth, token);
        assert_eq!(line["generation"], nth, "{line}");
        assert_eq!(line["lifetime_seconds"], 5, "{line}");
        at
    };
    for nth in 2..=3 {
        let after = received(nth) - received(nth - 1);
        let early = Duration::from_millis(2_000);
        let late = Duration::from_millis(4_900);
        assert!((early..late).contains(&after), "{after:?}");
    }
}
