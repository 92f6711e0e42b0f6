//! The admin address answers probes even if its other callers stall, and even if the proxy's
//! callers use up the file descriptors. Calls still reach the instance then.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use crate::support::wait::now;
use crate::support::{Origin, PATIENCE, Proxy, Simulator, http, pair};

/// How soon most probes are answered.
const SOON: Duration = Duration::from_millis(100);

/// How late a probe may be answered on a busy machine. Silent callers are cut after twice as long.
const LATEST: Duration = Duration::from_secs(5);

/// Sends probes one after the other: each must be answered, and a quarter of them soon.
fn is_alive(admin: SocketAddr) {
    let took = (0..20).map(|_| {
        let start = now();
        assert_eq!(http::get(admin, "/livez").status, 200);
        start.elapsed()
    });
    let mut took: Vec<Duration> = took.collect();
    assert!(took.iter().all(|took| *took < LATEST), "{took:?}");
    took.sort();
    assert!(took[took.len() / 4] < SOON, "{took:?}");
}

/// Raises this process's limit of open files.
fn raise_open_files() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

    let limit = getrlimit(Resource::Nofile).maximum;
    let raised = Rlimit {
        current: limit,
        maximum: limit,
    };
    setrlimit(Resource::Nofile, raised).unwrap();
}

#[test]
fn a_thousand_stuck_callers_do_not_starve_a_probe() {
    raise_open_files();
    let (_simulator, proxy) = pair();
    let request = "GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n".repeat(200);
    let mut stuck = Vec::new();
    for nth in 0..1_000 {
        let mut caller = TcpStream::connect(proxy.admin).unwrap();
        if nth % 2 == 0 {
            // requests megabytes and reads nothing
            caller.write_all(request.as_bytes()).unwrap();
        }
        stuck.push(caller);
    }
    is_alive(proxy.admin);
    assert_eq!(http::get(proxy.admin, "/readyz").status, 200);
    assert_eq!(http::get(proxy.admin, "/metrics").status, 200);
}

/// Starts a proxy with a hard limit of `hard` open files and a soft limit of `soft`.
fn limited(url: &str, soft: u32, hard: u32) -> Proxy {
    let script = format!("ulimit -Sn {soft} && ulimit -Hn {hard} && exec \"$@\"");
    let wrapper = ["sh", "-c", &script, "sh"];
    Proxy::to(url).by(&wrapper).start()
}

#[test]
fn a_probe_is_answered_while_callers_hold_every_descriptor() {
    const FILES: u32 = 128;
    let simulator = Simulator::start();
    let proxy = limited(&simulator.url(), FILES, FILES);
    proxy.has_token();
    // the kernel accepts them all; the proxy takes as many as it can
    let _held: Vec<TcpStream> = (0..2 * FILES)
        .map(|_| TcpStream::connect(proxy.address).unwrap())
        .collect();
    proxy.process.err.wait_for("the shortage", |line| {
        line.contains("cannot accept a connection").then_some(())
    });
    is_alive(proxy.admin);
    // more silent callers than the reserve do not lock out the next one
    let mut held = Vec::new();
    for _ in 0..40 {
        let mut probe = TcpStream::connect(proxy.admin).unwrap();
        probe.set_read_timeout(Some(PATIENCE)).unwrap();
        probe
            .write_all(b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n")
            .unwrap();
        let mut start = [0; 12];
        probe.read_exact(&mut start).unwrap();
        assert_eq!(&start, b"HTTP/1.1 200");
        held.push(probe);
    }
}

#[test]
fn a_call_gets_a_connection_to_the_instance_while_callers_hold_every_descriptor() {
    const FILES: usize = 128;
    raise_open_files();
    // each call needs a new connection
    let origin =
        Origin::answering("HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok");
    let proxy = limited(&origin.url(), FILES as u32, FILES as u32);
    proxy.has_token();
    let mut held = Vec::new();
    let mut hold = |n: usize| {
        held.extend((0..n).map(|_| TcpStream::connect(proxy.address).unwrap()));
    };
    hold(2 * FILES);
    proxy.process.err.wait_for("the shortage", |line| {
        line.contains("cannot accept a connection").then_some(())
    });
    for _ in 0..20 {
        hold(FILES / 2);
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    let answer = proxy.get("/x");
                    assert_eq!(answer.status, 200, "{}", answer.text());
                });
            }
        });
    }
    let logged = proxy.process.err.all();
    assert!(!logged.contains("an address fails"), "{logged}");
}

#[test]
fn the_limit_of_open_files_is_raised_and_a_low_one_is_warned_of() {
    let simulator = Simulator::start();
    let of_few = "the process may open few files";
    // 1,000 connections and as many to the instance
    let started = |hard: u32| {
        let script = format!("ulimit -Sn 64 && ulimit -Hn {hard} && exec \"$@\"");
        Proxy::configured(&simulator.url(), "", "max_connections = 1000\n")
            .by(&["sh", "-c", &script, "sh"])
            .start()
    };
    let proxy = started(2_000);
    let limits = std::fs::read_to_string(format!("/proc/{}/limits", proxy.process.id())).unwrap();
    let files = limits
        .lines()
        .find(|line| line.starts_with("Max open files"));
    let files: Vec<&str> = files.unwrap().split_whitespace().collect();
    assert_eq!(files[3..5], ["2000", "2000"]);
    assert!(!proxy.process.err.all().contains(of_few));

    let proxy = started(1_999);
    proxy.process.err.wait_for("a warning", |line| {
        let warned = line.contains(of_few) && line.contains("\"open_files\":1999");
        (warned && line.contains("\"wanted\":2000")).then_some(())
    });
}
