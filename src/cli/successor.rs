//! Starting the process that takes this one's place (SIGUSR2): this program, as it lies on the disk
//! now, with the same arguments.
//!
//! It is started by a process in between, which ends before the service manager is told: the
//! successor is the manager's own child by then. For the end of another's child systemd does not
//! wait: `systemctl stop` would kill it at once, whatever was under way.

use std::ffi::OsString;
use std::io::{self, ErrorKind};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use tokio::sync::oneshot;

use crate::server::handoff::{Channel, OutgoingHandoff};

/// The option of `serve` by which a successor is started.
const TAKE_OVER: &str = "--take-over";

/// The option of `serve` by which the process in between is.
const START_SUCCESSOR: &str = "--start-successor";

/// How long it may take until the successor serves.
const PATIENCE: Duration = Duration::from_secs(60);

/// Variables that name the process that they are for.
const OF_THIS_PROCESS: [&str; 4] = ["LISTEN_FDS", "LISTEN_FDNAMES", "LISTEN_PID", "WATCHDOG_PID"];

/// How this process was started.
#[derive(Debug)]
pub(super) struct Program {
    /// `None` where the system does not say, as without a `/proc`.
    path: Option<PathBuf>,
    arguments: Vec<OsString>,
}

/// A process that was started to take this one's place, and does not serve yet.
#[derive(Debug)]
pub(super) struct Successor {
    id: u32,
    outcome: oneshot::Receiver<io::Result<Channel>>,
}

impl Program {
    /// To be asked for before the file at its path is replaced.
    pub(super) fn of_this_process() -> Program {
        let arguments = std::env::args_os().skip(1);
        let of_a_handover =
            |argument: &OsString| [TAKE_OVER, START_SUCCESSOR].iter().any(|it| argument == it);
        Program {
            path: std::env::current_exe().ok(),
            arguments: arguments.filter(|it| !of_a_handover(it)).collect(),
        }
    }

    /// Starts this program once more, by one more argument.
    fn spawn(&self, argument: &str, stdin: impl Into<Stdio>) -> io::Result<Child> {
        let Some(path) = &self.path else {
            return Err(io::Error::other(
                "the system did not say which program this is; see that /proc is mounted",
            ));
        };
        let mut command = Command::new(path);
        command.args(&self.arguments).arg(argument).stdin(stdin);
        for name in OF_THIS_PROCESS {
            command.env_remove(name);
        }
        command.spawn()
    }

    /// Starts a successor and leaves it `handoff`.
    ///
    /// # Errors
    /// If it cannot be started, or if this is the first process of a container, which ends with it.
    pub(super) fn succeed(&self, handoff: OutgoingHandoff) -> io::Result<Successor> {
        if std::process::id() == 1 {
            return Err(io::Error::other(
                "a container ends with its first process, which this is; replace the container instead",
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
        let (told, outcome) = oneshot::channel();
        std::thread::spawn(move || told.send(hand_off(channel, handoff, between, id)));
        Ok(Successor { id, outcome })
    }
}

/// The part of the process in between: starts the successor, says so, and waits for its end. It is
/// killed once the successor serves. Returns the successor's exit status.
///
/// # Errors
/// If the successor cannot be started.
pub(super) fn start_successor() -> io::Result<u8> {
    let channel = Channel::of_predecessor()?;
    let mut successor = Program::of_this_process().spawn(TAKE_OVER, Stdio::inherit())?;
    if channel.started(successor.id()).is_err() {
        successor.kill()?;
    }
    let status = successor.wait()?;
    Ok(status
        .code()
        .and_then(|code| code.try_into().ok())
        .unwrap_or(1))
}

fn hand_off(
    channel: Channel,
    handoff: OutgoingHandoff,
    mut between: Child,
    successor: u32,
) -> io::Result<Channel> {
    match channel.hand_off(handoff, PATIENCE) {
        Ok(()) => {
            // the successor is whose child it should be from here on
            between.kill()?;
            between.wait()?;
            Ok(channel)
        }
        Err(error) if error.kind() == ErrorKind::WouldBlock => {
            signal(successor, Signal::KILL);
            between.wait()?;
            let seconds = PATIENCE.as_secs();
            Err(io::Error::other(format!(
                "it does not serve after {seconds} s"
            )))
        }
        // it closed its end: what it says of that stands above
        Err(_) => Err(ended(&mut between)?),
    }
}

/// That the successor ended, with its status, which the process in between takes on.
fn ended(between: &mut Child) -> io::Result<io::Error> {
    let status = between.wait()?;
    Ok(io::Error::other(format!("it ended ({status})")))
}

fn signal(process: u32, signal: Signal) {
    let id = i32::try_from(process).ok().and_then(Pid::from_raw);
    if let Some(id) = id {
        let _ = kill_process(id, signal);
    }
}

impl Successor {
    /// Its process's id.
    pub(super) fn id(&self) -> u32 {
        self.id
    }

    /// Ends when it serves.
    ///
    /// # Errors
    /// If it does not; it is gone then.
    pub(super) async fn serves(&mut self) -> io::Result<Channel> {
        (&mut self.outcome)
            .await
            .unwrap_or_else(|_| Err(io::Error::other("the hand-over broke off")))
    }

    /// Has it end too.
    pub(super) fn stop(&self) {
        signal(self.id, Signal::TERM);
    }
}
