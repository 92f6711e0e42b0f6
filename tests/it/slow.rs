//! Callers that are deliberately slow, or large: they are cut in bounded time, cost little, and do
//! not affect others.

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::thread;
use std::time::Duration;

use crate::support::http::{self, Connection};
use crate::support::origin::{After, Gate};
use crate::support::wait::now;
use crate::support::{Origin, PATIENCE, Proxy, pair, until};

/// As many callers as slowhttptest uses.
const CALLERS: usize = 300;

const OPEN: &str = "collibra_auth_proxy_connections{listener=\"local\"}";

/// Returns whether the other side has closed the connection; does not wait.
fn is_ended(stream: &TcpStream) -> bool {
    let mut byte = [0; 4096];
    stream.set_nonblocking(true).unwrap();
    loop {
        match (&mut &*stream).read(&mut byte) {
            Ok(0) => return true,
            Ok(_) => {}
            Err(error) => return error.kind() != ErrorKind::WouldBlock,
        }
    }
}

/// Lets `callers` do `more` every 200 ms until all are cut, while a good caller is served. Returns
/// how long it took, and the good caller's 99th percentile.
fn until_all_are_ended(
    proxy: &Proxy,
    mut callers: Vec<TcpStream>,
    mut more: impl FnMut(&mut TcpStream),
) -> (Duration, Duration) {
    let start = now();
    let mut took = Vec::new();
    while !callers.is_empty() {
        assert!(start.elapsed() < PATIENCE, "{} are left", callers.len());
        callers.retain_mut(|stream| {
            more(stream);
            !is_ended(stream)
        });
        let round = now();
        while round.elapsed() < Duration::from_millis(200) {
            let asked = now();
            assert_eq!(proxy.get("/echo").status, 200);
            took.push(asked.elapsed());
            thread::sleep(Duration::from_millis(5));
        }
    }
    took.sort();
    (start.elapsed(), took[took.len() * 99 / 100])
}

fn callers(proxy: &Proxy, start: &str) -> Vec<TcpStream> {
    let start = proxy.bytes(start);
    let connect = |_| {
        let mut stream = http::tcp(proxy.address);
        stream.write_all(&start).unwrap();
        stream
    };
    (0..CALLERS).map(connect).collect()
}

/// A proxy with short deadlines. The good caller has no deadline, because the machine may be busy.
fn impatient() -> (crate::support::Simulator, Proxy) {
    let simulator = crate::support::Simulator::start();
    let keys = "header_timeout = \"1s\"\nmin_body_rate = 4096\n";
    let proxy = Proxy::configured(&simulator.url(), "", keys).start();
    proxy.has_token();
    (simulator, proxy)
}

fn report(what: &str, (all, p99): (Duration, Duration)) {
    println!("{what}: {CALLERS} ended after {all:?}; a good caller's p99 {p99:?}");
    assert!(all < Duration::from_secs(30), "{what}: {all:?}");
    assert!(p99 < Duration::from_secs(2), "{what}: p99 {p99:?}");
}

#[test]
fn slow_heads_and_silent_connections_are_ended() {
    let (_simulator, proxy) = impatient();
    let slow = callers(&proxy, "GET / HTTP/1.1\nHost: {host}\nX-1: 1\n");
    let drip = |stream: &mut TcpStream| drop(stream.write_all(b"X-2: 2\r\n"));
    report("slow heads", until_all_are_ended(&proxy, slow, drip));
    let silent = callers(&proxy, "");
    report("silence", until_all_are_ended(&proxy, silent, |_| {}));
    proxy.metric_becomes(OPEN, 0.0);
    let refused = "collibra_auth_proxy_refused_total{listener=\"local\",reason=\"slow-header\"}";
    proxy.metric_becomes(refused, CALLERS as f64);
}

#[test]
fn slow_bodies_are_answered_and_ended() {
    let (simulator, proxy) = impatient();
    let head = "POST /echo HTTP/1.1\nHost: {host}\nContent-Length: 4096000\n\n";
    let slow = callers(&proxy, head);
    let drip = |stream: &mut TcpStream| drop(stream.write_all(b"&x=1"));
    report("slow bodies", until_all_are_ended(&proxy, slow, drip));

    let mut one = proxy.connect();
    one.send(proxy.bytes("POST /echo HTTP/1.1\nHost: {host}\nTransfer-Encoding: chunked\n\n"));
    one.send("1\r\nx\r\n");
    let answer = one.answer("POST");
    answer.assert_refused(408, "slow-body");
    one.is_closed();
    proxy.metric_becomes(OPEN, 0.0);
    assert_eq!(simulator.count("unauthorized"), 0);
}

#[test]
fn a_body_in_chunks_may_begin_late() {
    let (_simulator, proxy) = impatient();
    let mut late = proxy.connect();
    late.send(proxy.bytes("POST /echo HTTP/1.1\nHost: {host}\nTransfer-Encoding: chunked\n\n"));
    // longer than the five seconds that others have; 30 are too long for a test
    assert!(late.is_silent_for(Duration::from_secs(7)));
    late.send("1\r\nx\r\n0\r\n\r\n");
    assert_eq!(late.answer("POST").status, 200);
}

#[test]
fn slow_readers_are_cut() {
    let simulator = crate::support::Simulator::start();
    // data buffered by the callers' systems counts for them, and is soon used up at this rate
    let proxy = Proxy::configured(&simulator.url(), "", "min_body_rate = 10000000").start();
    proxy.has_token();
    // more than the systems on both ends buffer
    let ask = "GET /_bytes/64000000 HTTP/1.1\nHost: {host}\n\n";
    let mut readers: Vec<Connection> = (0..20).map(|_| proxy.connect()).collect();
    for reader in &mut readers {
        reader.send(proxy.bytes(ask));
        assert_eq!(reader.head().status, 200);
    }
    proxy.metric_becomes(OPEN, 20.0);
    let start = now();
    until("the end of those who do not read", || {
        (proxy.metric(OPEN) == Some(0.0)).then_some(())
    });
    println!("slow readers: cut after {:?}", start.elapsed());
}

#[test]
fn who_waits_for_the_instance_is_not_slow() {
    let (first, second) = (Gate::default(), Gate::default());
    let gates = (first.clone(), second.clone());
    let origin = Origin::start(move |request, stream| {
        if request.target() == "/slow" {
            gates.0.pass();
            stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nab")?;
            stream.flush()?;
            gates.1.pass();
            stream.write_all(b"cd")?;
        } else {
            stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")?;
        }
        Ok(After::Keep)
    });
    let keys = "min_body_rate = 1000000\n";
    let proxy = Proxy::configured(&origin.url(), "", keys).start();
    proxy.has_token();
    let mut connection = proxy.connect();
    let request = "POST /slow HTTP/1.1\nHost: {host}\nContent-Length: 3\n\nabc";
    connection.send(proxy.bytes(request));
    // longer than the five seconds of grace
    assert!(connection.is_silent_for(Duration::from_secs(7)));
    first.open();
    assert_eq!(connection.head().status, 200);
    assert_eq!(connection.some(), b"ab");
    assert!(connection.is_silent_for(Duration::from_secs(7)));
    second.open();
    assert_eq!(connection.some(), b"cd");
    // and between two requests nobody is slow
    assert!(connection.is_silent_for(Duration::from_secs(7)));
    connection.send(proxy.bytes("GET /next HTTP/1.1\nHost: {host}\n\n"));
    assert_eq!(connection.answer("GET").status, 200);
}

#[test]
fn large_heads_cost_little() {
    let (_simulator, proxy) = pair();
    let before = proxy.process.memory_kib("VmRSS");
    let line = format!("X-Fill: {}\r\n", "x".repeat(4000));
    let mut callers: Vec<TcpStream> = (0..200).map(|_| http::tcp(proxy.address)).collect();
    for stream in &mut callers {
        let mut send = || -> std::io::Result<()> {
            stream.write_all(&proxy.bytes("GET /echo HTTP/1.1\nHost: {host}\n"))?;
            for _ in 0..225 {
                stream.write_all(line.as_bytes())?;
            }
            Ok(())
        };
        // it may be refused before it has sent everything
        let _ = send();
    }
    let refused = "collibra_auth_proxy_refused_total{listener=\"local\",reason=\"large-header\"}";
    proxy.metric_becomes(refused, 200.0);
    let most = proxy.process.memory_kib("VmHWM");
    println!(
        "200 heads of 900 KB: {} KiB above {before} KiB",
        most - before
    );
    assert!(most - before < 64 * 1024, "{before} KiB -> {most} KiB");
}
