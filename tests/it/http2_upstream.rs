//! An instance that offers HTTP/2 is called with it, with the same guarantees as over HTTP/1.1.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use crate::support::certificate::Authority;
use crate::support::forward::{Forward, Manner};
use crate::support::h2_origin::H2Origin;
use crate::support::http::Answer;
use crate::support::{Proxy, until};

fn pair(keys: &str) -> (H2Origin, Proxy, Authority) {
    let authority = Authority::new();
    let origin = H2Origin::new(&authority);
    let keys = format!("ca_file = {:?}\n{keys}", authority.ca_file());
    let proxy = Proxy::configured(&origin.url(), &keys, "").start();
    proxy.has_token();
    (origin, proxy, authority)
}

/// `POST path` with a body of `length` bytes.
fn post(proxy: &Proxy, path: &str, length: usize) -> Answer {
    let mut request = proxy.bytes(&format!(
        "POST {path} HTTP/1.1\nHost: {{host}}\nContent-Length: {length}\n\n"
    ));
    request.resize(request.len() + length, b'x');
    let mut connection = proxy.connect();
    connection.send(request);
    connection.answer("POST")
}

#[test]
fn many_requests_share_a_connection() {
    let (origin, proxy, _authority) = pair("");
    assert_eq!(proxy.get("/x").status, 200);
    thread::scope(|scope| {
        for _ in 0..10 {
            scope.spawn(|| {
                let mut connection = proxy.connect();
                for _ in 0..30 {
                    let answer = connection.get(proxy.address, "/x");
                    assert_eq!(answer.status, 200, "{}", answer.text());
                }
            });
        }
    });
    assert_eq!(origin.requests("/x").len(), 301);
    assert!(origin.connections() <= 10, "{}", origin.connections());
}

#[test]
fn bodies_pass_both_ways_whole() {
    let (origin, proxy, _authority) = pair("");
    for length in [0, 1, 65_536, 3_000_000] {
        let answer = post(&proxy, "/x", length);
        assert_eq!(answer.status, 200, "{}", answer.text());
        assert_eq!((answer.body.len(), answer.whole), (length, true));
    }
    let large = proxy.get("/bytes/20000000");
    assert_eq!((large.body.len(), large.whole), (20_000_000, true));
    let chunked = proxy
        .ask("POST /chunked HTTP/1.1\nHost: {host}\nTransfer-Encoding: chunked\n\n5\nhello\n0\n\n");
    assert_eq!(chunked.text(), "hello");
    assert_eq!(origin.requests("/chunked").len(), 1);
}

#[test]
fn answers_have_the_form_that_the_app_knows() {
    let (_origin, proxy, _authority) = pair("");
    let old = proxy.ask("GET /bytes/1000 HTTP/1.0\nHost: {host}\n\n");
    assert_eq!(old.header("transfer-encoding"), None);
    assert_eq!((old.body.len(), old.status), (1000, 200));
    let new = proxy.get("/bytes/1000");
    assert_eq!((new.body.len(), new.whole), (1000, true));
    let mut connection = proxy.connect();
    connection.send(proxy.bytes("HEAD /bytes/1000 HTTP/1.1\nHost: {host}\n\n"));
    assert_eq!(connection.answer("HEAD ").status, 200);
    assert_eq!(connection.get(proxy.address, "/x").status, 200);
    let waits = "POST /x HTTP/1.1\nHost: {host}\nExpect: 100-continue\nContent-Length: 5\n\nhello";
    assert_eq!(proxy.ask(waits).text(), "hello");
}

#[test]
fn what_belongs_to_a_connection_stays_there() {
    let (origin, proxy, _authority) = pair("");
    let answer = proxy.ask(
        "GET /x HTTP/1.1\nHost: {host}\nConnection: authorization, x-hop, te\nX-Hop: 1\nTE: gzip\n\
         Keep-Alive: 5\nCookie: a=b\nX-Forwarded-For: 1\nAuthorization: Bearer mine\n\n",
    );
    assert_eq!(answer.status, 200, "{}", answer.text());
    let head = origin.last_head();
    assert_eq!(head["authorization"], "Bearer token-1");
    for gone in [
        "connection",
        "x-hop",
        "te",
        "keep-alive",
        "cookie",
        "x-forwarded-for",
        "host",
    ] {
        assert!(!head.contains_key(gone), "{gone}: {head:?}");
    }
}

#[test]
fn a_401_is_answered_by_another_token_and_the_request_sent_once_more() {
    for length in [0, 10, 65_536] {
        let (origin, proxy, _authority) = pair("");
        let answer = post(&proxy, "/stale", length);
        assert_eq!(answer.status, 200, "{length}: {}", answer.text());
        assert_eq!(answer.body.len(), length);
        let bodies: Vec<usize> = origin
            .requests("/stale")
            .iter()
            .map(|r| r.1.len())
            .collect();
        assert_eq!(bodies, [length, length]);
        assert_eq!(origin.tokens(), 2);
        assert_eq!(origin.connections(), 1, "the connection is kept");
    }
    let (origin, proxy, _authority) = pair("");
    assert_eq!(post(&proxy, "/stale", 65_537).status, 401);
    assert_eq!(origin.requests("/stale").len(), 1);
}

#[test]
fn what_breaks_there_breaks_here() {
    let (origin, proxy, _authority) = pair("");
    let cut = proxy.get("/cut");
    assert!(!cut.whole, "{} bytes", cut.body.len());
    post(&proxy, "/reset", 2).assert_refused(502, "upstream");
    let posts = origin.requests("/reset");
    assert_eq!(posts.len(), 1, "a POST is never sent twice");
    assert_eq!(proxy.get("/x").status, 200, "and it goes on");
}

#[test]
fn what_the_instance_has_not_looked_at_is_sent_again() {
    for length in [0, 65_536] {
        let (origin, proxy, _authority) = pair("");
        let answer = post(&proxy, "/refused", length);
        assert_eq!(answer.status, 200, "{}", answer.text());
        assert_eq!(answer.body.len(), length);
        assert_eq!(origin.requests("/refused").len(), 2);
    }
}

#[test]
fn a_connection_that_ends_under_many_has_no_post_taken_twice() {
    let (origin, proxy, _authority) = pair("");
    let answered = AtomicUsize::new(0);
    thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                for n in 0..25_usize {
                    let path = if n.is_multiple_of(5) { "/bye" } else { "/x" };
                    let id = format!("{:032x}", collibra_auth_proxy::random::unique());
                    let answer = proxy.ask(&format!(
                        "POST {path} HTTP/1.1\nHost: {{host}}\nContent-Length: 32\n\n{id}"
                    ));
                    let bodies = origin.requests(path);
                    let taken = bodies.iter().filter(|r| r.1 == id.as_bytes()).count();
                    if answer.status == 200 {
                        assert_eq!((taken, answer.text()), (1, id));
                        answered.fetch_add(1, Ordering::SeqCst);
                    } else {
                        // the connection ended without a reason
                        answer.assert_refused(502, "upstream");
                        assert!(taken <= 1, "{taken} times");
                    }
                }
            });
        }
    });
    let answered = answered.into_inner();
    assert!(answered > 180, "{answered} of 200");
    assert!(origin.connections() > 5, "{}", origin.connections());
}

#[test]
fn a_connection_that_ends_loses_no_request() {
    let (origin, proxy, _authority) = pair("");
    for n in 0..20 {
        for path in ["/bye", "/x"] {
            let answer = proxy.get(path);
            assert_eq!(answer.status, 200, "{n} {path}: {}", answer.text());
        }
    }
    assert_eq!(origin.requests("/bye").len(), 20);
    assert_eq!(origin.requests("/x").len(), 20);
}

#[test]
fn who_reads_slowly_holds_up_nobody_else() {
    let (_origin, proxy, _authority) = pair("");
    let request = proxy.bytes("GET /bytes/50000000 HTTP/1.1\nHost: {host}\n\n");
    let mut slow: Vec<_> = (0..20).map(|_| proxy.connect()).collect();
    for connection in &mut slow {
        connection.send(&request);
        assert_eq!(connection.head().status, 200);
    }
    let large = proxy.get("/bytes/20000000");
    assert_eq!((large.body.len(), large.whole), (20_000_000, true));
}

#[test]
fn an_app_that_goes_away_ends_its_request_and_no_other() {
    let (origin, proxy, _authority) = pair("");
    for _ in 0..10 {
        let mut connection = proxy.connect();
        connection.send(proxy.bytes("GET /held HTTP/1.1\nHost: {host}\n\n"));
        assert_eq!(connection.head().status, 200);
        drop(connection);
        assert_eq!(proxy.get("/x").status, 200);
    }
    assert_eq!(origin.connections(), 1);
    let in_flight = r#"collibra_auth_proxy_requests_in_flight{client="catalog"}"#;
    until("the last one's end", || {
        (proxy.metric(in_flight) == Some(0.0)).then_some(())
    });
}

#[test]
fn silence_ends_by_the_idle_timeout_and_only_where_it_is() {
    let (_origin, proxy, _authority) = pair("idle_timeout = \"300ms\"");
    proxy.get("/never").assert_refused(504, "upstream");
    let held = proxy.get("/held");
    assert_eq!((held.status, held.whole), (200, false));
    assert_eq!(proxy.get("/x").status, 200);
}

#[test]
fn it_goes_through_a_forward_proxy_too() {
    let forward = Forward::new(Manner::Open);
    let (origin, proxy, _authority) = pair(&format!("proxy = \"{}\"", forward.url()));
    for _ in 0..20 {
        assert_eq!(proxy.get("/x").status, 200);
    }
    assert_eq!(origin.connections(), 1);
    assert_eq!(forward.asked().len(), 1);
}

#[test]
fn it_is_left_off_where_that_is_wanted() {
    let authority = Authority::new();
    let origin = H2Origin::new(&authority);
    let keys = format!("ca_file = {:?}\nhttp2 = false", authority.ca_file());
    let proxy = Proxy::configured(&origin.url(), &keys, "").start();
    proxy.has_token();
    assert_eq!(proxy.get("/x").text(), "this is HTTP/1.1");
    assert_eq!(origin.connections(), 0);
}
