//! Processes that end with the benchmark, and their resource usage.

use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::time::Duration;

use serde_json::Value;

use super::{CLIENT_SECRET, now};

/// The program under test by default.
pub(crate) const BINARY: &str = env!("CARGO_BIN_EXE_collibra-auth-proxy");

/// The timeout of a process's start.
const START: Duration = Duration::from_secs(20);

/// Clock ticks per second, which Linux fixes for user space on every architecture.
const TICKS: f64 = 100.0;

/// A process that is killed when this is dropped.
pub(crate) struct Process(pub(crate) Child);

impl Process {
    /// The processor time used so far, in seconds, by the program, its children, and the kernel for
    /// them.
    pub(crate) fn processor_seconds(&self) -> f64 {
        let ticks: u64 = tree(self.0.id()).into_iter().map(ticks).sum();
        ticks as f64 / TICKS
    }

    /// Resident memory of the program and its child processes, in MB.
    pub(crate) fn resident_megabytes(&self) -> f64 {
        self.megabytes("VmRSS:")
    }

    /// The peak of its resident memory.
    pub(crate) fn peak_megabytes(&self) -> f64 {
        self.megabytes("VmHWM:")
    }

    fn megabytes(&self, field: &str) -> f64 {
        let processes = tree(self.0.id()).into_iter();
        let kilobytes: f64 = processes.map(|id| kilobytes(id, field)).sum();
        kilobytes / 1024.0
    }
}

/// The ids of a process and its descendants.
fn tree(id: u32) -> Vec<u32> {
    let mut found = vec![id];
    let mut at = 0;
    while let Some(id) = found.get(at) {
        let tasks = fs::read_dir(format!("/proc/{id}/task"))
            .into_iter()
            .flatten();
        let children: Vec<u32> = tasks
            .filter_map(|task| fs::read_to_string(task.ok()?.path().join("children")).ok())
            .flat_map(|ids| {
                let ids = ids.split_whitespace().filter_map(|id| id.parse().ok());
                ids.collect::<Vec<_>>()
            })
            .collect();
        found.extend(children);
        at += 1;
    }
    found
}

/// User and system time, in ticks.
fn ticks(id: u32) -> u64 {
    let stat = fs::read_to_string(format!("/proc/{id}/stat")).unwrap();
    // the name, in brackets, may contain spaces
    let (_, rest) = stat.rsplit_once(')').unwrap();
    let fields = rest.split_whitespace().skip(11).take(2);
    fields.map(|field| field.parse::<u64>().unwrap()).sum()
}

fn kilobytes(id: u32, field: &str) -> f64 {
    let status = fs::read_to_string(format!("/proc/{id}/status")).unwrap();
    let mut lines = status.lines();
    let value = lines.find_map(|line| line.strip_prefix(field)).unwrap();
    value.trim_end_matches("kB").trim().parse().unwrap()
}

impl Drop for Process {
    fn drop(&mut self) {
        // it may have ended by itself
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Starts the simulated Collibra; returns its address.
pub(crate) fn simulator(arguments: &[&str]) -> (Process, SocketAddr) {
    let mut child = Command::new(BINARY)
        .args(["simulate", "--listen", "127.0.0.1:0"])
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let out = child.stdout.take().unwrap();
    let address = listen(out, |line| {
        let (_, url) = line.split_once("http://")?;
        url.trim().parse().ok()
    });
    (Process(child), address)
}

/// Starts `binary serve`; returns its listener's address, and how long it took to report it.
pub(crate) fn proxy(binary: &str, arguments: &[&str]) -> (Process, SocketAddr, Duration) {
    let begin = now();
    let mut child = Command::new(binary)
        .arg("serve")
        .args(arguments)
        .args(["--log-format", "json"])
        .env("COLLIBRA_CLIENT_SECRET", CLIENT_SECRET)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let err = child.stderr.take().unwrap();
    let address = listen(err, |line| {
        let line: Value = serde_json::from_str(line).ok()?;
        let listens = line["message"] == "listening";
        line["address"].as_str().filter(|_| listens)?.parse().ok()
    });
    (Process(child), address, now() - begin)
}

/// Reads lines until `found` returns something, and then to the end, so that the process never
/// blocks.
pub(crate) fn listen<T: Send + 'static>(
    from: impl Read + Send + 'static,
    found: impl Fn(&str) -> Option<T> + Send + 'static,
) -> T {
    let (said, heard) = mpsc::channel();
    std::thread::spawn(move || {
        let mut from = BufReader::with_capacity(1 << 16, from);
        let mut line = String::new();
        loop {
            line.clear();
            match from.read_line(&mut line) {
                Ok(1..) => {}
                _ => return,
            }
            if let Some(found) = found(&line) {
                let _ = said.send(found);
                break;
            }
        }
        // discarded by the kernel at the lowest cost
        let _ = std::io::copy(&mut from, &mut std::io::sink());
    });
    heard.recv_timeout(START).expect("the process starts")
}
