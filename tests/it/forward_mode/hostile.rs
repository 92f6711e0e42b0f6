//! What is refused, and that nothing of it reaches the instance.

use super::rig::{HOST, Prepared, Rig, get};
use crate::support::http::Connection;

#[test]
fn other_hosts_and_ports_are_refused() {
    let rig = Rig::with("", "");
    for target in [
        "other.example:443",
        "acme.example:8443",
        "acme.example:80",
        "xacme.example:443",
        "below.acme.example:443",
        "127.0.0.1:443",
        "[::1]:443",
    ] {
        let head = format!("CONNECT {target} HTTP/1.1\nHost: {target}\n\n");
        let (answer, mut connection) = rig.ask(&head);
        answer.assert_refused(403, "not-an-instance");
        assert!(answer.text().contains("NO_PROXY"), "{}", answer.text());
        assert!(
            answer.text().contains("serves acme.example."),
            "{}",
            answer.text()
        );
        connection.is_closed();
    }
    for target in [
        "http://other.example/x",
        "http://acme.example:8080/x",
        "https://acme.example:80/x",
    ] {
        let authority = target.split('/').nth(2).unwrap();
        let head = format!("GET {target} HTTP/1.1\nHost: {authority}\n\n");
        rig.ask(&head).0.assert_refused(403, "not-an-instance");
    }
    assert!(rig.origin.requests().is_empty());
    let refused =
        "collibra_auth_proxy_refused_total{listener=\"forward\",reason=\"not-an-instance\"}";
    assert_eq!(rig.proxy.metric(refused), Some(10.0));
}

#[test]
fn a_request_without_an_absolute_target_is_refused() {
    let rig = Rig::with("", "");
    for host in [HOST, "localhost"] {
        let head = format!("GET /x HTTP/1.1\nHost: {host}\n\n");
        let answer = rig.ask(&head).0;
        answer.assert_refused(421, "host");
        assert!(answer.text().contains("HTTPS_PROXY"), "{}", answer.text());
    }
    assert!(rig.origin.requests().is_empty());
}

#[test]
fn a_request_inside_names_the_tunnels_host() {
    let rig = Rig::with("", "");
    for (line, host) in [
        ("GET /x", "other.example"),
        ("GET /x", "acme.example:8443"),
        ("GET /x", "localhost"),
        ("GET https://other.example/x", HOST),
        ("GET http://acme.example/x", HOST),
    ] {
        let mut inside = rig.inside();
        let head = format!("{line} HTTP/1.1\r\nHost: {host}\r\n\r\n");
        inside.send(&head);
        let answer = inside.answer(&head);
        assert!(
            matches!(answer.status, 421 | 400),
            "{line} {host}: {}",
            answer.status
        );
        if !line.contains("://") {
            answer.assert_refused(421, "host");
        }
    }
    assert!(rig.origin.requests().is_empty());
    let mut inside = rig.inside();
    for host in ["ACME.example", "acme.example:443"] {
        let head = format!("GET /x HTTP/1.1\r\nHost: {host}\r\n\r\n");
        inside.send(&head);
        assert_eq!(inside.answer(&head).status, 200, "{host}");
    }
}

#[test]
fn there_is_no_tunnel_in_a_tunnel() {
    let rig = Rig::with("others = \"tunnel\"", "");
    for target in ["acme.example:443", "other.example:443"] {
        let mut inside = rig.inside();
        let head = format!("CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n\r\n");
        inside.send(&head);
        inside.answer(&head).assert_refused(405, "method");
        inside.is_closed();
    }
}

#[test]
fn a_connect_that_is_ambiguous_is_refused_and_closed() {
    let rig = Rig::with("", "");
    for head in [
        "CONNECT acme.example:443 HTTP/1.1\nHost: acme.example:443\nContent-Length: 5\n\n",
        "CONNECT acme.example:443 HTTP/1.1\nHost: acme.example:443\nTransfer-Encoding: chunked\n\n",
        "CONNECT acme.example:443 HTTP/1.1\nHost: other.example:443\n\n",
        "CONNECT acme.example:443 HTTP/1.1\nHost: acme.example:443\nHost: acme.example:443\n\n",
        "CONNECT acme.example HTTP/1.1\nHost: acme.example\n\n",
        "CONNECT /x HTTP/1.1\nHost: acme.example\n\n",
        "CONNECT http://acme.example:443 HTTP/1.1\nHost: acme.example\n\n",
        "CONNECT user@acme.example:443 HTTP/1.1\nHost: acme.example:443\n\n",
    ] {
        let (answer, mut connection) = rig.ask(head);
        answer.assert_refused(400, "bad-request");
        connection.is_closed();
    }
}

#[test]
fn what_follows_a_refused_connect_is_never_a_request() {
    let rig = Rig::with("", "");
    let mut connection = rig.proxy.connect();
    let smuggled = format!("GET http://{HOST}/smuggled HTTP/1.1\r\nHost: {HOST}\r\n\r\n");
    connection.send(format!(
        "CONNECT other.example:443 HTTP/1.1\r\nHost: other.example:443\r\n\r\n{smuggled}"
    ));
    connection
        .answer("CONNECT")
        .assert_refused(403, "not-an-instance");
    connection.is_closed();
    // after an accepted one it is not TLS
    let mut connection = rig.proxy.connect();
    connection.send(format!(
        "CONNECT {HOST}:443 HTTP/1.1\r\nHost: {HOST}:443\r\n\r\n{smuggled}"
    ));
    assert_eq!(connection.head().status, 200);
    let rest = connection.rest();
    assert!(rest.first().is_none_or(|byte| *byte == 21), "{rest:?}");
    assert!(rig.origin.requests().is_empty());
}

#[test]
fn connect_is_only_accepted_as_the_first_request() {
    let rig = Rig::with("", "");
    let mut connection = rig.proxy.connect();
    let first = format!("GET http://{HOST}/x HTTP/1.1\r\nHost: {HOST}\r\n\r\n");
    connection.send(&first);
    assert_eq!(connection.answer(&first).status, 200);
    let head = format!("CONNECT {HOST}:443 HTTP/1.1\r\nHost: {HOST}:443\r\n\r\n");
    connection.send(&head);
    connection.answer(&head).assert_refused(405, "method");
    connection.is_closed();
}

#[test]
fn a_silent_tunnel_is_closed() {
    let rig = Rig::with("header_timeout = \"1s\"", "");
    let silent = super::rig::connected(rig.address(), &format!("{HOST}:443"), "");
    Connection::over(silent).is_closed();
    // silence after the handshake ends it too
    rig.inside().is_closed();
    rig.proxy
        .metric_becomes("collibra_auth_proxy_connections{listener=\"forward\"}", 0.0);
}

#[test]
fn a_page_of_another_site_is_refused_inside() {
    let rig = Rig::with("", "");
    for line in ["Origin: https://evil.example", "Sec-Fetch-Site: cross-site"] {
        let mut inside = rig.inside();
        let head = format!("GET /x HTTP/1.1\r\nHost: {HOST}\r\n{line}\r\n\r\n");
        inside.send(&head);
        inside.answer(&head).assert_refused(403, "cross-site");
    }
    assert!(rig.origin.requests().is_empty());
}

#[test]
fn without_an_authority_the_answer_says_what_to_do_until_there_is_one() {
    let prepared = Prepared::without_authority("", "");
    let rig = prepared.start();
    let head = format!("CONNECT {HOST}:443 HTTP/1.1\nHost: {HOST}:443\n\n");
    let answer = rig.ask(&head).0;
    answer.assert_refused(503, "no-authority");
    assert!(answer.text().contains("ca init"), "{}", answer.text());
    super::rig::ca(rig.folder.path(), &["init"]);
    rig.proxy.process.signal("HUP");
    crate::support::until("the authority to be applied", || {
        (rig.ask(&head).0.status == 200).then_some(())
    });
    assert_eq!(get(&mut rig.inside(), "/x").status, 200);
}
