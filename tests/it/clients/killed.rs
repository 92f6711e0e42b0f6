//! A rotation is killed at each of its steps and run again: one working client is left, and no app
//! noticed.

use super::relay::{Point, Relay};
use super::{CREDENTIALS_FILE, Rig, TWO_FILES, clients, text};
use crate::support::process::{self, Process};

const fn before(what: &'static str, nth: usize) -> Point {
    Point {
        what,
        nth,
        carried_out: false,
    }
}

const fn after(what: &'static str, nth: usize) -> Point {
    Point {
        what,
        nth,
        carried_out: true,
    }
}

/// Kills a rotation at each of `points`, one after the other.
fn killed_at(rig: &Rig, credentials: &str, points: &[Point]) {
    let proxies = [rig.proxy(), rig.proxy()];
    let collibra = Relay::to(rig.simulator.address);
    // the second proxy is queried after the first
    let admin = Relay::to(proxies[1].admin);
    let url = format!("http://{}", collibra.address);
    rig.configure("rotate.toml", &url, credentials);
    let (config, password) = (rig.path("rotate.toml"), rig.path("password"));
    let (first, second) = (proxies[0].admin.to_string(), admin.address.to_string());
    let words = [
        "rotate",
        "--client",
        "catalog",
        "--config",
        text(&config),
        "--user",
        "admin",
        "--password-file",
        text(&password),
        "--admin",
        &first,
        "--admin",
        &second,
        "--settle",
        "1s",
    ];
    let load = super::apps(&proxies.each_ref().map(|proxy| proxy.address), 20);
    for point in points {
        let relay = if point.what == "status" {
            &admin
        } else {
            &collibra
        };
        relay.hold(*point);
        let mut rotation = Process::spawn(process::command(["clients"]).args(words));
        relay.is_held(&format!("{point:?}"));
        rotation.signal("KILL");
        assert_eq!(rotation.ended_within(crate::support::PATIENCE), 128 + 9);
        relay.pass();
        let known = rig.clients().len();
        assert!(known <= 2, "{point:?}");
        load.answered(5);

        let ended = clients(words);
        assert_eq!(ended.status, 0, "{point:?}: {}{}", ended.out, ended.err);
        rig.assert_one_client();
        let orphaned = point.what == "register" && point.carried_out;
        let named = ended
            .out
            .contains("was registered earlier, but its secret is lost");
        assert_eq!(named, orphaned, "{point:?}: {}", ended.out);
    }
    load.answered(20);
    load.tally().assert_all_answered();
    assert_eq!(rig.simulator.count("unauthorized"), 0);
}

#[test]
fn killed_until_the_successor_is_registered() {
    let points = [
        before("status", 1),
        after("list", 1),
        // before this the rotation's state is written
        before("status", 2),
        before("list", 2),
        before("register", 1),
        after("register", 1),
    ];
    killed_at(&Rig::new(), CREDENTIALS_FILE, &points);
}

#[test]
fn killed_until_the_successor_is_in_place() {
    let points = [
        // before this the successor's credentials are stored
        before("list", 3),
        before("token", 1),
        after("token", 1),
        before("probe", 1),
        after("probe", 1),
    ];
    killed_at(&Rig::new(), CREDENTIALS_FILE, &points);
}

#[test]
fn killed_until_the_old_client_is_deleted() {
    let points = [
        // before this the new credentials are in place
        before("list", 4),
        // before this one proxy still uses the old ones
        before("status", 3),
        after("status", 3),
        before("delete", 1),
        after("delete", 1),
    ];
    killed_at(&Rig::new(), CREDENTIALS_FILE, &points);
}

#[test]
fn killed_while_two_files_change() {
    let points = [
        after("register", 1),
        after("probe", 1),
        before("status", 3),
        after("delete", 1),
    ];
    killed_at(&Rig::with_two_files(), TWO_FILES, &points);
}
