//! The client whose token a request gets.

use super::*;
use crate::support::Origin;
use crate::support::simulator::{CLIENT_ID, CLIENT_SECRET};

/// A proxy in front of two instances, one behind `/dev`.
fn two(url: &str, dev_url: &str, more: &str) -> Proxy {
    let text = format!(
        r#"
instance.acme = {{ url = "{url}" }}
instance.dev = {{ url = "{dev_url}" }}
[client.catalog]
instance = "acme"
client_id = "{CLIENT_ID}"
client_secret = "{CLIENT_SECRET}"
[client.catalog-dev]
instance = "dev"
client_id = "{CLIENT_ID}"
client_secret = "{CLIENT_SECRET}"
[listener.local]
address = "127.0.0.1:0"
client = "catalog"
route = [
    {{ prefix = "/dev", client = "catalog-dev", strip = true }},
    {{ prefix = "/dev/as-it-is", client = "catalog-dev" }},
]
[admin]
address = "127.0.0.1:0"
{more}"#
    );
    let (folder, path) = crate::support::file("proxy.toml", text.as_bytes());
    let proxy = Proxy::by_file(&path).variable("LINEAGE_KEY", KEY).start();
    drop(folder);
    proxy
}

/// The target that the simulator received.
fn arrives(proxy: &Proxy, target: &str) -> String {
    let answer = proxy.get(target);
    assert_eq!(answer.status, 200, "{target}: {}", answer.text());
    let told = answer.json();
    let path = told["path"].as_str().unwrap();
    match told["query"].as_str() {
        Some(query) => format!("{path}?{query}"),
        None => path.to_owned(),
    }
}

#[test]
fn a_prefix_leads_to_another_instance() {
    let (main, dev) = (Simulator::start(), Simulator::start());
    let proxy = two(&main.url(), &dev.url(), "");
    for (target, arrived) in [
        ("/dev/echo?x=/dev/", "/echo?x=/dev/"),
        ("/dev/echo/%C3%A9", "/echo/%C3%A9"),
        ("/dev/as-it-is/echo", "/dev/as-it-is/echo"),
    ] {
        let before = (main.count("requests"), dev.count("requests"));
        assert_eq!(arrives(&proxy, target), arrived);
        assert_eq!(
            (main.count("requests"), dev.count("requests")),
            (before.0, before.1 + 1),
            "{target}"
        );
    }
    for target in ["/echo/dev", "/devel/echo", "/Dev/echo"] {
        let before = dev.count("requests");
        assert_eq!(arrives(&proxy, target), target);
        assert_eq!(dev.count("requests"), before, "{target}");
    }
    main.assert_one_token_and_none_unauthorized();
    dev.assert_one_token_and_none_unauthorized();
}

#[test]
fn what_is_denied_is_so_behind_a_prefix_as_well() {
    let (main, dev) = (Simulator::start(), Simulator::start());
    let proxy = two(&main.url(), &dev.url(), "");
    for target in [
        "/dev/rest/auth/v1/clients",
        "/dev/x/../rest/auth/v1/clients",
        "/dev/rest/oauth/v2/token",
    ] {
        proxy.get(target).assert_refused(403, "denied");
    }
    for target in ["/dev//evil.example/x", "/dev//"] {
        proxy.get(target).assert_refused(400, "bad-request");
    }
    let token = "POST /dev/rest/oauth/v2/token HTTP/1.1";
    let kind = "application/x-www-form-urlencoded";
    let answer = http::post(proxy.address, token, kind, b"grant_type=client_credentials");
    assert_eq!(answer.status, 200, "{}", answer.text());
    assert_eq!(dev.count("requests"), 0);
}

#[test]
fn an_absolute_target_leads_to_the_instance_that_it_names() {
    let (main, dev) = (Simulator::start(), Simulator::start());
    let dev_url = dev.url().replace("127.0.0.1", "localhost");
    let proxy = two(&main.url(), &dev_url, "");
    let port = dev.address.port();
    let answer = proxy.ask(&format!(
        "GET http://localhost:{port}/echo HTTP/1.1\nHost: localhost:{port}\n\n"
    ));
    assert_eq!(answer.status, 200, "{}", answer.text());
    assert_eq!((main.count("requests"), dev.count("requests")), (0, 1));
}

#[test]
fn a_redirect_leads_back_behind_the_prefix() {
    let (main, dev) = (Simulator::start(), Simulator::start());
    let proxy = two(&main.url(), &dev.url(), "");
    let own = format!("http://{}", proxy.address);
    for (location, back) in [
        (format!("{}/x", dev.url()), format!("{own}/dev/x")),
        ("/x".to_owned(), "/dev/x".to_owned()),
        (format!("{}/x", main.url()), format!("{}/x", main.url())),
    ] {
        let answer = proxy.get(&format!("/dev/_status/302?location={location}"));
        assert_eq!(answer.header("location"), Some(&*back));
    }
}

#[test]
fn an_app_may_have_a_client_of_its_own() {
    let (main, dev) = (Simulator::start(), Simulator::start());
    let apps = "[app.lineage]\nkey_env = \"LINEAGE_KEY\"\nclient = \"catalog-dev\"\n";
    let proxy = two(&main.url(), &dev.url(), apps);
    let answer = call(&proxy, "GET /echo", &basic("lineage", KEY));
    assert_eq!(answer.status, 200, "{}", answer.text());
    assert_eq!((main.count("requests"), dev.count("requests")), (0, 1));
}

#[test]
fn a_redirect_elsewhere_passes_and_is_not_followed() {
    let elsewhere = Origin::answering("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
    let (simulator, proxy) = crate::support::pair();
    let location = format!("{}/stolen", elsewhere.url());
    let answer = proxy.get(&format!("/_status/302?location={location}"));
    assert_eq!(
        (answer.status, answer.header("location")),
        (302, Some(&*location))
    );
    assert!(elsewhere.requests().is_empty());
    simulator.assert_one_token_and_none_unauthorized();
}
