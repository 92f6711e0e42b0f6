//! Message framing: one Content-Length, one last chunk, and pipelined requests in order.

use bytes::Bytes;
use http::{Request, StatusCode};

use crate::support::h2_caller::{Served, get, runtime, send};
use crate::support::raw_origin::RawOrigin;
use crate::support::recorder::Recorder;
use crate::support::{Connection, Origin, Proxy, pair};

#[test]
fn an_upload_that_ends_in_an_empty_data_frame_has_one_last_chunk() {
    let origin = RawOrigin::start(|head, line| {
        if head.to_ascii_lowercase().contains("transfer-encoding") {
            line.read_through(b"0\r\n\r\n")?;
        }
        line.say("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")?;
        Ok(crate::support::origin::After::Keep)
    });
    let url = origin.url();
    let served = Served::to(&url, origin, "");
    let uploads = 5;
    runtime().block_on(async {
        let mut requests = served.connect().await;
        for pieces in [
            &["hello", ""][..],
            &["a", "", "b", ""],
            &[""],
            &["", ""],
            &["hello"],
        ] {
            let request = Request::post(served.uri("/x")).body(()).unwrap();
            let pieces = pieces.iter().map(|piece| Bytes::from(*piece)).collect();
            let heard = send(&mut requests, request, pieces, None).await;
            assert_eq!(heard.head.status, StatusCode::OK);
        }
    });
    let received = served.simulator.received();
    // all on one connection, so surplus bytes would precede the next request
    assert_eq!(received.len(), 1, "{received:#?}");
    let uploaded = received[0].matches("POST /x HTTP/1.1\r\n").count();
    assert_eq!(uploaded, uploads, "{}", received[0]);
    assert!(
        !received[0].contains("0\r\n\r\n0\r\n\r\n"),
        "{}",
        received[0]
    );
}

#[test]
fn an_upload_that_ends_in_an_empty_data_frame_leaves_no_surplus_on_its_connection() {
    let recorder = Recorder::start();
    let url = recorder.url();
    let served = Served::to(&url, recorder, "");
    runtime().block_on(async {
        let mut requests = served.connect().await;
        for _ in 0..20 {
            let request = Request::post(served.uri("/x")).body(()).unwrap();
            let pieces = vec![Bytes::from("hello"), Bytes::new()];
            let heard = send(&mut requests, request, pieces, None).await;
            assert_eq!(heard.head.status, StatusCode::OK);
            // reuses the connection to the instance
            let other = send(&mut requests, get(&served.uri("/other")), Vec::new(), None).await;
            assert_eq!(other.head.status, StatusCode::OK);
        }
    });
    served.simulator.assert_no_faults();
    assert_eq!(served.simulator.count(), 40);
}

#[test]
fn a_repeated_content_length_becomes_one_value() {
    for lengths in [
        "Content-Length: 2\r\nContent-Length: 2",
        "Content-Length: 2, 2",
        "Content-Length: 2 ,2\r\nContent-Length: 2",
    ] {
        let origin = Origin::answering(format!("HTTP/1.1 200 OK\r\n{lengths}\r\n\r\nok"));
        let proxy = Proxy::to(&origin.url()).start();
        proxy.has_token();
        let mut connection = proxy.connect();
        for _ in 0..2 {
            connection.send(proxy.bytes("GET /x HTTP/1.1\nHost: {host}\n\n"));
            let answer = answer_by_length(&mut connection, 2);
            assert_eq!(answer, ["2"], "{lengths}");
        }
        let url = origin.url();
        let served = Served::to(&url, origin, "");
        runtime().block_on(async {
            let mut requests = served.connect().await;
            let heard = send(&mut requests, get(&served.uri("/x")), Vec::new(), None).await;
            let told = heard.head.headers.get_all("content-length");
            let told: Vec<&[u8]> = told.iter().map(|value| value.as_bytes()).collect();
            assert_eq!(
                (told, &*heard.body),
                (vec![b"2".as_slice()], b"ok".as_slice())
            );
        });
    }
}

/// Reads a response with a body of `length` bytes; returns its Content-Length values.
fn answer_by_length(connection: &mut Connection, length: usize) -> Vec<String> {
    let head = connection.head();
    assert_eq!(head.status, 200);
    let mut body = Vec::new();
    while body.len() < length {
        let some = connection.some();
        assert!(!some.is_empty(), "it ends after {body:?}");
        body.extend(some);
    }
    assert_eq!(body, b"ok");
    let lengths = head.headers.into_iter();
    lengths
        .filter(|(name, _)| name == "content-length")
        .map(|(_, value)| value)
        .collect()
}

#[test]
fn a_response_with_conflicting_lengths_is_refused() {
    for lengths in [
        "Content-Length: 2\r\nContent-Length: 3",
        "Content-Length: 2, 3",
        "Content-Length: 2\r\nTransfer-Encoding: chunked",
        "Content-Length: +2",
        "Content-Length: 2x",
    ] {
        let origin = Origin::answering(format!(
            "HTTP/1.1 200 OK\r\n{lengths}\r\n\r\n2\r\nok\r\n0\r\n\r\n"
        ));
        let proxy = Proxy::to(&origin.url()).start();
        proxy.has_token();
        let answer = proxy.get("/x");
        // Transfer-Encoding overrides Content-Length (RFC 9112, section 6.3)
        if lengths.contains("chunked") && answer.status == 200 {
            assert_eq!(answer.header("content-length"), None);
            assert_eq!(answer.text(), "ok");
        } else {
            answer.assert_refused(502, "upstream");
        }
    }
}

#[test]
fn a_crlf_after_a_body_does_not_lose_the_next_request() {
    let (simulator, proxy) = pair();
    let mut connection = proxy.connect();
    let post = "POST /_bytes HTTP/1.1\nHost: {host}\nContent-Length: 5\n\nhello\n";
    connection.send(proxy.bytes(post));
    let answer = connection.answer(post);
    assert_eq!(answer.json()["received"], 5);
    if says_close(&answer) {
        return connection.is_closed();
    }
    let next = connection.get(proxy.address, "/echo?next");
    assert_eq!(next.json()["query"], "next");
    // a CRLF between two requests
    connection.send("\r\n");
    let next = connection.get(proxy.address, "/echo?last");
    assert_eq!(next.json()["query"], "last");
    assert_eq!(simulator.count("requests"), 3);
}

#[test]
fn pipelined_requests_are_served_in_order_unless_a_response_says_close() {
    let (simulator, proxy) = pair();
    for requests in [
        ["GET /echo?n=0", "GET /echo?n=1", "GET /echo?n=2"],
        ["HEAD /echo?n=0", "GET /echo?n=1", "GET /echo?n=2"],
        ["GET /rest/auth/v1", "GET /echo?n=1", "GET /echo?n=2"],
    ] {
        let before = simulator.count("requests");
        let mut connection = proxy.connect();
        let all = requests.map(|line| format!("{line} HTTP/1.1\nHost: {{host}}\n\n"));
        connection.send(proxy.bytes(&all.concat()));
        let mut forwarded = 0;
        for (nth, line) in requests.into_iter().enumerate() {
            let Some(answer) = connection.answer_or_end(line) else {
                panic!("request {nth} of {requests:?}: closed, unannounced");
            };
            forwarded += u64::from(answer.status == 200);
            if line.starts_with("GET /echo") {
                assert_eq!(answer.json()["query"], format!("n={nth}"));
            }
            if says_close(&answer) {
                connection.is_closed();
                break;
            }
        }
        let arrived = simulator.count("requests") - before;
        assert_eq!(arrived, forwarded, "{requests:?}");
    }
}

/// Whether a response says `Connection: close`.
fn says_close(answer: &crate::support::http::Answer) -> bool {
    let said = answer.header("connection").unwrap_or_default();
    said.to_ascii_lowercase().contains("close")
}
