//! Routes read a path as `allow` and `deny` do, and a target with a fragment is refused.

use std::io::Write;

use crate::support::frames::HEADERS;
use crate::support::h2_caller::{Served, get, runtime, send};
use crate::support::origin::After;
use crate::support::simulator::{CLIENT_ID, CLIENT_SECRET};
use crate::support::{Origin, Proxy, pair};

/// An instance that answers with its name.
fn named(name: &'static str) -> Origin {
    Origin::start(move |_, stream: &mut dyn Write| {
        let length = name.len();
        write!(
            stream,
            "HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n{name}"
        )?;
        Ok(After::Keep)
    })
}

/// Two instances, and a proxy that routes `/rest/limited` to the second.
fn routed(listener: &str) -> (Origin, Origin, Proxy) {
    let (main, limited) = (named("main"), named("limited"));
    let client = |name: &str, origin: &Origin| {
        format!(
            "[instance.{name}]\nurl = \"{}\"\n[client.{name}]\ninstance = \"{name}\"\n\
             client_id = \"{CLIENT_ID}\"\nclient_secret = \"{CLIENT_SECRET}\"\n",
            origin.url()
        )
    };
    let text = format!(
        "{}{}[admin]\naddress = \"127.0.0.1:0\"\n[listener.local]\naddress = \"127.0.0.1:0\"\n\
         client = \"main\"\nroute = [{{ prefix = \"/rest/limited\", client = \"limited\" }}]\n{listener}",
        client("main", &main),
        client("limited", &limited)
    );
    let proxy = Proxy::by_text(&text).start();
    proxy.has_token();
    (main, limited, proxy)
}

/// Paths at or below `/rest/limited` for a lenient server.
const LIMITED: &[&str] = &[
    "/rest/limited",
    "/rest/limited/x",
    "/rest/limited?x",
    "/rest/%6cimited/x",
    "/%72est/limited/x",
    "/rest/limite%64",
    "/rest//limited/x",
    "/rest/./limited/x",
    "/rest/x/../limited/x",
    "/rest/limited;a/x",
    "/rest;a=b/limited/x",
    "/rest/limited;a",
    "/./rest/limited/x",
    "/x/../rest/limited/x",
    "/rest/%6cimited;a/../limited/x",
    "/rest/limited//x",
    "/rest/limited/./x",
];

/// Paths outside of it for every server.
const OTHERS: &[&str] = &[
    "/rest",
    "/rest/limitedx",
    "/rest/limit%65dx",
    "/x?/rest/limited/x",
    "/",
];

/// Paths below it for some servers and outside for others.
const BOTH: &[&str] = &[
    "/rest/limited/../x",
    "/rest/limited;a/../x",
    "/rest/limited/..",
    "/rest/limited/../limitedx",
];

#[test]
fn every_spelling_of_a_path_gets_its_routes_client_or_400() {
    let (main, limited, proxy) = routed("");
    for target in LIMITED {
        let answer = proxy.get(target);
        if answer.status == 200 {
            assert_eq!(answer.text(), "limited", "{target}");
        } else {
            answer.assert_refused(400, "bad-request");
        }
    }
    assert_eq!(main.requests().len(), 0);
    // paths with one reading must be served
    for target in &LIMITED[..3] {
        assert_eq!(proxy.get(target).text(), "limited", "{target}");
    }
    assert!(limited.requests().len() >= 6);
    for target in OTHERS {
        assert_eq!(proxy.get(target).text(), "main", "{target}");
    }
}

#[test]
fn a_path_with_readings_for_different_clients_is_refused() {
    let (main, limited, proxy) = routed("");
    for target in BOTH {
        proxy.get(target).assert_refused(400, "bad-request");
    }
    assert_eq!((main.requests().len(), limited.requests().len()), (0, 0));
}

#[test]
fn every_spelling_of_a_path_over_http_2_gets_its_routes_client_or_400() {
    // the same listener with TLS
    let authority = crate::support::certificate::Authority::new();
    let files = authority.files("localhost");
    let tls = format!(
        "tls = {{ cert_file = {:?}, key_file = {:?} }}\n",
        files.cert, files.key
    );
    let (main, _limited, proxy) = routed(&tls);
    let served = Served {
        authority,
        simulator: (),
        proxy,
    };
    runtime().block_on(async {
        let mut requests = served.connect().await;
        for target in LIMITED {
            let request = get(&served.uri(target));
            let heard = send(&mut requests, request, Vec::new(), None).await;
            match heard.head.status.as_u16() {
                200 => assert_eq!(heard.body, b"limited", "{target}"),
                status => assert_eq!(status, 400, "{target}"),
            }
        }
    });
    assert_eq!(main.requests().len(), 0);
}

#[test]
fn a_fragment_is_refused() {
    let (simulator, proxy) = pair();
    for target in [
        "/echo#x",
        "/echo#",
        "/#",
        "/echo?a#b",
        "/echo?#",
        "/echo#?a",
        "/rest/2.0#/../auth/v1",
        "http://{host}/echo#x",
        "http://{host}#x",
    ] {
        let answer = proxy.ask(&format!("GET {target} HTTP/1.1\nHost: {{host}}\n\n"));
        answer.assert_refused(400, "bad-request");
    }
    assert_eq!(simulator.count("requests"), 0);
}

/// The HTTP/2 library removes a fragment before this program sees the path: the rest is checked,
/// and only the rest is forwarded.
#[test]
fn a_fragment_hides_nothing_over_http_2() {
    let served = Served::with("");
    let mut frames = served.frames();
    frames.greet();
    let cases = [
        ("/echo#x", true),
        ("/rest/auth/v1#x", false),
        ("/rest/auth/v1/#", false),
    ];
    for (nth, (path, is_served)) in (0_u32..).zip(cases) {
        let stream = 2 * nth + 1;
        assert!(frames.request(stream, "GET", path, true));
        let status = frames.find("an answer", |frame| {
            (frame.kind == HEADERS && frame.stream == stream).then(|| frame.status())
        });
        assert_eq!(status == Some(200), is_served, "{path}");
    }
    assert_eq!(served.simulator.count("requests"), 1);
}
