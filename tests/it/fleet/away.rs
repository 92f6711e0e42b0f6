//! The server goes away, and comes back: for two minutes nobody notices; for ten as many go on as
//! the pool bears, the others say so, and all are back with the server.

use std::time::Duration;

use super::load::{Load, Tally};
use super::{MINUTE, Member, fleet, holds};
use crate::support::redis::Redis;
use crate::support::relay::Relay;
use crate::support::wait::now;
use crate::support::{Proxy, Simulator};

/// How soon after the server all must be back, and what a busy machine may add.
const BACK: Duration = Duration::from_secs(7);

/// The ways in which a server goes away.
enum Server {
    /// It ends, and comes back with nothing.
    Ends(Redis),
    /// The way to it swallows everything.
    Swallowed(#[expect(dead_code, reason = "it runs")] Redis, Relay),
}

impl Server {
    /// Each way, with a fleet of its own for which a minute of Collibra's takes so long.
    fn all(size: usize, minute: Duration) -> [(Simulator, Server, Vec<Proxy>); 2] {
        let start = |url: &str| {
            let speed = (60 / minute.as_secs()).to_string();
            let simulator = Simulator::with(&["--speed", &speed, "--lifetime", "300s"]);
            let member = Member {
                minute,
                ..Member::sharing(&simulator, url)
            };
            let proxies = fleet(&member, size);
            proxies.iter().for_each(holds);
            (simulator, proxies)
        };
        let redis = Redis::start();
        let (simulator, proxies) = start(&redis.url());
        let ends = (simulator, Server::Ends(redis), proxies);
        let redis = Redis::start();
        let relay = Relay::to(redis.port);
        let (simulator, proxies) = start(&format!("redis://127.0.0.1:{}", relay.port));
        [ends, (simulator, Server::Swallowed(redis, relay), proxies)]
    }

    fn goes_away(&mut self) {
        match self {
            Server::Ends(redis) => redis.stop(),
            Server::Swallowed(_, relay) => relay.swallow(true),
        }
    }

    fn comes_back(&mut self) {
        match self {
            Server::Ends(redis) => redis.go_on(),
            Server::Swallowed(_, relay) => relay.swallow(false),
        }
    }
}

/// Has each of them go through `how` at the same time.
fn each(size: usize, minute: Duration, how: impl Fn(Simulator, Server, Vec<Proxy>) + Sync) {
    std::thread::scope(|scope| {
        for (simulator, server, proxies) in Server::all(size, minute) {
            let how = &how;
            scope.spawn(move || how(simulator, server, proxies));
        }
    });
}

/// At twelve times Collibra's speed: how soon the server is found again is a matter of seconds at any.
#[test]
fn two_minutes_without_the_server_are_not_noticed() {
    let minute = Duration::from_secs(5);
    each(4, minute, |simulator, mut server, proxies| {
        let load = Load::begin(&proxies);
        // so that the renewal falls due meanwhile
        std::thread::sleep(minute * 3 / 2);
        server.goes_away();
        std::thread::sleep(minute * 2);
        server.comes_back();
        std::thread::sleep(minute * 3 / 2);
        load.end().assert_all_answered();
        assert_eq!(simulator.of_client("rate_limited"), 0);
    });
}

#[test]
fn ten_minutes_without_it_leave_four_that_serve_and_the_others_say_so() {
    each(6, MINUTE, |simulator, mut server, proxies| {
        let before = simulator.of_client("issued");
        let load = Load::begin(&proxies);
        server.goes_away();
        // to the end of the token that was there
        std::thread::sleep(MINUTE * 5);
        let first = load.each();
        let load = Load::begin(&proxies);
        std::thread::sleep(MINUTE * 5);
        let second = load.each();
        let told = |proxy: &Proxy| {
            let up = proxy.metric(r#"collibra_auth_proxy_store_up{store="redis"}"#);
            assert_eq!(up, Some(0.0));
        };
        proxies.iter().for_each(told);

        server.comes_back();
        let back = now();
        proxies.iter().for_each(holds);
        let took = back.elapsed();
        let load = Load::begin(&proxies);
        std::thread::sleep(MINUTE * 3);
        load.end().assert_all_answered();

        let serving = |tallies: &[Tally]| tallies.iter().filter(|t| t.without_token == 0).count();
        let refused = simulator.of_client("rate_limited");
        println!(
            "6 proxies, server away for 10 minutes: {} and then {} served all the time, {refused} x 429, {} tokens, all back after {took:?}",
            serving(&first),
            serving(&second),
            simulator.of_client("issued") - before
        );
        for tally in first.iter().chain(&second) {
            assert!(tally.failures.is_empty(), "{tally:?}");
        }
        assert_eq!(refused, 0);
        assert_eq!(serving(&second), 4, "{second:#?}");
        let silent = second.iter().filter(|tally| tally.answers == 0);
        assert_eq!(silent.count(), 2, "{second:#?}");
        assert!(took < BACK, "{took:?}");
    });
}
