//! Bodies of known and unknown length arrive whole, in both directions, between HTTP/1.1 and HTTP/2
//! on either side.

use bytes::Bytes;
use http::Request;

use super::{Fronts, Heard, Instances};
use crate::support::h2_caller::{runtime, send};
use crate::support::http::Answer;

/// Below and above the size of every buffer on the way.
const LENGTHS: [usize; 4] = [0, 1, 16_385, 300_000];

/// Whether a caller announces its body's length.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Said {
    Length,
    Nothing,
}

impl Fronts {
    /// Sends a body over HTTP/1.1.
    fn post_over_http1(&self, path: &str, body: &[u8], said: Said) -> Answer {
        let framing = match said {
            Said::Length => format!("Content-Length: {}", body.len()),
            Said::Nothing => "Transfer-Encoding: chunked".to_owned(),
        };
        let head = format!("POST {path} HTTP/1.1\nHost: {{host}}\n{framing}\n\n");
        let mut connection = self.plain.connect();
        connection.send(self.plain.bytes(&head));
        match said {
            Said::Length => connection.send(body),
            Said::Nothing => {
                for piece in body.chunks(10_000) {
                    connection.send(format!("{:x}\r\n", piece.len()));
                    connection.send(piece);
                    connection.send("\r\n");
                }
                connection.send("0\r\n\r\n");
            }
        }
        connection.answer(&head)
    }

    /// Sends a body over HTTP/2.
    fn post_over_http2(&self, path: &str, body: &[u8], said: Said) -> Heard {
        let mut request = Request::post(self.tls.uri(path));
        if said == Said::Length {
            request = request.header("content-length", body.len());
        }
        let mut pieces: Vec<Bytes> = body.chunks(10_000).map(Bytes::copy_from_slice).collect();
        if said == Said::Nothing {
            pieces.push(Bytes::new());
        }
        runtime().block_on(async {
            let mut requests = self.tls.connect().await;
            send(&mut requests, request.body(()).unwrap(), pieces, None).await
        })
    }
}

#[test]
fn bodies_arrive_whole_between_all_protocols() {
    let instances = Instances::start();
    for fronts in instances.fronts() {
        for length in LENGTHS {
            let body: Vec<u8> = (0..length).map(|nth| (nth % 251) as u8).collect();
            for (path, has_length) in [("/sized", true), ("/echo", false)] {
                for said in [Said::Length, Said::Nothing] {
                    let what = format!("{} {path} {length} {said:?}", fronts.name);
                    let over = fronts.post_over_http1(path, &body, said);
                    assert_eq!((over.status, over.whole), (200, true), "{what}");
                    assert!(over.body == body, "{what}: {} bytes", over.body.len());
                    let told = over.header("content-length");
                    let chunked = over.header("transfer-encoding");
                    let expected = has_length.then(|| length.to_string());
                    assert_eq!(told, expected.as_deref(), "{what}");
                    assert_eq!(chunked, (!has_length).then_some("chunked"), "{what}");

                    let over = fronts.post_over_http2(path, &body, said);
                    assert_eq!(over.head.status, 200, "{what}");
                    assert!(over.body == body, "{what}: {} bytes", over.body.len());
                    let told = over.head.headers.get("content-length");
                    let told = told.map(|length| length.to_str().unwrap());
                    assert_eq!(told, expected.as_deref(), "{what}");
                    assert!(!over.head.headers.contains_key("transfer-encoding"));
                }
            }
        }
    }
}

#[test]
fn the_instance_gets_a_content_length_exactly_if_the_caller_sent_one() {
    let instances = Instances::start();
    for fronts in instances.fronts() {
        for said in [Said::Length, Said::Nothing] {
            for over_http2 in [false, true] {
                if over_http2 {
                    fronts.post_over_http2("/echo", b"hello", said);
                } else {
                    fronts.post_over_http1("/echo", b"hello", said);
                }
                let arrived = instances.last(&fronts);
                let what = format!("{} {said:?}, HTTP/2 {over_http2}: {arrived:?}", fronts.name);
                let has = |name: &str| arrived.contains_key(name);
                assert_eq!(has("content-length"), said == Said::Length, "{what}");
                let chunked = fronts.name == "HTTP/1.1" && said == Said::Nothing;
                assert_eq!(has("transfer-encoding"), chunked, "{what}");
            }
        }
    }
}

#[test]
fn a_response_that_ends_with_its_connection_arrives_whole() {
    let instances = Instances::start();
    let [fronts, _] = instances.fronts();
    for length in LENGTHS {
        let body = vec![b'x'; length];
        let over = fronts.post_over_http1("/closing", &body, Said::Length);
        assert_eq!((over.status, over.whole), (200, true));
        assert_eq!(over.body.len(), length);
        let over = fronts.post_over_http2("/closing", &body, Said::Length);
        assert_eq!(over.body.len(), length);
    }
}
