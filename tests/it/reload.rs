//! Configuration and credentials change while the proxy runs: it applies them without losing a
//! request.

mod configuration;
mod credentials;

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crate::support::load::{Load, Pace};
use crate::support::proxy::message;
use crate::support::wait::now;
use crate::support::{Connection, Proxy, Simulator, until};

const TAKEN_OVER: &str = "configuration applied";
const REFUSED: &str = "configuration refused: the one before stays in force";

/// A simulated Collibra with the clients `one` and `two`, whose secrets are `first` and `second`.
fn simulator() -> Simulator {
    Simulator::with(&["--client", "one:first", "--client", "two:second"])
}

/// Files for a proxy.
struct Files(tempfile::TempDir);

impl Files {
    fn new() -> Files {
        Files(tempfile::tempdir().unwrap())
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn write(&self, name: &str, content: &str) -> &Files {
        std::fs::write(self.path(name), content).unwrap();
        self
    }

    /// Writes the configuration: the instance `url`, the client of the files `id` and `secret`, and
    /// `rest`.
    fn configure(&self, url: &str, rest: &str) -> &Files {
        let text = format!(
            r#"
[instance.acme]
url = "{url}"
[client.catalog]
client_id_file = "id"
client_secret_file = "secret"
[admin]
address = "127.0.0.1:0"
[listener.local]
address = "127.0.0.1:0"
{rest}
"#
        );
        self.write("proxy.toml", &text)
    }

    /// Starts a proxy with the configuration; it holds a token.
    fn serve(&self) -> Proxy {
        let proxy = Proxy::by_file(&self.path("proxy.toml")).start();
        proxy.has_token();
        proxy
    }
}

/// The client `one` at its own simulator.
fn one() -> (Simulator, Files, Proxy) {
    let simulator = simulator();
    let files = Files::new();
    files.write("id", "one\n").write("secret", "first\n");
    let proxy = files.configure(&simulator.url(), "").serve();
    (simulator, files, proxy)
}

/// Waits for the nth log line that contains `said`.
fn said(proxy: &Proxy, said: &str, nth: usize) {
    let printed = &proxy.process.err;
    printed.wait_for_nth(said, nth, |line| message(line, said));
}

/// How many log lines contain `said`.
fn times_said(proxy: &Proxy, said: &str) -> usize {
    let printed = proxy.process.err.all();
    printed
        .lines()
        .filter_map(|line| message(line, said))
        .count()
}

/// Apps that send about 200 calls a second, half of them on new connections.
struct Apps(Load);

impl Apps {
    fn start(proxy: &Proxy) -> Apps {
        let pace = Pace {
            callers: 8,
            every: Duration::from_millis(40),
            fresh: 2,
            ..Pace::default()
        };
        Apps(Load::start(&[proxy.address], pace))
    }

    /// Waits for `more` responses.
    fn answered(&self, more: u64) {
        self.0.answered(more);
    }

    /// Stops them, and asserts that no call failed or had to wait.
    fn lost_nothing(self) {
        let longest = self.0.lost_nothing().longest;
        assert!(longest < Duration::from_secs(5), "{longest:?}");
    }
}
