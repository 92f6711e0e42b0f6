//! `clients`: manages a client at Collibra without ever showing its secret, and rotates it without
//! a failed request.

mod commands;
mod killed;
mod openapi;
mod relay;
mod rotation;
mod secrecy;
#[cfg(feature = "kubernetes")]
mod to_kubernetes;

use std::ffi::OsStr;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use serde_json::{Value, json};

use crate::support::load::{Load, Pace};
use crate::support::process::{self, Ended};
use crate::support::{Proxy, Simulator};

/// The first client, its name, and its secret.
const ONE: &str = "one";
const FIRST: &str = "f1rst-s3cret";

/// A simulated Collibra, and a directory with a client's credentials and configurations.
struct Rig {
    simulator: Simulator,
    files: tempfile::TempDir,
}

impl Rig {
    /// Sets up a client with a `credentials_file`.
    fn new() -> Rig {
        let rig = Rig::bare();
        let both = json!({ "client_id": ONE, "client_secret": FIRST });
        rig.write("both.json", &both.to_string());
        rig.write("password", "admin\n");
        rig.configure("proxy.toml", &rig.simulator.url(), CREDENTIALS_FILE);
        rig
    }

    /// Sets up a client with separate files for id and secret.
    fn with_two_files() -> Rig {
        let rig = Rig::bare();
        rig.write("id", ONE);
        rig.write("secret", FIRST);
        rig.write("password", "admin\n");
        rig.configure("proxy.toml", &rig.simulator.url(), TWO_FILES);
        rig
    }

    fn bare() -> Rig {
        Rig {
            simulator: Simulator::with(&["--client", &format!("{ONE}:{FIRST}")]),
            files: tempfile::tempdir().unwrap(),
        }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.files.path().join(name)
    }

    fn write(&self, name: &str, content: &str) {
        std::fs::write(self.path(name), content).unwrap();
        let private = std::fs::Permissions::from_mode(0o600);
        std::fs::set_permissions(self.path(name), private).unwrap();
    }

    /// Writes a configuration for the instance at `url`, with the `credentials` keys of its client.
    fn configure(&self, name: &str, url: &str, credentials: &str) {
        let text = format!(
            "[instance.acme]\nurl = \"{url}\"\n[client.catalog]\n{credentials}\n\
             [admin]\naddress = \"127.0.0.1:0\"\n[listener.local]\naddress = \"127.0.0.1:0\"\n"
        );
        self.write(name, &text);
    }

    /// Starts a proxy with the configuration; it holds a token.
    fn proxy(&self) -> Proxy {
        let proxy = Proxy::by_file(&self.path("proxy.toml")).start();
        proxy.has_token();
        proxy
    }

    /// The arguments of a subcommand at the simulator, as its administrator.
    fn by_admin(&self, words: &[&str]) -> Vec<String> {
        let password = self.path("password");
        let who = ["--user", "admin", "--password-file", text(&password)];
        let url = self.simulator.url();
        let at = ["--url", &url];
        let words = words.iter().chain(&at).chain(&who);
        words.map(|word| (*word).to_owned()).collect()
    }

    /// All registered clients, from `clients list --json`.
    fn clients(&self) -> Vec<Value> {
        let ended = clients(self.by_admin(&["list", "--json"]));
        assert_eq!(ended.status, 0, "{}", ended.err);
        serde_json::from_str(&ended.out).unwrap()
    }

    /// The current credentials, as JSON.
    fn credentials(&self) -> Value {
        if self.path("both.json").exists() {
            let text = std::fs::read_to_string(self.path("both.json")).unwrap();
            return serde_json::from_str(&text).unwrap();
        }
        let read = |name| std::fs::read_to_string(self.path(name)).unwrap();
        json!({ "client_id": read("id"), "client_secret": read("secret") })
    }

    /// The names of new files.
    fn left_behind(&self) -> Vec<String> {
        let entries = std::fs::read_dir(self.files.path()).unwrap();
        let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
        names
            .filter(|name| {
                let expected = ["both.json", "id", "secret", "password"];
                !expected.contains(&name.as_str()) && !name.ends_with(".toml")
            })
            .collect()
    }

    /// Asserts that one client is left, with the current credentials, and nothing of a rotation.
    fn assert_one_client(&self) {
        let all = self.clients();
        assert_eq!(all.len(), 1, "{all:?}");
        assert_eq!(all[0]["client_id"], self.credentials()["client_id"]);
        assert_eq!(self.left_behind(), [""; 0]);
    }
}

const CREDENTIALS_FILE: &str = "credentials_file = \"both.json\"";
const TWO_FILES: &str = "client_id_file = \"id\"\nclient_secret_file = \"secret\"";

/// Apps that call each of `proxies` so many times a second.
fn apps(proxies: &[SocketAddr], a_second: u32) -> Load {
    let callers = 10;
    let pace = Pace {
        callers,
        every: Duration::from_secs(1) * callers / a_second,
        ..Pace::default()
    };
    Load::start(proxies, pace)
}

/// Runs `clients` with these arguments.
fn clients<S: AsRef<OsStr>>(words: impl IntoIterator<Item = S>) -> Ended {
    process::run(process::command(["clients"]).args(words))
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// The mode of a file.
fn mode(path: &Path) -> u32 {
    std::fs::metadata(path).unwrap().permissions().mode() & 0o777
}

/// A program of the Python environment that `tests/setup` creates.
fn python(name: &str) -> PathBuf {
    let path = top().join("target/python/bin").join(name);
    let shown = path.display();
    assert!(
        path.exists(),
        "{shown} is missing: run tests/setup, which makes it"
    );
    path
}

fn top() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Runs the program with these arguments at a terminal and types `typed` after `prompt`; `shown`
/// says whether the terminal echoes it.
fn at_a_terminal<S: AsRef<OsStr>>(
    (shown, prompt, typed): (bool, &str, &str),
    words: impl IntoIterator<Item = S>,
) -> Ended {
    let mut script = Command::new(python("python"));
    script
        .arg(top().join("tests/python/at_a_terminal.py"))
        .args([if shown { "shown" } else { "hidden" }, prompt, typed])
        .arg(env!("CARGO_BIN_EXE_collibra-auth-proxy"))
        .args(words)
        .env_remove("COLLIBRA_PASSWORD");
    process::run(&mut script)
}
