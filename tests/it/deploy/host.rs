//! The files for a host: systemd's unit, the Debian package, launchd's property list.

use std::fs;
use std::process::Command;

use serde_json::Value;

use super::{printed, python, run, top};
use crate::support::process;

const UNIT: &str = "deploy/systemd/collibra-auth-proxy.service";
const SOCKET: &str = "deploy/systemd/collibra-auth-proxy.socket";
const TMPFILES: &str = "deploy/systemd/collibra-auth-proxy.tmpfiles";
const CONFIGURATION: &str = "deploy/systemd/collibra-auth-proxy.toml";

fn text(path: &str) -> String {
    fs::read_to_string(top().join(path)).unwrap()
}

/// The values of a unit's key, in order.
fn of_unit(key: &str) -> Vec<String> {
    let unit = text(UNIT);
    let lines = unit.lines().filter_map(|line| line.split_once('='));
    let found = lines.filter(|(name, _)| *name == key);
    found.map(|(_, value)| value.to_owned()).collect()
}

#[test]
fn the_unit_is_exposed_by_1_5_at_most() {
    let output = run(Command::new("systemd-analyze")
        .args(["security", "--offline=true", "--threshold=15", "--no-pager"])
        .arg(top().join(UNIT)));
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(said.contains("Overall exposure level"), "{said}");
    assert!(output.status.success(), "{said}");
}

#[test]
fn the_unit_is_sound() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("collibra-auth-proxy.service");
    let socket = folder.path().join("collibra-auth-proxy.socket");
    let here = env!("CARGO_BIN_EXE_collibra-auth-proxy");
    let unit = text(UNIT).replace("/usr/bin/collibra-auth-proxy", here);
    assert!(unit.contains(here));
    fs::write(&path, unit).unwrap();
    fs::write(&socket, text(SOCKET)).unwrap();
    let output = run(Command::new("systemd-analyze")
        .args(["verify", "--man=no"])
        .args([&path, &socket]));
    let said = String::from_utf8_lossy(&output.stderr);
    let ours: Vec<_> = said
        .lines()
        .filter(|line| line.contains("collibra"))
        .collect();
    assert!(ours.is_empty(), "{ours:?}");
    assert!(output.status.success(), "{said}");
}

#[test]
fn the_service_starts_with_the_configuration_that_is_installed() {
    let metadata: toml::Table = text("Cargo.toml").parse().unwrap();
    let deb = &metadata["package"]["metadata"]["deb"];
    let installed = deb["conf-files"][0].as_str().unwrap();
    let start = of_unit("ExecStart").remove(0);
    assert!(
        start.ends_with(&format!("serve --config {installed}")),
        "{start}"
    );
    let reload = of_unit("ExecReload").remove(0);
    assert_eq!(reload, start.replace(" serve ", " check "));

    // the service can read the files that it names, and systemd creates the directory that it
    // writes
    let root = tempfile::tempdir().unwrap();
    let mut configuration = text(CONFIGURATION);
    let made = text(TMPFILES);
    let made = made.lines().filter(|line| line.starts_with("d "));
    let made: Vec<_> = made.filter_map(|line| line.split(' ').nth(1)).collect();
    for name in ["client_id", "client_secret"] {
        let named = format!("{}/{name}", made[0]);
        assert!(configuration.contains(&format!("\"{named}\"")), "{named}");
        let path = root.path().join(name);
        fs::write(&path, "something").unwrap();
        configuration = configuration.replace(&named, path.to_str().unwrap());
    }
    assert_eq!(made[1], format!("/run/{}", of_unit("RuntimeDirectory")[0]));
    let state = format!("/var/lib/{}/", of_unit("StateDirectory")[0]);
    assert!(configuration.contains(&state));
    let here = format!("{}/", root.path().display());
    let path = root.path().join("proxy.toml");
    fs::write(&path, configuration.replace(&state, &here)).unwrap();
    let ended = process::run(process::command(["check", "--config"]).arg(path));
    assert_eq!(ended.status, 0, "{}", ended.err);
}

#[test]
fn the_socket_is_that_of_the_listener_that_is_installed() {
    let configuration: toml::Table = text(CONFIGURATION).parse().unwrap();
    let socket = text(SOCKET);
    let of_socket = |key: &str| {
        let mut lines = socket.lines().filter_map(|line| line.split_once('='));
        lines.find(|(name, _)| *name == key).unwrap().1
    };
    let listener = &configuration["listener"][of_socket("FileDescriptorName")];
    assert_eq!(
        listener["address"].as_str(),
        Some(of_socket("ListenStream"))
    );
}

#[test]
fn the_package_is_made_of_files_that_are_there() {
    let metadata: toml::Table = text("Cargo.toml").parse().unwrap();
    let deb = &metadata["package"]["metadata"]["deb"];
    let assets = deb["assets"].as_array().unwrap();
    let sources = assets.iter().map(|asset| asset[0].as_str().unwrap());
    // files below target are created by the script
    let mut found: Vec<_> = sources
        .filter(|path| !path.starts_with("target/"))
        .collect();
    found.push(deb["maintainer-scripts"].as_str().unwrap());
    for path in found {
        // of a pattern, the folder
        let path = path.split_once('*').map_or(path, |(folder, _)| folder);
        assert!(top().join(path).exists(), "{path}");
    }
    // cargo-deb restarts every unit that it knows, and a restart of the socket unit drops the
    // callers in its queue
    assert!(deb.get("systemd-units").is_none());
    for name in ["postinst", "prerm"] {
        let script = text(&format!("deploy/debian/{name}"));
        assert!(
            !script.contains("restart collibra-auth-proxy.socket"),
            "{script}"
        );
    }
    let user = of_unit("User").remove(0);
    let made = text("deploy/systemd/collibra-auth-proxy.sysusers");
    assert!(
        made.lines()
            .any(|line| line.starts_with(&format!("u {user} ")))
    );
}

#[test]
fn launchd_is_given_what_systemd_is() {
    let path = top().join("deploy/launchd/com.collibra-auth-proxy.plist");
    let read =
        "import json, plistlib, sys; print(json.dumps(plistlib.load(open(sys.argv[1], 'rb'))))";
    let list = printed(Command::new(python()).args(["-c", read]).arg(path));
    let list: Value = serde_json::from_str(&list).unwrap();
    let words: Vec<_> = super::objects::list(&list["ProgramArguments"]).collect();
    assert_eq!(words[1..3], ["serve", "--config"]);
    assert_eq!(list["KeepAlive"]["SuccessfulExit"], false);
    // both wait longer than the program drains
    assert_eq!(list["ExitTimeOut"], 25);
    assert_eq!(of_unit("TimeoutStopSec"), ["25s"]);
    // 0077; a property list can only express it in decimal
    assert_eq!(list["Umask"], 0o77);
}
