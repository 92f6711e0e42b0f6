//! The process protects itself and needs little. No process of its user reads its memory or
//! environment, no core file contains a secret, and no flag takes one. It runs as any user, without
//! a home directory, on a read-only file system, and under a kernel that refuses its hardening
//! calls.

use std::process::{Command, Output, Stdio};

use crate::support::certificate::Authority;
use crate::support::process::{self, Ended};
use crate::support::simulator::CLIENT_SECRET;
use crate::support::{Proxy, Simulator, file, http};

/// A user without a passwd entry, for tests that run as root.
const NOBODY: &str = "65532";

/// The command that runs a program as an unprivileged user; empty if this process is one.
fn unprivileged() -> Vec<&'static str> {
    if is_root() {
        vec![
            "setpriv",
            "--reuid",
            NOBODY,
            "--regid",
            NOBODY,
            "--clear-groups",
            "--no-new-privs",
            "--inh-caps=-all",
            "--bounding-set=-all",
        ]
    } else {
        vec!["env"]
    }
}

fn is_root() -> bool {
    let id = Command::new("id").arg("-u").output().unwrap();
    id.stdout == b"0\n"
}

/// Runs `program` as the unprivileged user.
fn as_unprivileged(program: &[&str]) -> Output {
    let wrapper = unprivileged();
    let mut command = Command::new(wrapper[0]);
    command.args(&wrapper[1..]).args(program);
    command.stdin(Stdio::null()).output().unwrap()
}

#[test]
fn nobody_of_its_user_reads_its_memory_or_its_environment() {
    let simulator = Simulator::start();
    let proxy = Proxy::to(&simulator.url()).by(&unprivileged()).start();
    proxy.has_token();
    let of = |pid: u32, name: &str| format!("/proc/{pid}/{name}");

    // the reader does work on a process that is not protected
    let wrapper = unprivileged();
    let mut sleeper = Command::new(wrapper[0])
        .args(&wrapper[1..])
        .args(["env", "OPEN=book", "sleep", "600"])
        .spawn()
        .unwrap();
    let readable = crate::support::until("the environment of a process that is open", || {
        let read = as_unprivileged(&["cat", &of(sleeper.id(), "environ")]);
        let text = String::from_utf8_lossy(&read.stdout).into_owned();
        text.contains("OPEN=book").then_some(true)
    });
    sleeper.kill().unwrap();
    sleeper.wait().unwrap();
    assert!(readable);

    let pid = proxy.process.id();
    for name in ["environ", "maps", "auxv"] {
        let read = as_unprivileged(&["head", "-c", "1", &of(pid, name)]);
        assert!(!read.status.success(), "{name} can be read");
    }
    let read = as_unprivileged(&["ls", &of(pid, "fd")]);
    assert!(!read.status.success(), "its open files can be seen");

    let limits = std::fs::read_to_string(of(pid, "limits")).unwrap();
    let core = limits.lines().find(|line| line.contains("core file"));
    let core: Vec<&str> = core.unwrap().split_whitespace().collect();
    assert_eq!(core[core.len() - 3..], ["0", "0", "bytes"], "{core:?}");
    for name in ["cmdline", "comm", "status"] {
        let read = std::fs::read_to_string(of(pid, name)).unwrap();
        assert!(!read.contains(CLIENT_SECRET), "{name}: {read}");
    }
    assert!(!proxy.process.err.all().contains("refuses"));
    // it still reads its own files
    assert!(proxy.metric("process_open_fds").is_some_and(|n| n > 3.0));
}

#[test]
fn it_runs_as_any_user_without_a_home_on_a_file_system_that_cannot_be_written() {
    let authority = Authority::new();
    let files = authority.files("localhost");
    let (cert, key) = (files.cert.to_str().unwrap(), files.key.to_str().unwrap());
    let simulator = Simulator::with(&["--tls-cert", cert, "--tls-key", key]);
    let url = format!("https://localhost:{}", simulator.address.port());
    let ca = std::fs::read(authority.ca_file()).unwrap();
    let (folder, ca) = file("ca.pem", &ca);
    let open = Command::new("chmod").arg("755").arg(folder.path()).status();
    assert!(open.unwrap().success());

    let read_only = "
        while read -r _ place _; do
            mount -o remount,bind,ro \"$place\" 2>/dev/null || :
        done </proc/self/mounts
        if touch /tmp/written /var/tmp/written /dev/shm/written 2>/dev/null; then exit 99; fi
        cd /
        exec \"$@\"";
    let mut wrapper = Vec::new();
    if is_root() {
        wrapper.extend(["unshare", "--mount", "sh", "-c", read_only, "sh"]);
        wrapper.extend(unprivileged());
    } else {
        println!("left out: another user and a read-only file system, which take root");
        wrapper.push("env");
    }
    let proxy = Proxy::to(&url).file("--ca-file", &ca).by(&wrapper).start();
    proxy.has_token();
    let answer = proxy.get("/rest/2.0/application/info");
    assert_eq!(answer.status, 200, "{}", answer.text());
    if is_root() {
        let status = format!("/proc/{}/status", proxy.process.id());
        let status = std::fs::read_to_string(status).unwrap();
        assert!(status.contains(&format!("\nUid:\t{NOBODY}")), "{status}");
    }
    assert_eq!(http::get(proxy.admin, "/readyz").status, 200);
}

/// Like a strict seccomp profile: every such call fails with EPERM.
#[test]
fn a_kernel_that_refuses_is_a_warning_only() {
    if !cfg!(target_arch = "x86_64") {
        println!("left out: the filter is written for x86-64");
        return;
    }
    // python3 with an empty environment and no user settings
    let (_folder, script) = file("refuse.py", REFUSE.as_bytes());
    let simulator = Simulator::start();
    let wrapper = ["/usr/bin/env", "python3", script.to_str().unwrap()];
    let proxy = Proxy::to(&simulator.url()).by(&wrapper).start();
    proxy.has_token();
    assert_eq!(proxy.get("/echo").status, 200);
    let logged = proxy.process.err.all();
    for call in ["PR_SET_DUMPABLE", "RLIMIT_CORE"] {
        let told = logged.lines().filter(|line| line.contains(call)).count();
        assert_eq!(told, 1, "{call} in {logged}");
    }
}

/// Runs its arguments under a seccomp filter that refuses prctl(PR_SET_DUMPABLE), and setrlimit and
/// prlimit of RLIMIT_CORE.
const REFUSE: &str = r#"
import ctypes, os, struct, sys

LOAD, EQUAL, RETURN = 0x20, 0x15, 0x06
PRCTL, SETRLIMIT, PRLIMIT = 157, 160, 302
number, first, second = 0, 16, 24
program = [
    (LOAD, 0, 0, number), (EQUAL, 0, 2, PRCTL), (LOAD, 0, 0, first), (EQUAL, 7, 6, 4),
    (EQUAL, 0, 2, SETRLIMIT), (LOAD, 0, 0, first), (EQUAL, 4, 3, 4),
    (EQUAL, 0, 2, PRLIMIT), (LOAD, 0, 0, second), (EQUAL, 1, 0, 4),
    (RETURN, 0, 0, 0x7FFF0000),
    (RETURN, 0, 0, 0x00050001),
]
code = b"".join(struct.pack("HBBI", *line) for line in program)
buffer = ctypes.create_string_buffer(code)
class Filter(ctypes.Structure):
    _fields_ = [("length", ctypes.c_ushort), ("code", ctypes.c_void_p)]
libc = ctypes.CDLL(None, use_errno=True)
assert libc.prctl(38, 1, 0, 0, 0) == 0
assert libc.prctl(22, 2, ctypes.byref(Filter(len(program), ctypes.addressof(buffer)))) == 0
os.execv(sys.argv[1], sys.argv[1:])
"#;

#[test]
fn no_flag_takes_a_secret() {
    for name in ["serve", "check"] {
        let Ended { out, .. } = process::run(&mut process::command([name, "--help"]));
        assert!(out.contains("--client-secret-file"), "{out}");
        assert!(!out.contains("--client-secret "), "{out}");
        let Ended { status, .. } =
            process::run(&mut process::command([name, "--client-secret", "x"]));
        assert_eq!(status, 2, "{name}");
    }
}

#[test]
fn it_serves_without_a_proc_file_system() {
    let simulator = Simulator::start();
    let proxy = Proxy::to(&simulator.url())
        .by(&[
            "bwrap",
            "--die-with-parent",
            "--dev-bind",
            "/",
            "/",
            "--tmpfs",
            "/proc",
        ])
        .start();
    proxy.has_token();
    assert_eq!(proxy.get("/rest/2.0/application/info").status, 200);
}
