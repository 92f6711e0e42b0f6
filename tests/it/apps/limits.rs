//! An app's limits, and that no other app is affected.

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::thread;

use super::*;
use crate::support::Connection;

#[test]
fn an_app_beyond_its_rate_is_told_when_to_come_again() {
    let simulator = Simulator::start();
    let text = "[app.slow]\nkey_env = \"SLOW_KEY\"\nrequests_per_second = 0.05\n";
    let proxy = Proxy::configured(&simulator.url(), "", text)
        .variable("SLOW_KEY", KEY)
        .start();
    proxy.has_token();
    let shown = basic("slow", KEY);
    assert_eq!(call(&proxy, "GET /rest/2.0/assets", &shown).status, 200);
    let answer = call(&proxy, "GET /rest/2.0/assets", &shown);
    answer.assert_refused(429, "app-limit");
    let wait: u64 = answer.header("retry-after").unwrap().parse().unwrap();
    assert!((15..=20).contains(&wait), "{wait}");
}

#[test]
fn an_app_has_so_many_requests_under_way_and_no_more() {
    let text = "[app.many]\nkey_env = \"MANY_KEY\"\nmax_in_flight = 3\n";
    let simulator = Simulator::start();
    let proxy = Proxy::configured(&simulator.url(), "", text)
        .variable("MANY_KEY", KEY)
        .start();
    proxy.has_token();
    let shown = basic("many", KEY);
    let request = proxy.bytes(&format!(
        "POST /echo HTTP/1.1\nHost: {{host}}\n{shown}Content-Length: 1\n\n"
    ));
    let mut under_way: Vec<Connection> = (0..3)
        .map(|_| {
            let mut connection = proxy.connect();
            connection.send(&request);
            connection
        })
        .collect();
    proxy.metric_becomes(
        "collibra_auth_proxy_requests_in_flight{client=\"catalog\"}",
        3.0,
    );
    let answer = call(&proxy, "GET /rest/2.0/assets", &shown);
    answer.assert_refused(429, "app-limit");
    assert_eq!(answer.header("retry-after"), Some("1"));
    let mut first = under_way.remove(0);
    first.send(b"x");
    assert_eq!(first.answer("POST").status, 200);
    assert_eq!(call(&proxy, "GET /rest/2.0/assets", &shown).status, 200);
}

#[test]
fn one_call_after_the_other_never_meets_a_limit_of_one() {
    let text = "[app.single]\nkey_env = \"SINGLE_KEY\"\nmax_in_flight = 1\n";
    let simulator = Simulator::start();
    let proxy = Proxy::configured(&simulator.url(), "", text)
        .variable("SINGLE_KEY", KEY)
        .start();
    proxy.has_token();
    let shown = basic("single", KEY);
    // on one connection the proxy would finish a call before it reads the next
    let mut connections = [proxy.connect(), proxy.connect()];
    for nth in 0..400 {
        let (line, status) = match nth % 3 {
            0 => ("GET /rest/2.0/application/info", 200),
            1 => ("HEAD /rest/2.0/application/info", 200),
            _ => ("DELETE /rest/auth/v1/clients/x", 403),
        };
        let request = format!("{line} HTTP/1.1\nHost: {{host}}\n{shown}\n");
        let connection = &mut connections[nth % 2];
        connection.send(proxy.bytes(&request));
        assert_eq!(connection.answer(line).status, status, "call {nth}: {line}");
    }
}

#[test]
fn an_app_that_asks_for_too_much_takes_nothing_from_another() {
    let simulator = Simulator::start();
    let text = format!(
        "{APPS}[app.greedy]\nkey_env = \"GREEDY_KEY\"\nrequests_per_second = 20\nmax_in_flight = 2\n"
    );
    let proxy = Proxy::configured(&simulator.url(), "", &text)
        .variable("LINEAGE_KEY", KEY)
        .variable("READER_KEY", READER_KEY)
        .variable("GREEDY_KEY", "greedy-key-0123456789")
        .start();
    proxy.has_token();
    let over = AtomicBool::new(false);
    let refused = AtomicU32::new(0);
    thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                let shown = basic("greedy", "greedy-key-0123456789");
                let request = format!("GET /rest/2.0/assets HTTP/1.1\nHost: {{host}}\n{shown}\n");
                let mut connection = proxy.connect();
                while !over.load(Ordering::Relaxed) {
                    connection.send(proxy.bytes(&request));
                    let status = connection.answer(&request).status;
                    assert!(matches!(status, 200 | 429), "{status}");
                    refused.fetch_add(u32::from(status == 429), Ordering::Relaxed);
                }
            });
        }
        crate::support::until("the greedy app meets its limit", || {
            (refused.load(Ordering::Relaxed) > 50).then_some(())
        });
        for _ in 0..100 {
            let answer = call(&proxy, "GET /rest/2.0/assets", &basic("reader", READER_KEY));
            assert_eq!(answer.status, 200);
        }
        over.store(true, Ordering::Relaxed);
    });
}
