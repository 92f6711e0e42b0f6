//! Retries and the pool of connections to the instance: only idempotent requests whose body is at
//! hand are retried, and only a connection in sync is reused.

use crate::support::origin::After;
use crate::support::raw_origin::RawOrigin;
use crate::support::{Origin, Proxy, until};

const IN_FLIGHT: &str = r#"collibra_auth_proxy_requests_in_flight{client="default"}"#;

const OK: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

/// An instance that closes the connection without a response after the first request for `/x`, and
/// a proxy with a pooled connection to it.
fn fickle() -> (Origin, Proxy) {
    let first = std::sync::Mutex::new(true);
    let origin = Origin::start(move |request, stream| {
        let mut first = first.lock().unwrap();
        if request.target() == "/x" && std::mem::take(&mut *first) {
            return Ok(After::Close);
        }
        stream.write_all(OK)?;
        Ok(After::Keep)
    });
    let proxy = Proxy::to(&origin.url()).start();
    proxy.has_token();
    assert_eq!(proxy.get("/warm").text(), "ok");
    // no request in flight: the connection is back in the pool
    proxy.metric_becomes(IN_FLIGHT, 0.0);
    (origin, proxy)
}

/// The bodies received for `/x`.
fn bodies(origin: &Origin) -> Vec<Vec<u8>> {
    let requests = origin.requests().into_iter();
    let asked = requests.filter(|request| request.target() == "/x");
    asked.map(|request| request.body).collect()
}

#[test]
fn an_idempotent_request_on_a_stale_connection_is_retried() {
    for (method, length) in [("GET", 0), ("PUT", 5), ("PUT", 60_000), ("DELETE", 0)] {
        let (origin, proxy) = fickle();
        let body = "x".repeat(length);
        let answer = proxy.ask(&format!(
            "{method} /x HTTP/1.1\nHost: {{host}}\nContent-Length: {length}\n\n{body}"
        ));
        assert_eq!(answer.status, 200, "{method} {length}");
        let bodies = bodies(&origin);
        assert_eq!(bodies.len(), 2, "{method} {length}");
        assert!(
            bodies.iter().all(|it| it.len() == length),
            "{method} {length}"
        );
    }
}

#[test]
fn a_post_or_a_body_not_at_hand_is_not_retried() {
    for (method, length) in [("POST", 0), ("POST", 5), ("PATCH", 5), ("PUT", 200_000)] {
        let (origin, proxy) = fickle();
        let body = "x".repeat(length);
        let answer = proxy.ask(&format!(
            "{method} /x HTTP/1.1\nHost: {{host}}\nContent-Length: {length}\n\n{body}"
        ));
        answer.assert_refused(502, "upstream");
        assert_eq!(bodies(&origin).len(), 1, "{method} {length}");
        assert_eq!(proxy.get("/x").status, 200, "and it goes on");
    }
}

#[test]
fn a_connection_closed_while_idle_does_not_fail_a_post() {
    // the instance closes after its response, without `Connection: close`
    let origin = RawOrigin::start(move |head, line| {
        if head.to_ascii_lowercase().contains("content-length: 5") {
            line.read_through(b"hello")?;
        }
        line.say(OK)?;
        Ok(After::Close)
    });
    let proxy = Proxy::to(&origin.url()).start();
    proxy.has_token();
    for nth in 0..5 {
        let answer = proxy.ask("POST /x HTTP/1.1\nHost: {host}\nContent-Length: 5\n\nhello");
        assert_eq!(answer.status, 200, "the {nth}th: {}", answer.text());
        until("the proxy to let go of the connection", || {
            let pool = clients_of(origin.port());
            (pool == 0).then_some(())
        });
    }
    assert_eq!(origin.received().len(), 5);
}

/// Sockets connected to a local port, or half-closed by that side.
fn clients_of(port: u16) -> usize {
    let table = std::fs::read_to_string("/proc/net/tcp").unwrap();
    let remote = format!(":{port:04X}");
    let connected = |line: &&str| {
        let mut columns = line.split_whitespace().skip(2);
        let is_remote = columns
            .next()
            .is_some_and(|address| address.ends_with(&remote));
        is_remote && matches!(columns.next(), Some("01" | "08"))
    };
    table.lines().filter(connected).count()
}

#[test]
fn retries_are_bounded() {
    let origin = Origin::start(|_, _| Ok(After::Close));
    let proxy = Proxy::to(&origin.url()).start();
    proxy.has_token();
    for _ in 0..5 {
        proxy.get("/x").assert_refused(502, "upstream");
    }
    let asked = origin.requests().len();
    assert!((5..=10).contains(&asked), "{asked} times");
}

#[test]
fn surplus_bytes_of_the_instance_answer_no_request() {
    let surplus = "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil";
    for answer in [
        format!("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok{surplus}"),
        format!(
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n{surplus}"
        ),
        format!("HTTP/1.1 204 No Content\r\n\r\n{surplus}"),
    ] {
        let origin = Origin::answering(answer.clone());
        let proxy = Proxy::to(&origin.url()).start();
        proxy.has_token();
        let mut connection = proxy.connect();
        for _ in 0..10 {
            let text = connection.get(proxy.address, "/x").text();
            assert_ne!(text, "evil", "{answer}");
        }
        assert_eq!(origin.requests().len(), 10, "{answer}");
    }
}

#[test]
fn a_connection_with_an_unread_response_is_not_reused() {
    let origin = RawOrigin::start(|head, line| {
        if head.contains(" /long ") {
            line.say("HTTP/1.1 200 OK\r\nContent-Length: 100000000\r\n\r\nbegun")?;
            line.read_to_end()?;
            return Ok(After::Close);
        }
        line.say(OK)?;
        Ok(After::Keep)
    });
    let proxy = Proxy::to(&origin.url()).start();
    proxy.has_token();
    for nth in 1..=5 {
        let mut connection = proxy.connect();
        connection.send(proxy.bytes("GET /long HTTP/1.1\nHost: {host}\n\n"));
        assert_eq!(connection.head().status, 200);
        assert_eq!(connection.some(), b"begun");
        drop(connection);
        assert_eq!(proxy.get("/next").text(), "ok", "{nth}");
    }
    for text in origin.received() {
        let behind = text.split_once(" /long ").map_or("", |(_, rest)| rest);
        assert!(!behind.contains("GET "), "{text}");
    }
}

#[test]
fn a_connection_that_the_instance_will_close_is_not_reused() {
    for answer in [
        "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok",
        "HTTP/1.1 200 OK\r\nConnection: x, Close\r\nContent-Length: 2\r\n\r\nok",
        "HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nok",
    ] {
        // the instance does not close, so a reused connection would show
        let origin = RawOrigin::start(move |_, line| {
            line.say(answer)?;
            Ok(After::Keep)
        });
        let proxy = Proxy::to(&origin.url()).start();
        proxy.has_token();
        let mut connection = proxy.connect();
        for _ in 0..5 {
            assert_eq!(connection.get(proxy.address, "/x").text(), "ok", "{answer}");
        }
        let received = origin.received();
        assert_eq!(received.len(), 5, "{answer}");
    }
}
