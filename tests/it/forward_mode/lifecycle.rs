//! Drain, upgrade and reload of a forward listener.

use std::time::Duration;

use super::rig::{HOST, Prepared, Rig, connected, get, handshake};
use crate::support::origin::{After, Gate};
use crate::support::process::Grandchild;
use crate::support::proxy::message;
use crate::support::{Connection, PATIENCE, until};

/// Far longer than a shutdown, far shorter than a drain.
const SOON: Duration = Duration::from_secs(30);

#[test]
fn a_drain_lets_calls_inside_end_and_closes_idle_tunnels() {
    let gate = Gate::default();
    let held = gate.clone();
    let prepared = Prepared::answering("", move |request, stream| {
        if request.target() == "/slow" {
            held.pass();
        }
        stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")?;
        Ok(After::Keep)
    });
    let mut rig = prepared.start();
    let (mut busy, mut idle) = (rig.inside(), rig.inside());
    assert_eq!(get(&mut idle, "/x").status, 200);
    let request = format!("GET /slow HTTP/1.1\r\nHost: {HOST}\r\n\r\n");
    busy.send(&request);
    until("the call at the instance", || {
        (rig.origin.requests().len() == 2).then_some(())
    });
    rig.proxy.process.signal("TERM");
    idle.is_closed();
    assert!(rig.proxy.process.runs());
    gate.open();
    let answer = busy.answer(&request);
    assert_eq!(
        (answer.status, answer.header("connection")),
        (200, Some("close"))
    );
    busy.is_closed();
    assert_eq!(rig.proxy.process.ended_within(SOON), 0);
}

#[test]
fn a_successor_takes_over_and_no_call_is_lost() {
    let mut rig = Rig::with("", "");
    let mut open = rig.inside();
    assert_eq!(get(&mut open, "/x").status, 200);
    rig.proxy.process.signal("USR2");
    let successor = rig.proxy.process.err.wait_for("a successor", |line| {
        message(line, "a successor serves: draining")?["process"].as_u64()
    });
    let successor = Grandchild(successor);
    assert_eq!(
        get(&mut open, "/x").status,
        200,
        "one more in the old process"
    );
    open.is_closed();
    assert_eq!(get(&mut rig.inside(), "/x").status, 200);
    assert_eq!(
        rig.origin.token_requests().len(),
        1,
        "the token was handed off"
    );
    assert!(successor.signal("TERM"), "it runs");
    assert_eq!(rig.proxy.process.ended_within(PATIENCE), 0);
}

#[test]
fn an_instance_that_is_no_longer_configured_is_no_longer_served() {
    let rig = Rig::with("", "");
    let mut open = rig.inside();
    assert_eq!(get(&mut open, "/x").status, 200);
    let file = rig.folder.path().join("proxy.toml");
    let text = std::fs::read_to_string(&file).unwrap();
    std::fs::write(
        &file,
        text.replace("https://acme.example", "https://new.example"),
    )
    .unwrap();
    rig.proxy.process.signal("HUP");
    until("the tunnel's host to be refused", || {
        (get(&mut open, "/x").status == 421).then_some(())
    });
    let head = format!("CONNECT {HOST}:443 HTTP/1.1\nHost: {HOST}:443\n\n");
    rig.ask(&head).0.assert_refused(403, "not-an-instance");
    // the new host is served as soon as the authority covers it
    super::rig::ca(rig.folder.path(), &["renew"]);
    rig.proxy.process.signal("HUP");
    let head = "CONNECT new.example:443 HTTP/1.1\nHost: new.example:443\n\n";
    until("the new host to be certified", || {
        (rig.ask(head).0.status == 200).then_some(())
    });
    let tcp = connected(rig.address(), "new.example:443", "");
    handshake(tcp, &rig.ca_file(), "new.example", &[]).unwrap();
}

#[test]
fn open_tunnels_are_refused_once_the_listener_is_a_reverse_proxy() {
    let rig = Rig::with("", "");
    let mut open = rig.inside();
    assert_eq!(get(&mut open, "/x").status, 200);
    let file = rig.folder.path().join("proxy.toml");
    let text = std::fs::read_to_string(&file).unwrap();
    std::fs::write(&file, text.replace("mode = \"forward\"\n", "")).unwrap();
    rig.proxy.process.signal("HUP");
    until("the tunnel to be refused", || {
        (get(&mut open, "/x").status == 421).then_some(())
    });
    let head = format!("CONNECT {HOST}:443 HTTP/1.1\r\nHost: {HOST}:443\r\n\r\n");
    let mut connection: Connection = rig.proxy.connect();
    connection.send(&head);
    connection.answer(&head).assert_refused(405, "method");
}
