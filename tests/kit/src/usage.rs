//! The resources that a process and its descendants use.

use std::fs;

use super::process::Process;

/// Clock ticks per second, which Linux fixes for user space on every architecture.
const TICKS: f64 = 100.0;

impl Process {
    /// The processor time used so far, in seconds, by the program, its children, and the kernel for
    /// them.
    pub fn processor_seconds(&self) -> f64 {
        let ticks: u64 = tree(self.id()).into_iter().map(ticks).sum();
        ticks as f64 / TICKS
    }

    /// Resident memory of the program and its child processes, in MB.
    pub fn resident_megabytes(&self) -> f64 {
        self.megabytes("VmRSS:")
    }

    /// The peak of its resident memory.
    pub fn peak_megabytes(&self) -> f64 {
        self.megabytes("VmHWM:")
    }

    fn megabytes(&self, field: &str) -> f64 {
        let processes = tree(self.id()).into_iter();
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
