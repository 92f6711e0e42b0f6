//! The configuration changes: unchanged parts are not interrupted.

use std::net::{SocketAddr, TcpListener, TcpStream};

use super::*;
use crate::support::origin::{After, Gate};
use crate::support::{Origin, PATIENCE};
use crate::support::{http, process};

const PATH: &str = "/rest/2.0/application/info";
const FAILED: &str = "collibra_auth_proxy_config_reload_failed";
const SUCCEEDED: &str = "collibra_auth_proxy_config_reload_success_timestamp_seconds";

impl Files {
    /// Writes another configuration, and waits until the nth reload.
    fn reconfigure(&self, proxy: &Proxy, url: &str, rest: &str, nth: usize) {
        self.configure(url, rest);
        proxy.process.signal("HUP");
        said(proxy, TAKEN_OVER, nth);
    }
}

/// An address at which nothing listens.
fn free() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap()
}

fn is_closed(address: SocketAddr) {
    until("the socket to be closed", || {
        TcpStream::connect(address).is_err().then_some(())
    });
}

/// `GET` with a value of `Host`.
fn host(connection: &mut http::Connection, host: &str) -> u16 {
    let request = format!("GET {PATH} HTTP/1.1\r\nHost: {host}\r\n\r\n");
    connection.send(&request);
    connection.answer(&request).status
}

/// Where people look, and what it says there.
fn places(proxy: &Proxy) -> [(&'static str, String); 3] {
    let admin = proxy.admin.to_string();
    let status = process::run(&mut process::command(["status", "--admin", &admin]));
    [
        ("status", status.out),
        ("/api/status", http::get(proxy.admin, "/api/status").text()),
        (
            "/readyz?verbose",
            http::get(proxy.admin, "/readyz?verbose").text(),
        ),
    ]
}

#[test]
fn a_faulty_one_is_refused_whole() {
    let (simulator, files, proxy) = one();
    let apps = Apps::start(&proxy);
    let began = proxy.metric(SUCCEEDED).unwrap();
    assert_eq!(proxy.metric(FAILED), Some(0.0));
    let faulty = "hosts = [\"other\"]\nmax_connections = 0\nhsts = true";
    files.configure(&simulator.url(), faulty);
    proxy.process.signal("HUP");
    said(&proxy, REFUSED, 1);
    let printed = proxy.process.err.all();
    for fault in ["listener.local.max_connections", "listener.local.hsts"] {
        assert!(printed.contains(fault), "{fault} in\n{printed}");
    }
    proxy.metric_becomes(FAILED, 1.0);
    assert_eq!(proxy.metric(SUCCEEDED), Some(began));
    let seen = places(&proxy);
    for (place, text) in &seen {
        for fault in ["listener.local.max_connections", "listener.local.hsts"] {
            assert!(text.contains(fault), "{fault} not in {place}:\n{text}");
        }
    }
    let since = || {
        let status = http::get(proxy.admin, "/api/status").json();
        status["refused_configuration"]["since"].clone()
    };
    let first = since();
    assert!(first.is_string());
    assert_eq!(http::get(proxy.admin, "/readyz").status, 200);
    // another that is refused is no new beginning, and its faults are the ones that are told
    files.configure(&simulator.url(), "hstss = true");
    proxy.process.signal("HUP");
    said(&proxy, REFUSED, 2);
    until("the other faults", || {
        let all = places(&proxy);
        let mut all = all.iter();
        all.all(|(_, text)| text.contains("listener.local.hstss"))
            .then_some(())
    });
    assert_eq!(since(), first);
    apps.answered(50);

    files.reconfigure(&proxy, &simulator.url(), "max_connections = 100", 1);
    proxy.metric_becomes(FAILED, 0.0);
    for (place, text) in places(&proxy) {
        assert!(!text.contains("listener.local.hsts"), "{place}:\n{text}");
    }
    assert!(since().is_null());
    assert!(proxy.metric(SUCCEEDED).unwrap() > began);
    apps.answered(50);
    apps.lost_nothing();
    simulator.assert_one_token_and_none_unauthorized();
}

#[test]
fn its_own_file_is_watched_too() {
    let (simulator, files, proxy) = one();
    files.configure(&simulator.url(), "max_connections = 100");
    said(&proxy, TAKEN_OVER, 1);
    simulator.assert_one_token_and_none_unauthorized();
}

#[test]
fn the_next_request_of_an_open_connection_meets_the_new_rules() {
    let (simulator, files, proxy) = one();
    let mut kept = proxy.connect();
    assert_eq!(host(&mut kept, "localhost"), 200);
    assert_eq!(host(&mut kept, "proxy.internal"), 421);
    let hosts = "hosts = [\"proxy.internal\"]";
    files.reconfigure(&proxy, &simulator.url(), hosts, 1);
    assert_eq!(host(&mut kept, "proxy.internal"), 200);
    assert_eq!(host(&mut kept, "localhost"), 421);
    assert_eq!(host(&mut proxy.connect(), "proxy.internal"), 200);
    simulator.assert_one_token_and_none_unauthorized();
}

#[test]
fn clients_and_listeners_come_and_go() {
    let (simulator, files, proxy) = one();
    let apps = Apps::start(&proxy);
    let second = free();
    let added = format!(
        "client = \"catalog\"\n[client.second]\nclient_id = \"two\"\nclient_secret = \"second\"\n\
         [listener.second]\naddress = \"{second}\"\nclient = \"second\""
    );
    files.reconfigure(&proxy, &simulator.url(), &added, 1);
    assert_eq!(http::get(second, PATH).status, 200);
    let state = simulator.state();
    assert_eq!(state["clients"]["two"]["issued"], 1, "{state}");
    assert_eq!(state["clients"]["one"]["issued"], 1, "{state}");
    let usable = "collibra_auth_proxy_token_usable{client=\"second\"}";
    assert_eq!(proxy.metric(usable), Some(1.0));
    let names = || {
        let status = http::get(proxy.admin, "/api/status").json();
        let names = |of: &str| -> Vec<String> {
            let all = status[of].as_array().unwrap().iter();
            all.map(|one| one["name"].as_str().unwrap().to_owned())
                .collect()
        };
        (names("clients").join(" "), names("listeners").join(" "))
    };
    assert_eq!(names(), ("catalog second".into(), "local second".into()));

    files.reconfigure(&proxy, &simulator.url(), "", 2);
    is_closed(second);
    assert_eq!(proxy.metric(usable), None);
    assert_eq!(names(), ("catalog".into(), "local".into()));
    apps.answered(50);
    apps.lost_nothing();
    assert_eq!(simulator.count("unauthorized"), 0);
    assert_eq!(simulator.count("token_requests"), 2);
}

#[test]
fn a_client_that_is_gone_takes_no_more_tokens() {
    let simulator = Simulator::with(&[
        "--client",
        "one:first",
        "--client",
        "two:second",
        "--lifetime",
        "2s",
        "--refill",
        "400ms",
    ]);
    let files = Files::new();
    files.write("id", "one\n").write("secret", "first\n");
    let pool = "refill = \"400ms\"\n";
    let first = format!("client = \"catalog\"\n[client.catalog.pool]\n{pool}");
    let second = "[client.second]\nclient_id = \"two\"\nclient_secret = \"second\"";
    let second = format!("{first}{second}\n[client.second.pool]\n{pool}");
    let proxy = files.configure(&simulator.url(), &second).serve();
    let issued = |client: &str| {
        let state = simulator.state();
        state["clients"][client]["issued"].as_u64().unwrap()
    };
    until("renewals", || (issued("two") >= 3).then_some(()));
    files.reconfigure(&proxy, &simulator.url(), &first, 1);
    let (one, two) = (issued("one"), issued("two"));
    until("renewals of the other", || {
        (issued("one") >= one + 3).then_some(())
    });
    // a request may have been in flight
    assert!(issued("two") <= two + 1);
}

#[test]
fn a_request_under_way_ends_as_it_began() {
    let gate = Gate::default();
    let held = gate.clone();
    let origin = Origin::start(move |_, stream| {
        stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nfirst")?;
        stream.flush()?;
        held.pass();
        stream.write_all(b"-last")?;
        Ok(After::Keep)
    });
    let other = simulator();
    let files = Files::new();
    files.write("id", "one").write("secret", "first");
    let proxy = files.configure(&origin.url(), "").serve();
    let mut slow = proxy.connect();
    let request = proxy.bytes("GET /x HTTP/1.1\nHost: {host}\n\n");
    slow.send(&request);
    until("the request at the origin", || {
        (origin.requests().len() == 1).then_some(())
    });
    // its instance, its client's token and its listener are gone
    let elsewhere = free();
    files.configure(&other.url(), "");
    let text = std::fs::read_to_string(files.path("proxy.toml")).unwrap();
    let (start, listener) = text.split_once("[listener").unwrap();
    let listener = listener.replace("127.0.0.1:0", &elsewhere.to_string());
    files.write("proxy.toml", &format!("{start}[listener{listener}"));
    proxy.process.signal("HUP");
    said(&proxy, TAKEN_OVER, 1);
    is_closed(proxy.address);
    assert_eq!(http::get(elsewhere, PATH).status, 200);
    assert!(!slow.is_silent_for(Duration::from_millis(1)));
    std::thread::sleep(Duration::from_secs(2));
    gate.open();
    let answer = slow.answer("GET");
    assert_eq!((answer.status, answer.text().as_str()), (200, "first-last"));
    slow.is_closed();
    // a token is never sent to another instance
    assert_eq!(other.count("unauthorized"), 0);
    assert_eq!(origin.requests().len(), 1);
}

#[test]
fn an_address_that_cannot_be_had_is_refused_with_all_else() {
    let (simulator, files, proxy) = one();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap();
    let rest = format!("hosts = [\"other\"]\n[listener.second]\naddress = \"{address}\"");
    files.configure(&simulator.url(), &rest);
    proxy.process.signal("HUP");
    proxy.process.err.wait_for("the fault", |line| {
        let named = line.contains("listener.second.address") && line.contains(REFUSED);
        named.then_some(())
    });
    proxy.metric_becomes(FAILED, 1.0);
    assert_eq!(proxy.get(PATH).status, 200, "the hosts are the old ones");
    drop(taken);
    files.reconfigure(&proxy, &simulator.url(), &rest, 1);
}

#[test]
fn listeners_may_exchange_their_addresses() {
    let (simulator, files, proxy) = one();
    let (first, second) = (free(), free());
    let both = |a: SocketAddr, b: SocketAddr| {
        format!(
            "[listener.a]\naddress = \"{a}\"\nhosts = [\"a\"]\n\
             [listener.b]\naddress = \"{b}\"\nhosts = [\"b\"]"
        )
    };
    files.reconfigure(&proxy, &simulator.url(), &both(first, second), 1);
    assert_eq!(host(&mut Connection::open(first), "a"), 200);
    files.reconfigure(&proxy, &simulator.url(), &both(second, first), 2);
    assert_eq!(host(&mut Connection::open(first), "b"), 200);
    assert_eq!(host(&mut Connection::open(second), "a"), 200);
}

#[test]
fn more_connections_can_be_let_in() {
    let (simulator, files, proxy) = one();
    files.reconfigure(&proxy, &simulator.url(), "max_connections = 1", 1);
    // with a request in flight: an idle connection would be closed
    let mut first = proxy.connect();
    let post = format!("POST {PATH} HTTP/1.1\nHost: {{host}}\nContent-Length: 1\n\n");
    first.send(proxy.bytes(&post));
    let mut second = proxy.connect();
    second.send(proxy.bytes(&format!("GET {PATH} HTTP/1.1\nHost: {{host}}\n\n")));
    assert!(second.is_silent_for(Duration::from_millis(300)));
    files.reconfigure(&proxy, &simulator.url(), "max_connections = 2", 2);
    assert_eq!(second.answer("GET").status, 200);
    first.send("1");
    assert_eq!(first.answer(&post).status, 200);
}

#[test]
fn what_needs_a_restart_is_named_and_the_rest_is_applied() {
    let (simulator, files, proxy) = one();
    let rest = "hosts = [\"other\"]\n[server]\nthreads = 3";
    files.configure(&simulator.url(), rest);
    let text = std::fs::read_to_string(files.path("proxy.toml")).unwrap();
    let admin = format!("[admin]\naddress = \"{}\"", free());
    let text = text.replace("[admin]\naddress = \"127.0.0.1:0\"", &admin);
    files.write("proxy.toml", &text);
    proxy.process.signal("HUP");
    for key in ["server.threads", "admin.address"] {
        proxy.process.err.wait_for(key, |line| {
            let line = message(line, "this change takes effect at the next start")?;
            (line["key"] == key).then_some(())
        });
    }
    assert_eq!(host(&mut proxy.connect(), "other"), 200);
    assert_eq!(times_said(&proxy, REFUSED), 0);
}

#[test]
fn a_drain_ends_what_reloads_have_left() {
    let (simulator, files, mut proxy) = one();
    let mut kept = proxy.connect();
    assert_eq!(kept.get(proxy.address, PATH).status, 200);
    let rest = "[server]\ndrain = \"10m\"";
    files.reconfigure(&proxy, &simulator.url(), rest, 1);
    proxy.process.signal("TERM");
    assert_eq!(proxy.process.ended_within(PATIENCE), 0);
    kept.is_closed();
}
