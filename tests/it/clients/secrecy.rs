//! A secret is in its destination file and nowhere else. Passwords and tokens are sent only to
//! their recipients.

use std::path::Path;

use super::{CREDENTIALS_FILE, Rig, at_a_terminal, mode, text};
use crate::support::Origin;
use crate::support::origin::{After, Gate};
use crate::support::process::{Process, command, run};
use crate::support::until;

const SECRET: &str = "cAnArY+secret/=";
const PASSWORD: &str = "cAnArY-password";
const TOKEN: &str = "cAnArY-token";
/// `admin:cAnArY-password` in Base64.
const BASIC: &str = "YWRtaW46Y0FuQXJZLXBhc3N3b3Jk";

/// A Collibra that returns secrets whenever it can, and echoes requests that it refuses.
fn origin(gate: &Gate) -> Origin {
    let gate = gate.clone();
    Origin::start(move |request, stream| {
        gate.pass();
        let client = format!(
            r#"{{"client_id":"urn:new","client_name":"n","client_id_issued_at":1,"grant_types":["g"],"client_secret":"{SECRET}"}}"#
        );
        let refused = request.target().ends_with("/refused");
        let (status, body) = match request.method() {
            _ if refused => {
                let sent = request.header("authorization").unwrap_or_default();
                let decoded = if sent.starts_with("Basic") {
                    PASSWORD
                } else {
                    ""
                };
                let said = format!("no {sent}: {decoded}");
                (
                    "401 Unauthorized",
                    format!(r#"{{"error":"x","error_description":"{said}"}}"#),
                )
            }
            "POST" => ("201 Created", client),
            "DELETE" => ("200 OK", String::new()),
            "GET" if request.target().ends_with("/clients") => {
                ("200 OK", format!(r#"{{"registrations":[{client}]}}"#))
            }
            _ => ("200 OK", client),
        };
        let length = body.len();
        write!(
            stream,
            "HTTP/1.1 {status}\r\nContent-Length: {length}\r\n\r\n{body}"
        )?;
        Ok(After::Close)
    })
}

/// The names of the files below `folder` that contain `canary`.
fn files_with(folder: &Path, canary: &str) -> Vec<String> {
    let entries = std::fs::read_dir(folder).unwrap().map(Result::unwrap);
    let with = entries.filter(|e| std::fs::read_to_string(e.path()).unwrap().contains(canary));
    with.map(|e| e.file_name().into_string().unwrap()).collect()
}

#[test]
fn no_output_log_error_or_process_list_has_a_secret() {
    let gate = Gate::default();
    gate.open();
    let origin = origin(&gate);
    let rig = Rig::bare();
    rig.write("password", PASSWORD);
    rig.write("token", TOKEN);
    let (password, token, url) = (rig.path("password"), rig.path("token"), origin.url());
    let users = ["--user", "admin", "--password-file", text(&password)];
    let tokens = ["--token-file", text(&token)];
    for (nth, by) in [&users[..], &tokens[..]].into_iter().enumerate() {
        let file = rig.path(&format!("{nth}.json"));
        let changed = rig.path(&format!("{nth}.changed.json"));
        for (words, status) in [
            (vec!["list"], 0),
            (vec!["list", "--json"], 0),
            (vec!["show", "urn:new"], 0),
            (vec!["register", "n", "--output", text(&file)], 0),
            (
                vec![
                    "update",
                    "urn:new",
                    "--name",
                    "m",
                    "--json",
                    "--output",
                    text(&changed),
                ],
                0,
            ),
            (vec!["show", "refused"], 1),
            (vec!["delete", "refused", "--yes"], 1),
            (vec!["delete", "urn:new", "--yes"], 0),
        ] {
            let mut command = command(["--log-level", "trace", "clients"]);
            let ended = run(command.args(&words).args(["--url", &url]).args(by));
            let seen = format!("{}{}", ended.out, ended.err);
            assert_eq!(ended.status, status, "{words:?}: {seen}");
            assert!(
                !seen.contains("cAnArY") && !seen.contains(BASIC),
                "{words:?}: {seen}"
            );
            assert_eq!(
                seen.contains("[redacted]"),
                status == 1,
                "{words:?}: {seen}"
            );
        }
        for path in [&file, &changed] {
            assert_eq!(mode(path), 0o600);
            std::fs::remove_file(path).unwrap();
        }
        assert_eq!(files_with(rig.files.path(), SECRET), [""; 0]);
    }
    let sent: Vec<String> = origin
        .requests()
        .iter()
        .map(|r| r.header("authorization").unwrap().to_owned())
        .collect();
    assert_eq!(sent[0], format!("Basic {BASIC}"));
    assert_eq!(sent[sent.len() - 1], format!("Bearer {TOKEN}"));
}

#[test]
fn a_secret_is_printed_only_when_that_is_asked_for() {
    let gate = Gate::default();
    gate.open();
    let (origin, rig) = (origin(&gate), Rig::bare());
    let url = origin.url();
    for form in [&[][..], &["--json"]] {
        let words = ["register", "n", "--show-secret", "--url", &url];
        let mut command = command(["--log-level", "trace", "clients"]);
        let ended = run(command.args(words).args(form).env("COLLIBRA_TOKEN", TOKEN));
        assert_eq!(ended.status, 0, "{}", ended.err);
        assert!(ended.out.contains(SECRET), "{}", ended.out);
        assert!(!ended.err.contains("cAnArY"), "{}", ended.err);
        assert!(!ended.out.contains(TOKEN), "{}", ended.out);
    }
    assert_eq!(rig.left_behind(), [""; 0]);
}

#[test]
fn the_process_list_has_none_while_a_command_runs() {
    let gate = Gate::default();
    let (origin, rig) = (origin(&gate), Rig::bare());
    let (url, file) = (origin.url(), rig.path("new.json"));
    let words = [
        "register",
        "n",
        "--url",
        &url,
        "--output",
        text(&file),
        "--user",
        "admin",
    ];
    let mut command = command(["clients"]);
    command.args(words).env("COLLIBRA_PASSWORD", PASSWORD);
    let mut process = Process::spawn(&mut command);
    until("the registration", || {
        (!origin.requests().is_empty()).then_some(())
    });
    let of = |name: &str| std::fs::read(format!("/proc/{}/{name}", process.id())).unwrap();
    for name in ["cmdline", "comm", "stat", "status"] {
        let seen = String::from_utf8_lossy(&of(name)).into_owned();
        assert!(!seen.contains("cAnArY"), "{name}: {seen}");
    }
    gate.open();
    assert_eq!(process.ended_within(crate::support::PATIENCE), 0);
    assert_eq!(files_with(rig.files.path(), SECRET), ["new.json"]);
}

#[test]
fn a_password_is_asked_for_without_an_echo() {
    let rig = Rig::new();
    let wanted = "admin";
    let typing = (false, "Password of admin: ", wanted);
    let url = rig.simulator.url();
    let words = ["clients", "list", "--url", &url, "--user", "admin"];
    let ended = at_a_terminal(typing, words);
    assert_eq!(ended.status, 0, "{}{}", ended.out, ended.err);
    assert!(ended.out.contains("client_credentials"), "{}", ended.out);
    assert_eq!(
        ended.out.matches(wanted).count(),
        1,
        "in the prompt only: {}",
        ended.out
    );
}

#[test]
fn a_rotation_leaves_its_secrets_in_their_files_alone() {
    let rig = Rig::new();
    rig.configure("proxy.toml", &rig.simulator.url(), CREDENTIALS_FILE);
    let config = rig.path("proxy.toml");
    let old = rig.credentials()["client_secret"]
        .as_str()
        .unwrap()
        .to_owned();
    let words = [
        "rotate",
        "--client",
        "catalog",
        "--no-running-proxy",
        "--config",
        text(&config),
    ];
    let ended = run(command(["--log-level", "trace", "clients"]).args(words));
    assert_eq!(ended.status, 0, "{}", ended.err);
    let new = rig.credentials()["client_secret"]
        .as_str()
        .unwrap()
        .to_owned();
    assert_ne!(old, new);
    let seen = ended.out + &ended.err;
    for secret in [old.as_str(), &new] {
        assert!(!seen.contains(secret), "{seen}");
    }
    assert_eq!(files_with(rig.files.path(), &new), ["both.json"]);
    assert_eq!(files_with(rig.files.path(), &format!("\"{old}\"")), [""; 0]);
}
