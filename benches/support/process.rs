//! Processes that end with the benchmark, and what the system says of them.

use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::time::Duration;

use serde_json::Value;

use super::{CLIENT_SECRET, now};

/// The program under test, unless another is named.
pub(crate) const BINARY: &str = env!("CARGO_BIN_EXE_collibra-auth-proxy");

/// How long a process may take to start.
const START: Duration = Duration::from_secs(20);

/// Ticks of the processor's clock a second, as Linux tells user space on every architecture.
const TICKS: f64 = 100.0;

/// A process that ends with this.
pub(crate) struct Process(pub(crate) Child);

impl Process {
    /// Processor time used so far, by the program, its child processes and the kernel for them, in
    /// seconds.
    pub(crate) fn processor_seconds(&self) -> f64 {
        let ticks: u64 = tree(self.0.id()).into_iter().map(ticks).sum();
        ticks as f64 / TICKS
    }

    /// Resident memory of the program and its child processes, in MB.
    pub(crate) fn resident_megabytes(&self) -> f64 {
        self.megabytes("VmRSS:")
    }

    /// The most that it ever was.
    pub(crate) fn peak_megabytes(&self) -> f64 {
        self.megabytes("VmHWM:")
    }

    fn megabytes(&self, field: &str) -> f64 {
        let processes = tree(self.0.id()).into_iter();
        let kilobytes: f64 = processes.map(|id| kilobytes(id, field)).sum();
        kilobytes / 1024.0
    }
}

/// A process and all that it started, by their ids.
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
    // the name, in brackets, may have spaces in it
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

/// Starts the simulated Collibra; gives its address.
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

/// Starts `binary serve`; gives the address that its listener has, and how long it took to be told.
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

/// Reads lines until `found` finds what it looks for, and then on to the end, so that the process
/// is never held up.
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
        // what a kernel does with it is all that it costs
        let _ = std::io::copy(&mut from, &mut std::io::sink());
    });
    heard.recv_timeout(START).expect("the process starts")
}
