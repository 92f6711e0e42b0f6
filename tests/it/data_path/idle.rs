//! Idle connections are closed after 60 s, and at once when `max_connections` or the file
//! descriptors are used up.

use std::time::Duration;

use crate::support::frames::{GOAWAY, HEADERS};
use crate::support::h2_caller::Served;
use crate::support::http::{self, Connection};
use crate::support::origin::{After, Gate};
use crate::support::wait::now;
use crate::support::{Origin, Proxy, Simulator, until};

/// The keep-alive time that docs/listeners.md promises.
const KEPT: Duration = Duration::from_secs(60);

/// Tolerance for a busy machine.
const LATE: Duration = Duration::from_secs(9);

/// How long to wait for bytes that must not come.
const SILENCE: Duration = Duration::from_millis(300);

/// A proxy with `max_connections = most`, in front of a simulator.
fn limited(most: usize) -> (Simulator, Proxy) {
    let simulator = Simulator::start();
    let keys = format!("max_connections = {most}");
    let proxy = Proxy::configured(&simulator.url(), "", &keys).start();
    proxy.has_token();
    (simulator, proxy)
}

/// An origin that answers `/held` once the gate is open, and everything else at once.
fn gated() -> (Gate, Origin) {
    let gate = Gate::default();
    let opened = gate.clone();
    let origin = Origin::start(move |request, stream| {
        if request.target() == "/held" {
            opened.pass();
        }
        stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")?;
        Ok(After::Keep)
    });
    (gate, origin)
}

/// Opens connections, each with one completed request, one after the other.
fn idle(proxy: &Proxy, count: usize) -> Vec<Connection> {
    let connect = |_| {
        let mut connection = proxy.connect();
        assert_eq!(connection.get(proxy.address, "/x").status, 200);
        connection
    };
    (0..count).map(connect).collect()
}

#[test]
fn an_idle_connection_is_closed_after_a_minute() {
    let served = Served::with("");
    let (_simulator, proxy) = crate::support::pair();
    let mut http1 = idle(&proxy, 1).remove(0);
    let start = now();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut http2 = served.frames();
            http2.greet();
            assert!(http2.request(1, "GET", "/echo", true));
            http2.find("the answer", |frame| (frame.kind == HEADERS).then_some(()));
            http2.ends_within(KEPT + LATE);
            let after = start.elapsed();
            assert!(after > KEPT - LATE, "HTTP/2: after {after:?}");
        });
        let silent = http1.is_silent_for(KEPT + LATE);
        assert!(!silent, "it is still open after {:?}", start.elapsed());
        http1.is_closed();
        let after = start.elapsed();
        assert!(after > KEPT - LATE, "after {after:?}");
    });
}

#[test]
fn at_the_limit_the_longest_idle_connection_makes_room_at_once() {
    let (simulator, proxy) = limited(5);
    let mut callers = idle(&proxy, 5);
    // now the second is the longest idle
    assert_eq!(callers[0].get(proxy.address, "/x").status, 200);
    let start = now();
    callers.extend(idle(&proxy, 1));
    let took = start.elapsed();
    assert!(took < Duration::from_secs(5), "room came after {took:?}");
    let shed = r#"collibra_auth_proxy_connections_shed_total{listener="local"}"#;
    proxy.metric_becomes(shed, 1.0);
    let mut closed = Vec::new();
    for (nth, connection) in callers.iter_mut().enumerate() {
        let _ = connection.try_send(proxy.bytes("GET /x HTTP/1.1\nHost: {host}\n\n"));
        match connection.answer_or_end("GET") {
            Some(answer) => assert_eq!(answer.status, 200),
            None => closed.push(nth),
        }
    }
    assert!(matches!(closed[..], [1..=4]), "closed: {closed:?}");
    // each new caller gets in
    for _ in 0..20 {
        callers.extend(idle(&proxy, 1));
    }
    assert_eq!(simulator.count("requests"), 32);
}

#[test]
fn at_the_limit_an_idle_http_2_connection_makes_room() {
    let served = Served::with("max_connections = 1");
    let mut first = served.frames();
    first.greet();
    assert!(first.request(1, "GET", "/echo", true));
    first.find("the answer", |frame| (frame.kind == HEADERS).then_some(()));
    let start = now();
    served.serves();
    let took = start.elapsed();
    assert!(took < Duration::from_secs(5), "room came after {took:?}");
    first.find("a farewell", |frame| (frame.kind == GOAWAY).then_some(()));
    first.ends();
}

#[test]
fn at_the_limit_a_busy_connection_is_not_closed() {
    let (gate, origin) = gated();
    let proxy = Proxy::configured(&origin.url(), "", "max_connections = 2").start();
    proxy.has_token();
    let mut busy = [proxy.connect(), proxy.connect()];
    for connection in &mut busy {
        connection.send(proxy.bytes("GET /held HTTP/1.1\nHost: {host}\n\n"));
    }
    until("both at the origin", || {
        (origin.requests().len() == 2).then_some(())
    });
    let mut third = proxy.connect();
    third.send(proxy.bytes("GET /x HTTP/1.1\nHost: {host}\n\n"));
    assert!(third.is_silent_for(SILENCE), "there was no room");
    gate.open();
    for connection in &mut busy {
        assert_eq!(connection.answer("GET").status, 200);
    }
    // both are idle now, and one makes room
    assert_eq!(third.answer("GET").status, 200);
}

#[test]
fn without_descriptors_idle_callers_are_shed_and_livez_answers() {
    let simulator = Simulator::start();
    let proxy = starved(&simulator.url());
    // more callers than there are descriptors
    let callers: Vec<Connection> = (0..2 * DESCRIPTORS).flat_map(|_| idle(&proxy, 1)).collect();
    let start = now();
    assert_eq!(http::get(proxy.admin, "/livez").status, 200);
    let took = start.elapsed();
    assert!(took < Duration::from_secs(5), "/livez took {took:?}");
    assert_eq!(proxy.get("/x").status, 200);
    says_little(&proxy);
    drop(callers);
}

#[test]
fn without_descriptors_busy_callers_are_kept_and_livez_answers() {
    let (gate, origin) = gated();
    let proxy = starved(&origin.url());
    let mut callers: Vec<Connection> = (0..2 * DESCRIPTORS).map(|_| proxy.connect()).collect();
    for connection in &mut callers {
        // a refused connection may be closed already
        let _ = connection.try_send(proxy.bytes("GET /held HTTP/1.1\nHost: {host}\n\n"));
    }
    for _ in 0..10 {
        let start = now();
        assert_eq!(http::get(proxy.admin, "/livez").status, 200);
        let took = start.elapsed();
        assert!(took < Duration::from_secs(5), "/livez took {took:?}");
    }
    says_little(&proxy);
    gate.open();
    let answered = |connection: &mut Connection| {
        let answer = connection.answer_or_end("GET");
        answer.is_some_and(|answer| answer.status == 200)
    };
    let answered = callers
        .iter_mut()
        .filter_map(|it| answered(it).then_some(()));
    let answered = answered.count();
    assert!(answered >= 10, "{answered} were served");
    drop(callers);
    assert_eq!(proxy.get("/x").status, 200, "and it goes on");
}

#[test]
fn without_descriptors_a_caller_waits_for_the_end_of_a_call() {
    let (gate, origin) = gated();
    let proxy = starved(&origin.url());
    let held = proxy.bytes("GET /held HTTP/1.1\nHost: {host}\n\n");
    std::thread::scope(|scope| {
        scope.spawn(|| {
            proxy.process.err.wait_for("the shortage", |said| {
                said.contains("cannot accept a connection").then_some(())
            });
            gate.open();
        });
        // more than there are descriptors
        let mut callers: Vec<Connection> = (0..DESCRIPTORS).map(|_| proxy.connect()).collect();
        for connection in &mut callers {
            connection.send(&held);
        }
        for connection in &mut callers {
            let answer = connection.answer("GET");
            assert_eq!(answer.status, 200, "{answer:?}");
        }
    });
}

#[test]
fn at_the_limit_an_http_2_connection_with_an_open_stream_is_not_closed() {
    let served = Served::with("max_connections = 1");
    let mut first = served.frames();
    first.greet();
    assert!(first.request(1, "GET", "/_sleep/1500", true));
    until("the request at the simulator", || {
        (served.simulator.count("requests") == 1).then_some(())
    });
    std::thread::scope(|scope| {
        scope.spawn(|| served.serves());
        let status = first.find("the answer", |frame| {
            (frame.kind == HEADERS).then(|| frame.status())
        });
        assert_eq!(status, Some(200));
    });
}

/// The descriptor limit of a starved proxy.
const DESCRIPTORS: usize = 100;

/// A proxy that soon runs out of file descriptors.
fn starved(url: &str) -> Proxy {
    let limit = format!("ulimit -n {DESCRIPTORS}; exec \"$@\"");
    let proxy = Proxy::configured(url, "", "")
        .by(&["sh", "-c", &limit, "sh"])
        .start();
    proxy.has_token();
    proxy
}

/// Asserts that the log does not repeat the shortage.
fn says_little(proxy: &Proxy) {
    let said = proxy.process.err.all();
    let other = |line: &&str| !line.contains("\"target\":\"access\"");
    let lines: Vec<&str> = said.lines().filter(other).collect();
    assert!(lines.len() < 15, "{} lines: {lines:#?}", lines.len());
}
