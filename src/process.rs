//! What the system may show others of this process, neither a core file nor its memory, and how
//! many files it may open.
//!
//! Secrets and tokens lie in memory, and where a secret came by the environment it stands in
//! `/proc/PID/environ` for as long as the process lives. [`close`] has the kernel keep both from
//! every other user and from debuggers, and leave no core file behind. A kernel that refuses (a
//! container's seccomp profile may) is no reason not to serve.

use std::io;

/// What the kernel refused to close.
#[derive(Debug, thiserror::Error)]
pub enum Open {
    /// Debuggers of the same user, and readers of `/proc`, can see into the process.
    #[error(
        "the kernel refuses to hide this process's memory and environment (prctl PR_SET_DUMPABLE): {0}; run it as a user of its own"
    )]
    Memory(io::Error),
    /// A crash may write the memory to a file.
    #[error(
        "the kernel refuses to forbid core files (setrlimit RLIMIT_CORE): {0}; start it with a core limit of 0 (ulimit -c 0)"
    )]
    CoreFile(io::Error),
}

/// Closes this process to other eyes; gives what is left open.
#[must_use = "whoever runs the program should be told"]
pub fn close() -> Vec<Open> {
    let core_file = no_core_file().map_err(Open::CoreFile);
    let memory = no_view_of_memory().map_err(Open::Memory);
    [core_file, memory]
        .into_iter()
        .filter_map(Result::err)
        .collect()
}

/// Raises the limit of open files to what the process may have (setrlimit(2), `RLIMIT_NOFILE`: the
/// soft limit to the hard one). Gives the limit that then holds.
pub fn raise_open_files() -> u64 {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit {
        current: limit.maximum,
        maximum: limit.maximum,
    };
    let in_force = match setrlimit(Resource::Nofile, raised) {
        Ok(()) => limit.maximum,
        // macOS refuses more than its kernel's own limit
        Err(_) => limit.current,
    };
    in_force.unwrap_or(u64::MAX)
}

fn no_core_file() -> io::Result<()> {
    use rustix::process::{Resource, Rlimit, setrlimit};

    let none = Rlimit {
        current: Some(0),
        maximum: Some(0),
    };
    Ok(setrlimit(Resource::Core, none)?)
}

/// A process that is not dumpable gives its `/proc` files to root and cannot be traced by another
/// process of its user (prctl(2), `PR_SET_DUMPABLE`).
#[cfg(target_os = "linux")]
fn no_view_of_memory() -> io::Result<()> {
    use rustix::process::{DumpableBehavior, set_dumpable_behavior};

    Ok(set_dumpable_behavior(DumpableBehavior::NotDumpable)?)
}

/// Elsewhere there is no such call, and no `/proc` either.
#[cfg(not(target_os = "linux"))]
fn no_view_of_memory() -> io::Result<()> {
    Ok(())
}
