//! Responses that come before the request's body has ended: the caller receives them, the rest of
//! the body never reaches another request, and the proxy reads only a bounded part of it.

use std::time::Duration;

use bytes::Bytes;
use http::Request;

use super::Instances;
use crate::support::h2_caller::{Served, get, hear, runtime, send, send_piece};
use crate::support::origin::After;
use crate::support::raw_origin::RawOrigin;
use crate::support::wait::now;
use crate::support::{Connection, Proxy, pair, until};

const ANSWER: &str = "HTTP/1.1 413 Content Too Large\r\nContent-Length: 9\r\n";

/// An announced length that no buffer on the way can hold.
const LENGTH: usize = 50_000_000;

/// An instance that answers an upload as soon as it has the head, then closes or reads on.
fn early(closes: bool) -> RawOrigin {
    RawOrigin::start(move |head, line| {
        if !head.starts_with("POST") {
            line.say("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")?;
            return Ok(After::Keep);
        }
        let close = if closes { "Connection: close\r\n" } else { "" };
        line.say(format!("{ANSWER}{close}\r\ntoo large"))?;
        if !closes {
            // all later bytes belong to the upload
            line.read_to_end()?;
        }
        Ok(After::Close)
    })
}

#[test]
fn an_early_response_reaches_a_caller_that_is_still_sending() {
    for closes in [false, true] {
        for framing in [
            format!("Content-Length: {LENGTH}"),
            "Transfer-Encoding: chunked".into(),
        ] {
            let origin = early(closes);
            let proxy = Proxy::to(&origin.url()).start();
            proxy.has_token();
            let mut connection = proxy.connect();
            let head = format!("POST /x HTTP/1.1\nHost: {{host}}\n{framing}\n\n");
            connection.send(proxy.bytes(&head));
            let piece = format!("10000\r\n{}\r\n", "x".repeat(0x10000));
            connection.send(if framing.contains("chunked") {
                &piece
            } else {
                &piece[7..]
            });
            let answer = connection.answer(&head);
            assert_eq!((answer.status, answer.text().as_str()), (413, "too large"));
            ends(connection, &piece);
            // no other request may use the connection to the instance
            let mut next = proxy.connect();
            next.send(proxy.bytes("GET /next HTTP/1.1\nHost: {host}\n\n"));
            let received = until("the next request at the instance", || {
                let received = origin.received();
                let has_next = received.iter().any(|text| text.contains("GET /next"));
                has_next.then_some(received)
            });
            assert!(
                !received[0].contains("GET /next"),
                "sent behind the unfinished upload, closes {closes}, {framing}"
            );
            assert_eq!(next.answer("GET").text(), "ok");
        }
    }
}

/// Asserts that the proxy soon closes the connection of a caller that sends on.
fn ends(mut connection: Connection, piece: &str) {
    let start = now();
    while connection.try_send(piece).is_ok() {
        assert!(
            start.elapsed() < Duration::from_secs(30),
            "the proxy keeps reading"
        );
    }
    assert_eq!(connection.rest(), b"", "after the answer");
}

#[test]
fn an_early_response_over_http_2_leaves_the_other_streams_alone() {
    for closes in [false, true] {
        let origin = early(closes);
        let url = origin.url();
        let served = Served::to(&url, origin, "");
        early_over_http2(&served, "/x");
        let received = served.simulator.received();
        assert!(!received[0].contains("GET /x"), "closes {closes}");
    }
}

#[test]
fn an_early_response_of_an_http_2_instance_leaves_its_connection_usable() {
    let instances = Instances::start();
    let [_, fronts] = instances.fronts();
    early_over_http2(&fronts.tls, "/early");
    let mut connection = fronts.plain.connect();
    let head = format!("POST /early HTTP/1.1\nHost: {{host}}\nContent-Length: {LENGTH}\n\n");
    connection.send(fronts.plain.bytes(&head));
    connection.send("x".repeat(0x10000));
    let answer = connection.answer(&head);
    assert_eq!((answer.status, answer.text().as_str()), (413, "too large"));
    assert_eq!(fronts.plain.get("/echo").status, 200);
    // one for each of the two proxies
    assert_eq!(instances.http2.connections(), 2);
}

/// Uploads to `path`, which answers early, then sends other requests on the same connection.
fn early_over_http2<I>(served: &Served<I>, path: &str) {
    runtime().block_on(async {
        let mut requests = served.connect().await;
        let upload = Request::post(served.uri(path)).body(()).unwrap();
        let (response, mut stream) = requests.send_request(upload, false).unwrap();
        let sending = async {
            let piece = Bytes::from(vec![b'x'; 0x10000]);
            // until the proxy resets the stream
            while send_piece(&mut stream, piece.clone(), false).await.is_ok() {}
        };
        let mut heard = std::pin::pin!(hear(response));
        let heard = tokio::select! {
            heard = &mut heard => heard,
            // a reset must not hide the response
            () = sending => heard.await,
        };
        let heard = heard.unwrap();
        assert_eq!(
            (heard.head.status.as_u16(), &*heard.body),
            (413, b"too large".as_slice())
        );
        for _ in 0..3 {
            let other = send(&mut requests, get(&served.uri("/echo")), Vec::new(), None).await;
            assert_eq!(other.head.status, 200);
        }
    });
}

#[test]
fn a_refusal_reaches_a_caller_that_is_still_sending() {
    let (simulator, proxy) = pair();
    for framing in ["Content-Length: 1000000", "Transfer-Encoding: chunked"] {
        let mut connection = proxy.connect();
        let head = format!("POST /rest/auth/v1/clients HTTP/1.1\nHost: {{host}}\n{framing}\n\n");
        connection.send(proxy.bytes(&head));
        // the proxy refuses the head; it may stop reading at any point
        for _ in 0..10 {
            let piece = format!("186a0\r\n{}\r\n", "x".repeat(100_000));
            let piece = if framing.contains("chunked") {
                &piece
            } else {
                &piece[7..100_007]
            };
            let _ = connection.try_send(piece);
        }
        connection.answer(&head).assert_refused(403, "denied");
    }
    assert_eq!(simulator.count("requests"), 0);
}

#[test]
fn a_refused_caller_cannot_send_forever() {
    let (_simulator, proxy) = pair();
    let mut connection = proxy.connect();
    let head =
        "POST /rest/auth/v1/clients HTTP/1.1\nHost: {host}\nContent-Length: 1000000000000\n\n";
    connection.send(proxy.bytes(head));
    let piece = vec![b'x'; 100_000];
    let (start, mut sent) = (now(), 0);
    while connection.try_send(&piece).is_ok() {
        sent += piece.len();
        assert!(
            start.elapsed() < Duration::from_secs(30),
            "{sent} bytes were taken"
        );
    }
    println!("ended after {sent} bytes, {:?}", start.elapsed());
    let open = "collibra_auth_proxy_connections{listener=\"local\"}";
    until("the end of the connection", || {
        (proxy.metric(open) == Some(0.0)).then_some(())
    });
}
