//! The machine, and which processors the two sides get.

use std::fs;
use std::io;
use std::process::Command;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

/// The processors' numbers.
#[derive(Clone, Debug)]
pub(crate) struct Processors {
    /// The proxy's: one, unless a measurement says otherwise.
    pub(crate) proxy: usize,
    /// The load's and the origin's.
    pub(crate) load: usize,
}

impl Processors {
    /// The first and the last one that this process may use; the same if there is only one.
    pub(crate) fn choose() -> io::Result<Processors> {
        let allowed = sched_getaffinity(None)?;
        let mut numbers = (0..CpuSet::MAX_CPU).filter(|number| allowed.is_set(*number));
        let first = numbers.next().unwrap_or(0);
        Ok(Processors {
            proxy: first,
            load: numbers.next_back().unwrap_or(first),
        })
    }
}

/// Runs `action` on these processors only; a process that it starts inherits them.
pub(crate) fn on<T>(processors: &[usize], action: impl FnOnce() -> T) -> T {
    let before = sched_getaffinity(None).unwrap();
    sched_setaffinity(None, &set(processors)).unwrap();
    let result = action();
    sched_setaffinity(None, &before).unwrap();
    result
}

/// Restricts this thread, and what it starts from now on, to these processors.
pub(crate) fn stay_on(processors: &[usize]) {
    sched_setaffinity(None, &set(processors)).unwrap();
}

fn set(processors: &[usize]) -> CpuSet {
    let mut set = CpuSet::new();
    for number in processors {
        set.set(*number);
    }
    set
}

/// Raises the limit of open files for this process and those that it starts.
pub(crate) fn raise_file_limit() {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit {
        current: limit.maximum,
        ..limit
    };
    setrlimit(Resource::Nofile, raised).unwrap();
}

/// How many callers a proxy can have, each with a connection to the origin: at most 10,000.
pub(crate) fn most_connections() -> usize {
    /// Other open files of a process, and connections that end while others begin.
    const OTHERS: u64 = 1_000;
    let files = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
    usize::try_from((files - OTHERS) / 2).map_or(10_000, |most| most.min(10_000))
}

/// The date, from `date`.
pub(crate) fn today() -> String {
    let output = Command::new("date").arg("+%Y-%m-%d").output().unwrap();
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}

/// The processor, memory and kernel, in one line.
pub(crate) fn description() -> String {
    let field = |file: &str, name: &str| {
        let text = fs::read_to_string(file).unwrap_or_default();
        let line = text.lines().find(|line| line.starts_with(name));
        let value = line.and_then(|line| line.split_once(':'));
        value.map_or("unknown".to_owned(), |(_, value)| value.trim().to_owned())
    };
    let processor = field("/proc/cpuinfo", "model name");
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let memory = field("/proc/meminfo", "MemTotal");
    let kilobytes: f64 = memory.trim_end_matches(" kB").parse().unwrap_or(0.0);
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    // without the build's own suffix
    let kernel: Vec<&str> = kernel.trim().split('.').take(2).collect();
    format!(
        "{processor}, {cores} cores, {:.0} GB, Linux {}",
        kilobytes / 1024.0 / 1024.0,
        kernel.join(".")
    )
}
