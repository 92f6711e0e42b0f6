//! Protects this process's memory and environment from other processes, raises its limit of open
//! files, and tells whether it runs in a container.
//!
//! Secrets and tokens are in memory, and a secret passed by an environment variable stays readable
//! in `/proc/PID/environ`. [`close`] makes the kernel hide both from other users and from
//! debuggers, and disables core files. The program serves even if the kernel refuses, as in some
//! containers with a seccomp profile.

use std::io;
use std::path::Path;

#[cfg(target_os = "linux")]
use rustix::process::{DumpableBehavior, set_dumpable_behavior};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// A protection that the kernel refused.
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

/// Applies the protections; returns those that failed.
#[must_use = "the operator should be told"]
pub fn close() -> Vec<Open> {
    let none = Rlimit {
        current: Some(0),
        maximum: Some(0),
    };
    let core_file = setrlimit(Resource::Core, none).map_err(|error| Open::CoreFile(error.into()));
    let memory = no_view_of_memory().map_err(Open::Memory);
    [core_file, memory]
        .into_iter()
        .filter_map(Result::err)
        .collect()
}

/// Makes the kernel map this process's memory by pages of 4 KiB (prctl(2), `PR_SET_THP_DISABLE`):
/// with transparent huge pages an idle process would occupy twice its memory. The allocator is
/// built not to request them (`no_thp`), but some systems give them unrequested. Without effect
/// where the kernel does not support it.
pub fn disable_huge_pages() {
    #[cfg(target_os = "linux")]
    let _ = rustix::thread::disable_transparent_huge_pages(true);
}

/// Raises the soft limit of open files to the hard limit (setrlimit(2), `RLIMIT_NOFILE`). Returns
/// the limit in force.
pub fn raise_open_files() -> u64 {
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

/// Returns whether this process runs in a container of Docker, Podman or containerd: the runtime's
/// marker file, the variable `container` or the control group tells. `false` in a Kubernetes pod,
/// whose containers share one loopback.
#[must_use]
pub fn is_in_container(env: &dyn Fn(&str) -> Option<String>) -> bool {
    if env("KUBERNETES_SERVICE_HOST").is_some() {
        return false;
    }
    let named = env("container");
    let by_runtime = ["docker", "oci", "podman"];
    let is_named = named.is_some_and(|name| by_runtime.contains(&name.as_str()));
    let mut marks = ["/.dockerenv", "/run/.containerenv"].iter().map(Path::new);
    let groups = std::fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    let mut by_group = ["/docker/", "/docker-", "/libpod", "containerd"].iter();
    is_named || marks.any(Path::exists) || by_group.any(|name| groups.contains(name))
}

/// Makes the process not dumpable (prctl(2), `PR_SET_DUMPABLE`): its `/proc` files then belong to
/// root, and other processes of its user cannot trace it.
fn no_view_of_memory() -> io::Result<()> {
    // other systems have neither this call nor `/proc`
    #[cfg(target_os = "linux")]
    set_dumpable_behavior(DumpableBehavior::NotDumpable)?;
    Ok(())
}
