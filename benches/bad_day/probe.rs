//! `/livez`, ten times a second on a connection of its own each time, and what the machine itself
//! adds to it.

use std::collections::HashMap;
use std::ffi::OsString;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use kit::wait::now;

const EVERY: Duration = Duration::from_millis(100);
const PATIENCE: Duration = Duration::from_secs(10);

/// The sleep of a thread that watches the machine, the delay from which a wake-up is noted as late,
/// and the number of such threads.
const TICK: Duration = Duration::from_millis(5);
const LATE: Duration = Duration::from_millis(1);
const WATCHES: usize = 3;

/// One probe.
pub(crate) struct Probe {
    /// When it began.
    pub(crate) at: Instant,
    /// How long it took.
    pub(crate) took: Duration,
    /// Why it failed.
    pub(crate) failure: Option<String>,
    /// How long, by the kernel's count, the probing thread and the proxy's most delayed thread were
    /// ready to run meanwhile and had no processor.
    waited: Duration,
}

/// A late wake-up of a thread that only sleeps.
#[derive(Clone, Copy)]
pub(crate) struct Delay {
    due: Instant,
    woken: Instant,
}

/// Probes on their way.
pub(crate) struct Probing {
    stop: Arc<AtomicBool>,
    probes: JoinHandle<Vec<Probe>>,
    watches: Vec<JoinHandle<Vec<Delay>>>,
}

/// All probes, and all delays of the machine.
pub(crate) struct Probed {
    /// In the order of their times.
    pub(crate) probes: Vec<Probe>,
    /// In the order of their times.
    delays: Vec<Delay>,
}

impl Probing {
    /// Starts to probe the admin address `admin` of the process `id`.
    pub(crate) fn start(admin: SocketAddr, id: u32) -> Probing {
        let stop = Arc::new(AtomicBool::new(false));
        let halt = Arc::clone(&stop);
        let probes = thread::spawn(move || {
            let mut probes = Vec::new();
            while !halt.load(Ordering::Relaxed) {
                let waits = Waits::now(id);
                let at = now();
                let failure = probe(admin).err().map(|error| error.to_string());
                let took = now() - at;
                let waited = Waits::now(id).since(&waits);
                probes.push(Probe {
                    at,
                    took,
                    failure,
                    waited,
                });
                thread::sleep(EVERY.saturating_sub(took));
            }
            probes
        });
        let watches = (0..WATCHES).map(|_| {
            let halt = Arc::clone(&stop);
            thread::spawn(move || watch(&halt))
        });
        Probing {
            watches: watches.collect(),
            probes,
            stop,
        }
    }

    /// Stops.
    pub(crate) fn end(self) -> Probed {
        self.stop.store(true, Ordering::Relaxed);
        let probes = self.probes.join().unwrap();
        let watches = self.watches.into_iter().map(|watch| watch.join().unwrap());
        let mut delays: Vec<Delay> = watches.flatten().collect();
        delays.sort_by_key(|delay| delay.due);
        Probed { probes, delays }
    }
}

impl Probed {
    /// How much of the time of `probe` the machine caused: threads that took part were ready and
    /// had no processor, or a thread that only sleeps was woken late too.
    pub(crate) fn machine(&self, probe: &Probe) -> Duration {
        let end = probe.at + probe.took;
        let first = self
            .delays
            .partition_point(|delay| delay.due + PATIENCE < probe.at);
        let mut total = Duration::ZERO;
        let mut until = probe.at;
        for delay in self.delays[first..]
            .iter()
            .take_while(|delay| delay.due < end)
        {
            let (from, to) = (delay.due.max(until), delay.woken.min(end));
            total += to.saturating_duration_since(from);
            until = until.max(to);
        }
        total.max(probe.waited).min(probe.took)
    }

    /// The longest delay of the machine in this time.
    pub(crate) fn longest_delay(&self, from: Instant, to: Instant) -> Duration {
        let within = self.delays.iter().filter(|d| d.due >= from && d.due < to);
        within.map(|d| d.woken - d.due).max().unwrap_or_default()
    }
}

/// How long threads were ready to run and had no processor, since each began (`schedstat`, the
/// second figure).
struct Waits {
    own: Duration,
    proxy: HashMap<OsString, Duration>,
}

impl Waits {
    fn now(id: u32) -> Waits {
        let waited = |path: &Path| {
            let figures = std::fs::read_to_string(path).ok()?;
            let nanoseconds = figures.split_whitespace().nth(1)?.parse().ok()?;
            Some(Duration::from_nanos(nanoseconds))
        };
        let threads = std::fs::read_dir(format!("/proc/{id}/task")).into_iter();
        let threads = threads.flatten().flatten();
        Waits {
            own: waited(Path::new("/proc/thread-self/schedstat")).unwrap_or_default(),
            proxy: threads
                .filter_map(|t| Some((t.file_name(), waited(&t.path().join("schedstat"))?)))
                .collect(),
        }
    }

    fn since(&self, before: &Waits) -> Duration {
        let threads = self.proxy.iter();
        let threads = threads.map(|(thread, waited)| {
            let before = before.proxy.get(thread).copied().unwrap_or_default();
            waited.saturating_sub(before)
        });
        self.own.saturating_sub(before.own) + threads.max().unwrap_or_default()
    }
}

fn probe(admin: SocketAddr) -> io::Result<()> {
    let mut stream = TcpStream::connect_timeout(&admin, PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.write_all(b"GET /livez HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")?;
    let mut status = [0; 12];
    stream.read_exact(&mut status)?;
    match &status {
        b"HTTP/1.1 200" => Ok(()),
        other => Err(io::Error::other(String::from_utf8_lossy(other))),
    }
}

fn watch(stop: &AtomicBool) -> Vec<Delay> {
    let mut delays = Vec::new();
    while !stop.load(Ordering::Relaxed) {
        let due = now() + TICK;
        thread::sleep(TICK);
        let woken = now();
        if woken - due > LATE {
            delays.push(Delay { due, woken });
        }
    }
    delays
}
