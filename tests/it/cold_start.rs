//! A cold start requests one token, however many apps wait for it. If there is none, each app is
//! told so in time, and nothing is sent to the API.

use std::time::Duration;

use crate::support::origin::{After, Gate, Rules};
use crate::support::wait::now;
use crate::support::{Connection, Origin, Proxy, Simulator};

/// Opens 500 connections and sends a request on each.
fn five_hundred(proxy: &Proxy) -> Vec<Connection> {
    let request = proxy.bytes("GET /rest/2.0/application/info HTTP/1.1\nHost: {host}\n\n");
    let connections = (0..500).map(|_| {
        let mut connection = proxy.connect();
        connection.send(&request);
        connection
    });
    connections.collect()
}

fn assert_all_answered(connections: Vec<Connection>) {
    for mut connection in connections {
        let answer = connection.answer("GET");
        assert_eq!(answer.status, 200, "{}", answer.text());
    }
}

#[test]
fn a_slow_token_endpoint_is_asked_once_for_500_requests() {
    let simulator = Simulator::start();
    simulator.fault("token", "slow:300");
    let proxy = Proxy::to(&simulator.url()).start();
    assert_all_answered(five_hundred(&proxy));
    assert_eq!(simulator.count("requests"), 500);
    simulator.assert_one_token_and_none_unauthorized();
}

#[test]
fn five_hundred_requests_wait_for_one_token_together() {
    let gate = Gate::default();
    let rules = Rules {
        token_gate: Some(gate.clone()),
        ..Rules::default()
    };
    let origin = Origin::with(rules, |_, stream| {
        stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")?;
        Ok(After::Keep)
    });
    let proxy = Proxy::to(&origin.url())
        .flag("--wait-for-token", "10m")
        .flag("--token-timeout", "10m")
        .start();
    let waiting = five_hundred(&proxy);
    proxy.metric_becomes(
        r#"collibra_auth_proxy_requests_in_flight{client="default"}"#,
        500.0,
    );
    assert_eq!(
        origin.requests().len(),
        0,
        "without a token nothing goes on"
    );
    gate.open();
    assert_all_answered(waiting);
    assert_eq!(origin.token_requests().len(), 1);
    assert_eq!(origin.requests().len(), 500);
}

#[test]
fn a_token_endpoint_that_hangs_is_told_and_nothing_reaches_the_api() {
    let simulator = Simulator::start();
    simulator.fault("token", "hang");
    let proxy = Proxy::to(&simulator.url())
        .flag("--wait-for-token", "500ms")
        .start();
    let connections = (0..20).map(|_| {
        let mut connection = proxy.connect();
        connection
            .send(proxy.bytes("POST /graphql HTTP/1.1\nHost: {host}\nContent-Length: 2\n\n{}"));
        connection
    });
    let connections: Vec<Connection> = connections.collect();
    for mut connection in connections {
        let answer = connection.answer("POST");
        answer.assert_refused(503, "no-token");
        let seconds: u32 = answer.header("retry-after").unwrap().parse().unwrap();
        assert!((1..=10).contains(&seconds), "{seconds}");
    }
    assert_eq!(simulator.count("requests"), 0);
}

#[test]
fn a_wrong_secret_is_told_at_once_and_by_name() {
    let simulator = Simulator::start();
    let proxy = Proxy::to(&simulator.url())
        .variable("COLLIBRA_CLIENT_SECRET", "canary-wrong/secret")
        .flag("--wait-for-token", "30s")
        .start();
    let start = now();
    let answer = proxy.get("/rest/2.0/application/info");
    assert!(start.elapsed() < Duration::from_secs(25), "it waited");
    answer.assert_refused(503, "no-token");
    let text = answer.text();
    assert!(text.contains("does not accept the client's id"), "{text}");
    let seconds: u32 = answer.header("retry-after").unwrap().parse().unwrap();
    assert!((1..=60).contains(&seconds), "{seconds}");
    let all = format!("{answer:?}{text}{}", proxy.process.err.all());
    assert!(!all.contains("canary"), "{all}");
    assert_eq!(simulator.count("requests"), 0);
}

#[test]
fn an_empty_pool_is_told_with_the_time_to_come_again() {
    let simulator = Simulator::with(&["--pool", "1", "--retry-after"]);
    // another program empties the pool
    let first = Proxy::to(&simulator.url()).start();
    first.has_token();
    let proxy = Proxy::to(&simulator.url()).start();
    let answer = proxy.get("/rest/2.0/application/info");
    answer.assert_refused(503, "no-token");
    assert!(answer.text().contains("429"), "{}", answer.text());
    let seconds: u32 = answer.header("retry-after").unwrap().parse().unwrap();
    assert!((30..=70).contains(&seconds), "{seconds}");
    assert_eq!(simulator.of_client("rate_limited"), 1);
    assert_eq!(simulator.count("requests"), 0);
}

#[test]
fn requests_that_wait_are_served_by_a_later_attempt() {
    let simulator = Simulator::start();
    simulator.fault("token", "status:500");
    let proxy = Proxy::to(&simulator.url())
        .flag("--wait-for-token", "10m")
        .start();
    let request = "GET /rest/2.0/application/info HTTP/1.1\nHost: {host}\n\n";
    let mut waiting = proxy.connect();
    waiting.send(proxy.bytes(request));
    proxy.process.err.wait_for("a failure", |line| {
        line.contains("token request failed").then_some(())
    });
    simulator.fault("token", "none");
    assert_eq!(waiting.answer(request).status, 200);
}
