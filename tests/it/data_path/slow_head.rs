//! `header_timeout` of the instance limits the time from the first byte of a response's head to its
//! last.

use std::io::{Read as _, Write};
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::time::Duration;

use rustls::{ServerConnection, StreamOwned};

use crate::support::certificate::Authority;
use crate::support::frames::{self, frame};
use crate::support::origin::{After, Gate};
use crate::support::request;
use crate::support::wait::now;
use crate::support::{Origin, Proxy};

/// Sends a head that would take minutes.
fn drip(stream: &mut dyn Write) -> std::io::Result<After> {
    let head = format!("HTTP/1.1 200 OK\r\nX-Fill: {}", "x".repeat(600));
    for byte in head.bytes() {
        stream.write_all(&[byte])?;
        stream.flush()?;
        std::thread::sleep(Duration::from_millis(200));
    }
    Ok(After::Close)
}

#[test]
fn a_slow_response_head_is_cut() {
    let origin = Origin::start(|request, stream| {
        if request.target() == "/slow" {
            return drip(stream);
        }
        stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")?;
        Ok(After::Keep)
    });
    let proxy = Proxy::configured(&origin.url(), "header_timeout = \"2s\"", "").start();
    proxy.has_token();
    let start = now();
    for request in [
        "GET /slow HTTP/1.1\nHost: {host}\n\n",
        "POST /slow HTTP/1.1\nHost: {host}\nContent-Length: 2\n\nab",
    ] {
        proxy.ask(request).assert_refused(504, "upstream");
    }
    let took = start.elapsed();
    assert!(took >= Duration::from_secs(4), "cut after {took:?}");
    assert!(took < Duration::from_secs(20), "cut after {took:?}");
    // a slow head is no stale connection: neither is retried
    let slow = origin.requests();
    assert_eq!(slow.len(), 2, "{slow:?}");
    assert_eq!(proxy.get("/x").status, 200);
}

#[test]
fn time_before_and_after_the_head_does_not_count() {
    let gate = Gate::default();
    let opened = gate.clone();
    let origin = Origin::start(move |_, stream| {
        opened.pass();
        stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nab")?;
        stream.flush()?;
        // longer than the timeout
        std::thread::sleep(Duration::from_secs(2));
        stream.write_all(b"cd")?;
        Ok(After::Keep)
    });
    let proxy = Proxy::configured(&origin.url(), "header_timeout = \"1s\"", "").start();
    proxy.has_token();
    let mut connection = proxy.connect();
    connection.send(proxy.bytes("GET /x HTTP/1.1\nHost: {host}\n\n"));
    assert!(connection.is_silent_for(Duration::from_secs(3)));
    gate.open();
    let answer = connection.answer("GET");
    assert_eq!((answer.text().as_str(), answer.whole), ("abcd", true));
}

#[test]
fn an_interim_response_does_not_lift_the_limit() {
    let origin = Origin::start(|_, stream| {
        stream.write_all(b"HTTP/1.1 102 Processing\r\n\r\n")?;
        stream.flush()?;
        drip(stream)
    });
    let proxy = Proxy::configured(&origin.url(), "header_timeout = \"2s\"", "").start();
    proxy.has_token();
    let start = now();
    proxy.get("/x").assert_refused(504, "upstream");
    let took = start.elapsed();
    assert!(took < Duration::from_secs(15), "cut after {took:?}");
}

#[test]
fn a_slow_response_head_over_http_2_is_cut() {
    let authority = Authority::new();
    let address = dripping_by_http_2(&authority);
    let url = format!("https://localhost:{}", address.port());
    let keys = format!(
        "ca_file = {:?}\nheader_timeout = \"2s\"",
        authority.ca_file()
    );
    let proxy = Proxy::configured(&url, &keys, "").start();
    proxy.has_token();
    let start = now();
    proxy.get("/x").assert_refused(504, "upstream");
    let took = start.elapsed();
    assert!(took < Duration::from_secs(20), "cut after {took:?}");
}

/// An instance that gives tokens over HTTP/1.1, and over HTTP/2 sends a head without an end.
fn dripping_by_http_2(authority: &Authority) -> SocketAddr {
    let mut tls = (*authority.server("localhost")).clone();
    tls.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    let tls = Arc::new(tls);
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for tcp in listener.incoming().map_while(Result::ok) {
            let tls = Arc::clone(&tls);
            std::thread::spawn(move || -> std::io::Result<()> {
                tcp.set_nodelay(true)?;
                let tls = ServerConnection::new(tls).unwrap();
                let mut stream = StreamOwned::new(tls, tcp);
                while stream.conn.is_handshaking() {
                    stream.conn.complete_io(&mut stream.sock)?;
                }
                if stream.conn.alpn_protocol() == Some(b"h2") {
                    return drip_by_http_2(&mut stream);
                }
                request::read(&mut stream, &mut Vec::new())?;
                let body = r#"{"access_token":"t0k3n","token_type":"Bearer","expires_in":299}"#;
                let length = body.len();
                write!(
                    stream,
                    "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n{body}"
                )?;
                stream.flush()
            });
        }
    });
    address
}

fn drip_by_http_2(stream: &mut impl request::Duplex) -> std::io::Result<()> {
    stream.read_exact(&mut [0; frames::PREFACE.len()])?;
    stream.write_all(&frame(frames::SETTINGS, 0, 0, &[]))?;
    stream.flush()?;
    let asked = loop {
        let mut head = [0; 9];
        stream.read_exact(&mut head)?;
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]);
        std::io::copy(&mut stream.take(length.into()), &mut std::io::sink())?;
        if head[3] == frames::HEADERS {
            break u32::from_be_bytes(head[5..].try_into().unwrap());
        }
    };
    // `:status: 200`, without END_HEADERS
    stream.write_all(&frame(frames::HEADERS, 0, asked, &[0x88]))?;
    stream.flush()?;
    let field = [&[0, 6], b"x-fill".as_slice(), &[1], b"x"].concat();
    for _ in 0..600 {
        stream.write_all(&frame(frames::CONTINUATION, 0, asked, &field))?;
        stream.flush()?;
        std::thread::sleep(Duration::from_millis(200));
    }
    Ok(())
}
