//! A loop is refused: an instance that leads back to the proxy is found before it is served, and a
//! request that comes back is answered 508. Proxies may stand in a chain.

use std::net::{SocketAddr, TcpListener};

use serde_json::Value;

use crate::support::process::{command, run};
use crate::support::relay::Relay;
use crate::support::{Proxy, Simulator, file, http, until};

/// A loopback address at which nothing listens.
fn free() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap()
}

/// A configuration with the instance `url`, the client `id`, and a listener at `address`.
fn text(url: &str, id: &str, address: SocketAddr) -> String {
    format!(
        r#"
[instance.acme]
url = "{url}"
[client.catalog]
client_id = "{id}"
client_secret = "s3cret-{id}"
[listener.local]
address = "{address}"
[admin]
address = "127.0.0.1:0"
"#
    )
}

fn status(proxy: &Proxy) -> Value {
    http::get(proxy.admin, "/api/status").json()
}

#[test]
fn an_instance_that_is_a_listener_is_refused() {
    let own = free();
    for host in ["127.0.0.1", "localhost", "[::ffff:127.0.0.1]"] {
        let text = text(&format!("http://{host}:{}", own.port()), "a", own);
        let (_folder, path) = file("proxy.toml", text.as_bytes());
        for name in ["check", "serve"] {
            let ended = run(command([name, "--config"]).arg(&path));
            let said = ended.out + &ended.err;
            assert_eq!(ended.status, 78, "{name} {host}: {said}");
            assert!(said.contains("[listener.local] listens there"), "{said}");
        }
    }
    // as an exported variable has it
    let url = format!("http://{own}");
    let mut serve = command(["serve", "--client-id", "a", "--listen", &own.to_string()]);
    serve
        .env("COLLIBRA_URL", url)
        .env("COLLIBRA_CLIENT_SECRET", "s");
    let ended = run(&mut serve);
    assert_eq!(ended.status, 78, "{}", ended.err);
    assert!(ended.err.contains("COLLIBRA_URL") || ended.err.contains("--upstream"));
}

/// The way back is not to be seen in the configuration.
#[test]
fn a_proxy_whose_instance_is_itself_is_not_ready_and_answers_508() {
    let own = free();
    let relay = Relay::to(own.port());
    let url = format!("http://127.0.0.1:{}", relay.port);
    let proxy = Proxy::by_text(&text(&url, "a", own)).start();
    let failure = until("the first failure", || {
        let failure = status(&proxy)["clients"][0]["failure"].clone();
        (!failure.is_null()).then_some(failure)
    });
    assert_eq!(failure["outcome"], "loop");
    let message = failure["message"].as_str().unwrap();
    assert!(message.contains("lead back to the proxy"), "{message}");
    assert_eq!(http::get(proxy.admin, "/readyz").status, 503);
    let answer = proxy.get("/rest/2.0/assets");
    answer.assert_refused(508, "loop");
    let help = answer.json()["helpMessage"].as_str().unwrap().to_owned();
    assert!(help.contains("COLLIBRA_URL"), "{help}");
    // nothing goes round
    let counted = "collibra_auth_proxy_refused_total{listener=\"local\",reason=\"loop\"}";
    assert!(proxy.metric(counted).unwrap() <= 4.0);
    let failed = "collibra_auth_proxy_token_requests_total{client=\"catalog\",outcome=\"loop\"}";
    assert!(proxy.metric(failed).unwrap() >= 1.0);
}

/// Without its mark, as where something in between drops what it does not know.
#[test]
fn a_local_token_is_never_taken_for_one_of_collibras() {
    let simulator = Simulator::start();
    let replica = Proxy::by_text(&text(&simulator.url(), "a", "127.0.0.1:0".parse().unwrap()));
    let replica = replica.start();
    // another process of the fleet, whose instance is the fleet itself
    let url = format!("http://{}", replica.address);
    let proxy = Proxy::by_text(&text(&url, "a", "127.0.0.1:0".parse().unwrap())).start();
    let failure = until("the first failure", || {
        let failure = status(&proxy)["clients"][0]["failure"].clone();
        (!failure.is_null()).then_some(failure)
    });
    assert_eq!(failure["outcome"], "loop");
    let message = failure["message"].as_str().unwrap();
    assert!(message.contains("a local token of this proxy"), "{message}");
    proxy.get("/rest/2.0/assets").assert_refused(508, "loop");
}

#[test]
fn a_request_that_comes_back_by_way_of_a_second_proxy_is_answered_508() {
    let first = free();
    let back = Relay::to(first.port());
    let url = format!("http://127.0.0.1:{}", back.port);
    let second = Proxy::by_text(&text(&url, "b", "127.0.0.1:0".parse().unwrap())).start();
    let url = format!("http://{}", second.address);
    let proxy = Proxy::by_text(&text(&url, "a", first)).start();
    proxy.has_token();
    second.has_token();
    let answer = proxy.get("/rest/2.0/assets");
    answer.assert_refused(508, "loop");
    let counted = "collibra_auth_proxy_refused_total{listener=\"local\",reason=\"loop\"}";
    assert_eq!(proxy.metric(counted), Some(1.0));
    assert_eq!(second.metric(counted), Some(0.0));
}

#[test]
fn proxies_may_stand_in_a_chain() {
    let simulator = Simulator::start();
    let second = Proxy::to(&simulator.url()).start();
    second.has_token();
    let url = format!("http://{}", second.address);
    let first = Proxy::by_text(&text(&url, "a", "127.0.0.1:0".parse().unwrap())).start();
    first.has_token();
    let answer = first.get("/echo");
    assert_eq!(answer.status, 200, "{}", answer.text());
    let marks = answer.json()["headers"]["x-collibra-auth-proxy-via"][0].clone();
    let marks: Vec<&str> = marks.as_str().unwrap().split(", ").collect();
    assert_eq!(marks.len(), 2, "{marks:?}");
    assert_ne!(marks[0], marks[1]);
    simulator.assert_one_token_and_none_unauthorized();
}
