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
    /// Processor time used so far, by the program and by the kernel for it, in seconds.
    pub(crate) fn processor_seconds(&self) -> f64 {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.0.id())).unwrap();
        // the name, in brackets, may have spaces in it
        let (_, rest) = stat.rsplit_once(')').unwrap();
        let ticks: u64 = rest
            .split_whitespace()
            .skip(11)
            .take(2)
            .map(|field| field.parse::<u64>().unwrap())
            .sum();
        ticks as f64 / TICKS
    }

    /// Resident memory, in MB.
    pub(crate) fn resident_megabytes(&self) -> f64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.0.id())).unwrap();
        let line = status
            .lines()
            .find_map(|line| line.strip_prefix("VmRSS:"))
            .unwrap();
        let kilobytes: f64 = line.trim_end_matches("kB").trim().parse().unwrap();
        kilobytes / 1024.0
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // it may have ended by itself
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
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
