//! A rotation replaces a client by a successor: no request is lost, and one client is left.

use std::path::Path;

use serde_json::json;

use super::{CREDENTIALS_FILE, FIRST, ONE, Rig, mode, text};
use crate::support::Origin;
use crate::support::http;
use crate::support::origin::After;
use crate::support::process::{self, Ended, Process};
use crate::support::proxy::Proxy;
use crate::support::wait::now;
use crate::support::{PATIENCE, until};

/// Runs a rotation with the configuration `proxy.toml`, for `proxies` and with `more` arguments.
fn rotate(rig: &Rig, proxies: &[&Proxy], more: &[&str]) -> Ended {
    process::run(&mut command(rig, proxies, more))
}

/// The command of such a rotation.
fn command(rig: &Rig, proxies: &[&Proxy], more: &[&str]) -> std::process::Command {
    let config = rig.path("proxy.toml");
    let mut words = vec!["rotate", "--client", "catalog", "--config", text(&config)];
    let admins: Vec<String> = proxies.iter().map(|p| p.admin.to_string()).collect();
    words.extend(admins.iter().flat_map(|admin| ["--admin", admin]));
    words.extend(more);
    let mut command = process::command(["clients"]);
    command.args(words);
    command
}

#[test]
fn under_500_requests_a_second_through_two_proxies_none_is_lost() {
    let rig = Rig::new();
    let (one, two) = (rig.proxy(), rig.proxy());
    let begin = now();
    let load = super::apps(&[one.address, two.address], 250);
    load.answered(500);
    let ended = rotate(&rig, &[&one, &two], &[]);
    assert_eq!(ended.status, 0, "{}{}", ended.out, ended.err);
    load.answered(500);
    let tally = load.tally();
    tally.assert_all_answered();
    let a_second = tally.answers as f64 / begin.elapsed().as_secs_f64();
    // a much lower rate means that the machine was too busy for a valid result
    assert!(a_second > 100.0, "{a_second}: {tally:?}");
    eprintln!("{} answers, {a_second:.0} a second", tally.answers);

    rig.assert_one_client();
    let new = rig.credentials()["client_id"].as_str().unwrap().to_owned();
    assert!(
        ended.out.ends_with(&format!("done: catalog is {new} now")),
        "{}",
        ended.out
    );
    let state = rig.simulator.state();
    let of_new = state["clients"][&new]["issued"].as_u64().unwrap();
    let of_old = state["token_requests"].as_u64().unwrap() - of_new;
    assert!(
        of_new <= 3 && of_old <= 3,
        "{of_old} of the old, {of_new} of the new"
    );
    assert_eq!(state["clients"][&new]["rate_limited"], 0);
    assert_eq!(state["unauthorized"], 0);
    assert_eq!(mode(&rig.path("both.json")), 0o600);
    for proxy in [one, two] {
        let status = http::get(proxy.admin, "/api/status").json();
        assert_eq!(status["clients"][0]["client_id"], new);
        assert_eq!(status["clients"][0]["token"]["client_id"], new);
    }
}

#[test]
fn two_files_change_too_and_their_modes_stay() {
    use std::os::unix::fs::PermissionsExt;

    let rig = Rig::with_two_files();
    let readable = std::fs::Permissions::from_mode(0o640);
    std::fs::set_permissions(rig.path("id"), readable).unwrap();
    let proxy = rig.proxy();
    let load = super::apps(&[proxy.address], 100);
    let ended = rotate(&rig, &[&proxy], &["--json"]);
    assert_eq!(ended.status, 0, "{}{}", ended.out, ended.err);
    let done: serde_json::Value = serde_json::from_str(&ended.out).unwrap();
    assert_eq!(done["old_client_id"], ONE);
    assert_eq!(done["client_id"], rig.credentials()["client_id"]);
    rig.assert_one_client();
    assert_eq!(
        (mode(&rig.path("id")), mode(&rig.path("secret"))),
        (0o640, 0o600)
    );
    load.answered(50);
    load.tally().assert_all_answered();
}

#[test]
fn files_behind_links_are_replaced_where_they_are() {
    use std::os::unix::fs::symlink;

    let rig = Rig::with_two_files();
    std::fs::create_dir(rig.path("..1")).unwrap();
    for name in ["id", "secret"] {
        std::fs::rename(rig.path(name), rig.path("..1").join(name)).unwrap();
        symlink(format!("..data/{name}"), rig.path(name)).unwrap();
    }
    symlink("..1", rig.path("..data")).unwrap();
    let proxy = rig.proxy();
    let ended = rotate(&rig, &[&proxy], &[]);
    assert_eq!(ended.status, 0, "{}{}", ended.out, ended.err);
    let all = rig.clients();
    assert_eq!(all.len(), 1);
    assert_eq!(all[0]["client_id"], rig.credentials()["client_id"]);
    let mut left = rig.left_behind();
    left.sort();
    assert_eq!(left, ["..1", "..data"]);
    let link = std::fs::read_link(rig.path("secret")).unwrap();
    assert_eq!(link, Path::new("..data/secret"));
}

#[test]
fn it_can_be_done_again_and_names_do_not_grow() {
    let rig = Rig::new();
    for _ in 0..2 {
        let ended = rotate(&rig, &[], &["--no-running-proxy"]);
        assert_eq!(ended.status, 0, "{}{}", ended.out, ended.err);
        rig.assert_one_client();
        let name = rig.clients()[0]["client_name"].as_str().unwrap().to_owned();
        assert_eq!(name.len(), "one (2027-01-15 08:00:00)".len(), "{name}");
        assert!(name.starts_with("one ("), "{name}");
        // names differ by the second
        let before = jiff::Timestamp::now().as_second();
        until("the next second", || {
            (jiff::Timestamp::now().as_second() > before).then_some(())
        });
    }
}

#[test]
fn a_dry_run_says_what_would_be_done_and_does_nothing() {
    let rig = Rig::new();
    let proxy = rig.proxy();
    let ended = rotate(&rig, &[&proxy], &["--dry-run"]);
    assert_eq!(ended.status, 0, "{}", ended.err);
    for said in [
        "register a successor named one (",
        "call /rest/2.0/users/current",
        "both.json",
        &proxy.admin.to_string(),
        "delete one",
    ] {
        assert!(ended.out.contains(said), "{said}: {}", ended.out);
    }
    rig.assert_one_client();
    assert_eq!(rig.credentials()["client_secret"], FIRST);
}

#[test]
fn what_is_not_in_order_stops_it_before_anything_is_changed() {
    let rig = Rig::new();
    let other = Rig::new();
    other.write(
        "both.json",
        &json!({ "client_id": "two", "client_secret": "second" }).to_string(),
    );
    let stranger = Proxy::by_file(&other.path("proxy.toml")).start();
    let nobody = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let free = nobody.local_addr().unwrap().to_string();
    drop(nobody);
    for (more, said) in [
        (vec!["--admin", &free], "nothing answers at"),
        (
            vec!["--admin", &stranger.admin.to_string()],
            "does not use one",
        ),
        (
            vec!["--no-running-proxy", "--platform", "--instance", "x"],
            "there is no [instance.x]",
        ),
    ] {
        let ended = rotate(&rig, &[], &more);
        assert_ne!(ended.status, 0);
        assert!(ended.err.contains(said), "{}", ended.err);
        rig.assert_one_client();
    }
    rig.write("proxy.toml", &format!(
        "[instance.a]\nurl = \"{}\"\n[client.catalog]\nclient_id = \"one\"\nclient_secret = \"first\"\n",
        rig.simulator.url()
    ));
    let ended = rotate(&rig, &[], &["--no-running-proxy"]);
    assert!(ended.err.contains("set credentials_file"), "{}", ended.err);
}

#[test]
fn a_proxy_that_does_not_follow_keeps_the_old_client_and_going_back_works() {
    let rig = Rig::new();
    let deaf = Rig::new();
    deaf.configure("proxy.toml", &rig.simulator.url(), CREDENTIALS_FILE);
    let proxy = deaf.proxy();
    let ended = rotate(&rig, &[&proxy], &["--timeout", "1s"]);
    assert_eq!(ended.status, 1, "{}", ended.out);
    for said in [
        "still uses the old client; check that it reads the same file",
        "to go on: run the same command again",
        "to go back: put what",
        "both.json.old",
    ] {
        assert!(ended.err.contains(said), "{said}: {}", ended.err);
    }
    assert_eq!(proxy.get("/rest/2.0/application/info").status, 200);
    assert_eq!(rig.clients().len(), 2);
    assert_eq!(mode(&rig.path("both.json.old")), 0o600);

    // revert as the message says; the successor is then an orphan, which the next run finds
    std::fs::rename(rig.path("both.json.old"), rig.path("both.json")).unwrap();
    let ended = rotate(&rig, &[], &["--no-running-proxy"]);
    assert_eq!(ended.status, 0, "{}", ended.err);
    assert!(
        ended.out.contains("its secret is lost; deleting it"),
        "{}",
        ended.out
    );
    rig.assert_one_client();
}

#[test]
fn whoever_interrupts_it_is_told_where_it_stands() {
    let rig = Rig::new();
    let deaf = Rig::new();
    deaf.configure("proxy.toml", &rig.simulator.url(), CREDENTIALS_FILE);
    let proxy = deaf.proxy();
    for name in ["INT", "TERM"] {
        let mut rotation = Process::spawn(&mut command(&rig, &[&proxy], &[]));
        rotation.out.wait_for("the wait for the proxy", |line| {
            line.contains("proxies: waiting").then_some(())
        });
        rotation.signal(name);
        assert_eq!(rotation.ended_within(PATIENCE), 1);
        let said = rotation.err.all();
        assert!(said.starts_with("interrupted"), "{said}");
        assert!(
            said.contains("where it stands: the successor's credentials are in"),
            "{said}"
        );
        // revert again, so that it waits for the proxy once more
        std::fs::rename(rig.path("both.json.old"), rig.path("both.json")).unwrap();
    }
}

#[test]
fn a_successor_that_works_nowhere_is_not_put_in_place() {
    let rig = Rig::new();
    rig.simulator.fault("api", "status:403");
    let ended = rotate(&rig, &[], &["--no-running-proxy"]);
    assert_eq!(ended.status, 1, "{}", ended.out);
    assert!(ended.err.contains("403"), "{}", ended.err);
    assert_eq!(rig.credentials()["client_id"], ONE);
    assert!(
        ended.err.contains("where it stands: nothing was changed"),
        "{}",
        ended.err
    );

    let sound = Rig::new();
    let probe = ["--no-running-proxy", "--probe", "/_status/403"];
    let ended = rotate(&sound, &[], &probe);
    assert_eq!(ended.status, 1, "{}", ended.out);
    assert!(
        ended.err.contains("choose another path with --probe"),
        "{}",
        ended.err
    );
    assert!(
        ended.err.contains("to go back: `clients delete"),
        "{}",
        ended.err
    );
    assert_eq!(sound.credentials()["client_id"], ONE);
    let ended = rotate(&sound, &[], &["--no-running-proxy"]);
    assert_eq!(ended.status, 0, "{}", ended.err);
    sound.assert_one_client();
}

#[test]
fn a_refused_registration_leaves_no_trace() {
    let rig = Rig::new();
    let origin = Origin::start(|request, stream| {
        let (status, body) = match request.method() {
            "GET" => (
                "200 OK",
                r#"{"registrations":[{"client_id":"one","client_name":"n"}]}"#,
            ),
            _ => ("403 Forbidden", ""),
        };
        let length = body.len();
        write!(
            stream,
            "HTTP/1.1 {status}\r\nContent-Length: {length}\r\n\r\n{body}"
        )?;
        Ok(After::Close)
    });
    rig.configure("proxy.toml", &origin.url(), CREDENTIALS_FILE);
    let ended = rotate(&rig, &[], &["--no-running-proxy"]);
    assert_eq!(ended.status, 1);
    assert!(
        ended.err.contains("the caller may not do this"),
        "{}",
        ended.err
    );
    assert!(ended.err.contains("nothing was changed"), "{}", ended.err);
    assert_eq!(rig.left_behind(), [""; 0]);
}
