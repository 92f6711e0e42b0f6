//! Request heads on their way to the instance: hop-by-hop fields are removed before the token goes
//! in, and there is one authority, the instance's.

use http::{HeaderMap, Request};

use super::{Fronts, Instances};
use crate::support::frames::{self, HEADERS, RST_STREAM};
use crate::support::h2_caller::{Served, runtime, send};

/// A request with hop-by-hop fields, some of them named by `Connection`.
const HOPS: &str = "GET /echo HTTP/1.1\nHost: {host}\nConnection: X-Hop, authorization, x-list\n\
     connection: te, x-other, cookie, host-x, user-agent\nX-Hop: 1\nX-Other: 1\nX-List: 1\nX-List: 2\n\
     Keep-Alive: 5\nProxy-Connection: keep-alive\nTE: gzip\nUser-Agent: mine\nTrailer: X-T\n\
     Upgrade: websocket\nAuthorization: Bearer mine\nProxy-Authorization: Basic bWU6eW91\nX-Kept: 1\n\n";

/// Its fields that must not reach the instance.
const LEFT_BEHIND: [&str; 11] = [
    "connection",
    "x-hop",
    "x-other",
    "x-list",
    "keep-alive",
    "proxy-connection",
    "te",
    "user-agent",
    "trailer",
    "upgrade",
    "proxy-authorization",
];

#[test]
fn hop_by_hop_fields_are_removed_before_the_token_goes_in() {
    let instances = Instances::start();
    for fronts in instances.fronts() {
        assert_eq!(fronts.plain.ask(HOPS).status, 200);
        let arrived = instances.last(&fronts);
        for name in LEFT_BEHIND {
            // `Connection: keep-alive` of the proxy's own is fine
            let kept = arrived.get(name).is_some_and(|value| value == "keep-alive");
            let is_said = name == "connection" && kept && fronts.name == "HTTP/1.1";
            assert!(
                !arrived.contains_key(name) || is_said,
                "{}: {name}",
                fronts.name
            );
        }
        assert_eq!(arrived["x-kept"], "1");
        has_the_token(&fronts, &arrived);
    }
}

#[test]
fn a_connection_field_that_names_the_framing_does_not_remove_it() {
    let instances = Instances::start();
    for fronts in instances.fronts() {
        for (framing, body) in [
            ("Connection: content-length\nContent-Length: 5", "hello"),
            (
                "Connection: transfer-encoding\nTransfer-Encoding: chunked",
                "5\nhello\n0\n\n",
            ),
        ] {
            let request = format!("POST /echo HTTP/1.1\nHost: {{host}}\n{framing}\n\n{body}");
            assert_eq!(fronts.plain.ask(&request).text(), "hello", "{framing}");
            has_the_token(&fronts, &instances.last(&fronts));
        }
    }
}

/// Asserts that `Authorization` is the token alone.
fn has_the_token(fronts: &Fronts, arrived: &HeaderMap) {
    let shown: Vec<_> = arrived.get_all("authorization").iter().collect();
    assert_eq!(shown.len(), 1, "{}: {shown:?}", fronts.name);
    let shown = shown[0].to_str().unwrap();
    assert!(
        shown.starts_with("Bearer ") && shown.contains("token-1"),
        "{shown}"
    );
}

#[test]
fn the_instance_sees_its_own_authority() {
    let instances = Instances::start();
    for fronts in instances.fronts() {
        // callers use the proxy's names
        assert_eq!(fronts.plain.get("/echo").status, 200);
        check_authority(&instances, &fronts);
        runtime().block_on(async {
            let mut requests = fronts.tls.connect().await;
            for host in [
                None,
                Some(format!("localhost:{}", fronts.tls.proxy.address.port())),
            ] {
                let mut request = Request::get(fronts.tls.uri("/echo"));
                if let Some(host) = &host {
                    request = request.header("host", host);
                }
                let request = request.body(()).unwrap();
                let heard = send(&mut requests, request, Vec::new(), None).await;
                assert_eq!(heard.head.status, 200);
                check_authority(&instances, &fronts);
            }
        });
    }
}

/// Asserts that the last request has the instance's authority, once.
fn check_authority(instances: &Instances, fronts: &Fronts) {
    let arrived = instances.last(fronts);
    let hosts: Vec<_> = arrived.get_all("host").iter().collect();
    if fronts.name == "HTTP/2" {
        let authority = format!("localhost:{}", instances.http2.address.port());
        let last = instances.http2.all().pop().unwrap();
        assert_eq!((last.authority, hosts), (authority, vec![]));
    } else {
        assert_eq!(hosts, [&*instances.http1.address.to_string()]);
    }
}

#[test]
fn connection_specific_fields_are_refused_over_http_2() {
    // RFC 9113, section 8.2.2
    let served = Served::with("");
    for (name, value) in [
        ("connection", "close"),
        ("keep-alive", "5"),
        ("proxy-connection", "close"),
        ("transfer-encoding", "chunked"),
        ("upgrade", "h2c"),
        ("te", "gzip"),
    ] {
        let mut connection = served.frames();
        connection.greet();
        let mut head = frames::request("GET", "/echo");
        head.extend([0, u8::try_from(name.len()).unwrap()]);
        head.extend(name.bytes());
        head.push(u8::try_from(value.len()).unwrap());
        head.extend(value.bytes());
        assert!(connection.send_head(1, &head, true));
        let refused = connection.find(name, |frame| match frame.kind {
            HEADERS => Some(frame.status() == Some(400)),
            RST_STREAM => Some(true),
            _ => None,
        });
        assert!(refused, "{name}");
    }
    assert_eq!(served.simulator.count("requests"), 0);
    served.serves();
}
