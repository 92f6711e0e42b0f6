//! The addresses of an instance, configured or from DNS: one may be silent, refuse or vanish
//! without a failed call. An outage of all of them is visible everywhere.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use serde_json::Value;

use crate::support::certificate::Authority;
use crate::support::network::{Blackhole, NameServer, Records, is_root};
use crate::support::origin::{After, Rules};
use crate::support::process::{command, run};
use crate::support::wait::now;
use crate::support::{Origin, Proxy, Simulator, file, http, until};

/// An origin that closes each connection after its answer, so that each call needs another.
fn closing() -> Origin {
    Origin::start(|_, stream| {
        stream.write_all(b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok")?;
        Ok(After::Close)
    })
}

fn listed(addresses: &[SocketAddr]) -> String {
    let quoted: Vec<String> = addresses.iter().map(|a| format!("\"{a}\"")).collect();
    format!("address = [{}]", quoted.join(", "))
}

/// Calls the proxy `n` times at once: the statuses.
fn burst(proxy: &Proxy, n: usize) -> Vec<u16> {
    std::thread::scope(|scope| {
        let calls: Vec<_> = (0..n)
            .map(|_| scope.spawn(|| proxy.get("/x").status))
            .collect();
        calls.into_iter().map(|call| call.join().unwrap()).collect()
    })
}

/// What `check --live` says of a configuration, and its exit status.
fn checked(instance: &str, wrap: Option<&NameServer>) -> (i32, String) {
    let text = format!(
        "[instance.acme]\n{instance}\n\
         [client.catalog]\nclient_id = \"id\"\nclient_secret = \"s3cret\"\n"
    );
    let (_folder, path) = file("proxy.toml", text.as_bytes());
    let mut check = command(["check", "--live", "--config"]);
    check.arg(path);
    let ended = match wrap {
        Some(server) => run(&mut server.before(&check)),
        None => run(&mut check),
    };
    (ended.status, ended.out + &ended.err)
}

#[test]
fn an_address_is_connected_to_in_place_of_what_dns_says() {
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
    let ca = format!("ca_file = {:?}", authority.ca_file());
    let address = format!("address = \"{}\"", origin.address);
    // no look-up finds the name, and the environment's proxy leads nowhere
    let proxy = Proxy::configured("https://acme.test", &format!("{ca}\n{address}"), "")
        .variable("HTTPS_PROXY", "http://127.0.0.1:1")
        .start();
    let answer = proxy.get("/x");
    assert_eq!(answer.status, 200, "{}", answer.text());
    for request in [origin.requests(), origin.token_requests()].concat() {
        assert_eq!(request.header("host"), Some("acme.test"));
    }
    let (status, said) = checked(
        &format!("url = \"https://acme.test\"\n{ca}\n{address}"),
        None,
    );
    assert_eq!(status, 0, "{said}");
    let connected = format!("connect: {} in ", origin.address);
    assert!(
        said.contains(&connected) && said.contains("tls: TLS 1.3 in "),
        "{said}"
    );
    assert!(said.contains("token: one came"), "{said}");

    // the certificate has to be the name's
    let keys = format!("url = \"https://other.test\"\n{ca}\n{address}");
    let (status, said) = checked(&keys, None);
    assert_eq!(status, 1, "{said}");
    assert!(
        said.contains("the certificate of other.test is not accepted"),
        "{said}"
    );
}

#[test]
fn a_blackholed_address_fails_no_call_of_a_cold_burst() {
    let (hole, origin) = (Blackhole::new(), closing());
    let keys = listed(&[hole.address, origin.address]);
    let proxy = Proxy::configured("http://localhost:9", &keys, "").start();
    proxy.has_token();
    let began = now();
    let statuses = burst(&proxy, 40);
    assert!(statuses.iter().all(|status| *status == 200), "{statuses:?}");
    assert!(
        began.elapsed() < Duration::from_secs(5),
        "no time-out was met"
    );
    let (status, said) = checked(&format!("url = \"http://localhost:9\"\n{keys}"), None);
    assert_eq!(status, 0, "{said}");
    assert!(
        said.contains(&format!("connect: {} in ", origin.address)),
        "{said}"
    );
    assert_eq!(upstream_errors(&proxy), 0.0);
}

#[test]
fn an_address_that_goes_away_fails_no_call() {
    let (first, second) = (closing(), closing());
    let keys = listed(&[first.address, second.address]);
    let proxy = Proxy::configured("http://localhost:9", &keys, "").start();
    proxy.has_token();
    for _ in 0..20 {
        assert_eq!(proxy.get("/x").status, 200);
    }
    assert_eq!(second.requests().len(), 0);
    drop(first);
    for _ in 0..10 {
        let statuses = burst(&proxy, 10);
        assert!(statuses.iter().all(|status| *status == 200), "{statuses:?}");
    }
    assert_eq!(second.requests().len(), 100);
    let told = "an address fails and is tried after the others";
    assert_eq!(
        proxy.process.err.all().matches(told).count(),
        1,
        "it is said once"
    );
    assert_eq!(upstream_errors(&proxy), 0.0);
}

/// All errors that were counted.
fn upstream_errors(proxy: &Proxy) -> f64 {
    let kinds = ["dns", "connect", "tls", "reset", "timeout", "protocol"];
    let count = |kind| {
        let series = format!(
            "collibra_auth_proxy_upstream_errors_total{{client=\"catalog\",kind=\"{kind}\"}}"
        );
        proxy.metric(&series).unwrap()
    };
    kinds.map(count).iter().sum()
}

#[test]
fn a_dropped_aaaa_query_is_not_noticed() {
    if !is_root() {
        println!("left out: a name server of its own takes root");
        return;
    }
    let origin = closing();
    let server = NameServer::start("127.53.0.1", |records, _| match records {
        Records::A => Some(vec![Ipv4Addr::LOCALHOST.into()]),
        Records::Aaaa => None,
    });
    let url = format!("http://collibra.test:{}", origin.address.port());
    let wrapper = server.wrapper();
    let wrapper: Vec<&str> = wrapper.iter().map(String::as_str).collect();
    let began = now();
    let proxy = Proxy::configured(&url, "allow_insecure = true\nconnect_timeout = \"9s\"", "")
        .by(&wrapper)
        .start();
    let answer = proxy.get("/x");
    let took = began.elapsed();
    assert_eq!(answer.status, 200, "{}", answer.text());
    assert!(
        took < Duration::from_secs(3),
        "one retry of a query takes 3 s: {took:?}"
    );

    let (status, said) = checked(
        &format!("url = \"{url}\"\nallow_insecure = true"),
        Some(&server),
    );
    assert_eq!(status, 0, "{said}");
    assert!(
        said.contains("resolve: collibra.test is 127.0.0.1"),
        "{said}"
    );
}

#[test]
fn rotating_answers_of_which_one_is_dead_fail_no_call() {
    if !is_root() {
        println!("left out: a name server of its own takes root");
        return;
    }
    let origin = closing();
    let server = NameServer::start("127.53.0.2", |records, nth| {
        let alive = IpAddr::from(Ipv4Addr::LOCALHOST);
        // nothing listens at that address
        let dead = IpAddr::from([127, 53, 9, 9]);
        match records {
            // a look-up has two queries
            Records::A => Some(vec![if nth / 2 % 2 == 0 { alive } else { dead }]),
            Records::Aaaa => Some(Vec::new()),
        }
    });
    let url = format!("http://collibra.test:{}", origin.address.port());
    let wrapper = server.wrapper();
    let wrapper: Vec<&str> = wrapper.iter().map(String::as_str).collect();
    let proxy = Proxy::configured(&url, "allow_insecure = true", "")
        .by(&wrapper)
        .start();
    proxy.has_token();
    let mut calls = 0;
    while server.queries() < 12 {
        let answer = proxy.get("/x");
        assert_eq!(answer.status, 200, "call {calls}: {}", answer.text());
        calls += 1;
    }
    assert_eq!(origin.requests().len(), calls);
    assert_eq!(upstream_errors(&proxy), 0.0);
}

#[test]
fn a_name_server_that_is_silent_is_told() {
    if !is_root() {
        println!("left out: a name server of its own takes root");
        return;
    }
    let server = NameServer::start("127.53.0.3", |_, _| None);
    let keys = "url = \"https://collibra.test\"\nconnect_timeout = \"1s\"";
    let (status, said) = checked(keys, Some(&server));
    assert_eq!(status, 1, "{said}");
    assert!(
        said.contains("resolve: FAILED: cannot find the address of collibra.test (no answer from DNS within 1s); check the instance's url and this machine's DNS"),
        "{said}"
    );
}

#[test]
fn an_outage_of_the_api_is_seen_by_everybody() {
    // a fixed address, so that no other test takes the port meanwhile
    let simulator = Simulator::at("127.9.8.6:0", &[]);
    let address = simulator.address.to_string();
    let pool = "pool = { capacity = 5, refill = \"1s\" }";
    let text = format!(
        "[instance.acme]\nurl = \"{}\"\n\
         [client.catalog]\nclient_id = \"{}\"\nclient_secret = \"{}\"\n{pool}\n\
         [listener.local]\naddress = \"127.0.0.1:0\"\n[admin]\naddress = \"127.0.0.1:0\"\n\
         [log]\naccess = false\n",
        simulator.url(),
        crate::support::simulator::CLIENT_ID,
        crate::support::simulator::CLIENT_SECRET,
    );
    let proxy = Proxy::by_text(&text).start();
    proxy.has_token();
    assert_eq!(proxy.get("/x").status, 200);
    let api = || http::get(proxy.admin, "/api/status").json()["clients"][0]["api"].clone();
    let before = until("the first call is counted", || {
        let api = api();
        (api["answered"] == 1).then_some(api)
    });
    assert_eq!(before["failing_since"], Value::Null);

    simulator.kill();
    let why = format!(
        "{address} refused the connection; nothing listens there, or a firewall refuses: check the instance's url"
    );
    for _ in 0..20 {
        let answer = proxy.get("/x");
        answer.assert_refused(502, "upstream");
        assert_eq!(answer.json()["userMessage"], format!("{why}."));
    }
    let series = "collibra_auth_proxy_upstream_errors_total{client=\"catalog\",kind=\"connect\"}";
    assert_eq!(proxy.metric(series), Some(20.0));
    let series = |outcome| {
        format!(
            "collibra_auth_proxy_upstream_connections_total{{client=\"catalog\",outcome=\"{outcome}\"}}"
        )
    };
    assert_eq!(proxy.metric(&series("failed")), Some(20.0));
    let made = proxy.metric(&series("made")).unwrap() + proxy.metric(&series("reused")).unwrap();
    assert_eq!(made, 1.0);
    let during = api();
    assert_eq!(
        (&during["answered"], &during["failed"]),
        (&1.into(), &20.into())
    );
    assert!(during["failing_since"].is_string(), "{during}");
    assert_eq!(during["last_failure"]["kind"], "connect");
    assert_eq!(during["last_failure"]["message"], why);
    let verbose = http::get(proxy.admin, "/readyz?verbose");
    assert_eq!(verbose.status, 200, "readiness is about the token");
    assert!(
        verbose.text().contains("95.2 % of the last 5 minutes"),
        "{}",
        verbose.text()
    );
    let admin = format!("http://{}", proxy.admin);
    let table = run(&mut command(["status", "--admin", &admin])).out;
    assert!(
        table.contains("95.2 % failed in 5 minutes") && table.contains(&why),
        "{table}"
    );
    let logged = proxy.process.err.all();
    assert_eq!(
        logged.matches("calls of the API fail: ").count(),
        1,
        "{logged}"
    );
    assert!(!logged.contains("ConnectRefused"), "{logged}");

    // it knows none of the earlier tokens
    let _simulator = Simulator::at(&address, &[]);
    until("the first success", || {
        (proxy.get("/x").status == 200).then_some(())
    });
    let over = proxy.process.err.wait_for("the end of the outage", |line| {
        let told = line.contains("the API answers again").then_some(line)?;
        serde_json::from_str::<Value>(told).ok()
    });
    assert_eq!(over["instance"], "acme");
    assert!(over["failed"].as_u64().unwrap() >= 20, "{over}");
    assert_eq!(api()["failing_since"], Value::Null);
}
