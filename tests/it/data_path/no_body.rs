//! Responses to HEAD, 204 and 304 have no body whatever their head says (RFC 9112, section 6.3).
//! The connection stays in sync on both sides.

use super::{Fronts, Instances};
use crate::support::Origin;
use crate::support::h2_caller::{get, runtime, send};
use crate::support::origin::After;

/// Method, the instance's response, and the status for the caller.
const RESPONSES: &[(&str, &str, u16)] = &[
    (
        "HEAD",
        "HTTP/1.1 200 OK\r\nContent-Length: 12345\r\n\r\n",
        200,
    ),
    (
        "HEAD",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
        200,
    ),
    ("HEAD", "HTTP/1.1 200 OK\r\n\r\n", 200),
    (
        "HEAD",
        "HTTP/1.1 404 Not Found\r\nContent-Length: 5\r\n\r\n",
        404,
    ),
    ("GET", "HTTP/1.1 204 No Content\r\n\r\n", 204),
    (
        "GET",
        "HTTP/1.1 204 No Content\r\nContent-Length: 0\r\n\r\n",
        204,
    ),
    (
        "GET",
        "HTTP/1.1 304 Not Modified\r\nETag: \"1\"\r\n\r\n",
        304,
    ),
    (
        "GET",
        "HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\n\r\n",
        304,
    ),
    (
        "HEAD",
        "HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\n\r\n",
        304,
    ),
    (
        "GET",
        "HTTP/1.1 205 Reset Content\r\nContent-Length: 0\r\n\r\n",
        205,
    ),
];

/// Invalid responses: a length, a coding or a body where none is allowed.
const ODD: &[(&str, &str, u16)] = &[
    (
        "GET",
        "HTTP/1.1 204 No Content\r\nContent-Length: 5\r\n\r\n",
        204,
    ),
    (
        "GET",
        "HTTP/1.1 204 No Content\r\nTransfer-Encoding: chunked\r\n\r\n",
        204,
    ),
    (
        "HEAD",
        "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello",
        200,
    ),
    (
        "GET",
        "HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\n\r\nhello",
        304,
    ),
    ("GET", "HTTP/1.1 204 No Content\r\n\r\nhello", 204),
];

/// An instance that answers `/N` with the Nth of `responses`, any other target with that target.
fn origin(responses: &'static [(&str, &str, u16)]) -> Origin {
    Origin::start(move |request, stream| {
        let nth = request
            .target()
            .strip_prefix('/')
            .and_then(|nth| nth.parse::<usize>().ok());
        match nth {
            Some(nth) => stream.write_all(responses[nth].1.as_bytes())?,
            None => {
                let target = request.target();
                let length = target.len();
                write!(
                    stream,
                    "HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n{target}"
                )?;
            }
        }
        Ok(After::Keep)
    })
}

#[test]
fn a_response_without_a_body_is_followed_by_the_next_response() {
    for responses in [RESPONSES, ODD] {
        let origin = origin(responses);
        let fronts = Fronts::to("HTTP/1.1", &origin.url(), "");
        let mut connection = fronts.plain.connect();
        for (nth, (method, head, status)) in responses.iter().enumerate() {
            let request = format!("{method} /{nth} HTTP/1.1\nHost: {{host}}\n\n");
            connection.send(fronts.plain.bytes(&request));
            let answer = connection.answer(&request);
            assert_eq!(answer.status, *status, "{method} {head:?}");
            assert_eq!(answer.body, b"", "{method} {head:?}");
            if *method == "HEAD" && head.contains("12345") {
                assert_eq!(answer.header("content-length"), Some("12345"));
            }
            // in sync, on this connection and on the instance's
            let next = format!("/next-{nth}");
            assert_eq!(connection.get(fronts.plain.address, &next).text(), next);
            let over_http2 = runtime().block_on(async {
                let mut requests = fronts.tls.connect().await;
                let mut request = get(&fronts.tls.uri(&format!("/{nth}")));
                *request.method_mut() = method.parse().unwrap();
                let heard = send(&mut requests, request, Vec::new(), None).await;
                let other = get(&fronts.tls.uri(&next));
                let other = send(&mut requests, other, Vec::new(), None).await;
                assert_eq!(other.body, next.as_bytes(), "{method} {head:?}");
                heard
            });
            assert_eq!(over_http2.head.status, *status, "{method} {head:?}");
            assert_eq!(over_http2.body, b"", "{method} {head:?}");
        }
    }
}

#[test]
fn a_response_of_an_http_2_instance_without_a_body_has_none() {
    let instances = Instances::start();
    let [_, fronts] = instances.fronts();
    let mut connection = fronts.plain.connect();
    for (method, path, status) in [
        ("HEAD", "/echo", 200),
        ("HEAD", "/status/200/12345", 200),
        ("GET", "/status/204", 204),
        ("GET", "/status/304", 304),
        ("GET", "/status/304/5", 304),
        ("HEAD", "/status/304/5", 304),
    ] {
        let request = format!("{method} {path} HTTP/1.1\nHost: {{host}}\n\n");
        connection.send(fronts.plain.bytes(&request));
        let answer = connection.answer(&request);
        assert_eq!(
            (answer.status, &*answer.body),
            (status, &b""[..]),
            "{method} {path}"
        );
        assert_eq!(
            connection.get(fronts.plain.address, "/bytes/3").text(),
            "xxx"
        );
        runtime().block_on(async {
            let mut requests = fronts.tls.connect().await;
            let mut request = get(&fronts.tls.uri(path));
            *request.method_mut() = method.parse().unwrap();
            let heard = send(&mut requests, request, Vec::new(), None).await;
            assert_eq!(heard.head.status, status, "{method} {path}");
            assert_eq!(heard.body, b"", "{method} {path}");
        });
    }
}
