//! Configuration and credentials change while the proxy runs: it applies them without losing a
//! request.

mod configuration;
mod credentials;

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use crate::support::proxy::message;
use crate::support::wait::now;
use crate::support::{Connection, Proxy, Simulator, until};

const TAKEN_OVER: &str = "configuration taken over";
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
struct Apps {
    stop: Arc<AtomicBool>,
    answered: Arc<AtomicUsize>,
    threads: Vec<JoinHandle<()>>,
}

impl Apps {
    fn start(proxy: &Proxy) -> Apps {
        let stop = Arc::new(AtomicBool::new(false));
        let answered = Arc::new(AtomicUsize::new(0));
        let address = proxy.address;
        let app = |nth: usize| {
            let (stop, answered) = (Arc::clone(&stop), Arc::clone(&answered));
            std::thread::spawn(move || {
                let mut kept = Connection::open(address);
                while !stop.load(Ordering::Relaxed) {
                    let start = now();
                    if nth.is_multiple_of(2) {
                        kept = Connection::open(address);
                    }
                    let answer = kept.get(address, "/rest/2.0/application/info");
                    assert_eq!(answer.status, 200, "{}", answer.text());
                    assert!(start.elapsed() < Duration::from_secs(5), "it had to wait");
                    if answer.header("connection") == Some("close") {
                        kept = Connection::open(address);
                    }
                    answered.fetch_add(1, Ordering::Relaxed);
                    std::thread::sleep(Duration::from_millis(40));
                }
            })
        };
        let threads = (0..8).map(app).collect();
        Apps {
            stop,
            answered,
            threads,
        }
    }

    /// Waits for `more` responses.
    fn answered(&self, more: usize) {
        let enough = self.answered.load(Ordering::Relaxed) + more;
        until("the apps' answers", || {
            let lost = self.threads.iter().any(JoinHandle::is_finished);
            let answered = self.answered.load(Ordering::Relaxed);
            (lost || answered >= enough).then_some(())
        });
    }

    /// Stops them, and asserts that no call failed.
    fn lost_nothing(self) {
        self.stop.store(true, Ordering::Relaxed);
        for app in self.threads {
            app.join().expect("an app lost a call");
        }
    }
}
