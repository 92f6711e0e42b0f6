//! A proxy under test.

use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;

use serde_json::Value;

use super::http::{self, Answer, Connection};
use super::process::{self, Process};
use super::simulator::{CLIENT_ID, CLIENT_SECRET};
use super::until;

/// A running `serve`.
pub struct Proxy {
    /// The process.
    pub process: Process,
    /// Where apps are served.
    pub address: SocketAddr,
    /// Its admin address.
    pub admin: SocketAddr,
    _files: Option<tempfile::TempDir>,
}

/// A proxy to be started.
pub struct Builder {
    command: Command,
    keep: fn(&str) -> bool,
    files: Option<tempfile::TempDir>,
}

impl Proxy {
    /// In front of the instance `url`, with the simulator's default client.
    pub fn to(url: &str) -> Builder {
        let mut builder = Builder::empty();
        builder.command.args([
            "--upstream",
            url,
            "--listen",
            "127.0.0.1:0",
            "--admin",
            "127.0.0.1:0",
        ]);
        builder
            .variable("COLLIBRA_CLIENT_ID", CLIENT_ID)
            .variable("COLLIBRA_CLIENT_SECRET", CLIENT_SECRET)
    }

    /// As [`Proxy::to`], with additional keys in the tables of the instance and the listener.
    pub fn configured(url: &str, instance: &str, listener: &str) -> Builder {
        let text = format!(
            r#"
[instance.acme]
url = "{url}"
{instance}
[client.catalog]
client_id = "{CLIENT_ID}"
client_secret = "{CLIENT_SECRET}"
[listener.local]
address = "127.0.0.1:0"
{listener}
[admin]
address = "127.0.0.1:0"
"#
        );
        Proxy::by_text(&text)
    }

    /// With this text as configuration file.
    pub fn by_text(text: &str) -> Builder {
        let (folder, path) = super::file("proxy.toml", text.as_bytes());
        let mut builder = Proxy::by_file(&path);
        builder.files = Some(folder);
        builder
    }

    /// With the configuration file at `path`.
    pub fn by_file(path: &Path) -> Builder {
        Builder::empty().file("--config", path)
    }

    /// Waits until it has received a token.
    pub fn has_token(&self) {
        self.process.err.wait_for("a token", |line| {
            message(line, "token received").map(|_| ())
        });
    }

    /// Sends `GET path` on a new connection.
    pub fn get(&self, path: &str) -> Answer {
        http::get(self.address, path)
    }

    /// A new connection to it.
    pub fn connect(&self) -> Connection {
        Connection::open(self.address)
    }

    /// Sends `request` on a new connection, with `{host}` replaced by the proxy's address and line
    /// feeds by CRLF; returns one response.
    pub fn ask(&self, request: &str) -> Answer {
        let mut connection = self.connect();
        connection.send(self.bytes(request));
        connection.answer(request)
    }

    /// What [`Proxy::ask`] sends for `request`.
    pub fn bytes(&self, request: &str) -> Vec<u8> {
        request
            .replace("{host}", &self.address.to_string())
            .replace('\n', "\r\n")
            .into_bytes()
    }

    /// The sum of the series that a selector such as `name{label="value"}` picks, as in PromQL;
    /// `None` if there is no such series.
    pub fn metric(&self, selector: &str) -> Option<f64> {
        let (name, wanted) = labels(selector);
        let text = http::get(self.admin, "/metrics").text();
        let values = text.lines().filter_map(|line| {
            let (series, value) = line.rsplit_once(' ')?;
            let (of, has) = labels(series);
            let is_picked = of == name && wanted.iter().all(|label| has.contains(label));
            is_picked.then(|| value.parse::<f64>().ok())?
        });
        values.reduce(|sum, value| sum + value)
    }

    /// Waits until a metric has this value.
    pub fn metric_becomes(&self, name_and_labels: &str, value: f64) {
        until(&format!("{name_and_labels} {value}"), || {
            (self.metric(name_and_labels) == Some(value)).then_some(())
        });
    }
}

impl Builder {
    fn empty() -> Builder {
        Builder {
            command: process::command(["serve"]),
            keep: |_| true,
            files: None,
        }
    }

    /// With a flag and its value.
    pub fn flag(mut self, name: &str, value: &str) -> Builder {
        self.command.args([name, value]);
        self
    }

    /// With a flag that names a file.
    pub fn file(mut self, name: &str, path: &Path) -> Builder {
        self.command.arg(name).arg(path);
        self
    }

    /// Runs it by `wrapper`, a program and its arguments, with only `PATH` and the given variables
    /// in the environment.
    pub fn by(mut self, wrapper: &[&str]) -> Builder {
        let mut command = Command::new(wrapper[0]);
        command.args(&wrapper[1..]).arg(self.command.get_program());
        command.args(self.command.get_args()).env_clear();
        let given = self.command.get_envs();
        command.envs(given.filter_map(|(name, value)| Some((name, value?))));
        command.env("PATH", std::env::var_os("PATH").unwrap_or_default());
        self.command = command;
        self
    }

    /// Runs another build of the program, at `path`.
    pub fn program(mut self, path: &Path) -> Builder {
        let mut command = Command::new(path);
        command.args(self.command.get_args());
        for (name, value) in self.command.get_envs() {
            match value {
                Some(value) => command.env(name, value),
                None => command.env_remove(name),
            };
        }
        self.command = command;
        self
    }

    /// Does not keep what it writes to the access log.
    pub fn without_access_lines(mut self) -> Builder {
        self.keep = |line| !line.contains("\"target\":\"access\"");
        self
    }

    /// With a variable.
    pub fn variable(mut self, name: &str, value: &str) -> Builder {
        self.command.env(name, value);
        self
    }

    /// Without a variable.
    pub fn without(mut self, name: &str) -> Builder {
        self.command.env_remove(name);
        self
    }

    /// Starts it; it is reachable afterwards, with or without a token.
    pub fn start(self) -> Proxy {
        self.start_with_log("json")
    }

    /// As [`Builder::start`], with this log format: `json` or `text`.
    pub fn start_with_log(mut self, format: &str) -> Proxy {
        self.command.args(["--log-format", format]);
        let process = Process::watched(&mut self.command, self.keep);
        let address = |said: &str| {
            process.err.wait_for(said, |line| match format {
                "json" => message(line, said)?["address"].as_str()?.parse().ok(),
                _ => {
                    let after = line.split_once(said)?.1.split_once("address=")?.1;
                    after.split_whitespace().next()?.parse().ok()
                }
            })
        };
        Proxy {
            address: address("listening"),
            admin: address("admin address open"),
            process,
            _files: self.files,
        }
    }
}

/// Parses a JSON log line, if it contains `said`.
pub fn message(line: &str, said: &str) -> Option<Value> {
    let line: Value = serde_json::from_str(line).ok()?;
    (line["message"] == said).then_some(line)
}

/// The name of a series and its labels, each as it is written. No value here has a comma in it.
fn labels(series: &str) -> (&str, Vec<&str>) {
    match series.split_once('{') {
        Some((name, labels)) => (name, labels.trim_end_matches('}').split(',').collect()),
        None => (series, Vec::new()),
    }
}
