//! An instance's certificate is verified with the system's authorities and `ca_file`, and its
//! connections are reused.

use crate::support::certificate::{Authority, Files};
use crate::support::origin::{After, Certify, Rules};
use crate::support::{Origin, Proxy, Simulator};

fn simulator_of(authority: &Authority, name: &str) -> (Simulator, String) {
    simulator_with(&authority.files(name))
}

fn simulator_with(files: &Files) -> (Simulator, String) {
    let flags = [
        "--tls-cert",
        files.cert.to_str().unwrap(),
        "--tls-key",
        files.key.to_str().unwrap(),
    ];
    let simulator = Simulator::with(&flags);
    let url = format!("https://localhost:{}", simulator.address.port());
    (simulator, url)
}

/// A TLS origin with one response for everything, certified by `certify`.
fn origin(certify: Box<Certify>) -> (Origin, String) {
    let rules = Rules {
        tls: Some(certify),
        ..Rules::default()
    };
    let origin = Origin::with(rules, |_, stream| {
        stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")?;
        Ok(After::Keep)
    });
    let url = format!("https://localhost:{}", origin.address.port());
    (origin, url)
}

#[test]
fn an_instance_certified_by_ca_file_is_served() {
    let authority = Authority::new();
    let (_simulator, url) = simulator_of(&authority, "localhost");
    let proxy = Proxy::to(&url)
        .file("--ca-file", &authority.ca_file())
        .start();
    let answer = proxy.get("/rest/2.0/application/info");
    assert_eq!(answer.status, 200, "{}", answer.text());
    let told = proxy.get("/echo").json();
    let host = url.strip_prefix("https://").unwrap();
    assert_eq!(told["headers"]["host"], serde_json::json!([host]));
    // a location on the instance leads back to the app's scheme, http
    let answer = proxy.get(&format!("/_status/302?location={url}/x"));
    let location = format!("http://{}/x", proxy.address);
    assert_eq!(answer.header("location"), Some(location.as_str()));
    let large = proxy.get("/_bytes/3000000");
    assert_eq!((large.body.len(), large.whole), (3_000_000, true));
    let cut = proxy.get("/_bytes/3000000?cut=100");
    assert!(!cut.whole);
}

#[test]
fn a_server_whose_own_certificate_is_in_ca_file_is_served() {
    let folder = Authority::new();
    let files = folder.self_signed("localhost");
    let (_simulator, url) = simulator_with(&files);
    let proxy = Proxy::to(&url).file("--ca-file", &files.cert).start();
    // by the token endpoint and by the API
    proxy.has_token();
    assert_eq!(proxy.get("/rest/2.0/application/info").status, 200);

    let folder = Authority::new();
    let other = folder.self_signed("localhost");
    let proxy = Proxy::to(&url).file("--ca-file", &other.cert).start();
    proxy.process.err.wait_for("a failure", |said| {
        said.contains("token request failed").then_some(())
    });
}

#[test]
fn an_unknown_authority_is_refused_and_named() {
    let authority = Authority::new();
    let (_simulator, url) = simulator_of(&authority, "localhost");
    // long enough for the failure to reach requests, shorter than the next attempt
    let proxy = Proxy::to(&url).flag("--wait-for-token", "500ms").start();
    let failure = |said: &str| {
        said.contains("token request failed")
            .then(|| said.to_owned())
    };
    let logged = proxy.process.err.wait_for("a failure", failure);
    assert!(
        logged.contains("certificate") && logged.contains("ca_file"),
        "{logged}"
    );
    let answer = proxy.get("/x");
    answer.assert_refused(503, "no-token");
    assert!(answer.text().contains("certificate"), "{}", answer.text());
}

#[test]
fn a_certificate_for_another_name_is_refused() {
    let authority = Authority::new();
    let (_simulator, url) = simulator_of(&authority, "other.test");
    let proxy = Proxy::to(&url)
        .file("--ca-file", &authority.ca_file())
        .start();
    let failure = |said: &str| {
        said.contains("token request failed")
            .then(|| said.to_owned())
    };
    let logged = proxy.process.err.wait_for("a failure", failure);
    assert!(
        logged.contains("certificate") && logged.contains("another host"),
        "{logged}"
    );
}

#[test]
fn the_api_is_verified_for_itself() {
    for (name, known) in [("localhost", false), ("other.test", true)] {
        let (authority, stranger) = (Authority::new(), Authority::new());
        let honest = authority.server("localhost");
        let other = if known { &authority } else { &stranger }.server(name);
        // the token's connection has the right certificate, all others have not
        let certify = move |nth| {
            if nth == 1 {
                honest.clone()
            } else {
                other.clone()
            }
        };
        let (origin, url) = origin(Box::new(certify));
        let proxy = Proxy::to(&url)
            .file("--ca-file", &authority.ca_file())
            .start();
        proxy.has_token();
        let answer = proxy.get("/x");
        answer.assert_refused(502, "upstream");
        assert_eq!(origin.requests().len(), 0, "nothing may be sent");
    }
}

#[test]
fn connections_are_kept() {
    let authority = Authority::new();
    let server = authority.server("localhost");
    let (origin, url) = origin(Box::new(move |_| server.clone()));
    let proxy = Proxy::to(&url)
        .file("--ca-file", &authority.ca_file())
        .start();
    for _ in 0..50 {
        assert_eq!(proxy.get("/x").status, 200);
    }
    assert_eq!(origin.requests().len(), 50);
    // one for the token, one for the API; more if the last was not back in the pool yet
    assert!(origin.accepted() < 25, "{} connections", origin.accepted());
}
