//! The commands at the simulated Collibra: list, register, show, update, delete.

use serde_json::{Value, json};

use super::{FIRST, ONE, Rig, at_a_terminal, clients, mode, text};
use crate::support::Origin;
use crate::support::origin::After;
use crate::support::process::{Ended, command, run};

fn ok(ended: &Ended) -> Value {
    assert_eq!(ended.status, 0, "{}{}", ended.out, ended.err);
    serde_json::from_str(&ended.out).unwrap_or_else(|e| panic!("{e}: {}", ended.out))
}

fn failed(ended: &Ended, status: i32, said: &str) {
    assert_eq!(ended.status, status, "{}{}", ended.out, ended.err);
    assert!(ended.err.contains(said), "{}", ended.err);
}

#[test]
fn a_client_is_registered_looked_at_changed_and_deleted() {
    for more in [&[][..], &["--platform"]] {
        let rig = Rig::new();
        let run = |words: &[&str]| clients(rig.by_admin(&[words, more].concat()));
        let file = rig.path("new.json");
        let name = "nightly export";
        let made = run(&[
            "register",
            name,
            "--software-id",
            "x",
            "--grant-type",
            "client_credentials",
            "--output",
            text(&file),
            "--json",
        ]);
        let made = ok(&made);
        assert_eq!(made.get("client_secret"), None, "{made}");
        let kept: Value = serde_json::from_str(&std::fs::read_to_string(&file).unwrap()).unwrap();
        assert_eq!(kept["client_id"], made["client_id"]);
        assert!(kept["client_secret"].as_str().unwrap().len() > 20);
        assert_eq!(mode(&file), 0o600);
        let id = made["client_id"].as_str().unwrap();

        let all = ok(&run(&["list", "--json"]));
        let names: Vec<&Value> = all
            .as_array()
            .unwrap()
            .iter()
            .map(|c| &c["client_name"])
            .collect();
        assert!(names.contains(&&json!(name)) && names.len() == 2, "{all}");
        let listed = run(&["list"]).out;
        assert!(listed.contains(id) && listed.contains(name), "{listed}");
        assert_eq!(ok(&run(&["show", id, "--json"]))["client_name"], name);

        let changed = run(&[
            "update",
            id,
            "--name",
            "weekly export",
            "--json",
            "--show-secret",
        ]);
        assert_eq!(ok(&changed)["client_name"], "weekly export");
        let again = run(&["update", id, "--name", "weekly export", "--show-secret"]);
        assert!(
            again.out.starts_with("updated; the response has no secret"),
            "{}",
            again.out
        );
        // a configuration can use the stored credentials
        rig.configure(
            "new.toml",
            &rig.simulator.url(),
            "credentials_file = \"new.json\"",
        );
        let config = rig.path("new.toml");
        let live = run_check(text(&config));
        assert_eq!(live.status, 0, "{}{}", live.out, live.err);

        assert_eq!(
            ok(&run(&["delete", id, "--yes", "--json"]))["deleted"],
            true
        );
        failed(
            &run(&["show", id]),
            1,
            "There is no client with this identifier",
        );
        failed(
            &run(&["delete", id, "--yes"]),
            1,
            "there is no client with this id",
        );
        assert_eq!(
            run_check(text(&config)).status,
            1,
            "its secret is no longer needed"
        );
    }
}

fn run_check(config: &str) -> Ended {
    run(&mut command(["check", "--live", "--config", config]))
}

#[test]
fn without_a_place_for_the_secret_nothing_is_registered() {
    let rig = Rig::new();
    let ended = clients(rig.by_admin(&["register", "nightly"]));
    failed(
        &ended,
        2,
        "give --output FILE to store it there, or --show-secret",
    );
    failed(
        &clients(rig.by_admin(&["update", ONE, "--name", "n"])),
        2,
        "nothing was done",
    );
    let there = rig.path("both.json");
    let ended = clients(rig.by_admin(&["register", "nightly", "--output", text(&there)]));
    failed(&ended, 1, "already exists");
    let nowhere = rig.path("none/new.json");
    let ended = clients(rig.by_admin(&["register", "nightly", "--output", text(&nowhere)]));
    failed(&ended, 1, "choose a directory that this user can write to");
    assert_eq!(rig.simulator.count("requests"), 0);
    assert_eq!(rig.credentials()["client_secret"], FIRST);
}

#[test]
fn whoever_may_ask_is_told_apart_from_whoever_may_not() {
    let rig = Rig::new();
    let (config, url) = (rig.path("proxy.toml"), rig.simulator.url());
    let by_client = clients([
        "list",
        "--config",
        text(&config),
        "--client",
        "catalog",
        "--json",
    ]);
    assert_eq!(ok(&by_client)[0]["client_id"], ONE);
    rig.write("token", "stale\n");
    let token = rig.path("token");
    let ended = clients(["list", "--url", &url, "--token-file", text(&token)]);
    failed(&ended, 1, "invalidToken: The access token is not known.");
    let by = |name: &str, value: &str, words: &[&str]| {
        run(command(["clients", "list", "--url", &url])
            .args(words)
            .env(name, value))
    };
    assert_eq!(
        by("COLLIBRA_PASSWORD", "admin", &["--user", "admin"]).status,
        0
    );
    failed(
        &by("COLLIBRA_PASSWORD", "guess", &["--user", "admin"]),
        1,
        "does not accept",
    );
    failed(&by("COLLIBRA_TOKEN", "stale", &[]), 1, "invalidToken");
    failed(
        &by("X", "", &["--user", "admin"]),
        2,
        "give --password-file, or set COLLIBRA_PASSWORD",
    );
    failed(&by("X", "", &["--user", "a:b"]), 2, "contain a colon");
    failed(&by("X", "", &[]), 2, "give credentials");
    failed(&by("X", "", &["--client", "catalog"]), 2, "give --config");
    failed(&clients(["list"]), 2, "say where");
    failed(
        &clients(["list", "--url", "http://acme.example", "--user", "x"]),
        78,
        "--url: http://",
    );
    let unknown = clients(["list", "--config", text(&config), "--client", "other"]);
    failed(&unknown, 2, "there is no [client.other]; there are catalog");
}

#[test]
fn two_clients_cannot_have_one_name() {
    let rig = Rig::new();
    let ended = clients(rig.by_admin(&["register", ONE, "--show-secret"]));
    failed(&ended, 1, "Another client has this name.");
    assert!(
        ended.err.contains("`clients list` shows them"),
        "{}",
        ended.err
    );
    assert_eq!(rig.clients().len(), 1);
}

#[test]
fn nothing_is_deleted_without_a_yes() {
    let rig = Rig::new();
    failed(&clients(rig.by_admin(&["delete", ONE])), 2, "give --yes");
    assert_eq!(rig.simulator.count("requests"), 0);
    for (typed, status, left) in [("", 1, 1), ("no", 1, 1), ("y", 0, 0)] {
        let typing = (true, "[y/N] ", typed);
        let mut words = vec!["clients".to_owned()];
        words.extend(rig.by_admin(&["delete", ONE]));
        let ended = at_a_terminal(typing, words);
        assert_eq!(ended.status, status, "{}", ended.out);
        assert!(ended.out.contains("Delete one (one) at "), "{}", ended.out);
        assert_eq!(rig.clients().len(), left);
    }
}

#[test]
fn a_lost_answer_is_told_from_a_refusal() {
    let rig = Rig::new();
    let origin = Origin::start(|_, _| Ok(After::Close));
    let (url, file) = (origin.url(), rig.path("new.json"));
    let words = [
        "register",
        "nightly",
        "--url",
        &url,
        "--output",
        text(&file),
    ];
    let ended = run(command(["clients"]).args(words).env("COLLIBRA_TOKEN", "t"));
    failed(&ended, 1, "nightly may be registered");
    assert_eq!(origin.requests().len(), 1, "it is sent once");
    assert_eq!(rig.left_behind(), [""; 0]);
}

#[test]
fn a_client_whose_secret_cannot_be_kept_is_deleted_again() {
    let rig = Rig::new();
    let folder = rig.path("gone");
    std::fs::create_dir(&folder).unwrap();
    let removed = folder.clone();
    let origin = Origin::start(move |request, stream| {
        let answer = if request.method() == "POST" {
            std::fs::remove_dir_all(&removed)?;
            let body = r#"{"client_id":"urn:new","client_secret":"cAnArY"}"#;
            let length = body.len();
            format!("HTTP/1.1 201 Created\r\nContent-Length: {length}\r\n\r\n{body}")
        } else {
            "HTTP/1.1 204 No Content\r\n\r\n".to_owned()
        };
        stream.write_all(answer.as_bytes())?;
        Ok(After::Close)
    });
    let (url, file) = (origin.url(), folder.join("new.json"));
    let words = [
        "register",
        "nightly",
        "--url",
        &url,
        "--output",
        text(&file),
    ];
    let ended = run(command(["clients"]).args(words).env("COLLIBRA_TOKEN", "t"));
    failed(&ended, 1, "nightly was deleted again");
    assert!(!(ended.out + &ended.err).contains("cAnArY"));
    let asked: Vec<String> = origin.requests().iter().map(|r| r.head.clone()).collect();
    assert!(
        asked[1].starts_with("DELETE /rest/auth/v1/clients/urn:new "),
        "{asked:?}"
    );
}
