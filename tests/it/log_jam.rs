//! A log that nobody reads delays no call, no probe and no shutdown. Lost lines are counted.

use std::time::Duration;

use crate::support::origin::{After, Gate};
use crate::support::process::Process;
use crate::support::proxy::message;
use crate::support::{Connection, Origin, Proxy, http, until};

/// The shutdown waits a second for the log; a busy machine needs time for the rest.
const SOON: Duration = Duration::from_secs(20);

/// The message once the log is read again.
const LOST: &str = "log lines were lost: standard error was not read fast enough";

const DROPPED: &str = "collibra_auth_proxy_log_lines_dropped_total";

fn origin() -> Origin {
    Origin::start(|_, stream| {
        stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")?;
        Ok(After::Keep)
    })
}

/// Sends `calls` requests over eight connections.
fn call(proxy: &Proxy, calls: usize) {
    const CONNECTIONS: usize = 8;
    std::thread::scope(|scope| {
        for _ in 0..CONNECTIONS {
            scope.spawn(|| {
                let mut connection = proxy.connect();
                for _ in 0..calls / CONNECTIONS {
                    assert_eq!(
                        connection.get(proxy.address, "/rest/2.0/assets").status,
                        200
                    );
                }
            });
        }
    });
}

#[test]
fn calls_and_probes_are_answered_while_nobody_reads_the_log() {
    const CALLS: usize = 20_000;
    let origin = origin();
    let proxy = Proxy::to(&origin.url()).start();
    proxy.process.err.pause();
    call(&proxy, CALLS);
    assert_eq!(http::get(proxy.admin, "/livez").status, 200);
    let dropped = proxy.metric(DROPPED).unwrap();
    assert!(dropped > 0.0, "the queue is bounded");

    proxy.process.err.resume();
    let lost = proxy.process.err.wait_for("the lines lost", |line| {
        message(line, LOST)?["lines"].as_u64()
    });
    assert_eq!(lost as f64, dropped);
    let log = proxy.process.err.all();
    let written = log
        .lines()
        .filter(|line| line.contains(r#""target":"access""#));
    assert_eq!(
        written.count() + lost as usize,
        CALLS,
        "calls leave lines behind for the others"
    );
}

/// A proxy whose log nobody reads, with a request in flight.
fn stuck() -> (Origin, Gate, Proxy, Connection) {
    let gate = Gate::default();
    let held = gate.clone();
    let origin = Origin::start(move |request, stream| {
        if request.head.starts_with("GET /held") {
            held.pass();
        }
        stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")?;
        Ok(After::Keep)
    });
    let proxy = Proxy::to(&origin.url()).flag("--drain", "10m").start();
    proxy.process.err.pause();
    call(&proxy, 1_000);
    let mut held = proxy.connect();
    held.send(proxy.bytes("GET /held HTTP/1.1\nHost: {host}\n\n"));
    until("the call at the origin", || {
        (origin.requests().len() == 1_001).then_some(())
    });
    (origin, gate, proxy, held)
}

fn ends_with(process: &mut Process, status: i32) {
    process.is_gone_within(SOON);
    process.err.resume();
    assert_eq!(process.ended_within(SOON), status);
}

#[test]
fn a_signal_ends_a_proxy_that_nobody_reads_the_log_of() {
    let (_origin, gate, mut proxy, mut held) = stuck();
    proxy.process.signal("TERM");
    until("the drain", || {
        std::net::TcpStream::connect(proxy.address)
            .is_err()
            .then_some(())
    });
    gate.open();
    assert_eq!(held.answer("GET").status, 200);
    ends_with(&mut proxy.process, 0);
}

#[test]
fn a_second_signal_ends_it_at_once() {
    let (_origin, _gate, mut proxy, _held) = stuck();
    proxy.process.signal("TERM");
    until("the drain", || {
        std::net::TcpStream::connect(proxy.address)
            .is_err()
            .then_some(())
    });
    proxy.process.signal("TERM");
    ends_with(&mut proxy.process, 1);
}
