//! What is shown on a terminal fits it, and the terminal is left as it was found.

use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};

use crate::support::process::{Process, command, run};
use crate::support::{PATIENCE, Proxy, Simulator, http, until};

const USUAL: (usize, usize) = (80, 24);
const LARGE: (usize, usize) = (200, 50);

/// What a terminal showed of a program.
struct Shown(Value);

/// Runs the program with `words` on a terminal of the usual size until it shows all of `until`,
/// then on a large one if it is resized, and types `keys`.
fn shown(words: &[&str], until: &[&str], is_resized: bool, keys: &str) -> Shown {
    let top = Path::new(env!("CARGO_MANIFEST_DIR"));
    let python = top.join("target/python/bin/python");
    let mut program = vec![env!("CARGO_BIN_EXE_collibra-auth-proxy")];
    program.extend(words);
    let order = json!({
        "size": USUAL,
        "until": until,
        "resize": is_resized.then_some(LARGE),
        "keys": keys,
        "program": program,
    });
    let mut script = Command::new(python);
    script
        .arg(top.join("tests/python/on_a_screen.py"))
        .arg(order.to_string())
        .env_remove("COLUMNS");
    let ended = run(&mut script);
    assert_eq!(ended.status, 0, "{}", ended.err);
    Shown(serde_json::from_str(&ended.out).unwrap())
}

impl Shown {
    fn screen(&self, nth: usize) -> Vec<&str> {
        let lines = self.0["screens"][nth].as_array().unwrap();
        lines.iter().map(|line| line.as_str().unwrap()).collect()
    }

    /// Nothing was cut or lost, and the terminal is as it was.
    fn is_sound(&self) {
        let screens = &self.0["screens"];
        for (what, expected) in [
            ("cut", json!(0)),
            ("scrolled", json!(0)),
            ("restored", json!(true)),
            ("status", json!(0)),
        ] {
            assert_eq!(self.0[what], expected, "{what}: {screens:#}");
        }
    }
}

/// A proxy with 100 apps, each with a key of its own.
fn with_100_apps(simulator: &Simulator) -> Proxy {
    let mut apps = String::new();
    for nth in 0..100 {
        apps.push_str(&format!("[app.app-{nth:02}]\nkey_env = \"KEY_{nth}\"\n"));
    }
    let mut proxy = Proxy::configured(&simulator.url(), "", &apps);
    for nth in 0..100 {
        proxy = proxy.variable(&format!("KEY_{nth}"), &format!("key-0123456789-{nth}"));
    }
    let proxy = proxy.start();
    proxy.has_token();
    proxy
}

#[test]
fn status_watch_keeps_the_clients_in_view_with_100_apps_and_gives_the_terminal_back() {
    let simulator = Simulator::start();
    let proxy = with_100_apps(&simulator);
    let admin = proxy.admin.to_string();
    let words = ["status", "--watch", "--admin", &admin];
    // Ctrl-C as well as q
    for keys in ["q", "\u{3}"] {
        let shown = shown(&words, &["q quits", "usable", "more apps"], true, keys);
        shown.is_sound();
        for (nth, (columns, rows)) in [USUAL, LARGE].into_iter().enumerate() {
            let screen = shown.screen(nth);
            assert_eq!(screen.len(), rows);
            assert!(screen[0].ends_with(": ready"), "{screen:#?}");
            assert!(screen[3].starts_with("catalog  usable  "), "{screen:#?}");
            let apps = screen
                .iter()
                .filter(|line| line.starts_with("app-"))
                .count();
            assert!(apps >= rows - 9, "{screen:#?}");
            let left = format!("q quits, {} more apps", 100 - apps);
            assert_eq!(*screen.last().unwrap(), left, "{columns} columns");
        }
    }
}

#[test]
fn status_is_cut_to_a_terminal_and_whole_in_a_pipe() {
    let simulator = Simulator::start();
    let name = "a-client-of-a-listener-whose-name-is-as-long-as-a-name-may-be-x";
    let text = format!(
        "[instance.acme]\nurl = \"{}\"\n[client.{name}]\nclient_id = \"urn:none\"\n\
         client_secret = \"none\"\n[listener.{name}]\naddress = \"127.0.0.1:0\"\n\
         [admin]\naddress = \"127.0.0.1:0\"\n",
        simulator.url()
    );
    let proxy = Proxy::by_text(&text).start();
    let admin = proxy.admin.to_string();
    let words = ["status", "--admin", &admin];
    let whole = until("a failure", || {
        let whole = run(&mut command(words)).out;
        whole.contains("invalid_client").then_some(whole)
    });
    assert!(
        whole.lines().any(|line| line.chars().count() > 80),
        "{whole}"
    );
    assert_eq!(whole.matches(name).count(), 4, "{whole}");

    let shown = shown(&words, &["CONNECTIONS", "0/10000"], false, "");
    assert_eq!(shown.0["cut"], 0, "{:#}", shown.0["screens"]);
    let screen = shown.screen(0).join("\n");
    assert!(
        screen.contains("invalid_client") && screen.contains('…'),
        "{screen}"
    );

    let narrow = run(command(words).env("COLUMNS", "60")).out;
    let widest = narrow.lines().map(|line| line.chars().count()).max();
    assert!(widest <= Some(60), "{narrow}");
}

#[test]
fn the_demo_fits_and_says_what_to_open_and_to_call() {
    let until = ["open http://127.0.0.1:", "curl http://127.0.0.1:", "app 8"];
    let shown = shown(&["demo", "--for", "1m"], &until, true, "q");
    // its last lines stay on the terminal, below the command
    for (what, expected) in [
        ("cut", json!(0)),
        ("restored", json!(true)),
        ("status", json!(0)),
    ] {
        assert_eq!(shown.0[what], expected, "{what}: {:#}", shown.0["screens"]);
    }
    let screen = shown.screen(0);
    assert!(
        screen[0].starts_with("collibra-auth-proxy demo"),
        "{screen:#?}"
    );
    assert_eq!(
        screen
            .iter()
            .filter(|line| line.starts_with("app ") && line.ends_with(" lost"))
            .count(),
        8
    );

    let mut demo = Process::spawn(&mut command(["demo", "--for", "1m"]));
    for (what, path, expected) in [
        ("open http://", "/", "<title>"),
        ("curl http://", "/rest/2.0/communities", "\"results\""),
    ] {
        let address = demo.out.wait_for(what, |line| {
            let rest = line.strip_prefix(what)?;
            let (url, _) = rest.split_once("   ")?;
            let (address, rest) = url.split_once('/')?;
            assert!(path.ends_with(rest), "{line}");
            address.parse().ok()
        });
        let answer = http::get(address, path);
        assert_eq!(answer.status, 200, "{}", answer.text());
        assert!(answer.text().contains(expected), "{}", answer.text());
    }
    demo.signal("INT");
    assert_eq!(demo.ended_within(PATIENCE), 0);
}
