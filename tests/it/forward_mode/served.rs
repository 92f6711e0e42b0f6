//! What is served: tunnels to an instance, and absolute targets.

use std::io::Write;
use std::process::Command;

use ::http::StatusCode;
use bytes::Bytes;

use super::rig::{HOST, Prepared, Rig, connected, get, head, trusting};
use crate::support::certificate::Authority;
use crate::support::h2_caller::{exchange, get as request, runtime};
use crate::support::http::{self, Connection};
use crate::support::origin::After;
use crate::support::{Origin, Proxy};

#[test]
fn a_tunnel_carries_many_requests() {
    let rig = Rig::with("", "");
    let mut inside = rig.inside();
    for n in 0..20 {
        let answer = get(&mut inside, &format!("/x?n={n}"));
        assert_eq!((answer.status, answer.text().as_str()), (200, "ok"));
    }
    assert_eq!(rig.origin.requests().len(), 20);
    rig.has_token();
    let counted = "collibra_auth_proxy_requests_total{client=\"catalog\",code=\"200\"}";
    assert_eq!(rig.proxy.metric(counted), Some(20.0));
    assert_eq!(
        rig.proxy
            .metric("collibra_auth_proxy_connections{listener=\"forward\"}"),
        Some(1.0)
    );
}

#[test]
fn http2_is_spoken_inside() {
    let rig = Rig::with("", "");
    let answer = runtime().block_on(async {
        let tcp = connected(rig.address(), &format!("{HOST}:443"), "");
        tcp.set_nonblocking(true).unwrap();
        let tcp = tokio::net::TcpStream::from_std(tcp).unwrap();
        let config = trusting(&rig.ca_file(), &["h2"]);
        let connector = tokio_rustls::TlsConnector::from(config);
        let tls = connector
            .connect(HOST.try_into().unwrap(), tcp)
            .await
            .unwrap();
        assert_eq!(tls.get_ref().1.alpn_protocol(), Some(&b"h2"[..]));
        let (requests, connection) = h2::client::handshake(tls).await.unwrap();
        tokio::spawn(connection);
        let mut requests = requests.ready().await.unwrap();
        let own = request(&format!("https://{HOST}/x"));
        let own = exchange(&mut requests, own, Bytes::new()).await;
        let other = request("https://other.example/x");
        let other = exchange(&mut requests, other, Bytes::new()).await;
        (own, other)
    });
    assert_eq!((answer.0.0, &*answer.0.2), (StatusCode::OK, &b"ok"[..]));
    assert_eq!(answer.1.0, StatusCode::MISDIRECTED_REQUEST);
    assert_eq!(answer.1.1.as_deref(), Some("host"));
    rig.has_token();
}

#[test]
fn a_hello_that_comes_with_the_request_is_not_lost() {
    let rig = Rig::with("", "");
    let config = trusting(&rig.ca_file(), &["http/1.1"]);
    let name = HOST.to_owned().try_into().unwrap();
    let mut tls = rustls::ClientConnection::new(config, name).unwrap();
    let mut sent = format!("CONNECT {HOST}:443 HTTP/1.1\r\nHost: {HOST}:443\r\n\r\n").into_bytes();
    tls.write_tls(&mut sent).unwrap();
    let mut tcp = http::tcp(rig.address());
    tcp.write_all(&sent).unwrap();
    let said = head(&mut tcp);
    assert!(said.starts_with("HTTP/1.1 200 "), "{said}");
    let mut inside = Connection::over(rustls::StreamOwned::new(tls, tcp));
    assert_eq!(get(&mut inside, "/x").status, 200);
}

#[test]
fn old_programs_connect_without_host_and_by_http_1_0() {
    let rig = Rig::with("", "");
    let mut tcp = http::tcp(rig.address());
    write!(tcp, "CONNECT {HOST}:443 HTTP/1.0\r\n\r\n").unwrap();
    assert!(head(&mut tcp).starts_with("HTTP/1.1 200 "));
    let inside = super::rig::handshake(tcp, &rig.ca_file(), HOST, &[]).unwrap();
    assert_eq!(get(&mut Connection::over(inside), "/x").status, 200);
}

#[test]
fn an_absolute_target_is_served_like_a_tunnels_request() {
    let rig = Rig::with("", "");
    let mut connection = rig.proxy.connect();
    for target in [
        format!("http://{HOST}/x"),
        format!("http://{HOST}:80/x"),
        format!("http://{HOST}:443/x"),
        format!("https://{HOST}/x"),
    ] {
        let authority = target.split('/').nth(2).unwrap();
        let request = format!(
            "GET {target} HTTP/1.1\r\nHost: {authority}\r\nProxy-Connection: keep-alive\r\n\r\n"
        );
        connection.send(&request);
        let answer = connection.answer(&request);
        assert_eq!(
            (answer.status, answer.text().as_str()),
            (200, "ok"),
            "{target}"
        );
        let arrived = rig.origin.requests().pop().unwrap();
        assert!(
            arrived.head.starts_with("GET /x HTTP/1.1"),
            "{}",
            arrived.head
        );
        assert_eq!(arrived.header("proxy-connection"), None);
        rig.has_token();
    }
}

#[test]
fn expect_100_continue_works_inside_a_tunnel() {
    let rig = Rig::with("", "");
    let mut inside = rig.inside();
    let request = format!(
        "POST /x HTTP/1.1\r\nHost: {HOST}\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n"
    );
    inside.send(&request);
    assert_eq!(inside.head().status, 100);
    inside.send("hello");
    assert_eq!(inside.answer(&request).status, 200);
    assert_eq!(rig.origin.requests().pop().unwrap().body, b"hello");
}

#[test]
fn a_websocket_opens_inside() {
    let rig = Rig::with("upgrades = true", "");
    let mut inside = rig.inside();
    inside.send(format!(
        "GET /live HTTP/1.1\r\nHost: {HOST}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    ));
    let answer = inside.head();
    assert_eq!(answer.status, 101, "{answer:?}");
    assert_eq!(inside.some(), b"welcome");
    rig.has_token();
}

#[test]
fn a_redirect_within_the_instance_is_not_changed() {
    let prepared = Prepared::answering("", |_, stream| {
        stream.write_all(
            b"HTTP/1.1 302 Found\r\nLocation: https://acme.example/y\r\nContent-Length: 0\r\n\r\n",
        )?;
        Ok(After::Keep)
    });
    let rig = prepared.start();
    let answer = get(&mut rig.inside(), "/x");
    assert_eq!(answer.header("location"), Some("https://acme.example/y"));
}

#[test]
fn a_program_that_asks_for_tokens_itself_is_answered_here() {
    let rig = Rig::with("", "");
    let mut inside = rig.inside();
    let body = "grant_type=client_credentials&client_id=any&client_secret=thing";
    let request = format!(
        "POST /rest/oauth/v2/token HTTP/1.1\r\nHost: {HOST}\r\nContent-Type: application/x-www-form-urlencoded\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    );
    inside.send(&request);
    let answer = inside.answer(&request);
    assert_eq!(answer.header("x-collibra-auth-proxy"), Some("local-token"));
    assert_eq!(rig.origin.token_requests().len(), 1, "the proxy's own");
}

#[test]
fn an_http_instance_is_served_in_tunnels_and_by_absolute_targets() {
    let origin = Origin::answering("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
    let proxy = Proxy::configured(&origin.url(), "", "mode = \"forward\"").start();
    proxy.has_token();
    let host = origin.address.to_string();
    let mut inside = Connection::over(connected(proxy.address, &host, ""));
    assert_eq!(inside.get(origin.address, "/x").status, 200);
    let mut plain = proxy.connect();
    let request = format!("GET http://{host}/y HTTP/1.1\r\nHost: {host}\r\n\r\n");
    plain.send(&request);
    assert_eq!(plain.answer(&request).status, 200);
    let arrived: Vec<String> = origin.requests().into_iter().map(|it| it.head).collect();
    assert_eq!(arrived.len(), 2);
    let token = format!("Bearer {}", origin.tokens()[0]);
    assert!(
        arrived.iter().all(|head| head.contains(&token)),
        "{arrived:?}"
    );
}

#[test]
fn the_listener_may_speak_tls_itself() {
    let issuer = Authority::new();
    let files = issuer.files("localhost");
    let keys = format!(
        "tls = {{ cert_file = {:?}, key_file = {:?} }}",
        files.cert, files.key
    );
    let rig = Rig::with(&keys, "");
    let output = Command::new("curl")
        .args(["-qsSf", "--max-time", "60"])
        .args(["--noproxy", "", "--proxy-cacert"])
        .arg(issuer.ca_file())
        .arg("--proxy")
        .arg(format!("https://localhost:{}", rig.address().port()))
        .arg("--cacert")
        .arg(rig.ca_file())
        .args([
            "--write-out",
            " %{http_version}",
            &format!("https://{HOST}/x"),
        ])
        .output()
        .unwrap();
    assert!(output.status.success(), "{output:?}");
    assert_eq!(output.stdout, b"ok 2");
    rig.has_token();
}
