//! A new process replaces the old one without a failed request.

use std::net::SocketAddr;
use std::time::Duration;

use crate::support::load::{Load, Pace};
use crate::support::process::Grandchild;
use crate::support::proxy::message;
use crate::support::wait::now;
use crate::support::{Connection, PATIENCE, Proxy, Simulator, file, until};

/// Callers without a pause, half of them with a new connection per call.
fn callers(address: SocketAddr) -> Load {
    let pace = Pace {
        callers: 16,
        every: Duration::ZERO,
        fresh: 2,
        ..Pace::default()
    };
    Load::start(&[address], pace)
}

/// Replaces the proxy by a successor; returns it when the old process is gone.
fn upgrade(proxy: &mut Proxy) -> Grandchild {
    proxy.process.signal("USR2");
    let successor = proxy.process.err.wait_for("a successor", |line| {
        message(line, "SIGUSR2: a successor starts")?["process"].as_u64()
    });
    let successor = Grandchild(successor);
    is_gone(proxy);
    successor
}

/// As [`upgrade`], but returns as soon as the successor serves.
fn serves(proxy: &Proxy) -> Grandchild {
    proxy.process.signal("USR2");
    let successor = proxy.process.err.wait_for("a successor", |line| {
        message(line, "a successor serves: draining")?["process"].as_u64()
    });
    Grandchild(successor)
}

fn is_gone(proxy: &mut Proxy) {
    until("the end of the old process", || {
        (!proxy.process.runs()).then_some(())
    });
}

/// Stops the successor; returns the old process's exit status.
fn end(mut proxy: Proxy, successor: &Grandchild) -> i32 {
    assert!(successor.signal("TERM"), "it runs");
    proxy.process.ended_within(PATIENCE)
}

#[test]
fn no_call_and_no_token_is_lost_by_an_upgrade_and_a_reload() {
    let simulator = Simulator::start();
    let mut proxy = Proxy::to(&simulator.url()).start();
    proxy.has_token();
    let callers = callers(proxy.address);
    let begun = now();
    callers.answered(2000);
    let successor = upgrade(&mut proxy);
    callers.answered(2000);
    assert!(successor.signal("HUP"));
    proxy.process.err.wait_for("the reload", |line| {
        message(line, "configuration unchanged").map(|_| ())
    });
    callers.answered(2000);
    let answered = callers.lost_nothing().answers;
    println!("{answered} calls in {:?}", begun.elapsed());
    simulator.assert_one_token_and_none_unauthorized();
    // the admin address now belongs to the successor
    assert_eq!(
        crate::support::http::get(proxy.admin, "/readyz").status,
        200
    );
    assert_eq!(end(proxy, &successor), 0);
}

#[test]
fn a_call_under_way_is_finished_by_the_old_process() {
    let simulator = Simulator::start();
    let mut proxy = Proxy::to(&simulator.url()).start();
    proxy.has_token();
    let mut slow = proxy.connect();
    slow.send(proxy.bytes("GET /_bytes/40?piece=10&pause=500 HTTP/1.1\nHost: {host}\n\n"));
    proxy.metric_becomes(
        r#"collibra_auth_proxy_requests_in_flight{client="default"}"#,
        1.0,
    );
    let successor = serves(&proxy);
    let answer = slow.answer("GET");
    assert_eq!(answer.body, b"0123456789abcdef0123456789abcdef01234567");
    drop(slow);
    is_gone(&mut proxy);
    assert_eq!(proxy.get("/rest/2.0/application/info").status, 200);
    assert_eq!(end(proxy, &successor), 0);
}

#[test]
fn an_idle_connection_may_have_one_more_call() {
    let simulator = Simulator::start();
    let mut proxy = Proxy::to(&simulator.url()).start();
    proxy.has_token();
    let mut kept = proxy.connect();
    assert_eq!(
        kept.get(proxy.address, "/x").header("connection"),
        Some("keep-alive")
    );
    let successor = serves(&proxy);
    let last = kept.get(proxy.address, "/x");
    assert_eq!(last.header("connection"), Some("close"));
    is_gone(&mut proxy);
    assert_eq!(end(proxy, &successor), 0);
}

#[test]
fn a_successor_that_cannot_start_changes_nothing() {
    let simulator = Simulator::start();
    let configuration = format!(
        "[instance.a]\nurl = \"{}\"\n[client.b]\nclient_id = \"i\"\nclient_secret = \"s\"\n\
         [listener.c]\naddress = \"127.0.0.1:0\"\n[admin]\naddress = \"127.0.0.1:0\"\n",
        simulator.url()
    );
    let (_folder, path) = file("proxy.toml", configuration.as_bytes());
    let mut proxy = Proxy::by_file(&path).start();
    std::fs::write(&path, "faulty").unwrap();
    proxy.process.signal("USR2");
    proxy.process.err.wait_for("a failure", |line| {
        line.contains("the successor did not start to serve, so this process continues: it ended (exit status: 78)")
            .then_some(())
    });
    assert_eq!(crate::support::http::get(proxy.admin, "/livez").status, 200);
    drop(proxy.connect());
    proxy.process.signal("TERM");
    assert_eq!(proxy.process.ended_within(PATIENCE), 0);
}

#[test]
fn unix_sockets_go_over_and_are_removed_by_the_last() {
    let simulator = Simulator::start();
    let folder = tempfile::tempdir().unwrap();
    let configuration = format!(
        "[instance.a]\nurl = \"{}\"\n\
         [client.b]\nclient_id = \"i\"\nclient_secret = \"s\"\nwait_for_token = \"0s\"\n\
         [listener.tcp]\naddress = \"127.0.0.1:0\"\nclient = \"b\"\n\
         [listener.unix]\naddress = \"unix:local.sock\"\nclient = \"b\"\n\
         [admin]\naddress = \"127.0.0.1:0\"\n",
        simulator.url()
    );
    let path = folder.path().join("proxy.toml");
    std::fs::write(&path, configuration).unwrap();
    let socket = folder.path().join("local.sock");
    let mut proxy = Proxy::by_file(&path).start();
    until("the socket", || socket.exists().then_some(()));
    let successor = upgrade(&mut proxy);
    let mut connection = Connection::open_unix(&socket);
    connection.send("GET /x HTTP/1.1\r\nHost: localhost\r\n\r\n");
    assert_eq!(
        connection.answer("GET").status,
        503,
        "it has no token, and says so"
    );
    assert_eq!(end(proxy, &successor), 0);
    assert!(!socket.exists());
}

#[test]
fn a_second_upgrade_is_like_the_first() {
    let simulator = Simulator::start();
    let mut proxy = Proxy::to(&simulator.url()).start();
    proxy.has_token();
    let callers = callers(proxy.address);
    let first = upgrade(&mut proxy);
    assert!(first.signal("USR2"));
    let second = proxy.process.err.wait_for_nth("a successor", 2, |line| {
        message(line, "SIGUSR2: a successor starts")?["process"].as_u64()
    });
    let second = Grandchild(second.0);
    until("the end of the first", || {
        (!first.signal("0")).then_some(())
    });
    callers.answered(100);
    callers.lost_nothing();
    simulator.assert_one_token_and_none_unauthorized();
    assert_eq!(end(proxy, &second), 0);
}

#[test]
fn told_to_end_it_takes_a_successor_that_starts_along() {
    let simulator = Simulator::start();
    let mut proxy = Proxy::to(&simulator.url()).start();
    proxy.has_token();
    proxy.process.signal("USR2");
    let successor = proxy.process.err.wait_for("a successor", |line| {
        message(line, "SIGUSR2: a successor starts")?["process"].as_u64()
    });
    let successor = Grandchild(successor);
    proxy.process.signal("TERM");
    // in either order
    let status = || (!successor.signal("TERM")).then_some(());
    until("the end of the successor", status);
    assert!(proxy.process.ended_within(Duration::from_secs(30)) <= 1);
}
