//! The proxy: its process, its log, and what it says of itself.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use kit::process::{Printed, program};
use rustix::process::{Pid, Resource, Rlimit, prlimit};
use serde_json::Value;

const PATIENCE: Duration = Duration::from_secs(20);

/// A running `serve`.
pub(crate) struct Proxy {
    running: kit::Proxy,
    /// Its log.
    pub(crate) log: Log,
    /// Where apps are served.
    pub(crate) address: SocketAddr,
    /// Its admin address.
    pub(crate) admin: SocketAddr,
}

/// What it says of itself in the three places where people look.
#[derive(Debug)]
pub(crate) struct Said {
    /// `GET /api/status`: what the page shows.
    pub(crate) api: Value,
    /// `collibra-auth-proxy status`.
    pub(crate) table: String,
    /// `GET /readyz?verbose`.
    pub(crate) verbose: String,
}

impl Said {
    /// The one client.
    pub(crate) fn client(&self) -> &Value {
        &self.api["clients"][0]
    }

    /// Whether both texts have `text` in them.
    pub(crate) fn have(&self, text: &str) -> bool {
        self.table.contains(text) && self.verbose.contains(text)
    }
}

impl Proxy {
    /// Starts it with the configuration file `config`, by `wrapper`.
    pub(crate) fn start(config: &Path, wrapper: &[String]) -> Proxy {
        let wrapper: Vec<&str> = wrapper.iter().map(String::as_str).collect();
        let builder = kit::Proxy::by_file(config);
        let builder = match wrapper.is_empty() {
            true => builder,
            false => builder.by(&wrapper),
        };
        let running = builder.without_access_lines().start();
        running.has_token();
        Proxy {
            address: running.address,
            admin: running.admin,
            log: Log(running.process.err.clone()),
            running,
        }
    }

    /// The process's id.
    pub(crate) fn id(&self) -> u32 {
        self.running.process.id()
    }

    /// Resident memory, in MB.
    pub(crate) fn megabytes(&self) -> f64 {
        self.running.process.resident_megabytes()
    }

    /// What it says of itself.
    pub(crate) fn said(&self) -> Said {
        let admin = format!("http://{}", self.admin);
        let status = Command::new(program())
            .args(["status", "--admin", &admin])
            .output()
            .unwrap();
        Said {
            api: serde_json::from_str(&self.ask("/api/status")).unwrap_or_default(),
            table: String::from_utf8_lossy(&status.stdout).into_owned(),
            verbose: self.ask("/readyz?verbose"),
        }
    }

    /// A metric without labels, or with those written here.
    pub(crate) fn metric(&self, series: &str) -> f64 {
        let text = self.ask("/metrics");
        let value = text.lines().find_map(|line| {
            let (name, value) = line.rsplit_once(' ')?;
            (name == series).then(|| value.parse().ok())?
        });
        value.unwrap_or(f64::NAN)
    }

    /// The body of an answer of the admin address; empty if there is none.
    fn ask(&self, path: &str) -> String {
        let ask = || -> std::io::Result<String> {
            let mut stream = TcpStream::connect_timeout(&self.admin, PATIENCE)?;
            stream.set_read_timeout(Some(PATIENCE))?;
            let request =
                format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
            stream.write_all(request.as_bytes())?;
            let mut answer = String::new();
            stream.read_to_string(&mut answer)?;
            Ok(answer)
        };
        let answer = ask().unwrap_or_default();
        let body = answer.split_once("\r\n\r\n").map(|(_, body)| body);
        body.unwrap_or_default().to_owned()
    }

    /// Lets it open no more than `files` files, or as many as before; gives the limit that it had.
    pub(crate) fn limit_open_files(&self, files: Option<u64>) -> Option<u64> {
        let id = i32::try_from(self.id()).unwrap();
        let before = prlimit(
            Pid::from_raw(id),
            Resource::Nofile,
            Rlimit {
                current: files,
                maximum: rustix::process::getrlimit(Resource::Nofile).maximum,
            },
        );
        before.unwrap().current
    }
}

/// What was written to standard error, without the access log.
#[derive(Clone)]
pub(crate) struct Log(Printed);

impl Log {
    /// Stops reading, so that the pipe fills up; or reads on.
    pub(crate) fn pause(&self, is_paused: bool) {
        match is_paused {
            true => self.0.pause(),
            false => self.0.resume(),
        }
    }

    /// The first line whose message begins with `message`.
    pub(crate) fn find(&self, message: &str) -> Option<Value> {
        let mut lines = self.lines().into_iter();
        lines.find(|line| {
            let said = line["message"].as_str();
            said.is_some_and(|said| said.starts_with(message))
        })
    }

    /// Its warnings and errors so far, each with how often it was written, the first one first.
    pub(crate) fn warnings(&self) -> Vec<(String, usize)> {
        let mut warnings: Vec<(String, usize)> = Vec::new();
        for line in self.lines() {
            let message = line["message"].as_str().unwrap_or_default();
            if line["level"] == "INFO" {
                continue;
            }
            match warnings.iter_mut().find(|(known, _)| known == message) {
                Some((_, count)) => *count += 1,
                None => warnings.push((message.to_owned(), 1)),
            }
        }
        warnings
    }

    fn lines(&self) -> Vec<Value> {
        let text = self.0.all();
        let lines = text.lines();
        lines
            .filter_map(|line| serde_json::from_str(line).ok())
            .collect()
    }
}
