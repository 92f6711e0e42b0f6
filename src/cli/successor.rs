//! Starting the process that takes this one's place (SIGUSR2): this program, as it lies on the disk
//! now, with the same arguments.

use std::ffi::OsString;
use std::io::{self, ErrorKind};
use std::path::PathBuf;
use std::process::{Child, Command};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use tokio::sync::oneshot;

use crate::app::handover::{Channel, Legacy};

/// The option of `serve` by which a successor is started.
const TAKE_OVER: &str = "--take-over";

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
        Program {
            path: std::env::current_exe().ok(),
            arguments: arguments.filter(|argument| argument != TAKE_OVER).collect(),
        }
    }

    /// Starts a successor and leaves it `legacy`.
    ///
    /// # Errors
    /// If it cannot be started, or if this is the first process of a container, which ends with it.
    pub(super) fn succeed(&self, legacy: Legacy) -> io::Result<Successor> {
        if std::process::id() == 1 {
            return Err(io::Error::other(
                "a container ends with its first process, which this is; replace the container instead",
            ));
        }
        let Some(path) = &self.path else {
            return Err(io::Error::other(
                "the system did not say which program this is; see that /proc is mounted",
            ));
        };
        let (channel, theirs) = Channel::pair()?;
        let mut command = Command::new(path);
        command.args(&self.arguments).arg(TAKE_OVER).stdin(theirs);
        for name in OF_THIS_PROCESS {
            command.env_remove(name);
        }
        let child = command.spawn()?;
        // it holds the other end too
        drop(command);
        let id = child.id();
        let (told, outcome) = oneshot::channel();
        std::thread::spawn(move || told.send(hand_over(channel, legacy, child)));
        Ok(Successor { id, outcome })
    }
}

fn hand_over(channel: Channel, legacy: Legacy, mut child: Child) -> io::Result<Channel> {
    match channel.hand_over(legacy, PATIENCE) {
        Ok(()) => Ok(channel),
        Err(error) if error.kind() == ErrorKind::WouldBlock => {
            let _ = child.kill();
            child.wait()?;
            let seconds = PATIENCE.as_secs();
            Err(io::Error::other(format!(
                "it does not serve after {seconds} s"
            )))
        }
        // it closed its end: what it says of that stands above
        Err(_) => Err(io::Error::other(format!("it ended ({})", child.wait()?))),
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
        let id = i32::try_from(self.id).ok().and_then(Pid::from_raw);
        if let Some(id) = id {
            let _ = kill_process(id, Signal::TERM);
        }
    }
}
