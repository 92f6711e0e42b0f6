//! Highly available Redis: the primary fails over, and the fleet continues.

use std::time::Duration;

use super::load::Load;
use super::sentinels::Sentinels;
use super::server::{Kind, Server};
use super::{MINUTE, Member, fleet, holds, sharing};
use crate::support::redis::Redis;
use crate::support::wait::now;
use crate::support::{Simulator, until};

/// Three sentinels, a primary and a replica; the primary is killed under load.
#[test]
fn sentinels_name_another_primary_and_no_app_notices() {
    let (simulator, mut server, proxies) = sharing(Kind::Sentinel, 4);
    let load = Load::begin(&proxies);
    std::thread::sleep(MINUTE);
    sentinels(&mut server).kill_primary();
    std::thread::sleep(MINUTE * 10);
    load.end().assert_all_answered();
    until("a record at the new primary", || server.owner());
    assert_eq!(simulator.of_client("rate_limited"), 0);
    let before = simulator.of_client("issued");
    std::thread::sleep(MINUTE * 5);
    let issued = simulator.of_client("issued") - before;
    assert!(issued <= 3, "as many as one alone: {issued}");
    assert_eq!(simulator.of_client("rate_limited"), 0);
}

/// Three primaries with a replica each. Under load the client's slot moves to another primary,
/// which is then killed.
#[test]
fn a_slot_moves_its_new_primary_dies_and_no_app_notices() {
    let (simulator, mut server, proxies) = sharing(Kind::RedisCluster, 4);
    let load = Load::begin(&proxies);
    std::thread::sleep(MINUTE);
    move_slot(nodes(&mut server));
    std::thread::sleep(MINUTE * 5);
    let owner = until("the one with the slot", || server.owner()).port;
    let killed = nodes(&mut server)
        .iter_mut()
        .find(|node| node.port == owner);
    killed.unwrap().stop();
    std::thread::sleep(MINUTE * 10);
    load.end().assert_all_answered();
    until("a record at the new primary", || server.owner());
    assert_eq!(simulator.of_client("rate_limited"), 0);
}

/// `cargo test --test it a_failover_every_five_minutes -- --ignored --nocapture`.
#[test]
#[ignore = "five minutes"]
fn sentinels_an_hour_with_a_failover_every_five_minutes() {
    an_hour(Kind::Sentinel, |server| {
        sentinels(server).kill_primary();
        sentinels(server).restart_killed();
    });
}

/// As [`sentinels_an_hour_with_a_failover_every_five_minutes`].
#[test]
#[ignore = "five minutes"]
fn a_cluster_an_hour_with_a_failover_every_five_minutes() {
    an_hour(Kind::RedisCluster, |server| {
        let owner = until("the one with the slot", || server.owner()).port;
        let place = nodes(server).iter().position(|node| node.port == owner);
        nodes(server)[place.unwrap()].stop();
        until("another primary with the record", || {
            server.owner().filter(|node| node.port != owner)
        });
        nodes(server)[place.unwrap()].go_on();
    });
}

/// Ten proxies for an hour of Collibra's time, at twelve times real speed: a failover takes seconds
/// at any speed.
fn an_hour(kind: Kind, fail_over: impl Fn(&mut Server)) {
    let minute = Duration::from_secs(5);
    let simulator = Simulator::with(&["--speed", "12", "--lifetime", "300s"]);
    let mut server = Server::start(kind);
    let member = Member {
        minute,
        ..Member::sharing(&simulator, &server)
    };
    let proxies = fleet(&member, 10);
    proxies.iter().for_each(holds);
    let before = simulator.of_client("issued");
    let load = Load::begin(&proxies);
    let begin = now();
    let mut failovers = 0;
    while begin.elapsed() < minute * 60 {
        let next = begin + minute * 5 * (failovers + 1);
        fail_over(&mut server);
        failovers += 1;
        std::thread::sleep(next.saturating_duration_since(now()));
    }
    let tally = load.end();
    let issued = simulator.of_client("issued") - before;
    let refused = simulator.of_client("rate_limited");
    println!(
        "{kind:?}: 10 proxies, an hour, {failovers} failovers: {issued} tokens, {refused} x 429, {} calls answered, {} without a token, {:?} failed",
        tally.answers, tally.without_token, tally.failures
    );
    tally.assert_all_answered();
    assert_eq!(refused, 0);
    assert!(failovers >= 12 && issued <= 30, "{failovers} {issued}");
}

fn sentinels(server: &mut Server) -> &mut Sentinels {
    match server {
        Server::Sentinel(sentinels) => sentinels,
        _ => unreachable!(),
    }
}

fn nodes(server: &mut Server) -> &mut Vec<Redis> {
    match server {
        Server::RedisCluster(nodes) => nodes,
        _ => unreachable!(),
    }
}

/// Moves the slot of the record, with all of its keys, to another primary, as `redis-cli` does.
fn move_slot(nodes: &[Redis]) {
    let primaries: Vec<_> = nodes.iter().filter(|node| node.is_primary()).collect();
    let is_owner = |node: &&&Redis| !node.keys(":record").is_empty();
    let from = until("the one with the slot", || primaries.iter().find(is_owner));
    let to = primaries
        .iter()
        .find(|node| node.port != from.port)
        .unwrap();
    let slot = from.say(&[b"CLUSTER", b"KEYSLOT", &from.key(":record")]);
    let id = |node: &Redis| node.say(&[b"CLUSTER", b"MYID"]);
    let set = |node: &Redis, how: &[u8], id: &[u8]| {
        node.say(&[b"CLUSTER", b"SETSLOT", &slot, how, id]);
    };
    set(to, b"IMPORTING", &id(from));
    set(from, b"MIGRATING", &id(to));
    let port = to.port.to_string();
    let keys = from.say(&[b"CLUSTER", b"GETKEYSINSLOT", &slot, b"100"]);
    for key in keys
        .split(|byte| *byte == b'\n')
        .filter(|key| !key.is_empty())
    {
        from.say(&[
            b"MIGRATE",
            b"127.0.0.1",
            port.as_bytes(),
            key,
            b"0",
            b"5000",
        ]);
    }
    for node in [to, from].into_iter().chain(&primaries) {
        set(node, b"NODE", &id(to));
    }
}
