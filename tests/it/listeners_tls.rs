//! A listener that speaks TLS.

use std::fmt::Write;

use crate::support::certificate::{Authority, Files};
use crate::support::proxy::message;
use crate::support::tls::Client;
use crate::support::{Connection, Proxy, Simulator, until};

const HTTP_1: &[&str] = &["http/1.1"];

fn keys(files: &Files, client_ca: Option<&Authority>) -> String {
    let mut keys = format!(
        "tls = {{ cert_file = {:?}, key_file = {:?}",
        files.cert, files.key
    );
    if let Some(authority) = client_ca {
        write!(keys, ", client_ca_file = {:?}", authority.ca_file()).unwrap();
    }
    keys.push_str(" }\nheader_timeout = \"2s\"\n");
    keys
}

fn started(authority: &Authority, client_ca: Option<&Authority>) -> (Simulator, Proxy, Files) {
    let simulator = Simulator::start();
    let files = authority.files("localhost");
    let proxy = Proxy::configured(&simulator.url(), "", &keys(&files, client_ca)).start();
    proxy.has_token();
    (simulator, proxy, files)
}

fn get(connection: &mut Connection, proxy: &Proxy, path: &str) -> crate::support::http::Answer {
    let port = proxy.address.port();
    let request = format!("GET {path} HTTP/1.1\r\nHost: localhost:{port}\r\n\r\n");
    connection.send(&request);
    connection.answer(&request)
}

#[test]
fn an_app_is_served_over_tls_and_redirects_say_so() {
    let authority = Authority::new();
    let (simulator, proxy, _) = started(&authority, None);
    let mut connection = Client::new(&authority, HTTP_1, None).open(proxy.address);
    assert_eq!(get(&mut connection, &proxy, "/echo").status, 200);
    let large = get(&mut connection, &proxy, "/_bytes/3000000");
    assert_eq!((large.body.len(), large.whole), (3_000_000, true));
    let instance = simulator.url();
    let path = format!("/_status/302?location={instance}/x");
    let answer = get(&mut connection, &proxy, &path);
    let own = format!("https://localhost:{}/x", proxy.address.port());
    assert_eq!(answer.header("location"), Some(own.as_str()));
}

#[test]
fn who_does_not_speak_tls_or_does_not_end_its_handshake_is_let_go() {
    let authority = Authority::new();
    let (_simulator, proxy, _) = started(&authority, None);
    let mut plain = proxy.connect();
    plain.send("GET / HTTP/1.1\r\nHost: localhost\r\n\r\n");
    let said = plain.rest();
    // an alert at most (RFC 8446, section 6)
    assert!(said.first().is_none_or(|&byte| byte == 21), "{said:?}");
    let mut slow = proxy.connect();
    slow.send([22, 3, 1, 2, 0, 1]);
    slow.is_closed();
    proxy.metric_becomes("collibra_auth_proxy_connections{listener=\"local\"}", 0.0);
    let logged = proxy.process.err.all();
    assert!(!logged.contains("ERROR"), "{logged}");
}

/// The handshakes of two connections of `client`, one after the other.
fn handshakes(proxy: &Proxy, client: &Client) -> [rustls::HandshakeKind; 2] {
    [(), ()].map(|()| {
        let mut stream = client.connect(proxy.address).unwrap();
        let request = "GET /echo HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
        std::io::Write::write_all(&mut stream, request.as_bytes()).unwrap();
        // the ticket comes after the handshake
        let _ = std::io::Read::read_to_end(&mut stream, &mut Vec::new());
        stream.conn.handshake_kind().unwrap()
    })
}

#[test]
fn sessions_are_resumed() {
    let authority = Authority::new();
    let (_simulator, proxy, _) = started(&authority, None);
    let client = Client::new(&authority, HTTP_1, None);
    let expected = [rustls::HandshakeKind::Full, rustls::HandshakeKind::Resumed];
    assert_eq!(handshakes(&proxy, &client), expected);
}

/// A session that is resumed has the certificate of its first handshake, expired or not.
#[test]
fn a_callers_certificate_is_verified_at_each_handshake() {
    let (authority, apps) = (Authority::new(), Authority::new());
    let (_simulator, proxy, _) = started(&authority, Some(&apps));
    for shown in [None, Some((&apps, "lineage.example"))] {
        let client = Client::new(&authority, HTTP_1, shown);
        let full = [rustls::HandshakeKind::Full, rustls::HandshakeKind::Full];
        assert_eq!(handshakes(&proxy, &client), full);
    }
}

#[test]
fn a_callers_certificate_is_verified_if_it_shows_one() {
    let (authority, apps, stranger) = (Authority::new(), Authority::new(), Authority::new());
    let (_simulator, proxy, _) = started(&authority, Some(&apps));
    for shown in [None, Some((&apps, "lineage.example"))] {
        let mut connection = Client::new(&authority, HTTP_1, shown).open(proxy.address);
        assert_eq!(get(&mut connection, &proxy, "/echo").status, 200);
    }
    let client = Client::new(&authority, HTTP_1, Some((&stranger, "lineage.example")));
    // with TLS 1.3 the refusal may come after the client's side of the handshake
    if let Ok(stream) = client.connect(proxy.address) {
        let mut connection = Connection::over(stream);
        let _ = connection.try_send("GET /echo HTTP/1.1\r\nHost: localhost\r\n\r\n");
        connection.is_closed();
    }
}

#[test]
fn a_renewed_certificate_is_shown_to_new_connections_and_no_other_ends() {
    let (first, second) = (Authority::new(), Authority::new());
    let (_simulator, proxy, files) = started(&first, None);
    let mut open = Client::new(&first, HTTP_1, None).open(proxy.address);
    assert_eq!(get(&mut open, &proxy, "/echo").status, 200);

    // a key that does not match is refused, and the old pair stays in use
    let renewed = second.files("localhost");
    std::fs::copy(&renewed.key, &files.key).unwrap();
    proxy.process.signal("HUP");
    proxy.process.err.wait_for("the refusal", |line| {
        line.contains("does not belong to").then_some(())
    });
    let mut more = Client::new(&first, HTTP_1, None).open(proxy.address);
    assert_eq!(get(&mut more, &proxy, "/echo").status, 200);

    std::fs::copy(&renewed.cert, &files.cert).unwrap();
    proxy.process.err.wait_for("the take-over", |line| {
        message(line, "configuration applied").map(|_| ())
    });
    until("the other certificate", || {
        Client::new(&second, HTTP_1, None)
            .connect(proxy.address)
            .ok()
    });
    assert_eq!(get(&mut open, &proxy, "/echo").status, 200);
    assert_eq!(get(&mut more, &proxy, "/echo").status, 200);
}

#[test]
fn an_expired_certificate_is_told_of() {
    let authority = Authority::new();
    let files = authority.expired("localhost");
    let simulator = Simulator::start();
    let proxy = Proxy::configured(&simulator.url(), "", &keys(&files, None)).start();
    proxy.process.err.wait_for("the warning", |line| {
        line.contains("certificate has expired").then_some(())
    });
}
