//! Tunnels to other hosts: bytes pass untouched, and never to a loopback or own address.

use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, UdpSocket};
use std::time::Duration;

use super::rig::{Prepared, Rig, connected, head};
use crate::support::http;
use crate::support::network::{NameServer, Records, is_root};
use crate::support::proxy::message;

/// An address of this machine that is not loopback. Bytes to it stay on this machine.
fn own_address() -> IpAddr {
    let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
    // for UDP this only selects the source address
    socket
        .connect("203.0.113.1:9")
        .expect("this machine has an address besides loopback");
    socket.local_addr().unwrap().ip()
}

/// A server that sends back what it gets, in capitals, and ends when its caller does.
fn shouting() -> SocketAddr {
    let listener = TcpListener::bind((own_address(), 0)).unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for mut stream in listener.incoming().map_while(Result::ok) {
            std::thread::spawn(move || {
                let mut bytes = [0; 4096];
                while let Ok(n) = stream.read(&mut bytes) {
                    if n == 0 || stream.write_all(&bytes[..n].to_ascii_uppercase()).is_err() {
                        return;
                    }
                }
            });
        }
    });
    address
}

#[test]
fn bytes_pass_untouched_in_both_directions() {
    let rig = Rig::with("others = \"tunnel\"", "");
    let server = shouting();
    let mut tcp = http::tcp(rig.address());
    // bytes sent together with the request, which are not HTTP
    write!(
        tcp,
        "CONNECT {server} HTTP/1.1\r\nHost: {server}\r\n\r\n\0early\r\n"
    )
    .unwrap();
    assert!(head(&mut tcp).starts_with("HTTP/1.1 200 "));
    let mut sent = b"\0early\r\n".to_vec();
    let more: Vec<u8> = (0..1_000_000_u32).map(|n| (n % 251) as u8).collect();
    sent.extend(&more);
    let mut writer = tcp.try_clone().unwrap();
    let writing = std::thread::spawn(move || {
        writer.write_all(&more).unwrap();
        writer.shutdown(std::net::Shutdown::Write).unwrap();
    });
    let mut came = Vec::new();
    tcp.read_to_end(&mut came).unwrap();
    writing.join().unwrap();
    assert!(came == sent.to_ascii_uppercase(), "{} bytes", came.len());
    let logged = rig
        .proxy
        .process
        .err
        .wait_for("the tunnel's line", |line| message(line, "tunnel closed"));
    assert_eq!(logged["host"], server.to_string());
    assert_eq!(
        (&logged["sent"], &logged["received"]),
        (&1_000_008.into(), &1_000_008.into())
    );
    rig.proxy
        .metric_becomes("collibra_auth_proxy_connections{listener=\"forward\"}", 0.0);
    assert!(rig.origin.requests().is_empty());
}

#[test]
fn no_tunnel_leads_to_loopback_or_an_own_address() {
    let own = own_address();
    let rig = Rig::with("others = \"tunnel\"", "");
    let admin = rig.proxy.admin;
    for target in [
        admin.to_string(),
        rig.address().to_string(),
        "localhost:80".to_owned(),
        "127.0.0.2:80".to_owned(),
        "[::1]:80".to_owned(),
        "[::ffff:127.0.0.1]:80".to_owned(),
        "0.0.0.0:80".to_owned(),
        "169.254.169.254:80".to_owned(),
        "[fe80::1]:80".to_owned(),
    ] {
        let head = format!("CONNECT {target} HTTP/1.1\nHost: {target}\n\n");
        let (answer, mut connection) = rig.ask(&head);
        answer.assert_refused(403, "not-an-instance");
        assert!(
            answer.text().contains("NO_PROXY"),
            "{target}: {}",
            answer.text()
        );
        connection.is_closed();
    }
    drop(rig);
    // an admin address on all interfaces, called by the machine's own address
    let port = TcpListener::bind("0.0.0.0:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .port();
    let prepared = Prepared::without_authority("others = \"tunnel\"", "");
    let file = prepared.folder.path().join("proxy.toml");
    let text = std::fs::read_to_string(&file).unwrap();
    let admin = "[admin]\naddress = \"127.0.0.1:0\"";
    assert!(text.contains(admin));
    let text = text.replace(admin, &format!("[admin]\naddress = \"0.0.0.0:{port}\""));
    std::fs::write(&file, text).unwrap();
    let rig = prepared.start();
    let head = format!("CONNECT {own}:{port} HTTP/1.1\nHost: {own}:{port}\n\n");
    rig.ask(&head).0.assert_refused(403, "not-an-instance");
}

#[test]
fn a_name_that_resolves_to_loopback_is_refused() {
    if !is_root() {
        return;
    }
    let server = NameServer::start("127.0.53.77", |records, _| match records {
        Records::A => Some(vec![Ipv4Addr::LOCALHOST.into()]),
        Records::Aaaa => Some(Vec::new()),
    });
    let prepared = Prepared::without_authority("others = \"tunnel\"", "");
    let wrapper = server.wrapper();
    let words: Vec<&str> = wrapper.iter().map(String::as_str).collect();
    let builder = prepared.builder().by(&words);
    let rig = prepared.start_by(builder);
    let head = "CONNECT rebound.example:443 HTTP/1.1\nHost: rebound.example:443\n\n";
    rig.ask(head).0.assert_refused(403, "not-an-instance");
    assert!(server.queries() > 0);
}

#[test]
fn a_host_that_does_not_answer_is_reported() {
    let rig = Rig::with("others = \"tunnel\"", "");
    let free = TcpListener::bind((own_address(), 0)).unwrap();
    let closed = free.local_addr().unwrap();
    drop(free);
    let head = format!("CONNECT {closed} HTTP/1.1\nHost: {closed}\n\n");
    let answer = rig.ask(&head).0;
    answer.assert_refused(502, "upstream");
    assert!(
        answer.text().contains("refused the connection"),
        "{}",
        answer.text()
    );
}

#[test]
fn a_tunnel_ends_at_a_drain_once_it_is_silent() {
    let mut rig = Rig::with("others = \"tunnel\"", "");
    let server = shouting();
    let mut tcp = connected(rig.address(), &server.to_string(), "");
    tcp.write_all(b"a").unwrap();
    tcp.read_exact(&mut [0]).unwrap();
    rig.proxy.process.signal("TERM");
    // far within the 20 s of the drain
    assert_eq!(rig.proxy.process.ended_within(Duration::from_secs(15)), 0);
    assert_eq!(tcp.read(&mut [0]).unwrap_or(0), 0);
}
