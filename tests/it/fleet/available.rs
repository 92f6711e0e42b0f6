//! Highly available Redis: the primary fails over, and the fleet continues.

use super::load::Load;
use super::{MINUTE, Member, collibra, fleet, holds};
use crate::support::redis::Redis;
use crate::support::{Simulator, until};

fn member(simulator: &Simulator, url: String) -> Member<'_> {
    Member {
        simulator,
        store: format!("kind = \"redis\"\nurl = \"{url}\""),
        secret: crate::support::simulator::CLIENT_SECRET,
        minute: MINUTE,
    }
}

/// Three sentinels, a primary and a replica; the primary is killed under load.
#[test]
fn sentinels_name_another_primary_and_no_app_notices() {
    let mut primary = Redis::start();
    let at = primary.port.to_string();
    let replica = Redis::with(&["--replicaof", &format!("127.0.0.1 {at}")]);
    until("a replica that is in step", || {
        let said = replica.say(&[b"INFO", b"replication"]);
        let said = String::from_utf8_lossy(&said).into_owned();
        said.contains("master_link_status:up").then_some(())
    });
    let sentinels: Vec<Redis> = (0..3).map(|_| Redis::sentinel(primary.port)).collect();
    until("sentinels that know each other and the replica", || {
        let know = sentinels.iter().all(|sentinel| {
            let said = sentinel.say(&[b"INFO", b"sentinel"]);
            String::from_utf8_lossy(&said).contains("slaves=1,sentinels=3")
        });
        know.then_some(())
    });
    let nodes: Vec<_> = sentinels
        .iter()
        .map(|sentinel| format!("127.0.0.1:{}", sentinel.port))
        .collect();
    let simulator = collibra();
    let url = format!("redis+sentinel://{}/main", nodes.join(","));
    let proxies = fleet(&member(&simulator, url), 4);
    proxies.iter().for_each(holds);
    let load = Load::begin(&proxies);
    std::thread::sleep(MINUTE);
    primary.stop();
    std::thread::sleep(MINUTE * 10);
    load.end().assert_all_answered();
    until("a record at the new primary", || {
        (!replica.keys(":record").is_empty()).then_some(())
    });
    assert_eq!(simulator.of_client("rate_limited"), 0);
    let before = simulator.of_client("issued");
    std::thread::sleep(MINUTE * 5);
    let issued = simulator.of_client("issued") - before;
    assert!(issued <= 3, "as many as one alone: {issued}");
    assert_eq!(simulator.of_client("rate_limited"), 0);
}

/// Three primaries with a replica each; the one with the client's slot is killed under load.
#[test]
fn a_cluster_has_another_primary_for_the_slot_and_no_app_notices() {
    let mut nodes = Redis::cluster();
    let urls: Vec<_> = nodes
        .iter()
        .map(|node| format!("127.0.0.1:{}", node.port))
        .collect();
    let simulator = collibra();
    let url = format!("redis+cluster://{}", urls.join(","));
    let proxies = fleet(&member(&simulator, url), 4);
    proxies.iter().for_each(holds);
    let load = Load::begin(&proxies);
    std::thread::sleep(MINUTE);
    let owner = until("the one with the slot", || {
        nodes.iter().position(|node| {
            let role = String::from_utf8_lossy(&node.say(&[b"ROLE"])).into_owned();
            role.contains("master") && !node.keys(":record").is_empty()
        })
    });
    nodes[owner].stop();
    std::thread::sleep(MINUTE * 10);
    load.end().assert_all_answered();
    nodes.remove(owner);
    until("a record at the new primary", || {
        let kept = nodes.iter().any(|node| {
            let role = String::from_utf8_lossy(&node.say(&[b"ROLE"])).into_owned();
            role.contains("master") && !node.keys(":record").is_empty()
        });
        kept.then_some(())
    });
    assert_eq!(simulator.of_client("rate_limited"), 0);
}
