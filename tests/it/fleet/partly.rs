//! The server fails partially.

use std::time::Duration;

use super::load::Load;
use super::server::Kind;
use super::{MINUTE, Member, holds, sharing};
use crate::support::Proxy;
use crate::support::wait::now;

/// How soon all recover.
const BACK: Duration = Duration::from_secs(5);

/// The line of a store that cannot be written, and that of its return.
const CANNOT: &str = "continuing without it";
const CAN: &str = "the store is available again";

/// One process was killed and restarted so often that processes that are gone may hold the standby
/// places.
pub(super) fn a_server_that_can_only_be_read_leaves_some_that_serve_and_then_all_are_back(
    kind: Kind,
) {
    let (simulator, server, mut proxies) = sharing(kind, 6);
    let member = Member::sharing(&simulator, &server);
    for _ in 0..4 {
        proxies[5] = member.start();
        holds(&proxies[5]);
    }
    server.writes(false);
    // until after the current token has expired
    std::thread::sleep(MINUTE * 6);
    let load = Load::begin(&proxies);
    std::thread::sleep(MINUTE * 4);
    let tallies = load.each();
    let serving = tallies.iter().filter(|t| t.without_token == 0).count();
    for proxy in &proxies {
        assert!(problem(proxy).is_some(), "its status says so");
    }

    server.writes(true);
    let back = now();
    proxies.iter().for_each(holds);
    let took = back.elapsed();
    let refused = simulator.of_client("rate_limited");
    println!(
        "{kind:?}: 6 proxies whose server can only be read: {serving} served, {refused} x 429, all back after {took:?}"
    );
    for proxy in &proxies {
        let log = proxy.process.err.all();
        let [down, up] = [CANNOT, CAN].map(|line| log.matches(line).count());
        assert!(down == 1 && up <= 1, "one line when it changes: {log}");
    }
    assert_eq!(refused, 0);
    assert!((1..=4).contains(&serving), "{tallies:#?}");
    assert!(took < BACK, "{took:?}");
    let load = Load::begin(&proxies);
    std::thread::sleep(MINUTE * 3);
    load.end().assert_all_answered();
    assert_eq!(simulator.of_client("rate_limited"), 0);
}

/// The store's problem, from the status.
fn problem(proxy: &Proxy) -> Option<String> {
    let status = crate::support::http::get(proxy.admin, "/api/status").json();
    let problem = status["clients"][0]["store"]["problem"].as_str()?;
    Some(problem.to_owned())
}
