//! The connection to the instance: a name with several addresses, connections closed by the
//! instance, and an instance that comes back.

use crate::support::origin::After;
use crate::support::{Origin, Proxy, Simulator, until};

#[test]
fn a_name_of_which_one_address_does_not_answer_works() {
    // localhost may also be ::1, where nothing listens
    let simulator = Simulator::start();
    let url = format!("http://localhost:{}", simulator.address.port());
    let proxy = Proxy::to(&url).start();
    for _ in 0..20 {
        let answer = proxy.get("/echo");
        assert_eq!(answer.status, 200, "{}", answer.text());
        let host = format!("localhost:{}", simulator.address.port());
        assert_eq!(answer.json()["headers"]["host"], serde_json::json!([host]));
    }
}

#[test]
fn a_name_that_does_not_exist_is_told() {
    let proxy = Proxy::to("https://no-such-host.invalid")
        .flag("--wait-for-token", "0s")
        .start();
    let failure = |said: &str| {
        said.contains("token request failed")
            .then(|| said.to_owned())
    };
    let logged = proxy.process.err.wait_for("a failure", failure);
    assert!(logged.contains("no-such-host.invalid"), "{logged}");
    proxy.get("/x").assert_refused(503, "no-token");
}

#[test]
fn a_kept_connection_that_the_instance_ended_loses_no_request() {
    let origin = Origin::start(|_, stream| {
        stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")?;
        Ok(After::Close)
    });
    let proxy = Proxy::to(&origin.url()).start();
    let mut connection = proxy.connect();
    for n in 0..100 {
        let answer = connection.get(proxy.address, &format!("/x?n={n}"));
        assert_eq!(answer.status, 200, "{n}: {}", answer.text());
    }
    assert_eq!(origin.requests().len(), 100, "and none is sent twice");
}

#[test]
fn a_post_is_never_sent_twice() {
    // the origin receives the request and closes, on a kept connection
    let origin = Origin::start(|request, stream| {
        if request.method() == "POST" {
            return Ok(After::Close);
        }
        stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")?;
        Ok(After::Keep)
    });
    let proxy = Proxy::to(&origin.url()).start();
    for _ in 0..5 {
        assert_eq!(proxy.get("/warm").status, 200);
        let answer = proxy.ask("POST /x HTTP/1.1\nHost: {host}\nContent-Length: 2\n\n{}");
        answer.assert_refused(502, "upstream");
    }
    let requests = origin.requests();
    let posts = requests.iter().filter(|r| r.method() == "POST").count();
    assert_eq!(posts, 5);
}

#[test]
fn an_instance_that_was_restarted_is_served_again() {
    // a fixed address, so that no other test takes the port meanwhile
    let simulator = Simulator::at("127.9.8.7:0", &[]);
    let address = simulator.address.to_string();
    let proxy = Proxy::to(&simulator.url())
        .flag("--pool-refill", "1s")
        .start();
    assert_eq!(proxy.get("/x").status, 200);
    simulator.kill();
    proxy.get("/x").assert_refused(502, "upstream");
    // it knows none of the earlier tokens
    let _simulator = Simulator::at(&address, &[]);
    until("the first success", || {
        (proxy.get("/x").status == 200).then_some(())
    });
}

#[test]
fn a_redirect_elsewhere_passes_and_is_not_followed() {
    let elsewhere = Origin::answering("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
    let location = format!("{}/login", elsewhere.url());
    let answer = format!("HTTP/1.1 302 Found\r\nLocation: {location}\r\nContent-Length: 0\r\n\r\n");
    let origin = Origin::answering(answer);
    let proxy = Proxy::to(&origin.url()).start();
    for request in [
        "GET /x HTTP/1.1\nHost: {host}\n\n",
        "POST /x HTTP/1.1\nHost: {host}\nContent-Length: 2\n\n{}",
    ] {
        let answer = proxy.ask(request);
        assert_eq!(answer.status, 302);
        assert_eq!(answer.header("location"), Some(location.as_str()));
    }
    assert_eq!(origin.requests().len(), 2);
    assert_eq!(elsewhere.accepted(), 0, "no connection is made there");
}

#[test]
fn a_token_that_was_revoked_is_replaced_and_no_app_notices() {
    let simulator = Simulator::start();
    let proxy = Proxy::to(&simulator.url()).start();
    assert_eq!(proxy.get("/x").status, 200);
    simulator.revoke();
    for request in [
        "GET /echo HTTP/1.1\nHost: {host}\n\n",
        "POST /echo HTTP/1.1\nHost: {host}\nContent-Length: 5\n\nhello",
    ] {
        let answer = proxy.ask(request);
        assert_eq!(answer.status, 200, "{}", answer.text());
    }
    assert_eq!(simulator.count("unauthorized"), 1);
    assert_eq!(simulator.of_client("issued"), 2);
}
