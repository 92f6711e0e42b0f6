//! The server becomes unavailable and recovers. Two minutes go unnoticed. After ten minutes as many
//! replicas continue as the pool bears, the others report it, and all recover with the server.

use std::time::Duration;

use super::load::{Load, Tally};
use super::server::{Kind, Server};
use super::{MINUTE, Member, fleet, holds};
use crate::support::relay::Relay;
use crate::support::wait::now;
use crate::support::{Proxy, Simulator};

/// How soon all must recover after the server, on a busy machine.
const BACK: Duration = Duration::from_secs(7);

/// A server that fails in one of two ways, and its own fleet.
struct Rig {
    server: Server,
    /// Drops all data; without it the server stops.
    relay: Option<Relay>,
    simulator: Simulator,
    proxies: Vec<Proxy>,
}

impl Rig {
    /// With a fleet for which a simulated minute takes that long.
    fn new(kind: Kind, swallows: bool, size: usize, minute: Duration) -> Rig {
        let server = Server::start(kind);
        let relay = swallows.then(|| Relay::to(server.port()));
        let store = relay.as_ref().map(|relay| server.store_by(relay.port));
        let speed = (60 / minute.as_secs()).to_string();
        let simulator = Simulator::with(&["--speed", &speed, "--lifetime", "300s"]);
        let member = Member {
            minute,
            store: store.unwrap_or_else(|| server.store()),
            ..Member::sharing(&simulator, &server)
        };
        let proxies = fleet(&member, size);
        proxies.iter().for_each(holds);
        // the order is settled once each has polled the server
        std::thread::sleep(Duration::from_millis(500));
        Rig {
            server,
            relay,
            simulator,
            proxies,
        }
    }

    fn goes_away(&mut self) {
        match &self.relay {
            Some(relay) => relay.swallow(true),
            None => self.server.stop(),
        }
    }

    fn comes_back(&mut self) {
        match &self.relay {
            Some(relay) => relay.swallow(false),
            None => self.server.go_on(),
        }
    }
}

/// Runs `how` with a server that stops and with one that drops all data, at the same time.
fn each(kind: Kind, size: usize, minute: Duration, how: impl Fn(Rig) + Sync) {
    let rigs = [false, true].map(|swallows| Rig::new(kind, swallows, size, minute));
    std::thread::scope(|scope| {
        for rig in rigs {
            let how = &how;
            scope.spawn(move || how(rig));
        }
    });
}

/// At twelve times real speed: finding the server again takes seconds at any speed.
pub(super) fn two_minutes_without_the_server_are_not_noticed(kind: Kind) {
    let minute = Duration::from_secs(5);
    each(kind, 4, minute, |mut rig| {
        let load = Load::begin(&rig.proxies);
        // so that the renewal falls into the outage
        std::thread::sleep(minute * 3 / 2);
        rig.goes_away();
        std::thread::sleep(minute * 2);
        rig.comes_back();
        std::thread::sleep(minute * 3 / 2);
        load.end().assert_all_answered();
        assert_eq!(rig.simulator.of_client("rate_limited"), 0);
    });
}

/// At thirty times real speed: four processes draw on the pool without knowing of each other's
/// requests, so delays of a busy machine count.
pub(super) fn ten_minutes_without_it_leave_four_that_serve_and_the_others_say_so(kind: Kind) {
    let minute = MINUTE * 2;
    each(kind, 6, minute, |mut rig| {
        let before = rig.simulator.of_client("issued");
        let load = Load::begin(&rig.proxies);
        rig.goes_away();
        // until the current token has expired
        std::thread::sleep(minute * 5);
        let first = load.each();
        let load = Load::begin(&rig.proxies);
        std::thread::sleep(minute * 5);
        let second = load.each();
        let told = |proxy: &Proxy| {
            let up = proxy.metric(rig.server.up());
            assert_eq!(up, Some(0.0));
        };
        rig.proxies.iter().for_each(told);

        rig.comes_back();
        let back = now();
        rig.proxies.iter().for_each(holds);
        let took = back.elapsed();
        let load = Load::begin(&rig.proxies);
        std::thread::sleep(minute * 3);
        load.end().assert_all_answered();

        let serving = |tallies: &[Tally]| tallies.iter().filter(|t| t.without_token == 0).count();
        let refused = rig.simulator.of_client("rate_limited");
        println!(
            "6 proxies, server away for 10 minutes: {} and then {} served all the time, {refused} x 429, {} tokens, all back after {took:?}",
            serving(&first),
            serving(&second),
            rig.simulator.of_client("issued") - before
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
