//! Starts the process that takes this one's place (SIGUSR2): this program's current file, with the
//! same arguments.
//!
//! An intermediate process starts it, and is killed before the service manager is notified, so that
//! the successor is the manager's own child by then. Otherwise systemd would not wait for its end:
//! `systemctl stop` would kill it at once, with requests in flight.

use std::ffi::OsString;
use std::io::{self, ErrorKind};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use tokio::task::{JoinHandle, spawn_blocking};

use crate::server::handoff::{Channel, OutgoingHandoff};

/// The option of `serve` that starts a successor.
const TAKE_OVER: &str = "--take-over";

/// The option of `serve` that starts the intermediate process.
const START_SUCCESSOR: &str = "--start-successor";

/// The timeout for the successor to serve.
const PATIENCE: Duration = Duration::from_secs(60);

/// Variables that apply to this process only.
const OF_THIS_PROCESS: [&str; 4] = ["LISTEN_FDS", "LISTEN_FDNAMES", "LISTEN_PID", "WATCHDOG_PID"];

/// How this process was started.
#[derive(Debug)]
pub(super) struct Program {
    /// `None` if the system does not report it, as without `/proc`.
    path: Option<PathBuf>,
    arguments: Vec<OsString>,
}

/// A process that was started to take this one's place and does not serve yet.
#[derive(Debug)]
pub(super) struct Successor {
    /// Its process's id.
    pub(super) id: u32,
    outcome: JoinHandle<io::Result<Channel>>,
}

impl Program {
    /// Returns how this process was started. Call it before the file at its path is replaced.
    pub(super) fn of_this_process() -> Program {
        let arguments = std::env::args_os().skip(1);
        let arguments = arguments.filter(|it| it != TAKE_OVER && it != START_SUCCESSOR);
        Program {
            path: std::env::current_exe().ok(),
            arguments: arguments.collect(),
        }
    }

    /// Starts this program once more, with one more argument.
    fn spawn(&self, argument: &str, stdin: impl Into<Stdio>) -> io::Result<Child> {
        let Some(path) = &self.path else {
            return Err(io::Error::other(
                "the system does not report this program's path; check that /proc is mounted",
            ));
        };
        let mut command = Command::new(path);
        command.args(&self.arguments).arg(argument).stdin(stdin);
        for name in OF_THIS_PROCESS {
            command.env_remove(name);
        }
        command.spawn()
    }

    /// Starts a successor and hands off `handoff` to it.
    ///
    /// # Errors
    /// If it cannot be started, or if this is the first process of a container, because the
    /// container ends with it.
    pub(super) fn succeed(&self, handoff: OutgoingHandoff) -> io::Result<Successor> {
        if std::process::id() == 1 {
            return Err(io::Error::other(
                "this is the first process of a container, which ends with it; replace the container instead",
            ));
        }
        let (channel, theirs) = Channel::pair()?;
        let mut between = self.spawn(START_SUCCESSOR, theirs)?;
        let id = match channel.awaits_start() {
            Ok(id) => id,
            Err(error) => {
                if error.kind() == ErrorKind::WouldBlock {
                    between.kill()?;
                }
                return Err(ended(&mut between)?);
            }
        };
        let outcome = spawn_blocking(move || hand_off(channel, handoff, between, id));
        Ok(Successor { id, outcome })
    }
}

/// What the intermediate process does: starts the successor, reports its id, and waits for its end.
/// It is killed once the successor serves. Returns the successor's exit status.
///
/// # Errors
/// If the successor cannot be started.
pub(super) fn start_successor() -> io::Result<u8> {
    let channel = Channel::of_predecessor()?;
    let mut successor = Program::of_this_process().spawn(TAKE_OVER, Stdio::inherit())?;
    if channel.started(successor.id()).is_err() {
        successor.kill()?;
    }
    let code = successor.wait()?.code();
    Ok(code.and_then(|code| code.try_into().ok()).unwrap_or(1))
}

fn hand_off(
    channel: Channel,
    handoff: OutgoingHandoff,
    mut between: Child,
    successor: u32,
) -> io::Result<Channel> {
    match channel.hand_off(handoff, PATIENCE) {
        Ok(()) => {
            // from here on the successor is the service manager's child
            between.kill()?;
            between.wait()?;
            Ok(channel)
        }
        Err(error) if error.kind() == ErrorKind::WouldBlock => {
            signal(successor, Signal::KILL);
            between.wait()?;
            let late = format!("it does not serve after {PATIENCE:?}");
            Err(io::Error::other(late))
        }
        // it closed its end, and has logged why
        Err(_) => Err(ended(&mut between)?),
    }
}

/// The error for a successor that has ended, with its status, which is the intermediate process's.
fn ended(between: &mut Child) -> io::Result<io::Error> {
    let status = between.wait()?;
    Ok(io::Error::other(format!("it ended ({status})")))
}

fn signal(process: u32, signal: Signal) {
    if let Some(id) = i32::try_from(process).ok().and_then(Pid::from_raw) {
        let _ = kill_process(id, signal);
    }
}

impl Successor {
    /// Waits until it serves. Returns its process's id too.
    ///
    /// # Errors
    /// If it does not serve; it is gone then.
    pub(super) async fn serves(&mut self) -> (u32, io::Result<Channel>) {
        let outcome = (&mut self.outcome).await;
        (self.id, outcome.unwrap_or_else(|panic| Err(panic.into())))
    }

    /// Asks it to end too.
    pub(super) fn stop(&self) {
        signal(self.id, Signal::TERM);
    }
}
