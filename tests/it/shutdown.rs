//! On shutdown the proxy finishes requests in flight, accepts no new ones, and exits in time.

use std::net::TcpStream;
use std::time::Duration;

use crate::support::origin::{After, Gate};
use crate::support::process::{self, Process};
use crate::support::{Connection, Origin, Proxy, Simulator, pair, until};

/// Far longer than a shutdown, far shorter than any drain in these tests.
const SOON: Duration = Duration::from_secs(30);

/// A proxy, and 50 requests at an origin that holds them until the gate opens.
fn fifty_under_way(drain: &str) -> (Origin, Gate, Proxy, Vec<Connection>) {
    let gate = Gate::default();
    let held = gate.clone();
    let origin = Origin::start(move |_, stream| {
        held.pass();
        stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")?;
        Ok(After::Keep)
    });
    let proxy = Proxy::to(&origin.url()).flag("--drain", drain).start();
    let request = proxy.bytes("GET /x HTTP/1.1\nHost: {host}\n\n");
    let connections = (0..50).map(|_| {
        let mut connection = proxy.connect();
        connection.send(&request);
        connection
    });
    let connections = connections.collect();
    until("50 requests at the origin", || {
        (origin.requests().len() == 50).then_some(())
    });
    (origin, gate, proxy, connections)
}

fn refuses_connections(proxy: &Proxy) {
    until("new connections to be refused", || {
        TcpStream::connect(proxy.address).is_err().then_some(())
    });
}

#[test]
fn what_is_under_way_is_finished_and_nothing_new_is_taken() {
    for signal in ["TERM", "INT"] {
        let (_origin, gate, mut proxy, connections) = fifty_under_way("10m");
        proxy.process.signal(signal);
        refuses_connections(&proxy);
        assert!(proxy.process.runs(), "it waits for requests in flight");
        gate.open();
        for mut connection in connections {
            let answer = connection.answer("GET");
            assert_eq!((answer.status, answer.text().as_str()), (200, "ok"));
        }
        assert_eq!(proxy.process.ended_within(SOON), 0, "{signal}");
    }
}

#[test]
fn who_is_answered_during_the_drain_is_told_to_go() {
    let (_origin, gate, mut proxy, connections) = fifty_under_way("10m");
    proxy.process.signal("TERM");
    refuses_connections(&proxy);
    gate.open();
    for mut connection in connections {
        let answer = connection.answer("GET");
        assert_eq!(answer.header("connection"), Some("close"));
        connection.is_closed();
    }
    assert_eq!(proxy.process.ended_within(SOON), 0);
}

#[test]
fn two_hundred_slow_calls_are_all_answered() {
    const CALLS: usize = 200;
    let origin = Origin::start(|_, stream| {
        std::thread::sleep(Duration::from_secs(2));
        stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")?;
        Ok(After::Keep)
    });
    let mut proxy = Proxy::to(&origin.url()).start();
    proxy.has_token();
    let request = proxy.bytes("GET /x HTTP/1.1\nHost: {host}\n\n");
    let mut connections: Vec<Connection> = (0..CALLS).map(|_| proxy.connect()).collect();
    for connection in &mut connections {
        connection.send(&request);
    }
    until("200 requests at the origin", || {
        (origin.requests().len() == CALLS).then_some(())
    });
    proxy.process.signal("TERM");
    for mut connection in connections {
        let answer = connection.answer("GET");
        assert_eq!((answer.status, answer.whole), (200, true));
    }
    assert_eq!(proxy.process.ended_within(Duration::from_secs(25)), 0);
}

#[test]
fn what_takes_longer_than_the_drain_is_cut() {
    let (_origin, _gate, mut proxy, connections) = fifty_under_way("1s");
    proxy.process.signal("TERM");
    assert_eq!(proxy.process.ended_within(SOON), 0);
    for mut connection in connections {
        let rest = connection.rest();
        assert!(!rest.starts_with(b"HTTP/1.1 200"), "it was never answered");
    }
    let said = proxy.process.err.all();
    assert!(said.contains(r#""connections":50"#), "{said}");
}

#[test]
fn a_download_under_way_is_finished() {
    let simulator = Simulator::start();
    let mut proxy = Proxy::to(&simulator.url()).flag("--drain", "10m").start();
    let mut connection = proxy.connect();
    let request = "GET /_bytes/40?piece=10&pause=500 HTTP/1.1\nHost: {host}\n\n";
    connection.send(proxy.bytes(request));
    let head = connection.head();
    assert_eq!(head.status, 200);
    proxy.process.signal("TERM");
    let body = connection.rest();
    assert_eq!(body, b"0123456789abcdef0123456789abcdef01234567");
    assert_eq!(proxy.process.ended_within(SOON), 0);
}

#[test]
fn idle_connections_hold_nothing_up() {
    let simulator = Simulator::start();
    let mut proxy = Proxy::to(&simulator.url()).flag("--drain", "10m").start();
    let mut used = proxy.connect();
    assert_eq!(used.get(proxy.address, "/x").status, 200);
    let mut unused = proxy.connect();
    // callers are accepted in order, so this one was
    assert_eq!(proxy.get("/x").status, 200);
    proxy.process.signal("TERM");
    used.is_closed();
    unused.is_closed();
    assert_eq!(proxy.process.ended_within(SOON), 0);
}

#[test]
fn a_second_signal_ends_it_at_once() {
    let (_origin, _gate, mut proxy, _connections) = fifty_under_way("10m");
    proxy.process.signal("TERM");
    refuses_connections(&proxy);
    proxy.process.signal("TERM");
    assert_eq!(proxy.process.ended_within(SOON), 1);
}

#[test]
fn a_cold_start_does_not_hold_the_end_up() {
    let simulator = Simulator::start();
    simulator.fault("token", "hang");
    // without a caller, and with one that waits for a token
    for callers in 0..2 {
        let mut proxy = Proxy::to(&simulator.url())
            .flag("--drain", "1s")
            .flag("--wait-for-token", "10m")
            .flag("--token-timeout", "10m")
            .start();
        let connections = (0..callers).map(|_| {
            let mut connection = proxy.connect();
            connection.send(proxy.bytes("GET /x HTTP/1.1\nHost: {host}\n\n"));
            connection
        });
        let _connections: Vec<Connection> = connections.collect();
        proxy.process.signal("TERM");
        assert_eq!(proxy.process.ended_within(SOON), 0);
    }
}

#[test]
fn while_it_drains_it_is_not_ready() {
    let (_origin, gate, mut proxy, _connections) = fifty_under_way("10m");
    let readyz = |proxy: &Proxy| crate::support::http::get(proxy.admin, "/readyz").status;
    assert_eq!(readyz(&proxy), 200);
    proxy.process.signal("TERM");
    until("not ready", || (readyz(&proxy) == 503).then_some(()));
    gate.open();
    assert_eq!(proxy.process.ended_within(SOON), 0);
}

#[test]
fn the_command_drain_ends_the_proxy_and_waits_for_it() {
    let (_origin, gate, mut proxy, connections) = fifty_under_way("10m");
    let admin = proxy.admin.to_string();
    let drain =
        |timeout: &str| process::command(["drain", "--admin", &admin, "--timeout", timeout]);

    let mut waiting = Process::spawn(&mut drain("10m"));
    refuses_connections(&proxy);
    let ended = process::run(&mut drain("500ms"));
    assert_eq!(ended.status, 1);
    assert!(ended.err.contains("still finishes"), "{}", ended.err);
    let ready = crate::support::http::get(proxy.admin, "/readyz");
    assert_eq!(
        (ready.status, ready.text().as_str()),
        (503, "not ready: draining\n")
    );

    gate.open();
    for mut connection in connections {
        assert_eq!(connection.answer("GET").status, 200);
    }
    assert_eq!(waiting.ended_within(SOON), 0);
    assert_eq!(proxy.process.ended_within(SOON), 0);
    let ended = process::run(&mut drain("10s"));
    assert_eq!(ended.status, 1, "there is nobody left to ask");
}

#[test]
fn the_simulator_ends_when_asked() {
    let (simulator, _proxy) = pair();
    assert_eq!(simulator.end(), 0);
}
