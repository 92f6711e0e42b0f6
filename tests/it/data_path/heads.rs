//! Response heads: hop-by-hop fields are removed, and a `Location` on the instance becomes one on
//! the proxy.

use std::io::Write;

use crate::support::certificate::Authority;
use crate::support::forward::{Forward, Manner};
use crate::support::h2_caller::{Served, get, runtime, send};
use crate::support::origin::{After, Rules};
use crate::support::request::Request;
use crate::support::{Origin, Proxy};

#[test]
fn hop_by_hop_fields_of_a_response_are_removed() {
    let origin = Origin::answering(
        "HTTP/1.1 200 OK\r\nConnection: X-Hop, keep-alive\r\nX-Hop: 1\r\nconnection: x-other\r\n\
         X-Other: 1\r\nKeep-Alive: timeout=5\r\nProxy-Connection: keep-alive\r\nUpgrade: h2c\r\n\
         X-Kept: 1\r\nContent-Length: 2\r\n\r\nok",
    );
    let gone = [
        "x-hop",
        "x-other",
        "keep-alive",
        "proxy-connection",
        "upgrade",
    ];
    let proxy = Proxy::to(&origin.url()).start();
    proxy.has_token();
    let answer = proxy.get("/x");
    for name in gone {
        assert_eq!(answer.header(name), None, "{name}");
    }
    let named = answer.header("connection").unwrap_or_default();
    assert!(!named.to_ascii_lowercase().contains("x-"), "{named}");
    assert_eq!(answer.header("x-kept"), Some("1"));
    assert_eq!(answer.text(), "ok");

    let served = Served::to(&origin.url(), (), "");
    let heard = runtime().block_on(async {
        let mut requests = served.connect().await;
        send(&mut requests, get(&served.uri("/x")), Vec::new(), None).await
    });
    for name in gone.into_iter().chain(["connection", "transfer-encoding"]) {
        assert!(!heard.head.headers.contains_key(name), "{name}");
    }
    assert_eq!(heard.head.headers["x-kept"], "1");
    assert_eq!(heard.body, b"ok");
}

#[test]
fn a_connection_field_that_names_the_framing_does_not_remove_it() {
    for framed in [
        "Connection: content-length, keep-alive\r\nContent-Length: 2\r\n\r\nok",
        "Connection: transfer-encoding\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
    ] {
        let origin = Origin::answering(format!("HTTP/1.1 200 OK\r\n{framed}"));
        let proxy = Proxy::to(&origin.url()).start();
        proxy.has_token();
        let mut connection = proxy.connect();
        for _ in 0..2 {
            let answer = connection.get(proxy.address, "/x");
            assert_eq!(
                (answer.text().as_str(), answer.whole),
                ("ok", true),
                "{framed}"
            );
        }
    }
}

#[test]
fn connection_close_from_the_instance_is_not_passed_on() {
    let origin = Origin::start(|_, stream| {
        stream.write_all(b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok")?;
        Ok(After::Close)
    });
    let proxy = Proxy::to(&origin.url()).start();
    proxy.has_token();
    let mut connection = proxy.connect();
    for _ in 0..3 {
        let answer = connection.get(proxy.address, "/x");
        let said = answer.header("connection").unwrap_or_default();
        assert_ne!(said, "close");
        assert_eq!(answer.text(), "ok");
    }
}

/// Redirects to the request's query.
fn redirect(request: &Request, stream: &mut dyn Write) -> std::io::Result<After> {
    let location = request.target().split_once('?').unwrap_or_default().1;
    write!(
        stream,
        "HTTP/1.1 302 Found\r\nLocation: {location}\r\nContent-Length: 0\r\n\r\n"
    )?;
    Ok(After::Keep)
}

/// A proxy before `https://acme.test`, which redirects. The way there is through a forward proxy, so
/// that the port is the scheme's default.
fn before_acme(authority: &Authority) -> (Origin, Forward, Proxy) {
    let server = authority.server("acme.test");
    let rules = Rules {
        tls: Some(Box::new(move |_| server.clone())),
        ..Rules::default()
    };
    let origin = Origin::with(rules, redirect);
    let forward = Forward::new(Manner::Leads(origin.address));
    let keys = format!(
        "ca_file = {:?}\nproxy = \"{url}\"\ntoken_proxy = \"{url}\"",
        authority.ca_file(),
        url = forward.url()
    );
    let proxy = Proxy::configured("https://acme.test", &keys, "").start();
    proxy.has_token();
    (origin, forward, proxy)
}

/// Asserts that each location becomes the one beside it, on the proxy.
fn leads_back(proxy: &Proxy, locations: &[(String, &str)]) {
    let back = format!("http://{}", proxy.address);
    for (location, expected) in locations {
        let answer = proxy.get(&format!("/x?{location}"));
        let said = answer.header("location").unwrap_or_default();
        // a path without a host leads to the proxy as well
        let relative = said.starts_with('/') && !said.starts_with("//");
        let said = if relative {
            format!("{back}{said}")
        } else {
            said.to_owned()
        };
        assert_eq!(said, format!("{back}{expected}"), "{location}");
    }
}

#[test]
fn every_spelling_of_a_location_on_the_instance_leads_back() {
    let authority = Authority::new();
    let (_origin, _forward, proxy) = before_acme(&authority);
    let locations = [
        ("https://acme.test/x", "/x"),
        ("https://acme.test:443/x", "/x"),
        ("https://acme.test:/x", "/x"),
        ("HTTPS://acme.test/x", "/x"),
        ("Https://ACME.Test:443/X", "/X"),
        ("https://acme.test:443?y", "?y"),
        ("//acme.test/x?y", "/x?y"),
        ("//ACME.test:443/x", "/x"),
    ];
    leads_back(
        &proxy,
        &locations.map(|(location, back)| (location.to_owned(), back)),
    );
}

#[test]
fn a_location_with_the_instances_own_port_leads_back() {
    let origin = Origin::start(redirect);
    let proxy = Proxy::to(&origin.url()).start();
    proxy.has_token();
    let own = origin.address;
    let locations = [
        (format!("http://{own}/x"), "/x"),
        (format!("HTTP://{own}/x"), "/x"),
        (format!("//{own}/x?y"), "/x?y"),
    ];
    leads_back(&proxy, &locations);
    let port = own.port();
    for elsewhere in [
        "http://127.0.0.1/x".to_owned(),
        "//127.0.0.1/x".to_owned(),
        format!("http://127.0.0.1:{port}0/x"),
        format!("http://127.0.0.2:{port}/x"),
    ] {
        let answer = proxy.get(&format!("/x?{elsewhere}"));
        assert_eq!(answer.header("location"), Some(&*elsewhere));
    }
}

#[test]
fn a_location_elsewhere_is_unchanged() {
    let authority = Authority::new();
    let (_origin, _forward, proxy) = before_acme(&authority);
    for location in [
        "https://acme.test:8443/x",
        "https://acme.test:80/x",
        "https://acme.test.evil.example/x",
        "https://acme.test@evil.example/x",
        "https://acme.test:443@evil.example/x",
        "HTTPS://evil.example/acme.test",
        "//evil.example/x",
        "//acme.test:8443/x",
        "ftp://acme.test/x",
        "/x",
        "x",
    ] {
        let answer = proxy.get(&format!("/x?{location}"));
        assert_eq!(answer.header("location"), Some(location));
    }
}
