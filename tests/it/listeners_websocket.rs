//! WebSockets pass with the token if the listener allows upgrades; otherwise they are ordinary
//! requests.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::mpsc::{Receiver, channel};
use std::thread;

use tungstenite::handshake::server::{Request, Response};
use tungstenite::protocol::CloseFrame;
use tungstenite::protocol::frame::coding::CloseCode;
use tungstenite::{Message, WebSocket, client};

use crate::support::http;
use crate::support::{Origin, PATIENCE, Proxy};

/// An instance that issues a token and opens an echoing WebSocket on every other path. Reports each
/// socket's `Authorization`, and how it ended.
fn echo_server() -> (SocketAddr, Receiver<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let (tell, told) = channel();
    thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            let tell = tell.clone();
            thread::spawn(move || {
                stream.set_read_timeout(Some(PATIENCE)).unwrap();
                let mut start = [0; 4];
                stream.peek(&mut start).unwrap();
                if &start == b"POST" {
                    return give_token(stream);
                }
                #[expect(clippy::result_large_err, reason = "the library's own type")]
                let opened = |request: &Request, response: Response| {
                    let shown = &request.headers()["authorization"];
                    let _ = tell.send(shown.to_str().unwrap().to_owned());
                    Ok(response)
                };
                let mut socket = tungstenite::accept_hdr(stream, opened).unwrap();
                loop {
                    match socket.read() {
                        Ok(message @ (Message::Text(_) | Message::Binary(_))) => {
                            if message.to_text().is_ok_and(|text| text == "leave") {
                                let _ = tell.send("left".to_owned());
                                return;
                            }
                            socket.send(message).unwrap();
                        }
                        Ok(_) => {}
                        Err(error) => {
                            let _ = tell.send(error.to_string());
                            return;
                        }
                    }
                }
            });
        }
    });
    (address, told)
}

fn give_token(mut stream: TcpStream) {
    let _ = stream.read(&mut [0; 4096]);
    let body = r#"{"access_token":"t0k3n","token_type":"Bearer","expires_in":299}"#;
    let _ = write!(
        stream,
        "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    );
}

fn open(proxy: &Proxy) -> WebSocket<TcpStream> {
    let url = format!("ws://{}/live", proxy.address);
    client(url, http::tcp(proxy.address)).unwrap().0
}

#[test]
fn messages_pass_both_ways_and_both_sides_end_when_one_does() {
    let (address, told) = echo_server();
    let proxy = Proxy::configured(&format!("http://{address}"), "", "upgrades = true").start();
    proxy.has_token();
    let next = || told.recv_timeout(PATIENCE).unwrap();

    let mut socket = open(&proxy);
    assert_eq!(next(), "Bearer t0k3n");
    for length in [1, 100, 70_000, 1_000_000] {
        let sent = Message::Binary(vec![7; length].into());
        socket.send(sent.clone()).unwrap();
        assert!(socket.read().unwrap() == sent, "{length}");
    }
    let reason = CloseFrame {
        code: CloseCode::Normal,
        reason: "done".into(),
    };
    socket.close(Some(reason)).unwrap();
    while socket.read().is_ok() {}
    assert!(next().contains("closed"), "the instance's side ended too");

    let mut socket = open(&proxy);
    assert_eq!(next(), "Bearer t0k3n");
    socket.send(Message::Text("leave".into())).unwrap();
    assert_eq!(next(), "left");
    assert!(socket.read().is_err(), "the app's side ended too");

    let socket = open(&proxy);
    assert_eq!(next(), "Bearer t0k3n");
    drop(socket);
    assert!(!next().is_empty(), "without a word, too");
    proxy.metric_becomes("collibra_auth_proxy_connections{listener=\"local\"}", 0.0);
}

#[test]
fn elsewhere_an_upgrade_is_an_ordinary_request() {
    let origin = Origin::answering("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
    let proxy = Proxy::to(&origin.url()).start();
    proxy.has_token();
    let answer = proxy.ask(
        "GET /live HTTP/1.1\nHost: {host}\nConnection: Upgrade\nUpgrade: websocket\n\
         Sec-WebSocket-Version: 13\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\n\n",
    );
    assert_eq!(answer.status, 200);
    let request = origin.requests().pop().unwrap();
    assert_eq!(request.header("upgrade"), None);
    assert!(
        !request.head.to_lowercase().contains("connection: upgrade"),
        "{}",
        request.head
    );
}

#[test]
fn a_page_of_another_site_opens_none() {
    let (address, _told) = echo_server();
    let proxy = Proxy::configured(&format!("http://{address}"), "", "upgrades = true").start();
    proxy.has_token();
    let answer = proxy.ask(
        "GET /live HTTP/1.1\nHost: {host}\nOrigin: https://evil.example\nConnection: Upgrade\n\
         Upgrade: websocket\nSec-WebSocket-Version: 13\n\
         Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\n\n",
    );
    answer.assert_refused(403, "cross-site");
}
