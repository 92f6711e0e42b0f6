//! Upgrades: a 101 passes only if it names the protocol that the caller asked for.

use crate::support::origin::After;
use crate::support::raw_origin::RawOrigin;
use crate::support::{Origin, Proxy};

/// The fields of a WebSocket handshake.
const ASKS: &str = "Connection: Upgrade\nUpgrade: websocket\nSec-WebSocket-Version: 13\n\
     Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\n";

#[test]
fn a_101_to_another_protocol_is_refused() {
    let origin = Origin::answering(
        "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n",
    );
    let proxy = Proxy::configured(&origin.url(), "", "upgrades = true").start();
    proxy.has_token();
    let answer = proxy.ask(&format!("GET /x HTTP/1.1\nHost: {{host}}\n{ASKS}\n"));
    answer.assert_refused(502, "upstream");
}

#[test]
fn a_declined_upgrade_leaves_the_connection_usable() {
    for status in ["200 OK", "403 Forbidden", "426 Upgrade Required"] {
        let origin = Origin::answering(format!("HTTP/1.1 {status}\r\nContent-Length: 2\r\n\r\nno"));
        let proxy = Proxy::configured(&origin.url(), "", "upgrades = true").start();
        proxy.has_token();
        let mut connection = proxy.connect();
        for _ in 0..2 {
            let request = format!("GET /x HTTP/1.1\nHost: {{host}}\n{ASKS}\n");
            connection.send(proxy.bytes(&request));
            let answer = connection.answer("GET");
            assert_eq!(answer.status.to_string(), status[..3]);
            assert_eq!(answer.text(), "no");
        }
        // still HTTP
        assert_eq!(connection.get(proxy.address, "/next").text(), "no");
    }
}

#[test]
fn after_a_101_bytes_pass_both_ways_until_one_side_closes() {
    let origin = RawOrigin::start(|_, line| {
        // the first bytes of the new protocol in the same segment
        line.say("HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\nhello")?;
        if line.read_through(b"GET / HTTP/1.1\r\n\r\n")? {
            line.say("bye")?;
        }
        Ok(After::Close)
    });
    let proxy = Proxy::configured(&origin.url(), "", "upgrades = true").start();
    proxy.has_token();
    let mut connection = proxy.connect();
    let request = format!("GET /x HTTP/1.1\nHost: {{host}}\n{ASKS}\n");
    connection.send(proxy.bytes(&request));
    let head = connection.head();
    assert_eq!(head.status, 101);
    assert_eq!(head.header("upgrade"), Some("websocket"));
    assert!(
        head.header("connection")
            .is_some_and(|it| it.eq_ignore_ascii_case("upgrade"))
    );
    // no longer parsed as HTTP
    connection.send("GET / HTTP/1.1\r\n\r\n");
    assert_eq!(connection.rest(), b"hellobye");
    assert_eq!(origin.received().len(), 1);
    assert!(origin.received()[0].ends_with("\r\n\r\nGET / HTTP/1.1\r\n\r\n"));
}
