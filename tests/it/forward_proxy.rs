//! Forward proxies: for the API, for token requests, or for both. TLS is end to end, and failures
//! of the proxy are reported.

use std::path::Path;

use crate::support::certificate::Authority;
use crate::support::forward::{Forward, Manner};
use crate::support::origin::{After, Rules};
use crate::support::process::{command, run};
use crate::support::{Origin, Proxy, Simulator};

/// `me:pass word`, as Basic credentials.
const CREDENTIALS: &str = "Proxy-Authorization: Basic bWU6cGFzcyB3b3Jk";

/// A TLS origin that returns its name.
fn origin(authority: &Authority, name: &'static str) -> Origin {
    let server = authority.server("localhost");
    let rules = Rules {
        tls: Some(Box::new(move |_| server.clone())),
        ..Rules::default()
    };
    Origin::with(rules, move |_, stream| {
        let length = name.len();
        write!(
            stream,
            "HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n{name}"
        )?;
        Ok(After::Keep)
    })
}

fn url(origin: &Origin) -> String {
    format!("https://localhost:{}", origin.address.port())
}

fn ca(authority: &Authority) -> String {
    format!("ca_file = {:?}", authority.ca_file())
}

#[test]
fn the_api_goes_through_the_one_and_tokens_through_the_other() {
    let authority = Authority::new();
    for (api, token) in [(true, false), (false, true), (true, true)] {
        let origin = origin(&authority, "a");
        let forwards = [Forward::new(Manner::Open), Forward::new(Manner::Open)];
        let mut keys = ca(&authority);
        if api {
            keys += &format!("\nproxy = \"{}\"", forwards[0].url());
        }
        if token {
            keys += &format!("\ntoken_proxy = \"{}\"", forwards[1].url());
        }
        let proxy = Proxy::configured(&url(&origin), &keys, "").start();
        for _ in 0..20 {
            let answer = proxy.get("/x");
            assert_eq!(answer.status, 200, "{}", answer.text());
        }
        let line = format!("CONNECT localhost:{} HTTP/1.1", origin.address.port());
        for (forward, used) in forwards.iter().zip([api, token]) {
            let asked = forward.asked();
            assert_eq!(!asked.is_empty(), used, "{asked:?}");
            assert!(asked.iter().all(|asked| *asked == line), "{asked:?}");
        }
        // kept connections; more than one if the last was not back in the pool yet
        assert!(forwards[0].asked().len() < 10, "{:?}", forwards[0].asked());
        assert_eq!(origin.requests().len(), 20);
    }
}

#[test]
fn a_pooled_connection_never_serves_another_instance() {
    let authority = Authority::new();
    let (a, b) = (
        origin(&authority, "instance a"),
        origin(&authority, "instance b"),
    );
    let forward = Forward::new(Manner::Open);
    let instance = |name: &str, origin: &Origin, proxied: bool| {
        let url = url(origin);
        let proxy = if proxied {
            forward.url()
        } else {
            "direct".into()
        };
        let ca = ca(&authority);
        format!(
            "[instance.{name}]\nurl = \"{url}\"\n{ca}\nproxy = \"{proxy}\"\n\
             [client.{name}]\ninstance = \"{name}\"\nclient_id = \"{name}\"\nclient_secret = \"s3cret\"\n"
        )
    };
    let text = |first: &str, proxied| {
        let (a, b) = (instance("a", &a, proxied), instance("b", &b, proxied));
        format!(
            "{a}{b}[admin]\naddress = \"127.0.0.1:0\"\n\
             [listener.local]\naddress = \"127.0.0.1:0\"\nclient = \"{first}\"\n"
        )
    };
    let (_folder, path) = crate::support::file("proxy.toml", text("a", true).as_bytes());
    let proxy = Proxy::by_file(&path).start();
    let mut reloads = 1;
    let mut change = |client: &str, proxied| {
        std::fs::write(&path, text(client, proxied)).unwrap();
        proxy.process.signal("HUP");
        let said = |line: &str| line.contains("configuration taken over").then_some(());
        proxy.process.err.wait_for_nth("a reload", reloads, said);
        reloads += 1;
    };
    // one listener and one connection pool, alternating between the proxy and the direct path
    let mut served = [0, 0];
    for (client, proxied) in [
        ("b", true),
        ("a", true),
        ("b", false),
        ("a", false),
        ("b", true),
    ] {
        change(client, proxied);
        for _ in 0..5 {
            assert_eq!(proxy.get("/x").text(), format!("instance {client}"));
            served[usize::from(client == "b")] += 1;
        }
    }
    assert_eq!([a.requests().len(), b.requests().len()], served);
    let tokens = b.tokens();
    let foreign = |request: &crate::support::request::Request| {
        let sent = request
            .header("authorization")
            .unwrap_or_default()
            .to_owned();
        tokens.iter().any(|token| sent.contains(token))
    };
    assert!(
        !a.requests().iter().any(foreign),
        "a token goes to its own instance only"
    );
}

#[test]
fn the_environments_proxy_is_used_and_finds_the_instance_by_its_name() {
    let authority = Authority::new();
    let server = authority.server("acme.test");
    let rules = Rules {
        tls: Some(Box::new(move |_| server.clone())),
        ..Rules::default()
    };
    let origin = Origin::with(rules, |_, stream| {
        stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")?;
        Ok(After::Keep)
    });
    // this name does not resolve
    let forward = Forward::new(Manner::Leads(origin.address));
    let start = |keys: &str, spared: &str| {
        let keys = format!("{}\n{keys}", ca(&authority));
        Proxy::configured("https://acme.test", &keys, "")
            .variable("HTTPS_PROXY", &forward.url())
            .variable("NO_PROXY", spared)
            .start()
    };
    let proxy = start("", "other.test");
    let answer = proxy.get("/x");
    assert_eq!(answer.status, 200, "{}", answer.text());
    let asked = forward.asked();
    assert_eq!(
        asked, ["CONNECT acme.test:443 HTTP/1.1"; 2],
        "a token, a call"
    );
    for (keys, spared) in [
        ("", ".test"),
        ("proxy = \"direct\"\ntoken_proxy = \"direct\"", ""),
    ] {
        let proxy = start(keys, spared);
        let failure = |said: &str| said.contains("token request failed").then_some(());
        proxy.process.err.wait_for("a failure", failure);
        assert_eq!(forward.asked().len(), 2, "it is left out");
    }
}

#[test]
fn a_plain_instance_is_reached_by_connect_too() {
    let simulator = Simulator::start();
    let forward = Forward::new(Manner::Open);
    let keys = format!("proxy = \"{}\"", forward.url());
    let proxy = Proxy::configured(&simulator.url(), &keys, "").start();
    let answer = proxy.get("/echo");
    assert_eq!(answer.status, 200, "{}", answer.text());
    let line = format!("CONNECT {} HTTP/1.1", simulator.address);
    assert_eq!(forward.asked(), [line]);
}

#[test]
fn credentials_are_shown_to_the_proxy_and_to_nobody_else() {
    let authority = Authority::new();
    let (folder, path) = crate::support::file("pw", b"me:pass word\n");
    let by_file = format!("proxy_credentials_file = {path:?}");
    for (user, more) in [("me:pass%20word@", ""), ("", by_file.as_str())] {
        let origin = origin(&authority, "a");
        let forward = Forward::new(Manner::For(CREDENTIALS));
        let there = format!("http://{user}{}", forward.address);
        let keys = format!(
            "{}\nproxy = \"{there}\"\ntoken_proxy = \"{there}\"\n{more}",
            ca(&authority)
        );
        let proxy = Proxy::configured(&url(&origin), &keys, "").start();
        assert_eq!(proxy.get("/x").status, 200);
        assert!(forward.asked().len() >= 2, "{:?}", forward.asked());
        let told = [origin.requests(), origin.token_requests()].concat();
        assert!(
            told.iter()
                .all(|r| r.header("proxy-authorization").is_none())
        );
        assert!(!proxy.process.err.all().contains("pass word"));
    }
    drop(folder);
}

#[test]
fn what_the_proxy_does_instead_is_told() {
    let large = [b"HTTP/1.1 200 OK\r\nX: ".as_slice(), &[b'x'; 40_000]].concat();
    let says = |answer: &str| Manner::Says(answer.as_bytes().to_vec());
    for (manner, status, expected) in [
        (
            Manner::For(CREDENTIALS),
            502,
            "does not accept the credentials (407)",
        ),
        (
            says("HTTP/1.1 403 canary\r\n\r\n"),
            502,
            "answered 403 Forbidden",
        ),
        (
            says("HTTP/1.1 504 canary\r\n\r\n"),
            504,
            "answered 504 Gateway Timeout",
        ),
        (says("HTTP/1.1 200 canary"), 502, "closed the connection"),
        (says("canary\r\n\r\n"), 502, "did not answer with HTTP"),
        (Manner::Says(large), 502, "too large"),
        (Manner::Silent, 504, "did not answer within"),
    ] {
        let origin = Origin::answering("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
        let forward = Forward::new(manner);
        let keys = format!(
            "proxy = \"http://me:canary@{}\"\nconnect_timeout = \"500ms\"",
            forward.address
        );
        let proxy = Proxy::configured(&origin.url(), &keys, "").start();
        proxy.has_token();
        let answer = proxy.get("/x");
        answer.assert_refused(status, "upstream");
        let text = answer.text();
        assert!(text.contains(expected), "{text}");
        assert!(!text.contains("canary"), "{text}");
        assert!(!proxy.process.err.all().contains("canary"));
        assert_eq!(origin.requests().len(), 0);
    }
}

#[test]
fn a_proxy_that_refuses_tokens_is_told_of_those_who_wait_for_one() {
    let authority = Authority::new();
    let origin = origin(&authority, "a");
    for (manner, expected) in [
        (Manner::For(CREDENTIALS), "407"),
        (
            Manner::Says(b"HTTP/1.1 403 canary\r\n\r\n".to_vec()),
            "answered 403 Forbidden",
        ),
        (Manner::Silent, "did not answer within"),
    ] {
        let forward = Forward::new(manner);
        let keys = format!(
            "{}\ntoken_proxy = \"http://me:canary@{}\"\nconnect_timeout = \"500ms\"",
            ca(&authority),
            forward.address
        );
        let proxy = Proxy::configured(&url(&origin), &keys, "").start();
        let failure = |said: &str| {
            said.contains("token request failed")
                .then(|| said.to_owned())
        };
        let logged = proxy.process.err.wait_for("a failure", failure);
        let named = format!("the proxy {}", forward.address);
        assert!(
            logged.contains(&named) && logged.contains(expected),
            "{logged}"
        );
        assert!(!logged.contains("canary"), "{logged}");
    }
}

#[test]
fn check_goes_the_same_ways_and_says_so() {
    let authority = Authority::new();
    let origin = origin(&authority, "a");
    let forward = Forward::new(Manner::For(CREDENTIALS));
    let check = |user: &str| {
        let there = format!("http://{user}{}", forward.address);
        let text = format!(
            "[instance.acme]\nurl = \"{}\"\n{}\nproxy = \"{there}\"\ntoken_proxy = \"{there}\"\n\
             [client.catalog]\nclient_id = \"id\"\nclient_secret = \"s3cret\"\n",
            url(&origin),
            ca(&authority)
        );
        let (folder, path) = crate::support::file("proxy.toml", text.as_bytes());
        let ended = checked(&path);
        drop(folder);
        ended
    };
    let (status, said) = check("me:pass%20word@");
    assert_eq!(status, 0, "{said}");
    let way = format!("through the proxy {}", forward.address);
    assert_eq!(said.matches(&way).count(), 3, "{said}");
    assert!(
        said.contains(&format!(
            "proxy: {} connected to localhost:",
            forward.address
        )),
        "{said}"
    );
    assert!(!said.contains("pass word"), "{said}");
    let (status, said) = check("me:other@");
    assert_eq!(status, 1, "{said}");
    assert!(
        said.contains("proxy: FAILED: ") && said.contains("407"),
        "{said}"
    );
}

/// The output and exit status of `check --live` for a file.
fn checked(path: &Path) -> (i32, String) {
    let ended = run(command(["check", "--live", "--config"]).arg(path));
    (ended.status, ended.out + &ended.err)
}
