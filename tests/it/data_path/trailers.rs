//! Trailers (RFC 9110, section 6.5) and the `Trailer` field pass together or not at all.

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Request};

use crate::support::certificate::Authority;
use crate::support::h2_caller::{Heard, Served, get, runtime, send};
use crate::support::h2_origin::H2Origin;
use crate::support::origin::After;
use crate::support::raw_origin::RawOrigin;
use crate::support::{Connection, Origin, Proxy};

/// A response with a trailer, in HTTP/1.1.
const RESPONSE: &str = "HTTP/1.1 200 OK\r\nTrailer: X-Sum\r\nTransfer-Encoding: chunked\r\n\r\n\
     3\r\nabc\r\n0\r\nX-Sum: 1\r\n\r\n";

/// A request with a trailer, in HTTP/1.1.
const REQUEST: &str = "POST /trailers HTTP/1.1\nHost: {host}\nTE: trailers\nTrailer: X-Sum\n\
     Transfer-Encoding: chunked\n\n3\nabc\n0\nX-Sum: 1\n\n";

/// An HTTP/2 instance, the keys for its table, and its authority.
fn over_http_2() -> (H2Origin, String, Authority) {
    let authority = Authority::new();
    let keys = format!("ca_file = {:?}", authority.ca_file());
    (H2Origin::new(&authority), keys, authority)
}

#[test]
fn response_trailers_match_the_trailer_field_over_http_1() {
    let http1 = Origin::answering(RESPONSE);
    let (http2, keys, _authority) = over_http_2();
    for (url, keys) in [(http1.url(), ""), (http2.url(), &keys)] {
        let proxy = Proxy::configured(&url, keys, "").start();
        proxy.has_token();
        for te in ["", "TE: trailers\nConnection: TE\n"] {
            let mut connection = proxy.connect();
            let request = format!("GET /trailers HTTP/1.1\nHost: {{host}}\n{te}\n");
            connection.send(proxy.bytes(&request));
            let (announced, came) = trailers_of(&mut connection);
            assert_eq!(announced, came, "{url} {te}");
            // the connection stays in sync
            assert_eq!(connection.get(proxy.address, "/trailers").status, 200);
        }
    }
}

/// Reads a response; returns whether it announced a trailer and whether the trailer came.
fn trailers_of(connection: &mut Connection) -> (bool, bool) {
    let head = connection.head();
    assert_eq!(head.status, 200);
    let mut body = Vec::new();
    while !(body.ends_with(b"\r\n\r\n") && body.windows(3).any(|w| w == b"0\r\n")) {
        let some = connection.some();
        assert!(!some.is_empty(), "it ends after {body:?}");
        body.extend(some);
    }
    let body = String::from_utf8(body).unwrap().to_ascii_lowercase();
    assert!(body.contains("abc"), "{body}");
    let came = body.ends_with("\r\n0\r\nx-sum: 1\r\n\r\n");
    assert!(came || body.ends_with("\r\n0\r\n\r\n"), "{body}");
    (head.header("trailer").is_some(), came)
}

#[test]
fn response_trailers_match_the_trailer_field_over_http_2() {
    let http1 = Origin::answering(RESPONSE);
    let (http2, keys, _authority) = over_http_2();
    for (url, keys) in [(http1.url(), ""), (http2.url(), &keys)] {
        let served = Served::before(&url, keys, (), "");
        for te in [false, true] {
            let mut request = get(&served.uri("/trailers"));
            if te {
                let value = HeaderValue::from_static("trailers");
                request.headers_mut().insert("te", value);
            }
            let heard = once(&served, request, Vec::new(), None);
            assert_eq!(heard.body, b"abc", "{url}");
            let announced = heard.head.headers.contains_key("trailer");
            let came = heard
                .trailers
                .is_some_and(|them| them.contains_key("x-sum"));
            assert_eq!(announced, came, "{url}, te {te}");
        }
    }
}

#[test]
fn request_trailers_match_the_trailer_field_at_an_http_1_instance() {
    let origin = RawOrigin::start(|head, line| {
        if head.starts_with("POST") {
            line.read_through(b"\r\n0\r\n")?;
            line.read_through(b"\r\n")?;
        }
        line.say("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")?;
        Ok(After::Keep)
    });
    let proxy = Proxy::to(&origin.url()).start();
    proxy.has_token();
    assert_eq!(proxy.ask(REQUEST).status, 200);
    let served = Served::to(&origin.url(), (), "");
    upload_with_trailers(&served);
    let received = origin.received();
    assert_eq!(received.len(), 2, "{received:#?}");
    for text in received {
        let text = text.to_ascii_lowercase();
        let announced = text.contains("\r\ntrailer: x-sum\r\n");
        let came = text.ends_with("\r\n0\r\nx-sum: 1\r\n\r\n");
        assert!(came || text.ends_with("\r\n0\r\n\r\n"), "{text}");
        assert_eq!(announced, came, "{text}");
    }
}

#[test]
fn request_trailers_match_the_trailer_field_at_an_http_2_instance() {
    let (origin, keys, _authority) = over_http_2();
    let proxy = Proxy::configured(&origin.url(), &keys, "").start();
    proxy.has_token();
    let agrees = || {
        let announced = origin.last_head().contains_key("trailer");
        let came = origin.last_trailers().is_some();
        assert_eq!(announced, came);
    };
    assert_eq!(proxy.ask(&REQUEST.replace("/trailers", "/x")).text(), "abc");
    agrees();
    let served = Served::before(&origin.url(), &keys, (), "");
    upload_with_trailers(&served);
    agrees();
}

fn upload_with_trailers<I>(served: &Served<I>) {
    let request = Request::post(served.uri("/x"))
        .header("te", "trailers")
        .header("trailer", "x-sum");
    let sum = HeaderMap::from_iter([(
        http::HeaderName::from_static("x-sum"),
        HeaderValue::from_static("1"),
    )]);
    let pieces = vec![Bytes::from_static(b"abc")];
    let heard = once(served, request.body(()).unwrap(), pieces, Some(sum));
    assert_eq!(heard.head.status, 200);
}

fn once<I>(
    served: &Served<I>,
    request: Request<()>,
    pieces: Vec<Bytes>,
    trailers: Option<HeaderMap>,
) -> Heard {
    runtime().block_on(async {
        let mut requests = served.connect().await;
        send(&mut requests, request, pieces, trailers).await
    })
}
