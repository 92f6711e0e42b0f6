//! A change of protocol happens where it was asked for, to what was asked for, and nowhere else.

use crate::support::origin::After;
use crate::support::raw_origin::RawOrigin;
use crate::support::{Origin, Proxy};

/// What asks for a WebSocket.
const ASKS: &str = "Connection: Upgrade\nUpgrade: websocket\nSec-WebSocket-Version: 13\n\
     Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\n";

#[test]
fn a_change_to_another_protocol_than_asked_for_is_refused() {
    let origin = Origin::answering(
        "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n",
    );
    let proxy = Proxy::configured(&origin.url(), "", "upgrades = true").start();
    proxy.has_token();
    let answer = proxy.ask(&format!("GET /x HTTP/1.1\nHost: {{host}}\n{ASKS}\n"));
    answer.assert_refused(502, "upstream");
}

#[test]
fn an_upgrade_that_the_instance_declines_is_an_ordinary_answer() {
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
        // what comes then is a request as any other
        assert_eq!(connection.get(proxy.address, "/next").text(), "no");
    }
}

#[test]
fn bytes_of_either_side_pass_once_the_protocol_has_changed_and_the_connection_ends_with_it() {
    let origin = RawOrigin::start(|_, line| {
        // the first bytes of the new protocol come with the answer
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
    // what looks like a request is none any more
    connection.send("GET / HTTP/1.1\r\n\r\n");
    assert_eq!(connection.rest(), b"hellobye");
    assert_eq!(origin.received().len(), 1);
    assert!(origin.received()[0].ends_with("\r\n\r\nGET / HTTP/1.1\r\n\r\n"));
}
