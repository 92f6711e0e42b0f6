//! The program as a child process: what it prints, how it ends.

use std::ffi::OsStr;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

use super::PATIENCE;
use super::wait::{now, until};

/// A running program, killed on drop.
pub struct Process {
    child: Child,
    /// Standard output.
    pub out: Printed,
    /// Standard error.
    pub err: Printed,
}

/// The result of a program that has ended.
pub struct Ended {
    /// The exit status; 128 plus the signal's number if a signal ended it.
    pub status: i32,
    /// Standard output.
    pub out: String,
    /// Standard error.
    pub err: String,
}

/// The path of the program under test, which cargo builds beside the tests and benchmarks.
pub fn program() -> PathBuf {
    let this = std::env::current_exe().unwrap();
    // target/PROFILE/deps
    let profile = this.parent().and_then(Path::parent).unwrap();
    profile.join("collibra-auth-proxy")
}

/// This project's program with `args`, in an environment without its variables.
pub fn command<S: AsRef<OsStr>>(args: impl IntoIterator<Item = S>) -> Command {
    let mut command = Command::new(program());
    for (name, _) in std::env::vars_os() {
        let name = name.to_string_lossy();
        let of_proxies = name.to_ascii_lowercase().ends_with("_proxy");
        if name.starts_with("COLLIBRA_") || of_proxies {
            command.env_remove(&*name);
        }
    }
    command.env_remove("NO_COLOR").args(args);
    command
}

/// Runs `command` to its end.
pub fn run(command: &mut Command) -> Ended {
    let mut process = Process::spawn(command);
    let status = process.ended_within(PATIENCE);
    Ended {
        status,
        out: process.out.all(),
        err: process.err.all(),
    }
}

impl Process {
    /// Starts `command` without standard input.
    pub fn spawn(command: &mut Command) -> Process {
        Process::watched(command, |_| true)
    }

    /// As [`Process::spawn`]; `keep` is given each line of standard error, and says whether it is
    /// kept.
    pub fn watched(
        command: &mut Command,
        keep: impl FnMut(&str) -> bool + Send + 'static,
    ) -> Process {
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap_or_else(|e| panic!("{command:?} cannot be started: {e}"));
        let out = Printed::by(child.stdout.take().unwrap(), |_| true);
        let err = Printed::by(child.stderr.take().unwrap(), keep);
        Process { child, out, err }
    }

    /// For a child whose output goes elsewhere.
    pub fn over(child: Child) -> Process {
        let [out, err] = [(), ()].map(|()| Printed::by(std::io::empty(), |_| true));
        Process { child, out, err }
    }

    /// The process's id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Sends it a signal, like `TERM`.
    pub fn signal(&self, name: &str) {
        let kill = format!("kill -{name} {}", self.id());
        let sent = Command::new("sh").args(["-c", &kill]).status().unwrap();
        assert!(sent.success(), "{kill}: {sent}");
    }

    /// Kills it, and waits until it is gone.
    pub fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// Returns whether it is still running.
    pub fn runs(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
    }

    /// Waits for its end, at most `limit`; returns its exit status.
    pub fn ended_within(&mut self, limit: Duration) -> i32 {
        let start = now();
        let status = until("the end of a process", || {
            assert!(
                start.elapsed() < limit,
                "it still runs after {limit:?}; it said:\n{}",
                self.err.all()
            );
            self.child.try_wait().unwrap()
        });
        self.out.wait_for_end();
        self.err.wait_for_end();
        code(status)
    }

    /// Waits until it is gone, at most `limit`, without reading its output.
    pub fn is_gone_within(&mut self, limit: Duration) {
        let start = now();
        until("a process to be gone", || {
            let took = start.elapsed();
            assert!(took < limit, "it still runs after {limit:?}");
            self.child.try_wait().unwrap()
        });
    }

    /// The value `name` of `/proc/PID/status`, in KiB.
    pub fn memory_kib(&self, name: &str) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.id())).unwrap();
        let line = status
            .lines()
            .find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
        let figure = line.and_then(|line| line.split_whitespace().next());
        figure.unwrap().parse().unwrap()
    }
}

/// A process started by a child of this one, killed on drop.
pub struct Grandchild(pub u64);

impl Grandchild {
    /// Sends it a signal, like `TERM`; returns whether it existed.
    pub fn signal(&self, name: &str) -> bool {
        let kill = format!("kill -{name} {}", self.0);
        let mut command = Command::new("sh");
        command.args(["-c", &kill]).stderr(Stdio::null());
        command.status().unwrap().success()
    }
}

impl Grandchild {
    /// The id of its current parent process.
    pub fn parent(&self) -> String {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.0)).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("PPid:"));
        line.unwrap().trim().to_owned()
    }
}

impl Drop for Grandchild {
    fn drop(&mut self) {
        self.signal("KILL");
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}

fn code(status: ExitStatus) -> i32 {
    use std::os::unix::process::ExitStatusExt;

    status
        .code()
        .unwrap_or_else(|| 128 + status.signal().unwrap())
}

/// A line, and when it was read.
type Line = (String, Instant);

/// The output of a process so far, by lines.
#[derive(Clone)]
pub struct Printed(Arc<(Mutex<Lines>, Condvar)>);

#[derive(Default)]
struct Lines {
    lines: Vec<Line>,
    paused: bool,
    ended: bool,
}

impl Printed {
    fn by(
        pipe: impl Read + Send + 'static,
        mut keep: impl FnMut(&str) -> bool + Send + 'static,
    ) -> Printed {
        let printed = Printed(Arc::default());
        let writer = printed.clone();
        std::thread::spawn(move || {
            let mut pipe = BufReader::new(pipe);
            let mut bytes = Vec::new();
            while matches!(pipe.read_until(b'\n', &mut bytes), Ok(n) if n > 0) {
                writer.wait_while_paused();
                let line = String::from_utf8_lossy(&bytes);
                let line = line.trim_end_matches('\n');
                if keep(line) {
                    writer.add(line.to_owned());
                }
                bytes.clear();
            }
            writer.0.0.lock().unwrap().ended = true;
            writer.0.1.notify_all();
        });
        printed
    }

    /// Stops reading, so that the pipe fills.
    pub fn pause(&self) {
        self.0.0.lock().unwrap().paused = true;
    }

    /// Resumes reading.
    pub fn resume(&self) {
        self.0.0.lock().unwrap().paused = false;
        self.0.1.notify_all();
    }

    fn wait_while_paused(&self) {
        let held = self.0.0.lock().unwrap();
        drop(self.0.1.wait_while(held, |lines| lines.paused).unwrap());
    }

    fn add(&self, line: String) {
        self.0.0.lock().unwrap().lines.push((line, now()));
        self.0.1.notify_all();
    }

    /// The whole output.
    pub fn all(&self) -> String {
        let held = self.0.0.lock().unwrap();
        let lines: Vec<&str> = held.lines.iter().map(|(line, _)| line.as_str()).collect();
        lines.join("\n")
    }

    /// Waits for the first line in which `find` finds something, including earlier ones.
    ///
    /// # Panics
    /// If there is none within [`PATIENCE`] or before the process ends.
    pub fn wait_for<T>(&self, what: &str, find: impl Fn(&str) -> Option<T>) -> T {
        self.wait_for_nth(what, 1, find).0
    }

    /// As [`Printed::wait_for`], for the nth such line; also returns when it was read.
    pub fn wait_for_nth<T>(
        &self,
        what: &str,
        nth: usize,
        find: impl Fn(&str) -> Option<T>,
    ) -> (T, Instant) {
        let start = now();
        let mut held = self.0.0.lock().unwrap();
        loop {
            let mut found = held
                .lines
                .iter()
                .filter_map(|(line, at)| Some((find(line)?, *at)));
            if let Some(found) = found.nth(nth - 1) {
                return found;
            }
            if held.ended || start.elapsed() > PATIENCE {
                drop(held);
                panic!("{what}: not in what was printed:\n{}", self.all());
            }
            held = self.0.1.wait_timeout(held, PATIENCE).unwrap().0;
        }
    }

    fn wait_for_end(&self) {
        let held = self.0.0.lock().unwrap();
        let waited = self.0.1.wait_timeout_while(held, PATIENCE, |l| !l.ended);
        assert!(waited.unwrap().0.ended, "a pipe is open past its process");
    }
}
